//! One home with its daemon: made for a test, emptied and checked when the test ends.

use crate::{Output, binary, disk::SmallDisk};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

/// How long a devnetd that refuses its home may take, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Its folder is short, as sockets lie in it. Dropping it deletes every devnet, stops the daemon, and fails the test when any
/// process that carries the home's path in its environment is left.
pub struct TestHome {
    dir: tempfile::TempDir,
    home: PathBuf,
    env: BTreeMap<String, String>,
    disk: Option<SmallDisk>,
}

impl TestHome {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dvb").tempdir_in("/tmp").expect("a temporary folder");
        let home = dir.path().join("h");
        homes().insert(dir.path().to_owned(), thread::current().id());
        Self { dir, home, env: BTreeMap::new(), disk: None }
    }
    /// On a disk of its own of this size (`16m`), which `fill_disk` fills. None where users get no namespaces.
    pub fn on_small_disk(size: &str) -> Option<Self> {
        let mut home = Self::new();
        home.disk = Some(SmallDisk::mount(&home.home, size)?);
        Some(home)
    }
    /// On the machine's disk, beside a small one at `small_disk()` that its programs see too. None where users get no namespaces.
    pub fn beside_small_disk(size: &str) -> Option<Self> {
        let mut home = Self::new();
        home.disk = Some(SmallDisk::mount(&home.path().join("small"), size)?);
        Some(home)
    }
    /// Its path is longer than that of a socket may be.
    pub fn deep() -> Self {
        let mut home = Self::new();
        home.home = home.path().join("d".repeat(120)).join("h");
        home
    }
    /// A variable for every program of this home, the daemon included (it is started by the first dvbctl).
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }
    /// Outside the daemon's home: for YAML files and the like.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
    pub fn home(&self) -> &Path {
        &self.home
    }
    /// Where its files can be read from here.
    pub fn files(&self) -> PathBuf {
        self.disk.as_ref().filter(|disk| disk.at() == self.home).map_or_else(|| self.home.clone(), SmallDisk::root)
    }
    /// The small disk, as the home's programs see it and as we do.
    pub fn small_disk(&self) -> (PathBuf, PathBuf) {
        let disk = self.disk.as_ref().expect("a small disk");
        (disk.at().to_owned(), disk.root())
    }
    /// All of the small disk but `spare` bytes is taken until `clear_disk`.
    pub fn fill_disk(&self, spare: u64) {
        self.disk.as_ref().expect("a small disk").fill(spare);
    }
    pub fn clear_disk(&self) {
        self.disk.as_ref().expect("a small disk").clear();
    }
    pub fn has_small_disk(&self) -> bool {
        self.disk.is_some()
    }
    /// Writes a file of the test and returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folder of a test file");
        fs::write(&path, content).expect("test file");
        path.display().to_string()
    }

    /// Writes a shell script of the test that can be run, and returns its path.
    pub fn program(&self, name: &str, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode of a test file");
        path
    }

    /// Runs dvbctl in this home to its end.
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_with_input(args, "")
    }
    pub fn ctl_with_input(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dvbctl starts");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let _ = stdin.write_all(input.as_bytes()); // it may have ended without reading
        drop(stdin);
        let output = child.wait_with_output().expect("dvbctl ends");
        Output::of(format!("dvbctl {}", args.join(" ")), &output)
    }
    /// Runs devnetd itself on this home to its end: for what makes it end at once. One that serves instead is killed.
    pub fn devnetd(&self) -> Output {
        self.devnetd_at(&self.home, &[])
    }
    pub fn devnetd_at(&self, home: &Path, args: &[&str]) -> Output {
        let mut command = self.run(&binary("devnetd"));
        command.arg("--home").arg(home).args(args).env_remove("DVB_SOCKET").env("NO_COLOR", "1").envs(&self.env);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("devnetd starts");
        let start = Instant::now();
        while child.try_wait().expect("it is our child").is_none() && start.elapsed() < AT_ONCE {
            thread::sleep(Duration::from_millis(10)); // std has no wait with a limit
        }
        let _ = child.kill(); // it has ended, as it should
        Output::of("devnetd".into(), &child.wait_with_output().expect("devnetd ends"))
    }
    /// dvbctl for this home, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.run(&binary("dvbctl"));
        command.args(args).env_remove("DVB_SOCKET").env_remove("DVB_ADDRESS").env("DVB_HOME", &self.home).env("NO_COLOR", "1").envs(&self.env);
        command.current_dir(self.path());
        command
    }
    /// dvbctl for this home, which may open only so many descriptors, as what it starts; the hard limit stays. Not yet started.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    pub fn command_with_open_files(&self, soft: u64, args: &[&str]) -> Command {
        let plain = self.command(args);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -Sn "$1"; shift; exec "$@""#, "sh", &soft.to_string()]).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(self.path());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
    /// Where the home's files are.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    fn run(&self, program: &Path) -> Command {
        self.disk.as_ref().map_or_else(|| Command::new(program), |disk| disk.command(program))
    }

    /// `dvbctl ARGS -o json`, which must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        self.ctl(&args).ok().json()
    }
    #[track_caller]
    pub fn devnet(&self, name: &str) -> Value {
        self.json(&["get", "devnet", name])
    }
    #[track_caller]
    pub fn node(&self, name: &str) -> Value {
        self.json(&["get", "node", name])
    }
    /// The nodes of a devnet, by short name.
    #[track_caller]
    pub fn nodes(&self, devnet: &str) -> BTreeMap<String, Value> {
        let list = self.json(&["get", "nodes", devnet]);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items
            .into_iter()
            .map(|node| (node["metadata"]["name"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned(), node))
            .collect()
    }
    /// The process of a node; panics when it has none.
    #[track_caller]
    pub fn pid(&self, node: &str) -> Pid {
        let pid = self.node(node)["status"]["pid"].as_i64().unwrap_or_else(|| panic!("{node} has no pid"));
        Pid::from_raw(i32::try_from(pid).expect("a pid fits"))
    }
    pub fn daemon_pid(&self) -> Option<Pid> {
        let status = self.ctl(&["daemon", "status", "-o", "json"]);
        let pid = serde_json::from_str::<Value>(&status.stdout).ok()?["pid"].as_i64()?;
        Some(Pid::from_raw(i32::try_from(pid).ok()?))
    }
    /// Repeats `look` until it answers true. For what has no event to wait for; `dvbctl wait` is for the rest.
    #[track_caller]
    pub fn eventually(&self, what: &str, within: Duration, mut look: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !look(self) {
            assert!(start.elapsed() < within, "not within {within:?}: {what}\n{}", self.report());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Rows of a table of the daemon's store, read beside the daemon.
    #[track_caller]
    pub fn rows(&self, table: &str) -> u64 {
        self.store().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a table of the store")
    }
    /// The daemon's store, to be read beside the daemon.
    #[track_caller]
    pub(crate) fn store(&self) -> rusqlite::Connection {
        use rusqlite::{Connection, OpenFlags};
        if self.disk.is_none() {
            return Connection::open_with_flags(self.home.join("devnetd.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store opens");
        }
        // On a disk of its own SQLite would not find it: it resolves the path that leads into the namespace. So a copy is read.
        let copied = tempfile::tempdir().expect("a temporary folder");
        for name in ["devnetd.db", "devnetd.db-wal"] {
            let _ = fs::copy(self.files().join(name), copied.path().join(name)); // there is not always a journal
        }
        // Open files outlive the folder.
        let store = Connection::open_with_flags(copied.path().join("devnetd.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).expect("the store opens");
        store.query_row("SELECT count(*) FROM leases", [], |_| Ok(())).expect("a table of the store");
        store
    }

    /// What a developer would look at after a failure.
    fn report(&self) -> String {
        let nodes = self.ctl(&["get", "nodes", "-A", "-o", "wide"]);
        let log = fs::read_to_string(self.files().join("logs/devnetd.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("--- nodes\n{}{}\n--- daemon's last lines\n{}", nodes.stdout, nodes.stderr, tail.join("\n"))
    }

    /// Processes with this home in their environment, dvbctl's of the moment left out: the daemon, plugins, nodes.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        processes_of(self.home())
    }
}

impl Default for TestHome {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestHome {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.report());
        }
        if self.daemon_pid().is_none() && !self.processes().is_empty() {
            let _ = self.ctl(&["daemon", "start"]); // nodes without a daemon: it takes them up again
        }
        if self.daemon_pid().is_some() {
            let _ = self.ctl(&["delete", "devnets", "--all", "-A", "--yes", "--timeout", "60s"]);
            let _ = self.ctl(&["daemon", "stop", "--with-nodes"]);
        }
        // The daemon's last children end by themselves when it has gone; no event tells us, as they are not ours.
        let start = Instant::now();
        while !self.processes().is_empty() && start.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(20));
        }
        homes().remove(self.path());
        let left = self.processes();
        for (pid, _) in &left {
            let _ = kill(*pid, Signal::SIGKILL); // each carries this test's own folder
        }
        self.remove_cgroups();
        if !left.is_empty() && !thread::panicking() {
            panic!("left behind: {left:?}");
        }
    }
}

/// The folders of all homes that live, with the thread that made each.
static HOMES: Mutex<BTreeMap<PathBuf, ThreadId>> = Mutex::new(BTreeMap::new());

fn homes() -> MutexGuard<'static, BTreeMap<PathBuf, ThreadId>> {
    HOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all processes of the homes that a thread has made: it waits for one of them for too long.
pub(crate) fn end_homes_of(thread: ThreadId) {
    let folders: Vec<PathBuf> = homes().iter().filter(|(_, maker)| **maker == thread).map(|(folder, _)| folder.clone()).collect();
    folders.iter().for_each(|folder| end_processes_of(folder));
}

/// Kills all processes that carry this folder of a test's own in their environment or command line.
pub fn end_processes_of(folder: &Path) {
    for (pid, _) in processes_of(folder) {
        let _ = kill(pid, Signal::SIGKILL); // it may have ended
    }
}

/// Those with this path in their environment or command line.
fn processes_of(path: &Path) -> Vec<(Pid, String)> {
    let needle = path.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let environ = fs::read(entry.path().join("environ")).ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?; // empty: a zombie, which is nobody's work any more
            let ours = [&environ, &command].into_iter().any(|text| text.windows(needle.len()).any(|window| window == needle));
            ours.then(|| (Pid::from_raw(pid), String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
}
