//! Verdicts on views of devnets and nodes.

use super::*;
use dvb_proto::devnet::v1::{DevnetSpec, DevnetStatus, LastExit, Metadata, NodeSpec, NodeStatus, UpgradeSpec, UpgradeStatus};

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
        node_settled(&Node { metadata, spec, status: Some(status), ..Node::default() }, &View::default())
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
    for (on, observed, status) in [(true, 1, Some("True")), (true, 2, None), (true, 2, Some("False")), (false, 2, Some("True")), (false, 1, None)] {
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

/// A node of `net` in this phase, died of that class.
fn node(view: &mut View, name: &str, role: &str, phase: &str, class: &str) {
    let metadata = Some(Metadata { name: format!("net/{name}"), generation: 1, ..Metadata::default() });
    let last_exit = Some(LastExit { code: Some(1), message: "no such flag".into(), class: class.into(), ..LastExit::default() });
    let status = NodeStatus { phase: phase.into(), observed_generation: 1, last_exit, ..NodeStatus::default() };
    let spec = NodeSpec { role: role.into(), desired: "running".into(), ..NodeSpec::default() };
    view.nodes.insert(format!("net/{name}"), Node { metadata, spec: Some(spec), status: Some(status), ..Node::default() });
}

fn with_failed_node(phase: &str) -> View {
    let mut view = devnet(phase, |_| {});
    node(&mut view, "validator-0", "validator", "Running", "");
    node(&mut view, "validator-1", "validator", "Failed", "bad-flag");
    view
}

fn spec_of<'a>(view: &'a mut View, name: &str) -> &'a mut NodeSpec {
    view.nodes.get_mut(name).unwrap().spec.as_mut().unwrap()
}

#[test]
fn a_wait_for_what_needs_a_failed_node_ends_and_names_it() {
    let of_devnet = |phase: &str| Goal::Phase { node: None, phase: phase.into() };
    for goal in [Goal::Settled { generation: 2 }, Goal::Ready { node: None }, of_devnet("running")] {
        let failed = Verdict::Failed {
            message: "net/validator-1 is Failed: exit code 1: no such flag (bad-flag)".into(),
            remedy: Some("dvbctl why net/validator-1".into()),
        };
        assert_eq!(goal.judge(&with_failed_node("Degraded")), failed, "{goal:?}");
    }
    let named = Some("net/validator-1".to_owned());
    let (running, height) = (Goal::Phase { node: named.clone(), phase: "Running".into() }, Goal::Height { node: named.clone(), height: 5 });
    let ready = Goal::Condition { node: named.clone(), name: "ready".into(), status: "True".into() };
    for goal in [Goal::Ready { node: named.clone() }, Goal::NodeSettled { node: "net/validator-1".into() }, running, height, ready] {
        assert!(matches!(goal.judge(&with_failed_node("Degraded")), Verdict::Failed { message, .. } if message.contains("no such flag")), "{goal:?}");
    }
    let other = Goal::Ready { node: Some("net/validator-0".into()) };
    assert!(!matches!(other.judge(&with_failed_node("Degraded")), Verdict::Failed { .. }));
    let failed = Goal::Phase { node: named, phase: "Failed".into() };
    assert_eq!(failed.judge(&with_failed_node("Degraded")), Verdict::Done);
    assert!(is_waiting(&of_devnet("Stopped").judge(&with_failed_node("Degraded"))));
}

#[test]
fn a_failed_node_of_which_something_newer_is_asked_or_nothing_is_waited_for() {
    let edits: [fn(&mut View); 5] = [
        |view| spec_of(view, "net/validator-1").restart_request = 1,
        |view| view.nodes.get_mut("net/validator-1").unwrap().metadata.as_mut().unwrap().generation = 2,
        |view| spec_of(view, "net/validator-1").suspended = true,
        |view| spec_of(view, "net/validator-1").desired = "stopped".into(),
        |view| view.devnet.as_mut().unwrap().spec.as_mut().unwrap().operations = Some(Operations { restart: 1, ..Operations::default() }),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut view = with_failed_node("Degraded");
        edit(&mut view);
        for goal in [Goal::Settled { generation: 2 }, Goal::Ready { node: None }] {
            assert!(is_waiting(&goal.judge(&view)), "{index} {goal:?}");
        }
    }
}

#[test]
fn a_failed_node_that_an_upgrade_may_mend_is_waited_for() {
    let judge = |class: &str, phase: &str, spec: UpgradeSpec| {
        let mut view = with_failed_node("Degraded");
        node(&mut view, "validator-1", "validator", "Failed", class);
        let status = Some(UpgradeStatus { phase: phase.into(), ..UpgradeStatus::default() });
        view.upgrades.push(Upgrade { spec: Some(spec), status, ..Upgrade::default() });
        is_waiting(&Goal::Ready { node: Some("net/validator-1".into()) }.judge(&view))
    };
    let at_once = || UpgradeSpec { skip_vote: true, ..UpgradeSpec::default() };
    assert!(judge("bad-flag", "Verifying", UpgradeSpec::default()), "it is rolled back next");
    assert!(judge("bad-flag", "Pending", at_once()), "it brings another binary whatever runs");
    assert!(judge("upgrade-needed", "Waiting", UpgradeSpec::default()), "it halted at the height");
    assert!(!judge("bad-flag", "Waiting", UpgradeSpec::default()));
}

#[test]
fn a_chain_is_given_up_when_all_its_nodes_failed_or_it_halted_without_a_third_of_them() {
    let halted = |devnet: &mut Devnet| {
        let condition = Condition { r#type: "Progressing".into(), status: "False".into(), reason: "Halted".into(), ..Condition::default() };
        devnet.status.as_mut().unwrap().conditions = vec![condition];
    };
    let judge = |phase: &str, halts: bool, running: usize, failed: usize| {
        let mut view = devnet(phase, |devnet| {
            if halts {
                halted(devnet)
            }
        });
        (0..running).for_each(|index| node(&mut view, &format!("validator-{index}"), "validator", "Running", ""));
        (running..running + failed).for_each(|index| node(&mut view, &format!("validator-{index}"), "validator", "Failed", "panic"));
        node(&mut view, "relayer", "service", "Running", "");
        matches!(Goal::WithoutChain.judge(&view), Verdict::Failed { .. })
    };
    assert!(judge("Degraded", false, 0, 2));
    assert!(judge("Degraded", true, 2, 2) && judge("Failed", false, 2, 2));
    assert!(!judge("Degraded", false, 2, 2), "it makes blocks, or may yet");
    assert!(!judge("Degraded", true, 3, 1) && !judge("Failed", false, 3, 1), "three of four go on without the fourth");
}
