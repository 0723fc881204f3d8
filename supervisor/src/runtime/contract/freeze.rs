//! Launches that stand still: what freeze holds, and what must end them all the same.

use super::{
    CURT, POLITE,
    bench::{Bench, eventually, is_alive},
};
use crate::{
    cgroup::DriverChoice,
    runtime::{Adopted, Runtime},
};
use nix::sys::signal::Signal;
use std::{fs, time::Duration};

/// A main process and a grandchild, each writing as fast as it can be seen. `TERM` is answered by both.
const BUSY: &str = "setsid sh -c 'echo $$ > grandchild; while :; do echo x >> its; sleep 0.01; done' & \
                    echo $$ > main; trap 'echo heard > term; exit 0' TERM; while :; do echo x >> mine; sleep 0.01; done";

fn size(bench: &Bench, name: &str) -> u64 {
    fs::metadata(bench.path(name)).map_or(0, |about| about.len())
}

async fn both_move(bench: &Bench) {
    let before = [size(bench, "mine"), size(bench, "its")];
    eventually(|| (size(bench, "mine") > before[0] && size(bench, "its") > before[1]).then_some(())).await;
}

pub(super) async fn a_frozen_launch_stands_still_as_a_whole_and_goes_on(bench: &Bench) {
    let handle = bench.shell(BUSY).await;
    both_move(bench).await;
    assert!(!bench.runtime.is_frozen(&handle).await.unwrap());
    for _ in 0..2 {
        bench.runtime.freeze(&handle).await.unwrap();
        assert!(bench.runtime.is_frozen(&handle).await.unwrap(), "again is harmless");
    }
    let before = [size(bench, "mine"), size(bench, "its")];
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!([size(bench, "mine"), size(bench, "its")], before);
    assert_eq!(bench.runtime.adopt(&handle).await.unwrap(), Adopted::Running, "it lives");
    for _ in 0..2 {
        bench.runtime.thaw(&handle).await.unwrap();
        assert!(!bench.runtime.is_frozen(&handle).await.unwrap());
    }
    both_move(bench).await;
    bench.runtime.destroy(&handle).await.unwrap();
    bench.runtime.freeze(&handle).await.unwrap();
    bench.runtime.thaw(&handle).await.unwrap();
    assert!(!bench.runtime.is_frozen(&handle).await.unwrap(), "what is gone does not stand still");
}

/// A shell that forks by vfork waits in the kernel for the child that stands still.
pub(super) async fn one_that_waits_for_a_child_that_stands_still_stands_still_too_and_both_go_on(bench: &Bench) {
    const WAITS: &str = "import ctypes, os, time
libc = ctypes.CDLL(None)
class Args(ctypes.Structure): _fields_ = [(name, ctypes.c_uint64) for name in 'flags pidfd ctid ptid exit stack size tls'.split()]
args = Args(flags=0x4000, exit=17)
if libc.syscall(435, ctypes.byref(args), ctypes.sizeof(args)) == 0:
    open('child', 'w').write(str(os.getpid()))
    while True:
        open('its', 'a').write('x')
        time.sleep(0.01)
";
    fs::write(bench.path("waits.py"), WAITS).unwrap();
    let Some(python) = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| std::path::Path::new(path).exists()) else {
        return println!("SKIP: there is no python3");
    };
    let script = bench.path("waits.py").display().to_string();
    let handle = bench.start(&[python, &script]).await;
    let moves = async || {
        let before = size(bench, "its");
        eventually(|| (size(bench, "its") > before).then_some(())).await;
    };
    moves().await;
    for _ in 0..2 {
        bench.runtime.freeze(&handle).await.unwrap();
        assert!(bench.runtime.is_frozen(&handle).await.unwrap());
        let before = size(bench, "its");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(size(bench, "its"), before);
        bench.runtime.thaw(&handle).await.unwrap();
        moves().await;
    }
    bench.runtime.destroy(&handle).await.unwrap();
}

pub(super) async fn a_frozen_launch_hears_its_stop_signal(bench: &Bench) {
    let handle = bench.shell(BUSY).await;
    both_move(bench).await;
    bench.runtime.freeze(&handle).await.unwrap();
    let exit = bench.runtime.stop(&handle, POLITE).await.unwrap();
    assert_eq!((exit.code, exit.requested), (Some(0), true));
    assert_eq!(fs::read_to_string(bench.path("term")).unwrap(), "heard\n");
    assert!(!is_alive(bench.number_in("grandchild").await));
}

pub(super) async fn a_frozen_launch_that_ignores_its_stop_signal_is_killed_and_destroyed_whole(bench: &Bench) {
    for destroy in [false, true] {
        let handle = bench.shell(&format!("trap '' TERM; {}", BUSY.replace("trap 'echo heard > term; exit 0' TERM; ", ""))).await;
        both_move(bench).await;
        bench.runtime.freeze(&handle).await.unwrap();
        match destroy {
            true => bench.runtime.destroy(&handle).await.unwrap(),
            false => drop(bench.runtime.stop(&handle, CURT).await.unwrap()),
        }
        for name in ["main", "grandchild"] {
            assert!(!is_alive(bench.number_in(name).await), "{name}, destroyed: {destroy}");
        }
        bench.runtime.destroy(&handle).await.unwrap();
        for name in ["main", "grandchild", "mine", "its"] {
            let _ = fs::remove_file(bench.path(name));
        }
    }
}

pub(super) async fn a_frozen_launch_dies_of_a_kill_from_outside(bench: &Bench) {
    let handle = bench.shell(BUSY).await;
    both_move(bench).await;
    bench.runtime.freeze(&handle).await.unwrap();
    bench.runtime.signal(&handle, Signal::SIGKILL).await.unwrap();
    let exit = super::ended(&bench.runtime, &handle).await;
    assert_eq!((exit.signal, exit.requested), (Some(9), false));
    assert!(!bench.runtime.is_frozen(&handle).await.unwrap());
    bench.runtime.destroy(&handle).await.unwrap();
    assert!(!is_alive(bench.number_in("grandchild").await));
}

pub(super) async fn a_second_runtime_finds_it_frozen_and_can_thaw_it(bench: &Bench) {
    let handle = bench.shell(BUSY).await;
    both_move(bench).await;
    bench.runtime.freeze(&handle).await.unwrap();
    let second = bench.another_runtime();
    assert_eq!(second.adopt(&handle).await.unwrap(), Adopted::Running);
    assert!(second.is_frozen(&handle).await.unwrap());
    second.thaw(&handle).await.unwrap();
    both_move(bench).await;
    second.freeze(&handle).await.unwrap();
    assert!(second.stop(&handle, POLITE).await.unwrap().requested);
    assert!(!is_alive(bench.number_in("grandchild").await));
    assert!(bench.driver == DriverChoice::None || bench.runtime.inner_leaves().iter().all(|leaf| leaf.pids().is_empty()));
}
