//! What a node has started and does not account for ends with it.

use super::{
    CURT, HIDES,
    bench::{Bench, ended, eventually, is_alive},
};
use crate::runtime::{Grants, Runtime};
use std::{fs, time::Duration};

pub(super) async fn a_double_forked_grandchild_is_dead_after_stop(bench: &Bench) {
    // Also one that hides its launch id: without a cgroup the log tells whose it is.
    let script = "setsid sh -c 'sleep 1000 & echo $! > grandchild' & ".to_owned() + HIDES + "exec sleep 1000";
    let handle = bench.runtime.start(bench.at_home(&["/bin/sh", "-c", &script]), Grants::default()).await.unwrap();
    let pids = [bench.number_in("grandchild").await, bench.number_in("hidden").await];
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    bench.runtime.stop(&handle, CURT).await.unwrap();
    assert_eq!(pids.into_iter().filter(|pid| is_alive(*pid)).collect::<Vec<_>>(), Vec::<u32>::new());
}

pub(super) async fn one_that_forks_and_ends_without_end_is_gone_after_stop(bench: &Bench) {
    // Each generation in a session of its own, and gone as soon as the next is forked; the last one forks no more, whatever happens.
    const GENERATIONS: u64 = 5000;
    let beat = "on\n".len() as u64;
    bench.program("chain", "trap '' TERM; [ -e go ] && [ $1 -gt 0 ] || exit; echo on >> beats; setsid ./chain $(($1 - 1)) & exit");
    fs::write(bench.path("go"), "").unwrap();
    let handle = bench.start(&[bench.path("chain").to_str().unwrap(), &GENERATIONS.to_string()]).await;
    let beats = || fs::metadata(bench.path("beats")).map_or(0, |about| about.len());
    eventually(|| (beats() > 30 * beat).then_some(())).await;
    bench.runtime.stop(&handle, CURT).await.unwrap();
    let before = beats();
    assert!(before < GENERATIONS * beat, "it has ended by itself");
    tokio::time::sleep(Duration::from_millis(500)).await; // nothing tells that nothing comes
    assert_eq!(beats(), before, "it forks on");
    assert_eq!(bench.runtime.owned().await.unwrap(), []);
}

pub(super) async fn a_grandchild_that_outlived_its_node_dies_with_destroy(bench: &Bench) {
    // Without its launch id, so that without cgroups only the session tells.
    let handle = bench.shell("env -i sleep 1000 & echo $! > left; exit 3").await;
    assert_eq!(ended(&bench.runtime, &handle).await.code, Some(3));
    let left = bench.number_in("left").await;
    assert!(is_alive(left));
    bench.runtime.destroy(&handle).await.unwrap();
    assert!(!is_alive(left));
}
