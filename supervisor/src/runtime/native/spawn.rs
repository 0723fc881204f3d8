//! From a launch spec to a process in its cgroup: files, environment, descriptors, and what an exec that failed means.

use super::{
    HANDLE_VERSION, Inner, NativeState, blocking,
    running::{Running, Seen},
};
use crate::{
    cgroup::Leaf,
    model::{LaunchId, RawJson, Resources, Timestamp},
    reaper::{HOME_ID_VAR, Identity, LAUNCH_ID_VAR, Process},
    runtime::{Grants, Handle, LaunchSpec, LetGo, RuntimeError},
    sys::{Spawn, SpawnFailure, SpawnStep, Spawned, executable, failpoint, process_stat, spawn},
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What launches and jobs have in common.
pub(super) struct Order<'a> {
    pub(super) id: LaunchId,
    pub(super) path: &'a [String],
    pub(super) argv: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: &'a Path,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) limits: Resources,
    pub(super) group_limits: Resources,
}

/// A binary that another thread's fork still holds open for writing: that window closes by itself, and no event tells of it.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Descriptors below are stdin, stdout and stderr.
const FIRST_FREE_FD: i32 = 3;

impl Inner {
    pub(super) async fn start_when(
        self: &Arc<Self>,
        go: BoxFuture<'static, bool>,
        spec: LaunchSpec,
        mut grants: Grants,
    ) -> Result<Handle, RuntimeError> {
        let inner = Arc::clone(self);
        let (turn, go) = match Arc::clone(&self.forks).try_acquire_owned() {
            Ok(turn) => (Ok(turn), go),
            // While others fork, it comes first: nobody waits for it with a turn in hand.
            Err(_) => {
                let go = std::future::ready(go.await).boxed();
                (Arc::clone(&self.forks).acquire_owned().await, go)
            }
        };
        let tokio = tokio::runtime::Handle::current();
        // Off the async threads and to its end: a process that was forked is also registered, whoever stops waiting for us.
        blocking(move || {
            let _turn = turn;
            let mut word = Some(go);
            let mut go = || word.take().is_none_or(|word| tokio.block_on(word));
            let mut let_go = grants.let_go.take();
            let goes = || {
                go() && {
                    let_go.take().into_iter().for_each(|LetGo(let_go)| let_go());
                    true
                }
            };
            let handle = inner.start_on(goes, &spec, grants);
            let called_off = !go(); // a failure on the way does not keep it from its end
            handle.inspect_err(|error| {
                if called_off || matches!(error, RuntimeError::CalledOff(_)) {
                    let _ = fs::remove_file(&spec.log); // it tells of nothing
                }
            })
        })
        .await
    }

    fn start_on(self: &Arc<Self>, go: impl FnOnce() -> bool, spec: &LaunchSpec, grants: Grants) -> Result<Handle, RuntimeError> {
        if self.known(&spec.id).is_some() {
            return Err(RuntimeError::Unsupported(format!("launch {} was started already", spec.id)));
        }
        let log = open_output(&spec.log, Output::Append)?;
        let stderr = log.try_clone().map_err(|source| RuntimeError::Io { path: spec.log.clone(), source })?;
        let order = Order {
            id: spec.id.clone(),
            path: &spec.path,
            argv: &spec.argv,
            env: &spec.env,
            cwd: &spec.cwd,
            stdout: log,
            stderr,
            limits: spec.limits,
            group_limits: spec.group_limits,
        };
        let running = self.launch_when(go, order, grants)?;
        self.kept.put(&running.id, running.pidfd());
        failpoint("launch/kept");
        self.handle_of(&running)
    }

    /// Forks, executes, registers and watches. Blocks for about a millisecond.
    pub(super) fn launch(&self, order: Order<'_>, grants: Grants) -> Result<Arc<Running>, RuntimeError> {
        self.launch_when(|| true, order, grants)
    }

    /// As `launch`; `go` is asked when all is ready for the fork.
    fn launch_when(&self, go: impl FnOnce() -> bool, order: Order<'_>, grants: Grants) -> Result<Arc<Running>, RuntimeError> {
        let program = order.argv.first().cloned().unwrap_or_default();
        if !program.starts_with('/') {
            return Err(RuntimeError::Unsupported(format!("`{program}` is not an absolute path; nothing else is started")));
        }
        let leaf = self.cgroups.create(order.path, &order.id.0)?;
        failpoint("launch/cgroup");
        let spawned = self.spawn_into(go, &order, &grants, leaf.as_ref());
        failpoint("launch/forked");
        let registered = spawned.and_then(|(spawned, started_at)| self.register(&order, spawned, leaf.clone(), started_at));
        if let (Err(_), Some(leaf)) = (&registered, &leaf) {
            let _ = leaf.remove();
        }
        registered
    }

    fn spawn_into(
        &self,
        go: impl FnOnce() -> bool,
        order: &Order<'_>,
        grants: &Grants,
        leaf: Option<&Leaf>,
    ) -> Result<(Spawned, Timestamp), RuntimeError> {
        let program = &order.argv[0];
        if let Some(leaf) = leaf.filter(|_| self.cgroups.support().limits) {
            leaf.limit(&order.limits, &order.group_limits)?;
            if order.group_limits != Resources::default() {
                self.cgroups.limit_group(order.path.split_last().map_or(&[], |(_, above)| above), &order.group_limits)?;
            }
        }
        let invalid = |source| RuntimeError::Spawn { program: program.clone(), source };
        let kept = grants.fds.iter().map(|(name, fd)| Ok((name.as_str(), above_stdio(fd)?))).collect::<io::Result<Vec<_>>>().map_err(invalid)?;
        let argv = order.argv.iter().map(|arg| c_text(fill_in(arg, &kept)?.into_owned(), program)).collect::<Result<Vec<_>, _>>()?;
        let variable = |(name, value)| c_text(format!("{name}={}", fill_in(value, &kept)?), program);
        let env = self.environment(order).map(variable).collect::<Result<Vec<_>, _>>()?;
        let cwd = CString::new(order.cwd.as_os_str().as_bytes()).map_err(|error| invalid(error.into()))?;
        let cgroup = leaf.map(Leaf::folder).transpose()?;
        let inherit: Vec<i32> = kept.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let what = Spawn {
            argv: &argv,
            env: &env,
            cwd: &cwd,
            stdout: order.stdout.as_fd(),
            stderr: order.stderr.as_fd(),
            inherit: &inherit,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            brand: Some(self.marks.brand_of(&order.id.0)),
            kernel: self.kernel,
        };
        if !go() {
            return Err(RuntimeError::CalledOff(order.id.clone()));
        }
        for _ in 1..BUSY_TRIES {
            match spawn(&what) {
                Err(failure) if failure.source.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
                other => return other.map(|spawned| (spawned, self.clock.now())).map_err(|failure| explain(failure, order, leaf)),
            }
        }
        spawn(&what).map(|spawned| (spawned, self.clock.now())).map_err(|failure| explain(failure, order, leaf))
    }

    fn register(&self, order: &Order<'_>, spawned: Spawned, leaf: Option<Leaf>, started_at: Timestamp) -> Result<Arc<Running>, RuntimeError> {
        let pid = spawned.pid;
        let lost = |source| RuntimeError::Spawn { program: order.argv[0].clone(), source };
        // Our child and not waited for yet: its stat is there even if it has ended.
        let start_time = process_stat(pid).map(|stat| stat.start_time).unwrap_or_default();
        let identity = Identity { pid, start_time, boot_id: self.boot_id.clone(), launch_id: order.id.0.clone(), executable: executable(pid) };
        let process = Process::new(pid, spawned.pidfd, self.kernel).map_err(|source| {
            // Out of descriptors, most likely: it may not live unwatched.
            if let Some(leaf) = &leaf {
                let _ = leaf.kill();
            }
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
            lost(source)
        })?;
        let log = order.stdout.metadata().ok().map(|about| (about.dev(), about.ino())).filter(|_| self.subreaper);
        let running = Running::new(identity, &self.marks, process, leaf, log, started_at);
        self.launches().insert(order.id.clone(), Arc::clone(&running));
        running.watch(Arc::clone(&self.clock), Seen::Live);
        Ok(running)
    }

    pub(super) fn handle_of(&self, running: &Running) -> Result<Handle, RuntimeError> {
        let cgroup = running.leaf.as_ref().map(|leaf| leaf.path().to_owned());
        let state = NativeState { identity: running.identity.clone(), cgroup, log: running.log() };
        self.handle(running.id.clone(), Some(running.identity.pid), running.started_at, &state)
    }

    pub(super) fn handle(&self, id: LaunchId, pid: Option<u32>, started_at: Timestamp, state: &NativeState) -> Result<Handle, RuntimeError> {
        let state = RawJson::of(state).map_err(|error| RuntimeError::Unsupported(format!("a path that is no text: {error}")))?;
        Ok(Handle { id, version: HANDLE_VERSION, pid, started_at, state })
    }

    /// The spec's own words win over what the daemon passes on; nobody's over the identity.
    fn environment<'a>(&'a self, order: &'a Order<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let identity = [(LAUNCH_ID_VAR, order.id.0.as_str()), (HOME_ID_VAR, self.marks.home_id.as_str())];
        let inherited = self.base_env.iter().filter(|(name, _)| !order.env.contains_key(*name));
        let rest = inherited.chain(order.env).map(|(name, value)| (name.as_str(), value.as_str()));
        rest.filter(|(name, _)| ![LAUNCH_ID_VAR, HOME_ID_VAR].contains(name)).chain(identity)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Append,
    Replace,
}

/// Opened for the process itself to write to; made with its folder when it is missing, for our user only.
pub(super) fn open_output(path: &Path, output: Output) -> Result<File, RuntimeError> {
    let fail = |source| RuntimeError::Io { path: path.to_owned(), source };
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let opened = match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder).and_then(|()| open()),
        (opened, _) => opened,
    };
    let file = opened.map_err(fail)?;
    if output == Output::Replace {
        file.set_len(0).map_err(fail)?;
    }
    Ok(file)
}

fn above_stdio(fd: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE_FD)?)
}

/// Replaces each `{fd:NAME}` by the path of the granted descriptor.
fn fill_in<'a>(text: &'a str, granted: &[(&str, OwnedFd)]) -> Result<Cow<'a, str>, RuntimeError> {
    if !text.contains("{fd:") {
        return Ok(text.into());
    }
    let mut filled = text.to_owned();
    for (name, fd) in granted {
        filled = filled.replace(&format!("{{fd:{name}}}"), &format!("/dev/fd/{}", fd.as_raw_fd()));
    }
    match filled.split_once("{fd:").and_then(|(_, rest)| rest.split_once('}')) {
        Some((name, _)) => Err(RuntimeError::Unsupported(format!("`{text}` names the descriptor {name}, which was not granted"))),
        None => Ok(filled.into()),
    }
}

fn c_text(text: String, program: &str) -> Result<CString, RuntimeError> {
    CString::new(text).map_err(|error| RuntimeError::Spawn { program: program.to_owned(), source: error.into() })
}

/// What a failed step says about the program.
fn explain(failure: SpawnFailure, order: &Order<'_>, leaf: Option<&Leaf>) -> RuntimeError {
    let SpawnFailure { step, source } = failure;
    let program = order.argv[0].clone();
    match step {
        SpawnStep::Cgroup => RuntimeError::Io { path: leaf.map(|leaf| leaf.path().to_owned()).unwrap_or_default(), source },
        SpawnStep::Cwd => RuntimeError::Io { path: order.cwd.to_owned(), source },
        SpawnStep::Fork if source.raw_os_error() == Some(nix::libc::EAGAIN) => RuntimeError::NoProcess { program, source },
        SpawnStep::Fork | SpawnStep::Descriptors => RuntimeError::Spawn { program, source },
        SpawnStep::Exec => match source.raw_os_error() {
            Some(nix::libc::ENOENT | nix::libc::ENOTDIR) if !Path::new(&program).exists() => RuntimeError::NoProgram { program },
            Some(nix::libc::ENOENT) => {
                RuntimeError::Spawn { program, source: io::Error::new(source.kind(), "its interpreter or dynamic loader does not exist") }
            }
            Some(nix::libc::EACCES) => RuntimeError::NotExecutable { program },
            Some(nix::libc::ENOEXEC) if is_elf(&program) => RuntimeError::WrongArchitecture { program },
            Some(nix::libc::ENOEXEC) => RuntimeError::NotExecutable { program },
            _ => RuntimeError::Spawn { program, source },
        },
    }
}

fn is_elf(program: &str) -> bool {
    let mut magic = [0; 4];
    File::open(program).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_descriptors_are_named_by_their_path_and_others_refused() {
        let fd = OwnedFd::from(File::open("/dev/null").unwrap());
        let path = format!("--key=/dev/fd/{}", fd.as_raw_fd());
        let granted = [("key", fd)];
        assert_eq!(fill_in("--key={fd:key}", &granted).unwrap(), path);
        assert_eq!(fill_in("{json: 1}", &granted).unwrap(), "{json: 1}");
        assert!(matches!(fill_in("{fd:other}", &granted), Err(RuntimeError::Unsupported(_))));
    }
}
