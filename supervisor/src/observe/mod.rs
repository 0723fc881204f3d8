//! Observations: heights, peers, usage. Kept in memory, merged into objects at read, never a write to the store.

use crate::model::{Key, Timestamp, Usage};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};
use tokio::sync::{broadcast, watch};

/// What was last seen of one running node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSeen {
    /// None: nobody has asked it yet, or it follows no chain.
    pub height: Option<u64>,
    pub peers: Option<u32>,
    pub catching_up: bool,
    /// It has followed so many blocks without a break that its restarts may be forgotten.
    pub steady: bool,
    /// When the height last rose.
    pub advanced_at: Timestamp,
    pub usage: Option<Usage>,
    /// In the chain's own words: voting power, missed blocks.
    pub details: BTreeMap<String, String>,
}

/// Last observations by node key, with a feed of which node changed. A slow reader of the feed misses entries, never blocks.
#[derive(Debug)]
pub struct Observations {
    nodes: Mutex<HashMap<Key, NodeSeen>>,
    changed: broadcast::Sender<Key>,
    /// Counts reads by clients: usage is sampled when somebody looks.
    reads: watch::Sender<u64>,
}

impl Default for Observations {
    fn default() -> Self {
        Self { nodes: Mutex::default(), changed: broadcast::channel(1024).0, reads: watch::channel(0).0 }
    }
}

impl Observations {
    pub fn get(&self, node: &Key) -> Option<NodeSeen> {
        self.lock().get(node).cloned()
    }
    /// Changes what is known of `node` and tells the feed when anything differs.
    pub fn update(&self, node: &Key, edit: impl FnOnce(&mut NodeSeen)) {
        let changed = {
            let mut nodes = self.lock();
            let seen = nodes.entry(node.clone()).or_default();
            let before = seen.clone();
            edit(seen);
            *seen != before
        };
        if changed {
            let _ = self.changed.send(node.clone()); // nobody listening is fine
        }
    }
    /// The highest height seen of any node of a devnet.
    pub fn highest(&self, namespace: &str, devnet: &str) -> Option<u64> {
        let of_devnet = |key: &Key| key.namespace == namespace && key.name.strip_prefix(devnet).is_some_and(|rest| rest.starts_with('/'));
        self.lock().iter().filter(|(key, _)| of_devnet(key)).filter_map(|(_, seen)| seen.height).max()
    }
    pub fn forget(&self, node: &Key) {
        self.lock().remove(node);
    }
    /// A client read nodes: whoever samples usage may sample now.
    pub fn note_read(&self) {
        self.reads.send_modify(|reads| *reads += 1);
    }
    pub fn reads(&self) -> watch::Receiver<u64> {
        self.reads.subscribe()
    }
    pub fn subscribe(&self) -> broadcast::Receiver<Key> {
        self.changed.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, NodeSeen>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
