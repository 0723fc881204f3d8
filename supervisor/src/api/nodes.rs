//! NodeService: nodes, their launches, and the ports that they hold.

use super::{
    Context,
    auth::Caller,
    change::{Decision, Draft, key_of},
    convert,
    devnets::{reply, word},
    freeze, merge,
    watch::{self, Item},
};
use crate::{
    holders::Holder,
    model::{Desired, Fault, FaultCode, Kind, Node, NodePhase, Object},
    ports::{PortLease, Ports},
};
use dvb_proto::devnet::v1::{self, node_service_server::NodeService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

/// The leased ports of one home, with who has each now.
#[tonic::async_trait]
pub trait PortStates: Send + Sync + 'static {
    /// None takes all namespaces, or all devnets.
    async fn states(&self, namespace: Option<&str>, devnet: Option<&str>) -> Result<Vec<PortLease>, Fault>;
}

#[tonic::async_trait]
impl PortStates for Ports {
    async fn states(&self, namespace: Option<&str>, devnet: Option<&str>) -> Result<Vec<PortLease>, Fault> {
        Ports::states(self, namespace, devnet).await.map_err(|error| error.fault())
    }
}

pub(super) struct Nodes(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;
/// The node as it shall be, with the event that tells; None: it is so already.
type Verdict = Result<Option<(Node, Draft)>, Fault>;

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        let wanted = request.into_inner();
        let found = self.0.find(&key_of(Kind::Node, &wanted.namespace, &wanted.name)).await;
        reply(found.and_then(|object| self.message(&object)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListNodesResponse> {
        let request = request.get_ref();
        let selector = watch::selector(Kind::Node, request, "");
        let listed = self.0.store.list(&selector).await.map_err(|error| error.fault());
        reply(listed.and_then(|(objects, resource_version)| {
            Ok(v1::ListNodesResponse { items: merge::nodes(&objects, request.view(), &self.0.observations)?, resource_version })
        }))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        match request.get_ref().allow_double_sign {
            false => self.verb(request.map(object_ref), |node| Ok(set_desired(node, Desired::Running))).await,
            true => self.verb(request.map(object_ref), |node| allow_double_sign(node, false)).await,
        }
    }

    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| Ok(set_desired(node, Desired::Stopped))).await
    }

    async fn restart(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        match request.get_ref().allow_double_sign {
            false => self.verb(request.map(object_ref), |node| may_restart(node).map(|()| Some(restart(node)))).await,
            true => self.verb(request.map(object_ref), |node| allow_double_sign(node, true)).await,
        }
    }

    async fn freeze(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| freeze::node(node, true)).await
    }

    async fn thaw(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.verb(request, |node| freeze::node(node, false)).await
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
    async fn verb(&self, request: Request<v1::ObjectRef>, decide: impl Fn(&Node) -> Verdict + Send + Sync) -> Reply<v1::Node> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let decide = |object: &Object| -> Decision {
            let Object::Node(node) = object else { return Ok(None) };
            Ok(decide(node)?.map(|(node, draft)| (node.into(), draft)))
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

    async fn ports(&self, request: &v1::ListRequest) -> Result<v1::ListPortsResponse, Fault> {
        let selector = watch::selector(Kind::Lease, request, "");
        let leases = self.0.ports.states(selector.namespace.as_deref(), selector.devnet.as_deref()).await?;
        Ok(v1::ListPortsResponse { items: leases.into_iter().map(port).collect() })
    }
}

fn port(lease: PortLease) -> v1::PortLease {
    let PortLease { node, name, address, port, wildcard, state, holder, ephemeral, .. } = lease;
    let (holder_pid, holder_program) = match &holder {
        Some(Holder::Process { pid, program }) => (Some(*pid), Some(program.clone())),
        _ => (None, None),
    };
    let holder = holder.map(|holder| holder.to_string());
    v1::PortLease { node, name, address, port: port.into(), wildcard, state, holder, holder_pid, holder_program, ephemeral }
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
    node.spec.frozen &= desired == Desired::Running;
    node.metadata.generation += 1;
    let (reason, action) = match desired {
        Desired::Running => ("StartRequested", "start"),
        Desired::Stopped => ("StopRequested", "stop"),
    };
    let message = format!("{action} of {} requested", node.metadata.name);
    let draft = Draft { reason, message, observed: Some(word(before).into()), desired: Some(word(desired).into()), action: Some(action.into()) };
    Some((node, draft))
}

fn object_ref(request: v1::StartRequest) -> v1::ObjectRef {
    v1::ObjectRef { namespace: request.namespace, name: request.name }
}

/// The one way around a refused key. What runs already is not touched by a start, so the permission would lie in wait: there is none.
fn allow_double_sign(node: &Node, again: bool) -> Verdict {
    let name = &node.metadata.name;
    if node.spec.consensus_key.is_none() {
        let fault = Fault::new(FaultCode::InvalidSpec, format!("{name} signs nothing, so there is no double signature to allow"));
        return Err(fault.about(name).remedy(format!("dvbctl {} {name}", if again { "restart" } else { "start" })));
    }
    if !again && matches!(node.status.phase, NodePhase::Starting | NodePhase::Running) {
        return Ok(None);
    }
    let (mut node, draft) = if again { restart(node) } else { start_anyhow(node) };
    node.spec.double_sign_request += 1;
    let message = format!("{}; this one launch may sign although its key is in use or its sign-state went back", draft.message);
    Ok(Some((node, Draft { reason: "DoubleSignAllowed", message, ..draft })))
}

/// Also of what is to run already, but does not.
fn start_anyhow(node: &Node) -> (Node, Draft) {
    let observed = Some(format!("{:?}", node.status.phase));
    let mut node = node.clone();
    node.spec.desired = Desired::Running;
    node.metadata.generation += 1;
    let message = format!("start of {} requested", node.metadata.name);
    (node, Draft { reason: "StartRequested", message, observed, desired: Some("running".into()), action: Some("start".into()) })
}

fn may_restart(node: &Node) -> Result<(), Fault> {
    if node.spec.frozen_with_devnet {
        return Err(freeze::thaw_the_devnet(node, "its whole devnet is frozen, so it could not start again"));
    }
    Ok(())
}

/// A restart of what is stopped starts it, and one of what is frozen thaws it.
fn restart(node: &Node) -> (Node, Draft) {
    let mut node = node.clone();
    let observed = Some(word(node.spec.desired).to_owned());
    node.spec.restart_request += 1;
    node.spec.frozen = false;
    node.spec.desired = Desired::Running;
    node.metadata.generation += 1;
    let message = format!("restart of {} requested", node.metadata.name);
    (node, Draft { reason: "RestartRequested", message, observed, desired: Some("running".into()), action: Some("restart".into()) })
}
