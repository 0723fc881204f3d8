//! What a verb waits for, decided purely: a view of one devnet (and its nodes) in, a verdict out.

use crate::render::objects::{self, complaint, exit_text, name};
use dvb_proto::devnet::v1::{Condition, Devnet, Node, Operations, Upgrade};
use std::collections::BTreeMap;

/// Nodes that are named as missing; the others are counted.
const NAMED: usize = 8;

/// What the watches have told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) devnet: Option<Devnet>,
    pub(crate) nodes: BTreeMap<String, Node>,
    /// The present state has been told in full: what is not in the view does not exist.
    pub(crate) devnet_told: bool,
    pub(crate) nodes_told: bool,
    /// The devnet existed and is gone.
    pub(crate) gone: bool,
    /// Its upgrades that have not ended: they stop and start nodes on their own. Looked at before anything is given up.
    pub(crate) upgrades: Vec<Upgrade>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Goal {
    /// What the spec wants (running, or stopped) is so, for this generation or a later one, and its verbs are carried out.
    Settled {
        generation: u64,
    },
    /// The node does what is wanted of it and has taken all requests to restart.
    NodeSettled {
        node: String,
    },
    /// All its processes stand still, or go on, as this generation asks.
    Frozen {
        node: Option<String>,
        on: bool,
        generation: u64,
    },
    Deleted {
        node: Option<String>,
    },
    Phase {
        node: Option<String>,
        phase: String,
    },
    Ready {
        node: Option<String>,
    },
    Condition {
        node: Option<String>,
        name: String,
        status: String,
    },
    Height {
        node: Option<String>,
        height: u64,
    },
    /// Never done; failed when the devnet's chain does not go on by itself.
    WithoutChain,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Done,
    /// What is still missing.
    Waiting(String),
    /// It cannot come true any more: why, and what mends it.
    Failed {
        message: String,
        remedy: Option<String>,
    },
    NotFound,
}

impl Verdict {
    /// A failure that names no mend gets that of another one.
    fn or_remedy(self, other: impl FnOnce() -> Option<Self>) -> Self {
        match self {
            Self::Failed { message, remedy: None } => {
                let remedy = other().and_then(|other| if let Self::Failed { remedy, .. } = other { remedy } else { None });
                Self::Failed { message, remedy }
            }
            verdict => verdict,
        }
    }
}

impl Goal {
    pub(crate) fn judge(&self, view: &View) -> Verdict {
        match self {
            Self::Deleted { node } => deleted(view, node.as_deref()),
            Self::NodeSettled { node } => with_node(view, node, |node| node_settled(node, view)),
            Self::Frozen { node: None, on, generation } => with_devnet(view, |devnet| {
                let seen = devnet.status.as_ref().map(|status| (status.observed_generation, status.conditions.as_slice()));
                frozen(seen.unwrap_or_default(), *on, *generation)
            }),
            Self::Frozen { node: Some(node), on, generation } => with_node(view, node, |node| {
                let seen = node.status.as_ref().map(|status| (status.observed_generation, status.conditions.as_slice()));
                frozen(seen.unwrap_or_default(), *on, *generation)
            }),
            Self::Settled { generation } => with_devnet(view, |devnet| settled(devnet, *generation, view)),
            // A devnet may run, and be ready, as an older spec wanted it.
            Self::Phase { node: None, phase } if phase.eq_ignore_ascii_case("Running") && !is_of_this_generation(view) => of_older(view),
            Self::Ready { node: None } if !is_of_this_generation(view) => of_older(view),
            Self::Phase { node, phase } => {
                let judge = |state: State<'_>| {
                    let missing = format!("phase is {}, not {phase}", state.phase);
                    done_or(state.phase.eq_ignore_ascii_case(phase), missing)
                };
                let verdict = with_state(view, node.as_deref(), judge);
                if phase.eq_ignore_ascii_case("Running") { unless_given_up(verdict, view, node.as_deref()) } else { verdict }
            }
            Self::Ready { node } => {
                let judge = |state: State<'_>| {
                    let condition = state.conditions.iter().find(|condition| condition.r#type == "Ready");
                    let ready = condition.map_or(state.phase == "Running", |condition| condition.status == "True");
                    let why = condition.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty());
                    done_or(ready, format!("not ready, phase {}{}", state.phase, why.map(|why| format!(": {why}")).unwrap_or_default()))
                };
                unless_given_up(with_state(view, node.as_deref(), judge), view, node.as_deref())
            }
            Self::Condition { node, name, status } => {
                let judge = |state: State<'_>| {
                    let found = state.conditions.iter().find(|condition| condition.r#type.eq_ignore_ascii_case(name));
                    let now = found.map_or("absent", |condition| condition.status.as_str());
                    done_or(now.eq_ignore_ascii_case(status), format!("condition {name} is {now}, not {status}"))
                };
                let verdict = with_state(view, node.as_deref(), judge);
                let needs_life = name.eq_ignore_ascii_case("Ready") && status.eq_ignore_ascii_case("True");
                if needs_life { unless_given_up(verdict, view, node.as_deref()) } else { verdict }
            }
            Self::Height { node, height } => {
                let judge = |state: State<'_>| match state.height {
                    Some(now) => done_or(now >= *height, format!("height is {now}, below {height}")),
                    None => Verdict::Waiting(format!("no height is known; phase {}", state.phase)),
                };
                match (with_state(view, node.as_deref(), judge), node) {
                    (verdict, Some(node)) => unless_given_up(verdict, view, Some(node)),
                    (Verdict::Waiting(missing), None) => without_chain(view).unwrap_or(Verdict::Waiting(missing)),
                    (verdict, None) => verdict,
                }
            }
            Self::WithoutChain => without_chain(view).unwrap_or_else(|| Verdict::Waiting("its chain may go on".into())),
        }
    }
}

/// What devnets and nodes have in common.
struct State<'a> {
    phase: &'a str,
    conditions: &'a [Condition],
    height: Option<u64>,
}

fn with_state(view: &View, node: Option<&str>, judge: impl Fn(State<'_>) -> Verdict) -> Verdict {
    let state_of_devnet = |devnet: &Devnet| match &devnet.status {
        Some(status) => judge(State { phase: &status.phase, conditions: &status.conditions, height: status.current_height }),
        None => Verdict::Waiting("no status yet".into()),
    };
    match node {
        None => with_devnet(view, state_of_devnet),
        Some(node) => with_node(view, node, |node| match &node.status {
            Some(status) => judge(State { phase: &status.phase, conditions: &status.conditions, height: status.block_height }),
            None => Verdict::Waiting("no status yet".into()),
        }),
    }
}

fn with_devnet(view: &View, judge: impl Fn(&Devnet) -> Verdict) -> Verdict {
    match &view.devnet {
        Some(devnet) => judge(devnet),
        None if view.devnet_told || view.gone => Verdict::NotFound,
        None => Verdict::Waiting("no word from devnetd yet".into()),
    }
}

fn with_node(view: &View, name: &str, judge: impl Fn(&Node) -> Verdict) -> Verdict {
    match view.nodes.get(name) {
        Some(node) => judge(node),
        None if view.nodes_told => Verdict::NotFound,
        None => Verdict::Waiting("no word from devnetd yet".into()),
    }
}

fn done_or(done: bool, missing: String) -> Verdict {
    if done { Verdict::Done } else { Verdict::Waiting(missing) }
}

fn deleted(view: &View, node: Option<&str>) -> Verdict {
    let (there, told) = match node {
        None => (view.devnet.is_some(), view.devnet_told || view.gone),
        Some(node) => (view.nodes.contains_key(node), view.nodes_told),
    };
    if told && !there {
        return Verdict::Done;
    }
    let status = view.devnet.as_ref().and_then(|devnet| devnet.status.as_ref());
    let message = status.and_then(|status| status.message.as_deref()).filter(|message| !message.is_empty());
    Verdict::Waiting(message.map_or_else(|| "still there".to_owned(), str::to_owned))
}

fn settled(devnet: &Devnet, generation: u64, view: &View) -> Verdict {
    let (spec, status) = (devnet.spec.clone().unwrap_or_default(), devnet.status.clone().unwrap_or_default());
    let (asked, done) = (spec.operations.unwrap_or_default(), status.operations.unwrap_or_default());
    if devnet.metadata.as_ref().is_some_and(|metadata| metadata.deleted_at.is_some()) {
        return Verdict::Failed { message: "it is being deleted".into(), remedy: None };
    }
    // A phase that belongs to an older generation says nothing about this one.
    let current = status.observed_generation >= generation;
    let wanted = if spec.desired.as_deref() == Some("stopped") { "Stopped" } else { "Running" };
    if current
        && wanted == "Running"
        && let Some(refusal) = refusal(devnet)
    {
        return refusal; // to stop, no spec is needed
    }
    if current && let Some(failure) = failure(devnet) {
        return failure.or_remedy(|| view.nodes.values().find_map(|node| gave_up(node, view)));
    }
    let verbs = has_done(&asked, &done);
    if current && verbs && status.phase == wanted {
        return Verdict::Done;
    }
    if current
        && verbs
        && wanted == "Running"
        && let Some(lost) = view.nodes.values().find_map(|node| held_down(node).or_else(|| gave_up_in_devnet(node, view)))
    {
        return lost;
    }
    Verdict::Waiting(missing(&status.phase, status.ready_nodes, status.nodes, status.message.as_deref(), view))
}

/// That it is Failed, and what for, whichever spec that was.
fn failure(devnet: &Devnet) -> Option<Verdict> {
    let status = devnet.status.as_ref().filter(|status| status.phase == "Failed")?;
    let complaint = complaint(&status.conditions);
    let message = complaint.map(|condition| condition.message.clone()).or(status.message.clone()).unwrap_or_else(|| "it failed".into());
    Some(Verdict::Failed { message, remedy: complaint.and_then(|condition| condition.remedy.clone()) })
}

/// False: its newest spec is not taken up yet, or was refused.
fn is_of_this_generation(view: &View) -> bool {
    view.devnet.as_ref().is_none_or(|devnet| is_taken_up(devnet) && refusal(devnet).is_none())
}

fn is_taken_up(devnet: &Devnet) -> bool {
    let wanted = devnet.metadata.as_ref().map_or(0, |metadata| metadata.generation);
    devnet.status.as_ref().is_some_and(|status| status.observed_generation >= wanted)
}

fn of_older(view: &View) -> Verdict {
    with_devnet(view, |devnet| {
        let status = devnet.status.clone().unwrap_or_default();
        let waiting = || Verdict::Waiting(missing(&status.phase, status.ready_nodes, status.nodes, status.message.as_deref(), view));
        Some(devnet).filter(|devnet| is_taken_up(devnet)).and_then(refusal).unwrap_or_else(waiting)
    })
}

/// The newest spec that was looked at was refused; what runs is as the one before wanted it.
fn refusal(devnet: &Devnet) -> Option<Verdict> {
    let refused = objects::refusal(&devnet.status.as_ref()?.conditions)?;
    Some(Verdict::Failed { message: refused.message.clone(), remedy: refused.remedy.clone() })
}

fn missing(phase: &str, ready: u32, nodes: u32, message: Option<&str>, view: &View) -> String {
    let mut text = format!("{phase}, {ready} of {nodes} nodes ready");
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        text.push_str(&format!("; {message}"));
    }
    let phase = |node: &Node| node.status.as_ref().map(|status| status.phase.clone()).unwrap_or_default();
    let missing: Vec<_> = view.nodes.iter().filter(|(_, node)| !matches!(phase(node).as_str(), "Running" | "Stopped")).collect();
    for (name, node) in missing.iter().take(NAMED) {
        text.push_str(&format!("; {name} is {}{}", phase(node), trouble(node).map(|why| format!(" ({why})")).unwrap_or_default()));
    }
    if missing.len() > NAMED {
        text.push_str(&format!("; and {} more", missing.len() - NAMED));
    }
    text
}

/// Why a node is not what it should be.
pub(crate) fn trouble(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    if matches!(status.phase.as_str(), "Failed" | "Crashed" | "Backoff")
        && let Some(exit) = &status.last_exit
    {
        return Some(exit_text(exit));
    }
    complaint(&status.conditions).map(|condition| condition.message.clone())
}

/// The condition is there only while something stands still, or is about to.
fn frozen((observed, conditions): (u64, &[Condition]), on: bool, generation: u64) -> Verdict {
    let condition = conditions.iter().find(|condition| condition.r#type == "Frozen");
    let done = match condition {
        Some(condition) => on && condition.status == "True",
        None => !on,
    };
    let missing = condition.map_or_else(|| "no word of it yet".to_owned(), |condition| condition.message.clone());
    done_or(done && observed >= generation, missing)
}

/// A node that is frozen and has no process: it starts when it is thawed, and not before.
fn held_down(node: &Node) -> Option<Verdict> {
    let (spec, phase) = (node.spec.as_ref()?, &node.status.as_ref()?.phase);
    let is_down = matches!(phase.as_str(), "Crashed" | "Backoff" | "Stopped" | "Pending");
    let waits = is_down && spec.desired != "stopped" && (spec.frozen || spec.frozen_with_devnet);
    let name = name(&node.metadata);
    let frozen = if spec.frozen { name } else { name.split('/').next().unwrap_or(name) };
    let message = format!("{name} is {phase} and frozen");
    waits.then(|| Verdict::Failed { message, remedy: Some(format!("dvbctl thaw {frozen}")) })
}

fn node_settled(node: &Node, view: &View) -> Verdict {
    if let Some(lost) = gave_up(node, view).or_else(|| held_down(node).filter(|_| is_current(node))) {
        return lost;
    }
    let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
    let wanted = if spec.desired == "stopped" { "Stopped" } else { "Running" };
    let done = status.phase == wanted && status.observed_restart >= spec.restart_request;
    done_or(done, format!("{}{}", status.phase, trouble(node).map(|why| format!(": {why}")).unwrap_or_default()))
}

/// A failure from before a request that the daemon has not taken up yet says nothing about that request.
fn is_current(node: &Node) -> bool {
    let generation = node.metadata.as_ref().map_or(0, |metadata| metadata.generation);
    let asked = node.spec.as_ref().map_or(0, |spec| spec.restart_request);
    node.status.as_ref().is_some_and(|status| status.observed_restart >= asked && status.observed_generation >= generation)
}

/// Why a node is not started again before somebody does something about it: it failed.
fn gave_up(node: &Node, view: &View) -> Option<Verdict> {
    let (spec, status) = (node.spec.as_ref()?, node.status.as_ref()?);
    let leaves = node.metadata.as_ref().is_some_and(|metadata| metadata.deleted_at.is_some());
    let is_wanted = spec.desired != "stopped" && !spec.suspended && !leaves;
    if status.phase != "Failed" || !is_wanted || !is_current(node) || view.upgrades.iter().any(|upgrade| may_mend(upgrade, node, view)) {
        return None;
    }
    let remedy = complaint(&status.conditions).and_then(|condition| condition.remedy.clone());
    let remedy = remedy.unwrap_or_else(|| format!("dvbctl why {}", name(&node.metadata)));
    Some(Verdict::Failed { message: trouble(node).unwrap_or_else(|| "it failed".into()), remedy: Some(remedy) })
}

/// The same, as a reason why its devnet does not come to what is waited for.
fn gave_up_in_devnet(node: &Node, view: &View) -> Option<Verdict> {
    let Verdict::Failed { message, remedy } = gave_up(node, view)? else { return None };
    Some(Verdict::Failed { message: format!("{} is Failed: {message}", name(&node.metadata)), remedy })
}

/// Whether the upgrade changes the node's binary, or takes it back, without that the node runs before.
fn may_mend(upgrade: &Upgrade, node: &Node, view: &View) -> bool {
    let (spec, status) = (upgrade.spec.clone().unwrap_or_default(), upgrade.status.clone().unwrap_or_default());
    match status.phase.as_str() {
        "Switching" | "Verifying" | "RollingBack" => true,
        _ if spec.skip_vote && spec.height == 0 => view.devnet.as_ref().is_none_or(|devnet| refusal(devnet).is_none()),
        // It ended at the height, as it should.
        _ => node.status.as_ref().and_then(|status| status.last_exit.as_ref()).is_some_and(|exit| exit.class == "upgrade-needed"),
    }
}

/// Of an upgrade. A request to try again counts only when it was taken up.
pub(crate) fn has_ended(upgrade: &Upgrade) -> bool {
    let asked = upgrade.spec.as_ref().map_or(0, |spec| spec.retry);
    let taken_up = upgrade.status.as_ref().map_or(0, |status| status.attempt);
    let phase = upgrade.status.as_ref().map_or("", |status| status.phase.as_str());
    matches!(phase, "Completed" | "RolledBack" | "Failed") && taken_up >= asked
}

/// `verdict`, unless it waits for what cannot come: for the node, or for all of the devnet's, to run.
fn unless_given_up(verdict: Verdict, view: &View, node: Option<&str>) -> Verdict {
    let Verdict::Waiting(missing) = verdict else { return verdict };
    let lost = match node {
        Some(node) => view.nodes.get(node).and_then(|node| gave_up(node, view)),
        None => newest(view).and_then(|devnet| never_began(devnet).or_else(|| view.nodes.values().find_map(|node| gave_up_in_devnet(node, view)))),
    };
    lost.unwrap_or(Verdict::Waiting(missing))
}

/// Why no block comes any more before somebody does something: the devnet has no nodes, all of them failed, or so many that it stands.
fn without_chain(view: &View) -> Option<Verdict> {
    let devnet = newest(view)?;
    if let Some(failure) = never_began(devnet) {
        return Some(failure);
    }
    let is_in_chain = |node: &&Node| node.spec.as_ref().is_some_and(|spec| spec.role != "service");
    let chain: Vec<&Node> = view.nodes.values().filter(is_in_chain).collect();
    let lost: Vec<&Node> = chain.iter().copied().filter(|node| gave_up(node, view).is_some()).collect();
    let validators = |nodes: &[&Node]| nodes.iter().filter(|node| node.spec.as_ref().is_some_and(|spec| spec.role == "validator")).count();
    let status = devnet.status.clone().unwrap_or_default();
    let stands =
        status.phase == "Failed" || status.conditions.iter().any(|condition| condition.r#type == "Progressing" && condition.reason == "Halted");
    let is_lost = lost.len() == chain.len() || (stands && validators(&lost) * 3 >= validators(&chain));
    lost.first().filter(|_| is_lost).and_then(|node| gave_up_in_devnet(node, view))
}

/// Its spec was refused before it had any nodes.
fn never_began(devnet: &Devnet) -> Option<Verdict> {
    failure(devnet).filter(|_| refusal(devnet).is_some())
}

/// The devnet, when its newest spec is taken up and all that was asked of it is under way.
fn newest(view: &View) -> Option<&Devnet> {
    view.devnet.as_ref().filter(|devnet| {
        let asked = devnet.spec.as_ref().and_then(|spec| spec.operations).unwrap_or_default();
        let done = devnet.status.as_ref().and_then(|status| status.operations).unwrap_or_default();
        is_taken_up(devnet) && has_done(&asked, &done)
    })
}

fn has_done(asked: &Operations, done: &Operations) -> bool {
    done.restart >= asked.restart && done.reset >= asked.reset && done.refresh_binary >= asked.refresh_binary
}

#[cfg(test)]
mod tests;
