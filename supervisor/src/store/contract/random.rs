//! Random histories on both stores: each answer, and all that is kept, must be equal.

use super::{Subject, limits, take};
use crate::{
    model::{Key, Kind, LaunchPhase, Object},
    store::{
        EventFilter, Expect, Selector, Store, StoreError, Write,
        fixtures::{devnet, event, launch, lease, node, plan, transaction},
    },
};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;

#[derive(Clone, Debug)]
enum Op {
    Commit(Vec<Part>),
    Compact,
    Wait,
}

#[derive(Clone, Debug)]
enum Part {
    Put(Object, Guess),
    Delete(Key, Guess),
    Event(u8, Object),
}

/// What a writer expects; `Right` and `Stale` are worked out from what is there.
#[derive(Clone, Copy, Debug)]
enum Guess {
    Absent,
    Any,
    Right,
    Stale,
}

fn object() -> impl Strategy<Value = Object> {
    let (namespace, net, index) = (prop_oneof![Just("default"), Just("other")], prop_oneof![Just("net"), Just("net2")], 0..3_u32);
    (namespace, net, index, 0..8_usize, 0..3_u64).prop_map(|(namespace, net, index, kind, generation)| {
        let (short, role) = if index == 2 { ("relayer".to_owned(), "service") } else { (format!("validator-{}", index * 9), "validator") };
        let mut object: Object = match kind {
            0 | 1 => devnet(namespace, net).into(),
            2 | 3 => node(namespace, net, &short, role, index * 9).into(),
            4 => {
                let mut launch = launch(namespace, &format!("{net}/{short}"), &format!("l{}", generation % 2));
                launch.status.phase = if generation == 2 { LaunchPhase::Ended } else { LaunchPhase::Running };
                launch.into()
            }
            5 => lease(namespace, net, &format!("port/{index}")).into(),
            6 => transaction(namespace, net, &index.to_string()).into(),
            _ => plan(namespace, net).into(),
        };
        object.meta_mut().generation = generation;
        object.meta_mut().labels.insert("g".into(), generation.to_string());
        object
    })
}

fn part() -> impl Strategy<Value = Part> {
    let guess = || prop_oneof![2 => Just(Guess::Absent), 3 => Just(Guess::Any), 3 => Just(Guess::Right), 1 => Just(Guess::Stale)];
    prop_oneof![
        6 => (object(), guess()).prop_map(|(object, guess)| Part::Put(object, guess)),
        2 => (object(), guess()).prop_map(|(object, guess)| Part::Delete(object.key(), guess)),
        2 => (0..40_u8, object()).prop_map(|(id, object)| Part::Event(id, object)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![12 => vec(part(), 0..5).prop_map(Op::Commit), 1 => Just(Op::Compact), 2 => Just(Op::Wait)]
}

async fn writes(store: &dyn Store, parts: &[Part]) -> Vec<Write> {
    let mut writes = Vec::new();
    for part in parts {
        let key = match part {
            Part::Put(object, _) | Part::Event(_, object) => object.key(),
            Part::Delete(key, _) => key.clone(),
        };
        let there = store.get(&key).await.unwrap().map_or(0, |object| object.revision());
        let expect = |guess: &Guess| match guess {
            Guess::Absent => Expect::Absent,
            Guess::Any => Expect::Any,
            Guess::Right => Expect::At(there),
            Guess::Stale => Expect::At(there.saturating_sub(1)),
        };
        writes.push(match part {
            Part::Put(object, guess) => Write::Put { object: object.clone(), expect: expect(guess) },
            Part::Delete(key, guess) => Write::Delete { key: key.clone(), expect: expect(guess) },
            Part::Event(id, object) => {
                let meta = object.meta();
                Write::Event(Box::new(event(&format!("e{id}"), object.kind().name(), &meta.namespace, &meta.name)))
            }
        });
    }
    writes
}

async fn compare(memory: &dyn Store, sqlite: &dyn Store) -> (usize, u64) {
    let all = memory.list(&Selector::default()).await.unwrap();
    assert_eq!(all, sqlite.list(&Selector::default()).await.unwrap());
    let of_node = Selector { node: Some("net/validator-0".into()), ..Selector::in_devnet(Kind::Launch, "default", "net") };
    for selector in Kind::ALL.map(Selector::kind).into_iter().chain([Selector::in_devnet(Kind::Node, "default", "net"), of_node]) {
        assert_eq!(memory.list(&selector).await.unwrap(), sqlite.list(&selector).await.unwrap(), "{selector:?}");
    }
    for object in &all.0 {
        assert_eq!(sqlite.get(&object.key()).await.unwrap().as_ref(), Some(object));
    }
    for filter in [EventFilter::default(), EventFilter { devnet: Some("net".into()), limit: 3, ..EventFilter::default() }] {
        assert_eq!(memory.events(&filter).await.unwrap(), sqlite.events(&filter).await.unwrap());
    }
    (all.0.len(), all.1)
}

async fn run(ops: Vec<Op>) {
    let (memory, sqlite) = (Subject::memory(limits(25, 10)), Subject::sqlite(limits(25, 10)));
    let mut oldest = 0;
    for op in ops {
        match op {
            Op::Commit(parts) => {
                let writes = writes(&*memory.store, &parts).await;
                let (a, b) = (memory.store.commit(writes.clone()).await, sqlite.store.commit(writes).await);
                assert_eq!(a, b, "after {parts:?}");
            }
            Op::Compact => {
                memory.store.compact().await.unwrap();
                sqlite.store.compact().await.unwrap();
                oldest = memory.store.list(&Selector::default()).await.unwrap().1.saturating_sub(25).max(oldest);
            }
            Op::Wait => {
                memory.clock.advance(Duration::from_millis(7));
                sqlite.clock.advance(Duration::from_millis(7));
            }
        }
    }
    let (_, revision) = compare(&*memory.store, &*sqlite.store).await;
    // The feed tells the same story from wherever it is still kept.
    for from in [oldest, revision.saturating_sub(7).max(oldest)] {
        let count = usize::try_from(revision - from).unwrap();
        let (mut a, mut b) = (memory.store.watch(Selector::default(), from), sqlite.store.watch(Selector::default(), from));
        let (a, b) = (take(&mut a, count).await, take(&mut b, count).await);
        for (a, b) in a.iter().zip(&b) {
            assert_eq!((a.revision, &a.key, a.deleted, &a.object), (b.revision, &b.key, b.deleted, &b.object));
        }
    }
    if oldest > 0 {
        for store in [&memory.store, &sqlite.store] {
            let lost = super::next(&mut store.watch(Selector::default(), oldest - 1)).await.unwrap_err();
            assert_eq!(lost, StoreError::Compacted { asked: oldest - 1, oldest: oldest + 1 });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_answer_alike_on_any_history(ops in vec(op(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(run(ops));
    }
}
