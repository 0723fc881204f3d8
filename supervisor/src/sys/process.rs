//! Processes as /proc and pidfds show them: stat, environment, signals that cannot hit a stranger.

use nix::sys::signal::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

/// The fields of /proc/PID/stat that identify a process and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    pub pid: u32,
    pub state: char,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// Its first thread is past the point of no return: it ends, and so does the process, unless other threads outlive it.
    pub exiting: bool,
    /// Clock ticks since boot: with pid and boot id it names a process for good.
    pub start_time: u64,
}

impl ProcessStat {
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// None when there is no such process (any more).
pub fn process_stat(pid: u32) -> Option<ProcessStat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All pids that /proc shows us.
pub fn all_pids() -> io::Result<Vec<u32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The pid (or thread id) that the kernel gave last; as long as it stays the same, nobody has forked. None: /proc does not tell.
/// Source: proc_loadavg(5).
pub fn last_pid() -> Option<u32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// The value of `name` in the environment that `pid` was executed with; None also when we may not read it.
pub fn process_env(pid: u32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environ.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The program's short name; empty when there is no such process.
pub fn process_name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The command line, word by word.
pub fn process_words(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// False in the midst of exec, for a zombie, and when we may not look.
pub fn has_environment(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| !environ.is_empty())
}

/// Device and inode of the program that `pid` executes; None also when we may not look.
pub fn executable(pid: u32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/exe")).ok().map(|program| (program.dev(), program.ino()))
}

/// Ended, though its parent may not have reaped it yet. False when it cannot be told. A pid that was reused reads as alive.
pub fn has_ended(pid: u32) -> bool {
    // A child is known by one call, and lists ask this of each node.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if let Some(Ok(ended)) = Pid::from_raw(pid.cast_signed()).map(|pid| waitid(WaitId::Pid(pid), look)) {
        return ended.is_some();
    }
    match Pidfd::open(pid) {
        Ok(held) => held.poll().is_ok_and(|(ended, _)| ended),
        Err(error) => error.raw_os_error() == Some(nix::libc::ESRCH),
    }
}

/// Its end has begun: it is killed, and gives back its memory and files, which takes a large process a while.
pub fn is_ending(pid: u32) -> bool {
    process_stat(pid).is_some_and(|stat| stat.exiting || stat.is_zombie())
}

/// `PF_EXITING` of the flags in /proc/PID/stat.
const EXITING: u64 = 4;

/// How long ago a process with this start time was forked.
pub fn age(start_time: u64) -> Option<Duration> {
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    let started = start_time as f64 / procfs::ticks_per_second() as f64;
    Duration::try_from_secs_f64(uptime - started).ok()
}

/// A process held by descriptor: signals go to it or to nobody, whatever becomes of its pid.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Only who checks the identity after opening knows whom it holds: the pid may have been reused before.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::NONBLOCK)?))
    }

    /// Harmless when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else { return Err(io::ErrorKind::InvalidInput.into()) };
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// To all in the process group that it leads, or led, at once: none of them can fork away from it. Harmless when they have ended;
    /// false before Linux 6.9.
    #[expect(unsafe_code, reason = "a flag that no crate passes on yet")]
    pub fn signal_group(&self, signal: Signal) -> io::Result<bool> {
        let info = std::ptr::null::<nix::libc::siginfo_t>();
        // SAFETY: the descriptor is ours, and without siginfo the kernel reads no memory of ours.
        let sent = unsafe {
            let (call, flags) = (nix::libc::SYS_pidfd_send_signal, nix::libc::PIDFD_SIGNAL_PROCESS_GROUP);
            nix::libc::syscall(call, self.0.as_raw_fd(), signal as i32, info, flags)
        };
        match (sent, io::Error::last_os_error()) {
            (0, _) => Ok(true),
            (_, error) => match error.raw_os_error() {
                Some(nix::libc::ESRCH) => Ok(true),
                Some(nix::libc::EINVAL) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Whom it holds; None when that process has ended and was reaped.
    pub fn pid(&self) -> io::Result<Option<u32>> {
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let pid = about.lines().find_map(|line| line.strip_prefix("Pid:")).ok_or(io::ErrorKind::InvalidData)?;
        Ok(pid.trim().parse().ok())
    }

    /// What poll says now: (ended, and reaped as well). Kernels before 6.9 never say reaped.
    pub fn poll(&self) -> io::Result<(bool, bool)> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default()))?;
        let seen = fds[0].revents();
        Ok((seen.intersects(PollFlags::IN | PollFlags::HUP), seen.contains(PollFlags::HUP)))
    }
}

impl From<OwnedFd> for Pidfd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// The command name stands in parentheses and may hold any byte, so fields count from the last one.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let pid = text.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let small = |index: usize| u32::try_from(number(index)?).ok();
    Some(ProcessStat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: small(1)?,
        group: small(2)?,
        session: small(3)?,
        exiting: number(6)? & EXITING != 0,
        start_time: number(19)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_is_no_trouble() {
        let stat = |flags: &str| parse_stat(&format!("42 (a) b (c) S 1 40 39 0 -1 {flags} 100 0 0 0 0 0 0 0 20 0 1 0 151752 3133440")).unwrap();
        let expect = ProcessStat { pid: 42, state: 'S', parent: 1, group: 40, session: 39, exiting: false, start_time: 151_752 };
        assert_eq!(stat("4194304"), expect);
        assert_eq!(stat("4194308"), ProcessStat { exiting: true, ..expect });
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn we_see_ourselves() {
        let me = std::process::id();
        assert_eq!(process_stat(me).unwrap().pid, me);
        assert!(all_pids().unwrap().contains(&me));
        assert!(process_env(me, "PATH").is_some());
        assert_eq!(process_env(me, "NO_SUCH_NAME"), None);
        let held = Pidfd::open(me).unwrap();
        assert_eq!((held.poll().unwrap(), held.pid().unwrap()), ((false, false), Some(me)));
        assert!(executable(me).is_some() && !has_ended(me));
        assert!(age(process_stat(me).unwrap().start_time).unwrap() < Duration::from_secs(3_600));
    }
}
