//! The newest changes (or events) in memory, and the streams that follow them.
//!
//! ```text
//!   compacted │ only in the database │ in the ring │ to come
//!  ───────────┴──────────────────────┴─────────────┴────────► number
//!  Compacted    backlog() reads it     read() has it  wait for news
//! ```
//! A writer only appends under a short lock; a reader pulls pages at its own pace, so it can never hold a writer up, and what it
//! has pulled ahead is bounded by one page.

use super::{Change, StoreError};
use crate::model::Event;
use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What one pull of a reader takes at most.
pub(super) const PAGE: usize = 256;

/// Things that a feed carries: each has a number, and numbers rise.
pub(super) trait Numbered: Clone + Send + 'static {
    fn number(&self) -> u64;
}

impl Numbered for Change {
    fn number(&self) -> u64 {
        self.revision
    }
}

impl Numbered for Event {
    fn number(&self) -> u64 {
        self.seq
    }
}

/// The writer's end. Dropping it ends the streams once they have read what there is.
#[derive(Debug)]
pub(super) struct Feed<T> {
    ring: Arc<Mutex<Ring<T>>>,
    news: watch::Sender<u64>,
}

/// A reader's end.
#[derive(Clone, Debug)]
pub(super) struct Reader<T> {
    ring: Arc<Mutex<Ring<T>>>,
    news: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Ring<T> {
    /// Everything with a higher number is in `items`, up to `last`.
    floor: u64,
    last: u64,
    items: VecDeque<T>,
}

/// What lies after a number.
#[derive(Debug)]
pub(super) enum Page<T> {
    /// In rising order; empty when there is nothing newer.
    Items(Vec<T>),
    /// The ring begins later.
    Older,
    /// The ring has not got so far.
    Ahead,
}

impl<T: Numbered> Feed<T> {
    /// An empty feed that goes on after number `last`.
    pub(super) fn new(last: u64) -> Self {
        Self { ring: Arc::new(Mutex::new(Ring { floor: last, last, items: VecDeque::new() })), news: watch::Sender::new(last) }
    }
    /// Appends `items` and keeps the newest `keep`. From now on a reader finds them; `announce` wakes those that wait.
    pub(super) fn append(&self, items: Vec<T>, keep: usize) {
        let mut ring = locked(&self.ring);
        ring.last = items.last().map_or(ring.last, Numbered::number);
        ring.items.extend(items);
        ring.trim(keep);
    }
    pub(super) fn publish(&self, items: Vec<T>, keep: usize) {
        self.append(items, keep);
        self.announce();
    }
    pub(super) fn announce(&self) {
        let last = locked(&self.ring).last;
        self.news.send_if_modified(|known| std::mem::replace(known, last) != last);
    }
    pub(super) fn trim(&self, keep: usize) {
        let mut ring = locked(&self.ring);
        ring.trim(keep);
        ring.items.shrink_to_fit();
    }
    /// Goes through the newest first, until `visit` says false.
    pub(super) fn visit_newest(&self, mut visit: impl FnMut(&T) -> bool) {
        locked(&self.ring).items.iter().rev().take_while(|item| visit(item)).for_each(drop);
    }
    pub(super) fn reader(&self) -> Reader<T> {
        Reader { ring: self.ring.clone(), news: self.news.subscribe() }
    }
}

impl<T: Numbered> Reader<T> {
    /// All after this number is in the ring.
    pub(super) fn floor(&self) -> u64 {
        locked(&self.ring).floor
    }
    /// At most one page of what comes after `cursor`.
    pub(super) fn read(&self, cursor: u64) -> Page<T> {
        let ring = locked(&self.ring);
        if cursor < ring.floor {
            return Page::Older;
        }
        if cursor > ring.last {
            return Page::Ahead;
        }
        let start = ring.items.partition_point(|item| item.number() <= cursor);
        Page::Items(ring.items.iter().skip(start).take(PAGE).cloned().collect())
    }

    /// What comes after `from` and `takes` says yes to, for ever. `backlog` is asked for what the ring does not hold: older pages,
    /// and at the beginning whether a number beyond the ring is one that exists.
    pub(super) fn follow(
        self,
        from: u64,
        takes: impl Fn(&T) -> bool + Send + 'static,
        backlog: impl Fn(u64) -> BoxFuture<'static, Result<Vec<T>, StoreError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, StoreError>> {
        let follower = Follower { reader: self, cursor: from, begun: false, ended: false, ready: VecDeque::new(), takes, backlog };
        stream::unfold(follower, |mut follower| async move { follower.next().await.map(|item| (item, follower)) }).boxed()
    }
}

impl<T: Numbered> Ring<T> {
    fn trim(&mut self, keep: usize) {
        while self.items.len() > keep
            && let Some(item) = self.items.pop_front()
        {
            self.floor = item.number();
        }
    }
}

struct Follower<T, F, B> {
    reader: Reader<T>,
    cursor: u64,
    begun: bool,
    ended: bool,
    ready: VecDeque<T>,
    takes: F,
    backlog: B,
}

impl<T, F, B> Follower<T, F, B>
where
    T: Numbered,
    F: Fn(&T) -> bool,
    B: Fn(u64) -> BoxFuture<'static, Result<Vec<T>, StoreError>>,
{
    async fn next(&mut self) -> Option<Result<T, StoreError>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            // Marked as seen before reading, so that news in between wakes us again.
            self.reader.news.borrow_and_update();
            let page = match self.reader.read(self.cursor) {
                Page::Items(items) => Ok(items),
                Page::Ahead if self.begun => Ok(Vec::new()),
                Page::Ahead | Page::Older => (self.backlog)(self.cursor).await,
            };
            self.begun = true;
            match page {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok(items) => {
                    let Some(last) = items.last().map(Numbered::number) else {
                        // The store is gone: nothing will come.
                        self.reader.news.changed().await.ok()?;
                        continue;
                    };
                    self.cursor = last;
                    self.ready.extend(items.into_iter().filter(|item| (self.takes)(item)));
                }
            }
        }
    }
}

/// A panic elsewhere cannot leave a ring half-changed: it is only appended to and trimmed.
fn locked<T>(ring: &Mutex<Ring<T>>) -> MutexGuard<'_, Ring<T>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}
