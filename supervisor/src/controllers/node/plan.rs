//! What a node needs next, decided from values alone.

use crate::model::{Exit, ExitClass, FROZEN, Node, NodePhase, RestartPolicy, Timestamp};
use std::time::Duration;

/// Beyond what back-off and jitter, or a minute's budget, ever make of it, a wait is the work of a clock that was set back.
const LONGEST_STORM: Duration = Duration::from_secs(60);
const MOST_JITTER: f64 = 1.2;
/// What is not counted is tried again without end, so not at once even where the spec wants no back-off.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The node's last launch as the runtime knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Process {
    /// There is none, or its end is on record.
    None,
    /// The row was written, the fork was not recorded.
    Intended,
    Alive {
        ready: bool,
        frozen: bool,
    },
    Exited(Exit),
    /// No trace and no status.
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) process: Process,
    pub(super) now: Timestamp,
    /// Short name of a node that must be ready first and is not.
    pub(super) waits_for: Option<String>,
    /// What the back-off is multiplied with: nodes that died together do not come back together.
    pub(super) jitter: f64,
    /// It has followed blocks for long enough since it was ready.
    pub(super) steady: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// A new launch; `counted` when it is a restart after a death.
    Launch {
        counted: bool,
    },
    /// Held back by a dependency.
    Wait {
        on: String,
    },
    /// Signal, grace, kill.
    Stop {
        why: StopReason,
    },
    /// Put the end on record. None: how it ended cannot be known.
    RecordExit(Option<Exit>),
    /// Make sure that nothing lives of the intended launch, then go on.
    Recover,
    Backoff {
        until: Timestamp,
        why: BackoffReason,
    },
    Fail {
        reason: &'static str,
        message: String,
    },
    /// It ended as it should: a service that completed, or policy never.
    Complete,
    MarkRunning,
    MarkStopped,
    /// The spec changed in a way that asks nothing of a live process.
    Observe,
    Freeze,
    Thaw,
    /// Not launched while it is to be frozen.
    HoldBack,
    /// A stable run: the back-off starts over.
    ForgetRestarts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackoffReason {
    Died,
    /// All nodes of the devnet together have died too often.
    Storm {
        budget: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    NotWanted,
    Restart,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) step: Step,
    pub(super) requeue: Option<Duration>,
}

impl From<Step> for Decision {
    fn from(step: Step) -> Self {
        Self { step, requeue: None }
    }
}

pub(super) fn plan(node: &Node, seen: &Seen) -> Decision {
    match &seen.process {
        Process::Intended => Step::Recover.into(),
        Process::Exited(exit) => Step::RecordExit(Some(exit.clone())).into(),
        Process::Gone => Step::RecordExit(None).into(),
        Process::Alive { ready, frozen } => alive(node, *ready, *frozen, seen),
        Process::None => idle(node, seen),
    }
}

fn alive(node: &Node, ready: bool, frozen: bool, &Seen { now, steady, .. }: &Seen) -> Decision {
    if !node.is_wanted() {
        return Step::Stop { why: StopReason::NotWanted }.into();
    }
    if restart_requested(node) {
        return Step::Stop { why: StopReason::Restart }.into();
    }
    let said = node.status.conditions.get(FROZEN).is_some();
    match node.is_to_be_frozen() {
        true if !(frozen && node.is_frozen()) => return Step::Freeze.into(),
        false if frozen || said => return Step::Thaw.into(),
        _ => {}
    }
    if ready && node.status.phase != NodePhase::Running {
        return Step::MarkRunning.into();
    }
    if node.metadata.generation > node.status.observed_generation {
        return Step::Observe.into();
    }
    if frozen || node.status.phase != NodePhase::Running || node.status.recent_restarts == 0 {
        return Step::Nothing.into();
    }
    if steady {
        return Step::ForgetRestarts.into();
    }
    let stable = Duration::from_millis(node.spec.restart.reset_after_ms);
    let started = node.status.started_at.unwrap_or(now);
    // It started in the future: the clock was set back, and nothing tells for how long it has run. It gets the benefit of the doubt.
    let up = if started > now { stable } else { now.since(started) };
    match stable.checked_sub(up).filter(|left| !left.is_zero()) {
        Some(left) => Decision { step: Step::Nothing, requeue: Some(left) },
        None => Step::ForgetRestarts.into(),
    }
}

fn idle(node: &Node, seen: &Seen) -> Decision {
    let phase = node.status.phase;
    if !node.is_wanted() {
        return if phase == NodePhase::Stopped { Step::Nothing } else { Step::MarkStopped }.into();
    }
    if node.is_to_be_frozen() {
        return match phase {
            NodePhase::Pending | NodePhase::Stopped => Step::HoldBack.into(),
            _ => Step::Nothing.into(), // what is known of its death stays to be read
        };
    }
    let asked_again = node.is_asked_anew();
    match phase {
        NodePhase::Failed if !asked_again => Step::Nothing.into(),
        NodePhase::Stopped if completed(node) && !asked_again => Step::Nothing.into(),
        NodePhase::Crashed if !asked_again => after_death(node, seen),
        NodePhase::Backoff if !asked_again => {
            let due = node.status.next_restart.unwrap_or(seen.now);
            match due.since(seen.now) {
                left if left.is_zero() || left > longest_wait(node) => start(seen, !refused(node)),
                left => Decision { step: Step::Nothing, requeue: Some(left) },
            }
        }
        _ => start(seen, false),
    }
}

fn start(seen: &Seen, counted: bool) -> Decision {
    match &seen.waits_for {
        Some(on) => Step::Wait { on: on.clone() }.into(),
        None => Step::Launch { counted }.into(),
    }
}

/// Whether the death on record allows a restart, and when.
fn after_death(node: &Node, seen: &Seen) -> Decision {
    let exit = node.status.last_exit.clone().unwrap_or_default();
    let rules = &node.spec.restart;
    let clean = exit.code == Some(0);
    match rules.policy {
        RestartPolicy::Never => return if clean { Step::Complete } else { fail("RestartPolicyNever", &exit.message) }.into(),
        RestartPolicy::OnFailure if clean => return Step::Complete.into(),
        RestartPolicy::OnFailure | RestartPolicy::Always => {}
    }
    if exit.class.is_final() {
        return fail(class_reason(exit.class), &exit.message).into();
    }
    if !refused(node) && node.status.recent_restarts >= rules.max_restarts {
        let used = format!("died {} times without a stable run; last: {}", node.status.recent_restarts + 1, exit.message);
        return fail("RestartBudgetUsed", &used).into();
    }
    let least = if refused(node) { REFUSED_PAUSE } else { Duration::ZERO };
    let delay = backoff(rules.backoff_ms, rules.max_backoff_ms, node.status.recent_restarts).max(least);
    let until = exit.at.min(seen.now).plus(delay.mul_f64(seen.jitter));
    if until <= seen.now { start(seen, !refused(node)) } else { Step::Backoff { until, why: BackoffReason::Died }.into() }
}

fn fail(reason: &'static str, message: &str) -> Step {
    Step::Fail { reason, message: message.to_owned() }
}

/// First back-off doubled for each restart since the last stable run, up to the greatest.
fn backoff(first_ms: u64, max_ms: u64, restarts: u32) -> Duration {
    let doubled = first_ms.saturating_mul(1_u64.checked_shl(restarts).unwrap_or(u64::MAX));
    Duration::from_millis(doubled.min(max_ms))
}

fn longest_wait(node: &Node) -> Duration {
    Duration::from_millis(node.spec.restart.max_backoff_ms.max(node.spec.restart.backoff_ms)).mul_f64(MOST_JITTER).max(LONGEST_STORM)
}

fn restart_requested(node: &Node) -> bool {
    node.spec.restart_request > node.status.observed_restart
}

/// Its last launch was refused, for its key or by the machine, before there was a process: that is no death to count.
fn refused(node: &Node) -> bool {
    node.status.last_exit.as_ref().is_some_and(|exit| matches!(exit.class, ExitClass::KeyRefused | ExitClass::NoResources))
}

/// Stopped by itself, not by us: the condition Completed says so.
fn completed(node: &Node) -> bool {
    node.status.conditions.is_true("Completed")
}

/// The condition's reason for a death that no restart heals.
pub(in super::super) fn class_reason(class: ExitClass) -> &'static str {
    match class {
        ExitClass::Oom => "OutOfMemory",
        ExitClass::PortBusy => "PortBusy",
        ExitClass::DbLocked => "DatabaseLocked",
        ExitClass::AppHash => "AppHashMismatch",
        ExitClass::ConsensusFailure => "ConsensusFailure",
        ExitClass::UpgradeNeeded => "UpgradeNeeded",
        ExitClass::BadFlag => "BadFlag",
        ExitClass::NoProgram => "NoProgram",
        ExitClass::NoResources => "NoResources",
        ExitClass::GenesisMismatch => "GenesisMismatch",
        ExitClass::KeyRefused => "KeyRefused",
        ExitClass::Panic => "Panic",
        ExitClass::KilledByUser => "KilledByUser",
        ExitClass::Unknown => "Died",
    }
}

#[cfg(test)]
mod tests;
