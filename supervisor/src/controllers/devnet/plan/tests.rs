//! What the plan decides, case by case.

use super::*;
use crate::model::{ByteSize, Condition, ConditionStatus, DevnetSpec, DevnetStatus, LogsSpec, Meta, NodeOverride, NodeSpec, NodeStatus, Timestamp};

fn devnet(phase: DevnetPhase) -> Devnet {
    Devnet {
        metadata: Meta { name: "net".into(), generation: 1, ..Meta::default() },
        spec: DevnetSpec { plugin: "mock".into(), ..DevnetSpec::default() },
        status: DevnetStatus { phase, observed_generation: 1, ..DevnetStatus::default() },
    }
}

fn node(index: u32, phase: NodePhase, conditions: &[(&str, bool)]) -> Arc<Node> {
    let mut node = Node {
        metadata: Meta { name: format!("net/validator-{index}"), generation: 1, ..Meta::default() },
        spec: NodeSpec { devnet_ref: "net".into(), index, ..NodeSpec::default() },
        status: NodeStatus { phase, observed_generation: 1, ..NodeStatus::default() },
    };
    for (kind, value) in conditions {
        let status = if *value { ConditionStatus::True } else { ConditionStatus::False };
        node.status.conditions.set(Condition::new(kind, status, "Test", "because"), Timestamp::default());
    }
    Arc::new(node)
}

fn held(mut node: Arc<Node>) -> Arc<Node> {
    Arc::make_mut(&mut node).spec.suspended = true;
    node
}

fn report(devnet: &Devnet, nodes: &[Arc<Node>]) -> Sum {
    match plan(devnet, nodes, None, 7) {
        Step::Report(sum) => sum,
        other => panic!("expected a report, got {other:?}"),
    }
}

fn made(spec: &str) -> Made<'_> {
    Made { spec, plugin_replaced: false }
}

const READY: &[(&str, bool)] = &[("Ready", true), ("Progressing", true)];
const STALLED: &[(&str, bool)] = &[("Ready", true), ("Progressing", false)];
const UNREADY: &[(&str, bool)] = &[("Ready", false)];

#[test]
fn a_new_spec_is_provisioned() {
    let mut new = devnet(DevnetPhase::Pending);
    new.status.observed_generation = 0;
    assert_eq!(plan(&new, &[], None, 0), Step::Provision { refresh_binary: false });
}

#[test]
fn all_ready_is_running_and_is_reported_once() {
    let nodes = [node(0, NodePhase::Running, READY), node(1, NodePhase::Running, READY)];
    let mut devnet = devnet(DevnetPhase::Provisioning);
    let sum = report(&devnet, &nodes);
    assert_eq!((sum.phase, sum.nodes, sum.ready), (DevnetPhase::Running, 2, 2));
    devnet.status.phase = sum.phase;
    devnet.status.message = Some(sum.message);
    (devnet.status.nodes, devnet.status.ready_nodes) = (sum.nodes, sum.ready);
    for condition in sum.conditions {
        devnet.status.conditions.set(condition, Timestamp::default());
    }
    assert_eq!(plan(&devnet, &nodes, None, 8), Step::Nothing, "a rising height is no reason to write");
}

#[test]
fn a_dead_node_degrades_a_running_devnet_and_is_named() {
    let nodes = [node(0, NodePhase::Running, READY), node(1, NodePhase::Backoff, UNREADY)];
    let sum = report(&devnet(DevnetPhase::Running), &nodes);
    assert_eq!(sum.phase, DevnetPhase::Degraded);
    assert_eq!(sum.message, "1 of 2 nodes are ready; validator-1: Backoff: because");
}

#[test]
fn a_chain_without_blocks_on_any_node_is_halted_at_its_height() {
    let nodes = [node(0, NodePhase::Running, STALLED), node(1, NodePhase::Backoff, UNREADY)];
    let sum = report(&devnet(DevnetPhase::Running), &nodes);
    let halt = sum.conditions.iter().find(|condition| condition.kind == "Progressing").unwrap();
    assert_eq!((halt.reason.as_str(), halt.message.as_str()), ("Halted", "the chain halted at height 7: no new block on any node"));
}

#[test]
fn one_stalled_node_beside_a_moving_one_is_no_halt() {
    let nodes = [node(0, NodePhase::Running, STALLED), node(1, NodePhase::Running, READY)];
    assert_eq!(report(&devnet(DevnetPhase::Provisioning), &nodes).phase, DevnetPhase::Running);
}

#[test]
fn a_node_that_fails_before_the_first_run_fails_the_devnet() {
    let nodes = [node(0, NodePhase::Running, READY), node(1, NodePhase::Failed, UNREADY)];
    assert_eq!(report(&devnet(DevnetPhase::Provisioning), &nodes).phase, DevnetPhase::Failed);
}

#[test]
fn delete_holds_down_waits_and_destroys() {
    let mut going = devnet(DevnetPhase::Running);
    going.metadata.deleted_at = Some(Timestamp::default());
    let running = node(0, NodePhase::Running, READY);
    assert_eq!(plan(&going, std::slice::from_ref(&running), None, 0), Step::MarkDeleting);
    going.status.phase = DevnetPhase::Deleting;
    assert_eq!(plan(&going, std::slice::from_ref(&running), None, 0), Step::Suspend { on: true, why: "delete" });
    assert_eq!(plan(&going, &[held(running)], None, 0), Step::Nothing);
    assert_eq!(plan(&going, &[held(node(0, NodePhase::Stopped, UNREADY))], None, 0), Step::Destroy);
}

#[test]
fn reset_wipes_only_when_every_node_is_down() {
    let mut reset = devnet(DevnetPhase::Running);
    reset.spec.operations.reset = 1;
    let nodes = [held(node(0, NodePhase::Stopped, UNREADY)), held(node(1, NodePhase::Stopping, READY))];
    assert_eq!(plan(&reset, &nodes, None, 0), Step::Nothing);
    assert_eq!(plan(&reset, &[held(node(0, NodePhase::Stopped, UNREADY))], None, 0), Step::Wipe);
}

#[test]
fn stop_and_start_turn_all_nodes() {
    let mut stopped = devnet(DevnetPhase::Running);
    stopped.spec.desired = Some(Desired::Stopped);
    assert_eq!(plan(&stopped, &[node(0, NodePhase::Running, READY)], None, 0), Step::Suspend { on: true, why: "stop" });
    let down = [held(node(0, NodePhase::Stopped, UNREADY))];
    assert_eq!(report(&stopped, &down).phase, DevnetPhase::Stopped);
    assert_eq!(plan(&devnet(DevnetPhase::Stopped), &down, None, 0), Step::Suspend { on: false, why: "start" });
}

#[test]
fn a_stop_is_not_made_to_wait_for_provisioning() {
    let mut stopped = devnet(DevnetPhase::Running);
    stopped.metadata.generation = 2;
    stopped.status.conditions.set(Condition::new("Provisioned", ConditionStatus::True, "Provisioned", ""), Timestamp::default());
    stopped.spec.desired = Some(Desired::Stopped);
    let digest = stopped.spec.digest();
    let made = Some(made(&digest));
    assert_eq!(plan(&stopped, &[], made, 0), Step::Acknowledge);
    stopped.spec.full_nodes = 1;
    assert_eq!(plan(&stopped, &[], made, 0), Step::Provision { refresh_binary: false });
    let running = [node(0, NodePhase::Running, READY)];
    assert_eq!(plan(&stopped, &running, made, 0), Step::Suspend { on: true, why: "stop" });
}

#[test]
fn caps_of_logs_are_no_part_of_the_plan() {
    let mut net = devnet(DevnetPhase::Running);
    net.metadata.generation = 2;
    net.status.conditions.set(Condition::new("Provisioned", ConditionStatus::True, "Provisioned", ""), Timestamp::default());
    let digest = net.spec.digest();
    let logs = Some(LogsSpec { rotate: Some(ByteSize(1 << 20)), ..LogsSpec::default() });
    net.spec.logs = logs.clone();
    net.spec.nodes = vec![NodeOverride { name: "validator-0".into(), logs, ..NodeOverride::default() }];
    assert_eq!(plan(&net, &[], Some(made(&digest)), 0), Step::Acknowledge);
    net.spec.nodes[0].args = vec!["--x".into()];
    assert_eq!(plan(&net, &[], Some(made(&digest)), 0), Step::Provision { refresh_binary: false });
}

#[test]
fn a_plugin_that_was_replaced_plans_again_unless_the_spec_stands_refused() {
    let mut net = devnet(DevnetPhase::Running);
    let digest = net.spec.digest();
    let replaced = Some(Made { plugin_replaced: true, ..made(&digest) });
    net.status.conditions.set(Condition::new("Provisioned", ConditionStatus::True, "Provisioned", ""), Timestamp::default());
    let nodes = [node(0, NodePhase::Running, READY)];
    assert_eq!(plan(&net, &nodes, replaced, 0), Step::Provision { refresh_binary: false });
    assert!(matches!(plan(&net, &nodes, Some(made(&digest)), 0), Step::Report(_)));
    net.status.conditions.set(Condition::new("Provisioned", ConditionStatus::False, "InvalidSpec", "no"), Timestamp::default());
    assert!(matches!(plan(&net, &nodes, replaced, 0), Step::Report(_)), "else it would be refused again and again");
}

#[test]
fn a_refused_spec_leaves_the_phase_to_the_nodes_and_says_what_runs() {
    let mut net = devnet(DevnetPhase::Running);
    net.status.conditions.set(Condition::new("Provisioned", ConditionStatus::False, "InvalidSpec", "spec.x: no"), Timestamp::default());
    let nodes = [node(0, NodePhase::Running, READY)];
    let Step::Report(sum) = plan(&net, &nodes, Some(made("old")), 0) else { panic!("it is summed up") };
    assert_eq!(sum.phase, DevnetPhase::Running);
    assert_eq!(sum.message, "the new spec was refused, the one before stays: spec.x: no; all 1 nodes that should run are ready");
    net.status.observed_generation = 0;
    assert_eq!(plan(&net, &nodes, Some(made("old")), 0), Step::Provision { refresh_binary: false });
    let Step::Report(sum) = upkeep(&net, &nodes, 0) else { panic!("it is summed up between the tries") };
    assert!(sum.message.starts_with("the new spec cannot be taken up yet: spec.x: no"), "{}", sum.message);
}

#[test]
fn after_a_reset_nothing_runs_on_a_refused_spec() {
    let mut net = devnet(DevnetPhase::Failed);
    net.status.conditions.set(Condition::new("Provisioned", ConditionStatus::False, "InvalidSpec", "no"), Timestamp::default());
    let down = [held(node(0, NodePhase::Stopped, UNREADY))];
    assert_eq!(plan(&net, &down, None, 0), Step::Nothing);
}

#[test]
fn a_failed_provisioning_rests_until_asked_again() {
    let mut failed = devnet(DevnetPhase::Failed);
    failed.status.conditions.set(Condition::new("Provisioned", ConditionStatus::False, "BinaryMissing", ""), Timestamp::default());
    assert_eq!(plan(&failed, &[], None, 0), Step::Nothing);
    failed.spec.operations.restart = 1;
    assert_eq!(plan(&failed, &[], None, 0), Step::Provision { refresh_binary: false });
}

#[test]
fn a_node_that_is_yet_to_restart_is_not_ready() {
    let mut asked = node(1, NodePhase::Running, READY);
    Arc::make_mut(&mut asked).spec.restart_request = 1;
    let sum = report(&devnet(DevnetPhase::Running), &[node(0, NodePhase::Running, READY), asked.clone()]);
    assert_eq!((sum.phase, sum.ready), (DevnetPhase::Degraded, 1));
    Arc::make_mut(&mut asked).status.observed_restart = 1;
    let sum = report(&devnet(DevnetPhase::Degraded), &[node(0, NodePhase::Running, READY), asked]);
    assert_eq!((sum.phase, sum.ready), (DevnetPhase::Running, 2));
}

#[test]
fn a_failure_of_an_earlier_spec_does_not_fail_the_devnet_that_tries_the_next() {
    let failed = node(0, NodePhase::Failed, UNREADY);
    assert_eq!(report(&devnet(DevnetPhase::Provisioning), std::slice::from_ref(&failed)).phase, DevnetPhase::Failed);
    let mut mended = failed;
    Arc::make_mut(&mut mended).metadata.generation = 2;
    assert_eq!(report(&devnet(DevnetPhase::Provisioning), &[mended]).phase, DevnetPhase::Provisioning);
}

#[test]
fn an_upgrade_keeps_nodes_down_over_a_new_spec_and_lets_them_go() {
    let mut upgraded = devnet(DevnetPhase::Running);
    upgraded.status.held = Some("net/v2".into());
    let up = [node(0, NodePhase::Running, READY)];
    assert!(matches!(plan(&upgraded, &up, None, 7), Step::Suspend { on: true, .. }));
    let down = [held(node(0, NodePhase::Stopped, UNREADY))];
    let sum = report(&upgraded, &down);
    assert_eq!((sum.phase, sum.message.as_str()), (DevnetPhase::Degraded, "upgrade net/v2 holds all nodes down"));
    upgraded.metadata.generation = 2;
    assert!(matches!(plan(&upgraded, &down, None, 7), Step::Provision { .. }));
    upgraded.metadata.generation = 1;
    upgraded.status.held = None;
    assert!(matches!(plan(&upgraded, &down, None, 7), Step::Suspend { on: false, .. }));
}
