//! The fake's world and its services. A verb changes the world by the script; watches tell it.

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
}

#[derive(Default)]
pub struct World {
    pub devnets: BTreeMap<String, v1::Devnet>,
    pub nodes: BTreeMap<String, v1::Node>,
    pub events: Vec<v1::Event>,
    pub logs: Vec<v1::LogEntry>,
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
                Script::Runs => "Running",
                Script::Fails => "Failed",
                Script::Hangs => return,
            };
            for index in 0..2 {
                let node = super::node(&name, index, if index == 0 { phase } else { "Running" });
                let full = node.metadata.as_ref().unwrap().name.clone();
                this.world.lock().unwrap().put_node(node);
                let _ = this.change_node(&full, |_| {});
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
impl dn::DevnetService for Fake {
    async fn create(&self, _: Request<v1::CreateDevnetRequest>) -> Reply<v1::Devnet> {
        Err(Status::unimplemented("not used"))
    }
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Reply<v1::ApplyResponse> {
        let request = request.into_inner();
        let mut devnet = request.devnet.unwrap_or_default();
        let name = devnet.metadata.as_ref().unwrap().name.clone();
        self.log(format!("apply {name}{}", if request.dry_run { " dry" } else { "" }));
        let mut world = self.world.lock().unwrap();
        if let Some((code, refusal)) = &world.refuse {
            return Err(fault(*code, refusal));
        }
        let present = world.devnets.get(&name).cloned();
        let action = if present.is_some() { "configured" } else { "created" };
        let change = |field: &str, before: Option<&str>, after: Option<&str>| v1::FieldChange {
            field: field.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let changes =
            vec![change("spec.validators", Some("4"), Some("5")), change("spec.network", None, Some("wasmd")), change("spec.seed", Some("x"), None)];
        let metadata = devnet.metadata.as_mut().unwrap();
        metadata.generation = present.as_ref().map_or(1, |present| present.metadata.as_ref().unwrap().generation + 1);
        metadata.created_at = super::CREATED.into();
        let kept = present.and_then(|present| present.spec).and_then(|spec| spec.desired);
        let spec = devnet.spec.get_or_insert_default();
        spec.desired = spec.desired.take().or(kept);
        devnet.status = Some(v1::DevnetStatus { phase: "Pending".into(), ..v1::DevnetStatus::default() });
        if !request.dry_run {
            world.put_devnet(devnet.clone());
            drop(world);
            self.reconcile(name);
        }
        Ok(Response::new(v1::ApplyResponse { devnet: Some(devnet), action: action.into(), changes }))
    }
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let name = request.into_inner().name;
        self.world.lock().unwrap().devnets.get(&name).cloned().map(Response::new).ok_or_else(|| not_found(&name))
    }
    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListDevnetsResponse> {
        let selector = Some(request.into_inner());
        let items = self.world.lock().unwrap().devnets.values().filter(|devnet| takes(&selector, &devnet.metadata)).cloned().collect();
        Ok(Response::new(v1::ListDevnetsResponse { items, resource_version: 100 }))
    }
    async fn update(&self, _: Request<v1::UpdateDevnetRequest>) -> Reply<v1::Devnet> {
        Err(Status::unimplemented("not used"))
    }
    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Devnet> {
        let request = request.into_inner();
        self.log(format!("delete {}{}", request.name, if request.keep_data { " keep" } else { "" }));
        let devnet = self.change(&request.name, |devnet| devnet.status.get_or_insert_default().phase = "Deleting".into())?;
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            this.remove(&request.name);
        });
        Ok(Response::new(devnet))
    }
    async fn start(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "start", |spec| spec.desired = Some("running".into()))
    }
    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "stop", |spec| spec.desired = Some("stopped".into()))
    }
    async fn restart(&self, request: Request<v1::RestartDevnetRequest>) -> Reply<v1::Devnet> {
        let request = request.into_inner();
        let verb = if request.refresh_binary { "restart+refresh" } else { "restart" };
        let object = v1::ObjectRef { namespace: request.namespace, name: request.name };
        self.verb(&object, verb, |spec| spec.operations.get_or_insert_default().restart += 1)
    }
    async fn reset(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "reset", |spec| spec.operations.get_or_insert_default().reset += 1)
    }
    type WatchStream = Items<v1::DevnetEvent>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let world = self.world.lock().unwrap();
        let feed = BroadcastStream::new(self.feed.subscribe());
        let mut first = Vec::new();
        let wanted = move |devnet: &v1::Devnet| {
            let named = request.name.is_empty() || devnet.metadata.as_ref().is_some_and(|metadata| metadata.name == request.name);
            named && takes(&request.selector, &devnet.metadata)
        };
        if request.resource_version.is_none() {
            let added = |devnet: &v1::Devnet| v1::DevnetEvent { r#type: "ADDED".into(), object: Some(devnet.clone()), resource_version: 1 };
            first.extend(world.devnets.values().filter(|devnet| wanted(devnet)).map(added));
            first.push(v1::DevnetEvent { r#type: "BOOKMARK".into(), object: None, resource_version: world.version });
        }
        let later = feed.take_while(|told| std::future::ready(!matches!(told, Ok(Told::Broken)))).filter_map(move |told| {
            let event = match told {
                Ok(Told::Devnet(event)) if event.object.as_ref().is_some_and(&wanted) => Some(Ok(event)),
                _ => None,
            };
            std::future::ready(event)
        });
        Ok(Response::new(Box::pin(stream::iter(first).map(Ok).chain(later))))
    }
    type StreamLogsStream = Items<v1::LogEntry>;
    async fn stream_logs(&self, request: Request<v1::LogRequest>) -> Reply<Self::StreamLogsStream> {
        let request = request.into_inner();
        self.log(format!("logs {} {:?} tail {:?} since {:?}", request.devnet, request.nodes, request.tail, request.since));
        let wanted = |entry: &&v1::LogEntry| {
            let (devnet, short) = entry.node.split_once('/').unwrap();
            devnet == request.devnet && (request.nodes.is_empty() || request.nodes.iter().any(|node| node == short))
        };
        let entries: Vec<_> = self.world.lock().unwrap().logs.iter().filter(wanted).cloned().collect();
        Ok(Response::new(Box::pin(stream::iter(entries).map(Ok))))
    }
    type ListEventsStream = Items<v1::Event>;
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Reply<Self::ListEventsStream> {
        let request = request.into_inner();
        let of = request.selector.unwrap_or_default().devnet;
        let wanted = |event: &&v1::Event| {
            let devnet = event.name.split('/').next().unwrap_or_default();
            (request.name.is_empty() || event.name == request.name) && (of.is_empty() || devnet == of)
        };
        let world = self.world.lock().unwrap();
        let events: Vec<_> = world.events.iter().filter(wanted).cloned().collect();
        let named = if request.name.is_empty() { &of } else { &request.name };
        if events.is_empty() && !named.is_empty() && !world.devnets.contains_key(named) && !world.nodes.contains_key(named) {
            return Err(not_found(named));
        }
        Ok(Response::new(Box::pin(stream::iter(events).map(Ok))))
    }
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Reply<v1::ExplainResponse> {
        let name = request.into_inner().name;
        let chain = self.world.lock().unwrap().events.iter().rev().cloned().collect();
        Ok(Response::new(v1::ExplainResponse { headline: format!("{name} is Running"), chain }))
    }
}

#[tonic::async_trait]
impl ns::NodeService for Fake {
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        let name = request.into_inner().name;
        self.world.lock().unwrap().nodes.get(&name).cloned().map(Response::new).ok_or_else(|| not_found(&name))
    }
    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListNodesResponse> {
        let selector = Some(request.into_inner());
        let items = self.world.lock().unwrap().nodes.values().filter(|node| takes(&selector, &node.metadata)).cloned().collect();
        Ok(Response::new(v1::ListNodesResponse { items, resource_version: 100 }))
    }
    async fn start(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        self.node_verb(
            &request.get_ref().name,
            &verb("start", &request),
            |node| node.spec.get_or_insert_default().desired = "running".into(),
            "Running",
        )
    }
    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, "stop", |node| node.spec.get_or_insert_default().desired = "stopped".into(), "Stopped")
    }
    async fn restart(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, &verb("restart", &request), |node| node.spec.get_or_insert_default().restart_request += 1, "Running")
    }
    type WatchStream = Items<v1::NodeEvent>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let world = self.world.lock().unwrap();
        let feed = BroadcastStream::new(self.feed.subscribe());
        let mut first = Vec::new();
        let wanted = move |node: &v1::Node| {
            let named = request.name.is_empty() || node.metadata.as_ref().is_some_and(|metadata| metadata.name == request.name);
            named && takes(&request.selector, &node.metadata)
        };
        if request.resource_version.is_none() {
            let added = |node: &v1::Node| v1::NodeEvent { r#type: "ADDED".into(), object: Some(node.clone()), resource_version: 1 };
            first.extend(world.nodes.values().filter(|node| wanted(node)).map(added));
            first.push(v1::NodeEvent { r#type: "BOOKMARK".into(), object: None, resource_version: world.version });
        }
        let later = feed.take_while(|told| std::future::ready(!matches!(told, Ok(Told::Broken)))).filter_map(move |told| {
            let event = match told {
                Ok(Told::Node(event)) if event.object.as_ref().is_some_and(&wanted) => Some(Ok(event)),
                _ => None,
            };
            std::future::ready(event)
        });
        Ok(Response::new(Box::pin(stream::iter(first).map(Ok).chain(later))))
    }
    async fn list_launches(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListLaunchesResponse> {
        let spec = v1::LaunchSpec { node_ref: "mynet/validator-0".into(), launch_id: "l1".into(), ..v1::LaunchSpec::default() };
        let status = v1::LaunchStatus { phase: "Running".into(), pid: Some(1000), ..v1::LaunchStatus::default() };
        let launch = v1::Launch { kind: "Launch".into(), spec: Some(spec), status: Some(status), ..v1::Launch::default() };
        Ok(Response::new(v1::ListLaunchesResponse { items: vec![launch], resource_version: 100 }))
    }
    async fn list_ports(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListPortsResponse> {
        let port = |node: &str, state: &str, holder: &str| v1::PortLease {
            node: node.into(),
            name: "rpc".into(),
            address: "127.64.0.1".into(),
            port: 26657,
            state: state.into(),
            holder: Some(holder.into()),
            ..v1::PortLease::default()
        };
        let items = vec![port("mynet/validator-0", "held", "pid 1000 (wasmd)"), port("mynet/validator-1", "taken", "pid 7 (geth)")];
        Ok(Response::new(v1::ListPortsResponse { items }))
    }
}

impl Fake {
    fn node_verb(&self, name: &str, verb: &str, edit: impl FnOnce(&mut v1::Node), phase: &'static str) -> Reply<v1::Node> {
        self.log(format!("{verb} {name}"));
        let node = self.change_node(name, |node| {
            edit(node);
            node.status.get_or_insert_default().phase = "Stopping".into();
        })?;
        let (this, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = this.change_node(&name, |node| {
                let asked = node.spec.clone().unwrap_or_default().restart_request;
                let status = node.status.get_or_insert_default();
                (status.phase, status.observed_restart) = (phase.into(), asked);
            });
        });
        Ok(Response::new(node))
    }
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
    async fn evict_binaries(&self, request: Request<v1::EvictBinariesRequest>) -> Reply<v1::ListBinariesResponse> {
        self.log(format!("evict {:?}", request.into_inner().digests));
        Ok(Response::new(v1::ListBinariesResponse::default()))
    }
}

/// As it is logged.
fn verb(name: &str, request: &Request<v1::StartRequest>) -> String {
    format!("{name}{}", if request.get_ref().allow_double_sign { " anyhow" } else { "" })
}
