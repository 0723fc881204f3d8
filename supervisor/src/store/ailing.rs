//! A store that fails as often as a test wants.

use super::{Change, EventFilter, Selector, Store, StoreError, Write};
use crate::model::{Event, EventId, Key, Object, Revision};
use async_trait::async_trait;
use futures::{StreamExt, future, stream, stream::BoxStream};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Passes everything on, but for so many calls of each sort.
pub(crate) struct Ailing {
    store: Arc<dyn Store>,
    lists: AtomicU32,
    /// These give one change and fail.
    watches: AtomicU32,
    commits: AtomicU32,
    /// Which commits count.
    is_meant: fn(&[Write]) -> bool,
}

impl Ailing {
    pub(crate) fn reads(store: Arc<dyn Store>, lists: u32, watches: u32) -> Self {
        Self { store, lists: lists.into(), watches: watches.into(), commits: 0.into(), is_meant: |_| false }
    }

    /// As on a full disk.
    pub(crate) fn commits(store: Arc<dyn Store>, commits: u32, is_meant: fn(&[Write]) -> bool) -> Self {
        Self { store, lists: 0.into(), watches: 0.into(), commits: commits.into(), is_meant }
    }
}

fn fails(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn unreadable() -> StoreError {
    StoreError::Other("disk I/O error".into())
}

#[async_trait]
impl Store for Ailing {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, selector: &Selector) -> Result<(Vec<Object>, Revision), StoreError> {
        if fails(&self.lists) { Err(unreadable()) } else { self.store.list(selector).await }
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        if (self.is_meant)(&writes) && fails(&self.commits) {
            return Err(StoreError::DiskFull { path: "/full".into() });
        }
        self.store.commit(writes).await
    }
    fn watch(&self, selector: Selector, from: Revision) -> BoxStream<'static, Result<Change, StoreError>> {
        let feed = self.store.watch(selector, from);
        if fails(&self.watches) { feed.take(1).chain(stream::once(future::ready(Err(unreadable())))).boxed() } else { feed }
    }
    async fn event(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        self.store.event(id).await
    }
    async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        self.store.events(filter).await
    }
    fn watch_events(&self, filter: EventFilter) -> BoxStream<'static, Result<Event, StoreError>> {
        self.store.watch_events(filter)
    }
    async fn compact(&self) -> Result<(), StoreError> {
        self.store.compact().await
    }
    async fn meta_value(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.store.meta_value(name).await
    }
    async fn set_meta_value(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.store.set_meta_value(name, value).await
    }
}
