//! What a verb waits for, decided purely: a view of one devnet (and its nodes) in, a verdict out.

use crate::render::objects::{self, complaint, exit_text, name};
use dvb_proto::devnet::v1::{Condition, Devnet, Node};
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

impl Goal {
    pub(crate) fn judge(&self, view: &View) -> Verdict {
        match self {
            Self::Deleted { node } => deleted(view, node.as_deref()),
            Self::NodeSettled { node } => with_node(view, node, node_settled),
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
            Self::Phase { node, phase } => with_state(view, node.as_deref(), |state| {
                let missing = format!("phase is {}, not {phase}", state.phase);
                done_or(state.phase.eq_ignore_ascii_case(phase), missing)
            }),
            Self::Ready { node } => with_state(view, node.as_deref(), |state| {
                let condition = state.conditions.iter().find(|condition| condition.r#type == "Ready");
                let ready = condition.map_or(state.phase == "Running", |condition| condition.status == "True");
                let why = condition.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty());
                done_or(ready, format!("not ready, phase {}{}", state.phase, why.map(|why| format!(": {why}")).unwrap_or_default()))
            }),
            Self::Condition { node, name, status } => with_state(view, node.as_deref(), |state| {
                let found = state.conditions.iter().find(|condition| condition.r#type.eq_ignore_ascii_case(name));
                let now = found.map_or("absent", |condition| condition.status.as_str());
                done_or(now.eq_ignore_ascii_case(status), format!("condition {name} is {now}, not {status}"))
            }),
            Self::Height { node, height } => with_state(view, node.as_deref(), |state| match state.height {
                Some(now) => done_or(now >= *height, format!("height is {now}, below {height}")),
                None => Verdict::Waiting(format!("no height is known; phase {}", state.phase)),
            }),
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
        return failure;
    }
    let verbs = done.restart >= asked.restart && done.reset >= asked.reset && done.refresh_binary >= asked.refresh_binary;
    if current && verbs && status.phase == wanted {
        return Verdict::Done;
    }
    if current
        && verbs
        && wanted == "Running"
        && let Some(held) = view.nodes.values().find_map(held_down)
    {
        return held;
    }
    Verdict::Waiting(missing(&status.phase, status.ready_nodes, status.nodes, status.message.as_deref(), view))
}

/// That it is Failed, and what for, whichever spec that was.
pub(crate) fn failure(devnet: &Devnet) -> Option<Verdict> {
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

fn node_settled(node: &Node) -> Verdict {
    let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
    // A failure from before a request that the daemon has not taken up yet says nothing about that request.
    let generation = node.metadata.as_ref().map_or(0, |metadata| metadata.generation);
    let current = status.observed_restart >= spec.restart_request && status.observed_generation >= generation;
    if current && status.phase == "Failed" {
        let remedy = complaint(&status.conditions).and_then(|condition| condition.remedy.clone());
        return Verdict::Failed { message: trouble(node).unwrap_or_else(|| "it failed".into()), remedy };
    }
    if current && let Some(held) = held_down(node) {
        return held;
    }
    let wanted = if spec.desired == "stopped" { "Stopped" } else { "Running" };
    let done = status.phase == wanted && status.observed_restart >= spec.restart_request;
    done_or(done, format!("{}{}", status.phase, trouble(node).map(|why| format!(": {why}")).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{DevnetSpec, DevnetStatus, Metadata, NodeSpec, NodeStatus, Operations};

    fn devnet(phase: &str, edit: impl FnOnce(&mut Devnet)) -> View {
        let status = DevnetStatus { phase: phase.into(), observed_generation: 2, nodes: 2, ready_nodes: 1, ..DevnetStatus::default() };
        let mut devnet = Devnet { metadata: Some(Metadata::default()), spec: Some(DevnetSpec::default()), status: Some(status), ..Devnet::default() };
        edit(&mut devnet);
        View { devnet: Some(devnet), devnet_told: true, nodes_told: true, ..View::default() }
    }
    fn is_waiting(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Waiting(_))
    }

    #[test]
    fn a_devnet_has_settled_when_it_runs_in_the_generation_that_was_asked_for() {
        assert_eq!(Goal::Settled { generation: 2 }.judge(&devnet("Running", |_| {})), Verdict::Done);
        assert!(is_waiting(&Goal::Settled { generation: 3 }.judge(&devnet("Running", |_| {}))));
        assert!(is_waiting(&Goal::Settled { generation: 2 }.judge(&devnet("Provisioning", |_| {}))));
    }

    #[test]
    fn an_old_failure_does_not_end_the_wait_for_a_new_generation() {
        assert!(is_waiting(&Goal::Settled { generation: 3 }.judge(&devnet("Failed", |_| {}))));
        assert!(matches!(Goal::Settled { generation: 2 }.judge(&devnet("Failed", |_| {})), Verdict::Failed { .. }));
    }

    #[test]
    fn a_refused_spec_ends_the_wait_for_it_at_once_though_the_devnet_runs() {
        let refused = |devnet: &mut Devnet| {
            let message = "spec.fullNodes: cannot be".to_owned();
            let condition = Condition { r#type: "Provisioned".into(), status: "False".into(), message, ..Condition::default() };
            devnet.status.as_mut().unwrap().conditions = vec![condition];
            devnet.metadata.as_mut().unwrap().generation = 2;
        };
        let (settled, later) = (Goal::Settled { generation: 2 }, Goal::Settled { generation: 3 });
        let (running, ready) = (Goal::Phase { node: None, phase: "running".into() }, Goal::Ready { node: None });
        let failed = Verdict::Failed { message: "spec.fullNodes: cannot be".into(), remedy: None };
        for goal in [&settled, &running, &ready] {
            assert_eq!(goal.judge(&devnet("Running", refused)), failed, "{goal:?}");
        }
        let degraded = Goal::Phase { node: None, phase: "Running".into() };
        assert_eq!(degraded.judge(&devnet("Running", |_| {})), Verdict::Done);
        let newer = |devnet: &mut Devnet| {
            refused(devnet);
            devnet.metadata.as_mut().unwrap().generation = 3;
        };
        for goal in [&later, &running, &ready] {
            assert!(is_waiting(&goal.judge(&devnet("Running", newer))), "{goal:?}: the old refusal says nothing of the new spec");
        }
    }

    #[test]
    fn a_node_that_died_frozen_is_not_waited_for_but_one_that_stands_still_is_fine() {
        let frozen = |phase: &str, spec: NodeSpec| {
            let mut view = devnet("Degraded", |_| {});
            let metadata = Metadata { name: "a/b".into(), ..Metadata::default() };
            let status = NodeStatus { phase: phase.into(), ..NodeStatus::default() };
            view.nodes.insert("a/b".into(), Node { metadata: Some(metadata), spec: Some(spec), status: Some(status), ..Node::default() });
            view
        };
        let (alone, whole) = (NodeSpec { frozen: true, ..NodeSpec::default() }, NodeSpec { frozen_with_devnet: true, ..NodeSpec::default() });
        let goals = [Goal::Settled { generation: 2 }, Goal::NodeSettled { node: "a/b".into() }];
        for (spec, thaw) in [(alone, "dvbctl thaw a/b"), (whole, "dvbctl thaw a")] {
            let failed = Verdict::Failed { message: "a/b is Crashed and frozen".into(), remedy: Some(thaw.into()) };
            assert!(goals.iter().all(|goal| goal.judge(&frozen("Crashed", spec.clone())) == failed));
            assert!(goals.iter().all(|goal| !matches!(goal.judge(&frozen("Running", spec.clone())), Verdict::Failed { .. })));
        }
        let free = frozen("Crashed", NodeSpec::default());
        assert!(goals.iter().all(|goal| is_waiting(&goal.judge(&free))));
    }

    #[test]
    fn a_stopped_devnet_has_settled_only_when_stopped_is_wanted() {
        let stop = |devnet: &mut Devnet| devnet.spec.as_mut().unwrap().desired = Some("stopped".into());
        assert_eq!(Goal::Settled { generation: 2 }.judge(&devnet("Stopped", stop)), Verdict::Done);
        assert!(is_waiting(&Goal::Settled { generation: 2 }.judge(&devnet("Stopped", |_| {}))));
        assert!(is_waiting(&Goal::Settled { generation: 2 }.judge(&devnet("Running", stop))));
    }

    #[test]
    fn a_restart_or_reset_is_waited_for_until_its_counter_has_caught_up() {
        let asked = |devnet: &mut Devnet| devnet.spec.as_mut().unwrap().operations = Some(Operations { reset: 1, ..Operations::default() });
        assert!(is_waiting(&Goal::Settled { generation: 2 }.judge(&devnet("Running", asked))));
        let carried_out = |devnet: &mut Devnet| {
            asked(devnet);
            devnet.status.as_mut().unwrap().operations = Some(Operations { reset: 1, ..Operations::default() });
        };
        assert_eq!(Goal::Settled { generation: 2 }.judge(&devnet("Running", carried_out)), Verdict::Done);
    }

    #[test]
    fn an_old_failure_of_a_node_does_not_end_the_wait_for_its_restart() {
        let judge = |observed_restart, observed_generation| {
            let status = NodeStatus { phase: "Failed".into(), observed_restart, observed_generation, ..NodeStatus::default() };
            let metadata = Some(Metadata { generation: 3, ..Metadata::default() });
            let spec = Some(NodeSpec { restart_request: 2, ..NodeSpec::default() });
            node_settled(&Node { metadata, spec, status: Some(status), ..Node::default() })
        };
        assert!(is_waiting(&judge(1, 3)));
        assert!(is_waiting(&judge(2, 2)));
        assert!(matches!(judge(2, 3), Verdict::Failed { .. }));
    }

    #[test]
    fn a_freeze_is_done_when_the_condition_says_so_in_its_generation_and_a_thaw_when_it_is_gone() {
        let judge = |on: bool, observed: u64, status: Option<&str>| {
            let condition = status.map(|status| Condition { r#type: "Frozen".into(), status: status.into(), ..Condition::default() });
            frozen((observed, condition.as_slice()), on, 2)
        };
        assert_eq!(judge(true, 2, Some("True")), Verdict::Done);
        assert_eq!(judge(false, 2, None), Verdict::Done);
        for (on, observed, status) in [(true, 1, Some("True")), (true, 2, None), (true, 2, Some("False")), (false, 2, Some("True")), (false, 1, None)]
        {
            assert!(is_waiting(&judge(on, observed, status)), "{on} {observed} {status:?}");
        }
    }

    #[test]
    fn deletion_is_done_only_once_the_absence_has_been_told() {
        let goal = Goal::Deleted { node: None };
        assert!(is_waiting(&goal.judge(&View::default())));
        assert_eq!(goal.judge(&View { devnet_told: true, ..View::default() }), Verdict::Done);
        assert!(is_waiting(&goal.judge(&devnet("Deleting", |_| {}))));
    }

    #[test]
    fn what_does_not_exist_is_not_waited_for() {
        let view = View { devnet_told: true, nodes_told: true, ..View::default() };
        assert_eq!(Goal::Settled { generation: 1 }.judge(&view), Verdict::NotFound);
        assert_eq!(Goal::Ready { node: Some("a/b".into()) }.judge(&view), Verdict::NotFound);
    }

    #[test]
    fn phase_height_and_condition_are_read_from_the_node_that_is_named() {
        let mut view = devnet("Running", |_| {});
        let condition = Condition { r#type: "Ready".into(), status: "True".into(), ..Condition::default() };
        let status = NodeStatus { phase: "Backoff".into(), block_height: Some(7), conditions: vec![condition], ..NodeStatus::default() };
        view.nodes.insert("a/b".into(), Node { spec: Some(NodeSpec::default()), status: Some(status), ..Node::default() });
        let node = Some("a/b".to_owned());
        assert_eq!(Goal::Phase { node: node.clone(), phase: "backoff".into() }.judge(&view), Verdict::Done);
        assert_eq!(Goal::Height { node: node.clone(), height: 7 }.judge(&view), Verdict::Done);
        assert!(is_waiting(&Goal::Height { node: node.clone(), height: 8 }.judge(&view)));
        assert_eq!(Goal::Ready { node: node.clone() }.judge(&view), Verdict::Done);
        assert_eq!(Goal::Condition { node, name: "Ready".into(), status: "True".into() }.judge(&view), Verdict::Done);
    }
}
