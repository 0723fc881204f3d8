//! What every runtime must do: one suite, run for native processes with each driver, its process-free part for the fake as well.

mod adoption;
mod bench;
mod freeze;
mod grandchildren;
mod starts;

use super::{Adopted, Grants, Handle, LaunchSpec, Runtime, RuntimeError, StopPolicy, fake::FakeRuntime};
use crate::{
    cgroup::DriverChoice,
    model::{LaunchId, RawJson},
    reaper::LAUNCH_ID_VAR,
    sys::{SystemClock, process_env},
};
use adoption::*;
use bench::{Bench, PATIENCE, ended, eventually, is_alive};
use freeze::*;
use grandchildren::*;
use nix::sys::signal::Signal;
use starts::*;
use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, Write},
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

const POLITE: StopPolicy = StopPolicy { signal: Signal::SIGTERM, grace: Duration::from_secs(10) };
/// A part of a shell script: forks twice, in a session of its own, without a variable in its environment, deaf to SIGTERM.
const HIDES: &str = "setsid env -i sh -c 'trap \"\" TERM; sleep 1000 & echo $! > hidden; wait' & ";
/// The same, and it closes the log and leaves the folder.
const SHUTS: &str = "setsid env -i sh -c 'trap \"\" TERM; exec >/dev/null 2>&1; sleep 1000 & echo $! > hidden; cd /; wait' & ";
const CURT: StopPolicy = StopPolicy { signal: Signal::SIGTERM, grace: Duration::from_millis(200) };

/// Each test twice: once per driver.
macro_rules! for_each_driver {
    ($($name:ident),* $(,)?) => {
        mod with_cgroupfs {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(bench) = super::Bench::new(super::DriverChoice::Cgroupfs) {
                    super::$name(&bench).await;
                }
            })*
        }
        mod without_cgroups {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(bench) = super::Bench::new(super::DriverChoice::None) {
                    super::$name(&bench).await;
                }
            })*
        }
    };
}

for_each_driver!(
    exit_code_and_signal_are_reported,
    the_cpu_time_of_one_that_ended_is_told,
    any_number_of_waiters_hear_of_the_end,
    the_shared_rules_hold,
    stop_kills_what_ignores_the_signal,
    stop_lets_a_child_behind_a_shell_finish,
    a_double_forked_grandchild_is_dead_after_stop,
    a_grandchild_that_hides_dies_with_a_launch_of_an_earlier_daemon,
    one_that_forks_and_ends_without_end_is_gone_after_stop,
    a_start_that_is_called_off_forks_nothing_and_leaves_nothing,
    what_was_made_ready_and_never_forked_is_cleared_away_by_the_next_daemon,
    what_is_let_go_of_for_a_launch_is_held_until_it_is_its_turn_to_be_forked,
    a_grandchild_that_outlived_its_node_dies_with_destroy,
    a_stopped_process_can_be_stopped,
    a_frozen_launch_stands_still_as_a_whole_and_goes_on,
    a_frozen_launch_hears_its_stop_signal,
    a_frozen_launch_that_ignores_its_stop_signal_is_killed_and_destroyed_whole,
    one_that_waits_for_a_child_that_stands_still_stands_still_too_and_both_go_on,
    a_frozen_launch_dies_of_a_kill_from_outside,
    a_second_runtime_finds_it_frozen_and_can_thaw_it,
    a_core_that_was_dumped_is_told,
    a_second_runtime_adopts_what_the_first_started,
    an_orphan_is_adopted_and_its_death_seen,
    a_launch_without_a_record_is_found_by_its_id,
    the_exit_of_one_that_died_unwatched_is_told_by_the_keeper,
    on_an_old_kernel_stop_is_as_thorough_and_an_adopted_exit_unknown,
    a_reused_pid_is_never_signalled,
    a_copied_home_leaves_the_processes_of_the_first_alone,
    what_cannot_be_executed_is_an_error_of_start,
    the_log_gets_both_streams_and_is_ours_alone,
    only_intended_descriptors_are_inherited,
    the_environment_is_exactly_the_allow_list,
    a_granted_descriptor_is_readable_by_its_name,
    signals_are_back_to_their_defaults,
    a_job_leaves_its_output_and_nothing_else,
    a_job_that_runs_too_long_is_killed,
    a_job_that_nobody_waits_for_is_killed,
    strays_are_found_and_ended_by_their_id,
    jobs_of_a_daemon_that_was_killed_are_ended_and_launches_are_not,
    usage_is_measured,
    its_processes_are_told_from_all_others,
    fifty_children_start_and_end_quickly,
);

#[tokio::test]
async fn the_fake_keeps_the_shared_rules() {
    let fake = FakeRuntime::new(Arc::new(SystemClock));
    shared_rules(&fake, &LaunchSpec { id: LaunchId("a".into()), ..LaunchSpec::default() }).await;
}

#[test]
fn a_handle_survives_its_json_form() {
    let Some(bench) = Bench::new(DriverChoice::None) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = bench.start(&["/bin/sleep", "100"]).await;
        let back: Handle = serde_json::from_str(&serde_json::to_string(&handle).unwrap()).unwrap();
        assert_eq!(back, handle);
        assert_eq!(bench.another_runtime().adopt(&back).await.unwrap(), Adopted::Running);
        let other = Handle { version: 99, ..handle.clone() };
        assert!(matches!(bench.another_runtime().adopt(&other).await, Err(RuntimeError::ForeignHandle(_))));
        bench.runtime.destroy(&handle).await.unwrap();
    });
}

#[test]
fn a_node_outlives_the_runtime_and_all_its_threads() {
    let Some(bench) = Bench::new(DriverChoice::Auto) else { return };
    let tokio = || tokio::runtime::Runtime::new().unwrap();
    let handle = tokio().block_on(bench.shell("while :; do echo on >> node.out; sleep 0.05; done"));
    // Its log file still takes what it writes, and no pipe broke.
    let size = || fs::metadata(bench.path("node.out")).map_or(0, |about| about.len());
    let before = size();
    tokio().block_on(async {
        eventually(|| (size() > before + 6).then_some(())).await;
        let second = bench.another_runtime();
        assert_eq!(second.adopt(&handle).await.unwrap(), Adopted::Running);
        second.destroy(&handle).await.unwrap();
    });
    assert!(!is_alive(handle.pid.unwrap()));
}

async fn the_shared_rules_hold(bench: &Bench) {
    shared_rules(&bench.runtime, &bench.spec(&["/bin/sleep", "1000"])).await;
}

/// `spec` runs until it is stopped.
async fn shared_rules(runtime: &dyn Runtime, spec: &LaunchSpec) {
    let handle = runtime.start(spec.clone(), Grants::default()).await.unwrap();
    assert_eq!(handle.id, spec.id);
    assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Running);
    assert_eq!(runtime.find(&spec.id).await.unwrap().as_ref(), Some(&handle));
    assert_eq!(runtime.find(&LaunchId("never forked".into())).await.unwrap(), None);
    assert!(runtime.late_exit(&handle).is_none(), "it lives");
    assert!(!runtime.is_frozen(&handle).await.unwrap());
    runtime.freeze(&handle).await.unwrap();
    assert!(runtime.is_frozen(&handle).await.unwrap());
    assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Running);
    runtime.thaw(&handle).await.unwrap();
    assert!(!runtime.is_frozen(&handle).await.unwrap());
    runtime.freeze(&handle).await.unwrap();
    assert_eq!(runtime.owned().await.unwrap(), std::slice::from_ref(&handle.id));
    let exit = runtime.stop(&handle, POLITE).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.requested), (None, Some(15), true));
    for _ in 0..2 {
        assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Exited(exit.clone()), "again and again");
        assert_eq!(runtime.wait(&handle).await.unwrap(), exit);
        assert_eq!(runtime.stop(&handle, POLITE).await.unwrap(), exit, "stopping the dead is harmless");
    }
    assert!(runtime.late_exit(&handle).is_none(), "all is known");
    runtime.signal(&handle, Signal::SIGHUP).await.unwrap();
    assert_eq!(runtime.owned().await.unwrap(), []);
    for _ in 0..2 {
        runtime.clear(&handle).await.unwrap();
        assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Exited(exit.clone()), "how it ended is kept");
    }
    runtime.destroy(&handle).await.unwrap();
    runtime.destroy(&handle).await.unwrap();
    assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Gone);
    assert_eq!(runtime.find(&spec.id).await.unwrap(), None);
}

async fn exit_code_and_signal_are_reported(bench: &Bench) {
    let handle = bench.shell("exit 7").await;
    let exit = ended(&bench.runtime, &handle).await;
    assert_eq!((exit.code, exit.signal, exit.requested), (Some(7), None, false));
    let handle = bench.shell("kill -ABRT $$").await;
    let exit = ended(&bench.runtime, &handle).await;
    assert_eq!((exit.code, exit.signal, exit.requested), (None, Some(6), false));
    let handle = bench.start(&["/bin/sleep", "1000"]).await;
    bench.runtime.signal(&handle, Signal::SIGKILL).await.unwrap();
    assert_eq!(ended(&bench.runtime, &handle).await.signal, Some(9));
}

async fn the_cpu_time_of_one_that_ended_is_told(bench: &Bench) {
    // A child that it waits for counts too, and is most of it.
    let handle = bench.shell("sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; exit 3").await;
    let exit = ended(&bench.runtime, &handle).await;
    assert_eq!(exit.code, Some(3));
    assert!(exit.cpu_time_ms.is_some_and(|ms| (20..60_000).contains(&ms)), "{exit:?}");
    let exit = bench.runtime.stop(&bench.start(&["/bin/sleep", "1000"]).await, POLITE).await.unwrap();
    assert!(exit.cpu_time_ms.is_some_and(|ms| ms < 1_000), "{exit:?}");
}

async fn a_core_that_was_dumped_is_told(bench: &Bench) {
    let handle = bench.shell("ulimit -c 0; kill -ABRT $$").await;
    assert!(!ended(&bench.runtime, &handle).await.core_dumped);
    let handle = bench.shell("ulimit -c unlimited || exit 3; kill -ABRT $$").await;
    let exit = ended(&bench.runtime, &handle).await;
    match exit.code {
        Some(3) => println!("SKIP: this process may not raise its limit of core files"),
        _ => assert_eq!((exit.signal, exit.core_dumped), (Some(6), true)),
    }
}

async fn any_number_of_waiters_hear_of_the_end(bench: &Bench) {
    let handle = bench.start(&["/bin/sleep", "1000"]).await;
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let (runtime, handle) = (bench.runtime.clone(), handle.clone());
            tokio::spawn(async move { ended(&runtime, &handle).await })
        })
        .collect();
    bench.runtime.destroy(&handle).await.unwrap();
    for waiter in waiters {
        // One that came after destroy finds no trace.
        assert!(matches!(waiter.await.unwrap().signal, Some(9) | None));
    }
}

async fn stop_kills_what_ignores_the_signal(bench: &Bench) {
    let handle = bench.shell("trap '' TERM; echo $$ > pid; while :; do sleep 1; done").await;
    let pid = bench.number_in("pid").await;
    let started = Instant::now();
    let exit = bench.runtime.stop(&handle, CURT).await.unwrap();
    assert_eq!((exit.signal, exit.requested), (Some(9), true));
    assert!(started.elapsed() >= CURT.grace && started.elapsed() < PATIENCE);
    assert!(!is_alive(pid));
}

async fn stop_lets_a_child_behind_a_shell_finish(bench: &Bench) {
    // The shell dies of the signal; what it started wants a moment to close its database.
    let handle = bench.shell("sh -c \"trap 'sleep 0.3; echo closed > done; exit' TERM; echo 1 > up; while :; do sleep 0.1; done\" & wait").await;
    bench.number_in("up").await;
    let exit = bench.runtime.stop(&handle, POLITE).await.unwrap();
    assert_eq!(exit.signal, Some(15));
    assert_eq!(fs::read_to_string(bench.path("done")).unwrap(), "closed\n");
}

async fn its_processes_are_told_from_all_others(bench: &Bench) {
    let other = bench.start(&["/bin/sleep", "1000"]).await;
    let handle = bench.shell("sleep 1000 & echo $! > child; wait").await;
    let child = bench.number_in("child").await;
    let mut told = bench.runtime.processes(&handle).await.unwrap().unwrap();
    told.sort_unstable();
    let mut expect = [handle.pid.unwrap(), child];
    expect.sort_unstable();
    assert_eq!(told, expect);
    bench.runtime.destroy(&handle).await.unwrap();
    assert_eq!(bench.runtime.processes(&handle).await.unwrap(), Some(vec![]));
    bench.runtime.destroy(&other).await.unwrap();
}

async fn a_stopped_process_can_be_stopped(bench: &Bench) {
    let handle = bench.start(&["/bin/sleep", "1000"]).await;
    bench.runtime.signal(&handle, Signal::SIGSTOP).await.unwrap();
    let exit = bench.runtime.stop(&handle, POLITE).await.unwrap();
    assert_eq!(exit.signal, Some(15));
}

async fn what_cannot_be_executed_is_an_error_of_start(bench: &Bench) {
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = bench.path(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut elf = fs::read("/bin/sh").unwrap();
    // e_machine: SPARC.
    elf[18..20].copy_from_slice(&[2, 0]);
    let missing = bench.path("missing").to_str().unwrap().to_owned();
    let refused = |program: String| async move { bench.runtime.start(bench.spec(&[&program]), Grants::default()).await.unwrap_err() };
    assert!(matches!(refused(missing).await, RuntimeError::NoProgram { .. }));
    assert!(matches!(refused(file("plain", b"#!/bin/sh\n", 0o644)).await, RuntimeError::NotExecutable { .. }));
    assert!(matches!(refused(file("headless", b"echo no shell > ran\n", 0o755)).await, RuntimeError::NotExecutable { .. }));
    assert!(matches!(refused(file("sparc", &elf, 0o755)).await, RuntimeError::WrongArchitecture { .. }));
    assert!(matches!(refused(file("lost", b"#!/no/such/interpreter\n", 0o755)).await, RuntimeError::Spawn { .. }));
    assert!(matches!(refused(bench.dir.path().to_str().unwrap().to_owned()).await, RuntimeError::NotExecutable { .. }));
    assert!(matches!(refused("sleep".into()).await, RuntimeError::Unsupported(_)));
    assert!(!bench.path("ran").exists(), "nothing goes through a shell");
    let lost = LaunchSpec { cwd: bench.path("nowhere"), ..bench.spec(&["/bin/true"]) };
    assert!(matches!(bench.runtime.start(lost, Grants::default()).await, Err(RuntimeError::Io { path, .. }) if path.ends_with("nowhere")));
    assert_eq!(bench.runtime.inner_leaves().len(), 0, "no cgroup is left of what did not start");
}

async fn the_log_gets_both_streams_and_is_ours_alone(bench: &Bench) {
    fs::write(bench.path("node.log"), "before\n").unwrap();
    fs::remove_file(bench.path("node.log")).unwrap();
    for text in ["one", "two"] {
        let handle = bench.shell(&format!("echo out {text}; echo err {text} >&2; cat")).await;
        assert_eq!(ended(&bench.runtime, &handle).await.code, Some(0), "stdin is at its end");
    }
    assert_eq!(bench.log(), "out one\nerr one\nout two\nerr two\n");
    assert_eq!(fs::metadata(bench.path("node.log")).unwrap().permissions().mode() & 0o777, 0o600);
}

async fn only_intended_descriptors_are_inherited(bench: &Bench) {
    // One that the daemon holds without CLOEXEC, as a careless library would.
    let leaky = fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let handle = bench.start(&["/bin/ls", "-l", "/proc/self/fd"]).await;
    assert_eq!(ended(&bench.runtime, &handle).await.code, Some(0));
    let log = bench.log();
    let targets: BTreeMap<u32, &str> = log
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(left, target)| (left.rsplit(' ').next().unwrap().parse().unwrap(), target))
        .collect();
    let log_path = bench.path("node.log");
    let log_path = log_path.to_str().unwrap();
    assert_eq!((targets[&0], targets[&1], targets[&2]), ("/dev/null", log_path, log_path));
    // The last is ls's own view of the folder.
    assert_eq!(targets.len(), 4, "{log}");
}

async fn the_environment_is_exactly_the_allow_list(bench: &Bench) {
    let mut spec = bench.spec(&["/usr/bin/env"]);
    spec.env = [("A", "b c"), ("TZ", "Asia/Seoul"), ("DVB_LAUNCH_ID", "forged")].map(|(name, value)| (name.into(), value.into())).into();
    let handle = bench.runtime.start(spec.clone(), Grants::default()).await.unwrap();
    ended(&bench.runtime, &handle).await;
    let log = bench.log();
    let seen: BTreeMap<&str, &str> = log.lines().filter_map(|line| line.split_once('=')).collect();
    let inherited: Vec<(&str, String)> = ["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
    let home = dvb_proto::endpoint::home_hash(bench.dir.path());
    let mut expect: BTreeMap<&str, &str> = inherited.iter().map(|(name, value)| (*name, value.as_str())).collect();
    expect.extend([("A", "b c"), ("TZ", "Asia/Seoul"), ("DVB_LAUNCH_ID", handle.id.as_str()), ("DVB_HOME_ID", home.as_str())]);
    assert_eq!(seen, expect);
}

async fn a_granted_descriptor_is_readable_by_its_name(bench: &Bench) {
    let mut secret = tempfile::tempfile().unwrap();
    writeln!(secret, "the key").unwrap();
    secret.rewind().unwrap();
    let mut spec = bench.spec(&["/bin/sh", "-c", "cat {fd:key}; echo $KEY_PATH"]);
    spec.env.insert("KEY_PATH".into(), "{fd:key}".into());
    let grants = Grants { fds: vec![("key".into(), secret.into())], ..Grants::default() };
    let handle = bench.runtime.start(spec.clone(), grants).await.unwrap();
    ended(&bench.runtime, &handle).await;
    assert!(bench.log().starts_with("the key\n/dev/fd/"), "{}", bench.log());
    let unknown = bench.spec(&["/bin/cat", "{fd:nothing}"]);
    assert!(matches!(bench.runtime.start(unknown, Grants::default()).await, Err(RuntimeError::Unsupported(_))));
}

async fn signals_are_back_to_their_defaults(bench: &Bench) {
    // Rust programs, this test among them, ignore SIGPIPE.
    let handle = bench.start(&["/bin/grep", "^Sig", "/proc/self/status"]).await;
    ended(&bench.runtime, &handle).await;
    let log = bench.log();
    for field in ["SigBlk", "SigIgn"] {
        assert!(log.contains(&format!("{field}:\t0000000000000000")), "{log}");
    }
}

async fn a_job_leaves_its_output_and_nothing_else(bench: &Bench) {
    let job = bench.job("echo out; echo err >&2; sleep 1000 & echo $! > background; exit 3", PATIENCE);
    for _ in 0..2 {
        let result = bench.runtime.run(&job).await.unwrap();
        assert_eq!((result.exit.code, result.exit.requested), (Some(3), false));
        assert_eq!(fs::read_to_string(&result.stdout).unwrap(), "out\n");
        assert_eq!(fs::read_to_string(&result.stderr).unwrap(), "err\n");
    }
    assert!(!is_alive(bench.number_in("background").await));
    assert_eq!(bench.runtime.inner_leaves().len(), 0);
}

async fn a_job_that_runs_too_long_is_killed(bench: &Bench) {
    let job = bench.job("echo $$ > pid; exec sleep 1000", Duration::from_millis(300));
    let refused = bench.runtime.run(&job).await;
    assert!(matches!(refused, Err(RuntimeError::JobTimedOut { name, after }) if name == "init" && after == job.timeout));
    assert!(!is_alive(bench.number_in("pid").await));
}

async fn a_job_that_nobody_waits_for_is_killed(bench: &Bench) {
    let (runtime, job) = (bench.runtime.clone(), bench.job("echo $$ > pid; exec sleep 1000", PATIENCE));
    let task = tokio::spawn(async move { runtime.run(&job).await });
    let pid = bench.number_in("pid").await;
    assert_eq!(bench.runtime.owned().await.unwrap(), [], "a job under way is no stray");
    task.abort();
    eventually(|| (!is_alive(pid)).then_some(())).await;
    eventually(|| bench.runtime.inner_leaves().is_empty().then_some(())).await;
}

async fn jobs_of_a_daemon_that_was_killed_are_ended_and_launches_are_not(bench: &Bench) {
    let handle = bench.shell("exec sleep 1000").await;
    let (runtime, job) = (bench.runtime.clone(), bench.job("echo $$ > pid; exec sleep 1000", PATIENCE));
    let task = tokio::spawn(async move { runtime.run(&job).await });
    let pid = bench.number_in("pid").await;
    bench.runtime.end_abandoned_jobs().await.unwrap();
    assert!(is_alive(pid), "its own daemon waits for it");
    task.abort();
    eventually(|| (!is_alive(pid)).then_some(())).await;
    // What a dead daemon leaves: the first runtime must not clear it away itself, as it would a job of its own.
    let mut spec = bench.spec(&["/bin/sleep", "1000"]);
    spec.id = LaunchId(format!("job-{}", spec.id));
    let left = bench.runtime.start(spec.clone(), Grants::default()).await.unwrap().pid.unwrap();
    // The kernel lets us go on when the program is mapped, and shows its environment a moment later.
    eventually(|| process_env(left, LAUNCH_ID_VAR)).await;
    bench.another_runtime().end_abandoned_jobs().await.unwrap();
    assert!(!is_alive(left));
    assert!(is_alive(handle.pid.unwrap()));
}

async fn strays_are_found_and_ended_by_their_id(bench: &Bench) {
    let handle = bench.shell("setsid sleep 1000 & echo $! > left; wait").await;
    let left = bench.number_in("left").await;
    let second = bench.another_runtime();
    assert_eq!(second.owned().await.unwrap(), std::slice::from_ref(&handle.id));
    let by_id = Handle { pid: None, state: RawJson::null(), ..handle.clone() };
    assert_eq!(second.adopt(&by_id).await.unwrap(), Adopted::Gone);
    second.destroy(&by_id).await.unwrap();
    assert!(!is_alive(left) && !is_alive(handle.pid.unwrap()));
    assert_eq!(second.owned().await.unwrap(), []);
    assert_eq!(bench.runtime.inner_leaves().len(), 0);
}

async fn usage_is_measured(bench: &Bench) {
    let handle = bench.shell("while :; do :; done").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.runtime.usage(&handle).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let usage = bench.runtime.usage(&handle).await.unwrap();
    println!("busy loop: {usage:?}");
    // Other tests share the cores.
    assert!(usage.cpu > 0.05 && usage.cpu < 1.2, "{usage:?}");
    assert!(usage.memory > 100_000 && usage.memory < 100_000_000, "{usage:?}");
    assert_eq!(usage.fds, 3);
    assert!(usage.io_read.is_some() && usage.io_written.is_some(), "{usage:?}");
    bench.runtime.destroy(&handle).await.unwrap();
    assert_eq!(bench.runtime.usage(&handle).await.unwrap(), crate::model::Usage::default());
}

async fn fifty_children_start_and_end_quickly(bench: &Bench) {
    let (mut starts, mut deaths, mut respawns, mut handles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    for _ in 0..50 {
        let one = Instant::now();
        handles.push(bench.start(&["/bin/sleep", "1000"]).await);
        starts.push(one.elapsed());
    }
    let all = begun.elapsed();
    for index in 0..50 {
        let one = Instant::now();
        bench.runtime.signal(&handles[index], Signal::SIGKILL).await.unwrap();
        assert_eq!(ended(&bench.runtime, &handles[index]).await.signal, Some(9));
        deaths.push(one.elapsed());
        handles.push(bench.start(&["/bin/sleep", "1000"]).await);
        respawns.push(one.elapsed());
    }
    for handle in &handles {
        bench.runtime.destroy(handle).await.unwrap();
    }
    let half = |times: &mut Vec<Duration>| {
        times.sort();
        format!("p50 {:?} p98 {:?}", times[25], times[48])
    };
    println!("{:?}: 50 starts {all:?}, each {}", bench.driver, half(&mut starts));
    println!("{:?}: kill to exit seen {}; to respawned {}", bench.driver, half(&mut deaths), half(&mut respawns));
    assert!(all < PATIENCE);
    assert_eq!(bench.runtime.owned().await.unwrap(), []);
    assert_eq!(bench.runtime.inner_leaves().len(), 0, "no cgroup is left");
}
