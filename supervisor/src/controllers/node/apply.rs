//! Carries out what the plan decided: each step commits what it is about to do, does it, and commits what came of it.

use super::super::{Context, Edit, ReconcileError, Story};
use super::{
    certificate, handle_of, history,
    launch::{launch_plan, launch_spec, make_dir, prepare},
    launch_name,
    plan::{Step, StopReason, class_reason},
};
use crate::{
    model::{
        Condition, ConditionStatus, Event, Exit, ExitClass, Key, Kind, LastExit, Launch, LaunchId, LaunchPhase, LaunchRecord, LaunchStatus, Meta,
        Node, NodePhase, Timestamp, Uid,
    },
    plugin::LaunchPlan,
    runtime::{Handle, RuntimeError, StopPolicy},
    store::{Expect, Selector, Write},
    sys::signal_from_name,
};
use futures::StreamExt;
use nix::sys::signal::Signal;
use std::{path::Path, sync::Arc, time::Duration};

const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn apply(node: &Node, launch: Option<&Launch>, step: &Step, cx: &Context) -> Result<(), ReconcileError> {
    match step {
        Step::Nothing => Ok(()),
        Step::Launch { counted } => start(node, *counted, cx).await,
        Step::Wait { on } => {
            let message = format!("waits until {on} is ready");
            let condition = Condition::new("Ready", ConditionStatus::False, "WaitingForDependency", message.clone());
            turn(node, NodePhase::Pending, Some(condition), Story::new("node", "Waiting", message).desired("running"), cx).await
        }
        Step::Stop { why } => stop(node, launch, *why, cx).await,
        Step::RecordExit(exit) => record_exit(node, launch, exit.as_ref(), cx).await,
        Step::Recover => recover(node, launch, cx).await,
        Step::Backoff { until } => {
            let message = format!("restarts at {until}, restart {} since the last stable run", node.status.recent_restarts + 1);
            let story = Story::new("node", "BackOff", message).observed(exit_text(node)).desired("running").action("wait");
            let mut next = node.clone();
            next.status.next_restart = Some(*until);
            commit(next, NodePhase::Backoff, story, vec![], cx).await
        }
        Step::Fail { reason, message } => {
            let remedy = format!("dvbctl logs {0}; mend the cause, then dvbctl restart {0}", node.metadata.name);
            let condition = Condition::new("Ready", ConditionStatus::False, reason, message.clone()).with_remedy(remedy);
            turn(
                node,
                NodePhase::Failed,
                Some(condition),
                Story::new("node", reason, message.clone()).warn().observed(exit_text(node)).desired("running").action("give up"),
                cx,
            )
            .await
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
            turn(node, NodePhase::Stopped, Some(condition), Story::new("node", "Stopped", "is stopped").desired("stopped"), cx).await
        }
        Step::Observe => {
            let mut next = node.clone();
            next.status.observed_generation = node.metadata.generation;
            cx.store.commit(vec![Write::update(next)]).await?;
            Ok(())
        }
        Step::ForgetRestarts => {
            let mut next = node.clone();
            next.status.recent_restarts = 0;
            commit(next, node.status.phase, Story::new("node", "Stable", "ran long enough: the back-off starts over"), vec![], cx).await
        }
    }
}

/// Intent row, fork, record. A fork that fails is a death like any other: it goes through cause and back-off.
async fn start(node: &Node, counted: bool, cx: &Context) -> Result<(), ReconcileError> {
    let name = node.node_name();
    let namespace = &node.metadata.namespace;
    let Some(devnet) = cx.devnet(namespace, &name.devnet).await? else { return Ok(()) };
    let prepared = tokio::select! {
        prepared = ready_to_start(&devnet, node, cx) => prepared,
        () = unwanted(node, cx) => return Ok(()), // that change wakes this controller
    };
    let plan = match prepared {
        Ok(plan) => plan,
        Err(error @ ReconcileError::Store(_)) => return Err(error), // says nothing of the node
        Err(error) => return refuse(node, counted, &error, cx).await,
    };
    let now = cx.clock.now();
    let id = LaunchId::from_uuid(cx.clock.fresh_id());
    let logs_dir = cx.home.node_logs(namespace, &name.devnet, &name.short);
    make_dir(&logs_dir)?;
    let log = logs_dir.join(format!("{id}.log"));
    let (spec, grants) = launch_spec(&plan, node, id.clone(), log.clone())?;

    let launch = intent(node, &plan, &id, &log, now);
    let mut next = node.clone();
    next.status.launch_id = Some(id.clone());
    next.status.log_path = Some(log.display().to_string());
    next.status.started_at = Some(now);
    next.status.pid = None;
    next.status.next_restart = None;
    next.status.observed_restart = node.spec.restart_request;
    next.status.observed_generation = node.metadata.generation;
    if counted {
        next.status.restart_count += 1;
        next.status.recent_restarts += 1;
        next.status.last_restart = Some(now);
    } else {
        next.status.recent_restarts = 0;
    }
    next.status.conditions.remove("Completed");
    next.status.conditions.set(Condition::new("Ready", ConditionStatus::False, "Starting", "was just started"), now);
    next.status.conditions.remove("Progressing");
    note_limits(&mut next, cx, now);
    let what = if counted { "Restarting" } else { "Starting" };
    let story = Story::new("node", what, format!("starts {}", plan.argv.first().map_or("", String::as_str)))
        .desired("running")
        .action("start")
        .launch(id.clone());
    let old = history::outdated(node, cx).await?;
    let writes = old.iter().map(history::removal).chain([Write::create(launch.clone())]).collect();
    let next = commit_and_read(next, NodePhase::Starting, story, writes, cx).await?;
    history::remove_logs(&old);

    match cx.runtime.start(&spec, grants).await {
        Ok(handle) => record_start(&Key::node(namespace, &node.metadata.name), launch, &handle, cx).await,
        Err(error) => {
            let exit = Exit { at: cx.clock.now(), ..Exit::default() };
            let class = spawn_class(&error);
            let last = LastExit { class, message: error.to_string(), at: exit.at, ..LastExit::default() };
            finish(next, Some(launch), last, false, cx).await
        }
    }
}

/// Everything before the launch row that can be refused: plugin, files, jobs, ports.
async fn ready_to_start(devnet: &crate::model::Devnet, node: &Node, cx: &Context) -> Result<LaunchPlan, ReconcileError> {
    let plan = launch_plan(devnet, node, cx).await?;
    prepare(&plan, node, cx).await?;
    let ports = super::super::devnet::planned_ports(devnet, node, cx).await?;
    cx.ports.probe(node, &ports).await?;
    Ok(plan)
}

/// Resolves when the node shall not run any more: nobody waits for a plugin that hangs, then.
async fn unwanted(node: &Node, cx: &Context) {
    let meta = &node.metadata;
    let selector = Selector { namespace: Some(meta.namespace.clone()), name: Some(meta.name.clone()), ..Selector::kind(Kind::Node) };
    let mut changes = cx.store.watch(selector, meta.resource_version);
    while let Some(Ok(change)) = changes.next().await {
        if change.deleted || Arc::<Node>::try_from(change.object).is_ok_and(|node| !node.is_wanted()) {
            return;
        }
    }
    std::future::pending().await
}

/// A start that was refused before the fork.
async fn refuse(node: &Node, counted: bool, error: &ReconcileError, cx: &Context) -> Result<(), ReconcileError> {
    let class = match error {
        ReconcileError::Port(_) => ExitClass::PortBusy,
        ReconcileError::Job { .. } | ReconcileError::Plugin(_) | ReconcileError::Io { .. } => ExitClass::Unknown,
        ReconcileError::Runtime(error) => spawn_class(error),
        _ => ExitClass::BadFlag,
    };
    let mut next = node.clone();
    next.status.observed_restart = node.spec.restart_request;
    next.status.observed_generation = node.metadata.generation;
    if counted {
        next.status.restart_count += 1;
        next.status.recent_restarts += 1;
    } else {
        next.status.recent_restarts = 0;
    }
    let last = LastExit { class, message: error.to_string(), at: cx.clock.now(), ..LastExit::default() };
    finish(next, None, last, false, cx).await
}

/// A program that cannot be executed does not heal by trying again.
fn spawn_class(error: &RuntimeError) -> ExitClass {
    match error {
        RuntimeError::NoProgram { .. } | RuntimeError::NotExecutable { .. } | RuntimeError::WrongArchitecture { .. } => ExitClass::BadFlag,
        _ => ExitClass::Unknown,
    }
}

fn intent(node: &Node, plan: &LaunchPlan, id: &LaunchId, log: &Path, now: Timestamp) -> Launch {
    Launch {
        metadata: Meta {
            name: launch_name(&node.metadata.name, id),
            namespace: node.metadata.namespace.clone(),
            uid: Uid(id.to_string()),
            generation: 1,
            created_at: now,
            ..Meta::default()
        },
        spec: LaunchRecord {
            node_ref: node.metadata.name.clone(),
            launch_id: id.clone(),
            generation: node.metadata.generation,
            argv: plan.argv.clone(),
            env: plan.env.clone(),
            binary_hash: node.spec.binary_hash.clone(),
            log_path: log.display().to_string(),
            stop_signal: if plan.stop_signal.is_empty() { "SIGTERM".into() } else { plan.stop_signal.clone() },
            grace_ms: u64::try_from(if plan.grace.is_zero() { GRACE } else { plan.grace }.as_millis()).unwrap_or(u64::MAX),
            readiness: plan.readiness.clone(),
        },
        status: LaunchStatus::default(),
    }
}

/// Says on the node when limits that it asks for cannot be held here.
fn note_limits(node: &mut Node, cx: &Context, now: Timestamp) {
    let can = cx.runtime.capabilities();
    let wants = node.spec.resources.is_some_and(|limits| limits != Default::default());
    let condition = match (wants, can.limits) {
        (false, _) => {
            node.status.conditions.remove("LimitsEnforced");
            return;
        }
        (true, true) => Condition::new("LimitsEnforced", ConditionStatus::True, "Cgroup", "limits are set on its cgroup"),
        (true, false) => {
            let condition = Condition::new("LimitsEnforced", ConditionStatus::False, "NoControllers", can.cgroup_message);
            Condition { remedy: can.cgroup_remedy, ..condition }
        }
    };
    node.status.conditions.set(condition, now);
}

/// The process exists: nothing that others wrote meanwhile may keep this from being recorded.
async fn record_start(key: &Key, mut launch: Launch, handle: &Handle, cx: &Context) -> Result<(), ReconcileError> {
    launch.status = LaunchStatus {
        phase: LaunchPhase::Running,
        pid: handle.pid,
        started_at: Some(handle.started_at),
        handle: serde_json::to_value(handle).ok(),
        ..LaunchStatus::default()
    };
    let also = vec![Write::Put { object: launch.into(), expect: Expect::Any }];
    cx.edit_node(key, also, |node| {
        node.status.pid = handle.pid;
        node.status.started_at = Some(handle.started_at);
        let pid = handle.pid.map_or_else(|| "a container".into(), |pid| format!("pid {pid}"));
        Edit::Tell(Story::new("node", "Started", format!("runs as {pid}")).result(pid).launch(handle.id.clone()))
    })
    .await?;
    Ok(())
}

/// The fork of the intended launch was never recorded: whatever lives of it is killed, so that it is never doubled.
async fn recover(node: &Node, launch: Option<&Launch>, cx: &Context) -> Result<(), ReconcileError> {
    let Some(launch) = launch else { return Ok(()) };
    cx.runtime.destroy(&Handle::unrecorded(launch.spec.launch_id.clone())).await?;
    let message = "devnetd ended while it started the process; what was left of it was killed";
    let last = LastExit { message: message.into(), at: cx.clock.now(), ..LastExit::default() };
    finish(node.clone(), Some(launch.clone()), last, true, cx).await
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
    cx.runtime.stop(&handle, StopPolicy { signal, grace }).await?;
    cx.wake.node(&Key::node(&node.metadata.namespace, &node.metadata.name));
    Ok(())
}

async fn record_exit(node: &Node, launch: Option<&Launch>, exit: Option<&Exit>, cx: &Context) -> Result<(), ReconcileError> {
    let Some(launch) = launch else { return Ok(()) };
    let requested = exit.is_some_and(|exit| exit.requested);
    let last = certificate::certificate(node, launch, exit, cx).await;
    finish(node.clone(), Some(launch.clone()), last, requested, cx).await?;
    if let Some(handle) = handle_of(launch) {
        cx.runtime.destroy(&handle).await?;
    }
    Ok(())
}

/// Closes a launch: row Ended, node Crashed, or Stopped when the end was asked for.
async fn finish(mut node: Node, launch: Option<Launch>, last: LastExit, requested: bool, cx: &Context) -> Result<(), ReconcileError> {
    let now = cx.clock.now();
    let wanted = node.is_wanted();
    let mut also = Vec::new();
    if let Some(mut launch) = launch {
        launch.status.phase = LaunchPhase::Ended;
        launch.status.ended_at = Some(last.at);
        launch.status.exit = Some(last.clone());
        also.push(Write::Put { object: launch.into(), expect: Expect::Any });
    }
    node.status.pid = None;
    if !requested {
        node.status.observed_generation = node.metadata.generation; // only what is asked after this death overrules the back-off
    }
    let reason = if requested { "Stopped" } else { class_reason(last.class) };
    node.status.conditions.set(Condition::new("Ready", ConditionStatus::False, reason, last.message.clone()), now);
    node.status.conditions.remove("Progressing");
    let phase = match (requested, wanted) {
        (true, true) => NodePhase::Pending, // a restart: it is launched next
        (true, false) => NodePhase::Stopped,
        (false, _) => NodePhase::Crashed,
    };
    let story = Story::new("node", if requested { "Stopped" } else { "Died" }, last.message.clone());
    let story = if requested { story } else { story.warn().desired("running") };
    let story = match &node.status.launch_id {
        Some(id) => story.launch(id.clone()),
        None => story,
    };
    cx.observations.forget(&Key::node(&node.metadata.namespace, &node.metadata.name));
    node.status.last_exit = Some(last);
    commit(node, phase, story, also, cx).await
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
async fn commit_and_read(mut node: Node, phase: NodePhase, story: Story, also: Vec<Write>, cx: &Context) -> Result<Node, ReconcileError> {
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    let event: Event = cx.tell(&key, node.status.cause.clone(), story);
    node.status.phase = phase;
    node.status.cause = Some(event.id.clone());
    let mut writes = also;
    writes.push(Write::Event(Box::new(event)));
    writes.push(Write::update(node.clone()));
    let revision = cx.store.commit(writes).await?;
    node.metadata.resource_version = revision;
    Ok(node)
}
