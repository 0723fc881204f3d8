//! `daemon reload`: devnetd puts all in order and executes its own program anew. Same pid, so its children stay its children.
//!
//! ```text
//! asked (RPC, SIGHUP) ─► the program can be run? ─no─► refused; nothing has happened
//!                              │ yes
//!                              ▼ as at shutdown: calls end, controllers stop, the store is closed
//!        home's lock and listening socket cross the exec; who connects meanwhile waits in the socket's queue
//!                              ▼
//!                 execve ─fails─► the old program serves on
//! ```

use crate::{
    config::HomeLock,
    model::{Fault, FaultCode},
    sys::{command, own_program, raise_open_files, restore_open_files},
};
use nix::unistd::execve;
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// In the environment of a devnetd that was executed anew: its pid, and the numbers of the lock and of the listening socket.
pub const INHERITED_VAR: &str = "DVB_REEXEC";
/// A program that takes longer to tell its version cannot serve.
const TRIAL: Duration = Duration::from_secs(20);

/// Whether the daemon shall not simply end but be executed anew.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<AtomicBool>);

impl Reload {
    /// Tries the program out; when it can be run, the coming shutdown is a reload. Returns the program's path and version.
    pub async fn prepare(&self) -> Result<String, Fault> {
        let program = own_program();
        let version = try_out(&program).await.map_err(|why| {
            Fault::new(FaultCode::BinaryUnusable, format!("{} cannot be executed ({why}); this devnetd serves on", program.display()))
                .remedy("put a devnetd that runs on this machine in that place")
        })?;
        self.0.store(true, Ordering::SeqCst);
        Ok(format!("{} ({version})", program.display()))
    }

    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What an exec hands over to us.
#[derive(Debug)]
pub struct Inherited {
    pub lock: OwnedFd,
    pub listener: OwnedFd,
}

impl Inherited {
    /// `value` is that of INHERITED_VAR. None when this process was not executed by a devnetd that it was before.
    #[expect(unsafe_code, reason = "descriptors that come by number")]
    pub fn take(value: Option<&OsStr>) -> Option<Self> {
        let mut numbers = value?.to_str()?.split(':').map(str::parse::<i32>);
        let (Some(Ok(pid)), Some(Ok(lock)), Some(Ok(listener)), None) = (numbers.next(), numbers.next(), numbers.next(), numbers.next()) else {
            return None;
        };
        let open = |fd: i32| fd > 2 && std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        // The variable may have come down from a daemon above us.
        if std::process::id().cast_signed() != pid || lock == listener || !open(lock) || !open(listener) {
            return None;
        }
        // SAFETY: both are open, and left so for us: nothing else in this process, which has just begun, knows of them.
        let (lock, listener) = unsafe { (OwnedFd::from_raw_fd(lock), OwnedFd::from_raw_fd(listener)) };
        for fd in [&lock, &listener] {
            fcntl_setfd(fd, FdFlags::CLOEXEC).ok()?;
        }
        Some(Self { lock, listener })
    }
}

/// Returns only when it failed; then nothing has changed. No other thread may run any more.
pub fn execute(lock: &HomeLock, listener: &OwnedFd) -> io::Error {
    let kept = [lock.as_fd(), listener.as_fd()];
    let failed = set_flags(kept, FdFlags::empty()).and_then(|()| restore_open_files()).and_then(|()| become_program(kept)).err();
    let _ = set_flags(kept, FdFlags::CLOEXEC);
    let _ = raise_open_files(); // as at our own start
    failed.unwrap_or_else(|| io::Error::other("exec returned"))
}

fn become_program([lock, listener]: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let argv = std::env::args_os().map(|arg| text(&arg)).collect::<io::Result<Vec<_>>>()?;
    let handed = format!("{INHERITED_VAR}={}:{}:{}", std::process::id(), lock.as_raw_fd(), listener.as_raw_fd());
    let mut env = vec![text(OsStr::new(&handed))?];
    for (name, value) in std::env::vars_os().filter(|(name, value)| stays(name, value)) {
        let mut pair: OsString = name;
        pair.push("=");
        pair.push(value);
        env.push(text(&pair)?);
    }
    execve(&text(own_program().as_os_str())?, &argv, &env)?;
    Ok(())
}

/// A dvbctl that started us has long stopped listening for our READY=1.
fn stays(name: &OsStr, value: &OsStr) -> bool {
    name != INHERITED_VAR && (name != "NOTIFY_SOCKET" || value.as_bytes().starts_with(b"@") || Path::new(value).exists())
}

fn set_flags(fds: [BorrowedFd<'_>; 2], flags: FdFlags) -> io::Result<()> {
    fds.into_iter().try_for_each(|fd| Ok(fcntl_setfd(fd, flags)?))
}

/// Its version, or why it cannot tell it.
async fn try_out(program: &Path) -> Result<String, String> {
    let mut child = tokio::process::Command::from(command(program));
    let output = child.arg("--version").kill_on_drop(true).output();
    match tokio::time::timeout(TRIAL, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(Ok(output)) => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not tell its version within {TRIAL:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_taken_only_when_they_were_meant_for_us() {
        let me = std::process::id();
        let take = |value: String| Inherited::take(Some(OsStr::new(&value))).is_some();
        assert!(Inherited::take(None).is_none());
        for value in
            [format!("{me}:0:1"), format!("{me}:900000:900001"), format!("{}:3:4", me + 1), "x".into(), format!("{me}:3:4:5"), format!("{me}:3")]
        {
            assert!(!take(value.clone()), "{value}");
        }
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let numbers = [OwnedFd::from(one), OwnedFd::from(other)].map(std::os::fd::IntoRawFd::into_raw_fd);
        assert!(take(format!("{me}:{}:{}", numbers[0], numbers[1])));
    }

    #[tokio::test]
    async fn a_program_that_cannot_tell_its_version_is_not_executed() {
        assert!(try_out(Path::new("/bin/false")).await.unwrap_err().contains("exit status: 1"));
        assert!(try_out(Path::new("/no/such/program")).await.is_err());
    }
}
