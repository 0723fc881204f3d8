//! What an earlier daemon left: handles, processes without one, exits that nobody saw, and pids that belong to strangers now.

use super::{
    CURT, HIDES, POLITE, SHUTS,
    bench::{Bench, PATIENCE, ended, eventually, is_alive},
};
use crate::{
    config,
    keeper::Keeper,
    model::{Exit, LaunchId, RawJson},
    runtime::{Adopted, Grants, Handle, Machine, NativeRuntime, Runtime},
    sys::{Clock, Kernel, Pidfd, SystemClock, boot_id, command, process_env, process_stat},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{fs, os::fd::AsFd, sync::Arc, time::Duration};
use tokio::time::timeout;

pub(super) async fn a_second_runtime_adopts_what_the_first_started(bench: &Bench) {
    let handle = bench.shell("echo 1 > up; sleep 1000 & wait").await;
    bench.number_in("up").await;
    let second = bench.another_runtime();
    assert_eq!(second.owned().await.unwrap(), std::slice::from_ref(&handle.id));
    for _ in 0..2 {
        assert_eq!(second.adopt(&handle).await.unwrap(), Adopted::Running);
    }
    let exit = second.stop(&handle, POLITE).await.unwrap();
    assert!(exit.requested);
    assert!(matches!(second.adopt(&handle).await.unwrap(), Adopted::Exited(_)));
    second.destroy(&handle).await.unwrap();
    assert_eq!(second.adopt(&handle).await.unwrap(), Adopted::Gone);
    assert!(!ended(&bench.runtime, &handle).await.requested, "the first one did not ask for it");
    assert_eq!(bench.another_runtime().adopt(&handle).await.unwrap(), Adopted::Gone);
}

pub(super) async fn a_grandchild_that_hides_dies_with_a_launch_of_an_earlier_daemon(bench: &Bench) {
    for (hides, main_lives) in [(HIDES, true), (HIDES, false), (SHUTS, true), (SHUTS, false)] {
        let script = format!("{hides} {}", if main_lives { "exec sleep 1000" } else { "while [ ! -e hidden ]; do sleep 0.01; done" });
        let _ = fs::remove_file(bench.path("hidden"));
        let handle = bench.runtime.start(bench.at_home(&["/bin/sh", "-c", &script]), Grants::default()).await.unwrap();
        let hidden = bench.number_in("hidden").await;
        let second = match main_lives {
            true => bench.another_runtime(),
            false => {
                ended(&bench.runtime, &handle).await;
                bench.another_runtime()
            }
        };
        assert!(is_alive(hidden));
        second.stop(&handle, CURT).await.unwrap();
        assert!(!is_alive(hidden), "its node lives: {main_lives}; {hides}");
        second.destroy(&handle).await.unwrap();
    }
}

pub(super) async fn an_orphan_is_adopted_and_its_death_seen(bench: &Bench) {
    let handle = orphan(bench, "orphaned").await;
    assert_eq!(bench.runtime.adopt(&handle).await.unwrap(), Adopted::Running);
    bench.runtime.signal(&handle, Signal::SIGKILL).await.unwrap();
    let exit = ended(&bench.runtime, &handle).await;
    assert!(!exit.requested);
    assert!(matches!(exit.signal, None | Some(9)), "{exit:?}");
    // The status comes when the new parent has reaped it, where this kernel tells it at all.
    let told = timeout(Duration::from_secs(9), async {
        loop {
            match bench.runtime.adopt(&handle).await.unwrap() {
                Adopted::Exited(Exit { signal: Some(signal), .. }) => return signal,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    match told.await {
        Ok(signal) => assert_eq!(signal, 9),
        Err(_) => println!("SKIP of the status: PID 1 does not reap here, or the kernel is older than 6.15"),
    }
    bench.runtime.destroy(&handle).await.unwrap();
}

pub(super) async fn a_launch_without_a_record_is_found_by_its_id(bench: &Bench) {
    // A session of its own with the same id beside the main process, which has executed another program since.
    let handle = bench.shell("setsid sleep 1000 & echo $! > beside; exec sleep 2000").await;
    let beside = bench.number_in("beside").await;
    eventually(|| process_stat(beside).filter(|stat| stat.session == beside)).await;
    let second = bench.another_runtime();
    let found = second.find(&handle.id).await.unwrap().expect("it lives");
    assert_eq!((&found.id, found.pid), (&handle.id, handle.pid));
    assert!(found.started_at.since(handle.started_at) < Duration::from_secs(2) && handle.started_at.since(found.started_at) < Duration::from_secs(2));
    assert_eq!(second.adopt(&found).await.unwrap(), Adopted::Running);
    second.stop(&found, POLITE).await.unwrap();
    assert!(!is_alive(handle.pid.unwrap()) && !is_alive(beside));
    second.destroy(&found).await.unwrap();
    assert_eq!(bench.another_runtime().find(&handle.id).await.unwrap(), None);
}

pub(super) async fn the_exit_of_one_that_died_unwatched_is_told_by_the_keeper(bench: &Bench) {
    let keeper = Keeper::in_a_thread(bench.home_hash());
    let recorded = died_unwatched(bench, &keeper, "recorded").await;
    let unrecorded = died_unwatched(bench, &keeper, "unrecorded").await.id;
    keeper.put("launch/on-record-already", Pidfd::open(std::process::id()).unwrap().as_fd()).unwrap();
    drop(keeper);

    let keeper = Keeper::in_a_thread(bench.home_hash());
    let open = [recorded.id.clone(), unrecorded.clone()].into();
    let runtime = bench.runtime_on(Machine { keeper: Some(keeper.clone()), open, ..Machine::default() });
    assert_eq!(keeper.names().unwrap(), ["launch/recorded", "launch/unrecorded"], "of others nothing is held");
    let found = runtime.find(&unrecorded).await.unwrap().expect("the keeper held it");
    for handle in [recorded, found] {
        let Adopted::Exited(exit) = runtime.adopt(&handle).await.unwrap() else { panic!("it is dead") };
        assert!(exit.unseen && !exit.requested);
        let whole = match runtime.late_exit(&handle) {
            Some(late) => timeout(PATIENCE, late).await.expect("it comes or is given up"),
            None => exit,
        };
        match whole.signal {
            None => println!("SKIP of the status: PID 1 does not reap here, or the kernel is older than 6.15"),
            Some(signal) => assert_eq!(signal, Signal::SIGABRT as i32),
        }
        runtime.destroy(&handle).await.unwrap();
        assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Gone);
    }
    assert_eq!(keeper.names().unwrap(), Vec::<String>::new());
    keeper.close();
}

pub(super) async fn on_an_old_kernel_stop_is_as_thorough_and_an_adopted_exit_unknown(bench: &Bench) {
    let old = bench.runtime_on(Machine { kernel: Kernel::old(), ..Machine::default() });
    let spec = bench.spec(&["/bin/sh", "-c", "setsid sh -c 'sleep 1000 & echo $! > grandchild; wait' & exec sleep 1000"]);
    let handle = old.start(spec, Grants::default()).await.unwrap();
    let grandchild = bench.number_in("grandchild").await;
    let exit = old.stop(&handle, CURT).await.unwrap();
    assert_eq!(exit.signal, Some(15), "a child's status is known on any kernel");
    assert!(!is_alive(grandchild));
    old.destroy(&handle).await.unwrap();
    let orphaned = orphan(bench, "orphaned").await;
    assert_eq!(old.adopt(&orphaned).await.unwrap(), Adopted::Running);
    old.signal(&orphaned, Signal::SIGKILL).await.unwrap();
    let exit = ended(&old, &orphaned).await;
    assert_eq!((exit.code, exit.signal), (None, None));
    assert!(old.late_exit(&orphaned).is_none(), "nothing more is to come");
    old.destroy(&orphaned).await.unwrap();
}

pub(super) async fn a_reused_pid_is_never_signalled(bench: &Bench) {
    // Its parent is this test, so that its pid stays its own.
    let mut stranger = command("/bin/sleep").arg("1000").env("DVB_LAUNCH_ID", "victim").spawn().unwrap();
    let pid = stranger.id();
    let start_time = process_stat(pid).unwrap().start_time;
    let other_boot = {
        let handle = forged(pid, start_time, "victim");
        let mut state: Value = handle.state.read().unwrap();
        state["identity"]["bootId"] = "another".into();
        Handle { state: RawJson::of(&state).unwrap(), ..handle }
    };
    for handle in [forged(pid, start_time - 1, "other-time"), other_boot, forged(pid, start_time, "other-id")] {
        let rebooted = handle.state.read::<Value>().unwrap()["identity"]["bootId"] == "another";
        match bench.runtime.adopt(&handle).await.unwrap() {
            Adopted::Exited(exit) => assert!(rebooted && exit.rebooted && exit.code.is_none(), "{exit:?}"),
            adopted => assert!(!rebooted && adopted == Adopted::Gone, "{adopted:?}"),
        }
        bench.runtime.signal(&handle, Signal::SIGKILL).await.unwrap();
        bench.runtime.stop(&handle, CURT).await.unwrap();
        bench.runtime.destroy(&handle).await.unwrap();
        assert_eq!(ended(&bench.runtime, &handle).await.code, None);
    }
    let survived = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(survived, "a stranger was killed");
}

pub(super) async fn a_copied_home_leaves_the_processes_of_the_first_alone(bench: &Bench) {
    let handle = bench.shell("setsid sleep 1000 & echo $! > beside; wait").await;
    let beside = bench.number_in("beside").await;
    let copy = tempfile::tempdir().unwrap();
    let home = config::Home::new(copy.path().to_owned());
    let runtime = NativeRuntime::new(&home, Arc::new(SystemClock), Machine { driver: bench.driver, ..Machine::default() }).unwrap();
    assert_eq!(runtime.adopt(&handle).await.unwrap(), Adopted::Gone);
    runtime.signal(&handle, Signal::SIGKILL).await.unwrap();
    runtime.stop(&handle, CURT).await.unwrap();
    runtime.destroy(&handle).await.unwrap();
    assert!(is_alive(beside), "a process of another home was killed");
    assert_eq!(bench.another_runtime().adopt(&handle).await.unwrap(), Adopted::Running);
}

/// A process that carries `id`, with a parent that is dead already, and the handle that an earlier daemon would have left.
async fn orphan(bench: &Bench, id: &str) -> Handle {
    let home = dvb_proto::endpoint::home_hash(bench.dir.path());
    let script = format!("DVB_LAUNCH_ID={id} DVB_HOME_ID={home} setsid sleep 1000 & echo $! > orphan");
    let status = command("/bin/sh").args(["-c", &script]).env("PATH", "/usr/bin:/bin").current_dir(bench.dir.path()).status().unwrap();
    assert!(status.success());
    let pid = bench.number_in("orphan").await;
    // The shell wrote the pid before it was `sleep` with its own environment.
    eventually(|| process_env(pid, "DVB_LAUNCH_ID").filter(|found| found == id)).await;
    eventually(|| fs::read_to_string(format!("/proc/{pid}/comm")).ok().filter(|name| name == "sleep\n")).await;
    forged(pid, process_stat(pid).unwrap().start_time, id)
}

fn forged(pid: u32, start_time: u64, id: &str) -> Handle {
    let identity = json!({"pid": pid, "startTime": start_time, "bootId": boot_id().unwrap(), "launchId": id});
    Handle {
        id: LaunchId(id.into()),
        version: 1,
        pid: Some(pid),
        started_at: SystemClock.now(),
        state: RawJson::of(&json!({"identity": identity})).unwrap(),
    }
}

/// Not our child, held by a keeper, dead and reaped before this runtime begins: as after a crash of the daemon.
async fn died_unwatched(bench: &Bench, keeper: &Keeper, id: &str) -> Handle {
    let handle = orphan(bench, id).await;
    let held = Pidfd::open(handle.pid.unwrap()).unwrap();
    keeper.put(&format!("launch/{id}"), held.as_fd()).unwrap();
    held.signal(Signal::SIGABRT).unwrap();
    eventually(|| held.poll().unwrap().0.then_some(())).await;
    handle
}
