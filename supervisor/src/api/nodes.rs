//! NodeService: nodes, their launches, and the ports that they hold.

use super::{
    Context,
    auth::Caller,
    change::{Decision, Draft, key_of},
    convert,
    devnets::{reply, word},
    merge,
    watch::{self, Item},
};
use crate::model::{Desired, Fault, FaultCode, Key, Kind, Lease, Node, Object};
use dvb_proto::devnet::v1::{self, node_service_server::NodeService};
use futures::stream::BoxStream;
use std::{collections::HashMap, sync::Arc};
use tonic::{Request, Response, Status};

/// Who has a leased port now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    Free,
    /// By the node that leased it.
    Held,
    /// By somebody else: `pid 42 (geth)` where it can be told.
    Taken(Option<String>),
}

/// Looks at a port of this machine; called in a blocking thread, once for each lease that is listed.
pub trait PortProbe: Send + Sync + 'static {
    /// `owner` is the pid of the node that holds the lease, when it runs.
    fn state(&self, address: &str, port: u16, wildcard: bool, owner: Option<u32>) -> PortState;
}

pub(super) struct Nodes(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        let wanted = request.into_inner();
        let found = self.0.find(&key_of(Kind::Node, &wanted.namespace, &wanted.name)).await;
        reply(found.and_then(|object| self.message(&object)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListNodesResponse> {
        let selector = watch::selector(Kind::Node, request.get_ref(), "");
        let listed = self.0.store.list(&selector).await.map_err(|error| error.fault());
        reply(listed.and_then(|(objects, resource_version)| {
            Ok(v1::ListNodesResponse { items: merge::nodes(&objects, &self.0.observations)?, resource_version })
        }))
    }

    async fn start(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| set_desired(node, Desired::Running)).await
    }

    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| set_desired(node, Desired::Stopped)).await
    }

    async fn restart(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| Some(restart(node))).await
    }

    type WatchStream = BoxStream<'static, Result<v1::NodeEvent, Status>>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let selector = watch::selector(Kind::Node, &request.selector.unwrap_or_default(), &request.name);
        let watch = watch::watch(&self.0, selector, request.resource_version).await;
        reply(watch.map(|watch| Box::pin(watch.into_stream(event)) as Self::WatchStream))
    }

    async fn list_launches(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListLaunchesResponse> {
        reply(self.launches(request.get_ref()).await)
    }

    async fn list_ports(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListPortsResponse> {
        reply(self.ports(request.get_ref()).await)
    }
}

impl Nodes {
    async fn verb(&self, request: Request<v1::ObjectRef>, decide: impl Fn(&Node) -> Option<(Node, Draft)> + Send + Sync) -> Reply<v1::Node> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let decide = |object: &Object| -> Decision {
            let Object::Node(node) = object else { return Ok(None) };
            Ok(decide(node).map(|(node, draft)| (node.into(), draft)))
        };
        let changed = self.0.change(caller, &key_of(Kind::Node, &wanted.namespace, &wanted.name), decide).await;
        reply(changed.and_then(|object| self.message(&object)))
    }

    fn message(&self, object: &Object) -> Result<v1::Node, Fault> {
        match object {
            Object::Node(node) => merge::node_message(node, &self.0.observations),
            other => Err(Fault::new(FaultCode::Internal, format!("{} is no node", other.key()))),
        }
    }

    async fn launches(&self, request: &v1::ListRequest) -> Result<v1::ListLaunchesResponse, Fault> {
        let (objects, resource_version) = self.0.store.list(&watch::selector(Kind::Launch, request, "")).await.map_err(|error| error.fault())?;
        let launches = objects.iter().filter_map(|object| if let Object::Launch(launch) = object { Some(launch) } else { None });
        let items = launches.map(|launch| convert::to_message(launch.as_ref())).collect::<Result<_, _>>()?;
        Ok(v1::ListLaunchesResponse { items, resource_version })
    }

    /// All leases of ports, each with who has it now. The probes block, so they run together in a thread for that.
    async fn ports(&self, request: &v1::ListRequest) -> Result<v1::ListPortsResponse, Fault> {
        let list = |kind| async move { self.0.store.list(&watch::selector(kind, request, "")).await.map_err(|error| error.fault()) };
        let (leases, _) = list(Kind::Lease).await?;
        let (nodes, _) = list(Kind::Node).await?;
        let pids: HashMap<Key, u32> =
            nodes.iter().filter_map(|object| if let Object::Node(node) = object { Some((object.key(), node.status.pid?)) } else { None }).collect();
        let probe = self.0.ports.clone();
        let look = move || leases.iter().filter_map(|object| port_lease(object, &pids, probe.as_ref())).collect();
        let items = tokio::task::spawn_blocking(look).await;
        let items = items.map_err(|error| Fault::new(FaultCode::Internal, format!("looking at ports failed: {error}")))?;
        Ok(v1::ListPortsResponse { items })
    }
}

/// None for leases of other things than ports.
fn port_lease(object: &Object, pids: &HashMap<Key, u32>, probe: &dyn PortProbe) -> Option<v1::PortLease> {
    let Object::Lease(lease) = object else { return None };
    let Lease { metadata, spec } = Arc::as_ref(lease);
    let (port, address) = (spec.port?, spec.address.clone()?);
    let node = spec.node_ref.clone().unwrap_or_else(|| spec.devnet_ref.clone());
    let owner = pids.get(&Key::node(&metadata.namespace, &node)).copied();
    let (state, holder) = match probe.state(&address, port, spec.wildcard, owner) {
        PortState::Free => ("free", None),
        PortState::Held => ("held", owner.map(|pid| format!("pid {pid}"))),
        PortState::Taken(holder) => ("taken", holder),
    };
    let name = spec.port_name.clone().unwrap_or_default();
    Some(v1::PortLease { node, name, address, port: port.into(), wildcard: spec.wildcard, state: state.into(), holder })
}

fn event(item: Item, observations: &crate::observe::Observations) -> Result<v1::NodeEvent, Fault> {
    let object = match item.object() {
        Some(Object::Node(node)) => Some(merge::node_message(node, observations)?),
        _ => None,
    };
    Ok(v1::NodeEvent { r#type: item.word().into(), object, resource_version: item.revision() })
}

fn set_desired(node: &Node, desired: Desired) -> Option<(Node, Draft)> {
    let before = node.spec.desired;
    if before == desired {
        return None;
    }
    let mut node = node.clone();
    node.spec.desired = desired;
    node.metadata.generation += 1;
    let (reason, action) = match desired {
        Desired::Running => ("StartRequested", "start"),
        Desired::Stopped => ("StopRequested", "stop"),
    };
    let message = format!("{action} of {} requested", node.metadata.name);
    let draft = Draft { reason, message, observed: Some(word(before).into()), desired: Some(word(desired).into()), action: Some(action.into()) };
    Some((node, draft))
}

/// A restart of what is stopped starts it.
fn restart(node: &Node) -> (Node, Draft) {
    let mut node = node.clone();
    let observed = Some(word(node.spec.desired).to_owned());
    node.spec.restart_request += 1;
    node.spec.desired = Desired::Running;
    node.metadata.generation += 1;
    let message = format!("restart of {} requested", node.metadata.name);
    (node, Draft { reason: "RestartRequested", message, observed, desired: Some("running".into()), action: Some("restart".into()) })
}
