//! The daemon on demand: through the user manager where devnetd is installed as its service, else devnetd in a session of its own, and
//! the wait for its word that it is ready.
//!
//! ```text
//! spawn ──READY=1 on our socket──► ready
//!   ├────exit 75: another devnetd has the home──► connect to that one, else spawn again
//!   ├────exit 69: it has, but was bereft of it──► the error: to wait is of no use
//!   └────any other exit──► the error, with the last lines of its log
//! ```

use crate::{client::Client, context::Context, error::Error, service};
use nix::{
    errno::Errno,
    libc,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt, unix::fs::DirBuilderExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::UnixDatagram,
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

/// EX_TEMPFAIL: devnetd's exit code when another holds the home's lock.
const ALREADY_RUNNING: i32 = 75;
/// EX_UNAVAILABLE: the home was taken away under the one that holds it, so that one cannot be reached there.
const HOME_TAKEN_AWAY: i32 = 69;
/// A daemon with a large store to check may take a while.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a daemon that somebody else starts: we are not its parent, so no event tells us.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 12;

/// Starts devnetd for the settings' home and waits until it is ready.
pub(crate) async fn start(ctx: &Context) -> Result<(), Error> {
    if let Some(manager) = service::manager(ctx).await {
        return service::start(ctx, &manager).await;
    }
    let program = find_program(ctx)?;
    let deadline = Instant::now() + START_LIMIT;
    ctx.debug(format!("starting {}", program.display()));
    loop {
        match run_once(ctx, &program, deadline).await? {
            Outcome::Ready => return Ok(()),
            Outcome::AlreadyRunning => {
                let look_until = (Instant::now() + Duration::from_secs(2)).min(deadline);
                while Instant::now() < look_until {
                    if Client::connect_running(ctx).await?.is_some() {
                        return Ok(());
                    }
                    sleep(LOOK_AGAIN).await;
                }
                if Instant::now() >= deadline {
                    return Err(with_log(ctx, Error::unreachable("another devnetd holds the home, but does not answer"), 0));
                }
            }
        }
    }
}

/// A verb that only looks at what there is, or changes it, makes no home of a name that was misspelt.
pub(crate) fn may_begin_here(ctx: &Context) -> Result<(), Error> {
    let home = &ctx.settings.home;
    if ctx.makes_home || !ctx.settings.home_is_named || home.symlink_metadata().is_ok() {
        return Ok(());
    }
    let error = Error::not_found(format!("there is no home {}: neither a devnet nor a devnetd is there", home.display()));
    Err(error.about(home.to_string_lossy()).with_remedy("correct DVB_HOME or --home; dvbctl up, apply or daemon start makes a new home"))
}

enum Outcome {
    Ready,
    AlreadyRunning,
}

async fn run_once(ctx: &Context, program: &Path, deadline: Instant) -> Result<Outcome, Error> {
    let log_path = ctx.settings.daemon_log();
    let log = open_log(ctx, &log_path)?;
    let log_start = log.metadata().map_or(0, |meta| meta.len());
    let notify = NotifySocket::bind(ctx.settings.runtime_dir.as_deref())
        .map_err(|error| Error::unreachable(format!("cannot make the socket on which devnetd reports that it is ready: {error}")))?;
    let pid = spawn(ctx, program, &log, &notify.path)
        .map_err(|errno| Error::unreachable(format!("cannot start {}: {}", program.display(), errno.desc())))?;
    let mut died = death_of(pid);
    let ready = notify.ready();
    tokio::select! {
        biased;
        ready = timeout_at(deadline, ready) => match ready {
            Ok(Ok(())) => Ok(Outcome::Ready),
            Ok(Err(error)) => Err(Error::unreachable(format!("cannot hear from devnetd: {error}"))),
            Err(_) => {
                let message = format!("devnetd (pid {pid}) did not get ready within {} s", START_LIMIT.as_secs());
                Err(with_log(ctx, Error::unreachable(message), log_start))
            }
        },
        status = &mut died => match status {
            Ok(WaitStatus::Exited(_, ALREADY_RUNNING)) => Ok(Outcome::AlreadyRunning),
            status => Err(with_log(ctx, Error::unreachable(death_message(status.ok())), log_start)),
        },
    }
}

fn death_message(status: Option<WaitStatus>) -> String {
    match status {
        Some(WaitStatus::Exited(_, HOME_TAKEN_AWAY)) => "another devnetd holds the home, which was removed or replaced under it".to_owned(),
        Some(WaitStatus::Exited(_, code)) => format!("devnetd ended at once with exit code {code}"),
        Some(WaitStatus::Signaled(_, signal, _)) => format!("devnetd was killed by {signal} while it started"),
        _ => "devnetd ended at once".to_owned(),
    }
}

/// The last lines that devnetd wrote since `from` (bytes) go below the error.
fn with_log(ctx: &Context, error: Error, from: u64) -> Error {
    let path = ctx.settings.daemon_log();
    let text = fs::read(&path).unwrap_or_default();
    let new = text.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let lines: Vec<&str> = new.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    let error = error.with_remedy(format!("see {}", path.display()));
    tail.iter().fold(error, |error, line| error.with_note(format!("  | {line}")))
}

/// Beside our own executable, then along PATH.
pub(crate) fn find_program(ctx: &Context) -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.join("devnetd")));
    let path = ctx.settings.env.vars.get("PATH").cloned().unwrap_or_default();
    let along = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("devnetd"));
    beside.clone().into_iter().chain(along).find(|path| is_executable(path)).ok_or_else(|| {
        let place = beside.as_deref().and_then(Path::parent).map_or_else(String::new, |dir| format!(" beside dvbctl ({}) or", dir.display()));
        Error::unreachable(format!("no devnetd runs for {}, and there is no devnetd program{place} in PATH", ctx.settings.home.display()))
            .with_remedy("install devnetd, or start it yourself: devnetd --home DIR")
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn open_log(ctx: &Context, path: &Path) -> Result<File, Error> {
    let home = &ctx.settings.home;
    let open = || -> io::Result<File> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("logs"))?;
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    };
    open().map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => "is on a read-only file system".to_owned(),
            io::ErrorKind::PermissionDenied => "cannot be written by you".to_owned(),
            io::ErrorKind::StorageFull => "is on a full disk".to_owned(),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "is not a folder".to_owned(),
            _ => format!("cannot be used: {error}"),
        };
        Error::unreachable(format!("the home {} {what}, so devnetd cannot start", home.display()))
            .with_remedy("dvbctl --home DIR, with a folder of yours")
    })
}

/// A session of its own, stdin empty, stdout and stderr appended to the log, default signals. posix_spawn, because it needs no
/// unsafe code here and does not copy our address space.
fn spawn(ctx: &Context, program: &Path, log: &File, notify: &Path) -> nix::Result<Pid> {
    let null = File::open("/dev/null").map_err(|_| Errno::ENODEV)?;
    let mut files = PosixSpawnFileActions::init()?;
    files.add_dup2(null.as_raw_fd(), 0)?;
    files.add_dup2(log.as_raw_fd(), 1)?;
    files.add_dup2(log.as_raw_fd(), 2)?;
    let mut attr = PosixSpawnAttr::init()?;
    let new_session = PosixSpawnFlags::from_bits_retain(libc::c_int::from(libc::POSIX_SPAWN_SETSID));
    attr.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | new_session)?;
    // Rust programs ignore SIGPIPE; the daemon decides that for itself.
    attr.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attr.set_sigmask(&SigSet::empty())?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let path = |path: &Path| text(path.as_os_str().as_bytes());
    let args = [path(program)?, text(b"--home")?, path(&ctx.settings.home)?, text(b"--socket")?, path(&ctx.settings.socket)?];
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != "NOTIFY_SOCKET") {
        env.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    env.push(text(&[b"NOTIFY_SOCKET=", notify.as_os_str().as_bytes()].concat())?);
    posix_spawn(program, &files, &attr, &args, &env)
}

/// A thread waits for the child: waitpid has no async form without a SIGCHLD handler, and the thread ends with us.
fn death_of(pid: Pid) -> oneshot::Receiver<WaitStatus> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        if let Ok(status) = waitpid(pid, None) {
            let _ = tell.send(status);
        }
    });
    told
}

/// systemd's readiness protocol: a datagram socket in a folder that only we may enter; both go when it is dropped.
struct NotifySocket {
    socket: UnixDatagram,
    folder: PathBuf,
    path: PathBuf,
}

impl NotifySocket {
    fn bind(runtime_dir: Option<&Path>) -> io::Result<Self> {
        let parent = runtime_dir.filter(|dir| dir.is_dir()).unwrap_or(Path::new("/tmp"));
        let nanos = jiff::Timestamp::now().as_nanosecond();
        let folder = parent.join(format!("dvbctl-{}-{nanos:x}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("notify");
        match UnixDatagram::bind(&path) {
            Ok(socket) => Ok(Self { socket, folder, path }),
            Err(error) => {
                let _ = fs::remove_dir(&folder);
                Err(error)
            }
        }
    }

    async fn ready(&self) -> io::Result<()> {
        let mut message = [0; 4096];
        loop {
            let len = self.socket.recv(&mut message).await?;
            if message[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.folder);
    }
}
