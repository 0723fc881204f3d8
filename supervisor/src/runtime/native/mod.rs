//! Native processes under the runtime trait: forked by us, held by pidfd, kept together by cgroup or else by session, launch id and log.
//!
//! ```text
//!            start                       pidfd                  destroy
//! (nothing) ───────► Running ──────────────────────► Exited ──────────────► (nothing)
//!                      ▲   stop: signal, grace, kill    │ remembered, with
//!            adopt     │                                │ its cgroup
//! Handle ──────────────┴──► Gone: destroy and stop still end what the launch left behind
//! ```
//!
//! A handle whose state is null stands for "whatever carries this launch id": `stop` and `destroy` take it, to end strays that
//! `owned` names.
//!
//! The keeper, where there is one, holds the pidfd of each launch too: then also the exit of one that died while no daemon ran can be told.

mod adopt;
mod census;
mod freeze;
mod job;
mod kept;
mod kin;
mod marks;
mod orphans;
mod running;
mod spawn;
mod stop;
mod usage;

pub use census::{Census, Trace};

use super::{Adopted, Capabilities, Grants, Handle, JobResult, JobSpec, LaunchSpec, Runtime, RuntimeError, StopPolicy};
use crate::{
    cgroup::{CgroupError, Cgroups, DriverChoice, Leaf, ScopeHolder},
    config,
    keeper::Keeper,
    model::{Exit, LaunchId, Resources, Usage},
    reaper::Identity,
    sys::{Clock, Kernel, boot_id},
};
use async_trait::async_trait;
use dvb_proto::endpoint::home_hash;
use futures::future::BoxFuture;
use kept::Kept;
use kin::Find;
use marks::Marks;
use nix::sys::signal::Signal;
use running::Running;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    num::NonZero,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::Semaphore;

/// Starts processes of one home. Clones share everything. Needs a tokio runtime.
#[derive(Clone)]
pub struct NativeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    cgroups: Cgroups,
    marks: Arc<Marks>,
    boot_id: String,
    /// PATH, HOME, LANG and TZ as the daemon has them.
    base_env: BTreeMap<String, String>,
    launches: Mutex<HashMap<LaunchId, Arc<Running>>>,
    /// Orphans come to us.
    subreaper: bool,
    kept: Kept,
    kernel: Kernel,
    /// Ids of jobs under way, from before they are forked: no strays.
    jobs: Mutex<HashSet<LaunchId>>,
    /// Launches that are being forked. More at once than there are processors would only hold threads, and their memory.
    forks: Arc<Semaphore>,
}

/// What a handle remembers, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NativeState {
    identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<PathBuf>,
    /// Device and inode of what its stdout was at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<(u64, u64)>,
}

const HANDLE_VERSION: u32 = 1;
const INHERITED_ENV: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// What a native runtime works with besides its home. The default keeps nothing over a crash.
#[derive(Default)]
pub struct Machine {
    pub driver: DriverChoice,
    pub kernel: Kernel,
    /// It also holds open the scope of the cgroup driver `systemd`.
    pub keeper: Option<Keeper>,
    /// The whole process may become the subreaper of its descendants; it does where there are no cgroups.
    pub subreaper: bool,
    /// Launches whose end is not on record: of others the keeper need not hold anything.
    pub open: HashSet<LaunchId>,
}

impl NativeRuntime {
    /// Fails when the driver that `machine` asks for cannot work here.
    pub fn new(home: &config::Home, clock: Arc<dyn Clock>, machine: Machine) -> Result<Self, RuntimeError> {
        let Machine { driver, kernel, keeper, subreaper, open } = machine;
        let home_id = home_hash(home.root());
        let holder = keeper.clone().map(|keeper| -> ScopeHolder { Arc::new(move || keeper.pid().map_err(io::Error::other)) });
        let driver = if kernel.cgroups { driver } else { DriverChoice::None };
        let cgroups = Cgroups::detect(driver, &home_id, holder)?;
        let cgroups = if kernel.cgroup_kill { cgroups } else { cgroups.without_kill_file() };
        clear_away(&cgroups, &open);
        let kept = keeper.map(|keeper| Kept::with(keeper, |id| open.contains(id))).unwrap_or_default();
        let boot_id = boot_id().map_err(|source| RuntimeError::Io { path: "/proc/sys/kernel/random/boot_id".into(), source })?;
        let base_env = INHERITED_ENV.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
        let (launches, jobs) = Default::default();
        let subreaper = subreaper && cgroups.driver() == "none";
        let forks = Arc::new(Semaphore::new(thread::available_parallelism().map_or(2, NonZero::get).max(2)));
        let marks = Arc::new(Marks { home: home.root().to_owned(), home_id });
        let inner = Arc::new(Inner { clock, cgroups, marks, boot_id, base_env, launches, subreaper, kept, kernel, jobs, forks });
        if subreaper && let Err(error) = orphans::take_in(&inner) {
            tracing::warn!(%error, "a daemonised grandchild may outlive its node");
        }
        Ok(Self { inner })
    }

    /// For a daemon that starts, before it runs any job itself.
    pub async fn end_abandoned_jobs(&self) -> Result<(), RuntimeError> {
        self.inner.end_abandoned_jobs().await
    }
}

/// Cgroups of launches whose end is on record, and of starts that an earlier daemon had made ready and never put on record.
fn clear_away(cgroups: &Cgroups, open: &HashSet<LaunchId>) {
    for (id, leaf) in cgroups.leaves() {
        if !open.contains(&LaunchId(id)) && !leaf.populated().unwrap_or(true) {
            let _ = leaf.remove(); // it harms nobody
        }
    }
}

#[cfg(test)]
impl NativeRuntime {
    /// How many more launches may be forked at once now.
    pub(super) fn turns_left(&self) -> usize {
        self.inner.forks.available_permits()
    }

    /// The cgroups of this home, for tests to see that none is left.
    pub(super) fn inner_leaves(&self) -> Vec<Leaf> {
        self.inner.cgroups.leaves().into_iter().map(|(_, leaf)| leaf).collect()
    }
}

impl Inner {
    fn launches(&self) -> MutexGuard<'_, HashMap<LaunchId, Arc<Running>>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashSet<LaunchId>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, id: &LaunchId) -> Option<Arc<Running>> {
        self.launches().get(id).cloned()
    }

    /// None when the handle names its launch by id only.
    fn state(&self, handle: &Handle) -> Result<Option<NativeState>, RuntimeError> {
        let foreign = || RuntimeError::ForeignHandle(handle.id.clone());
        if handle.state.is_null() {
            return Ok(None);
        }
        if handle.version != HANDLE_VERSION {
            return Err(foreign());
        }
        let state: NativeState = handle.state.read().map_err(|_| foreign())?;
        if state.identity.launch_id == handle.id.0 { Ok(Some(state)) } else { Err(foreign()) }
    }

    /// The launch as we know it, or as we find it by its handle; None when its main process is gone without a trace.
    async fn find(self: &Arc<Self>, handle: &Handle) -> Result<Option<Arc<Running>>, RuntimeError> {
        match self.known(&handle.id) {
            Some(running) => Ok(Some(running)),
            None => self.adopt(handle).await,
        }
    }

    /// Cgroups of a launch that we do not hold: by its handle, and by the id in their names.
    fn leaves_of(&self, handle: &Handle) -> Result<Vec<Leaf>, RuntimeError> {
        let by_handle = self.state(handle)?.and_then(|state| self.cgroups.open(&state.cgroup?));
        match by_handle {
            Some(leaf) => Ok(vec![leaf]),
            None => Ok(self.cgroups.leaves().into_iter().filter(|(id, _)| *id == handle.id.0).map(|(_, leaf)| leaf).collect()),
        }
    }
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn capabilities(&self) -> Capabilities {
        let support = self.inner.cgroups.support();
        Capabilities {
            cgroup_driver: self.inner.cgroups.driver().into(),
            cgroup_message: support.message.clone(),
            cgroup_remedy: support.remedy.clone(),
            limits: support.limits,
            freeze: support.freeze,
            kills_descendants: self.inner.cgroups.driver() != "none",
        }
    }

    async fn start_when(&self, go: BoxFuture<'static, bool>, spec: LaunchSpec, grants: Grants) -> Result<Handle, RuntimeError> {
        self.inner.start_when(go, spec, grants).await
    }

    async fn adopt(&self, handle: &Handle) -> Result<Adopted, RuntimeError> {
        let Some(running) = self.inner.find(handle).await? else {
            return Ok(self.inner.traces(handle)?.map_or(Adopted::Gone, Adopted::Exited));
        };
        Ok(running.exit().map_or(Adopted::Running, Adopted::Exited))
    }

    async fn find(&self, id: &LaunchId) -> Result<Option<Handle>, RuntimeError> {
        self.inner.find_unrecorded(id).await
    }

    fn late_exit(&self, handle: &Handle) -> Option<BoxFuture<'static, Exit>> {
        self.inner.known(&handle.id)?.late_exit()
    }

    async fn wait(&self, handle: &Handle) -> Result<Exit, RuntimeError> {
        // What looks for it is gone when it is waited for, as it is for each launch.
        match Box::pin(self.inner.find(handle)).await? {
            Some(running) => Ok(running.exited().await),
            None => Ok(self.inner.traces(handle)?.unwrap_or(Exit { at: self.inner.clock.now(), ..Exit::default() })),
        }
    }

    async fn stop(&self, handle: &Handle, policy: StopPolicy) -> Result<Exit, RuntimeError> {
        self.inner.stop(handle, policy).await
    }

    async fn signal(&self, handle: &Handle, signal: Signal) -> Result<(), RuntimeError> {
        let Some(running) = self.inner.find(handle).await? else { return Ok(()) };
        running.signal(signal)
    }

    async fn freeze(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.inner.freeze(handle).await
    }

    async fn thaw(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.inner.thaw(handle).await
    }

    async fn is_frozen(&self, handle: &Handle) -> Result<bool, RuntimeError> {
        Ok(self.inner.find(handle).await?.is_some_and(|running| running.is_frozen()))
    }

    async fn limit_group(&self, path: &[String], limits: &Resources) -> Result<(), RuntimeError> {
        Ok(self.inner.cgroups.limit_group(path, limits)?)
    }

    async fn clear(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.inner.clear(handle).await.map(drop)
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.inner.destroy(handle).await
    }

    async fn usage(&self, handle: &Handle) -> Result<Usage, RuntimeError> {
        match self.inner.find(handle).await? {
            Some(running) => Ok(running.usage(self.inner.clock.now())),
            None => Ok(Usage::default()),
        }
    }

    async fn processes(&self, handle: &Handle) -> Result<Option<Vec<u32>>, RuntimeError> {
        let Some(running) = self.inner.find(handle).await? else { return Ok(Some(Vec::new())) };
        blocking(move || Ok(Some(running.members(Find::Hold).iter().map(|kin| kin.pid).collect()))).await
    }

    async fn run(&self, job: &JobSpec) -> Result<JobResult, RuntimeError> {
        self.inner.run(job).await
    }

    async fn owned(&self) -> Result<Vec<LaunchId>, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || Ok(inner.owned())).await
    }
}

impl From<CgroupError> for RuntimeError {
    fn from(error: CgroupError) -> Self {
        match error {
            CgroupError::Io { path, source } => Self::Io { path, source },
            CgroupError::Unusable { .. } => Self::Unsupported(error.to_string()),
            // The user manager may be busy or starting: another try is worth it.
            CgroupError::Scope { ref scope, .. } | CgroupError::Holder { ref scope, .. } => {
                Self::Io { path: scope.into(), source: std::io::Error::other(error.to_string()) }
            }
        }
    }
}

/// Work that reads or writes files: off the async threads. It runs to its end also when the caller goes away.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(RuntimeError::Unsupported(format!("the daemon is shutting down: {error}"))),
        },
    }
}
