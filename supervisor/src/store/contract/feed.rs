//! The change feed: nothing missed, nothing twice, nobody held up.

use super::{Subject, is_quiet, limits, next, take, words};
use crate::{
    model::{DevnetPhase, Key, Kind, Object},
    store::{
        Change, Expect, Limits, Selector, Store, StoreError, Write,
        fixtures::{devnet, launch, lease, plan, validator},
    },
};
use futures::StreamExt;
use std::{sync::Arc, time::Duration};

type Open = fn(Limits) -> Subject;

async fn put(store: &Arc<dyn Store>, name: &str) -> u64 {
    store.commit(vec![Write::Put { object: devnet("default", name).into(), expect: Expect::Any }]).await.unwrap()
}

pub(super) async fn a_watch_sees_each_write_once_in_order(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watch = store.watch(Selector::default(), 0);
    put(&store, "a").await;
    put(&store, "a").await;
    store.commit(vec![Write::Delete { key: Key::devnet("default", "a"), expect: Expect::Any }]).await.unwrap();
    let seen: Vec<_> = take(&mut watch, 3).await.iter().map(words).collect();
    assert_eq!(seen, ["1 put Devnet default/a", "2 put Devnet default/a", "3 delete Devnet default/a"]);
    assert!(is_quiet(&mut watch).await);
    put(&store, "b").await;
    assert_eq!(words(&next(&mut watch).await.unwrap()), "4 put Devnet default/b");
}

pub(super) async fn a_watch_from_a_list_misses_nothing(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    put(&store, "a").await;
    let (_, revision) = store.list(&Selector::default()).await.unwrap();
    put(&store, "b").await;
    let mut watch = store.watch(Selector::default(), revision);
    put(&store, "c").await;
    let seen: Vec<_> = take(&mut watch, 2).await.iter().map(words).collect();
    assert_eq!(seen, ["2 put Devnet default/b", "3 put Devnet default/c"]);
    assert!(is_quiet(&mut watch).await);
}

pub(super) async fn a_watch_resumes_after_any_revision_with_no_gap_and_no_double(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    for i in 0..40 {
        put(&store, &format!("n{}", i % 7)).await;
    }
    for from in 0..=40 {
        let mut watch = store.watch(Selector::default(), from);
        let seen: Vec<_> = take(&mut watch, 40 - from as usize).await.iter().map(|change| change.revision).collect();
        assert_eq!(seen, (from + 1..=40).collect::<Vec<_>>());
    }
}

pub(super) async fn a_watch_misses_nothing_when_memory_is_given_back(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    for i in 0..40 {
        put(&store, &format!("n{}", i % 7)).await;
    }
    let mut slow = store.watch(Selector::default(), 30);
    assert_eq!(next(&mut slow).await.unwrap().revision, 31);
    store.give_memory_back().await.unwrap();
    put(&store, "last").await;
    let revisions = |changes: Vec<Change>| changes.iter().map(|change| change.revision).collect::<Vec<_>>();
    assert_eq!(revisions(take(&mut slow, 10).await), (32..=41).collect::<Vec<_>>());
    assert_eq!(revisions(take(&mut store.watch(Selector::default(), 3), 38).await), (4..=41).collect::<Vec<_>>());
    assert_eq!(store.list(&Selector::default()).await.unwrap().0.len(), 8);
}

pub(super) async fn a_cascade_shows_in_the_feed_children_first(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut writes: Vec<Write> = vec![Write::create(devnet("default", "net")), Write::create(lease("default", "net", "subnet/x"))];
    for index in [10, 2] {
        writes.push(Write::create(validator("default", "net", index)));
        writes.push(Write::create(launch("default", &format!("net/validator-{index}"), "l1")));
    }
    writes.push(Write::create(plan("default", "net")));
    let before = store.commit(writes).await.unwrap();
    let last = store.commit(vec![Write::Delete { key: Key::devnet("default", "net"), expect: Expect::Any }]).await.unwrap();
    let mut watch = store.watch(Selector::default(), before);
    let seen: Vec<_> = take(&mut watch, 7).await.iter().map(words).collect();
    let wanted = [
        "8 delete Launch default/net/validator-2@l1",
        "9 delete Node default/net/validator-2",
        "10 delete Launch default/net/validator-10@l1",
        "11 delete Node default/net/validator-10",
        "12 delete Lease default/subnet/x",
        "13 delete Plan default/net",
        "14 delete Devnet default/net",
    ];
    assert_eq!(seen, wanted);
    assert_eq!(last, 14);
}

pub(super) async fn a_deletion_carries_the_object_as_it_last_was(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut object = devnet("default", "net");
    object.status.phase = DevnetPhase::Deleting;
    store.commit(vec![Write::create(object)]).await.unwrap();
    let last = store.get(&Key::devnet("default", "net")).await.unwrap().unwrap();
    store.commit(vec![Write::Delete { key: last.key(), expect: Expect::Any }]).await.unwrap();
    let change = next(&mut store.watch(Selector::default(), 1)).await.unwrap();
    assert!(change.deleted);
    assert_eq!((change.revision, change.object), (2, last));
}

pub(super) async fn a_refused_commit_shows_nothing_in_the_feed(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watch = store.watch(Selector::default(), 0);
    let refused = store.commit(vec![Write::create(devnet("default", "a")), Write::create(validator("default", "b", 0))]).await;
    assert!(refused.is_err());
    assert!(is_quiet(&mut watch).await);
    put(&store, "c").await;
    assert_eq!(words(&next(&mut watch).await.unwrap()), "1 put Devnet default/c");
}

pub(super) async fn a_watch_takes_only_what_its_selector_takes(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watch = store.watch(Selector::in_devnet(Kind::Node, "default", "b"), 0);
    for name in ["a", "b"] {
        store.commit(vec![Write::create(devnet("default", name)), Write::create(validator("default", name, 0))]).await.unwrap();
    }
    assert_eq!(words(&next(&mut watch).await.unwrap()), "4 put Node default/b/validator-0");
    assert!(is_quiet(&mut watch).await);
}

pub(super) async fn a_watch_from_before_the_compaction_is_told_so(make: Open) {
    let Subject { _files, store, .. } = make(limits(5, 5));
    for _ in 0..20 {
        put(&store, "a").await;
    }
    assert_eq!(next(&mut store.watch(Selector::default(), 3)).await.unwrap().revision, 4, "nothing is dropped yet");
    store.compact().await.unwrap();
    let mut watch = store.watch(Selector::default(), 14);
    assert_eq!(next(&mut watch).await.unwrap_err(), StoreError::Compacted { asked: 14, oldest: 16 });
    assert!(watch.next().await.is_none(), "the stream ends");
    let seen: Vec<_> = take(&mut store.watch(Selector::default(), 15), 5).await.iter().map(|change| change.revision).collect();
    assert_eq!(seen, [16, 17, 18, 19, 20]);
    assert_eq!(store.list(&Selector::default()).await.unwrap().1, 20, "objects and revision stay");
}

pub(super) async fn a_watch_from_the_future_is_told_to_list_again(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    put(&store, "a").await;
    assert!(matches!(next(&mut store.watch(Selector::default(), 99)).await, Err(StoreError::Compacted { asked: 99, .. })));
}

pub(super) async fn a_slow_reader_falls_behind_and_holds_no_writer_up(make: Open) {
    let Subject { _files, store, .. } = make(limits(10, 10));
    let mut watch = store.watch(Selector::default(), 0);
    put(&store, "a").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, 1);
    for _ in 0..200 {
        put(&store, "a").await;
    }
    store.compact().await.unwrap();
    let mut last = 1;
    let error = loop {
        match next(&mut watch).await {
            Ok(change) => {
                assert_eq!(change.revision, last + 1, "no gap before the end");
                last = change.revision;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, StoreError::Compacted { asked: last, oldest: 192 });
}

pub(super) async fn a_store_bounds_its_feed_without_being_asked(make: Open) {
    let Subject { _files, store, .. } = make(limits(8, 8));
    for _ in 0..300 {
        put(&store, "a").await;
    }
    let mut watch = store.watch(Selector::default(), 0);
    // The store compacts behind the answer to a commit; one more commit waits for it.
    put(&store, "a").await;
    assert!(matches!(next(&mut watch).await, Err(StoreError::Compacted { asked: 0, .. })));
}

pub(super) async fn a_watch_across_concurrent_writers_has_every_revision(make: Open) {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watches: Vec<_> = (0..3).map(|_| store.watch(Selector::default(), 0)).collect();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..EACH {
                let own = devnet("default", &format!("w{writer}-{i}"));
                // Every third commit is refused and must leave no trace among the others of its group.
                if i % 3 == 0 {
                    let refused = store.commit(vec![Write::create(own.clone()), Write::create(validator("default", "none", 0))]).await;
                    assert!(matches!(refused, Err(StoreError::Orphan { .. })));
                }
                let at = store.commit(vec![Write::create(own.clone()), Write::create(validator("default", &own.metadata.name, 0))]).await.unwrap();
                let back = store.get(&Key::devnet("default", &own.metadata.name)).await.unwrap().map(|object: Object| object.revision());
                assert_eq!(back, Some(at - 1), "what is acknowledged is read back");
            }
        })
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
    let total = 2 * WRITERS * EACH;
    for watch in &mut watches {
        let seen = take(watch, total).await;
        assert_eq!(seen.iter().map(|change| change.revision).collect::<Vec<_>>(), (1..=total as u64).collect::<Vec<_>>());
        for pair in seen.chunks(2) {
            assert_eq!(pair[0].object.devnet(), pair[1].object.devnet(), "a commit's writes stand together");
        }
        assert!(is_quiet(watch).await);
    }
}

pub(super) async fn a_watch_ends_with_its_store(make: Open) {
    let Subject { _files, store, .. } = make(Limits::default());
    let mut watch = store.watch(Selector::default(), 0);
    put(&store, "a").await;
    drop(store);
    assert_eq!(next(&mut watch).await.unwrap().revision, 1, "what it had is still read");
    assert!(tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("an end within 5 s").is_none());
}
