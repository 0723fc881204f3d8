//! One export from its beginning to its end.

use super::super::{
    Context, Edit, ReconcileError, Story,
    node::{handle_of, job_spec, launch_name},
    placing::{LIMITS_ENFORCED, SERVICE, limits_condition, placed, stored_context},
    sessions::{in_a_row, pause},
};
use super::{
    apply,
    files::Files,
    pause::Pause,
    plan::{self, Seen, State, Step},
};
use crate::{
    clone::{Clone as TreeClone, Cloned, Cost, Keep},
    model::{
        ByteSize, CloneReport, ConditionStatus, Devnet, Export, ExportPhase, FROZEN, Fault, FaultCode, Key, Kind, Launch, LaunchPhase, Node,
        NodeName, NodePhase, Resources,
    },
    plugin::{DevnetContext, ExportRequest, Job, JobOutcome},
    runtime::{Handle, JobResult},
    store::{Selector, StoreError},
    sys::{Alarm, failpoint},
};
use futures::StreamExt;
use nix::sys::signal::Signal;
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// What the chain's program may take when the export does not say: a small state needs a tenth of it.
const MEMORY: ByteSize = ByteSize(4 << 30);
/// A state of many gigabytes takes its time.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// Between two words of progress.
const PACE: Duration = Duration::from_millis(500);

/// Until the export has ended or its devnet goes; again when the store could not be read or written.
pub(super) async fn run(key: Key, cx: Context, still: Arc<tokio::sync::Mutex<()>>) {
    let session = Session { key, cx, still };
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let written = tokio::select! {
            written = session.bring_to_its_end() => written,
            () = session.devnet_goes() => return,
        };
        let Err(error) = written else { return };
        tracing::warn!(key = %session.key, %error, "an export begins anew");
        failures = in_a_row(failures, begun.elapsed());
        tokio::time::sleep(pause(failures)).await;
        failures += 1;
    }
}

struct Session {
    key: Key,
    cx: Context,
    still: Arc<tokio::sync::Mutex<()>>,
}

impl Session {
    /// What else fails than the store is what becomes of the export.
    async fn bring_to_its_end(&self) -> Result<(), StoreError> {
        match self.export().await {
            Ok(()) => Ok(()),
            Err(ReconcileError::Store(error)) => Err(error),
            Err(error) => apply::fail(&self.key, &self.with_mend(error.fault()), &self.cx).await,
        }
    }

    /// What has failed is not tried again by itself, whatever the part that failed says of its own work.
    fn with_mend(&self, fault: Fault) -> Fault {
        match fault.code {
            FaultCode::DiskFull => fault.remedy(format!("free space, then {}", self.again())),
            _ => fault,
        }
    }

    /// The commands that make the export anew.
    fn again(&self) -> String {
        let (devnet, short) = self.key.name.split_once('/').unwrap_or((&self.key.name, ""));
        format!("dvbctl export delete {devnet}/{short}, then dvbctl export create {devnet} {short}")
    }

    async fn export(&self) -> Result<(), ReconcileError> {
        let Some(export) = apply::read(&self.key, &self.cx).await? else { return Ok(()) };
        let files = Files::of(&export, &self.cx.home);
        if let (ExportPhase::Cloning, Some(node)) = (export.status.phase, &export.status.node) {
            go_on(&self.key.namespace, &export.spec.devnet_ref, node, &self.cx).await?;
        }
        let result = self.attempt(&export, &files).await;
        let rest = files.clear();
        result?;
        Ok(rest?)
    }

    async fn attempt(&self, export: &Export, files: &Files) -> Result<(), ReconcileError> {
        self.tell_of_limits(export).await?;
        let (node, pause) = self.choose(export).await?;
        files.begin()?;
        let (devnet, context) = self.context(export).await?;
        let plugin = self.cx.plugins.get(&devnet.spec.plugin).await?;
        let mut request = ExportRequest {
            devnet: context,
            node: placed(&node),
            home_dir: files.clone_dir(),
            height: export.spec.height,
            for_zero_height: export.spec.for_zero_height,
            output: files.partial(),
            outcomes: Vec::new(),
        };
        let plan = plugin.export(&request).await?;
        self.clone(&node, pause, plan.skip, files).await?;
        self.exporting(files).await?;
        for job in &plan.jobs {
            request.outcomes.push(self.run_job(job, export, files).await?);
        }
        let done = plugin.export(&request).await?;
        if !done.jobs.is_empty() {
            return Err(ReconcileError::Unfit(format!("plugin {} asked for more jobs than one export takes", devnet.spec.plugin)));
        }
        let same = Files { root: files.root.clone() };
        // All but the result goes first: this task ends with the commit that says Completed.
        let finish = move || same.finish().and_then(|finished| Ok(same.clear().map(|()| finished)?));
        let finished = tokio::task::spawn_blocking(finish).await.map_err(broken_off)??;
        failpoint("export/written");
        Ok(apply::complete(&self.key, files, finished, done.height, &self.cx).await?)
    }

    /// Waits until there is a node to read.
    async fn choose(&self, export: &Export) -> Result<(Arc<Node>, bool), ReconcileError> {
        let (cx, devnet) = (&self.cx, &export.spec.devnet_ref);
        loop {
            let selector = Selector::in_devnet(Kind::Node, &self.key.namespace, devnet);
            let (objects, from) = cx.store.list(&selector).await?;
            let nodes: Vec<Arc<Node>> = objects.into_iter().filter_map(|object| object.try_into().ok()).collect();
            let seen: Vec<Seen<'_>> = nodes.iter().filter(|node| node.spec.role != SERVICE).map(|node| self.see(node)).collect();
            let mut heights = cx.observations.subscribe();
            match plan::plan(export.spec.node.as_deref(), export.spec.height, &seen) {
                Step::Refuse(why) => return Err(ReconcileError::Fault(Fault::new(FaultCode::OutOfRange, why).about(&self.key.name))),
                Step::Wait(why) => {
                    apply::say(&self.key, &format!("waits: {why}"), cx).await?;
                    let mut changes = cx.store.watch(selector, from);
                    tokio::select! {
                        change = changes.next() => drop(change), // also when the feed ends: then everything is looked at again
                        _ = heights.recv() => {}
                    }
                }
                Step::Read { node, pause } => {
                    let name = NodeName::new(devnet, &node).to_string();
                    let node = nodes.into_iter().find(|node| node.metadata.name == name);
                    return Ok((node.ok_or_else(|| ReconcileError::Unfit(format!("{name} is gone")))?, pause));
                }
            }
        }
    }

    fn see<'a>(&self, node: &'a Node) -> Seen<'a> {
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        let state = match node.status.phase {
            NodePhase::Stopped | NodePhase::Failed if node.status.pid.is_none() && (!node.is_wanted() || node.status.phase == NodePhase::Failed) => {
                State::Down
            }
            // The end of a pause would let its processes go on.
            _ if node.is_to_be_frozen() || node.status.conditions.get(FROZEN).is_some() => State::Unsettled,
            _ if node.status.conditions.is_true("Ready") && node.status.pid.is_some() => State::Ready,
            _ => State::Unsettled,
        };
        let height = self.cx.observations.get(&key).and_then(|seen| seen.height);
        let name = node.metadata.name.split_once('/').map_or("", |(_, short)| short);
        Seen { name, validator: node.spec.role == "validator", state, height }
    }

    async fn context(&self, export: &Export) -> Result<(Arc<Devnet>, DevnetContext), ReconcileError> {
        let (namespace, name) = (&self.key.namespace, &export.spec.devnet_ref);
        let gone = || ReconcileError::Unfit(format!("devnet {name} is not provisioned"));
        let devnet = self.cx.accepted_devnet(namespace, name).await?.ok_or_else(gone)?;
        let plan = self.cx.plan(namespace, name).await?.ok_or_else(gone)?;
        let nodes = self.cx.nodes(namespace, name).await?;
        let context = stored_context(&devnet, &plan.spec, &nodes);
        Ok((devnet, context))
    }

    async fn clone(&self, node: &Arc<Node>, pause: bool, skip: Vec<PathBuf>, files: &Files) -> Result<(), ReconcileError> {
        let short = node.node_name().short;
        let _alone = self.still.lock().await;
        let handle = if pause { self.running(node).await? } else { None };
        apply::edit(&self.key, &self.cx, |export| {
            export.status.phase = ExportPhase::Cloning;
            export.status.node = Some(short.clone());
            export.status.message = Some(format!("cloning the data of {short}"));
            let what = if pause { "is held still while its data is cloned" } else { "is down: its data is cloned as it lies" };
            Edit::Tell(Story::new("export", "Cloning", format!("{short} {what}")).action("clone"))
        })
        .await?;
        let (given_up, paused) = (GiveUp::default(), handle.clone());
        let (stop, runtime) = (given_up.0.clone(), self.cx.runtime.clone());
        let (from, to) = (PathBuf::from(&node.spec.home_dir), files.clone_dir());
        let work = move || -> Result<(Cost, Cloned, Duration), ReconcileError> {
            let skip = |path: &std::path::Path| skip.iter().any(|skipped| path == skipped);
            let clone = TreeClone { from: &from, to: &to, keep: Keep::Scratch, skip: &skip };
            let cost = clone.cost()?;
            let pause = handle.map(|handle| Pause::begin(runtime, handle)).transpose()?;
            failpoint("export/still");
            let done = clone.make(&mut |_| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
            Ok((cost, done?, pause.map_or(Duration::ZERO, |pause| pause.lasted())))
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(broken_off)?;
        if let Some(handle) = paused {
            self.keep_frozen(node, &handle).await?;
        }
        let (cost, cloned, lasted) = done?;
        let paused_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(key = %self.key, node = %short, way = %cost.way, bytes = cloned.bytes, paused_ms, "cloned a node's data for an export");
        let report = CloneReport { way: cost.way.to_string(), bytes: cloned.bytes, paused_ms };
        Ok(apply::edit(&self.key, &self.cx, |export| {
            export.status.clone = Some(report.clone());
            Edit::Quiet
        })
        .await?)
    }

    /// A freeze that was asked for while the node stood still: without a freezer it is by SIGSTOP too, and our SIGCONT has undone it.
    async fn keep_frozen(&self, node: &Node, handle: &Handle) -> Result<(), ReconcileError> {
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        if self.cx.node(&key).await?.is_some_and(|node| node.is_to_be_frozen()) {
            self.cx.runtime.freeze(handle).await?;
        }
        Ok(())
    }

    /// The node's process; none when it has just ended.
    async fn running(&self, node: &Node) -> Result<Option<Handle>, ReconcileError> {
        running(node, &self.cx).await
    }

    /// Where the daemon can set no limits, the chain's program may take all the memory that there is: that is said once.
    async fn tell_of_limits(&self, export: &Export) -> Result<(), ReconcileError> {
        let limits = Resources { memory_bytes: Some(memory(export).0), ..Resources::default() };
        let unheld = limits_condition(Some(&limits), self.cx.runtime.capabilities()).filter(|condition| condition.status != ConditionStatus::True);
        let now = self.cx.clock.now();
        Ok(apply::edit(&self.key, &self.cx, |export| match &unheld {
            None if export.status.conditions.remove(LIMITS_ENFORCED) => Edit::Quiet,
            Some(condition) if export.status.conditions.set(condition.clone(), now) => {
                let message = format!("its memory is not limited: {}", condition.message);
                Edit::Tell(Story::new("export", "LimitsNotEnforced", message).warn().observed(format!("{LIMITS_ENFORCED}=False")))
            }
            _ => Edit::Skip,
        })
        .await?)
    }

    async fn exporting(&self, files: &Files) -> Result<(), ReconcileError> {
        let to = files.state();
        Ok(apply::edit(&self.key, &self.cx, |export| {
            export.status.phase = ExportPhase::Exporting;
            export.status.message = Some(format!("the chain's program writes {}", to.display()));
            Edit::Tell(Story::new("export", "Exporting", "the chain's own program reads the clone").action("export"))
        })
        .await?)
    }

    /// Runs one job within its memory; the size of what it has written goes into the status meanwhile.
    async fn run_job(&self, job: &Job, export: &Export, files: &Files) -> Result<JobOutcome, ReconcileError> {
        let memory = memory(export);
        let path = [self.key.namespace.as_str(), &export.spec.devnet_ref, "jobs"];
        let mut spec = job_spec(job, &path, &files.work());
        spec.limits = Resources { memory_bytes: Some(memory.0), ..Resources::default() };
        spec.timeout = spec.timeout.max(LONGEST);
        let run = self.cx.runtime.run(&spec);
        tokio::pin!(run);
        let result = tokio::select! {
            result = &mut run => result?,
            never = self.follow(files) => match never? {},
        };
        self.judge(job, &result, memory, files)?;
        Ok(JobOutcome { name: result.name, exit: result.exit, stdout: result.stdout, stderr: result.stderr })
    }

    fn judge(&self, job: &Job, result: &JobResult, memory: ByteSize, files: &Files) -> Result<(), ReconcileError> {
        let about = |code, message: String| Fault::new(code, message).about(&self.key.name);
        let last = crate::logs::LastWords::read(&result.stderr, 40);
        if result.exit.oom_killed {
            let message = format!("the chain's program needed more memory than {memory}");
            let remedy = format!("{} --memory {}", self.again(), ByteSize(memory.0.saturating_mul(2)));
            return Err(ReconcileError::Fault(about(FaultCode::JobFailed, message).remedy(remedy)));
        }
        if result.exit.code != Some(0) && (last.tail().iter().any(|line| tells_of_a_full_disk(line)) || files.is_disk_full()) {
            let message = format!("the disk of {} is full", files.root.display());
            return Err(ReconcileError::Fault(about(FaultCode::DiskFull, message)));
        }
        if result.exit.code.is_some_and(|code| code == 0 || job.ok_codes.contains(&code)) {
            return Ok(());
        }
        let how = result.exit.code.map_or_else(|| "was killed".into(), |code| format!("exit code {code}"));
        let words = last.error().unwrap_or_default();
        let fault = ReconcileError::Job { name: job.name.clone(), reason: format!("{how}: {words}") }.fault();
        Err(ReconcileError::Fault(fault.about(&self.key.name).remedy(format!("mend what it says, then {}", self.again()))))
    }

    /// Tells how large the file has become, as long as somebody writes it. Never ends by itself.
    async fn follow(&self, files: &Files) -> Result<std::convert::Infallible, ReconcileError> {
        let io = |source| ReconcileError::Io { path: files.work(), source };
        let mut alarm = Alarm::new().map_err(io)?;
        let mut told = 0;
        loop {
            alarm.set(&files.work().into()).map_err(io)?;
            let bytes = std::fs::metadata(files.partial()).map_or(0, |about| about.len());
            if bytes != told {
                told = bytes;
                let note = |export: &mut Export| {
                    export.status.bytes = bytes;
                    Edit::Quiet
                };
                apply::edit(&self.key, &self.cx, note).await?;
            }
            alarm.rung().await.map_err(io)?;
            tokio::time::sleep(PACE).await; // a program writes thousands of times a second
        }
    }

    /// Resolves when the devnet is being deleted: its folder goes, and with it all of ours.
    async fn devnet_goes(&self) {
        let name = self.key.name.split('/').next().unwrap_or_default();
        let selector = Selector { namespace: Some(self.key.namespace.clone()), name: Some(name.to_owned()), ..Selector::kind(Kind::Devnet) };
        let Ok((objects, from)) = self.cx.store.list(&selector).await else { return std::future::pending().await };
        if objects.iter().all(|object| object.meta().deleted_at.is_some()) {
            return;
        }
        let mut changes = self.cx.store.watch(selector, from);
        while let Some(Ok(change)) = changes.next().await {
            if change.deleted || change.object.meta().deleted_at.is_some() {
                return;
            }
        }
        std::future::pending().await
    }
}

/// What the chain's program may take.
fn memory(export: &Export) -> ByteSize {
    export.spec.memory.unwrap_or(MEMORY)
}

fn tells_of_a_full_disk(line: &str) -> bool {
    let line = line.to_lowercase();
    line.contains("no space left on device") || line.contains("disk quota exceeded")
}

/// Lets a node go on that a daemon before us may have held still. Harmless when nobody did. The thaw of a frozen one does it as well.
pub(super) async fn go_on(namespace: &str, devnet: &str, short: &str, cx: &Context) -> Result<(), ReconcileError> {
    let key = Key::node(namespace, &NodeName::new(devnet, short).to_string());
    let Some(node) = cx.node(&key).await?.filter(|node| !node.is_to_be_frozen()) else { return Ok(()) };
    if let Some(handle) = running(&node, cx).await? {
        cx.runtime.signal(&handle, Signal::SIGCONT).await?;
    }
    Ok(())
}

async fn running(node: &Node, cx: &Context) -> Result<Option<Handle>, ReconcileError> {
    let Some(id) = &node.status.launch_id else { return Ok(None) };
    let key = Key::new(Kind::Launch, &node.metadata.namespace, &launch_name(&node.metadata.name, id));
    let launch = cx.store.get(&key).await?.and_then(|object| Arc::<Launch>::try_from(object).ok());
    Ok(launch.filter(|launch| launch.status.phase == LaunchPhase::Running).and_then(|launch| handle_of(&launch)))
}

/// Ends a clone when nobody waits for it any more.
#[derive(Default)]
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn broken_off(error: tokio::task::JoinError) -> ReconcileError {
    ReconcileError::Unfit(format!("the work broke off: {error}"))
}
