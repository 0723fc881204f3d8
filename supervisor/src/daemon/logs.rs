//! Logs of nodes: tells their caretaker which launches there are, and the nodes' owners what it found.

use super::{Base, furnish::internal};
use crate::{
    config::LogSettings,
    events::Recorder,
    logs::{Caps, Caretaker, Finding, KeepLimits, KeptLog, Order, RealDisk, Report},
    model::{Fault, Key, Kind, Launch, LaunchPhase, Node, Object},
    store::{Selector, Store, StoreError},
};
use futures::{StreamExt, future::BoxFuture};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};
use tokio::sync::mpsc;
use tracing::{error, warn};

/// Until `base.stop` fires.
pub(super) fn keep(base: &Base) -> Result<BoxFuture<'static, ()>, Fault> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let (reports, reported) = mpsc::unbounded_channel();
    let caretaker = Caretaker::new(limits(&base.settings.logs), base.clock.clone(), Arc::new(RealDisk), reports);
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
                () = tell_of_launches(store.as_ref(), &orders) => {}
            }
        };
        tokio::join!(kept, told, record(store.as_ref(), &recorder, reported));
    }))
}

fn limits(settings: &LogSettings) -> KeepLimits {
    let caps = Caps { node_bytes: settings.node.0, devnet_bytes: settings.devnet.0, age: settings.age.0 };
    KeepLimits { rotate: settings.rotate.0, caps, disk_floor: settings.disk_floor.map(|size| size.0) }
}

/// All that there are, then each change. Lists again when it falls behind the feed.
async fn tell_of_launches(store: &dyn Store, orders: &mpsc::UnboundedSender<Order>) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    loop {
        match tell_until_behind(store, orders, &mut known).await {
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => return error!(%error, "logs of new launches are not rotated any more"),
            // The feed or the caretaker has ended.
            Ok(()) => return,
        }
    }
}

async fn tell_until_behind(store: &dyn Store, orders: &mpsc::UnboundedSender<Order>, known: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
    let (objects, revision) = store.list(&Selector::kind(Kind::Launch)).await?;
    let launches: Vec<KeptLog> = objects.into_iter().filter_map(|object| Arc::<Launch>::try_from(object).ok()).map(|launch| kept(&launch)).collect();
    let there: BTreeSet<PathBuf> = launches.iter().map(|log| log.path.clone()).collect();
    let gone = std::mem::take(known).into_iter().filter(|path| !there.contains(path)).map(Order::Forget);
    for order in gone.chain(launches.into_iter().map(Order::Keep)) {
        let _ = orders.send(order); // the caretaker has ended, and said so
    }
    *known = there;
    let mut feed = store.watch(Selector::kind(Kind::Launch), revision);
    while let Some(change) = feed.next().await {
        let change = change?;
        let Object::Launch(launch) = change.object else { continue };
        let log = kept(&launch);
        let order = if change.deleted {
            known.remove(&log.path);
            Order::Forget(log.path)
        } else {
            known.insert(log.path.clone());
            Order::Keep(log)
        };
        if orders.send(order).is_err() {
            break;
        }
    }
    Ok(())
}

fn kept(launch: &Launch) -> KeptLog {
    KeptLog {
        path: PathBuf::from(&launch.spec.log_path),
        node: Key::node(&launch.metadata.namespace, &launch.spec.node_ref),
        launch: launch.spec.launch_id.clone(),
        running: launch.status.phase != LaunchPhase::Ended,
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
            "somebody deleted its log {}; what it writes takes room on the disk and cannot be read until it is restarted: dvbctl restart {}",
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
        model::{Devnet, DevnetSpec, DevnetStatus, LaunchId, LaunchRecord, LaunchStatus, Meta, NodeSpec},
        store::{EventFilter, MemoryStore, Write},
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
        let telling = tokio::spawn(async move { tell_of_launches(feed.as_ref(), &orders).await });
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

    #[tokio::test]
    async fn what_was_lost_is_an_event_of_the_node_with_offsets_and_reason() {
        let store = store().await;
        let (reports, reported) = mpsc::unbounded_channel();
        let log = kept(&launch("l1", LaunchPhase::Running));
        reports.send(Report { log, finding: Finding::Lost { from: 100, to: 5_100, cause: LossCause::Disk } }).unwrap();
        drop(reports);
        record(store.as_ref(), &Recorder::new(Arc::new(SystemClock)), reported).await;
        let events = store.events(&EventFilter::default()).await.unwrap();
        let message = "5000 bytes of its log (offsets 100 to 5100) dropped because the disk was almost full";
        assert_eq!((events[0].reason.as_str(), events[0].message.as_str(), events[0].name.as_str()), ("LogLost", message, "n/a"));
        assert_eq!(events[0].launch_id, Some(LaunchId("l1".into())));
    }
}
