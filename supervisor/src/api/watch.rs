//! Watches: the store's change feed and the observations, as one stream of ADDED, MODIFIED, DELETED and BOOKMARK.
//!
//! The stream is pulled by the client's flow control and keeps no queue of changes: a watcher that is too slow falls behind in the
//! store's feed and is told so (OUT_OF_RANGE). Observations are state, not history: what changed while nobody pulled is sent once.

use super::{Context, status};
use crate::{
    model::{Fault, FaultCode, Key, Kind, Object, Revision},
    observe::Observations,
    store::{Change, Selector, StoreError},
};
use futures::{Stream, StreamExt, stream::BoxStream};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Observations are sent at most this often: a chain with 10 ms blocks must not drown a watcher.
const OBSERVATION_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// Not shown before in this watch (nor, as far as can be told, before the revision that it began at).
    Added(Object),
    Modified(Object),
    Deleted(Object, Revision),
    /// The present state is complete.
    Bookmark(Revision),
}

impl Item {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Added(_) => "ADDED",
            Self::Modified(_) => "MODIFIED",
            Self::Deleted(..) => "DELETED",
            Self::Bookmark(_) => "BOOKMARK",
        }
    }
    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object, _) => Some(object),
            Self::Bookmark(_) => None,
        }
    }
    /// Where a watch that saw this item goes on.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Added(object) | Self::Modified(object) => object.revision(),
            Self::Deleted(_, revision) | Self::Bookmark(revision) => *revision,
        }
    }
}

/// Begins a watch: from `from` on, or with the present state first.
pub(super) async fn watch(cx: &Context, selector: Selector, from: Option<Revision>) -> Result<Watch, Fault> {
    let seen = cx.observations.subscribe();
    let (objects, revision) = cx.store.list(&selector).await.map_err(|error| error.fault())?;
    if let Some(from) = from
        && from > revision
    {
        let message = format!("resourceVersion {from} is in the future; the store is at {revision}");
        return Err(Fault::new(FaultCode::OutOfRange, message).retriable().remedy("list again"));
    }
    let mut watch = Watch {
        feed: cx.store.watch(selector, from.unwrap_or(revision)),
        seen: Some(seen),
        observations: cx.observations.clone(),
        shutdown: cx.shutdown.clone(),
        objects: HashMap::new(),
        shown: BTreeSet::new(),
        ready: VecDeque::new(),
        dirty: BTreeSet::new(),
        flush_at: Instant::now(),
        ended: false,
    };
    for object in objects {
        let key = object.key();
        match from {
            None => watch.ready.push_back(Item::Added(object.clone())),
            Some(from) if object.revision() > from => continue,
            Some(_) => {}
        }
        watch.shown.insert(key.clone());
        watch.objects.insert(key, object);
    }
    if from.is_none() {
        watch.ready.push_back(Item::Bookmark(revision));
    }
    Ok(watch)
}

pub(super) struct Watch {
    feed: BoxStream<'static, Result<Change, StoreError>>,
    /// None when the observations' feed is gone.
    seen: Option<broadcast::Receiver<Key>>,
    observations: Arc<Observations>,
    shutdown: CancellationToken,
    /// The last version of each object, to send again when an observation of it changes.
    objects: HashMap<Key, Object>,
    shown: BTreeSet<Key>,
    /// Only the initial list; changes are pulled.
    ready: VecDeque<Item>,
    /// Objects with observations that were not sent yet.
    dirty: BTreeSet<Key>,
    flush_at: Instant,
    ended: bool,
}

impl Watch {
    pub(super) fn into_stream<M: Send + 'static>(
        self,
        convert: impl Fn(Item, &Observations) -> Result<M, Fault> + Send + 'static,
    ) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
        futures::stream::unfold((self, convert), |(mut watch, convert)| async move {
            let item = watch.next().await?;
            let message = item.and_then(|item| convert(item, &watch.observations));
            watch.ended |= message.is_err();
            Some((message.map_err(|fault| status::status(&fault)), (watch, convert)))
        })
    }

    /// The next item; None after the end. Errors end the watch.
    async fn next(&mut self) -> Option<Result<Item, Fault>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let flush = !self.dirty.is_empty();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Err(shutting_down())),
                change = self.feed.next() => return match change {
                    Some(Ok(change)) => Some(Ok(self.take(change))),
                    Some(Err(error)) => Some(Err(error.fault())),
                    None => None,
                },
                () = tokio::time::sleep_until(self.flush_at), if flush => {
                    if let Some(item) = self.flush_one() {
                        return Some(Ok(item));
                    }
                }
                key = hear(&mut self.seen) => self.note(key),
            }
        }
    }

    fn take(&mut self, change: Change) -> Item {
        if change.deleted {
            self.objects.remove(&change.key);
            self.shown.remove(&change.key);
            self.dirty.remove(&change.key);
            return Item::Deleted(change.object, change.revision);
        }
        self.dirty.remove(&change.key); // the object goes out with its observations merged in anyway
        self.objects.insert(change.key.clone(), change.object.clone());
        if self.shown.insert(change.key) { Item::Added(change.object) } else { Item::Modified(change.object) }
    }

    /// Marks what an observation of `node` changes; None: entries were missed, so it may be anything.
    fn note(&mut self, node: Option<Key>) {
        if self.dirty.is_empty() {
            self.flush_at = self.flush_at.max(Instant::now());
        }
        match node {
            None => self.dirty.extend(self.objects.keys().cloned()),
            Some(node) => {
                let devnet = Key::devnet(&node.namespace, node.name.split('/').next().unwrap_or_default());
                let touched = [node, devnet].into_iter().filter(|key| self.objects.contains_key(key));
                self.dirty.extend(touched);
            }
        }
    }

    /// One of the marked objects; the pause begins when the last of them is out.
    fn flush_one(&mut self) -> Option<Item> {
        let key = self.dirty.pop_first()?;
        if self.dirty.is_empty() {
            self.flush_at = Instant::now() + OBSERVATION_PAUSE;
        }
        self.objects.get(&key).cloned().map(Item::Modified)
    }
}

async fn hear(seen: &mut Option<broadcast::Receiver<Key>>) -> Option<Key> {
    let Some(receiver) = seen else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(key) => Some(key),
        Err(RecvError::Lagged(_)) => None,
        Err(RecvError::Closed) => {
            *seen = None;
            std::future::pending().await
        }
    }
}

/// How every stream ends when the daemon does.
pub(super) fn shutting_down() -> Fault {
    Fault::new(FaultCode::ShuttingDown, "devnetd is shutting down; nodes keep running").retriable().remedy("dvbctl daemon start")
}

/// `stream`, ended with a word of why when the daemon ends.
pub(super) fn until_shutdown<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    shutdown: CancellationToken,
) -> BoxStream<'static, Result<T, Status>> {
    let stop = shutdown.clone();
    let last = futures::stream::once(async move { shutdown.is_cancelled().then(|| Err(status::status(&shutting_down()))) });
    stream.take_until(stop.cancelled_owned()).chain(last.filter_map(std::future::ready)).boxed()
}

/// The selector of a list or watch request.
pub(super) fn selector(kind: Kind, request: &dvb_proto::devnet::v1::ListRequest, name: &str) -> Selector {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Selector {
        namespace: (!request.all_namespaces).then(|| super::admission::namespace_or_default(&request.namespace).to_owned()),
        name: some(name),
        devnet: some(&request.devnet),
        labels: request.labels.clone(),
        ..Selector::kind(kind)
    }
}
