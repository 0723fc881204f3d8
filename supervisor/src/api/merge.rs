//! Objects as clients see them: the stored state with what was last observed of it.

use super::{convert, node_message};
use crate::{
    model::{ConditionStatus, Conditions, Devnet, Fault, Key, Meta, Node, NodePhase, NodeStatus, Object},
    observe::Observations,
    sys,
};
use dvb_proto::devnet::v1::{self, View};

/// The node with what is known of it now. Of a node that does not run, or that was not asked yet, nothing is.
pub(super) fn node(node: &Node, observations: &Observations) -> Node {
    let mut node = node.clone();
    observe(&node.metadata, &mut node.status, observations);
    // A file is read to know it, so a table of hundreds does without: it shows the end when it has come.
    if node.status.phase == NodePhase::Running && node.status.pid.is_some_and(sys::is_ending) {
        node.status.phase = NodePhase::Stopping;
        forget_the_past(&mut node.status);
    }
    node
}

/// Its status as a table shows it.
fn basic_status(node: &Node, observations: &Observations) -> NodeStatus {
    let NodeStatus { phase, pid, started_at, restart_count, endpoints, conditions, .. } = &node.status;
    let mut status = NodeStatus {
        phase: *phase,
        pid: *pid,
        started_at: *started_at,
        restart_count: *restart_count,
        endpoints: endpoints.clone(),
        conditions: Conditions(conditions.0.iter().filter(|condition| condition.status != ConditionStatus::True).cloned().collect()),
        ..NodeStatus::default()
    };
    observe(&node.metadata, &mut status, observations);
    status
}

fn observe(metadata: &Meta, status: &mut NodeStatus, observations: &Observations) {
    if is_bereft(status) {
        without_process(status);
    }
    let alive = matches!(status.phase, NodePhase::Starting | NodePhase::Running | NodePhase::Stopping);
    let seen = observations.get(&Key::node(&metadata.namespace, &metadata.name)).filter(|_| alive).unwrap_or_default();
    (status.block_height, status.peer_count) = (seen.height, seen.peers);
    (status.catching_up, status.usage, status.details) = (seen.catching_up, seen.usage, seen.details);
}

/// Its process has ended, and that is not on record yet.
pub(super) fn is_bereft(status: &NodeStatus) -> bool {
    status.pid.is_some_and(sys::has_ended)
}

/// Of how it ended nothing is said, nor how the launch before it did, nor what is not so any more.
fn without_process(status: &mut NodeStatus) {
    (status.pid, status.last_exit) = (None, None);
    if matches!(status.phase, NodePhase::Starting | NodePhase::Running) {
        status.phase = NodePhase::Crashed;
    }
    forget_the_past(status);
}

/// What is not so any more when its process ends.
fn forget_the_past(status: &mut NodeStatus) {
    for gone in ["Ready", "Progressing"] {
        status.conditions.remove(gone);
    }
}

/// The devnet with the highest height that any of its nodes is known to have reached.
pub(super) fn devnet(devnet: &Devnet, observations: &Observations) -> Devnet {
    let mut devnet = devnet.clone();
    devnet.status.current_height = observations.highest(&devnet.metadata.namespace, &devnet.metadata.name);
    devnet
}

pub(super) fn node_message(object: &Node, observations: &Observations) -> Result<v1::Node, Fault> {
    node_message::message(node(object, observations))
}

pub(super) fn devnet_message(object: &Devnet, observations: &Observations) -> Result<v1::Devnet, Fault> {
    convert::to_message(&devnet(object, observations))
}

/// The messages of all objects of one kind; others are left out.
pub(super) fn nodes(objects: &[Object], view: View, observations: &Observations) -> Result<Vec<v1::Node>, Fault> {
    let nodes = objects.iter().filter_map(|object| if let Object::Node(node) = object { Some(node) } else { None });
    let mut messages = Vec::with_capacity(objects.len()); // a message is large: it is moved once
    for node in nodes {
        messages.push(match view {
            View::Basic => node_message::basic(&node.metadata, &node.spec, basic_status(node, observations)),
            View::Unspecified | View::Full => node_message(node, observations)?,
        });
    }
    Ok(messages)
}

pub(super) fn devnets(objects: &[Object], observations: &Observations) -> Result<Vec<v1::Devnet>, Fault> {
    let devnets = objects.iter().filter_map(|object| if let Object::Devnet(devnet) = object { Some(devnet) } else { None });
    devnets.map(|devnet| devnet_message(devnet, observations)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Condition, NodeSpec, Timestamp, Usage};

    fn running(name: &str) -> Node {
        let metadata = Meta { name: name.into(), namespace: "default".into(), ..Meta::default() };
        Node { metadata, spec: NodeSpec::default(), status: NodeStatus { phase: NodePhase::Running, ..NodeStatus::default() } }
    }

    #[test]
    fn what_was_observed_is_merged_in_and_ends_with_the_process() {
        let observations = Observations::default();
        let mut object = running("mynet/validator-0");
        observations.update(&Key::node("default", "mynet/validator-0"), |seen| {
            (seen.height, seen.peers, seen.catching_up) = (Some(9), Some(3), true);
            seen.usage = Some(Usage { cpu: 0.5, memory: 1, fds: 2, ..Usage::default() });
        });
        let seen = node(&object, &observations).status;
        assert_eq!((seen.block_height, seen.peer_count, seen.catching_up, seen.usage.is_some()), (Some(9), Some(3), true, true));
        object.status.phase = NodePhase::Backoff;
        let seen = node(&object, &observations).status;
        assert_eq!((seen.block_height, seen.peer_count, seen.catching_up, seen.usage.is_some()), (None, None, false, false));
        assert_eq!(observations.highest("default", "mynet"), Some(9));
        assert_eq!((observations.highest("default", "mynet2"), observations.highest("other", "mynet")), (None, None));
    }

    #[test]
    fn a_table_gets_what_it_shows_and_no_more() {
        let observations = Observations::default();
        observations.update(&Key::node("default", "mynet/validator-0"), |seen| (seen.height, seen.peers) = (Some(9), Some(3)));
        let mut object = running("mynet/validator-0");
        object.metadata.labels.insert("team".into(), "a".into());
        (object.spec.role, object.spec.home_dir, object.spec.frozen) = ("validator".into(), "/h".into(), true);
        (object.status.pid, object.status.restart_count) = (Some(std::process::id()), 2);
        object.status.endpoints.insert("rpc".into(), "http://127.64.0.1:26657".into());
        object.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Ready", "ready"), Timestamp::default());
        object.status.conditions.set(Condition::new("Progressing", ConditionStatus::False, "Halted", "halted"), Timestamp::default());
        let full = node_message(&object, &observations).unwrap();
        let listed = nodes(&[Object::Node(object.into())], View::Basic, &observations).unwrap();
        let (metadata, spec, status) = (full.metadata.unwrap(), full.spec.unwrap(), full.status.unwrap());
        let halted = status.conditions.iter().filter(|condition| condition.r#type == "Progressing").cloned().collect();
        let basic = v1::Node {
            metadata: Some(v1::Metadata { name: metadata.name, namespace: metadata.namespace, ..v1::Metadata::default() }),
            spec: Some(v1::NodeSpec { role: spec.role, desired: spec.desired, frozen: true, ..v1::NodeSpec::default() }),
            status: Some(v1::NodeStatus {
                phase: "Running".into(),
                pid: status.pid,
                block_height: Some(9),
                peer_count: Some(3),
                restart_count: 2,
                endpoints: status.endpoints,
                conditions: halted,
                ..v1::NodeStatus::default()
            }),
            ..v1::Node::default()
        };
        assert_eq!(listed, [basic]);
    }

    #[test]
    fn a_pid_that_is_gone_is_not_told_though_its_end_is_not_on_record() {
        let mut child = sys::command("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap(); // it ends with us
        let mut object = running("mynet/validator-0");
        object.status.pid = Some(child.id());
        object.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Ready", ""), Timestamp::default());
        let told = |object: &Node| {
            let status = node(object, &Observations::default()).status;
            (status.phase, status.pid, status.conditions.is_true("Ready"))
        };
        assert_eq!(told(&object), (NodePhase::Running, Some(child.id()), true));
        child.kill().unwrap();
        // A zombie until it is waited for, which the reaper does later than others may look.
        let ended = || sys::process_stat(child.id()).is_some_and(|stat| stat.is_zombie());
        while !ended() {
            std::thread::yield_now();
        }
        assert_eq!(told(&object), (NodePhase::Crashed, None, false));
        object.status.phase = NodePhase::Stopping;
        assert_eq!(told(&object), (NodePhase::Stopping, None, false));
        child.wait().unwrap();
        assert_eq!(told(&object).1, None, "and when it is reaped");
    }

    /// As one that is killed and has much to give back: its first thread is gone, another is not yet.
    #[test]
    fn a_process_that_is_ending_is_not_told_to_run() {
        let script = "import ctypes, platform, threading, time\n\
            threading.Thread(target=time.sleep, args=(600,)).start()\n\
            ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)";
        let Ok(mut child) = sys::command("python3").args(["-c", script]).stderr(std::process::Stdio::null()).spawn() else {
            println!("SKIP: no python3, so no process whose first thread has ended");
            return;
        };
        let mut object = running("mynet/validator-0");
        object.status.pid = Some(child.id());
        object.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Ready", ""), Timestamp::default());
        while !sys::is_ending(child.id()) && !sys::has_ended(child.id()) {
            std::thread::yield_now();
        }
        let status = node(&object, &Observations::default()).status;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((status.phase, status.pid, status.conditions.is_true("Ready")), (NodePhase::Stopping, Some(child.id()), false));
    }

    #[test]
    fn what_nobody_knows_is_absent_and_not_0() {
        let observations = Observations::default();
        let adopted = running("mynet/validator-0");
        let shown = |object: &Node| serde_json::to_value(node(object, &observations)).unwrap()["status"].clone();
        assert_eq!((shown(&adopted).get("blockHeight"), shown(&adopted).get("peerCount")), (None, None));
        // A service: its usage is sampled, but it has no height.
        observations.update(&Key::node("default", "mynet/web"), |seen| seen.usage = Some(Usage::default()));
        let service = shown(&running("mynet/web"));
        assert_eq!((service.get("blockHeight"), service.get("usage").is_some()), (None, true));
        assert_eq!(observations.highest("default", "mynet"), None);
    }

    #[test]
    fn a_zero_that_an_older_store_holds_is_no_height() {
        let mut object = running("mynet/validator-0");
        (object.status.block_height, object.status.peer_count) = (Some(0), Some(0));
        let seen = node(&object, &Observations::default()).status;
        assert_eq!((seen.block_height, seen.peer_count), (None, None));
    }
}
