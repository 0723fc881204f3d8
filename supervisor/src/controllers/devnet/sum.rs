//! How a devnet is, summed up from its nodes.

use crate::model::{Condition, ConditionStatus, Desired, Devnet, DevnetPhase, FROZEN, Node, NodePhase};
use std::sync::Arc;

/// What the status is to say. Heights stay out of it while blocks come: they are observations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    pub(super) phase: DevnetPhase,
    pub(super) nodes: u32,
    pub(super) ready: u32,
    pub(super) conditions: Vec<Condition>,
    /// What the nodes are like, and before it what became of a spec that was not accepted.
    pub(super) message: String,
}

/// Conditions that a devnet has only at times.
pub(super) const PASSING: [&str; 2] = ["Progressing", FROZEN];

impl Sum {
    pub(super) fn says(&self, kind: &str) -> bool {
        self.conditions.iter().any(|condition| condition.kind == kind)
    }
}

/// None when the status says all this already.
pub(super) fn sum(devnet: &Devnet, nodes: &[Arc<Node>], height: u64) -> Option<Sum> {
    let wanted: Vec<&Node> = nodes.iter().map(Arc::as_ref).filter(|node| node.is_wanted()).collect();
    let unready: Vec<&Node> = wanted.iter().copied().filter(|node| !counts_as_ready(node)).collect();
    let still: Vec<&Node> = wanted.iter().copied().filter(|node| node.is_frozen()).collect();
    let stalled = stalled(&wanted);
    let halted = stalled && still.is_empty(); // else the user knows why
    let phase = phase(devnet, nodes, &unready, halted);
    let message = match &devnet.status.held {
        Some(upgrade) if devnet.spec.desired() != Desired::Stopped => format!("upgrade {upgrade} holds all nodes down"),
        _ => message(phase, &wanted, &unready),
    };
    let mut conditions = vec![readiness(phase, &message)];
    conditions.extend(frozen(devnet, &wanted));
    match (stalled, wanted.iter().filter(|node| !node.is_frozen()).any(|node| node.status.conditions.is_true("Progressing"))) {
        (true, _) if !halted => {
            let text = format!("no block is made while {} stand still", names(&still));
            conditions.push(Condition::new("Progressing", ConditionStatus::False, FROZEN, text));
        }
        (true, _) => {
            let text = format!("the chain halted at height {}: no new block on any node", halt_height(devnet, height));
            conditions.push(Condition::new("Progressing", ConditionStatus::False, "Halted", text));
        }
        (false, true) => conditions.push(Condition::new("Progressing", ConditionStatus::True, "NewBlocks", "blocks are made")),
        (false, false) => {}
    }
    let sum = Sum {
        phase,
        nodes: count(nodes.iter().filter(|node| node.metadata.deleted_at.is_none()).count()),
        ready: count(nodes.iter().filter(|node| counts_as_ready(node) && node.metadata.deleted_at.is_none()).count()),
        conditions,
        message: [unaccepted(devnet), (!still.is_empty()).then(|| format!("frozen: {}", names(&still))), Some(message)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; "),
    };
    (!says_already(devnet, &sum)).then_some(sum)
}

fn phase(devnet: &Devnet, nodes: &[Arc<Node>], unready: &[&Node], halted: bool) -> DevnetPhase {
    let before = devnet.status.phase;
    if devnet.spec.desired() == Desired::Stopped {
        let down = nodes.iter().all(|node| node.status.phase == NodePhase::Stopped);
        return if down { DevnetPhase::Stopped } else { before };
    }
    if devnet.status.held.is_some() {
        return if before == DevnetPhase::Running { DevnetPhase::Degraded } else { before };
    }
    let ran = matches!(before, DevnetPhase::Running | DevnetPhase::Degraded);
    match (unready.is_empty(), ran) {
        (true, _) if halted => DevnetPhase::Degraded,
        (true, _) => DevnetPhase::Running,
        (false, true) => DevnetPhase::Degraded,
        (false, false) if unready.iter().any(|node| gave_up(node)) => DevnetPhase::Failed,
        (false, false) => DevnetPhase::Provisioning,
    }
}

/// The present spec is not what the nodes run.
fn unaccepted(devnet: &Devnet) -> Option<String> {
    let why = devnet.status.conditions.get("Provisioned").filter(|condition| condition.status == ConditionStatus::False)?;
    let refused = devnet.status.observed_generation >= devnet.metadata.generation;
    let what = if refused { "the new spec was refused, the one before stays" } else { "the new spec cannot be taken up yet" };
    Some(format!("{what}: {}", why.message))
}

/// What became of a wish to freeze or thaw all of it.
fn frozen(devnet: &Devnet, wanted: &[&Node]) -> Option<Condition> {
    let alive = wanted.iter().filter(|node| node.status.pid.is_some());
    if devnet.spec.frozen() {
        let moving = alive.filter(|node| !node.is_frozen()).count();
        return Some(match moving {
            0 => Condition::new(FROZEN, ConditionStatus::True, FROZEN, "all its processes stand still")
                .with_remedy(format!("dvbctl thaw {}", devnet.metadata.name)),
            moving => Condition::new(FROZEN, ConditionStatus::False, "Freezing", format!("{moving} nodes do not stand still yet")),
        });
    }
    let thawing = wanted.iter().any(|node| !node.is_to_be_frozen() && node.status.conditions.get(FROZEN).is_some());
    thawing.then(|| Condition::new(FROZEN, ConditionStatus::Unknown, "Thawing", "its processes are let go on"))
}

fn names(nodes: &[&Node]) -> String {
    let named: Vec<String> = nodes.iter().take(4).map(|node| node.node_name().short).collect();
    let more = nodes.len().saturating_sub(named.len());
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}

/// Every node that follows the chain, and does not stand still, has seen no block for long.
fn stalled(wanted: &[&Node]) -> bool {
    let follows = |node: &&&Node| node.status.conditions.get("Progressing").is_some() && !node.is_frozen();
    let mut following = wanted.iter().filter(follows).peekable();
    following.peek().is_some() && following.all(|node| node.status.conditions.is_false("Progressing"))
}

/// The height at which it was first said to have halted stays, as long as it is so.
fn halt_height(devnet: &Devnet, height: u64) -> u64 {
    let said = devnet.status.conditions.get("Progressing").filter(|condition| condition.reason == "Halted");
    let said = said.and_then(|condition| condition.message.split_once("height ")?.1.split(':').next()?.parse().ok());
    if height > 0 { height } else { said.unwrap_or(0) }
}

/// A service that ended as it should is as good as ready. A node that is yet to restart runs what was asked for before.
fn counts_as_ready(node: &Node) -> bool {
    if node.spec.restart_request > node.status.observed_restart {
        return false;
    }
    node.status.conditions.is_true("Ready") || node.status.conditions.is_true("Completed")
}

/// A failure of an earlier spec says nothing of the one that is tried next.
fn gave_up(node: &Node) -> bool {
    node.status.phase == NodePhase::Failed && !node.is_asked_anew()
}

fn readiness(phase: DevnetPhase, message: &str) -> Condition {
    match phase {
        DevnetPhase::Running => Condition::new("Ready", ConditionStatus::True, "NodesReady", message),
        DevnetPhase::Stopped => Condition::new("Ready", ConditionStatus::False, "Stopped", message),
        _ => Condition::new("Ready", ConditionStatus::False, "NodesNotReady", message),
    }
}

fn message(phase: DevnetPhase, wanted: &[&Node], unready: &[&Node]) -> String {
    match phase {
        DevnetPhase::Stopped => "all nodes are stopped".into(),
        _ if unready.is_empty() => format!("all {} nodes that should run are ready", wanted.len()),
        _ => {
            let named: Vec<String> = unready.iter().take(3).map(|node| plight(node)).collect();
            let more = unready.len().saturating_sub(named.len());
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            format!("{} of {} nodes are ready; {}{more}", wanted.len() - unready.len(), wanted.len(), named.join("; "))
        }
    }
}

fn plight(node: &Node) -> String {
    let short = node.node_name().short;
    let why = node.status.conditions.get("Ready").map_or("", |ready| ready.message.as_str());
    if why.is_empty() { format!("{short}: {:?}", node.status.phase) } else { format!("{short}: {:?}: {why}", node.status.phase) }
}

fn says_already(devnet: &Devnet, sum: &Sum) -> bool {
    let status = &devnet.status;
    let known = |new: &Condition| {
        status.conditions.get(&new.kind).is_some_and(|old| old.status == new.status && old.reason == new.reason && old.message == new.message)
    };
    status.phase == sum.phase
        && status.nodes == sum.nodes
        && status.ready_nodes == sum.ready
        && status.message.as_deref() == Some(sum.message.as_str())
        && sum.conditions.iter().all(known)
        && PASSING.iter().all(|passing| status.conditions.get(passing).is_some() == sum.says(passing))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
