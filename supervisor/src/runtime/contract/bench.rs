//! Where the contract is tried: a home, a runtime, and a broom.

use crate::{
    cgroup::DriverChoice,
    config::Home,
    model::{Exit, LaunchId},
    runtime::{Grants, Handle, JobSpec, LaunchSpec, Machine, NativeRuntime, Runtime, RuntimeError},
    sys::{Clock, Pidfd, SystemClock, all_pids, process_env, process_stat},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::timeout;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime in a home of its own. Whatever the test does, its processes and cgroups are gone afterwards.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) driver: DriverChoice,
    pub(super) runtime: NativeRuntime,
}

impl Bench {
    pub(super) fn new(driver: DriverChoice) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        match native(&dir, driver) {
            Ok(runtime) => Some(Self { dir, driver, runtime }),
            Err(error) => {
                println!("SKIP: {error}");
                None
            }
        }
    }

    /// As after a restart of the daemon: it knows nothing but the home.
    pub(super) fn another_runtime(&self) -> NativeRuntime {
        native(&self.dir, self.driver).unwrap()
    }

    /// Of the same home, with the driver of the bench.
    pub(super) fn runtime_on(&self, machine: Machine) -> NativeRuntime {
        NativeRuntime::new(&Home::new(self.dir.path().to_owned()), Arc::new(SystemClock), Machine { driver: self.driver, ..machine }).unwrap()
    }

    pub(super) fn home_hash(&self) -> String {
        dvb_proto::endpoint::home_hash(self.dir.path())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn spec(&self, argv: &[&str]) -> LaunchSpec {
        LaunchSpec {
            id: LaunchId::from_uuid(SystemClock.fresh_id()),
            path: ["ns", "net", "node-0"].map(String::from).into(),
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: self.dir.path().to_owned(),
            log: self.path("node.log"),
            ..LaunchSpec::default()
        }
    }

    /// With its log where a home has those of its nodes.
    pub(super) fn at_home(&self, argv: &[&str]) -> LaunchSpec {
        let spec = self.spec(argv);
        let log = Home::new(self.dir.path().to_owned()).node_logs("ns", "net", "node-0").join(format!("{}.log", spec.id));
        LaunchSpec { log, ..spec }
    }

    /// A shell script in the folder where launches run.
    pub(super) fn program(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(super) async fn start(&self, argv: &[&str]) -> Handle {
        self.runtime.start(self.spec(argv), Grants::default()).await.unwrap()
    }

    pub(super) async fn shell(&self, script: &str) -> Handle {
        self.start(&["/bin/sh", "-c", script]).await
    }

    pub(super) fn job(&self, script: &str, timeout: Duration) -> JobSpec {
        JobSpec {
            name: "init".into(),
            path: ["ns", "net", "init"].map(String::from).into(),
            argv: ["/bin/sh", "-c", script].map(String::from).into(),
            cwd: self.dir.path().to_owned(),
            out_dir: self.path("out"),
            timeout,
            ..JobSpec::default()
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("node.log")).unwrap_or_default()
    }

    /// Waits for a file that a process under test writes, and reads a number from it. No event tells of a half-written file.
    pub(super) async fn number_in(&self, name: &str) -> u32 {
        eventually(|| fs::read_to_string(self.path(name)).ok()?.strip_suffix('\n')?.parse().ok()).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path("go")); // what forks without end ends without it
        let home = dvb_proto::endpoint::home_hash(self.dir.path());
        for _ in 0..3 {
            for pid in all_pids().unwrap() {
                if process_env(pid, "DVB_HOME_ID").as_ref() == Some(&home) && pid != std::process::id() {
                    let held = Pidfd::open(pid);
                    if process_env(pid, "DVB_HOME_ID").as_ref() == Some(&home) {
                        let _ = held.map(|held| held.signal(Signal::SIGKILL));
                    }
                }
            }
            for leaf in self.runtime.inner_leaves() {
                let _ = leaf.kill();
                let started = Instant::now();
                while leaf.populated().unwrap_or(false) && started.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = leaf.remove();
            }
        }
    }
}

fn native(dir: &TempDir, driver: DriverChoice) -> Result<NativeRuntime, RuntimeError> {
    NativeRuntime::new(&Home::new(dir.path().to_owned()), Arc::new(SystemClock), Machine { driver, ..Machine::default() })
}

/// Looks again and again: for what the outside world does without telling us.
pub(super) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn is_alive(pid: u32) -> bool {
    process_stat(pid).is_some_and(|stat| !stat.is_zombie())
}

pub(super) async fn ended(runtime: &dyn Runtime, handle: &Handle) -> Exit {
    timeout(PATIENCE, runtime.wait(handle)).await.expect("it ends").unwrap()
}
