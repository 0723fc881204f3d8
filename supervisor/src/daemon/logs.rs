//! Logs of nodes: tells their caretaker which launches there are, and the nodes' owners what it found.

use super::{Base, furnish::internal};
use crate::{
    config::{Home, LogSettings},
    events::Recorder,
    logs::{Caps, Caretaker, Finding, KeptLog, Limits, Order, RealDisk, Report},
    model::{DevnetSpec, Fault, Key, Kind, Launch, LaunchId, LaunchPhase, Node, NodeOverride, Object, ServiceSpec},
    store::{Selector, Store, StoreError},
};
use futures::{StreamExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{error, warn};

/// How soon launches are listed again when the store fails; each time twice as late, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Until `base.stop` fires.
pub(super) fn keep(base: &Base) -> Result<BoxFuture<'static, ()>, Fault> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let (reports, reported) = mpsc::unbounded_channel();
    let settings = base.settings.logs;
    let caretaker = Caretaker::new(settings.disk_floor.map(|size| size.0), base.clock.clone(), Arc::new(RealDisk), reports);
    let caretaker = caretaker.map_err(|error| {
        internal(format!("cannot watch logs: {error}")).remedy("the kernel may be out of inotify instances: raise fs.inotify.max_user_instances")
    })?;
    let (store, stop) = (base.store.clone(), base.stop.clone());
    let recorder = Recorder::new(base.clock.clone()).acting_as("logs");
    Ok(Box::pin(async move {
        let kept = async {
            if let Err(error) = caretaker.run(ordered, stop.clone()).await {
                error!(%error, "logs are not rotated any more");
            }
        };
        let told = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tell_of_launches(store.as_ref(), &settings, &orders) => {}
            }
        };
        tokio::join!(kept, told, record(store.as_ref(), &recorder, reported));
    }))
}

/// An empty log without a row: its daemon died between making the one and committing the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnusedLog {
    pub(super) launch: LaunchId,
    pub(super) path: PathBuf,
}

/// Before anything is launched: afterwards a log may be a moment older than its row. `launches` are all that there are.
pub(super) fn unused(home: &Home, launches: &[Arc<Launch>]) -> Vec<UnusedLog> {
    let known: BTreeSet<&LaunchId> = launches.iter().map(|launch| &launch.spec.launch_id).collect();
    let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let devnets = below(&home.root().join("devnets")).into_iter().flat_map(|namespace| below(&namespace));
    let logs = devnets.flat_map(|devnet| below(&devnet.join("nodes"))).flat_map(|node| below(&node.join("logs")));
    let unused = logs.filter_map(|path| {
        let launch = LaunchId(path.file_name()?.to_str()?.strip_suffix(".log")?.to_owned());
        let is_unused = !known.contains(&launch) && fs::metadata(&path).is_ok_and(|about| about.is_file() && about.len() == 0);
        is_unused.then_some(UnusedLog { launch, path })
    });
    unused.collect()
}

/// What was told to the caretaker, and what it was made of.
struct Told<'a> {
    settings: &'a LogSettings,
    orders: &'a mpsc::UnboundedSender<Order>,
    /// What each devnet, by namespace and name, says of logs.
    devnets: BTreeMap<(String, String), DevnetSpec>,
    logs: BTreeMap<Arc<Path>, Arc<KeptLog>>,
}

/// All that there are, then each change. Lists again when it falls behind the feed, and later when the store fails.
async fn tell_of_launches(store: &dyn Store, settings: &LogSettings, orders: &mpsc::UnboundedSender<Order>) {
    let mut told = Told { settings, orders, devnets: BTreeMap::new(), logs: BTreeMap::new() };
    let mut pause = RETRY.0;
    loop {
        let begun = Instant::now();
        match told.tell_until_behind(store).await {
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => {
                if begun.elapsed() > RETRY.1 {
                    pause = RETRY.0;
                }
                warn!(%error, "logs of new launches are not rotated until the store can be read again; the next try is in {pause:?}");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
            // The feed has ended.
            Ok(()) => return,
        }
    }
}

impl Told<'_> {
    async fn tell_until_behind(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let kinds = Selector { kinds: vec![Kind::Devnet, Kind::Launch], ..Selector::default() };
        let (objects, revision) = store.list(&kinds).await?;
        let (devnets, launches): (Vec<Object>, Vec<Object>) = objects.into_iter().partition(|object| object.kind() == Kind::Devnet);
        let there: BTreeSet<&str> = launches
            .iter()
            .filter_map(|object| if let Object::Launch(launch) = object { Some(launch.spec.log_path.as_str()) } else { None })
            .collect();
        let gone: Vec<Arc<Path>> = self.logs.keys().filter(|path| !path.to_str().is_some_and(|path| there.contains(path))).cloned().collect();
        gone.into_iter().for_each(|path| self.forget(path));
        for object in devnets.into_iter().chain(launches) {
            self.hear(object, false);
        }
        let mut feed = store.watch(kinds, revision);
        while let Some(change) = feed.next().await {
            let change = change?;
            self.hear(change.object, change.deleted);
        }
        Ok(())
    }

    fn hear(&mut self, object: Object, deleted: bool) {
        match object {
            Object::Devnet(devnet) => {
                let key = (devnet.metadata.namespace.clone(), devnet.metadata.name.clone());
                match deleted {
                    true => drop(self.devnets.remove(&key)),
                    false => self.hear_of_caps(key, of_logs(&devnet.spec)),
                }
            }
            Object::Launch(launch) if deleted => self.forget(Arc::from(Path::new(&launch.spec.log_path))),
            Object::Launch(launch) => self.keep(self.kept(&launch)),
            _ => {}
        }
    }

    /// Its logs are held to them from now on, without a restart of anything.
    fn hear_of_caps(&mut self, key: (String, String), spec: DevnetSpec) {
        if self.devnets.get(&key) == Some(&spec) {
            return;
        }
        let of_devnet = |log: &&Arc<KeptLog>| log.node.namespace == key.0 && log.node.name.split('/').next() == Some(key.1.as_str());
        let logs: Vec<Arc<KeptLog>> = self.logs.values().filter(of_devnet).cloned().collect();
        self.devnets.insert(key, spec);
        for log in logs {
            let limits = self.limits(&log.node);
            if limits != log.limits {
                self.keep(KeptLog { limits, ..KeptLog::clone(&log) });
            }
        }
    }

    fn keep(&mut self, log: KeptLog) {
        let log = Arc::new(log);
        self.logs.insert(log.path.clone(), log.clone());
        let _ = self.orders.send(Order::Keep(log)); // the caretaker has ended, and said so
    }

    fn forget(&mut self, path: Arc<Path>) {
        self.logs.remove(&path);
        let _ = self.orders.send(Order::Forget(path)); // see `keep`
    }

    fn kept(&self, launch: &Launch) -> KeptLog {
        let node = Key::node(&launch.metadata.namespace, &launch.spec.node_ref);
        KeptLog {
            path: Arc::from(Path::new(&launch.spec.log_path)),
            limits: self.limits(&node),
            node,
            launch: launch.spec.launch_id.clone(),
            running: launch.status.phase != LaunchPhase::Ended,
            forked: launch.status.phase != LaunchPhase::Intended,
        }
    }

    /// What the node's devnet says, else the settings. No cap is below the size at which a file is rotated: then that is lower, too.
    fn limits(&self, node: &Key) -> Limits {
        let (devnet, short) = node.name.split_once('/').unwrap_or((&node.name, ""));
        let spec = self.devnets.get(&(node.namespace.clone(), devnet.to_owned())).map(|spec| spec.logs(short)).unwrap_or_default();
        let LogSettings { rotate, node, devnet, age, .. } = self.settings;
        let caps = Caps { node_bytes: spec.node.unwrap_or(*node).0, devnet_bytes: spec.devnet.unwrap_or(*devnet).0, age: spec.age.unwrap_or(*age).0 };
        Limits { rotate: spec.rotate.unwrap_or(*rotate).0.min(caps.node_bytes).min(caps.devnet_bytes), caps }
    }
}

/// What a spec says of logs, and nothing else: a devnet's status changes often.
fn of_logs(spec: &DevnetSpec) -> DevnetSpec {
    let node = |node: &NodeOverride| NodeOverride { name: node.name.clone(), logs: node.logs.clone(), ..NodeOverride::default() };
    let service = |service: &ServiceSpec| ServiceSpec { name: service.name.clone(), logs: service.logs.clone(), ..ServiceSpec::default() };
    DevnetSpec {
        logs: spec.logs.clone(),
        nodes: spec.nodes.iter().filter(|node| node.logs.is_some()).map(node).collect(),
        services: spec.services.iter().filter(|service| service.logs.is_some()).map(service).collect(),
        ..DevnetSpec::default()
    }
}

/// What a node's owner should know becomes an event of the node.
async fn record(store: &dyn Store, recorder: &Recorder, mut reports: mpsc::UnboundedReceiver<Report>) {
    while let Some(Report { log, finding }) = reports.recv().await {
        warn!(log = %log.path.display(), "{}", sentence(&log, &finding));
        let node: Option<Arc<Node>> = store.get(&log.node).await.ok().flatten().and_then(|object| object.try_into().ok());
        let Some(node) = node else { continue };
        let event = recorder.about(&Object::Node(node.clone()), reason(&finding)).message(sentence(&log, &finding)).launch(&log.launch).warning();
        if let Err(error) = store.commit(vec![event.parent(node.status.cause.clone()).write()]).await {
            warn!(%error, node = node.metadata.name, "what became of its log is not on record");
        }
    }
}

fn reason(finding: &Finding) -> &'static str {
    match finding {
        Finding::Lost { .. } => "LogLost",
        Finding::Deleted => "LogDeleted",
        Finding::CannotRotate => "LogNotRotated",
        Finding::Failed(_) => "LogFailed",
    }
}

fn sentence(log: &KeptLog, finding: &Finding) -> String {
    match finding {
        Finding::Lost { from, to, cause } => format!("{} bytes of its log (offsets {from} to {to}) {cause}", to - from),
        Finding::Deleted => format!(
            "somebody deleted or replaced its log {}; what it writes takes room on the disk and cannot be read until it is restarted: dvbctl restart {}",
            log.path.display(),
            log.node.name
        ),
        Finding::CannotRotate => format!(
            "the file system of {} cannot punch holes, so the log grows until the node is restarted, or is emptied when the disk is almost full",
            log.path.display()
        ),
        Finding::Failed(error) => format!("its log is not kept within its limits: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        logs::LossCause,
        model::{ByteSize, Devnet, DevnetSpec, DevnetStatus, LaunchRecord, LaunchStatus, LogsSpec, Meta, NodeSpec, Span},
        store::{EventFilter, MemoryStore, Write, ailing::Ailing},
        sys::SystemClock,
    };

    fn meta(name: &str) -> Meta {
        Meta { name: name.into(), namespace: "default".into(), ..Meta::default() }
    }

    fn launch(id: &str, phase: LaunchPhase) -> Launch {
        let spec =
            LaunchRecord { node_ref: "n/a".into(), launch_id: LaunchId(id.into()), log_path: format!("/logs/{id}.log"), ..LaunchRecord::default() };
        Launch { metadata: meta(&format!("n/a@{id}")), spec: spec.into(), status: LaunchStatus { phase, ..LaunchStatus::default() } }
    }

    #[test]
    fn an_empty_log_without_a_row_is_unused_and_one_with_text_or_a_row_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let logs = home.node_logs("default", "n", "a");
        fs::create_dir_all(logs.join("l1.log.d")).unwrap();
        for (name, text) in [("l1.log", ""), ("l2.log", ""), ("l3.log", "what an earlier store's launch wrote")] {
            fs::write(logs.join(name), text).unwrap();
        }
        let found = unused(&home, &[launch("l1", LaunchPhase::Ended).into()]);
        assert_eq!(found, [UnusedLog { launch: LaunchId("l2".into()), path: logs.join("l2.log") }]);
    }

    async fn store() -> Arc<dyn Store> {
        let store = MemoryStore::new(Arc::new(SystemClock));
        let devnet = Devnet { metadata: meta("n"), spec: DevnetSpec::default(), status: DevnetStatus::default() };
        let node = Node { metadata: meta("n/a"), spec: NodeSpec { devnet_ref: "n".into(), ..NodeSpec::default() }, status: Default::default() };
        store.commit(vec![Write::create(devnet), Write::create(node)]).await.unwrap();
        Arc::new(store)
    }

    fn told(order: Option<Order>) -> String {
        match order.unwrap() {
            Order::Keep(log) => format!("keep {} {}", log.launch, if log.running { "running" } else { "over" }),
            Order::Forget(path) => format!("forget {}", path.display()),
        }
    }

    #[tokio::test]
    async fn the_caretaker_hears_of_launches_from_their_intent_to_their_removal() {
        let store = store().await;
        store.commit(vec![Write::create(launch("l1", LaunchPhase::Ended))]).await.unwrap();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let feed = store.clone();
        let telling = tokio::spawn(async move { tell_of_launches(feed.as_ref(), &LogSettings::default(), &orders).await });
        assert_eq!(told(ordered.recv().await), "keep l1 over");
        store.commit(vec![Write::create(launch("l2", LaunchPhase::Intended))]).await.unwrap();
        assert_eq!(told(ordered.recv().await), "keep l2 running");
        store
            .commit(vec![Write::Delete { key: Object::from(launch("l1", LaunchPhase::Ended)).key(), expect: crate::store::Expect::Any }])
            .await
            .unwrap();
        assert_eq!(told(ordered.recv().await), "forget /logs/l1.log");
        telling.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_caretaker_hears_of_launches_again_when_the_store_can_be_read_again() {
        let store = Arc::new(Ailing::reads(store().await, 12, 1));
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let feed = store.clone();
        let telling = tokio::spawn(async move { tell_of_launches(feed.as_ref(), &LogSettings::default(), &orders).await });
        store.commit(vec![Write::create(launch("l1", LaunchPhase::Running))]).await.unwrap();
        assert_eq!(told(ordered.recv().await), "keep l1 running");
        store.commit(vec![Write::create(launch("l2", LaunchPhase::Running))]).await.unwrap();
        // The feed gives it and fails, then the list gives both anew.
        let mut then = Vec::new();
        for _ in 0..3 {
            then.push(told(ordered.recv().await));
        }
        assert_eq!(then, ["keep l2 running", "keep l1 running", "keep l2 running"]);
        store.commit(vec![Write::create(launch("l3", LaunchPhase::Running))]).await.unwrap();
        assert_eq!(told(ordered.recv().await), "keep l3 running");
        telling.abort();
    }

    #[tokio::test]
    async fn caps_of_a_spec_reach_the_caretaker_without_a_restart_and_others_changes_do_not() {
        let store = store().await;
        store.commit(vec![Write::create(launch("l1", LaunchPhase::Running))]).await.unwrap();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let feed = store.clone();
        let telling = tokio::spawn(async move { tell_of_launches(feed.as_ref(), &LogSettings::default(), &orders).await });
        let mut limits = async || match ordered.recv().await.unwrap() {
            Order::Keep(log) => log.limits,
            Order::Forget(path) => panic!("forget {}", path.display()),
        };
        let set = async |edit: &dyn Fn(&mut Devnet)| {
            let present = store.get(&Key::new(Kind::Devnet, "default", "n")).await.unwrap().unwrap();
            let mut devnet = Devnet::clone(&Arc::<Devnet>::try_from(present).unwrap());
            edit(&mut devnet);
            store.commit(vec![Write::update(devnet)]).await.unwrap();
        };
        let size = |mib: u64| Some(ByteSize(mib << 20));
        let defaults = limits().await;
        assert_eq!((defaults.rotate, defaults.caps.node_bytes, defaults.caps.devnet_bytes), (10 << 20, 200 << 20, 1 << 30));
        set(&|devnet| devnet.status.ready_nodes = 1).await;
        set(&|devnet| devnet.spec.logs = Some(LogsSpec { node: size(5), age: Some(Span::secs(90)), ..LogsSpec::default() })).await;
        let all = limits().await;
        assert_eq!((all.rotate, all.caps.node_bytes, all.caps.devnet_bytes), (5 << 20, 5 << 20, 1 << 30), "it is rotated before it fills its cap");
        assert_eq!(all.caps.age.as_secs(), 90);
        let own = LogsSpec { rotate: size(1), ..LogsSpec::default() };
        set(&|devnet| devnet.spec.services = vec![ServiceSpec { name: "a".into(), logs: Some(own.clone()), ..ServiceSpec::default() }].into()).await;
        assert_eq!(limits().await, Limits { rotate: 1 << 20, ..all }, "the rest is as the devnet says");
        set(&|devnet| devnet.spec = DevnetSpec::default()).await;
        assert_eq!(limits().await, defaults);
        telling.abort();
    }

    #[tokio::test]
    async fn what_was_lost_is_an_event_of_the_node_with_offsets_and_reason() {
        let store = store().await;
        let (reports, reported) = mpsc::unbounded_channel();
        let (orders, _) = mpsc::unbounded_channel();
        let told = Told { settings: &LogSettings::default(), orders: &orders, devnets: BTreeMap::new(), logs: BTreeMap::new() };
        let log = told.kept(&launch("l1", LaunchPhase::Running));
        reports.send(Report { log: log.into(), finding: Finding::Lost { from: 100, to: 5_100, cause: LossCause::Disk } }).unwrap();
        drop(reports);
        record(store.as_ref(), &Recorder::new(Arc::new(SystemClock)), reported).await;
        let events = store.events(&EventFilter::default()).await.unwrap();
        let message = "5000 bytes of its log (offsets 100 to 5100) dropped because the disk was almost full";
        assert_eq!((events[0].reason.as_str(), events[0].message.as_str(), events[0].name.as_str()), ("LogLost", message, "n/a"));
        assert_eq!(events[0].launch_id, Some(LaunchId("l1".into())));
    }
}
