//! A served API for tests: real gRPC over a real unix socket in a temporary folder, memory store, plugins that only exist by name.

use super::{
    Context, PortStates,
    binaries::{BinaryCache, BinaryState, BinaryStep, Listed, Verdict},
    daemon::{About, Control},
    orphans::{Orphan, Orphans, Reaped},
    server,
};
use crate::{
    binaries::CachedBinary,
    config::Home,
    holders::Holder,
    model::{BinarySource, Fault, FaultCode, Key, Meta, Node, NodePhase, NodeSpec, NodeStatus, Object},
    observe::Observations,
    plugin::{ChainPlugin, PluginError, PluginState, Plugins, fake::FakePlugin},
    ports::PortLease,
    store::{Limits, MemoryStore, Write},
    sys::SystemClock,
};
use async_trait::async_trait;
use dvb_proto::devnet::v1::{
    self, daemon_service_client::DaemonServiceClient, devnet_service_client::DevnetServiceClient, node_service_client::NodeServiceClient,
    plugin_service_client::PluginServiceClient,
};
use futures::{StreamExt, stream::BoxStream};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::UnixStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

pub(super) struct Served {
    pub(super) cx: Context,
    pub(super) channel: Channel,
    pub(super) socket: PathBuf,
    pub(super) stopped_nodes: Arc<AtomicBool>,
    /// Behind every name that is known.
    pub(super) plugin: Arc<FakePlugin>,
    pub(super) server: JoinHandle<Result<(), server::ServerError>>,
    _dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.cx.shutdown.cancel();
    }
}

pub(super) async fn serve() -> Served {
    serve_with(Limits { changes: 1000, events: 1000 }).await
}

pub(super) async fn serve_with(limits: Limits) -> Served {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("s");
    let stopped_nodes = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(SystemClock);
    let plugin = FakePlugin::new("fake");
    let cx = Context {
        store: Arc::new(MemoryStore::with_limits(clock.clone(), limits)),
        observations: Arc::new(Observations::default()),
        plugins: Arc::new(Named { names: &["cosmos", "commonware", "exec"], plugin: plugin.clone() }),
        clock,
        home: Home::new(dir.path().canonicalize().expect("it is there")),
        ports: Arc::new(Scripted),
        binaries: Arc::new(Scripted),
        control: Arc::new(StopNodes(stopped_nodes.clone())),
        orphans: Arc::new(Scripted),
        about: Arc::new(About { version: "0.0.1".into(), socket: socket.clone(), ..About::default() }),
        shutdown: CancellationToken::new(),
    };
    let listener = server::bind(&socket).await.expect("the socket is bound");
    let server = tokio::spawn(server::serve(cx.clone(), listener));
    let channel = connect(socket.clone()).await;
    Served { cx, channel, socket, stopped_nodes, plugin, server, _dir: dir }
}

pub(super) async fn connect(socket: PathBuf) -> Channel {
    let dial = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://devnetd").connect_with_connector(dial).await.expect("the server accepts")
}

impl Served {
    pub(super) fn devnets(&self) -> DevnetServiceClient<Channel> {
        DevnetServiceClient::new(self.channel.clone())
    }
    pub(super) fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }
    pub(super) fn daemon(&self) -> DaemonServiceClient<Channel> {
        DaemonServiceClient::new(self.channel.clone())
    }
    pub(super) fn plugins(&self) -> PluginServiceClient<Channel> {
        PluginServiceClient::new(self.channel.clone())
    }

    pub(super) async fn apply(&self, devnet: v1::Devnet) -> Result<v1::ApplyResponse, Fault> {
        let request = v1::ApplyRequest { devnet: Some(devnet), dry_run: false, ..Default::default() };
        self.devnets().apply(request).await.map(tonic::Response::into_inner).map_err(|status| fault(&status))
    }

    pub(super) async fn dry_run(&self, devnet: v1::Devnet) -> Result<v1::ApplyResponse, Fault> {
        let request = v1::ApplyRequest { devnet: Some(devnet), dry_run: true, ..Default::default() };
        self.devnets().apply(request).await.map(tonic::Response::into_inner).map_err(|status| fault(&status))
    }

    /// What the controllers will do: `count` running validators of `devnet`.
    pub(super) async fn add_nodes(&self, devnet: &str, count: u32) {
        let writes = (0..count).map(|index| Write::create(node(devnet, index))).collect();
        self.cx.store.commit(writes).await.expect("the devnet is there");
    }

    /// What a controller does: reads, edits, writes.
    pub(super) async fn edit_devnet(&self, name: &str, edit: impl FnOnce(&mut crate::model::Devnet)) {
        let Some(Object::Devnet(devnet)) = self.cx.store.get(&Key::devnet("default", name)).await.expect("the store works") else {
            panic!("{name} is not there");
        };
        let mut devnet = crate::model::Devnet::clone(&devnet);
        edit(&mut devnet);
        self.cx.store.commit(vec![Write::update(devnet)]).await.expect("nobody else writes");
    }

    pub(super) async fn delete_devnet(&self, name: &str) {
        let key = Key::devnet("default", name);
        self.cx.store.commit(vec![Write::Delete { key, expect: crate::store::Expect::Any }]).await.expect("the store works");
    }
}

pub(super) fn node(devnet: &str, index: u32) -> Node {
    let metadata = Meta { name: format!("{devnet}/validator-{index}"), namespace: "default".into(), generation: 1, ..Meta::default() };
    let spec = NodeSpec { devnet_ref: devnet.into(), index, role: "validator".into(), ..NodeSpec::default() };
    Node { metadata, spec, status: NodeStatus { phase: NodePhase::Running, pid: Some(std::process::id()), ..NodeStatus::default() } }
}

/// A valid devnet as a client sends it.
pub(super) fn wanted(name: &str) -> v1::Devnet {
    v1::Devnet {
        metadata: Some(v1::Metadata { name: name.into(), ..v1::Metadata::default() }),
        spec: Some(v1::DevnetSpec { plugin: "cosmos".into(), ..v1::DevnetSpec::default() }),
        ..v1::Devnet::default()
    }
}

pub(super) fn object_ref(name: &str) -> v1::ObjectRef {
    v1::ObjectRef { namespace: String::new(), name: name.into() }
}

pub(super) fn start_request(name: &str) -> v1::StartRequest {
    v1::StartRequest { name: name.into(), ..v1::StartRequest::default() }
}

/// The structured error of a refused call.
pub(super) fn fault(status: &Status) -> Fault {
    let message = v1::Fault::decode(status.details()).expect("details hold a fault");
    assert!(!message.code.is_empty(), "no fault in {status:?}");
    super::convert::from_message(&message).expect("it is one of ours")
}

/// The next item, or a failed test instead of one that hangs.
pub(super) async fn next<T>(stream: &mut tonic::Streaming<T>) -> Option<Result<T, Status>> {
    tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an item within ten seconds")
}

/// One plugin under several names.
struct Named {
    names: &'static [&'static str],
    plugin: Arc<FakePlugin>,
}

impl Named {
    fn check(&self, name: &str) -> Result<(), PluginError> {
        if self.names.contains(&name) {
            return Ok(());
        }
        let nearest = super::nearest(name, self.names.iter().copied());
        Err(PluginError::Missing { name: name.into(), looked_in: vec!["/plugins".into()], nearest })
    }
}

#[async_trait]
impl Plugins for Named {
    async fn get(&self, name: &str) -> Result<Arc<dyn ChainPlugin>, PluginError> {
        self.check(name)?;
        Ok(self.plugin.clone())
    }
    async fn digest(&self, name: &str) -> Result<String, PluginError> {
        self.check(name).map(|()| "00".into())
    }
    async fn list(&self) -> Vec<PluginState> {
        self.names.iter().map(|name| PluginState { name: (*name).into(), state: "Idle".into(), ..PluginState::default() }).collect()
    }
}

/// Ports: one, whose name tells what was asked for. Binaries: one in the cache, and adding a path works. Orphans: none.
struct Scripted;

#[async_trait]
impl PortStates for Scripted {
    async fn states(&self, namespace: Option<&str>, devnet: Option<&str>) -> Result<Vec<PortLease>, Fault> {
        let name = format!("{} {}", namespace.unwrap_or("*"), devnet.unwrap_or("*"));
        Ok(vec![PortLease {
            name,
            port: 26_657,
            state: "taken".into(),
            holder: Some(Holder::Process { pid: 42, program: "geth".into() }),
            ..PortLease::default()
        }])
    }
}

#[async_trait]
impl Orphans for Scripted {
    async fn list(&self) -> Result<Vec<Orphan>, Fault> {
        Ok(Vec::new())
    }
    async fn reap(&self, ids: Vec<String>) -> Result<Vec<Reaped>, Fault> {
        Ok(ids.into_iter().map(|id| Reaped { id, failure: None }).collect())
    }
}

fn cached(digest: &str) -> CachedBinary {
    let now = crate::model::Timestamp::from_millis(0);
    CachedBinary { sha256: digest.into(), source: "path /x".into(), path: "/cache/x".into(), size: 7, added_at: now, used_at: now }
}

#[async_trait]
impl BinaryCache for Scripted {
    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        Ok(vec![Listed { binary: cached("ab"), used_by: ["mynet".to_owned()].into() }])
    }
    fn add(&self, source: BinarySource) -> BoxStream<'static, Result<BinaryStep, Fault>> {
        let done = BinaryStep { message: "copied".into(), done: Some(cached("ab")), log_path: None };
        let steps = match source.path {
            Some(_) => vec![Ok(BinaryStep { message: "copying".into(), ..BinaryStep::default() }), Ok(done)],
            None => vec![Err(Fault::new(FaultCode::BinaryMissing, "no source"))],
        };
        futures::stream::iter(steps).boxed()
    }
    async fn evict(&self, digests: Vec<String>, _: Option<Duration>) -> Result<Vec<CachedBinary>, Fault> {
        Ok(digests.iter().map(|digest| cached(digest)).collect())
    }
    async fn verify(&self, digests: Vec<String>) -> Result<BoxStream<'static, Verdict>, Fault> {
        let fault = Fault::new(FaultCode::BinaryUnusable, "was altered").remedy("evict it");
        let damaged = move |digest: String| Verdict {
            listed: Listed { binary: cached(&digest), used_by: Default::default() },
            fault: Some((BinaryState::Altered, fault.clone())),
        };
        Ok(futures::stream::iter(digests.into_iter().map(damaged).collect::<Vec<_>>()).boxed())
    }
}

struct StopNodes(Arc<AtomicBool>);

#[async_trait]
impl Control for StopNodes {
    async fn prepare_reload(&self) -> Result<String, Fault> {
        Ok("/usr/bin/devnetd (devnetd 9.9.9)".into())
    }

    fn stop_nodes(&self) -> BoxStream<'static, Result<String, Fault>> {
        self.0.store(true, Ordering::SeqCst);
        futures::stream::iter([Ok("stopping 4 nodes".into())]).boxed()
    }
}
