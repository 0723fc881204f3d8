//! Starts a node: what may be refused first, then the intent row, the fork and its record.

use super::super::{
    Context, Edit, ReconcileError, Story,
    devnet::planned_ports,
    placing::{LIMITS_ENFORCED, SERVICE, TEMPLATE, devnet_limits, limits_condition, template},
};
use super::{
    apply::commit_and_read,
    budget::Budgets,
    ending::finish,
    history,
    launch::{cwd, is_planned, launch_spec, prepared_plan, surroundings},
    launch_name,
    plan::class_reason,
    signing,
};
use crate::{
    binaries::BinaryError,
    keylease::KeyLease,
    model::{
        Condition, ConditionStatus, Devnet, Exit, ExitClass, Key, Kind, LastExit, Launch, LaunchId, LaunchPhase, LaunchRecord, LaunchStatus, Meta,
        Node, NodePhase, RawJson, Timestamp, Uid,
    },
    plugin::LaunchPlan,
    ports::PORTS_RESERVED,
    runtime::{Handle, LetGo, NO_DESCRIPTOR_REMEDY, NO_PROCESS_REMEDY, NO_SPACE_REMEDY, RuntimeError},
    store::{Expect, Selector, Write},
    sys::{failpoint, is_out_of_descriptors, is_out_of_space},
};
use futures::{FutureExt, StreamExt};
use std::{error::Error, path::Path, sync::Arc, task::Poll, time::Duration};
use tokio::sync::oneshot;

const GRACE: Duration = Duration::from_secs(10);

/// What a launch is made of, when nothing speaks against it.
pub(super) struct Ready {
    devnet: Arc<Devnet>,
    plan: LaunchPlan,
    lease: Option<KeyLease>,
    /// What is to be said of its ports.
    lendable: Option<Condition>,
}

/// Makes ready and launches; `also`, the row of the launch before, goes with the intent.
pub(super) async fn start(node: &Node, counted: bool, also: Vec<Write>, budgets: &Budgets, cx: &Context) -> Result<(), ReconcileError> {
    let made = tokio::select! {
        biased; // most are ready at once: then there is no feed to open
        made = make_ready(node, cx) => made,
        () = unwanted(node, cx) => return Ok(()), // that change wakes this controller
    };
    match made {
        Ok(Some(ready)) => launch(node, counted, ready, also, budgets, cx).await,
        Ok(None) => Ok(()),
        Err(error @ ReconcileError::Store(_)) => Err(error), // says nothing of the node
        Err(ReconcileError::Key(error)) if let Some(condition) = error.condition() => signing::refuse(node, &error, condition, cx).await,
        Err(error) => refuse(node, counted, &error, cx).await,
    }
}

/// None: the plugin is to be asked or files are to be written first, or something is in the way; `start` does that, or tells it.
pub(super) async fn ready_at_once(node: &Node, cx: &Context) -> Option<Ready> {
    let devnet = cx.accepted_devnet(&node.metadata.namespace, &node.spec.devnet_ref).await.ok()??;
    if !is_planned(&devnet, node, cx).await.ok()? {
        return None;
    }
    make_ready(node, cx).await.ok()?
}

/// Intent row, fork, record; `also` goes with the intent. A fork that fails is a death like any other: it goes through cause and back-off.
pub(super) async fn launch(
    node: &Node,
    counted: bool,
    ready: Ready,
    also: Vec<Write>,
    budgets: &Budgets,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let Ready { devnet, plan, lease, lendable } = ready;
    let (name, namespace) = (node.node_name(), &node.metadata.namespace);
    failpoint("launch/leased");
    let now = cx.clock.now();
    let id = LaunchId::from_uuid(cx.clock.fresh_id());
    let log = cx.home.node_logs(namespace, &name.devnet, &name.short).join(format!("{id}.log"));
    let launch = intent(node, &plan, &id, &log, budgets.of(node), now);
    let (mut spec, mut grants) = launch_spec(plan, devnet_limits(&devnet), node, id.clone(), log.clone())?;

    let mut next = starting(node, &launch, counted, template(&devnet, node), now);
    note_limits(&mut next, cx, now);
    match lendable {
        Some(condition) => drop(next.status.conditions.set(condition, now)),
        None => drop(next.status.conditions.remove(PORTS_RESERVED)),
    }
    let what = if counted { "Restarting" } else { "Starting" };
    let story = Story::new("node", what, format!("starts {}", launch.spec.argv.first().map_or("", String::as_str)))
        .desired("running")
        .action("start")
        .launch(id.clone());
    let mut writes = also;
    writes.push(Write::create(launch.clone()));
    signing::note(&mut next, lease.as_ref(), &mut writes, cx);
    grants.fds.extend(lease.and_then(KeyLease::into_grant));
    grants.let_go = Some(LetGo(Box::new(cx.ports.unpark(node))));
    let (report, reported) = oneshot::channel();
    let commit = {
        let cx = cx.clone();
        async move { intend(next, story, writes, &cx).await }
    };
    let mut go = commit.map(|intended| report_to(report, intended)).boxed();
    // It is on its way to the store while all is made ready for the fork.
    if let Poll::Ready(committed) = futures::poll!(&mut go) {
        go = std::future::ready(committed).boxed();
    }
    // Whom a service finds in its environment. They are read from memory; where that fails, the intent has failed before.
    let neighbours = if node.spec.role == SERVICE { cx.nodes(namespace, &name.devnet).await.unwrap_or_default() } else { Vec::new() };
    for (name, value) in surroundings(&devnet, &neighbours) {
        spec.env.entry(name).or_insert(value);
    }
    let started = cx.runtime.start_when(go, spec, grants).await;
    let mut next = reported.await.map_err(|_| ReconcileError::Unfit("the intent was dropped with its runtime".into()))??;
    failpoint("launch/started");
    match started {
        Ok(handle) => record_start(node, launch, &handle, cx).await,
        Err(error) => {
            let exit = Exit { at: cx.clock.now(), ..Exit::default() };
            let class = spawn_class(&error);
            let last = LastExit { class, message: error.to_string(), at: exit.at, ..LastExit::default() };
            if class == ExitClass::NoResources {
                next.status.log_path = node.status.log_path.clone(); // that of the last process there was
                let _ = std::fs::remove_file(&log); // perhaps it was not made
            }
            let remedy = resource_remedy(&error);
            finish(next, Some(launch), last, false, remedy, cx).await
        }
    }
}

/// Everything before the launch row that can be refused: the key, plugin, files, jobs, ports. None: its devnet is gone.
async fn make_ready(node: &Node, cx: &Context) -> Result<Option<Ready>, ReconcileError> {
    let Some(devnet) = cx.accepted_devnet(&node.metadata.namespace, &node.spec.devnet_ref).await? else { return Ok(None) };
    let lease = signing::lease(&devnet, node, cx).await?; // first: nothing is written under a process that should not be there
    if !node.spec.binary_hash.is_empty() {
        cx.binaries.reopen(Path::new(&node.spec.binary_path)).await?; // a look at its stat, unless somebody touched it
    }
    let plan = prepared_plan(&devnet, node, cx).await?;
    let ports = planned_ports(&devnet, node, cx).await?;
    cx.ports.probe(node, &ports).await?;
    let lendable = cx.ports.lendable(node, &ports);
    Ok(Some(Ready { devnet, plan, lease, lendable }))
}

async fn intend(next: Node, story: Story, writes: Vec<Write>, cx: &Context) -> Result<Node, ReconcileError> {
    let next = commit_and_read(next, NodePhase::Starting, story, writes, cx).await?;
    failpoint("launch/intended");
    Ok(next)
}

/// Whether it may be forked.
fn report_to(report: oneshot::Sender<Result<Node, ReconcileError>>, intended: Result<Node, ReconcileError>) -> bool {
    let committed = intended.is_ok();
    report.send(intended).is_ok() && committed
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
        error if resource_remedy(error).is_some() => ExitClass::NoResources,
        ReconcileError::Port(_) => ExitClass::PortBusy,
        ReconcileError::Job { .. } | ReconcileError::Plugin(_) | ReconcileError::Io { .. } => ExitClass::Unknown,
        ReconcileError::Runtime(error) => spawn_class(error),
        ReconcileError::Binary(BinaryError::Io { .. }) => ExitClass::Unknown,
        ReconcileError::Binary(_) => ExitClass::NoProgram,
        _ => ExitClass::BadFlag,
    };
    let mut next = node.clone();
    next.status.observed_restart = node.spec.restart_request;
    next.status.observed_generation = node.metadata.generation;
    next.status.observed_double_sign = node.spec.double_sign_request;
    match class {
        ExitClass::NoResources => {} // says nothing of the node
        _ if counted => {
            next.status.restart_count += 1;
            next.status.recent_restarts += 1;
        }
        _ => next.status.recent_restarts = 0,
    }
    let last = LastExit { class, message: error.to_string(), at: cx.clock.now(), ..LastExit::default() };
    finish(next, None, last, false, resource_remedy(error), cx).await
}

/// What to do about a start for which the machine, or a limit, had not enough left. None: it failed for something else.
fn resource_remedy(error: &(dyn Error + 'static)) -> Option<String> {
    let runtime = match error.downcast_ref() {
        Some(ReconcileError::Runtime(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    let remedy = match runtime {
        Some(RuntimeError::NoProcess { .. }) => NO_PROCESS_REMEDY,
        _ if is_out_of_descriptors(error) => NO_DESCRIPTOR_REMEDY,
        // Cgroups have no disk behind them.
        Some(RuntimeError::Io { path, .. }) if path.starts_with("/sys") => return None,
        _ if is_out_of_space(error) => NO_SPACE_REMEDY,
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// A reconcile for which the machine had not enough left comes to no launch that would say so: it is said here, of a node that is to run and
/// does not.
pub(super) async fn tell_of_shortage(key: &Key, error: &ReconcileError, cx: &Context) {
    let Some(remedy) = resource_remedy(error).filter(|_| !matches!(error, ReconcileError::Store(_))) else { return };
    let (message, reason, now) = (format!("cannot be started: {error}"), class_reason(ExitClass::NoResources), cx.clock.now());
    let ready = Condition::new("Ready", ConditionStatus::False, reason, message.clone()).with_remedy(remedy);
    let told = cx.edit_node(key, vec![], |node| {
        let waits = node.is_wanted() && node.status.pid.is_none();
        match waits && node.status.conditions.set(ready.clone(), now) {
            true => Edit::Tell(Story::new("node", reason, message.clone()).warn().desired("running").action("try again")),
            false => Edit::Skip,
        }
    });
    if let Err(error) = told.await {
        tracing::warn!(node = %key, %error, "what it lacks could not be recorded");
    }
}

/// A program that cannot be executed does not heal by trying again.
fn spawn_class(error: &RuntimeError) -> ExitClass {
    match error {
        RuntimeError::NoProgram { .. } | RuntimeError::NotExecutable { .. } | RuntimeError::WrongArchitecture { .. } => ExitClass::NoProgram,
        error if resource_remedy(error).is_some() => ExitClass::NoResources,
        _ => ExitClass::Unknown,
    }
}

fn intent(node: &Node, plan: &LaunchPlan, id: &LaunchId, log: &Path, restarts: Vec<(i64, u32)>, now: Timestamp) -> Launch {
    Launch {
        metadata: Meta {
            name: launch_name(&node.metadata.name, id),
            namespace: node.metadata.namespace.clone(),
            uid: Uid(id.to_string()),
            generation: 1,
            created_at: now,
            ..Meta::default()
        },
        spec: Arc::new(LaunchRecord {
            node_ref: node.metadata.name.clone(),
            launch_id: id.clone(),
            generation: node.metadata.generation,
            argv: plan.argv.clone(),
            binary_hash: node.spec.binary_hash.clone(),
            log_path: log.display().to_string(),
            stop_signal: if plan.stop_signal.is_empty() { "SIGTERM".into() } else { plan.stop_signal.clone() },
            grace_ms: u64::try_from(if plan.grace.is_zero() { GRACE } else { plan.grace }.as_millis()).unwrap_or(u64::MAX),
            readiness: plan.readiness.clone(),
            cwd: cwd(plan, node).display().to_string(),
            restarts,
        }),
        status: LaunchStatus::default(),
    }
}

/// The node as the intent has it.
fn starting(node: &Node, launch: &Launch, counted: bool, template: String, now: Timestamp) -> Node {
    let mut next = node.clone();
    next.status.launch_id = Some(launch.spec.launch_id.clone());
    next.status.log_path = Some(launch.spec.log_path.clone());
    next.status.started_at = Some(now);
    next.status.pid = None;
    next.status.next_restart = None;
    next.status.observed_restart = node.spec.restart_request;
    next.status.observed_generation = node.metadata.generation;
    next.status.observed_double_sign = node.spec.double_sign_request;
    // The spec may have moved on since nodes were last made to match it: what counts is what this launch was made of.
    next.metadata.annotations.insert(TEMPLATE.into(), template);
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
    next
}

/// Says on the node when limits that it asks for cannot be held here.
fn note_limits(node: &mut Node, cx: &Context, now: Timestamp) {
    match limits_condition(node.spec.resources.as_ref(), cx.runtime.capabilities()) {
        Some(condition) => drop(node.status.conditions.set(condition, now)),
        None => drop(node.status.conditions.remove(LIMITS_ENFORCED)),
    }
}

/// The row of a launch whose process is known.
pub(super) fn as_running(handle: &Handle) -> LaunchStatus {
    LaunchStatus {
        phase: LaunchPhase::Running,
        pid: handle.pid,
        started_at: Some(handle.started_at),
        handle: RawJson::of(handle).ok(),
        ..LaunchStatus::default()
    }
}

/// The process exists: nothing that others wrote meanwhile may keep this from being recorded. `before` is the node as it was before
/// this launch, whose oldest ones go now.
async fn record_start(before: &Node, mut launch: Launch, handle: &Handle, cx: &Context) -> Result<(), ReconcileError> {
    let key = Key::node(&before.metadata.namespace, &before.metadata.name);
    let old = history::outdated(before, cx).await.unwrap_or_default(); // what cannot be read now is there at the next launch
    launch.status = as_running(handle);
    let put = Write::Put { object: launch.into(), expect: Expect::Any };
    let also = old.iter().map(history::removal).chain([put]).collect();
    cx.edit_node(&key, also, |node| {
        node.status.pid = handle.pid;
        node.status.started_at = Some(handle.started_at);
        let pid = handle.pid.map_or_else(|| "a container".into(), |pid| format!("pid {pid}"));
        Edit::Tell(Story::new("node", "Started", format!("runs as {pid}")).result(pid).launch(handle.id.clone()))
    })
    .await?;
    failpoint("launch/recorded");
    history::remove_logs(&old);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::io;

    #[test]
    fn a_start_that_the_machine_has_no_room_for_says_nothing_of_the_node() {
        let at = |path: &str, errno: Errno| RuntimeError::Io { path: path.into(), source: io::Error::from(errno) };
        let io = |errno: Errno| at("/sys/fs/cgroup/x", errno);
        let unread = BinaryError::Io { action: "read", path: "/cache/x/lib".into(), source: std::sync::Arc::new(io::Error::from(Errno::EMFILE)) };
        assert_eq!(resource_remedy(&ReconcileError::Binary(unread)).as_deref(), Some(NO_DESCRIPTOR_REMEDY), "its look at the binary, too");
        let no_process = || RuntimeError::NoProcess { program: "x".into(), source: io::Error::from(Errno::EAGAIN) };
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            assert_eq!(spawn_class(&io(errno)), ExitClass::NoResources);
            assert_eq!(resource_remedy(&ReconcileError::Runtime(io(errno))).as_deref(), Some(NO_DESCRIPTOR_REMEDY));
        }
        assert_eq!(spawn_class(&no_process()), ExitClass::NoResources);
        assert_eq!(resource_remedy(&ReconcileError::Runtime(no_process())).as_deref(), Some(NO_PROCESS_REMEDY));
        for errno in [Errno::ENOSPC, Errno::EDQUOT] {
            assert_eq!(spawn_class(&at("/home/x.log", errno)), ExitClass::NoResources);
            assert_eq!(resource_remedy(&ReconcileError::Runtime(at("/home/x.log", errno))).as_deref(), Some(NO_SPACE_REMEDY));
            let written = ReconcileError::Io { path: "/home/config".into(), source: io::Error::from(errno) };
            assert_eq!(resource_remedy(&written).as_deref(), Some(NO_SPACE_REMEDY));
        }
        assert_eq!((spawn_class(&at("/home/x.log", Errno::EROFS)), resource_remedy(&at("/home/x.log", Errno::EROFS))), (ExitClass::Unknown, None));
        assert_eq!((spawn_class(&io(Errno::ENOSPC)), resource_remedy(&io(Errno::ENOSPC))), (ExitClass::Unknown, None));
    }
}
