//! The controllers on fakes: the real manager over a memory store, with a runtime and a plugin that a test steers.

use super::{
    Context, ControllerKind, Manager, devnet::DevnetController, export::ExportController, health::HealthController, node::NodeController,
    transaction::TransactionController, upgrade::UpgradeController,
};
use crate::{
    binaries::Binaries,
    config::Home,
    events::Recorder,
    model::{Devnet, DevnetPhase, DevnetSpec, Event, Exit, Key, Kind, Launch, Meta, Node, NodePhase, Object, ServiceSpec, Span, Timestamp, Uid},
    observe::Observations,
    plugin::{
        Health,
        fake::{FakePlugin, FakePlugins},
    },
    ports::Ports,
    runtime::fake::FakeRuntime,
    store::{EventFilter, MemoryStore, Selector, Store, StoreError, Write},
    sys::{Clock, SystemClock},
};
use futures::StreamExt;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A state that does not come within this is a failed test.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const NS: &str = "default";
pub(super) const NET: &str = "net";

/// One home with its daemon's controllers. The devnet of a rig is always `net`.
pub(super) struct Rig {
    pub(super) store: Arc<dyn Store>,
    pub(super) runtime: FakeRuntime,
    pub(super) plugin: Arc<FakePlugin>,
    pub(super) observations: Arc<Observations>,
    pub(super) home: Home,
    /// How many finished transactions are kept.
    pub(super) keep: usize,
    pub(super) plugins: Arc<FakePlugins>,
    ports: Arc<Ports>,
    clock: Arc<dyn Clock>,
    daemon: Option<(JoinHandle<Result<(), StoreError>>, CancellationToken)>,
    dir: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some((_, shutdown)) = &self.daemon {
            shutdown.cancel();
        }
    }
}

impl Rig {
    /// With its controllers running and every validator ready as soon as it is started.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let plugin = FakePlugin::new("fake");
        for index in 0..4 {
            plugin.set_health(&format!("validator-{index}"), Health { ready: true, height: 1, ..Health::default() });
        }
        let mut rig = Self {
            runtime: FakeRuntime::new(clock.clone()),
            plugins: FakePlugins::with([plugin.clone()]),
            plugin,
            observations: Arc::default(),
            home: Home::new(dir.path().canonicalize().unwrap()),
            keep: 1_000,
            ports: Arc::new(Ports::new(store.clone(), clock.clone(), dir.path().display().to_string())),
            store,
            clock,
            daemon: None,
            dir,
        };
        rig.start_daemon();
        rig
    }

    pub(super) fn start_daemon(&mut self) {
        let (mut manager, wake) = Manager::new();
        manager.register(ControllerKind::Devnet, Arc::new(DevnetController::default()));
        manager.register(ControllerKind::Node, Arc::new(NodeController::default()));
        manager.register(ControllerKind::Health, Arc::new(HealthController::default()));
        manager.register(ControllerKind::Transaction, Arc::new(TransactionController::new(self.keep)));
        manager.register(ControllerKind::Upgrade, Arc::new(UpgradeController::default()));
        manager.register(ControllerKind::Export, Arc::new(ExportController::default()));
        let cx = Context {
            store: self.store.clone(),
            runtime: Arc::new(self.runtime.clone()),
            plugins: self.plugins.clone(),
            ports: self.ports.clone(),
            binaries: Arc::new(Binaries::with_environment(&self.home, self.clock.clone(), self.tools())),
            observations: self.observations.clone(),
            clock: self.clock.clone(),
            home: self.home.clone(),
            wake,
        };
        let shutdown = CancellationToken::new();
        self.daemon = Some((tokio::spawn(manager.run(cx, shutdown.clone())), shutdown));
    }

    fn tools(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("PATH".into(), format!("{}:/usr/bin:/bin", self.home.root().join("tools").display()))])
    }

    /// A build tool of this rig alone. Another process writes it: a descriptor of ours, inherited by a fork of a test beside us,
    /// would keep it from being run.
    pub(super) fn tool(&self, name: &str, script: &str) {
        let dir = self.home.root().join("tools");
        std::fs::create_dir_all(&dir).unwrap();
        let write = r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#;
        let written = crate::sys::command("/bin/sh").args(["-c", write, "sh"]).arg(dir.join(name)).arg(script).status().unwrap();
        assert!(written.success());
    }

    /// Nothing runs any more; launches live on in the runtime.
    pub(super) async fn stop_daemon(&mut self) {
        let (task, shutdown) = self.daemon.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    /// As the API does it: defaults filled in, with the event of the request. Two validators; a back-off of 20 ms.
    pub(super) async fn create(&self, edit: impl FnOnce(&mut DevnetSpec)) {
        let mut spec = DevnetSpec {
            plugin: "fake".into(),
            chain_id: Some("net-1".into()),
            validators: Some(2),
            seed: Some(self.clock.fresh_id().to_string()), // keys are leased machine-wide, and tests run side by side
            localhost: Some(false),
            ..DevnetSpec::default()
        };
        spec.restart.backoff = Some(Span::millis(20));
        edit(&mut spec);
        let metadata = Meta { name: NET.into(), namespace: NS.into(), uid: Uid("uid".into()), generation: 1, ..Meta::default() };
        let mut devnet = Devnet { metadata, spec, status: Default::default() };
        let event = self.request(&key(), "Created");
        devnet.status.cause = Some(event.id.clone());
        self.store.commit(vec![Write::Event(Box::new(event)), Write::create(devnet)]).await.unwrap();
    }

    /// A user's change of the devnet, as the API does it.
    pub(super) async fn change(&self, edit: impl Fn(&mut Devnet)) {
        loop {
            let mut devnet = Devnet::clone(&self.devnet().await.expect("there is a devnet to change"));
            edit(&mut devnet);
            devnet.metadata.generation += 1;
            let event = self.request(&key(), "Changed");
            devnet.status.cause = Some(event.id.clone());
            match self.store.commit(vec![Write::Event(Box::new(event)), Write::update(devnet)]).await {
                Err(StoreError::Conflict { .. }) => {}
                result => {
                    result.unwrap();
                    return;
                }
            }
        }
    }

    /// A user's change of one node, as the API does it.
    pub(super) async fn change_node(&self, short: &str, edit: impl Fn(&mut Node)) {
        loop {
            let mut node = Node::clone(&self.node(short).await.expect("there is a node to change"));
            edit(&mut node);
            node.metadata.generation += 1;
            let event = self.request(&node_key(short), "Changed");
            node.status.cause = Some(event.id.clone());
            match self.store.commit(vec![Write::Event(Box::new(event)), Write::update(node)]).await {
                Err(StoreError::Conflict { .. }) => {}
                result => {
                    result.unwrap();
                    return;
                }
            }
        }
    }

    pub(super) async fn delete(&self) {
        self.change(|devnet| devnet.metadata.deleted_at = Some(Timestamp::from_millis(1))).await;
    }

    fn request(&self, subject: &Key, reason: &str) -> Event {
        Recorder::new(self.clock.clone()).acting_as("user:1000").event(subject, reason).build()
    }

    pub(super) async fn devnet(&self) -> Option<Arc<Devnet>> {
        self.store.get(&key()).await.unwrap().and_then(|object| object.try_into().ok())
    }
    pub(super) async fn node(&self, short: &str) -> Option<Arc<Node>> {
        self.store.get(&node_key(short)).await.unwrap().and_then(|object| object.try_into().ok())
    }
    /// Of one node, oldest first.
    pub(super) async fn launches(&self, short: &str) -> Vec<Arc<Launch>> {
        let (objects, _) = self.store.list(&Selector::in_devnet(Kind::Launch, NS, NET)).await.unwrap();
        let launches = objects.into_iter().filter_map(|object| Arc::<Launch>::try_from(object).ok());
        let mut launches: Vec<_> = launches.filter(|launch| launch.spec.node_ref == node_key(short).name).collect();
        launches.sort_by_key(|launch| launch.spec.launch_id.clone());
        launches
    }
    pub(super) async fn events(&self) -> Vec<Event> {
        self.store.events(&EventFilter::default()).await.unwrap()
    }

    pub(super) async fn devnet_until(&self, what: &str, good: impl Fn(&Devnet) -> bool) -> Arc<Devnet> {
        self.until(&key(), what, good).await
    }
    pub(super) async fn node_until(&self, short: &str, what: &str, good: impl Fn(&Node) -> bool) -> Arc<Node> {
        self.until(&node_key(short), what, good).await
    }
    pub(super) async fn phase(&self, phase: DevnetPhase) -> Arc<Devnet> {
        self.devnet_until(&format!("the devnet is {phase:?}"), |devnet| {
            devnet.status.phase == phase && devnet.status.observed_generation == devnet.metadata.generation
        })
        .await
    }
    pub(super) async fn node_phase(&self, short: &str, phase: NodePhase) -> Arc<Node> {
        self.node_until(short, &format!("{short} is {phase:?}"), |node| node.status.phase == phase).await
    }
    /// Creates a devnet and waits until it runs.
    pub(super) async fn running(edit: impl FnOnce(&mut DevnetSpec)) -> Self {
        let rig = Self::new();
        rig.create(edit).await;
        rig.phase(DevnetPhase::Running).await;
        rig
    }
    /// Ends the process of a node that runs, as if by itself.
    pub(super) async fn kill(&self, short: &str, exit: Exit) {
        let id = self.node(short).await.unwrap().status.launch_id.clone().unwrap();
        assert!(self.runtime.exit(&id, exit), "{short} has a live process");
    }

    /// The object as soon as `good` says so, by the store's feed.
    pub(super) async fn until<T: Debug>(&self, key: &Key, what: &str, good: impl Fn(&T) -> bool) -> Arc<T>
    where
        Arc<T>: TryFrom<Object>,
    {
        let selector = selector(key);
        let (objects, from) = self.store.list(&selector).await.unwrap();
        let mut last = objects.into_iter().next().and_then(|object| Arc::<T>::try_from(object).ok());
        let mut changes = self.store.watch(selector, from);
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(object) = last.as_ref().filter(|object| good(object)) {
                    return object.clone();
                }
                let change = changes.next().await.expect("the feed goes on").unwrap();
                last = Arc::<T>::try_from(change.object).ok();
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("it does not come to this: {what}; last: {last:#?}"))
    }

    pub(super) async fn gone(&self, key: &Key) {
        let (objects, from) = self.store.list(&selector(key)).await.unwrap();
        if objects.is_empty() {
            return;
        }
        let mut changes = self.store.watch(selector(key), from);
        let gone = async { while !changes.next().await.expect("the feed goes on").unwrap().deleted {} };
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{key} is not removed: {objects:#?}"));
    }

    /// No object, process or file of the devnet is left.
    pub(super) async fn assert_nothing_left(&self) {
        let (objects, _) = self.store.list(&Selector::default()).await.unwrap();
        assert!(objects.is_empty(), "{objects:#?}");
        assert!(self.runtime.live().is_empty());
        assert!(!self.home.devnet(NS, NET).exists());
        assert!(self.dir.path().exists());
    }
}

fn selector(key: &Key) -> Selector {
    Selector { namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), ..Selector::kind(key.kind) }
}

pub(super) fn key() -> Key {
    Key::devnet(NS, NET)
}

pub(super) fn node_key(short: &str) -> Key {
    Key::node(NS, &format!("{NET}/{short}"))
}

/// A service that is ready as soon as its process exists.
pub(super) fn service(name: &str) -> ServiceSpec {
    ServiceSpec { name: name.into(), command: vec!["/bin/true".into()], ports: BTreeMap::from([("web".into(), 8_000)]), ..ServiceSpec::default() }
}
