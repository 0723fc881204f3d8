//! The process that holds a scope open: when the last process of a scope ends, systemd removes it with all its leaves and counters.
//!
//! ```text
//! scope wanted ─► started, pipe to the daemon ─► daemon gone: pipe closed ─► ends when the home's cgroups are gone
//! ```

use crate::sys::command;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

/// The word with which devnetd becomes a holder; the folder of the home's cgroups follows.
pub const HOLD_VERB: &str = "hold-scope";

/// Gives the pid of a process that lives for as long as a daemon of this home or cgroups below the given folder do, and starts it where
/// none runs. Asked only when nothing holds the scope.
pub type Holder = Arc<dyn Fn(&Path) -> io::Result<u32> + Send + Sync>;

/// A holder that is devnetd itself under another name: `program` with `HOLD_VERB`.
pub fn own_holder(program: PathBuf) -> Holder {
    let held: Mutex<Option<Child>> = Mutex::default();
    Arc::new(move |cgroups| {
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = held.as_mut()
            && child.try_wait()?.is_none()
        {
            return Ok(child.id());
        }
        // A group of its own: what is typed at the daemon's terminal is not meant for it.
        let mut holder = command(&program);
        holder.arg(HOLD_VERB).arg(cgroups).process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = holder.spawn()?;
        let pid = child.id();
        *held = Some(child);
        Ok(pid)
    })
}

/// The holder's whole life. stdin is the pipe to the daemon that started it.
pub fn hold(cgroups: &Path) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    // Its own folder tells nothing when it goes, the one above does.
    inotify.add_watch(cgroups.parent().unwrap_or(cgroups), AddWatchFlags::IN_DELETE)?;
    while cgroups.exists() {
        inotify.read_events()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_started_once_and_again_when_it_died() {
        // Any program that reads its stdin to the end will do.
        let holder = own_holder("/bin/cat".into());
        let pid = holder(Path::new("-")).unwrap();
        assert_eq!(holder(Path::new("-")).unwrap(), pid);
        let raw = nix::unistd::Pid::from_raw(pid.cast_signed());
        nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGKILL).unwrap();
        // Not reaped: that is the holder's to do.
        let died = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(raw), died).unwrap();
        let next = holder(Path::new("/dev/null")).unwrap();
        assert_ne!(next, pid);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(next.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(next.cast_signed()), None).unwrap();
    }
}
