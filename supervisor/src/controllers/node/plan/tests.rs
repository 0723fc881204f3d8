//! What the plan decides, case by case, and what holds for every case.

use super::*;
use crate::model::{Condition, ConditionStatus, Desired, LastExit, Meta, NodeSpec, NodeStatus, RestartRules};
use proptest::prelude::*;

fn node(phase: NodePhase) -> Node {
    Node {
        metadata: Meta { name: "net/validator-0".into(), generation: 1, ..Meta::default() },
        spec: NodeSpec::default(),
        status: NodeStatus { phase, observed_generation: 1, ..NodeStatus::default() },
    }
}

fn seen(process: Process) -> Seen {
    Seen { process, now: Timestamp::from_millis(100_000), waits_for: None, jitter: 1.0, steady: false }
}

fn died(class: ExitClass, recent_restarts: u32) -> Node {
    let mut node = node(NodePhase::Crashed);
    node.status.recent_restarts = recent_restarts;
    node.status.last_exit = Some(LastExit { code: Some(1), class, at: Timestamp::from_millis(100_000), ..LastExit::default() });
    node
}

fn step(node: &Node, process: Process) -> Step {
    plan(node, &seen(process)).step
}

#[test]
fn a_new_node_is_launched() {
    assert_eq!(step(&node(NodePhase::Pending), Process::None), Step::Launch { counted: false });
}

#[test]
fn a_node_that_is_held_down_is_stopped_and_marked() {
    let mut held = node(NodePhase::Running);
    held.spec.suspended = true;
    assert_eq!(step(&held, Process::Alive { ready: true, frozen: false }), Step::Stop { why: StopReason::NotWanted });
    assert_eq!(step(&held, Process::None), Step::MarkStopped);
    held.status.phase = NodePhase::Stopped;
    assert_eq!(step(&held, Process::None), Step::Nothing);
}

#[test]
fn a_new_spec_that_asks_nothing_of_a_live_node_is_only_observed() {
    let mut changed = node(NodePhase::Running);
    changed.metadata.generation = 2;
    assert_eq!(step(&changed, Process::Alive { ready: true, frozen: false }), Step::Observe);
    changed.status.observed_generation = 2;
    assert_eq!(step(&changed, Process::Alive { ready: true, frozen: false }), Step::Nothing);
}

#[test]
fn back_off_doubles_from_the_first_to_the_greatest() {
    for (restarts, secs) in [(0, 5), (1, 10), (2, 20), (3, 40), (4, 80)] {
        let until = Timestamp::from_millis(100_000 + secs * 1_000);
        assert_eq!(step(&died(ExitClass::Panic, restarts), Process::None), Step::Backoff { until, why: BackoffReason::Died });
    }
    assert_eq!(backoff(5_000, 300_000, 40), Duration::from_secs(300));
}

#[test]
fn a_death_whose_back_off_is_over_is_followed_by_its_restart() {
    let mut hasty = died(ExitClass::Panic, 3);
    hasty.spec.restart.backoff_ms = 0;
    assert_eq!(step(&hasty, Process::None), Step::Launch { counted: true });
    let long_ago = Seen { now: Timestamp::from_millis(105_000), ..seen(Process::None) };
    assert_eq!(plan(&died(ExitClass::Panic, 0), &long_ago).step, Step::Launch { counted: true });
    let waits = Seen { waits_for: Some("validator-1".into()), ..long_ago };
    assert_eq!(plan(&died(ExitClass::Panic, 0), &waits).step, Step::Wait { on: "validator-1".into() });
}

#[test]
fn a_used_budget_and_a_hopeless_cause_fail_the_node() {
    assert!(matches!(step(&died(ExitClass::Panic, 5), Process::None), Step::Fail { reason: "RestartBudgetUsed", .. }));
    for class in [ExitClass::AppHash, ExitClass::UpgradeNeeded, ExitClass::BadFlag, ExitClass::GenesisMismatch] {
        assert!(matches!(step(&died(class, 0), Process::None), Step::Fail { reason, .. } if reason == class_reason(class)));
    }
}

#[test]
fn a_failed_node_rests_until_asked_again() {
    let mut failed = node(NodePhase::Failed);
    assert_eq!(step(&failed, Process::None), Step::Nothing);
    failed.spec.restart_request = 1;
    assert_eq!(step(&failed, Process::None), Step::Launch { counted: false });
}

#[test]
fn the_policy_decides_about_clean_exits() {
    let mut done = died(ExitClass::Unknown, 0);
    done.status.last_exit.as_mut().unwrap().code = Some(0);
    assert!(matches!(step(&done, Process::None), Step::Backoff { .. }));
    done.spec.restart.policy = RestartPolicy::OnFailure;
    assert_eq!(step(&done, Process::None), Step::Complete);
    done.status.phase = NodePhase::Stopped;
    done.status.conditions.set(Condition::new("Completed", ConditionStatus::True, "Exited", ""), Timestamp::default());
    assert_eq!(step(&done, Process::None), Step::Nothing);
}

#[test]
fn a_restart_waits_out_its_back_off_and_is_counted() {
    let mut waiting = node(NodePhase::Backoff);
    waiting.status.next_restart = Some(Timestamp::from_millis(103_000));
    assert_eq!(plan(&waiting, &seen(Process::None)), Decision { step: Step::Nothing, requeue: Some(Duration::from_secs(3)) });
    waiting.status.next_restart = Some(Timestamp::from_millis(99_000));
    assert_eq!(step(&waiting, Process::None), Step::Launch { counted: true });
}

#[test]
fn a_stable_minute_forgets_restarts() {
    let mut stable = node(NodePhase::Running);
    stable.status.recent_restarts = 2;
    stable.status.started_at = Some(Timestamp::from_millis(90_000));
    assert_eq!(plan(&stable, &seen(Process::Alive { ready: true, frozen: false })).requeue, Some(Duration::from_secs(50)));
    stable.status.started_at = Some(Timestamp::from_millis(30_000));
    assert_eq!(step(&stable, Process::Alive { ready: true, frozen: false }), Step::ForgetRestarts);
}

#[test]
fn stable_blocks_forget_restarts_before_the_minute_is_over() {
    let mut stable = node(NodePhase::Running);
    stable.status.recent_restarts = 2;
    stable.status.started_at = Some(Timestamp::from_millis(90_000));
    let steady = |ready: bool| Seen { steady: true, ..seen(Process::Alive { ready, frozen: false }) };
    assert_eq!(plan(&stable, &steady(true)).step, Step::ForgetRestarts);
    stable.status.recent_restarts = 0;
    assert_eq!(plan(&stable, &steady(true)).step, Step::Nothing);
    assert!(matches!(plan(&died(ExitClass::Panic, 2), &Seen { steady: true, ..seen(Process::None) }).step, Step::Backoff { .. }));
}

#[test]
fn a_dependency_holds_a_launch_back() {
    let blocked = Seen { waits_for: Some("validator-0".into()), ..seen(Process::None) };
    assert_eq!(plan(&node(NodePhase::Pending), &blocked).step, Step::Wait { on: "validator-0".into() });
}

/// What the plan wants of a live node, as its process and its condition say.
fn step_of_frozen(wanted: bool, frozen: bool, said: Option<ConditionStatus>) -> Step {
    let mut still = node(NodePhase::Running);
    still.spec.frozen = wanted;
    if let Some(status) = said {
        still.status.conditions.set(Condition::new(FROZEN, status, "Frozen", ""), Timestamp::default());
    }
    step(&still, Process::Alive { ready: true, frozen })
}

#[test]
fn a_node_is_frozen_and_thawed_until_process_and_condition_say_so() {
    let (yes, perhaps) = (Some(ConditionStatus::True), Some(ConditionStatus::Unknown));
    for (frozen, said) in [(false, None), (true, None), (true, perhaps), (false, yes)] {
        assert_eq!(step_of_frozen(true, frozen, said), Step::Freeze, "{frozen}, {said:?}");
    }
    assert_eq!(step_of_frozen(true, true, yes), Step::Nothing);
    for (frozen, said) in [(true, None), (true, yes), (false, yes), (false, perhaps)] {
        assert_eq!(step_of_frozen(false, frozen, said), Step::Thaw, "{frozen}, {said:?}");
    }
    assert_eq!(step_of_frozen(false, false, None), Step::Nothing);
}

#[test]
fn a_frozen_node_can_be_stopped_and_is_not_started_before_the_thaw() {
    let mut still = node(NodePhase::Running);
    still.spec.frozen_with_devnet = true;
    still.spec.desired = Desired::Stopped;
    assert_eq!(step(&still, Process::Alive { ready: true, frozen: true }), Step::Stop { why: StopReason::NotWanted });
    let mut dead = died(ExitClass::Unknown, 0);
    dead.status.last_exit.as_mut().unwrap().at = Timestamp::default();
    assert_eq!(step(&dead, Process::None), Step::Launch { counted: true });
    dead.spec.frozen = true;
    assert_eq!(step(&dead, Process::None), Step::Nothing, "its death stays to be read");
    let mut new = node(NodePhase::Pending);
    new.spec.frozen_with_devnet = true;
    assert_eq!(step(&new, Process::None), Step::HoldBack);
}

#[test]
fn a_back_off_is_stretched_by_its_jitter() {
    let shaken = Seen { jitter: 1.1, ..seen(Process::None) };
    let until = Timestamp::from_millis(100_000 + 5_500);
    assert_eq!(plan(&died(ExitClass::Unknown, 0), &shaken).step, Step::Backoff { until, why: BackoffReason::Died });
}

#[test]
fn a_machine_without_a_process_to_spare_uses_up_no_restart_and_is_not_asked_without_pause() {
    let mut starved = died(ExitClass::NoResources, 5);
    starved.spec.restart.backoff_ms = 0;
    let until = Timestamp::from_millis(101_000);
    assert_eq!(step(&starved, Process::None), Step::Backoff { until, why: BackoffReason::Died });
    assert_eq!(plan(&starved, &Seen { now: until, ..seen(Process::None) }).step, Step::Launch { counted: false });
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_clock_set_back_a_day_lengthens_no_back_off() {
    let yesterday = Seen { now: Timestamp::from_millis(100_000).minus(DAY), ..seen(Process::None) };
    let until = yesterday.now.plus(Duration::from_secs(5));
    assert_eq!(plan(&died(ExitClass::Panic, 0), &yesterday).step, Step::Backoff { until, why: BackoffReason::Died });
    let mut waiting = node(NodePhase::Backoff);
    waiting.status.next_restart = Some(Timestamp::from_millis(103_000));
    assert_eq!(plan(&waiting, &yesterday).step, Step::Launch { counted: true });
    // The longest that there is, stretched by its jitter, is waited out.
    waiting.status.next_restart = Some(yesterday.now.plus(Duration::from_millis(waiting.spec.restart.max_backoff_ms).mul_f64(1.1)));
    assert!(plan(&waiting, &yesterday).requeue.is_some());
}

#[test]
fn a_node_that_was_started_in_the_future_counts_as_stable() {
    let mut stable = node(NodePhase::Running);
    stable.status.recent_restarts = 2;
    stable.status.started_at = Some(Timestamp::from_millis(90_000).plus(DAY));
    assert_eq!(step(&stable, Process::Alive { ready: true, frozen: false }), Step::ForgetRestarts);
}

fn any_phase() -> impl Strategy<Value = NodePhase> {
    use NodePhase::*;
    proptest::sample::select(vec![Pending, Starting, Running, Backoff, Stopping, Stopped, Crashed, Failed])
}

fn any_process() -> impl Strategy<Value = Process> {
    prop_oneof![
        Just(Process::None),
        Just(Process::Intended),
        any::<(bool, bool)>().prop_map(|(ready, frozen)| Process::Alive { ready, frozen }),
        Just(Process::Exited(Exit::default())),
        Just(Process::Gone),
    ]
}

proptest! {
    /// Whatever the state: no second process beside a live or unrecorded one, no launch that nobody wants, no stop without a process.
    #[test]
    fn never_two_processes_and_never_an_unwanted_one(
        phase in any_phase(), process in any_process(), stopped: bool, suspended: bool, freeze: bool, restart in 0..2_u64, restarts in 0..8_u32, code in -1..2_i32,
    ) {
        let mut node = node(phase);
        node.spec.desired = if stopped { Desired::Stopped } else { Desired::Running };
        node.spec.suspended = suspended;
        node.spec.frozen = freeze;
        node.spec.restart_request = restart;
        node.spec.restart = RestartRules::default();
        node.status.recent_restarts = restarts;
        node.status.last_exit = Some(LastExit { code: Some(code), ..LastExit::default() });
        let decision = plan(&node, &seen(process.clone()));
        let is_alive = matches!(process, Process::Alive { .. });
        match &decision.step {
            Step::Launch { .. } => prop_assert!(process == Process::None && node.is_wanted() && !freeze),
            Step::Freeze => prop_assert!(is_alive && freeze),
            Step::Thaw => prop_assert!(is_alive && !freeze),
            Step::Stop { .. } => prop_assert!(matches!(process, Process::Alive { .. }), "stops only what lives"),
            Step::RecordExit(_) => prop_assert!(matches!(process, Process::Exited(_) | Process::Gone)),
            _ => {}
        }
        if !node.is_wanted() && process == Process::None {
            prop_assert!(matches!(decision.step, Step::Nothing | Step::MarkStopped));
        }
        // The same state gives the same decision.
        prop_assert_eq!(plan(&node, &seen(process)), decision);
    }
}
