//! What a devnet needs next, decided from values alone.

use super::sum::{Sum, sum};
use crate::model::{Desired, Devnet, DevnetPhase, Node, NodePhase};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Make plan, genesis and node objects match the spec.
    Provision {
        refresh_binary: bool,
    },
    /// The spec changed in nothing that plan, genesis and nodes are made of.
    Acknowledge,
    /// Hold all nodes down, or let them run.
    Suspend {
        on: bool,
        why: &'static str,
    },
    /// All nodes are to stand still, or to go on.
    Freeze {
        on: bool,
    },
    /// Ask every node to restart.
    RestartNodes,
    /// All nodes are down: back to height 0.
    Wipe,
    /// These nodes left the spec and are down.
    RemoveNodes(Vec<String>),
    /// Say that it is going away.
    MarkDeleting,
    /// All nodes are down: nothing may be left of it.
    Destroy,
    /// Write the summary.
    Report(Sum),
}

/// What the stored plan was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made<'a> {
    /// Digest of the spec.
    pub(super) spec: &'a str,
    /// The plugin's executable is another one now.
    pub(super) plugin_replaced: bool,
}

/// `made` is None while no spec was ever accepted, or since a reset; `height` is the highest that any of its nodes was seen at.
pub(super) fn plan(devnet: &Devnet, nodes: &[Arc<Node>], made: Option<Made<'_>>, height: u64) -> Step {
    let all_down = nodes.iter().all(|node| node.status.phase == NodePhase::Stopped && node.status.pid.is_none());
    let hold = |why| match (nodes.iter().all(|node| node.spec.suspended), all_down) {
        (false, _) => Some(Step::Suspend { on: true, why }),
        (true, false) => Some(Step::Nothing),
        (true, true) => None,
    };
    if devnet.metadata.deleted_at.is_some() {
        if devnet.status.phase != DevnetPhase::Deleting {
            return Step::MarkDeleting;
        }
        return hold("delete").unwrap_or(Step::Destroy);
    }
    if devnet.spec.operations.reset > devnet.status.operations.reset && devnet.status.observed_generation > 0 {
        return hold("reset").unwrap_or(Step::Wipe);
    }
    let provisioned = devnet.status.observed_generation > 0 && devnet.status.conditions.is_true("Provisioned");
    let newer = devnet.metadata.generation > devnet.status.observed_generation;
    if newer && provisioned && made.is_some_and(|made| made.spec == devnet.spec.digest()) {
        return Step::Acknowledge;
    }
    if is_down(devnet) && nodes.iter().any(|node| !node.spec.suspended) {
        return Step::Suspend { on: true, why: "stop" }; // asks nothing of plugins: a broken one cannot hold it up
    }
    if let Some(step) = freeze(devnet, nodes) {
        return step; // nor does this
    }
    if needs_provisioning(devnet, made.is_some()) || (provisioned && made.is_some_and(|made| made.plugin_replaced)) {
        return Step::Provision { refresh_binary: devnet.spec.operations.refresh_binary > devnet.status.operations.refresh_binary };
    }
    if made.is_none() && devnet.status.conditions.is_false("Provisioned") {
        return Step::Nothing; // refused, and there is nothing else to run: a change of the spec or `restart` tries again
    }
    match upkeep(devnet, nodes, height) {
        Step::Nothing | Step::Report(_) if devnet.spec.operations.restart > devnet.status.operations.restart => Step::RestartNodes,
        step => step,
    }
}

/// What the nodes that there are need, whatever becomes of a newer spec.
pub(super) fn upkeep(devnet: &Devnet, nodes: &[Arc<Node>], height: u64) -> Step {
    let leaving: Vec<String> = nodes
        .iter()
        .filter(|node| node.metadata.deleted_at.is_some() && node.status.phase == NodePhase::Stopped && node.status.pid.is_none())
        .map(|node| node.metadata.name.clone())
        .collect();
    if !leaving.is_empty() {
        return Step::RemoveNodes(leaving);
    }
    let down = is_down(devnet);
    if nodes.iter().any(|node| node.spec.suspended != down) {
        return Step::Suspend { on: down, why: if down { "stop" } else { "start" } };
    }
    if let Some(step) = freeze(devnet, nodes) {
        return step;
    }
    match sum(devnet, nodes, height) {
        Some(sum) => Step::Report(sum),
        None => Step::Nothing,
    }
}

fn freeze(devnet: &Devnet, nodes: &[Arc<Node>]) -> Option<Step> {
    let on = devnet.spec.frozen();
    nodes.iter().any(|node| node.spec.frozen_with_devnet != on).then_some(Step::Freeze { on })
}

/// Its user has stopped it, or an upgrade holds it.
fn is_down(devnet: &Devnet) -> bool {
    devnet.spec.desired() == Desired::Stopped || devnet.status.held.is_some()
}

/// The spec changed since nodes were last made to match, or a request asks for another try.
fn needs_provisioning(devnet: &Devnet, accepted: bool) -> bool {
    let (asked, done) = (&devnet.spec.operations, &devnet.status.operations);
    let failed = !accepted && devnet.status.conditions.is_false("Provisioned");
    devnet.metadata.generation > devnet.status.observed_generation
        || asked.refresh_binary > done.refresh_binary
        || (failed && asked.restart > done.restart)
}

#[cfg(test)]
mod tests;
