//! The runtime: starts, watches and ends processes. It has no word of chains; native processes today, containers behind the same trait.

#[cfg(test)]
mod contract;
pub mod fake;
mod native;

pub use fault::{NO_DESCRIPTOR_REMEDY, NO_PROCESS_REMEDY, NO_SPACE_REMEDY};
pub use native::{Census, Machine, NativeRuntime, Trace};

mod fault;

use crate::model::{Exit, LaunchId, RawJson, Resources, Timestamp, Usage};
use async_trait::async_trait;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("cannot start {program}: devnetd may make no further process ({source})")]
    NoProcess { program: String, source: std::io::Error },
    #[error("{program} does not exist")]
    NoProgram { program: String },
    #[error("{program} is not executable")]
    NotExecutable { program: String },
    #[error("{program} is for another architecture")]
    WrongArchitecture { program: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the handle of launch {0} is not one of this runtime's")]
    ForeignHandle(LaunchId),
    #[error("launch {id} still has processes {pids:?} after the kill")]
    NotGone { id: LaunchId, pids: Vec<u32> },
    #[error("launch {id} does not stand still: processes {pids:?} go on")]
    NotFrozen { id: LaunchId, pids: Vec<u32> },
    #[error("job {name} ran longer than {after:?} and was killed")]
    JobTimedOut { name: String, after: Duration },
    #[error("the start of launch {0} was called off before its fork")]
    CalledOff(LaunchId),
    #[error("{0}")]
    Unsupported(String),
}

/// What to start. `argv[0]` is an absolute path; nothing goes through a shell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub id: LaunchId,
    /// Where it belongs, outermost first: namespace, devnet, node. Names cgroups.
    pub path: Vec<String>,
    pub argv: Vec<String>,
    /// The whole environment besides the runtime's own (PATH, HOME, LANG, TZ, DVB_LAUNCH_ID, DVB_HOME_ID).
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// stdout and stderr are appended to it by the process itself.
    pub log: PathBuf,
    pub limits: Resources,
    /// What all launches below the same parent of `path` may have together.
    pub group_limits: Resources,
}

/// What the process gets of ours.
#[derive(Debug, Default)]
pub struct Grants {
    /// Descriptors that it inherits besides 0, 1 and 2: `{fd:NAME}` in argv and env becomes /dev/fd/N.
    pub fds: Vec<(String, OwnedFd)>,
    /// What is let go of for it.
    pub let_go: Option<LetGo>,
}

/// Called when nothing is left to wait for but the fork itself; may block. Not called when nothing is to be forked.
pub struct LetGo(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for LetGo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LetGo")
    }
}

/// One launch as its runtime knows it; opaque to everyone else, stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handle {
    pub id: LaunchId,
    pub version: u32,
    pub pid: Option<u32>,
    pub started_at: Timestamp,
    pub state: RawJson,
}

impl Handle {
    /// Names a launch whose fork was never recorded. Good for `destroy` only: it is found by the id that its processes carry.
    pub fn unrecorded(id: LaunchId) -> Self {
        Self { id, version: 0, pid: None, started_at: Timestamp::default(), state: RawJson::null() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Adopted {
    Running,
    Exited(Exit),
    /// No trace of it, and no exit status either.
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub struct StopPolicy {
    pub signal: Signal,
    /// Between the stop signal and the kill.
    pub grace: Duration,
}

/// What this runtime can do on this machine; the messages go into conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// systemd | cgroupfs | none
    pub cgroup_driver: String,
    /// Why that driver, and what would mend what is missing.
    pub cgroup_message: String,
    pub cgroup_remedy: Option<String>,
    pub limits: bool,
    pub freeze: bool,
    /// A double-forked grandchild is killed too.
    pub kills_descendants: bool,
}

/// A command that runs to its end.
#[derive(Clone, Debug, Default)]
pub struct JobSpec {
    pub name: String,
    pub path: Vec<String>,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// Its output goes to `<out_dir>/<name>.out` and `.err`.
    pub out_dir: PathBuf,
    pub timeout: Duration,
    pub limits: Resources,
}

#[derive(Clone, Debug, Default)]
pub struct JobResult {
    pub name: String,
    pub exit: Exit,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// Native (and later Docker) pass `runtime::contract`. `fake` is for tests of what stands above.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    fn capabilities(&self) -> Capabilities;
    /// Makes ready, forks when `go` says true, and returns as soon as the program was executed; an exec that failed is an error here, not
    /// an exit. When it says false nothing is forked: `CalledOff`. `go` is brought to its end in any case.
    async fn start_when(&self, go: BoxFuture<'static, bool>, spec: LaunchSpec, grants: Grants) -> Result<Handle, RuntimeError>;
    /// As `start_when`, at once.
    async fn start(&self, spec: LaunchSpec, grants: Grants) -> Result<Handle, RuntimeError> {
        self.start_when(Box::pin(std::future::ready(true)), spec, grants).await
    }
    /// What became of a launch. Idempotent, and answers `Exited` again and again until `destroy`.
    async fn adopt(&self, handle: &Handle) -> Result<Adopted, RuntimeError>;
    /// The handle of a launch whose fork was never recorded, by the id that its processes carry. None: it was not forked, or left no trace.
    async fn find(&self, id: &LaunchId) -> Result<Option<Handle>, RuntimeError>;
    /// For an exit that has come without its status: the whole exit, when its status comes or is given up. None: nothing more will be
    /// known. Ask before `destroy`; the answer holds after it.
    fn late_exit(&self, handle: &Handle) -> Option<BoxFuture<'static, Exit>>;
    /// Resolves when the main process has ended. Any number of waiters.
    async fn wait(&self, handle: &Handle) -> Result<Exit, RuntimeError>;
    /// Signal, grace, kill; returns when no process of the launch is left. Harmless when it is gone already.
    async fn stop(&self, handle: &Handle, policy: StopPolicy) -> Result<Exit, RuntimeError>;
    /// To the main process.
    async fn signal(&self, handle: &Handle, signal: Signal) -> Result<(), RuntimeError>;
    /// Returns when every process of the launch stands still. `stop` and `destroy` end a frozen launch as any other.
    async fn freeze(&self, handle: &Handle) -> Result<(), RuntimeError>;
    /// Lets it go on. Harmless when it does, or is gone.
    async fn thaw(&self, handle: &Handle) -> Result<(), RuntimeError>;
    /// As it is now, whoever froze it; false when it is gone.
    async fn is_frozen(&self, handle: &Handle) -> Result<bool, RuntimeError>;
    /// Holds what runs below `path` to these limits from now on, as the next start will.
    async fn limit_group(&self, path: &[String], limits: &Resources) -> Result<(), RuntimeError>;
    /// Kills what is left of a launch; how it ended can still be asked for, also by the next daemon.
    async fn clear(&self, handle: &Handle) -> Result<(), RuntimeError>;
    /// As `clear`, and forgets it: cgroup, pidfd, remembered exit.
    async fn destroy(&self, handle: &Handle) -> Result<(), RuntimeError>;
    async fn usage(&self, handle: &Handle) -> Result<Usage, RuntimeError>;
    /// Pids of its live processes. None: they cannot be told from here, as those of a container. May read all of /proc.
    async fn processes(&self, handle: &Handle) -> Result<Option<Vec<u32>>, RuntimeError>;
    /// Kills it when it outlives its timeout or when the future is dropped.
    async fn run(&self, job: &JobSpec) -> Result<JobResult, RuntimeError>;
    /// Launches with live processes that belong to this home, known or not: to find strays.
    async fn owned(&self) -> Result<Vec<LaunchId>, RuntimeError>;
}
