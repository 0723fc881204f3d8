//! After a burst of changes, as when a large devnet comes up, the memory that it took goes back to the system.

use crate::{
    model::Kind,
    store::{Selector, Store, StoreError},
    sys,
};
use futures::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::timeout};

/// No change for so long, and a burst is over: the threads and plugins that it started have ended after ten idle seconds.
const CALM: Duration = Duration::from_secs(12);
/// A node that restarts makes fewer changes.
const BURST: usize = 100;

/// After each burst, what it took in memory goes back to the system.
pub(super) async fn give_memory_back_after_bursts(store: Arc<dyn Store>) -> Result<(), StoreError> {
    let give_back = || async {
        if let Err(error) = store.give_memory_back().await {
            tracing::debug!(%error, "the store keeps its memory");
        }
        let _ = spawn_blocking(sys::give_memory_back).await; // refused only by a daemon that ends
    };
    after_bursts(&*store, give_back).await
}

/// Calls `give_back` after each burst. Wakes for changes alone, and once after the last. Ends with the store.
async fn after_bursts<F: Future<Output = ()>>(store: &dyn Store, give_back: impl Fn() -> F) -> Result<(), StoreError> {
    loop {
        let (_, from) = store.list(&Selector::in_devnet(Kind::Devnet, "", "")).await?;
        let mut changes = store.watch(Selector::default(), from);
        loop {
            match changes.next().await {
                Some(Ok(_)) => {}
                Some(Err(StoreError::Compacted { .. })) => break, // it fell behind: from the newest on
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
            let mut burst = 1;
            while let Ok(Some(Ok(_))) = timeout(CALM, changes.next()).await {
                burst += 1;
            }
            if burst >= BURST {
                give_back().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Timestamp,
        store::{Expect, MemoryStore, Write, fixtures},
        sys::ManualClock,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_after_a_burst_and_not_for_a_change_or_two() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(ManualClock::at(Timestamp::default()))));
        let change = |name: usize| {
            let object = fixtures::devnet("default", &format!("net-{name}")).into();
            store.commit(vec![Write::Put { object, expect: Expect::Any }])
        };
        let given = Arc::new(AtomicUsize::new(0));
        let count = given.clone();
        let listening = store.clone();
        let task = tokio::spawn(async move {
            let give_back = || async {
                count.fetch_add(1, Ordering::SeqCst);
            };
            after_bursts(&*listening, give_back).await
        });
        tokio::time::sleep(CALM).await; // it listens
        change(0).await.unwrap();
        tokio::time::sleep(CALM * 2).await;
        assert_eq!(given.load(Ordering::SeqCst), 0);
        for name in 0..BURST {
            change(name).await.unwrap();
        }
        tokio::time::sleep(CALM / 2).await;
        assert_eq!(given.load(Ordering::SeqCst), 0, "it may not be over");
        tokio::time::sleep(CALM * 2).await;
        assert_eq!(given.load(Ordering::SeqCst), 1);
        task.abort();
    }
}
