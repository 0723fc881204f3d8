//! Events: numbered, filtered, bounded, followed.

use super::{Subject, ids, is_quiet, limits, next, take};
use crate::{
    model::{Event, EventId, Key, LaunchId},
    store::{
        EventFilter, Expect, Limits, Store, StoreError, Write,
        fixtures::{devnet, event, validator},
    },
};
use std::sync::Arc;

type Open = fn(Limits) -> Subject;

async fn record(store: &Arc<dyn Store>, event: Event) {
    store.commit(vec![Write::Event(Box::new(event))]).await.unwrap();
}

async fn record_many(store: &Arc<dyn Store>, count: usize) {
    for i in 1..=count {
        record(store, event(&format!("e{i}"), "Devnet", "default", "net")).await;
    }
}

pub(super) async fn events_are_numbered_in_order_of_commit(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let first = event("e1", "Devnet", "default", "net");
    let writes = vec![
        Write::Event(Box::new(first.clone())),
        Write::create(devnet("default", "net")),
        Write::Event(Box::new(event("e2", "Devnet", "default", "net"))),
    ];
    assert_eq!(store.commit(writes).await, Ok(1), "events take no revision");
    let found = store.events(&EventFilter::default()).await.unwrap();
    assert_eq!(found.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found[0], Event { seq: 1, ..first });
}

pub(super) async fn events_are_filtered_by_each_field(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let subjects = [
        ("e1", "Devnet", "default", "net"),
        ("e2", "Node", "default", "net/validator-0"),
        ("e3", "Node", "default", "net2/validator-0"),
        ("e4", "Devnet", "other", "net"),
        ("e5", "Launch", "default", "net/validator-0@l1"),
        ("e6", "Lease", "default", "net/x"),
    ];
    for (id, kind, namespace, name) in subjects {
        let launch_id = (id == "e5").then(|| LaunchId("l1".into()));
        record(&store, Event { launch_id, ..event(id, kind, namespace, name) }).await;
    }
    let check = async |filter: EventFilter, expect: &[&str]| {
        let found = store.events(&filter).await.unwrap();
        assert_eq!(ids(&found), expect, "{filter:?}");
    };
    let any = EventFilter::default;
    check(any(), &["e1", "e2", "e3", "e4", "e5", "e6"]).await;
    check(EventFilter { namespace: Some("other".into()), ..any() }, &["e4"]).await;
    check(EventFilter { kind: Some("Node".into()), ..any() }, &["e2", "e3"]).await;
    check(EventFilter { name: Some("net/validator-0".into()), ..any() }, &["e2"]).await;
    check(EventFilter { devnet: Some("net".into()), ..any() }, &["e1", "e2", "e4", "e5"]).await;
    check(EventFilter { devnet: Some("net".into()), namespace: Some("default".into()), ..any() }, &["e1", "e2", "e5"]).await;
    check(EventFilter { launch: Some(LaunchId("l1".into())), ..any() }, &["e5"]).await;
    check(EventFilter { after_seq: 4, ..any() }, &["e5", "e6"]).await;
    check(EventFilter { kind: Some("Plan".into()), ..any() }, &[]).await;
}

pub(super) async fn a_limit_takes_the_newest(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    record_many(&store, 5).await;
    record(&store, event("x", "Node", "default", "net/a")).await;
    let filter = EventFilter { limit: 2, kind: Some("Devnet".into()), ..EventFilter::default() };
    assert_eq!(ids(&store.events(&filter).await.unwrap()), ["e4", "e5"]);
    assert_eq!(store.events(&EventFilter { limit: 100, ..EventFilter::default() }).await.unwrap().len(), 6);
}

pub(super) async fn events_outlive_their_devnet(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let gone = Key::devnet("default", "net");
    store.commit(vec![Write::create(devnet("default", "net")), Write::create(validator("default", "net", 0))]).await.unwrap();
    record(&store, event("e1", "Devnet", "default", "net")).await;
    store.commit(vec![Write::Delete { key: gone, expect: Expect::Any }]).await.unwrap();
    assert_eq!(ids(&store.events(&EventFilter::default()).await.unwrap()), ["e1"]);
}

pub(super) async fn an_event_is_found_by_id(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    record_many(&store, 3).await;
    assert_eq!(store.event(&EventId("e2".into())).await.unwrap().map(|event| event.seq), Some(2));
    assert_eq!(store.event(&EventId("e9".into())).await.unwrap(), None);
}

pub(super) async fn one_event_id_is_taken_once(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    record_many(&store, 1).await;
    let again = || Write::Event(Box::new(event("e1", "Devnet", "default", "net")));
    let refused = store.commit(vec![Write::create(devnet("default", "net")), again()]).await;
    assert_eq!(refused, Err(StoreError::Other("event e1 exists already".into())));
    assert_eq!(store.get(&Key::devnet("default", "net")).await.unwrap(), None);
    let new = || Write::Event(Box::new(event("e2", "Devnet", "default", "net")));
    assert!(store.commit(vec![new(), new()]).await.is_err());
    assert_eq!(store.events(&EventFilter::default()).await.unwrap().len(), 1);
}

pub(super) async fn a_refused_commit_records_no_event(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watch = store.watch_events(EventFilter::default());
    let writes = vec![Write::Event(Box::new(event("e1", "Devnet", "default", "net"))), Write::create(validator("default", "none", 0))];
    assert!(store.commit(writes).await.is_err());
    assert!(is_quiet(&mut watch).await);
    record(&store, event("e2", "Devnet", "default", "net")).await;
    let seen = next(&mut watch).await.unwrap();
    assert_eq!((seen.id.as_str(), seen.seq), ("e2", 1));
}

pub(super) async fn a_watch_of_events_gives_old_and_new_in_order(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    record_many(&store, 3).await;
    let mut all = store.watch_events(EventFilter::default());
    let mut some = store.watch_events(EventFilter { after_seq: 2, kind: Some("Devnet".into()), ..EventFilter::default() });
    record(&store, event("n", "Node", "default", "net/a")).await;
    record(&store, event("e4", "Devnet", "default", "net")).await;
    assert_eq!(ids(&take(&mut all, 5).await), ["e1", "e2", "e3", "n", "e4"]);
    assert_eq!(ids(&take(&mut some, 2).await), ["e3", "e4"]);
    assert!(is_quiet(&mut some).await);
}

pub(super) async fn a_watch_of_compacted_events_is_told_so(make: Open) {
    let Subject { _files, store, .. } = make(limits(5, 3));
    record_many(&store, 10).await;
    store.compact().await.unwrap();
    let old = EventFilter { after_seq: 2, ..EventFilter::default() };
    assert_eq!(next(&mut store.watch_events(old.clone())).await.unwrap_err(), StoreError::Compacted { asked: 2, oldest: 8 });
    assert_eq!(ids(&store.events(&old).await.unwrap()), ["e8", "e9", "e10"], "a list gives what is kept");
    assert_eq!(ids(&take(&mut store.watch_events(EventFilter::default()), 3).await), ["e8", "e9", "e10"], "so does a watch from the beginning");
}

pub(super) async fn events_are_bounded_and_numbers_go_on(make: Open) {
    let Subject { _files, store, .. } = make(limits(5, 8));
    record_many(&store, 300).await;
    let kept = store.events(&EventFilter::default()).await.unwrap();
    assert!(kept.len() <= 8 + 2 + 64 + 1, "{} events are kept", kept.len());
    assert_eq!(kept.last().map(|event| event.seq), Some(300));
    store.compact().await.unwrap();
    record(&store, event("next", "Devnet", "default", "net")).await;
    assert_eq!(store.events(&EventFilter { limit: 1, ..EventFilter::default() }).await.unwrap()[0].seq, 301);
}
