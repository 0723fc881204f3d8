//! Starts that wait for a word before they fork.

use super::bench::{Bench, eventually};
use crate::runtime::{Adopted, Grants, LetGo, Runtime, RuntimeError};
use futures::future::BoxFuture;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{oneshot, watch};

/// False when it is dropped.
fn word(go: oneshot::Receiver<()>) -> BoxFuture<'static, bool> {
    Box::pin(async { go.await.is_ok() })
}

pub(super) async fn a_start_that_is_called_off_forks_nothing_and_leaves_nothing(bench: &Bench) {
    let spec = bench.spec(&["/bin/sleep", "1000"]);
    let (give, go) = oneshot::channel();
    let starting = tokio::spawn({
        let (runtime, spec) = (bench.runtime.clone(), spec.clone());
        async move { runtime.start_when(word(go), spec, Grants::default()).await }
    });
    eventually(|| spec.log.exists().then_some(())).await; // it is ready
    assert!(bench.runtime.owned().await.unwrap().is_empty());
    drop(give);
    assert!(matches!(starting.await.unwrap(), Err(RuntimeError::CalledOff(id)) if id == spec.id));
    assert!(!spec.log.exists() && bench.runtime.inner_leaves().is_empty());
    assert_eq!(bench.runtime.find(&spec.id).await.unwrap(), None);
}

pub(super) async fn what_was_made_ready_and_never_forked_is_cleared_away_by_the_next_daemon(bench: &Bench) {
    let spec = bench.spec(&["/bin/sleep", "1000"]);
    let (_give, go) = oneshot::channel();
    let runtime = bench.runtime.clone();
    let _waits = tokio::spawn({
        let spec = spec.clone();
        async move { runtime.start_when(word(go), spec, Grants::default()).await }
    });
    // Without cgroups there is nothing to be cleared away.
    let has_leaf = bench.runtime.capabilities().cgroup_driver != "none";
    eventually(|| (spec.log.exists() && bench.runtime.inner_leaves().len() == usize::from(has_leaf)).then_some(())).await;
    let handle = bench.start(&["/bin/sleep", "1000"]).await;
    let next = bench.another_runtime();
    assert_eq!(next.inner_leaves().len(), usize::from(has_leaf), "that of the process which runs");
    assert_eq!(next.adopt(&handle).await.unwrap(), Adopted::Running);
    next.destroy(&handle).await.unwrap();
}

/// As many as may be forked at once wait for their word; the next one has its own, and waits for its turn.
pub(super) async fn what_is_let_go_of_for_a_launch_is_held_until_it_is_its_turn_to_be_forked(bench: &Bench) {
    let (give, given) = watch::channel(false);
    let others = (0..bench.runtime.turns_left()).map(|_| {
        let (runtime, spec, mut given) = (bench.runtime.clone(), bench.spec(&["/bin/true"]), given.clone());
        let go = Box::pin(async move { given.wait_for(|given| *given).await.is_ok() });
        tokio::spawn(async move { runtime.start_when(go, spec, Grants::default()).await })
    });
    let others: Vec<_> = others.collect();
    eventually(|| (bench.runtime.turns_left() == 0).then_some(())).await;
    let is_free = Arc::new(AtomicBool::new(false));
    let (told, heard) = oneshot::channel();
    let let_go = {
        let is_free = is_free.clone();
        LetGo(Box::new(move || is_free.store(true, Ordering::SeqCst)))
    };
    let (runtime, spec) = (bench.runtime.clone(), bench.spec(&["/bin/sleep", "1000"]));
    let go = Box::pin(async move { told.send(()).is_ok() });
    let starting = tokio::spawn(async move { runtime.start_when(go, spec, Grants { let_go: Some(let_go), ..Grants::default() }).await });
    heard.await.unwrap(); // its intent is on record
    tokio::task::yield_now().await;
    assert!(!is_free.load(Ordering::SeqCst), "others are forked first");
    give.send_replace(true);
    let handle = starting.await.unwrap().unwrap();
    assert!(is_free.load(Ordering::SeqCst));
    bench.runtime.destroy(&handle).await.unwrap();
    for other in others {
        bench.runtime.destroy(&other.await.unwrap().unwrap()).await.unwrap();
    }
    // Who is called off gets nothing.
    let never = LetGo(Box::new(|| panic!("nothing is forked")));
    let grants = Grants { let_go: Some(never), ..Grants::default() };
    let called_off = bench.runtime.start_when(Box::pin(std::future::ready(false)), bench.spec(&["/bin/true"]), grants).await;
    assert!(matches!(called_off, Err(RuntimeError::CalledOff(_))));
}
