//! Pure translation between objects and what plugins and runtime are told of them.

pub(super) use crate::model::{SERVICE, hex, unhex};
use crate::{
    model::{
        Condition, ConditionStatus, Desired, Devnet, Meta, Node, NodeName, NodeSpec, PlacedNode, PlanBody, PlannedNode, PlannedPort, Resources,
        ResourcesSpec, RestartPolicy, RestartRules, RestartSpec, ServiceSpec, Timestamp, Uid,
    },
    plugin::DevnetContext,
    runtime::Capabilities,
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

/// Annotation of a node: digest of what a running process was built from. Another value means that it must be restarted.
pub(super) const TEMPLATE: &str = "devnet.builder/template";
/// Annotation of a node with a binary of its own: where it came from.
pub(super) const BINARY_SOURCE: &str = "devnet.builder/binary-source";
/// Annotation of a devnet that is being deleted with `--keep-data`.
pub(super) const KEEP_DATA: &str = "devnet.builder/keep-data";

/// What every plugin call about `devnet` carries.
pub(super) fn devnet_context(devnet: &Devnet, binary: (&str, &str), initialized: &[u8]) -> DevnetContext {
    DevnetContext {
        binary_path: binary.0.to_owned(),
        binary_sha256: binary.1.to_owned(),
        initialized: initialized.to_vec(),
        ..DevnetContext::of(devnet)
    }
}

/// The context of a provisioned devnet, from what provisioning stored.
pub(super) fn stored_context(devnet: &Devnet, plan: &PlanBody, nodes: &[Arc<Node>]) -> DevnetContext {
    DevnetContext::provisioned(devnet, plan, nodes)
}

pub(super) fn placed(node: &Node) -> PlacedNode {
    PlacedNode::of(node)
}

/// The chain's nodes only: what plugins are told of.
pub(super) fn placed_chain(nodes: &[Arc<Node>]) -> Vec<PlacedNode> {
    nodes.iter().filter(|node| node.spec.role != SERVICE).map(|node| placed(node)).collect()
}

/// Services take part in placement like planned nodes.
pub(super) fn planned_service(index: usize, service: &ServiceSpec) -> PlannedNode {
    let ports = service.ports.iter().map(|(name, port)| PlannedPort {
        name: name.clone(),
        port: *port,
        park: service.park.contains(name),
        scheme: scheme(service, name).into(),
        ..PlannedPort::default()
    });
    PlannedNode {
        name: service.name.clone(),
        role: SERVICE.into(),
        index: u32::try_from(index).unwrap_or(u32::MAX),
        ports: ports.collect(),
        after: service.after.clone(),
        ..PlannedNode::default()
    }
}

/// Of the URL that is told of a service's port, as far as its name or its readiness tells.
fn scheme<'a>(service: &ServiceSpec, port: &'a str) -> &'a str {
    let asked = service.readiness.as_ref().and_then(|readiness| readiness.http.as_deref()).and_then(|target| target.split('/').next());
    match port {
        "http" | "https" | "ws" | "wss" => port,
        _ if asked == Some(port) => "http",
        _ => "tcp",
    }
}

/// Where a node's binary came from, as far as the node object tells.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeBinary {
    pub(super) path: String,
    pub(super) sha256: String,
    /// In words, when it is the node's own and not its devnet's.
    pub(super) source: Option<String>,
}

/// The node object that `devnet` wants for `planned` at `placed`.
pub(super) fn desired_node(devnet: &Devnet, planned: &PlannedNode, placed: &PlacedNode, binary: &NodeBinary, now: Timestamp, uid: Uid) -> Node {
    let spec = &devnet.spec;
    let service = spec.services.iter().find(|service| service.name == planned.name && planned.role == SERVICE);
    let over = spec.node(&planned.name);
    let restart = service.map_or(over.and_then(|over| over.restart.as_ref()), |service| service.restart.as_ref());
    let resources = service.map_or(over.and_then(|over| over.resources.as_ref()), |service| service.resources.as_ref()).or(spec.resources.as_ref());
    let default_policy = if service.is_some() { RestartPolicy::OnFailure } else { RestartPolicy::Always };
    let mut node = Node {
        metadata: Meta {
            name: NodeName::new(&devnet.metadata.name, &planned.name).to_string(),
            namespace: devnet.metadata.namespace.clone(),
            uid,
            labels: devnet.metadata.labels.clone(),
            generation: 1,
            created_at: now,
            ..Meta::default()
        },
        spec: NodeSpec {
            devnet_ref: devnet.metadata.name.clone(),
            index: planned.index,
            role: planned.role.clone(),
            binary_path: binary.path.clone(),
            binary_hash: binary.sha256.clone(),
            home_dir: placed.home_dir.clone(),
            address: placed.address.clone(),
            ports: placed.ports.clone(),
            resources: resources.map(resolve_resources),
            restart: resolve_restart(restart, &spec.restart, default_policy),
            desired: over.and_then(|over| over.desired).unwrap_or_default(),
            suspended: spec.desired() == Desired::Stopped,
            frozen_with_devnet: spec.frozen(),
            consensus_key: some(&planned.consensus_key),
            sign_state: some(&planned.sign_state),
            key_file: some(&planned.key_file),
            after: planned.after.clone(),
            ..NodeSpec::default()
        },
        status: Default::default(),
    };
    node.metadata.annotations.insert(TEMPLATE.into(), template(devnet, &node));
    if let Some(source) = &binary.source {
        node.metadata.annotations.insert(BINARY_SOURCE.into(), source.clone());
    }
    node.status.endpoints = endpoints(planned, placed);
    node
}

/// `rpc: http://127.64.0.1:26657`, by port name.
fn endpoints(planned: &PlannedNode, placed: &PlacedNode) -> BTreeMap<String, String> {
    let scheme =
        |name: &str| planned.ports.iter().find(|port| port.name == name).map(|port| port.scheme.as_str()).filter(|scheme| !scheme.is_empty());
    placed.ports.iter().map(|(name, port)| (name.clone(), format!("{}://{}:{port}", scheme(name).unwrap_or("tcp"), placed.address))).collect()
}

/// Digest of everything that only a new launch can take over. A launch records the one that it was made of.
pub(super) fn template(devnet: &Devnet, node: &Node) -> String {
    let short = node.node_name().short;
    let service = devnet.spec.services.iter().find(|service| service.name == short && node.spec.role == SERVICE);
    let over = devnet.spec.node(&short).filter(|over| !over.is_of_logs_alone());
    let parts = serde_json::json!({
        "binary": node.spec.binary_hash,
        "ports": node.spec.ports,
        "address": node.spec.address,
        "resources": node.spec.resources,
        "args": over.map(|over| &over.args),
        "env": over.map(|over| &over.env),
        "config": over.and_then(|over| over.config.as_ref()),
        "blockTime": devnet.spec.block_time,
        "service": service.map(|service| (&service.command, &service.env, &service.cwd, &service.readiness)),
    });
    hex(&Sha256::digest(parts.to_string().as_bytes()))
}

/// The condition of a node or devnet that asks for limits.
pub(super) const LIMITS_ENFORCED: &str = "LimitsEnforced";

/// Limits of all nodes together.
pub(super) fn devnet_limits(devnet: &Devnet) -> Resources {
    devnet.spec.devnet_resources.as_ref().map(resolve_resources).unwrap_or_default()
}

/// Says whether limits that are asked for can be held on this machine. None: none are asked for.
pub(super) fn limits_condition(wanted: Option<&Resources>, can: Capabilities) -> Option<Condition> {
    wanted.filter(|limits| **limits != Resources::default())?;
    Some(match can.limits {
        true => Condition::new(LIMITS_ENFORCED, ConditionStatus::True, "Cgroup", "limits are set on its cgroup"),
        false => {
            let condition = Condition::new(LIMITS_ENFORCED, ConditionStatus::False, "NoControllers", can.cgroup_message);
            Condition { remedy: can.cgroup_remedy, ..condition }
        }
    })
}

fn resolve_resources(spec: &ResourcesSpec) -> Resources {
    Resources {
        memory_bytes: spec.memory.map(|size| size.0),
        memory_high_bytes: spec.memory_high.map(|size| size.0),
        cpu_millis: spec.cpu.map(|cpu| cpu.0),
        tasks: spec.tasks,
    }
}

/// The node's own rules before the devnet's before the defaults.
fn resolve_restart(own: Option<&RestartSpec>, devnet: &RestartSpec, default_policy: RestartPolicy) -> RestartRules {
    let own = own.cloned().unwrap_or_default();
    let defaults = RestartRules::default();
    RestartRules {
        policy: own.policy.or(devnet.policy).unwrap_or(default_policy),
        backoff_ms: own.backoff.or(devnet.backoff).map_or(defaults.backoff_ms, |span| span.as_millis()),
        max_backoff_ms: own.max_backoff.or(devnet.max_backoff).map_or(defaults.max_backoff_ms, |span| span.as_millis()),
        max_restarts: own.max_restarts.or(devnet.max_restarts).unwrap_or(defaults.max_restarts),
        reset_after_ms: own.reset_after.or(devnet.reset_after).map_or(defaults.reset_after_ms, |span| span.as_millis()),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DevnetSpec, LogsSpec, NodeOverride, Span};

    fn devnet(edit: impl FnOnce(&mut DevnetSpec)) -> Devnet {
        let mut spec = DevnetSpec { plugin: "mock".into(), ..DevnetSpec::default() };
        edit(&mut spec);
        Devnet { metadata: Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() }, spec, status: Default::default() }
    }

    fn node(devnet: &Devnet) -> Node {
        let planned = PlannedNode {
            name: "validator-0".into(),
            role: "validator".into(),
            ports: vec![PlannedPort { name: "rpc".into(), port: 80, scheme: "http".into(), ..PlannedPort::default() }],
            ..PlannedNode::default()
        };
        let placed = PlacedNode {
            name: "validator-0".into(),
            address: "127.64.0.1".into(),
            ports: BTreeMap::from([("rpc".into(), 80)]),
            ..PlacedNode::default()
        };
        desired_node(devnet, &planned, &placed, &NodeBinary::default(), Timestamp::default(), Uid::default())
    }

    #[test]
    fn a_node_takes_its_own_rules_before_those_of_its_devnet() {
        let plain = node(&devnet(|_| {}));
        assert_eq!(plain.spec.restart, RestartRules::default());
        assert_eq!(plain.status.endpoints["rpc"], "http://127.64.0.1:80");
        let tuned = node(&devnet(|spec| {
            spec.restart.backoff = Some(Span::secs(1));
            spec.restart.max_restarts = Some(9);
            let own = RestartSpec { max_restarts: Some(2), ..RestartSpec::default() };
            spec.nodes = vec![NodeOverride { name: "validator-0".into(), restart: Some(own), ..NodeOverride::default() }];
        }));
        assert_eq!((tuned.spec.restart.backoff_ms, tuned.spec.restart.max_restarts), (1_000, 2));
    }

    #[test]
    fn only_what_a_running_process_cannot_take_over_changes_the_template() {
        let of = |devnet: &Devnet| node(devnet).metadata.annotations[TEMPLATE].clone();
        let plain = of(&devnet(|_| {}));
        assert_eq!(plain, of(&devnet(|spec| spec.restart.max_restarts = Some(9))));
        let logs = |spec: &mut DevnetSpec| {
            spec.nodes = vec![NodeOverride { name: "validator-0".into(), logs: Some(LogsSpec::default()), ..NodeOverride::default() }]
        };
        assert_eq!(plain, of(&devnet(logs)));
        let args = |spec: &mut DevnetSpec| {
            spec.nodes = vec![NodeOverride { name: "validator-0".into(), args: vec!["--x".into()], ..NodeOverride::default() }]
        };
        assert_ne!(plain, of(&devnet(args)));
    }
}
