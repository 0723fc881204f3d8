//! `why`: from the state of an object back to the request that began it.
//!
//! The walk begins at the object's `status.cause` and follows `parent`. It ends at an event without a parent, at one that was
//! compacted away, where it would go in a circle, or after `DEPTH` steps; the last three say so as the last entry of the chain.

use super::headline::headline;
use crate::{
    model::{Event, EventId, EventType, Key, Kind, Object},
    store::{EventFilter, Store, StoreError},
};
use std::collections::HashSet;

/// Steps that are followed back at most.
const DEPTH: usize = 64;

/// Reason of the last entry of a chain whose earlier part the store has dropped.
pub const HISTORY_COMPACTED: &str = "HistoryCompacted";
/// Reason of the last entry of a chain that is too long, or goes in a circle.
pub const HISTORY_CUT: &str = "HistoryCut";

#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The state now, and why, in one sentence.
    pub headline: String,
    /// The newest effect first, the request that began it last. A last entry with `seq` 0 and one of the reasons above tells why
    /// the story begins there; it is no stored event.
    pub chain: Vec<Event>,
}

/// `Missing` when there is no such object.
pub async fn explain(store: &dyn Store, kind: Kind, namespace: &str, name: &str) -> Result<Explanation, StoreError> {
    let key = Key::new(kind, namespace, name);
    let object = store.get(&key).await?.ok_or_else(|| StoreError::Missing(key.clone()))?;
    let mut chain = Vec::new();
    let mut seen = HashSet::new();
    let mut next = match cause(&object) {
        Some(cause) => Some(cause),
        None => newest_about(store, &key).await?,
    };
    while let Some(id) = next {
        if chain.len() == DEPTH {
            chain.push(note(&key, id, HISTORY_CUT, format!("earlier history is not shown: only {DEPTH} steps are")));
            break;
        }
        if !seen.insert(id.clone()) {
            chain.push(note(&key, id, HISTORY_CUT, "the events name each other as cause in a circle".to_owned()));
            break;
        }
        let Some(event) = store.event(&id).await? else {
            chain.push(note(&key, id, HISTORY_COMPACTED, "earlier history was compacted".to_owned()));
            break;
        };
        next = event.parent.clone();
        chain.push(event);
    }
    Ok(Explanation { headline: headline(&object), chain })
}

fn cause(object: &Object) -> Option<EventId> {
    match object {
        Object::Devnet(devnet) => devnet.status.cause.clone(),
        Object::Node(node) => node.status.cause.clone(),
        Object::Transaction(tx) => tx.status.cause.clone(),
        Object::Upgrade(upgrade) => upgrade.status.cause.clone(),
        Object::Export(export) => export.status.cause.clone(),
        Object::Launch(_) | Object::Lease(_) | Object::Plan(_) => None,
    }
}

/// For an object that names no cause: the last thing that was told of it.
async fn newest_about(store: &dyn Store, key: &Key) -> Result<Option<EventId>, StoreError> {
    let filter = EventFilter {
        namespace: Some(key.namespace.clone()),
        kind: Some(key.kind.name().to_owned()),
        name: Some(key.name.clone()),
        limit: 1,
        ..EventFilter::default()
    };
    Ok(store.events(&filter).await?.pop().map(|event| event.id))
}

fn note(key: &Key, id: EventId, reason: &str, message: String) -> Event {
    Event {
        id,
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        event_type: EventType::Normal,
        reason: reason.to_owned(),
        message,
        actor: "devnetd".to_owned(),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::Recorder,
        store::{
            Limits, MemoryStore, Write,
            fixtures::{devnet, event, lease, validator},
        },
        sys::ManualClock,
    };
    use std::sync::Arc;

    fn store(events: usize) -> MemoryStore {
        MemoryStore::with_limits(Arc::new(ManualClock::default()), Limits { changes: 1000, events })
    }

    /// A validator whose cause is `cause`, and these events.
    async fn prepare(store: &MemoryStore, cause: Option<&str>, events: Vec<Event>) {
        let mut node = validator("default", "net", 0);
        node.status.cause = cause.map(|id| EventId(id.into()));
        let mut writes = vec![Write::create(devnet("default", "net")), Write::create(node)];
        writes.extend(events.into_iter().map(|event| Write::Event(Box::new(event))));
        store.commit(writes).await.unwrap();
    }

    async fn reasons(store: &MemoryStore) -> Vec<String> {
        let told = explain(store, Kind::Node, "default", "net/validator-0").await.unwrap();
        told.chain.iter().map(|event| if event.seq == 0 { event.reason.clone() } else { event.id.to_string() }).collect()
    }

    fn link(id: &str, parent: Option<&str>) -> Event {
        Event { parent: parent.map(|parent| EventId(parent.into())), ..event(id, "Node", "default", "net/validator-0") }
    }

    #[tokio::test]
    async fn the_chain_goes_from_the_newest_effect_back_to_the_request() {
        let store = store(100);
        let recorder = Recorder::new(Arc::new(ManualClock::default()));
        let net = Key::devnet("default", "net");
        let mut node = validator("default", "net", 0);
        let key = Key::node("default", "net/validator-0");
        let request = recorder.event(&net, "Applied").actor("user:1000");
        let created = recorder.event(&key, "Created").parent(request.id());
        let started = recorder.event(&key, "Started").parent(created.id());
        node.status.cause = Some(started.id());
        let writes = vec![request.write(), Write::create(devnet("default", "net")), created.write(), started.write(), Write::create(node)];
        store.commit(writes).await.unwrap();
        let told = explain(&store, Kind::Node, "default", "net/validator-0").await.unwrap();
        assert_eq!(told.headline, "Node net/validator-0 is Pending");
        let story: Vec<_> = told.chain.iter().map(|event| (event.reason.as_str(), event.actor.as_str())).collect();
        assert_eq!(story, [("Started", "devnetd"), ("Created", "devnetd"), ("Applied", "user:1000")]);
    }

    #[tokio::test]
    async fn an_object_that_is_not_there_is_missing() {
        let told = explain(&store(100), Kind::Devnet, "default", "none").await;
        assert_eq!(told, Err(StoreError::Missing(Key::devnet("default", "none"))));
    }

    #[tokio::test]
    async fn a_circle_of_causes_ends_and_says_so() {
        let store = store(100);
        prepare(&store, Some("a"), vec![link("a", Some("b")), link("b", Some("a"))]).await;
        assert_eq!(reasons(&store).await, ["a", "b", HISTORY_CUT]);
    }

    #[tokio::test]
    async fn a_very_long_chain_is_cut_and_says_so() {
        let store = store(1000);
        let names: Vec<String> = (0..100).map(|i| format!("e{i}")).collect();
        let events = (0..100).map(|i| link(&names[i], i.checked_sub(1).map(|i| names[i].as_str()))).collect();
        prepare(&store, Some("e99"), events).await;
        let told = reasons(&store).await;
        assert_eq!((told.len(), told[0].as_str(), told[DEPTH].as_str()), (DEPTH + 1, "e99", HISTORY_CUT));
    }

    #[tokio::test]
    async fn what_was_compacted_is_said_to_be() {
        let store = store(2);
        prepare(&store, Some("c"), vec![link("a", None), link("b", Some("a")), link("c", Some("b"))]).await;
        store.compact().await.unwrap();
        assert_eq!(reasons(&store).await, ["c", "b", HISTORY_COMPACTED]);
    }

    #[tokio::test]
    async fn without_a_cause_the_newest_event_about_it_begins() {
        let store = store(100);
        prepare(&store, None, vec![link("a", None), link("b", None), event("z", "Devnet", "default", "net")]).await;
        assert_eq!(reasons(&store).await, ["b"]);
        store.commit(vec![Write::create(lease("default", "net", "subnet/x"))]).await.unwrap();
        let told = explain(&store, Kind::Lease, "default", "subnet/x").await.unwrap();
        assert_eq!(told, Explanation { headline: "Lease subnet/x is held by net".into(), chain: vec![] });
    }
}
