//! Leases against a store and the machine's own sockets.

use super::*;
use crate::{
    model::{Devnet, DevnetSpec, DevnetStatus, NodeSpec, NodeStatus},
    store::MemoryStore,
    sys::SystemClock,
};

const KEY: &str = "00aa";

/// A home with devnets that all have the genesis of this test.
struct Homestead {
    store: MemoryStore,
    dir: tempfile::TempDir,
    genesis: String,
}

impl Homestead {
    fn new() -> Self {
        let genesis = SystemClock.fresh_id().to_string();
        Self { store: MemoryStore::new(Arc::new(SystemClock)), dir: tempfile::tempdir().unwrap(), genesis }
    }
    fn keys(&self) -> Keys<'_> {
        Keys { store: &self.store, clock: &SystemClock, home_id: "this".into() }
    }
    async fn validator(&self, devnet: &str) -> Node {
        let metadata = Meta { name: devnet.into(), namespace: "default".into(), ..Meta::default() };
        let spec = DevnetSpec { plugin: "fake".into(), ..DevnetSpec::default() };
        self.store.commit(vec![Write::create(Devnet { metadata, spec, status: DevnetStatus::default() })]).await.unwrap();
        let metadata = Meta { name: format!("{devnet}/validator-0"), namespace: "default".into(), ..Meta::default() };
        let home_dir = self.dir.path().join(devnet).display().to_string();
        std::fs::create_dir_all(Path::new(&home_dir).join("data")).unwrap();
        let spec = NodeSpec { devnet_ref: devnet.into(), home_dir, sign_state: Some("data/state.json".into()), ..NodeSpec::default() };
        Node { metadata, spec, status: NodeStatus::default() }
    }
    async fn take(&self, node: &Node) -> Result<KeyLease, KeyError> {
        self.keys().take(node, &self.genesis, KEY).await
    }
    /// As if the node had signed at this height, and ended.
    async fn signed(&self, node: &Node, height: u64) {
        sign(node, height);
        self.keys().record(node).await.unwrap();
    }
}

fn sign(node: &Node, height: u64) {
    std::fs::write(Path::new(&node.spec.home_dir).join("data/state.json"), format!("{{\"height\":\"{height}\"}}")).unwrap();
}

#[tokio::test]
async fn a_second_devnet_of_the_same_chain_is_refused_until_the_first_is_deleted() {
    let home = Homestead::new();
    let (first, second) = (home.validator("first").await, home.validator("second").await);
    drop(home.take(&first).await.unwrap());
    let refused = home.take(&second).await.unwrap_err();
    assert!(matches!(&refused, KeyError::Leased { by, .. } if by == "default/first"), "{refused}");
    let delete = Write::Delete { key: crate::model::Key::devnet("default", "first"), expect: Expect::Any };
    home.store.commit(vec![delete]).await.unwrap();
    home.take(&second).await.unwrap();
}

#[tokio::test]
async fn two_homes_with_one_key_get_it_one_after_the_other_and_the_holder_is_named() {
    let (one, mut other) = (Homestead::new(), Homestead::new());
    other.genesis.clone_from(&one.genesis);
    let (here, there) = (one.validator("net").await, other.validator("net").await);
    let lease = one.take(&here).await.unwrap();
    let refused = other.take(&there).await.unwrap_err();
    assert_eq!((refused.condition(), refused.holders()), (Some(("KeyLease", "KeyInUse")), vec![std::process::id()]));
    assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(refused.fault().remedy.unwrap().contains(&format!("kill {}", std::process::id())));
    drop(lease);
    assert!(other.take(&there).await.unwrap().is_held());
}

#[tokio::test]
async fn a_sign_state_that_went_back_or_is_gone_is_refused_and_one_that_went_on_is_told_once() {
    let home = Homestead::new();
    let node = home.validator("net").await;
    drop(home.take(&node).await.unwrap());
    home.signed(&node, 10).await;
    assert_eq!(home.take(&node).await.unwrap().signed_elsewhere, None);
    sign(&node, 9);
    let refused = home.take(&node).await.unwrap_err();
    assert!(refused.to_string().contains("height 10 when its process ended, now height 9"), "{refused}");
    home.signed(&node, 9).await; // a mark that is put on record again does not go back with it
    assert!(home.take(&node).await.is_err());
    std::fs::remove_file(Path::new(&node.spec.home_dir).join("data/state.json")).unwrap();
    assert!(matches!(home.take(&node).await, Err(KeyError::WentBack { is, .. }) if is == "gone"));
    sign(&node, 12);
    assert!(home.take(&node).await.unwrap().signed_elsewhere.is_some(), "a launch that was not made has told nobody");
    let KeyLease { signed_elsewhere, writes, .. } = home.take(&node).await.unwrap();
    home.store.commit(writes).await.unwrap();
    let told = signed_elsewhere.unwrap();
    assert!(told.contains("height 10 when it ended, now height 12"), "{told}");
    assert_eq!(home.take(&node).await.unwrap().signed_elsewhere, None);
}

#[tokio::test]
async fn what_a_user_allows_once_is_refused_again_the_next_time() {
    let home = Homestead::new();
    let node = home.validator("net").await;
    let held = home.take(&node).await.unwrap();
    home.signed(&node, 10).await;
    sign(&node, 5);
    let anyhow = home.keys().take_anyhow(&node, &home.genesis, KEY).await.unwrap();
    assert!(!anyhow.is_held(), "the other process keeps the key");
    home.store.commit(anyhow.writes).await.unwrap();
    drop(held);
    home.take(&node).await.expect("what the sign-state said then counts from then on");
    sign(&node, 4);
    assert!(home.take(&node).await.is_err());
}

#[tokio::test]
async fn a_key_that_is_forgotten_begins_anew() {
    let home = Homestead::new();
    let node = home.validator("net").await;
    drop(home.take(&node).await.unwrap());
    home.signed(&node, 10).await;
    home.store.commit(home.keys().forget(&node).await.unwrap()).await.unwrap();
    sign(&node, 0);
    home.take(&node).await.unwrap();
}

#[tokio::test]
async fn a_look_tells_a_sign_state_that_goes_back_under_a_live_node_from_one_that_goes_on() {
    let home = Homestead::new();
    let node = home.validator("net").await;
    drop(home.take(&node).await.unwrap());
    let look = async |height: u64, runs: bool, seen: Option<&SignMark>| {
        sign(&node, height);
        home.keys().look(&node, runs, seen).await.unwrap()
    };
    let Look::Seen(ten) = look(10, true, None).await else { panic!("nothing to compare with yet") };
    assert!(matches!(look(11, true, Some(&ten)).await, Look::Seen(mark) if mark.position == [11]));
    assert!(matches!(look(9, true, Some(&ten)).await, Look::Moved { reason: "SignStateWentBack", .. }));
    home.signed(&node, 10).await;
    assert!(matches!(look(10, false, None).await, Look::Seen(_)));
    assert!(matches!(look(11, false, None).await, Look::Moved { reason: "SignedElsewhere", .. }));
    std::fs::remove_file(Path::new(&node.spec.home_dir).join("data/state.json")).unwrap();
    assert_eq!(home.keys().look(&node, false, None).await.unwrap(), Look::Nothing);
}

#[tokio::test]
async fn a_sign_state_that_was_rewound_on_record_is_signed_with_again() {
    let home = Homestead::new();
    let node = home.validator("net").await;
    drop(home.take(&node).await.unwrap());
    home.signed(&node, 40).await;
    sign(&node, 30);
    assert!(matches!(home.take(&node).await, Err(KeyError::WentBack { .. })));
    let rewind = home.keys().rewind(&node).await.unwrap();
    assert!(rewind.was.starts_with("height 40") && rewind.is.starts_with("height 30"), "{rewind:?}");
    home.store.commit(rewind.write.into_iter().collect()).await.unwrap();
    assert!(home.take(&node).await.unwrap().is_held());
}
