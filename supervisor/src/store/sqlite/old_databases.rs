//! Each schema version that was ever released has a database under `tests/data/`; each must open, with all its objects.
//!
//! A new version's database is built by `DVB_BUILD_OLD_STORE=1 cargo test -p devnetd every_schema_version` and committed.

use super::SqliteStore;
use crate::{
    model::{
        Condition, ConditionStatus, Devnet, EventId, ExitClass, Export, ExportPhase, Key, Kind, LastExit, Launch, LaunchId, LaunchPhase, Lease, Node,
        NodePhase, Plan, PlannedNode, PlannedPort, RawJson, SignedAttempt, Timestamp, Transaction, TransactionPhase, Upgrade, UpgradePhase,
    },
    store::{EventFilter, Limits, Selector, Store, Write, fixtures, migrations::KNOWN},
    sys::ManualClock,
};
use futures::StreamExt;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn database(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/store-v{version}.db"))
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Arc::new(ManualClock::at(AT)), Limits::default()).unwrap()
}

fn devnet() -> Devnet {
    let mut devnet = fixtures::devnet("default", "mynet");
    devnet.metadata.labels.insert("team".into(), "core".into());
    devnet.spec.validators = Some(4);
    devnet.spec.seed = Some("any text".into());
    devnet.status.conditions.set(Condition::new("Ready", ConditionStatus::False, "Starting", "2 of 4").with_remedy("wait"), AT);
    devnet.status.cause = Some(EventId("e1".into()));
    devnet.status.current_height = Some(0); // so version 1 wrote what it did not know; nobody is shown it
    devnet
}

fn node() -> Node {
    let mut node = fixtures::validator("default", "mynet", 0);
    node.spec.ports.insert("rpc".into(), 26657);
    node.spec.consensus_key = Some("aa".into());
    node.status.phase = NodePhase::Backoff;
    node.status.next_restart = Some(AT);
    node.status.last_exit = Some(LastExit { code: Some(2), class: ExitClass::AppHash, message: "wrong app hash".into(), ..LastExit::default() });
    (node.status.block_height, node.status.peer_count) = (Some(0), Some(0));
    node
}

fn launch() -> Launch {
    let mut launch = fixtures::launch("default", "mynet/validator-0", "l1");
    std::sync::Arc::make_mut(&mut launch.spec).argv = vec!["wasmd".into(), "start".into()];
    launch.status.phase = LaunchPhase::Ended;
    launch.status.handle = Some(RawJson::of(&serde_json::json!({"pid": 7, "boot": "b"})).unwrap());
    launch
}

fn lease() -> Lease {
    let mut lease = fixtures::lease("default", "mynet", "port/127.64.1.1/26657");
    lease.spec.node_ref = Some("mynet/validator-0".into());
    lease.spec.port = Some(26657);
    lease
}

fn plan() -> Plan {
    let mut plan = fixtures::plan("default", "mynet");
    let port = PlannedPort { name: "rpc".into(), port: 26657, wildcard: true, ..PlannedPort::default() };
    plan.spec.nodes = vec![PlannedNode { name: "validator-0".into(), role: "validator".into(), ports: vec![port], ..PlannedNode::default() }];
    plan
}

/// Since schema 2.
fn transaction() -> Transaction {
    let mut tx = fixtures::transaction("default", "mynet", "0123456789abcdef");
    tx.status.phase = TransactionPhase::Submitted;
    tx.status.signed = Some(SignedAttempt { raw: "0aff".into(), hash: "AB".into(), sequence: 3, height: 7, expires_at: 60 });
    tx
}

/// Since schema 3.
fn upgrade() -> Upgrade {
    let mut upgrade = fixtures::upgrade("default", "mynet", "v0.50");
    upgrade.status.phase = UpgradePhase::Waiting;
    upgrade.status.height = Some(38);
    upgrade.status.notes.told = vec!["validator-0".into()];
    upgrade
}

/// Since schema 4.
fn export() -> Export {
    let mut export = fixtures::export("default", "mynet", "before");
    export.status.phase = ExportPhase::Completed;
    export.status.bytes = 7;
    export
}

async fn build(path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("store.db");
    let store = open(&draft);
    let mut event = fixtures::event("e1", "Devnet", "default", "mynet");
    event.launch_id = Some(LaunchId("l1".into()));
    let writes = vec![
        Write::create(devnet()),
        Write::create(node()),
        Write::create(launch()),
        Write::create(lease()),
        Write::create(plan()),
        Write::create(transaction()),
        Write::create(upgrade()),
        Write::create(export()),
        Write::Event(Box::new(event)),
    ];
    store.commit(writes).await.unwrap();
    store.set_meta_value("instance", "i1").await.unwrap();
    drop(store);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(&draft, path).unwrap();
}

#[tokio::test]
async fn every_schema_version_opens_with_all_its_objects() {
    let newest = database(KNOWN);
    if !newest.exists() && std::env::var_os("DVB_BUILD_OLD_STORE").is_some() {
        build(&newest).await;
    }
    for version in 1..=KNOWN {
        let kept = database(version);
        assert!(kept.exists(), "{} is missing; the head of this file says how to build it", kept.display());
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("store.db");
        fs::copy(&kept, &copy).unwrap();
        check(&open(&copy), version).await;
    }
}

async fn check(store: &SqliteStore, version: i64) {
    let (objects, revision) = store.list(&Selector::default()).await.unwrap();
    let mut expected: Vec<crate::model::Object> = vec![devnet().into(), node().into(), launch().into(), lease().into(), plan().into()];
    if version >= 2 {
        expected.push(transaction().into());
    }
    if version >= 3 {
        expected.push(upgrade().into());
    }
    if version >= 4 {
        expected.push(export().into());
    }
    let count = expected.len();
    assert_eq!(revision, count as u64);
    for (revision, object) in (1..).zip(&mut expected) {
        let meta = object.meta_mut();
        (meta.resource_version, meta.created_at, meta.updated_at) = (revision, AT, AT);
    }
    assert_eq!(objects, expected);
    let events = store.events(&EventFilter { launch: Some(LaunchId("l1".into())), ..EventFilter::default() }).await.unwrap();
    assert_eq!(events.iter().map(|event| (event.id.as_str(), event.seq)).collect::<Vec<_>>(), [("e1", 1)]);
    assert_eq!(store.meta_value("instance").await.unwrap().as_deref(), Some("i1"));
    let feed: Vec<_> = store.watch(Selector::default(), 0).take(count).map(|change| change.unwrap().object).collect().await;
    assert_eq!(feed, expected);
    let gone = Write::Delete { key: Key::devnet("default", "mynet"), expect: crate::store::Expect::Any };
    assert_eq!(store.commit(vec![gone]).await, Ok(2 * count as u64), "it can be written too");
    assert_eq!(store.list(&Selector::kind(Kind::Lease)).await.unwrap().0.len(), 0);
}
