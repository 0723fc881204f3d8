//! A node's message, field by field: nodes are listed by the hundred, and through JSON each takes ten times as long.
//!
//! What few nodes have goes through JSON as all else does. `convert_properties` holds this to the JSON shape.

use super::convert::{Part, through_json};
use crate::model::{
    API_VERSION, Condition, ConditionStatus, Desired, Fault, HealthCheck, Kind, LastExit, Meta, Node, NodePhase, NodeSpec, NodeStatus, Resources,
    RestartPolicy, RestartRules, Usage,
};
use dvb_proto::devnet::v1;

/// A fault is Internal: a part does not fit its message.
pub(super) fn message(node: Node) -> Result<v1::Node, Fault> {
    let Node { metadata, spec, status } = node;
    Ok(v1::Node {
        api_version: API_VERSION.into(),
        kind: Kind::Node.name().into(),
        metadata: Some(metadata_message(metadata)),
        spec: Some(spec_message(spec)?),
        status: Some(status_message(status)?),
    })
}

fn metadata_message(meta: Meta) -> v1::Metadata {
    let Meta { name, namespace, uid, labels, annotations, generation, resource_version, created_at, updated_at, deleted_at } = meta;
    v1::Metadata {
        name,
        namespace,
        uid: uid.0,
        labels: labels.into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        generation,
        resource_version,
        created_at: created_at.to_string(),
        updated_at: updated_at.to_string(),
        deleted_at: deleted_at.map(|at| at.to_string()),
    }
}

fn spec_message(spec: NodeSpec) -> Result<v1::NodeSpec, Fault> {
    let RestartRules { policy, backoff_ms, max_backoff_ms, max_restarts, reset_after_ms } = spec.restart;
    let policy = match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "onFailure",
        RestartPolicy::Never => "never",
    };
    Ok(v1::NodeSpec {
        devnet_ref: spec.devnet_ref,
        index: spec.index,
        role: spec.role,
        binary_path: spec.binary_path,
        binary_hash: spec.binary_hash,
        home_dir: spec.home_dir,
        address: spec.address,
        ports: spec.ports.into_iter().map(|(name, port)| (name, port.into())).collect(),
        resources: spec.resources.map(|resources| through_json(&resources)).transpose()?,
        restart: Some(v1::NodeRestart { policy: policy.into(), backoff_ms, max_backoff_ms, max_restarts, reset_after_ms }),
        desired: desired(spec.desired).into(),
        restart_request: spec.restart_request,
        consensus_key: spec.consensus_key,
        sign_state: spec.sign_state,
        key_file: spec.key_file,
        after: spec.after,
        suspended: spec.suspended,
        double_sign_request: spec.double_sign_request,
        frozen: spec.frozen,
        frozen_with_devnet: spec.frozen_with_devnet,
    })
}

fn status_message(status: NodeStatus) -> Result<v1::NodeStatus, Fault> {
    Ok(v1::NodeStatus {
        phase: phase(status.phase).into(),
        pid: status.pid,
        container_id: status.container_id,
        launch_id: status.launch_id.map(|id| id.0),
        started_at: status.started_at.map(|at| at.to_string()),
        block_height: status.block_height,
        peer_count: status.peer_count,
        catching_up: status.catching_up,
        restart_count: status.restart_count,
        last_restart: status.last_restart.map(|at| at.to_string()),
        next_restart: status.next_restart.map(|at| at.to_string()),
        health_checks: status.health_checks.into_iter().map(health_check).collect(),
        endpoints: status.endpoints.into_iter().collect(),
        usage: status.usage.map(|usage| through_json(&usage)).transpose()?,
        last_exit: status.last_exit.map(|exit| through_json(&exit)).transpose()?,
        conditions: status.conditions.0.into_iter().map(condition).collect(),
        observed_generation: status.observed_generation,
        cause: status.cause.map(|id| id.0),
        recent_restarts: status.recent_restarts,
        observed_restart: status.observed_restart,
        log_path: status.log_path,
        details: status.details.into_iter().collect(),
        observed_double_sign: status.observed_double_sign,
    })
}

/// What a table shows of it: `View::Basic` of the protocol tells the fields.
pub(super) fn basic(meta: &Meta, spec: &NodeSpec, status: NodeStatus) -> v1::Node {
    v1::Node {
        metadata: Some(v1::Metadata {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            resource_version: meta.resource_version,
            ..v1::Metadata::default()
        }),
        spec: Some(v1::NodeSpec {
            role: spec.role.clone(),
            address: spec.address.clone(),
            desired: desired(spec.desired).into(),
            frozen: spec.frozen,
            frozen_with_devnet: spec.frozen_with_devnet,
            ..v1::NodeSpec::default()
        }),
        status: Some(v1::NodeStatus {
            phase: phase(status.phase).into(),
            pid: status.pid,
            started_at: status.started_at.map(|at| at.to_string()),
            block_height: status.block_height,
            peer_count: status.peer_count,
            catching_up: status.catching_up,
            restart_count: status.restart_count,
            endpoints: status.endpoints.into_iter().collect(),
            conditions: status.conditions.0.into_iter().map(condition).collect(),
            ..v1::NodeStatus::default()
        }),
        ..v1::Node::default()
    }
}

fn phase(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Pending => "Pending",
        NodePhase::Starting => "Starting",
        NodePhase::Running => "Running",
        NodePhase::Backoff => "Backoff",
        NodePhase::Stopping => "Stopping",
        NodePhase::Stopped => "Stopped",
        NodePhase::Crashed => "Crashed",
        NodePhase::Failed => "Failed",
    }
}

fn desired(desired: Desired) -> &'static str {
    if desired == Desired::Running { "running" } else { "stopped" }
}

fn health_check(check: HealthCheck) -> v1::HealthCheck {
    v1::HealthCheck { name: check.name, status: check.status, message: check.message, at: check.at.to_string() }
}

fn condition(condition: Condition) -> v1::Condition {
    let Condition { kind, status, reason, message, remedy, last_transition_time } = condition;
    let status = match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    };
    v1::Condition { r#type: kind, status: status.into(), reason, message, remedy, last_transition_time: last_transition_time.to_string() }
}

impl Part for Resources {
    type Message = v1::NodeResources;
}

impl Part for Usage {
    type Message = v1::Usage;
}

impl Part for LastExit {
    type Message = v1::LastExit;
}
