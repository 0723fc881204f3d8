//! Who of a home is there: its daemon, its keeper, the main processes and the cgroups of its launches.

use crate::{TestHome, is_alive};
use dvb_proto::endpoint::home_hash;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

/// How long a killed process may take to be gone.
const SOON: Duration = Duration::from_secs(10);

impl TestHome {
    /// Not by asking it, which would start one.
    pub fn daemons(&self) -> Vec<Pid> {
        self.processes().into_iter().filter(|(_, command)| is_daemon(command)).map(|(pid, _)| pid).collect()
    }
    /// Kills the daemon that runs, and waits until it has gone.
    #[track_caller]
    pub fn kill_daemon(&self) -> Pid {
        let daemon = self.daemon_pid().expect("a daemon runs");
        kill(daemon, Signal::SIGKILL).expect("it is ours");
        self.eventually("the daemon has gone", SOON, |_| !is_alive(daemon));
        daemon
    }
    /// By what it is called. There is never more than one.
    #[track_caller]
    pub fn keeper(&self) -> Option<Pid> {
        let found: Vec<_> = self.processes().into_iter().filter(|(_, command)| command.contains("devnetd keeper ")).collect();
        assert!(found.len() <= 1, "one keeper for a home: {found:?}");
        found.first().map(|(pid, _)| *pid)
    }
    /// The main processes of this home's launches, recorded or not.
    pub fn mains(&self) -> BTreeSet<i32> {
        let ours = format!("DVB_HOME_ID={}", self.hash());
        let carries =
            |pid: Pid| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|byte| *byte == 0).any(|pair| pair == ours.as_bytes()));
        // Each launch is the leader of a session of its own.
        let main = |pid: Pid| nix::unistd::getsid(Some(pid)).is_ok_and(|session| session == pid);
        all_pids().into_iter().filter(|pid| carries(*pid) && main(*pid) && is_alive(*pid)).map(Pid::as_raw).collect()
    }
    /// The main processes of this home's launches are those on record of this devnet, and no others.
    #[track_caller]
    pub fn assert_each_once(&self, devnet: &str) {
        let recorded: BTreeSet<i32> = self.pids(devnet).into_values().map(Pid::as_raw).collect();
        assert_eq!(self.mains(), recorded, "each node runs once");
    }
    /// The launch ids in the names of this home's cgroups.
    pub fn leaves(&self) -> BTreeSet<String> {
        let root = format!("devnet-{}", self.hash());
        let mut found = BTreeSet::new();
        let mut folders: Vec<PathBuf> = vec!["/sys/fs/cgroup".into()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if entry.path().iter().any(|part| part.to_str().is_some_and(|part| part.starts_with(&root)))
                    && let Some((_, id)) = entry.file_name().to_str().and_then(|name| name.split_once('@'))
                {
                    found.insert(id.to_owned());
                }
                folders.push(entry.path());
            }
        }
        found
    }
    /// What devnetd calls this home where its path would be too long.
    pub fn hash(&self) -> String {
        home_hash(&self.home().canonicalize().expect("the home is there"))
    }
}

/// By its command line, as `TestHome::processes` tells it.
pub fn is_daemon(command: &str) -> bool {
    command.contains("devnetd") && command.contains("--home")
}

pub fn all_pids() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}
