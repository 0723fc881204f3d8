//! One sentence about the state of an object, and why it is so.

use crate::model::{
    Condition, ConditionStatus, Conditions, Devnet, ExitClass, Export, LastExit, Launch, LaunchPhase, Node, NodePhase, Object, Transaction,
    TransactionPhase, Upgrade,
};
use std::fmt::Write as _;

/// Phase first, then causes, joined by `; `.
pub fn headline(object: &Object) -> String {
    match object {
        Object::Devnet(devnet) => of_devnet(devnet),
        Object::Node(node) => of_node(node),
        Object::Launch(launch) => of_launch(launch),
        Object::Lease(lease) => {
            let holder = lease.spec.node_ref.as_deref().unwrap_or(&lease.spec.devnet_ref);
            format!("Lease {} is held by {holder}", lease.metadata.name)
        }
        Object::Transaction(tx) => of_transaction(tx),
        Object::Upgrade(upgrade) => of_upgrade(upgrade),
        Object::Export(export) => of_export(export),
        Object::Plan(plan) => {
            let nodes = plan.spec.nodes.len();
            format!("Plan {} has {nodes} nodes, made for generation {} of its devnet", plan.metadata.name, plan.spec.generation)
        }
    }
}

fn of_devnet(devnet: &Devnet) -> String {
    let status = &devnet.status;
    let ready = format!("{} of {} nodes", status.ready_nodes, status.nodes);
    let message = status.message.as_deref().unwrap_or_default();
    let mut text = format!("Devnet {} is {:?}", devnet.metadata.name, status.phase);
    // "4 of 5 nodes are ready; validator-1: ..." counts them itself.
    if message.starts_with(&ready) {
        let _ = write!(text, ": {}", message.trim_end_matches(END));
    } else {
        let _ = write!(text, ": {ready} ready");
        if !message.is_empty() {
            add(&mut text, message);
        }
    }
    add_false(&mut text, &status.conditions);
    text
}

fn of_export(export: &Export) -> String {
    let status = &export.status;
    let mut text = format!("Export {} is {:?}", export.metadata.name, status.phase);
    if let Some(message) = &status.message {
        add(&mut text, message);
    }
    text
}

fn of_transaction(tx: &Transaction) -> String {
    let (spec, status) = (&tx.spec, &tx.status);
    let mut text = format!("Transaction {} ({} by {}) is {:?}", tx.metadata.name, spec.tx_type, spec.signer, status.phase);
    match (status.phase, status.height) {
        (TransactionPhase::Pending, _) => add(&mut text, &format!("it waits for its turn among those of {}", spec.signer)),
        (_, Some(height)) => add(&mut text, &format!("it is in block {height}")),
        _ => {}
    }
    if let (Some(signed), None) = (&status.signed, status.height) {
        let _ = write!(text, "; signed with sequence {}", signed.sequence);
        if signed.expires_at > 0 {
            let _ = write!(text, ", valid until block {}", signed.expires_at);
        }
    }
    if let Some(error) = &status.error {
        add(&mut text, error);
    }
    text
}

fn of_upgrade(upgrade: &Upgrade) -> String {
    let (spec, status) = (&upgrade.spec, &upgrade.status);
    let at = upgrade.height().map_or_else(|| "at once".to_owned(), |height| format!("at height {height}"));
    let mut text = format!("Upgrade {} ({} {at}) is {:?}", upgrade.metadata.name, spec.upgrade_name, status.phase);
    if !status.message.is_empty() {
        add(&mut text, &status.message);
    }
    if let Some(why) = status.why.as_ref().filter(|why| !status.message.contains(why.as_str())) {
        add(&mut text, why);
    }
    text
}

fn of_node(node: &Node) -> String {
    let status = &node.status;
    let mut text = format!("Node {} is {:?}", node.metadata.name, status.phase);
    if status.phase == NodePhase::Running {
        if let Some(since) = status.started_at {
            let _ = write!(text, " since {since}");
        }
        if let Some(pid) = status.pid {
            let _ = write!(text, ", pid {pid}");
        }
    }
    let is_told =
        |exit: &LastExit| !exit.message.is_empty() && complaints(&status.conditions).any(|condition| condition.message.contains(&exit.message));
    let exit = status.last_exit.as_ref().filter(|exit| !is_told(exit));
    if let Some(exit) = exit {
        let lead = if matches!(status.phase, NodePhase::Running | NodePhase::Starting) { "before that it" } else { "it" };
        add(&mut text, &format!("{lead} {}", exit_words(exit)));
    }
    match status.next_restart {
        Some(at) if matches!(status.phase, NodePhase::Backoff | NodePhase::Crashed) => add(&mut text, &format!("next restart at {at}")),
        _ => {}
    }
    if status.phase == NodePhase::Failed
        && let Some(exit) = exit
    {
        add(&mut text, &no_restart_words(node, exit));
    }
    if status.restart_count > 0 {
        let times = if status.restart_count == 1 { "once".to_owned() } else { format!("{} times", status.restart_count) };
        add(&mut text, &format!("restarted {times}"));
    }
    add_false(&mut text, &status.conditions);
    if node.is_to_be_frozen() {
        let name = if node.spec.frozen { &node.metadata.name } else { &node.spec.devnet_ref };
        add(&mut text, &format!("it is frozen; dvbctl thaw {name} lets it go on"));
    }
    text
}

fn of_launch(launch: &Launch) -> String {
    let mut text = format!("Launch {} is {:?}", launch.metadata.name, launch.status.phase);
    if let (LaunchPhase::Running, Some(pid)) = (launch.status.phase, launch.status.pid) {
        let _ = write!(text, ", pid {pid}");
    }
    if let Some(exit) = &launch.status.exit {
        add(&mut text, &format!("it {}", exit_words(exit)));
    }
    text
}

/// `was killed by SIGKILL at 2026-...: out of memory (class oom)`
fn exit_words(exit: &LastExit) -> String {
    let mut text = match (&exit.signal, exit.code) {
        // The message says it.
        (Some(signal), _) if exit.message.contains(signal) => "ended".to_owned(),
        (None, Some(code)) if exit.message.contains(&format!("exit code {code}")) => "ended".to_owned(),
        (None, None) if !exit.message.is_empty() => "ended".to_owned(),
        _ if exit.oom_killed => "was killed for want of memory".to_owned(),
        (Some(signal), _) => format!("was killed by {signal}"),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended, how could not be seen,".to_owned(),
    };
    let _ = write!(text, " at {}", exit.at);
    if !exit.message.is_empty() {
        let _ = write!(text, ": {}", exit.message);
    }
    if exit.class != ExitClass::Unknown {
        let _ = write!(text, " (class {})", class_name(exit.class));
    }
    text
}

fn no_restart_words(node: &Node, exit: &LastExit) -> String {
    let rules = &node.spec.restart;
    if exit.class.is_final() {
        format!("a restart cannot heal {}, so there is none", class_name(exit.class))
    } else if rules.max_restarts > 0 && node.status.recent_restarts >= rules.max_restarts {
        format!("its {} restarts are used up", rules.max_restarts)
    } else {
        "it is not restarted".to_owned()
    }
}

/// As in JSON: `app-hash`.
fn class_name(class: ExitClass) -> String {
    serde_json::to_value(class).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn add_false(text: &mut String, conditions: &Conditions) {
    for condition in complaints(conditions) {
        let Condition { kind, reason, message, remedy, .. } = condition;
        // What is said already is not said again.
        if message.is_empty() || !text.contains(message.trim_end_matches(END)) {
            add(text, &format!("{kind} is False ({reason}): {message}"));
        }
        if let Some(remedy) = remedy {
            let _ = write!(text, ". To mend it: {remedy}");
        }
    }
}

fn complaints(conditions: &Conditions) -> impl Iterator<Item = &Condition> {
    conditions.0.iter().filter(|condition| condition.status == ConditionStatus::False)
}

/// What a part does not end with: another may follow.
const END: [char; 3] = ['.', '\n', ' '];

fn add(text: &mut String, part: &str) {
    text.push_str("; ");
    text.push_str(part.trim_end_matches(END));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{DevnetPhase, Timestamp},
        store::fixtures::{devnet, launch, lease, validator},
    };

    fn check_node(edit: impl FnOnce(&mut Node), expect: &str) {
        let mut node = validator("default", "net", 0);
        edit(&mut node);
        assert_eq!(headline(&node.into()), expect);
    }

    fn exit(code: Option<i32>, signal: Option<&str>, class: ExitClass, message: &str) -> Option<LastExit> {
        Some(LastExit { code, signal: signal.map(str::to_owned), class, message: message.into(), ..LastExit::default() })
    }

    #[test]
    fn a_node_says_its_phase_its_last_exit_and_when_it_comes_back() {
        check_node(|_| {}, "Node net/validator-0 is Pending");
        check_node(
            |node| {
                node.status.phase = NodePhase::Running;
                node.status.started_at = Some(Timestamp::from_millis(0));
                node.status.pid = Some(42);
            },
            "Node net/validator-0 is Running since 1970-01-01T00:00:00.000Z, pid 42",
        );
        check_node(
            |node| {
                node.status.phase = NodePhase::Backoff;
                node.status.last_exit = exit(None, Some("SIGKILL"), ExitClass::KilledByUser, "");
                node.status.next_restart = Some(Timestamp::from_millis(5_000));
                node.status.restart_count = 2;
            },
            "Node net/validator-0 is Backoff; it was killed by SIGKILL at 1970-01-01T00:00:00.000Z (class killed-by-user); \
             next restart at 1970-01-01T00:00:05.000Z; restarted 2 times",
        );
    }

    #[test]
    fn a_failed_node_says_why_it_is_not_restarted() {
        check_node(
            |node| {
                node.status.phase = NodePhase::Failed;
                node.status.last_exit = exit(Some(2), None, ExitClass::AppHash, "wrong app hash at 7.");
            },
            "Node net/validator-0 is Failed; it exited with code 2 at 1970-01-01T00:00:00.000Z: wrong app hash at 7. (class app-hash); \
             a restart cannot heal app-hash, so there is none",
        );
        check_node(
            |node| {
                node.status.phase = NodePhase::Failed;
                node.status.last_exit = exit(Some(1), None, ExitClass::Unknown, "");
                node.status.recent_restarts = 5;
                node.status.restart_count = 5;
            },
            "Node net/validator-0 is Failed; it exited with code 1 at 1970-01-01T00:00:00.000Z; its 5 restarts are used up; restarted 5 times",
        );
    }

    #[test]
    fn a_frozen_node_says_so_and_what_lets_it_go_on() {
        check_node(|node| node.spec.frozen = true, "Node net/validator-0 is Pending; it is frozen; dvbctl thaw net/validator-0 lets it go on");
        check_node(|node| node.spec.frozen_with_devnet = true, "Node net/validator-0 is Pending; it is frozen; dvbctl thaw net lets it go on");
    }

    #[test]
    fn a_cause_is_said_once() {
        let died = "exit code 3; last line: no config found";
        check_node(
            |node| {
                node.status.phase = NodePhase::Backoff;
                node.status.last_exit = exit(Some(3), None, ExitClass::Unknown, died);
                node.status.conditions.set(Condition::new("Ready", ConditionStatus::False, "Died", died), Timestamp::default());
            },
            "Node net/validator-0 is Backoff; Ready is False (Died): exit code 3; last line: no config found",
        );
        check_node(
            |node| {
                node.status.phase = NodePhase::Failed;
                node.status.last_exit = exit(Some(3), None, ExitClass::Unknown, died);
                let message = format!("died 2 times without a stable run; last: {died}");
                let used = Condition::new("Ready", ConditionStatus::False, "RestartBudgetUsed", message).with_remedy("dvbctl restart");
                node.status.conditions.set(used, Timestamp::default());
            },
            "Node net/validator-0 is Failed; Ready is False (RestartBudgetUsed): died 2 times without a stable run; \
             last: exit code 3; last line: no config found. To mend it: dvbctl restart",
        );
        check_node(
            |node| {
                node.status.phase = NodePhase::Running;
                node.status.last_exit = exit(Some(3), None, ExitClass::Unknown, died);
            },
            "Node net/validator-0 is Running; before that it ended at 1970-01-01T00:00:00.000Z: exit code 3; last line: no config found",
        );
        let mut net = devnet("default", "net");
        (net.status.phase, net.status.nodes, net.status.ready_nodes) = (DevnetPhase::Degraded, 2, 1);
        net.status.message = Some("1 of 2 nodes are ready; a: Failed".into());
        let ready = Condition::new("Ready", ConditionStatus::False, "NodesNotReady", "1 of 2 nodes are ready; a: Failed");
        net.status.conditions.set(ready, Timestamp::default());
        assert_eq!(headline(&net.into()), "Devnet net is Degraded: 1 of 2 nodes are ready; a: Failed");
    }

    #[test]
    fn a_devnet_says_what_it_waits_for_and_which_conditions_are_false() {
        let mut net = devnet("default", "net");
        net.status.phase = DevnetPhase::Degraded;
        (net.status.nodes, net.status.ready_nodes) = (4, 2);
        net.status.message = Some("halted at height 12".into());
        let halted = Condition::new("Progressing", ConditionStatus::False, "Halted", "no block for 30s").with_remedy("dvbctl start net");
        net.status.conditions.set(halted, Timestamp::default());
        net.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Fine", "fine"), Timestamp::default());
        let expect = "Devnet net is Degraded: 2 of 4 nodes ready; halted at height 12; \
                      Progressing is False (Halted): no block for 30s. To mend it: dvbctl start net";
        assert_eq!(headline(&net.into()), expect);
    }

    #[test]
    fn other_kinds_have_a_sentence_too() {
        let mut run = launch("default", "net/validator-0", "l1");
        run.status.phase = LaunchPhase::Ended;
        run.status.exit = exit(None, None, ExitClass::Unknown, "");
        let expect = "Launch net/validator-0@l1 is Ended; it ended, how could not be seen, at 1970-01-01T00:00:00.000Z";
        assert_eq!(headline(&run.into()), expect);
        assert_eq!(headline(&lease("default", "net", "subnet/127.64.1").into()), "Lease subnet/127.64.1 is held by net");
    }
}
