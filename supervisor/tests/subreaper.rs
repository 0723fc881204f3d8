//! The native runtime without cgroups as the subreaper of its process: what a node hides well still dies with it, and leaves no zombie.
//! A file of its own, as it makes the whole test program a subreaper.

use devnetd::{
    cgroup::DriverChoice,
    config::Home,
    model::LaunchId,
    runtime::{Grants, LaunchSpec, Machine, NativeRuntime, Runtime, StopPolicy},
    sys::{Clock, Pidfd, SystemClock, all_pids, process_env, process_stat},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// Looks again and again: nothing tells us what strangers write or when they die.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn number_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Kills what a failed test would leave.
struct Broom(u32);

impl Drop for Broom {
    fn drop(&mut self) {
        if let Ok(pidfd) = Pidfd::open(self.0)
            && process_stat(self.0).is_some_and(|stat| stat.parent == std::process::id())
        {
            let _ = pidfd.signal(Signal::SIGKILL);
        }
    }
}

fn alive(pid: u32) -> bool {
    process_stat(pid).is_some_and(|stat| !stat.is_zombie())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grandchild_that_hides_dies_with_its_node_and_only_with_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine { driver: DriverChoice::None, subreaper: true, ..Machine::default() };
    let runtime = NativeRuntime::new(&Home::new(dir.path().to_owned()), Arc::new(SystemClock), machine).unwrap();
    let me = std::process::id();
    let mut hidden = Vec::new();
    let mut handles = Vec::new();
    for name in ["one", "other"] {
        // Forked twice, in a session of its own, without a variable in its environment, deaf to SIGTERM.
        let script = format!(
            "setsid env -i /bin/sh -c 'trap \"\" TERM; /bin/sleep 1000 & echo $! > {name}.pid.new; mv {name}.pid.new {name}.pid' & wait; exec sleep 1000"
        );
        let spec = LaunchSpec {
            id: LaunchId::from_uuid(SystemClock.fresh_id()),
            argv: ["/bin/sh", "-c", &script].map(String::from).into(),
            env: [("PATH".into(), "/usr/bin:/bin".into())].into(),
            cwd: dir.path().to_owned(),
            log: dir.path().join(format!("{name}.log")),
            ..LaunchSpec::default()
        };
        let handle = runtime.start(spec, Grants::default()).await.unwrap();
        let path = dir.path().join(format!("{name}.pid"));
        let pid = eventually("the hidden one is forked", || number_in(&path)).await;
        eventually("it comes to us", || process_stat(pid).filter(|stat| stat.parent == me)).await;
        assert_eq!(process_env(pid, "DVB_LAUNCH_ID"), None);
        assert_ne!(process_stat(pid).unwrap().session, handle.pid.unwrap());
        hidden.push(Broom(pid));
        handles.push(handle);
    }
    let curt = StopPolicy { signal: Signal::SIGTERM, grace: Duration::from_millis(300) };
    runtime.stop(&handles[0], curt).await.unwrap();
    assert!(!alive(hidden[0].0), "dead with its node");
    assert!(alive(hidden[1].0) && alive(handles[1].pid.unwrap()), "the other node and what it hides live on");
    // It dies by itself: then its node's end finds the rest.
    runtime.signal(&handles[1], Signal::SIGKILL).await.unwrap();
    runtime.wait(&handles[1]).await.unwrap();
    runtime.destroy(&handles[1]).await.unwrap();
    assert!(!alive(hidden[1].0));
    runtime.destroy(&handles[0]).await.unwrap();
    eventually("nothing is left, not even a zombie", || {
        let left = all_pids().unwrap().into_iter().filter_map(process_stat).filter(|stat| stat.parent == me).count();
        (left == 0).then_some(())
    })
    .await;
}

/// In a container without a shell of its own the leader of our session is a process that nobody here can see.
#[test]
#[expect(clippy::disallowed_methods, reason = "a second test program, waited for to its end; the namespace kills what it would leave")]
fn a_session_that_was_opened_outside_our_pid_namespace_hides_nobody() {
    let namespace = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    match Command::new("unshare").args(namespace).arg("true").output() {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => return println!("SKIP: no PID namespace for us: {}", String::from_utf8_lossy(&tried.stderr).trim()),
        Err(error) => return println!("SKIP: unshare does not run: {error}"),
    }
    let program = std::env::current_exe().unwrap();
    let test = ["--exact", "--nocapture", "a_grandchild_that_hides_dies_with_its_node_and_only_with_its_own"];
    // Not as its PID 1: that one adopts all orphans, whoever is the nearest subreaper.
    let inside = Command::new("unshare").args(namespace).args(["sh", "-c", r#""$0" "$@"; exit $?"#]).arg(program).args(test).output().unwrap();
    let said = [inside.stdout, inside.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}
