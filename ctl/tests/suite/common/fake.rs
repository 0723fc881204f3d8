//! The fake's world and its services. A verb changes the world by the script; watches tell it.

mod devnets;
mod nodes;

use dvb_proto::devnet::v1::{
    self as v1, daemon_service_server as ds, devnet_service_server as dn, node_service_server as ns, plugin_service_server as ps,
};
use futures::{Stream, StreamExt, stream};
use prost::Message;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::UnixListener, sync::broadcast};
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};

type Reply<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What happens to a devnet that is applied, started, reset ...
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Script {
    #[default]
    Runs,
    Fails,
    Hangs,
    /// Runs, and the watch of its nodes is slower than the one of devnets.
    NodesUntold,
}

#[derive(Default)]
pub struct World {
    pub devnets: BTreeMap<String, v1::Devnet>,
    pub nodes: BTreeMap<String, v1::Node>,
    pub events: Vec<v1::Event>,
    pub logs: Vec<v1::LogEntry>,
    /// The first to follow them falls behind after so many entries.
    pub falls_behind: Option<usize>,
    pub script: Script,
    /// Apply answers with it.
    pub refuse: Option<(Code, v1::Fault)>,
    pub requests: Vec<String>,
    pub version: u64,
}

impl World {
    pub fn put_devnet(&mut self, devnet: v1::Devnet) {
        self.devnets.insert(devnet.metadata.as_ref().unwrap().name.clone(), devnet);
    }
    pub fn put_node(&mut self, node: v1::Node) {
        self.nodes.insert(node.metadata.as_ref().unwrap().name.clone(), node);
    }
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a few of them in a test")]
enum Told {
    Devnet(v1::DevnetEvent),
    Node(v1::NodeEvent),
    /// Ends all watches, as a restart of the daemon would.
    Broken,
}

#[derive(Clone)]
pub struct Fake(Arc<Inner>);

pub struct Inner {
    pub world: Mutex<World>,
    home: PathBuf,
    feed: broadcast::Sender<Told>,
    pub shutdown: tokio::sync::Notify,
}

impl std::ops::Deref for Fake {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

pub async fn serve(fake: Fake, listener: UnixListener) -> Result<(), tonic::transport::Error> {
    let (done, home) = (fake.clone(), fake.home.to_string_lossy().into_owned());
    let of_this_home = move |request: Request<()>| {
        let meant = request.metadata().get_bin(dvb_proto::endpoint::HOME_KEY).map(|meant| meant.to_bytes().unwrap());
        match meant.filter(|meant| meant.as_ref() != home.as_bytes()) {
            Some(meant) => Err(wrong_home(&home, &String::from_utf8_lossy(&meant))),
            None => Ok(request),
        }
    };
    Server::builder()
        .layer(tonic::service::InterceptorLayer::new(of_this_home))
        .add_service(dn::DevnetServiceServer::new(fake.clone()))
        .add_service(ns::NodeServiceServer::new(fake.clone()))
        .add_service(ps::PluginServiceServer::new(fake.clone()))
        .add_service(ds::DaemonServiceServer::new(fake))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move { done.shutdown.notified().await })
        .await
}

pub fn fault(code: Code, fault: &v1::Fault) -> Status {
    Status::with_details(code, fault.message.clone(), fault.encode_to_vec().into())
}

fn wrong_home(home: &str, meant: &str) -> Status {
    let message = format!("this devnetd serves the home {home}, not {meant}");
    fault(Code::FailedPrecondition, &v1::Fault { code: "HomeMismatch".into(), message, ..v1::Fault::default() })
}

fn not_found(name: &str) -> Status {
    let message = format!("`{name}` does not exist");
    fault(
        Code::NotFound,
        &v1::Fault {
            code: "NotFound".into(),
            message,
            subject: Some(name.into()),
            remedy: Some("dvbctl get devnets".into()),
            ..v1::Fault::default()
        },
    )
}

impl Fake {
    pub fn new(world: World, home: PathBuf) -> Self {
        let world = World { version: 100, ..world };
        Self(Arc::new(Inner { world: Mutex::new(world), home, feed: broadcast::channel(256).0, shutdown: tokio::sync::Notify::new() }))
    }

    pub fn requests(&self) -> Vec<String> {
        self.world.lock().unwrap().requests.clone()
    }

    pub fn break_watches(&self) {
        let _ = self.feed.send(Told::Broken);
    }

    /// Changes one devnet, and tells the watches.
    pub fn change(&self, name: &str, edit: impl FnOnce(&mut v1::Devnet)) -> Result<v1::Devnet, Status> {
        let mut world = self.world.lock().unwrap();
        world.version += 1;
        let version = world.version;
        let devnet = world.devnets.get_mut(name).ok_or_else(|| not_found(name))?;
        edit(devnet);
        devnet.metadata.as_mut().unwrap().resource_version = version;
        let devnet = devnet.clone();
        let _ = self.feed.send(Told::Devnet(v1::DevnetEvent { r#type: "MODIFIED".into(), object: Some(devnet.clone()), resource_version: version }));
        Ok(devnet)
    }

    pub fn change_node(&self, name: &str, edit: impl FnOnce(&mut v1::Node)) -> Result<v1::Node, Status> {
        let mut world = self.world.lock().unwrap();
        world.version += 1;
        let version = world.version;
        let node = world.nodes.get_mut(name).ok_or_else(|| not_found(name))?;
        edit(node);
        let node = node.clone();
        let _ = self.feed.send(Told::Node(v1::NodeEvent { r#type: "MODIFIED".into(), object: Some(node.clone()), resource_version: version }));
        Ok(node)
    }

    pub fn remove(&self, name: &str) {
        let mut world = self.world.lock().unwrap();
        world.version += 1;
        let version = world.version;
        world.nodes.retain(|node, _| !node.starts_with(&format!("{name}/")));
        let object = world.devnets.remove(name);
        let _ = self.feed.send(Told::Devnet(v1::DevnetEvent { r#type: "DELETED".into(), object, resource_version: version }));
    }

    fn log(&self, request: impl Into<String>) {
        self.world.lock().unwrap().requests.push(request.into());
    }

    /// The controllers' part, by the script: on its way, then where it should be (or not).
    fn reconcile(&self, name: String) {
        let script = self.world.lock().unwrap().script;
        let this = self.clone();
        tokio::spawn(async move {
            let pause = || tokio::time::sleep(Duration::from_millis(20));
            pause().await;
            let _ = this.change(&name, |devnet| devnet.status.get_or_insert_default().phase = "Provisioning".into());
            pause().await;
            let phase = match script {
                Script::Runs | Script::NodesUntold => "Running",
                Script::Fails => "Failed",
                Script::Hangs => return,
            };
            for index in 0..2 {
                let node = super::node(&name, index, if index == 0 { phase } else { "Running" });
                let full = node.metadata.as_ref().unwrap().name.clone();
                this.world.lock().unwrap().put_node(node);
                if script != Script::NodesUntold {
                    let _ = this.change_node(&full, |_| {});
                }
            }
            pause().await;
            let _ = this.change(&name, |devnet| {
                let spec = devnet.spec.clone().unwrap_or_default();
                let stopped = spec.desired.as_deref() == Some("stopped");
                let status = devnet.status.get_or_insert_default();
                let done = super::devnet(&name, if stopped { "Stopped" } else { phase }).status.unwrap();
                let generation = devnet.metadata.as_ref().unwrap().generation;
                *status = v1::DevnetStatus { observed_generation: generation, operations: spec.operations, ..done };
                if script == Script::Fails {
                    status.conditions.push(v1::Condition {
                        r#type: "Ready".into(),
                        status: "False".into(),
                        message: "mynet/validator-0 does not start".into(),
                        remedy: Some("mend the flag".into()),
                        ..v1::Condition::default()
                    });
                }
            });
        });
    }

    fn verb(&self, request: &v1::ObjectRef, verb: &str, edit: impl FnOnce(&mut v1::DevnetSpec)) -> Reply<v1::Devnet> {
        self.log(format!("{verb} {}", request.name));
        let devnet = self.change(&request.name, |devnet| {
            edit(devnet.spec.get_or_insert_default());
            devnet.metadata.get_or_insert_default().generation += 1;
        })?;
        self.reconcile(request.name.clone());
        Ok(Response::new(devnet))
    }
}

fn takes(selector: &Option<v1::ListRequest>, metadata: &Option<v1::Metadata>) -> bool {
    let (selector, metadata) = (selector.clone().unwrap_or_default(), metadata.clone().unwrap_or_default());
    let in_namespace = selector.all_namespaces || selector.namespace.is_empty() || selector.namespace == metadata.namespace;
    let in_devnet = selector.devnet.is_empty() || metadata.name.starts_with(&format!("{}/", selector.devnet));
    in_namespace && in_devnet && selector.labels.iter().all(|(key, value)| metadata.labels.get(key) == Some(value))
}

#[tonic::async_trait]
impl ps::PluginService for Fake {
    async fn list(&self, _: Request<v1::Empty>) -> Reply<v1::ListPluginsResponse> {
        let plugin = v1::PluginInfo {
            name: "cosmos".into(),
            version: "0.1.0".into(),
            api_version: 1,
            state: "Idle".into(),
            networks: vec!["wasmd".into()],
            description: "Cosmos SDK chains".into(),
            ..v1::PluginInfo::default()
        };
        Ok(Response::new(v1::ListPluginsResponse { items: vec![plugin] }))
    }
    async fn get(&self, request: Request<v1::PluginRef>) -> Reply<v1::PluginInfo> {
        Err(not_found(&request.into_inner().name))
    }
}

#[tonic::async_trait]
impl ds::DaemonService for Fake {
    async fn handshake(&self, request: Request<v1::HandshakeRequest>) -> Reply<v1::DaemonStatus> {
        let meant = request.into_inner().home;
        let home = self.home.to_string_lossy().into_owned();
        if !meant.is_empty() && meant != home {
            return Err(wrong_home(&home, &meant));
        }
        ds::DaemonService::status(self, Request::new(v1::Empty {})).await
    }
    async fn status(&self, _: Request<v1::Empty>) -> Reply<v1::DaemonStatus> {
        let home = self.home.to_string_lossy().into_owned();
        Ok(Response::new(v1::DaemonStatus {
            version: "0.1.0".into(),
            home,
            pid: std::process::id(),
            started_at: super::CREATED.into(),
            ..v1::DaemonStatus::default()
        }))
    }
    type ShutdownStream = Items<v1::ShutdownProgress>;
    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Reply<Self::ShutdownStream> {
        self.log(format!("shutdown with_nodes {}", request.into_inner().with_nodes));
        let step = |message: &str, done| Ok(v1::ShutdownProgress { message: message.into(), done });
        let steps = stream::iter([step("nodes keep running", false), step("devnetd ends", true)]);
        let this = self.clone();
        let end = stream::once(async move { this.shutdown.notify_one() }).filter_map(|()| std::future::ready(None));
        Ok(Response::new(Box::pin(steps.chain(end))))
    }
    type ReloadStream = Self::ShutdownStream;
    async fn reload(&self, _: Request<v1::Empty>) -> Reply<Self::ReloadStream> {
        Ok(Response::new(Box::pin(stream::iter([Ok(v1::ShutdownProgress { message: "but cannot".into(), done: true })]))))
    }
    async fn list_binaries(&self, _: Request<v1::Empty>) -> Reply<v1::ListBinariesResponse> {
        let binary = |digest: &str| v1::BinaryInfo { digest: digest.into(), source: "path /x".into(), size: 1 << 20, ..Default::default() };
        Ok(Response::new(v1::ListBinariesResponse { items: vec![binary("aa11"), binary("aa22"), binary("bb33")] }))
    }
    type VerifyBinariesStream = Items<v1::BinaryVerdict>;
    async fn verify_binaries(&self, request: Request<v1::VerifyBinariesRequest>) -> Reply<Self::VerifyBinariesStream> {
        let digests = request.into_inner().digests;
        let all = ["aa11", "aa22", "bb33"].into_iter().filter(|digest| digests.is_empty() || digests.iter().any(|named| named == digest));
        let verdict = |digest: &str| {
            let binary = v1::BinaryInfo { digest: digest.into(), source: "path /x".into(), ..Default::default() };
            let (state, message, remedy) = match digest {
                "bb33" => ("altered", Some("the cached file /cache/bb33/x was altered".into()), Some("dvbctl binaries add --path /x".into())),
                _ => ("whole", None, None),
            };
            v1::BinaryVerdict { binary: Some(binary), state: state.into(), message, remedy }
        };
        Ok(Response::new(Box::pin(stream::iter(all.map(|digest| Ok(verdict(digest))).collect::<Vec<_>>()))))
    }
    type AddBinaryStream = Items<v1::BinaryProgress>;
    async fn add_binary(&self, request: Request<v1::AddBinaryRequest>) -> Reply<Self::AddBinaryStream> {
        let source = request.into_inner().source.unwrap_or_default();
        let told = source.path.clone().or(source.go_module.map(|go| format!("{}@{}", go.module, go.version))).unwrap_or_default();
        self.log(format!("add {told}"));
        let done = v1::BinaryInfo { digest: "cc44".into(), source: told, path: "/cache/cc44".into(), ..v1::BinaryInfo::default() };
        let steps = [
            Ok(v1::BinaryProgress { message: "building".into(), ..v1::BinaryProgress::default() }),
            Ok(v1::BinaryProgress { done: Some(done), ..v1::BinaryProgress::default() }),
        ];
        Ok(Response::new(Box::pin(stream::iter(steps))))
    }
    async fn list_orphans(&self, _: Request<v1::Empty>) -> Reply<v1::ListOrphansResponse> {
        Ok(Response::new(v1::ListOrphansResponse::default()))
    }
    async fn reap_orphans(&self, _: Request<v1::ReapOrphansRequest>) -> Reply<v1::ReapOrphansResponse> {
        Ok(Response::new(v1::ReapOrphansResponse::default()))
    }
    async fn evict_binaries(&self, request: Request<v1::EvictBinariesRequest>) -> Reply<v1::ListBinariesResponse> {
        self.log(format!("evict {:?}", request.into_inner().digests));
        Ok(Response::new(v1::ListBinariesResponse::default()))
    }
}
