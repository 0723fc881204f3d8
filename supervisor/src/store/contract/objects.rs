//! Objects: put, get, list, delete, and who may write what when.

use super::{BEGIN, Subject};
use crate::{
    model::{DevnetPhase, Key, Kind, Object},
    store::{
        Expect, Limits, Selector, StoreError, Write,
        fixtures::{devnet, launch, lease, node, plan, validator},
    },
};
use std::time::Duration;

type Open = fn(Limits) -> Subject;

fn open(open: Open) -> Subject {
    open(Limits::default())
}

fn delete(key: Key, expect: Expect) -> Vec<Write> {
    vec![Write::Delete { key, expect }]
}

pub(super) async fn what_is_put_is_got_back_stamped(make: Open) {
    let Subject { _files, store, clock } = open(make);
    let mut wanted = devnet("default", "net");
    wanted.status.phase = DevnetPhase::Running;
    wanted.metadata.labels.insert("team".into(), "core".into());
    let revision = store.commit(vec![Write::create(wanted.clone())]).await.unwrap();
    clock.advance(Duration::from_secs(1));

    let got = store.get(&Key::devnet("default", "net")).await.unwrap().unwrap();
    wanted.metadata.resource_version = revision;
    wanted.metadata.created_at = BEGIN;
    wanted.metadata.updated_at = BEGIN;
    assert_eq!(got, wanted.into());
    assert_eq!(store.get(&Key::devnet("other", "net")).await.unwrap(), None);
    assert_eq!(store.get(&Key::node("default", "net")).await.unwrap(), None);
}

pub(super) async fn a_revision_is_never_given_twice_and_rises_with_each_write(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let first = store.commit(vec![Write::create(devnet("default", "a")), Write::create(devnet("default", "b"))]).await.unwrap();
    let deleted = store.commit(delete(Key::devnet("default", "b"), Expect::Any)).await.unwrap();
    let again = store.commit(vec![Write::create(devnet("default", "b"))]).await.unwrap();
    assert_eq!((first, deleted, again), (2, 3, 4));
    assert_eq!(store.commit(vec![]).await.unwrap(), 4, "an empty commit writes nothing");
    assert_eq!(store.commit(delete(Key::devnet("default", "none"), Expect::Any)).await.unwrap(), 4, "nor does deleting nothing");
}

pub(super) async fn creating_what_exists_is_refused(make: Open) {
    let Subject { _files, store, .. } = open(make);
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    let refused = store.commit(vec![Write::create(devnet("default", "net"))]).await;
    assert_eq!(refused, Err(StoreError::Exists(Key::devnet("default", "net"))));
    store.commit(vec![Write::create(devnet("other", "net"))]).await.expect("another namespace is another object");
}

pub(super) async fn updating_what_is_missing_is_refused(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let refused = store.commit(vec![Write::update(devnet("default", "net"))]).await;
    assert_eq!(refused, Err(StoreError::Missing(Key::devnet("default", "net"))));
}

pub(super) async fn an_update_of_an_old_revision_is_a_conflict(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let key = Key::devnet("default", "net");
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    let seen = store.get(&key).await.unwrap().unwrap();
    let now = store.commit(vec![Write::update(seen.clone())]).await.unwrap();
    let refused = store.commit(vec![Write::update(seen.clone())]).await;
    assert_eq!(refused, Err(StoreError::Conflict { key, expected: seen.revision(), actual: now }));
}

pub(super) async fn of_two_writers_with_one_revision_one_wins(make: Open) {
    let Subject { _files, store, .. } = open(make);
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    let seen = store.get(&Key::devnet("default", "net")).await.unwrap().unwrap();
    let racers = (0..8).map(|_| {
        let (store, seen) = (store.clone(), seen.clone());
        tokio::spawn(async move { store.commit(vec![Write::update(seen)]).await })
    });
    let results = futures::future::join_all(racers).await;
    let won = results.iter().filter(|result| matches!(result, Ok(Ok(_)))).count();
    let conflicts = results.iter().filter(|result| matches!(result, Ok(Err(StoreError::Conflict { .. })))).count();
    assert_eq!((won, conflicts), (1, 7));
}

pub(super) async fn a_put_with_no_expectation_creates_and_replaces(make: Open) {
    let Subject { _files, store, .. } = open(make);
    for plugin in ["one", "two"] {
        let mut object = devnet("default", "net");
        object.spec.plugin = plugin.into();
        store.commit(vec![Write::Put { object: object.into(), expect: Expect::Any }]).await.unwrap();
    }
    let Some(Object::Devnet(found)) = store.get(&Key::devnet("default", "net")).await.unwrap() else { panic!("a devnet") };
    assert_eq!((found.spec.plugin.as_str(), found.metadata.resource_version), ("two", 2));
}

pub(super) async fn one_refused_write_undoes_the_whole_commit(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let before = store.commit(vec![Write::create(devnet("default", "a")), Write::create(validator("default", "a", 0))]).await.unwrap();
    let writes = vec![
        Write::create(devnet("default", "b")),
        Write::Delete { key: Key::devnet("default", "a"), expect: Expect::Any },
        Write::create(validator("default", "missing", 0)),
    ];
    assert!(matches!(store.commit(writes).await, Err(StoreError::Orphan { .. })));
    let (left, revision) = store.list(&Selector::default()).await.unwrap();
    assert_eq!(left.iter().map(Object::key).collect::<Vec<_>>(), [Key::devnet("default", "a"), Key::node("default", "a/validator-0")]);
    assert_eq!(revision, before);
    assert_eq!(store.commit(vec![Write::create(devnet("default", "b"))]).await.unwrap(), before + 1, "no revision was used up");
}

pub(super) async fn later_writes_of_a_commit_see_the_earlier_ones(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let writes = vec![
        Write::create(devnet("default", "net")),
        Write::create(validator("default", "net", 0)),
        Write::create(launch("default", "net/validator-0", "l1")),
        Write::Put { object: devnet("default", "net").into(), expect: Expect::At(1) },
    ];
    assert_eq!(store.commit(writes).await, Ok(4));
    assert_eq!(store.list(&Selector::kind(Kind::Node)).await.unwrap().0.len(), 1, "replacing a devnet leaves its nodes alone");
    let twice = vec![Write::create(devnet("default", "two")), Write::create(devnet("default", "two"))];
    assert_eq!(store.commit(twice).await, Err(StoreError::Exists(Key::devnet("default", "two"))));
}

pub(super) async fn a_child_without_its_parent_is_refused(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let orphans: [(Object, Key); 4] = [
        (validator("default", "net", 0).into(), Key::devnet("default", "net")),
        (launch("default", "net/validator-0", "l1").into(), Key::node("default", "net/validator-0")),
        (lease("default", "net", "subnet/127.64.1").into(), Key::devnet("default", "net")),
        (plan("default", "net").into(), Key::devnet("default", "net")),
    ];
    store.commit(vec![Write::create(devnet("elsewhere", "net"))]).await.unwrap();
    for (orphan, parent) in orphans {
        let refused = store.commit(vec![Write::create(orphan.clone())]).await;
        assert_eq!(refused, Err(StoreError::Orphan { child: orphan.key(), parent: parent.to_string() }));
    }
}

pub(super) async fn deleting_a_devnet_takes_all_that_it_owns_and_nothing_else(make: Open) {
    let Subject { _files, store, .. } = open(make);
    for name in ["net", "net2"] {
        let writes: Vec<Write> = vec![
            Write::create(devnet("default", name)),
            Write::create(validator("default", name, 0)),
            Write::create(launch("default", &format!("{name}/validator-0"), "l1")),
            Write::create(lease("default", name, &format!("subnet/{name}"))),
            Write::create(plan("default", name)),
        ];
        store.commit(writes).await.unwrap();
    }
    store.commit(delete(Key::devnet("default", "net"), Expect::Any)).await.unwrap();
    let (left, _) = store.list(&Selector::default()).await.unwrap();
    assert_eq!(left.len(), 5);
    assert!(left.iter().all(|object| object.devnet() == "net2"), "{left:?}");
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    store.commit(vec![Write::create(lease("default", "net", "subnet/net"))]).await.expect("its lease was given back");
}

pub(super) async fn deleting_a_node_takes_its_launches(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let mut writes: Vec<Write> = vec![Write::create(devnet("default", "net"))];
    for index in [1, 10] {
        writes.push(Write::create(validator("default", "net", index)));
        writes.push(Write::create(launch("default", &format!("net/validator-{index}"), "l1")));
    }
    store.commit(writes).await.unwrap();
    store.commit(delete(Key::node("default", "net/validator-1"), Expect::Any)).await.unwrap();
    let (left, _) = store.list(&Selector { kinds: vec![Kind::Node, Kind::Launch], ..Selector::default() }).await.unwrap();
    let names: Vec<_> = left.iter().map(|object| object.meta().name.as_str()).collect();
    assert_eq!(names, ["net/validator-10", "net/validator-10@l1"]);
}

pub(super) async fn a_deletion_minds_its_expectation(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let key = Key::devnet("default", "net");
    assert_eq!(store.commit(delete(key.clone(), Expect::At(1))).await, Err(StoreError::Missing(key.clone())));
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    let refused = store.commit(delete(key.clone(), Expect::At(7))).await;
    assert_eq!(refused, Err(StoreError::Conflict { key: key.clone(), expected: 7, actual: 1 }));
    assert_eq!(store.commit(delete(key.clone(), Expect::At(1))).await, Ok(2));
    assert_eq!(store.get(&key).await.unwrap(), None);
}

pub(super) async fn a_lease_is_unique_over_all_namespaces(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let writes: Vec<Write> = ["a", "b"].iter().map(|namespace| Write::create(devnet(namespace, "net"))).collect();
    store.commit(writes).await.unwrap();
    store.commit(vec![Write::create(lease("a", "net", "port/127.64.1.1/26657"))]).await.unwrap();
    for expect in [Expect::Absent, Expect::Any] {
        let write = Write::Put { object: lease("b", "net", "port/127.64.1.1/26657").into(), expect };
        assert_eq!(store.commit(vec![write]).await, Err(StoreError::Exists(Key::new(Kind::Lease, "a", "port/127.64.1.1/26657"))));
    }
    let key = Key::new(Kind::Lease, "b", "port/127.64.1.1/26657");
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.commit(delete(key, Expect::Any)).await, Ok(3), "deleting it in b does not touch the one in a");
    assert!(store.get(&Key::new(Kind::Lease, "a", "port/127.64.1.1/26657")).await.unwrap().is_some());
}

pub(super) async fn lists_are_selected_and_sorted_for_people(make: Open) {
    let Subject { _files, store, .. } = open(make);
    let mut writes: Vec<Write> = Vec::new();
    for (namespace, name) in [("default", "b"), ("default", "a"), ("aa", "z")] {
        writes.push(Write::create(devnet(namespace, name)));
    }
    for (short, role, index) in [("relayer", "service", 0), ("validator-10", "validator", 10), ("fullnode-0", "fullnode", 0)] {
        writes.push(Write::create(node("default", "a", short, role, index)));
    }
    let mut labelled = validator("default", "a", 2);
    labelled.metadata.labels.insert("zone".into(), "x".into());
    writes.push(Write::create(labelled));
    writes.push(Write::create(validator("default", "b", 0)));
    let revision = store.commit(writes).await.unwrap();

    let list = async |selector: Selector| -> Vec<String> {
        let (found, at) = store.list(&selector).await.unwrap();
        assert_eq!(at, revision);
        found.iter().map(|object| format!("{}/{}", object.meta().namespace, object.meta().name)).collect()
    };
    assert_eq!(list(Selector::kind(Kind::Devnet)).await, ["aa/z", "default/a", "default/b"]);
    let nodes = ["default/a/validator-2", "default/a/validator-10", "default/a/fullnode-0", "default/a/relayer"];
    assert_eq!(list(Selector::in_devnet(Kind::Node, "default", "a")).await, nodes);
    assert_eq!(list(Selector::in_devnet(Kind::Node, "aa", "a")).await, [""; 0]);
    assert_eq!(list(Selector { name: Some("a/relayer".into()), ..Selector::default() }).await, ["default/a/relayer"]);
    let label = [("zone".to_owned(), "x".to_owned())].into();
    assert_eq!(list(Selector { labels: label, ..Selector::default() }).await, ["default/a/validator-2"]);
    assert_eq!(list(Selector { devnet: Some("b".into()), ..Selector::default() }).await, ["default/b", "default/b/validator-0"]);
    assert_eq!(list(Selector::kind(Kind::Lease)).await, [""; 0]);
}

pub(super) async fn a_list_of_several_kinds_has_them_one_after_the_other(make: Open) {
    let Subject { _files, store, .. } = open(make);
    store.commit(vec![Write::create(devnet("default", "net")), Write::create(plan("default", "net"))]).await.unwrap();
    store.commit(vec![Write::create(validator("default", "net", 0))]).await.unwrap();
    let selector = Selector { kinds: vec![Kind::Plan, Kind::Devnet, Kind::Plan], ..Selector::default() };
    let kinds: Vec<_> = store.list(&selector).await.unwrap().0.iter().map(Object::kind).collect();
    assert_eq!(kinds, [Kind::Devnet, Kind::Plan]);
}

pub(super) async fn created_at_is_set_once_and_kept(make: Open) {
    let Subject { _files, store, clock } = open(make);
    let key = Key::devnet("default", "net");
    store.commit(vec![Write::create(devnet("default", "net"))]).await.unwrap();
    clock.advance(Duration::from_secs(5));
    store.commit(vec![Write::Put { object: devnet("default", "net").into(), expect: Expect::Any }]).await.unwrap();
    let found = store.get(&key).await.unwrap().unwrap();
    assert_eq!((found.meta().created_at, found.meta().updated_at), (BEGIN, BEGIN.plus(Duration::from_secs(5))));

    let mut dated = devnet("default", "dated");
    dated.metadata.created_at = BEGIN.plus(Duration::from_secs(1));
    store.commit(vec![Write::create(dated)]).await.unwrap();
    let found = store.get(&Key::devnet("default", "dated")).await.unwrap().unwrap();
    assert_eq!(found.meta().created_at, BEGIN.plus(Duration::from_secs(1)));
}

pub(super) async fn meta_values_are_kept_and_replaced(make: Open) {
    let Subject { _files, store, .. } = open(make);
    assert_eq!(store.meta_value("instance").await.unwrap(), None);
    store.set_meta_value("instance", "one").await.unwrap();
    store.set_meta_value("instance", "two").await.unwrap();
    assert_eq!(store.meta_value("instance").await.unwrap().as_deref(), Some("two"));
    assert_eq!(store.meta_value("other").await.unwrap(), None);
}
