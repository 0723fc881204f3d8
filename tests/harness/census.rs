//! Who of a home is there: its daemon, its keeper, the main processes and the cgroups of its launches.

use crate::{TestHome, is_alive};
use dvb_proto::endpoint::home_hash;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest, Sha256};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

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
        let ours = self.hash();
        let carries = |pid: Pid| variable(pid.as_raw(), "DVB_HOME_ID").is_some_and(|id| id == ours);
        // Each launch is the leader of a session of its own.
        let main = |pid: Pid| nix::unistd::getsid(Some(pid)).is_ok_and(|session| session == pid);
        all_pids().into_iter().filter(|pid| carries(*pid) && main(*pid) && is_alive(*pid)).map(Pid::as_raw).collect()
    }
    /// The main processes of this home's launches, by launch id; jobs left out.
    pub fn launches(&self) -> BTreeMap<String, Pid> {
        let launch = |pid: &i32| variable(*pid, "DVB_LAUNCH_ID").filter(|id| !id.starts_with("job-"));
        self.mains().into_iter().filter_map(|pid| Some((launch(&pid)?, Pid::from_raw(pid)))).collect()
    }
    /// Ids of all launches that the store has, those that ended included.
    #[track_caller]
    pub fn recorded_launches(&self) -> BTreeSet<String> {
        let store = self.store();
        let mut names = store.prepare("SELECT name FROM launches").expect("a table of the store");
        let names = names.query_map([], |row| row.get::<_, String>(0)).expect("names of launches");
        names.filter_map(|name| Some(name.ok()?.split_once('@')?.1.to_owned())).collect()
    }
    /// The main processes of this home's launches are those on record of this devnet, and no others.
    #[track_caller]
    pub fn assert_each_once(&self, devnet: &str) {
        let recorded: BTreeSet<i32> = self.pids(devnet).into_values().map(Pid::as_raw).collect();
        assert_eq!(self.mains(), recorded, "each node runs once");
    }
    /// Each validator that has a process holds its own key: nobody else on the machine does, and it holds no other.
    #[track_caller]
    pub fn assert_keys_held_once(&self, devnet: &str) {
        let held = keys_held();
        let leased = self.leased_keys();
        let pids = self.pids(devnet);
        let mut of_signers = BTreeMap::new();
        for (name, pid) in pids.iter().filter(|(name, _)| leased.contains_key(&format!("{devnet}/{name}"))) {
            let key = &leased[&format!("{devnet}/{name}")];
            assert_eq!(held.get(key), Some(&BTreeSet::from([pid.as_raw()])), "who holds {key}, the key of {name}");
            of_signers.insert(pid.as_raw(), key);
        }
        let validators = pids.keys().filter(|name| name.starts_with("validator-")).count();
        assert_eq!(of_signers.len(), validators, "each validator has leased its key: {leased:?}");
        for pid in pids.values().map(|pid| pid.as_raw()) {
            let keys: Vec<_> = held.iter().filter(|(_, holders)| holders.contains(&pid)).map(|(key, _)| key).collect();
            assert_eq!(keys, of_signers.get(&pid).copied().into_iter().collect::<Vec<_>>(), "the keys of {pid}");
        }
    }
    /// The names of the sockets that stand for the keys leased in the store, by full node name.
    #[track_caller]
    fn leased_keys(&self) -> BTreeMap<String, String> {
        let store = self.store();
        let mut rows = store.prepare("SELECT node, name FROM leases WHERE name LIKE 'key/%'").expect("a table of the store");
        let read = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).expect("its rows");
        read.map(|row| row.expect("a row")).map(|(node, name)| (node, socket_of_key(name.trim_start_matches("key/")))).collect()
    }
    /// The launch ids in the names of this home's cgroups.
    pub fn leaves(&self) -> BTreeSet<String> {
        let folders = self.cgroup_folders();
        let ids = folders.iter().filter_map(|folder| Some(folder.file_name()?.to_str()?.split_once('@')?.1.to_owned()));
        ids.collect()
    }
    /// How many cgroups this home has, those above the ones of its launches included.
    pub fn cgroups(&self) -> usize {
        self.cgroup_folders().len()
    }
    fn cgroup_folders(&self) -> Vec<PathBuf> {
        cgroups_of(&self.hash())
    }
    /// For when nobody of the home lives any more: a daemon that was killed has left its cgroups, empty.
    pub(crate) fn remove_cgroups(&self) {
        if !self.home().exists() {
            return; // it never had a daemon
        }
        let start = Instant::now();
        let left = || Some(self.cgroup_folders()).filter(|folders| !folders.is_empty() && start.elapsed() < SOON);
        while let Some(mut folders) = left() {
            folders.sort_by_key(|folder| Reverse(folder.iter().count())); // those within others first
            for folder in folders {
                let _ = fs::remove_dir(folder); // who was killed may be a moment about it
            }
            thread::sleep(Duration::from_millis(10)); // no event: its processes are not our children
        }
    }
    /// How many abstract sockets its processes have: of subnets, ports, keys, and the keeper's own.
    pub fn abstract_sockets(&self) -> usize {
        let names = abstract_sockets();
        let open = self.processes().into_iter().flat_map(|(pid, _)| sockets_of(pid));
        open.filter(|socket| names.contains_key(socket)).collect::<BTreeSet<_>>().len()
    }
    /// What devnetd calls this home where its path would be too long.
    pub fn hash(&self) -> String {
        home_hash(&self.home().canonicalize().expect("the home is there"))
    }
}

/// The folders of the cgroups of the home of this hash.
pub fn cgroups_of(home_hash: &str) -> Vec<PathBuf> {
    let root = format!("devnet-{home_hash}");
    let is_ours = |folder: &Path| folder.iter().any(|part| part.to_str().is_some_and(|part| part.starts_with(&root)));
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(folder) = folders.pop() {
        let below = fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
        if is_ours(&folder) {
            found.push(folder);
        }
    }
    found
}

/// The abstract sockets of validator keys on this machine, each with the processes that have it open; `{}` when none is to be seen.
pub fn keys_held() -> BTreeMap<String, BTreeSet<i32>> {
    let keys: BTreeMap<String, String> = abstract_sockets().into_iter().filter(|(_, name)| name.starts_with("dvb-key-")).collect();
    let mut held: BTreeMap<String, BTreeSet<i32>> = keys.values().map(|name| (name.clone(), BTreeSet::new())).collect();
    for pid in all_pids() {
        for key in sockets_of(pid).iter().filter_map(|socket| keys.get(socket)) {
            held.entry(key.clone()).or_default().insert(pid.as_raw());
        }
    }
    held
}

/// Names of the machine's abstract sockets, by what a descriptor of one reads as: `socket:[inode]`.
fn abstract_sockets() -> BTreeMap<String, String> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let entry = |line: &str| {
        let [.., inode, name] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        Some((format!("socket:[{inode}]"), name.strip_prefix('@')?.to_owned()))
    };
    sockets.lines().filter_map(entry).collect()
}

/// All that a process has open as `socket:[inode]`.
fn sockets_of(pid: Pid) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    targets.filter(|target| target.starts_with("socket:[")).collect()
}

/// As devnetd names it: short, whatever the genesis and the key are.
fn socket_of_key(lease: &str) -> String {
    let digest = Sha256::digest(lease.as_bytes());
    digest.iter().take(16).fold("dvb-key-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Of a process's environment.
fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environ.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// By its command line, as `TestHome::processes` tells it.
pub fn is_daemon(command: &str) -> bool {
    command.contains("devnetd") && command.contains("--home")
}

pub fn all_pids() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}
