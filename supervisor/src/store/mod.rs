//! The store: objects, events and the change feed, behind one trait with two implementations that pass one contract suite.
//!
//! Guarantees: a commit is atomic and durable when it returns (launches, the status of nodes, what a devnet sums up of it, and events
//! survive a SIGKILL but not for sure a power cut, which ends their processes anyway); every write takes the next revision and appears
//! in the change feed in the same transaction; deleting a devnet deletes its nodes, launches, leases, plan, transactions, upgrades and
//! exports, and deleting a node its launches (each shows in the feed, children first). Events and empty commits take no revision.

#[cfg(test)]
pub(crate) mod ailing;
#[cfg(test)]
mod contract;
mod feed;
#[cfg(test)]
pub(crate) mod fixtures;
mod memory;
mod migrations;
mod order;
mod rules;
mod sqlite;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

mod fault;

use crate::model::{Event, EventId, Key, Kind, LaunchId, Object, Revision, TransactionPhase};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{key} is at revision {actual}, not {expected}")]
    Conflict { key: Key, expected: Revision, actual: Revision },
    #[error("{0} exists already")]
    Exists(Key),
    #[error("{0} does not exist")]
    Missing(Key),
    #[error("{child} needs {parent}, which does not exist")]
    Orphan { child: Key, parent: String },
    #[error("changes before revision {oldest} are compacted; asked for {asked}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("the store at {path} has schema {found}; this devnetd knows {known} and no newer")]
    TooNew { path: String, found: i64, known: i64 },
    #[error("the store at {path} is damaged: {detail}")]
    Corrupt { path: String, detail: String },
    #[error("the disk with {path} is full")]
    DiskFull { path: String },
    #[error("cannot write {path}: it is read-only")]
    ReadOnly { path: String },
    #[error("store: {0}")]
    Other(String),
}

/// How much of the past a store keeps. It may keep a quarter (and 64) more until it compacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub changes: usize,
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A change holds its whole object, about 2 kB, and serves only watchers that come back; an event has 500 bytes, and serves `why`.
        Self { changes: 2_000, events: 20_000 }
    }
}

impl Limits {
    /// Beyond this many a store compacts by itself.
    fn ceiling(keep: usize) -> usize {
        keep.saturating_add(keep / 4).saturating_add(64)
    }
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such object.
    Absent,
    /// The object at exactly this revision.
    At(Revision),
    /// Whatever is there, or nothing.
    Any,
}

/// One part of a commit. The store sets `metadata.resourceVersion` and `updatedAt` of what it puts.
#[derive(Clone, Debug)]
pub enum Write {
    Put {
        object: Object,
        expect: Expect,
    },
    /// With `Expect::Any` a missing object is no error.
    Delete {
        key: Key,
        expect: Expect,
    },
    /// Appended; the store gives the sequence number.
    Event(Box<Event>),
}

impl Write {
    pub fn create(object: impl Into<Object>) -> Self {
        Self::Put { object: object.into(), expect: Expect::Absent }
    }
    /// Expects the revision that the object carries.
    pub fn update(object: impl Into<Object>) -> Self {
        let object = object.into();
        let expect = Expect::At(object.revision());
        Self::Put { object, expect }
    }
}

/// Which objects of one kind. Empty fields take all.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub kinds: Vec<Kind>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub devnet: Option<String>,
    /// Full name of a node: itself, its launches and leases.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Transactions in one of these. A watch gets the changes that leave one so.
    pub phases: Vec<TransactionPhase>,
}

impl Selector {
    pub fn kind(kind: Kind) -> Self {
        Self { kinds: vec![kind], ..Self::default() }
    }
    pub fn in_devnet(kind: Kind, namespace: &str, devnet: &str) -> Self {
        Self { kinds: vec![kind], namespace: Some(namespace.into()), devnet: Some(devnet.into()), ..Self::default() }
    }
    pub fn takes(&self, object: &Object) -> bool {
        let meta = object.meta();
        (self.kinds.is_empty() || self.kinds.contains(&object.kind()))
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == meta.namespace)
            && self.name.as_ref().is_none_or(|name| *name == meta.name)
            && self.devnet.as_ref().is_none_or(|devnet| devnet == object.devnet())
            && self.node.as_ref().is_none_or(|node| object.node() == Some(node.as_str()))
            && self.labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value))
            && (self.phases.is_empty() || matches!(object, Object::Transaction(tx) if self.phases.contains(&tx.status.phase)))
    }
}

/// One entry of the change feed.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: Revision,
    pub key: Key,
    /// The object as of this change; for a deletion, as it last was.
    pub object: Object,
    pub deleted: bool,
}

/// Which events, newest last.
///
/// `after_seq` 0 means all that are kept, in `watch_events` too; any other number must not lie in what is compacted.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub namespace: Option<String>,
    /// Subject's kind and name.
    pub kind: Option<String>,
    pub name: Option<String>,
    /// A devnet's name: its own events and those of its nodes and launches.
    pub devnet: Option<String>,
    pub launch: Option<LaunchId>,
    pub after_seq: u64,
    /// Newest N of what the rest takes; 0: all. A watch has no limit.
    pub limit: usize,
}

impl EventFilter {
    /// True when the filter takes `event`; `limit` is not looked at.
    pub fn takes(&self, event: &Event) -> bool {
        event.seq > self.after_seq
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace)
            && self.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.name.as_ref().is_none_or(|name| *name == event.name)
            && self.devnet.as_ref().is_none_or(|devnet| devnet == event_devnet(event))
            && self.launch.as_ref().is_none_or(|launch| event.launch_id.as_ref() == Some(launch))
    }
}

/// The devnet that an event tells of; empty for a lease, whose name says nothing of its devnet.
fn event_devnet(event: &Event) -> &str {
    if event.kind == Kind::Lease.name() { "" } else { event.name.split('/').next().unwrap_or_default() }
}

/// Memory and SQLite pass `store::contract`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError>;
    /// Sorted by namespace and name (nodes: role, then index). The revision is that of the whole store at the time of reading.
    async fn list(&self, selector: &Selector) -> Result<(Vec<Object>, Revision), StoreError>;
    /// All or nothing; returns the revision of its last write.
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError>;
    /// Changes after `from`, then those to come. Ends with `Compacted` when the reader asks for, or falls behind into, what is
    /// compacted: it lists again. So it ends for a `from` that the store has not reached yet (it was replaced by an older copy).
    /// Never blocks a writer.
    fn watch(&self, selector: Selector, from: Revision) -> BoxStream<'static, Result<Change, StoreError>>;
    async fn event(&self, id: &EventId) -> Result<Option<Event>, StoreError>;
    async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError>;
    /// Events that the filter takes, as they are committed, after `filter.after_seq`.
    fn watch_events(&self, filter: EventFilter) -> BoxStream<'static, Result<Event, StoreError>>;
    /// Drops changes and events beyond the bounds that the store was opened with; the daemon calls it now and then.
    async fn compact(&self) -> Result<(), StoreError>;
    /// Gives back memory that only a burst of changes needed: nothing is lost, what is asked for again comes from the file.
    async fn give_memory_back(&self) -> Result<(), StoreError> {
        Ok(()) // a store that has no file holds nothing twice
    }
    /// A small text that survives restarts: instance id and the like.
    async fn meta_value(&self, name: &str) -> Result<Option<String>, StoreError>;
    async fn set_meta_value(&self, name: &str, value: &str) -> Result<(), StoreError>;
}
