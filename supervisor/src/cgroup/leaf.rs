//! One leaf: the processes of one launch, counted, limited and killed together.

#![allow(unsafe_code, reason = "registering a descriptor with tokio has no safe form")]

use super::CgroupError;
use crate::sys::Pidfd;
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// A handle only: dropping it leaves the cgroup alone.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub(super) path: PathBuf,
    kill_file: bool,
    pub(super) freeze_file: bool,
    pub(super) root: PathBuf,
}

/// Without cgroup.kill: between two looks at who is left, for one that forked while we killed.
const KILL_ROUND: Duration = Duration::from_millis(50);
const KILL_ROUNDS: u32 = 100;

impl Leaf {
    pub(super) fn new(path: PathBuf, kill_file: bool, freeze_file: bool, root: PathBuf) -> Self {
        Self { path, kill_file, freeze_file, root }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For a process to be born in, or to move itself into.
    pub fn folder(&self) -> Result<File, CgroupError> {
        File::open(&self.path).map_err(self.error())
    }

    /// Live processes in it and below; empty when it is gone.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_pids(&self.path, &mut pids);
        pids
    }

    /// False when the cgroup is gone.
    pub fn populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => Ok(says_populated(&text)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Resolves when no process is left in it or below.
    pub async fn emptied(&self) -> io::Result<()> {
        self.until(|events| !says_populated(events)).await
    }

    /// Resolves when cgroup.events says so, or is gone. By event: the kernel signals that file.
    pub(super) async fn until(&self, reached: impl Fn(&str) -> bool) -> io::Result<()> {
        let file = match File::open(self.path.join("cgroup.events")) {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        // SAFETY: a File owns its descriptor and never swaps it; AsyncFd owns the File.
        let events = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?;
        loop {
            let mut text = [0; 256];
            match events.get_ref().read_at(&mut text, 0) {
                Ok(length) if !reached(&String::from_utf8_lossy(&text[..length])) => {}
                Ok(_) => return Ok(()),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            events.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }

    /// SIGKILL to every process in it and below; returns at once. Without cgroup.kill one that forks meanwhile may slip through: `kill_and_wait` does not let it.
    pub fn kill(&self) -> io::Result<()> {
        if !self.kill_file {
            return self.kill_each();
        }
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Kills and waits until nothing is left.
    pub async fn kill_and_wait(&self) -> io::Result<()> {
        if !self.populated()? {
            return Ok(());
        }
        if self.kill_file {
            self.kill()?;
            return self.emptied().await;
        }
        // Frozen processes cannot fork away from us, and still die of SIGKILL.
        let _ = fs::write(self.path.join("cgroup.freeze"), "1");
        for _ in 0..KILL_ROUNDS {
            self.kill_each()?;
            if let Ok(emptied) = tokio::time::timeout(KILL_ROUND, self.emptied()).await {
                return emptied;
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Removes it with what the processes made below it, and those parents that are empty now. Harmless when it is gone.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)?;
        for parent in self.path.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.root)) {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// SIGKILL to each process by pidfd, after checking that the pid is still of this cgroup.
    fn kill_each(&self) -> io::Result<()> {
        for pid in self.pids() {
            let Ok(pidfd) = Pidfd::open(pid) else { continue };
            if self.pids().contains(&pid) {
                pidfd.signal(Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    pub(super) fn error(&self) -> impl Fn(io::Error) -> CgroupError {
        let path = self.path.clone();
        move |source| CgroupError::Io { path: path.clone(), source }
    }
}

fn says_populated(events: &str) -> bool {
    field(events, "populated") == Some(1)
}

/// The number behind `name` in a file of `name number` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// An open file of a removed cgroup answers ENODEV.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

pub(super) fn collect_pids(path: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    folders(path).for_each(|folder| collect_pids(&folder, pids));
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if !is_gone(&error) => {}
        _ => return Ok(()), // few processes make cgroups of their own
    }
    for folder in folders(path) {
        remove_tree(&folder)?;
    }
    match fs::remove_dir(path) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "low 0\noom 1\noom_kill 3\nusage_usec 42\n";
        assert_eq!(field(text, "oom"), Some(1));
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "usage"), None);
        assert!(says_populated("populated 1\nfrozen 0\n"));
        assert!(!says_populated("populated 0\nfrozen 0\n"));
    }

    #[tokio::test]
    async fn a_process_is_born_in_its_cgroup_or_moves_itself_in() {
        use crate::{
            cgroup::{Cgroups, DriverChoice},
            sys::{Kernel, Spawn, spawn},
        };
        use std::os::fd::AsFd;
        let cgroups = match Cgroups::detect(DriverChoice::Cgroupfs, &format!("test-birth-{}", std::process::id()), None) {
            Ok(cgroups) => cgroups,
            Err(error) => return println!("SKIP: {error}"),
        };
        for kernel in [Kernel::as_it_is(), Kernel::old()] {
            let leaf = cgroups.create(&["node".into()], "abc").unwrap().unwrap();
            let (folder, out) = (leaf.folder().unwrap(), File::options().write(true).open("/dev/null").unwrap());
            let argv = [c"/bin/sleep".to_owned(), c"20".to_owned()];
            let (stdout, stderr) = (out.as_fd(), out.as_fd());
            let what = Spawn { argv: &argv, env: &[], cwd: c"/", stdout, stderr, inherit: &[], cgroup: Some(folder.as_fd()), brand: None, kernel };
            let spawned = spawn(&what).unwrap();
            let found = leaf.pids();
            leaf.kill_and_wait().await.unwrap();
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.pid.cast_signed()), None).unwrap();
            leaf.remove().unwrap();
            assert_eq!(found, [spawned.pid], "{kernel:?}");
        }
    }

    #[tokio::test]
    async fn without_the_kill_file_each_process_is_killed_and_waited_for() {
        use crate::{
            cgroup::{Cgroups, DriverChoice},
            sys::command,
        };
        let cgroups = match Cgroups::detect(DriverChoice::Cgroupfs, &format!("test-kill-{}", std::process::id()), None) {
            Ok(cgroups) => cgroups,
            Err(error) => return println!("SKIP: {error}"),
        };
        let leaf = Leaf { kill_file: false, ..cgroups.create(&["node".into()], "abc").unwrap().unwrap() };
        // Forks on and on, and ends by itself should this test fail.
        let script = "read go; for round in 1 2 3 4 5 6 7 8; do sleep 20 & sleep 0.01; done; wait";
        let mut shell = command("/bin/sh").args(["-c", script]).env("PATH", "/usr/bin:/bin").stdin(std::process::Stdio::piped()).spawn().unwrap();
        fs::write(leaf.path().join("cgroup.procs"), shell.id().to_string()).unwrap();
        drop(shell.stdin.take());
        while leaf.pids().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(leaf.populated().unwrap());
        leaf.kill_and_wait().await.unwrap();
        shell.wait().unwrap();
        assert!(!leaf.populated().unwrap() && leaf.pids().is_empty());
        leaf.remove().unwrap();
    }
}
