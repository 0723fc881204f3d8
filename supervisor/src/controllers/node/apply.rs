//! Carries out what the plan decided: each step commits what it is about to do, does it, and commits what came of it.

use super::super::{Context, ReconcileError, Story};
use super::{
    budget::Budgets,
    freeze, handle_of, launching,
    plan::{BackoffReason, Step, StopReason},
    recovery,
};
use crate::{
    model::{Condition, ConditionStatus, ExitClass, FROZEN, Key, Launch, Node, NodePhase, Timestamp},
    runtime::StopPolicy,
    store::Write,
    sys::{failpoint, signal_from_name},
};
use nix::sys::signal::Signal;
use std::time::Duration;

/// `released` is the row of a launch that the runtime has just let go.
pub(super) async fn apply(
    node: &Node,
    launch: Option<&Launch>,
    released: Option<Write>,
    step: &Step,
    budgets: &Budgets,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let released: Vec<Write> = released.into_iter().collect();
    if let Step::Launch { counted } = step {
        return launching::start(node, *counted, released, budgets, cx).await; // in the commit of the next intent
    }
    if !released.is_empty() {
        cx.store.commit(released).await?;
    }
    carry_out(node, launch, step, cx).await
}

async fn carry_out(node: &Node, launch: Option<&Launch>, step: &Step, cx: &Context) -> Result<(), ReconcileError> {
    match step {
        Step::Nothing | Step::Launch { .. } | Step::RecordExit(_) => Ok(()), // `start` and `ending` do those
        Step::Wait { on } => {
            let message = format!("waits until {on} is ready");
            let condition = Condition::new("Ready", ConditionStatus::False, "WaitingForDependency", message.clone());
            turn(node, NodePhase::Pending, Some(condition), Story::new("node", "Waiting", message).desired("running"), cx).await
        }
        Step::Stop { why } => stop(node, launch, *why, cx).await,
        Step::Recover => recovery::recover(node, launch, cx).await,
        Step::Backoff { until, why } => back_off(node, *until, *why, cx).await,
        Step::Fail { reason, message } => {
            let condition = Condition::new("Ready", ConditionStatus::False, reason, message.clone()).with_remedy(fail_remedy(node));
            let story = Story::new("node", reason, message.clone()).warn().observed(exit_text(node)).desired("running").action("give up");
            turn(node, NodePhase::Failed, Some(condition), story, cx).await
        }
        Step::Complete => {
            let condition = Condition::new("Completed", ConditionStatus::True, "Exited", "ended by itself and is not restarted");
            turn(node, NodePhase::Stopped, Some(condition), Story::new("node", "Completed", "ended by itself").observed(exit_text(node)), cx).await
        }
        Step::MarkRunning => {
            turn(node, NodePhase::Running, None, Story::new("node", "Running", "is ready").observed("ready").desired("running"), cx).await
        }
        Step::MarkStopped => {
            let condition = Condition::new("Ready", ConditionStatus::False, "Stopped", "is stopped");
            let mut node = node.clone();
            node.status.conditions.remove("KeyLease");
            node.status.next_restart = None;
            turn(&node, NodePhase::Stopped, Some(condition), Story::new("node", "Stopped", "is stopped").desired("stopped"), cx).await
        }
        Step::Observe => {
            let mut next = node.clone();
            next.status.observed_generation = node.metadata.generation;
            cx.store.commit(vec![Write::update(next)]).await?;
            Ok(())
        }
        Step::Freeze => freeze::freeze(node, launch, cx).await,
        Step::Thaw => freeze::thaw(node, launch, cx).await,
        Step::HoldBack => {
            let message = format!("is started when {} is thawed", if node.spec.frozen { "it" } else { "its devnet" });
            let condition = Condition::new("Ready", ConditionStatus::False, FROZEN, message.clone());
            turn(node, NodePhase::Pending, Some(condition), Story::new("node", "HeldBack", message).desired("frozen"), cx).await
        }
        Step::ForgetRestarts => {
            let mut next = node.clone();
            next.status.recent_restarts = 0;
            commit(next, node.status.phase, Story::new("node", "Stable", "ran long enough: the back-off starts over"), vec![], cx).await
        }
    }
}

async fn back_off(node: &Node, until: Timestamp, why: BackoffReason, cx: &Context) -> Result<(), ReconcileError> {
    let (reason, message) = match why {
        BackoffReason::Died => ("BackOff", format!("restarts at {until}, restart {} since the last stable run", node.status.recent_restarts + 1)),
        BackoffReason::Storm { budget } => {
            ("RestartStorm", format!("waits until {until}: its devnet's nodes were restarted {budget} times within a minute (spec.restartBudget)"))
        }
    };
    let story = Story::new("node", reason, message.clone()).observed(exit_text(node)).desired("running").action("wait");
    let mut next = node.clone();
    next.status.next_restart = Some(until);
    if why != BackoffReason::Died {
        next.status.conditions.set(Condition::new("Ready", ConditionStatus::False, reason, message), cx.clock.now());
    }
    commit(next, NodePhase::Backoff, story, vec![], cx).await
}

/// Says that it stops, then stops; the end itself is put on record by the reconcile that follows.
async fn stop(node: &Node, launch: Option<&Launch>, why: StopReason, cx: &Context) -> Result<(), ReconcileError> {
    let Some((launch, handle)) = launch.and_then(|launch| Some((launch, handle_of(launch)?))) else { return Ok(()) };
    let signal = signal_from_name(&launch.spec.stop_signal).unwrap_or(Signal::SIGTERM);
    let grace = Duration::from_millis(launch.spec.grace_ms);
    let (reason, desired) = match why {
        StopReason::NotWanted => ("Stopping", "stopped"),
        StopReason::Restart => ("StoppingToRestart", "restarted"),
    };
    let story = Story::new("node", reason, format!("sends {}, kills after {grace:?}", signal.as_str()))
        .desired(desired)
        .action("stop")
        .launch(handle.id.clone());
    turn(node, NodePhase::Stopping, None, story, cx).await?;
    failpoint("stop/announced");
    cx.runtime.stop(&handle, StopPolicy { signal, grace }).await?;
    failpoint("stop/gone");
    cx.wake.node(&Key::node(&node.metadata.namespace, &node.metadata.name));
    Ok(())
}

/// A program that never ran has no log to look at.
fn fail_remedy(node: &Node) -> String {
    let name = &node.metadata.name;
    match node.status.last_exit.as_ref().map(|exit| exit.class) {
        Some(ExitClass::NoProgram) if node.spec.binary_hash.is_empty() => {
            let place = if node.spec.role == "service" { "command in spec.services" } else { "spec.binary" };
            format!("install the program or correct {place}, then dvbctl restart {name}")
        }
        Some(ExitClass::NoProgram) => format!("dvbctl binaries verify tells what is damaged and how it is mended; then dvbctl restart {name}"),
        _ => format!("dvbctl logs {name}; mend the cause, then dvbctl restart {name}"),
    }
}

fn exit_text(node: &Node) -> String {
    node.status.last_exit.as_ref().map_or_else(String::new, |exit| exit.message.clone())
}

/// A change of phase with nothing else to it.
async fn turn(node: &Node, phase: NodePhase, condition: Option<Condition>, story: Story, cx: &Context) -> Result<(), ReconcileError> {
    let mut next = node.clone();
    let changed = condition.is_some_and(|condition| next.status.conditions.set(condition, cx.clock.now()));
    if !changed && node.status.phase == phase {
        return Ok(());
    }
    commit(next, phase, story, vec![], cx).await
}

async fn commit(node: Node, phase: NodePhase, story: Story, also: Vec<Write>, cx: &Context) -> Result<(), ReconcileError> {
    commit_and_read(node, phase, story, also, cx).await.map(drop)
}

/// Commits the node in `phase` with the story as its new cause; returns it at its new revision.
pub(super) async fn commit_and_read(node: Node, phase: NodePhase, story: Story, mut also: Vec<Write>, cx: &Context) -> Result<Node, ReconcileError> {
    let mut node = turned(node, phase, story, &mut also, cx);
    also.push(Write::update(node.clone()));
    node.metadata.resource_version = cx.store.commit(also).await?;
    Ok(node)
}

/// The node in `phase` with the story as its new cause; the event goes into `writes`, the node not yet.
pub(super) fn turned(mut node: Node, phase: NodePhase, story: Story, writes: &mut Vec<Write>, cx: &Context) -> Node {
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    node.status.cause = Some(cx.tell_into(writes, &key, node.status.cause.clone(), story));
    node.status.phase = phase;
    node
}
