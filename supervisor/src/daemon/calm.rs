//! After a burst of changes, as when a large devnet comes up, the memory that it took goes back to the system.

use crate::{
    model::Kind,
    store::{Selector, Store, StoreError},
};
use futures::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// No change for so long, and a burst is over.
const CALM: Duration = Duration::from_secs(2);
/// A node that restarts makes fewer changes.
const BURST: usize = 100;

/// Calls `give_back` after each burst. Wakes for changes alone, and once after the last. Ends with the store.
pub(super) async fn after_bursts(store: Arc<dyn Store>, give_back: impl Fn()) -> Result<(), StoreError> {
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
                give_back();
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
        let give_back = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        let task = tokio::spawn(after_bursts(store.clone(), give_back));
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
