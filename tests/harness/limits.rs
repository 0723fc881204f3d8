//! Takes from a process that runs what it needs, and gives it back.

use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};
use std::{fs, path::PathBuf};

/// This process may open no further descriptor, whatever it closes, until `limit_descriptors` gives it some. False: it has gone.
pub fn allow_no_descriptor(pid: Pid) -> bool {
    // Standard streams have the numbers below. Not less: poll(2) would fail, too.
    set_open_files(pid, Some(3))
}

/// Only so many more descriptors may this process open; None: as many as it was ever allowed. False: it has gone.
pub fn limit_descriptors(pid: Pid, more: Option<u64>) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // The lowest that is free is taken first, so what counts is the highest number, not how many there are.
    let numbers: Vec<u64> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut free = (0..).filter(|number| !numbers.contains(number));
    let current = more.map(|more| free.nth(usize::try_from(more).unwrap_or(usize::MAX)).unwrap_or_default());
    set_open_files(pid, current)
}

/// None: the hard limit.
fn set_open_files(pid: Pid, current: Option<u64>) -> bool {
    let (Some(maximum), Some(process)) = (hard_limit(pid), rustix::process::Pid::from_raw(pid.as_raw())) else { return false };
    let limit = Rlimit { current: current.or(maximum), maximum };
    prlimit(Some(process), Resource::Nofile, limit).is_ok()
}

fn hard_limit(pid: Pid) -> Option<Option<u64>> {
    Some(open_files(pid)?.1)
}

/// Soft and hard limit of a process, from /proc, as prlimit of rustix only sets. None within: there is no limit.
pub fn open_files(pid: Pid) -> Option<(Option<u64>, Option<u64>)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = files.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()?, words.next()?))
}

/// A cgroup of the pids controller in which nobody may fork. Dropping it puts the process back where it was.
pub struct ProcessLimit {
    pid: Pid,
    before: PathBuf,
    cgroup: PathBuf,
}

/// From now on this process may make no thread and no child. None where there is no controller of version 1 that we may set: in
/// version 2 a child can be born in another cgroup, past a limit of ours.
pub fn limit_processes(pid: Pid) -> Option<ProcessLimit> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - cgroup ")?;
        right.split([' ', ',']).any(|word| word == "pids").then(|| left.split(' ').nth(4)).flatten()
    })?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = own.lines().find_map(|line| line.split_once(":pids:").map(|(_, path)| path))?;
    let before = PathBuf::from(format!("{mount}{path}"));
    let limit = ProcessLimit { pid, cgroup: before.join(format!("dvb-test-{pid}")), before };
    fs::create_dir(&limit.cgroup).ok()?;
    let set = fs::write(limit.cgroup.join("pids.max"), "0").and_then(|()| fs::write(limit.cgroup.join("cgroup.procs"), pid.to_string()));
    set.is_ok().then_some(limit)
}

impl Drop for ProcessLimit {
    fn drop(&mut self) {
        let _ = fs::write(self.before.join("cgroup.procs"), self.pid.to_string()); // it may have ended
        let _ = fs::remove_dir(&self.cgroup);
    }
}
