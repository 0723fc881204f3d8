//! Starts that wait for a word before they fork.

use super::bench::{Bench, eventually};
use crate::runtime::{Adopted, Grants, Runtime, RuntimeError};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

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
