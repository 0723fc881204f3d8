//! The store in memory: for tests of what lies above. It passes the same contract as the SQLite store.

use super::{
    Change, EventFilter, Expect, Limits, Selector, Store, StoreError, Write,
    feed::{Feed, Numbered, Reader},
    order, rules,
};
use crate::{
    model::{Event, EventId, Key, Kind, Object, Revision, Timestamp},
    sys::Clock,
};
use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: Limits,
    state: Mutex<State>,
    changes: Feed<Change>,
    events: Feed<Event>,
}

#[derive(Clone, Default)]
struct State {
    revision: Revision,
    seq: u64,
    objects: BTreeMap<Key, Object>,
    meta: BTreeMap<String, String>,
}

/// A commit in the making: thrown away whole when one of its writes is refused.
struct Draft {
    state: State,
    now: Timestamp,
    changes: Vec<Change>,
    events: Vec<Event>,
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_limits(clock, Limits::default())
    }
    pub fn with_limits(clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self { clock, limits, state: Mutex::default(), changes: Feed::new(0), events: Feed::new(0) }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn has_event(&self, id: &EventId) -> bool {
        let mut found = false;
        self.events.visit_newest(|event| {
            found = event.id == *id;
            !found
        });
        found
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        Ok(self.state().objects.get(key).cloned())
    }
    async fn list(&self, selector: &Selector) -> Result<(Vec<Object>, Revision), StoreError> {
        let state = self.state();
        let mut found: Vec<_> = state.objects.values().filter(|object| selector.takes(object)).cloned().collect();
        found.sort_by(order::compare);
        Ok((found, state.revision))
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let mut state = self.state();
        let mut draft = Draft { state: state.clone(), now: self.clock.now(), changes: Vec::new(), events: Vec::new() };
        for write in writes {
            match write {
                Write::Put { object, expect } => draft.put(object, expect)?,
                Write::Delete { key, expect } => draft.delete(&key, expect)?,
                Write::Event(event) if self.has_event(&event.id) => return Err(rules::event_exists(&event.id)),
                Write::Event(event) => draft.event(*event)?,
            }
        }
        *state = draft.state;
        // Under the lock, so that the feed has the order of the commits.
        self.changes.publish(draft.changes, Limits::ceiling(self.limits.changes));
        self.events.publish(draft.events, Limits::ceiling(self.limits.events));
        Ok(state.revision)
    }
    fn watch(&self, selector: Selector, from: Revision) -> BoxStream<'static, Result<Change, StoreError>> {
        let reader = self.changes.reader();
        let lost = compacted(reader.clone());
        reader.follow(from, move |change| selector.takes(&change.object), lost)
    }
    async fn event(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        let mut found = None;
        self.events.visit_newest(|event| {
            if event.id == *id {
                found = Some(event.clone());
            }
            found.is_none()
        });
        Ok(found)
    }
    async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let mut found = Vec::new();
        self.events.visit_newest(|event| {
            if filter.takes(event) {
                found.push(event.clone());
            }
            found.len() < limit
        });
        found.reverse();
        Ok(found)
    }
    fn watch_events(&self, filter: EventFilter) -> BoxStream<'static, Result<Event, StoreError>> {
        let reader = self.events.reader();
        let lost = compacted(reader.clone());
        let from = if filter.after_seq == 0 { reader.floor() } else { filter.after_seq };
        reader.follow(from, move |event| filter.takes(event), lost)
    }
    async fn compact(&self) -> Result<(), StoreError> {
        self.changes.trim(self.limits.changes);
        self.events.trim(self.limits.events);
        Ok(())
    }
    async fn meta_value(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.state().meta.get(name).cloned())
    }
    async fn set_meta_value(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.state().meta.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

impl Draft {
    fn put(&mut self, mut object: Object, expect: Expect) -> Result<(), StoreError> {
        let key = object.key();
        let old = self.state.objects.get(&key);
        rules::check(&key, old.map(Object::revision), expect)?;
        if key.kind == Kind::Lease
            && let Some(holder) = self.state.objects.keys().find(|other| other.kind == Kind::Lease && other.name == key.name && **other != key)
        {
            return Err(StoreError::Exists(holder.clone()));
        }
        if let Some(parent) = rules::parent(&object)
            && !self.state.objects.contains_key(&parent)
        {
            return Err(StoreError::Orphan { child: key, parent: parent.to_string() });
        }
        let created = old.map_or(self.now, |old| old.meta().created_at);
        self.state.revision += 1;
        rules::stamp(object.meta_mut(), self.state.revision, created, self.now);
        self.changes.push(Change { revision: self.state.revision, key: key.clone(), object: object.clone(), deleted: false });
        self.state.objects.insert(key, object);
        Ok(())
    }

    fn delete(&mut self, key: &Key, expect: Expect) -> Result<(), StoreError> {
        let old = self.state.objects.get(key).map(Object::revision);
        rules::check(key, old, expect)?;
        let mut doomed: Vec<Object> = self.state.objects.values().filter(|object| rules::parent(object).as_ref() == Some(key)).cloned().collect();
        doomed.sort_by(order::compare);
        for child in doomed {
            self.delete(&child.key(), Expect::Any)?;
        }
        if let Some(object) = self.state.objects.remove(key) {
            self.state.revision += 1;
            self.changes.push(Change { revision: self.state.revision, key: key.clone(), object, deleted: true });
        }
        Ok(())
    }

    fn event(&mut self, mut event: Event) -> Result<(), StoreError> {
        if self.events.iter().any(|other| other.id == event.id) {
            return Err(rules::event_exists(&event.id));
        }
        self.state.seq += 1;
        event.seq = self.state.seq;
        self.events.push(event);
        Ok(())
    }
}

/// Nothing lies behind the ring: what it does not hold is lost.
fn compacted<T: Numbered>(reader: Reader<T>) -> impl Fn(u64) -> BoxFuture<'static, Result<Vec<T>, StoreError>> + Send + 'static {
    move |asked| {
        let oldest = reader.floor() + 1;
        async move { Err(StoreError::Compacted { asked, oldest }) }.boxed()
    }
}
