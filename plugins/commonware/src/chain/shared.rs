//! What the running parts of a node share, under one lock that is never held over an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use commonware_consensus::types::Height;
use commonware_cryptography::Digestible as _;
use serde::Serialize;
use tokio::sync::broadcast;

use super::block::MAX_TXS;
use super::genesis::ChainSpec;
use super::ledger::{Account, Ledger};
use super::mempool::{Mempool, Refusal};
use super::tx::{Address, Transfer, namespace};
use super::upgrade::{UpgradePlan, Upgrades};
use super::{Hash, Sealed};

/// A subscriber to heads may be so many blocks late before it loses the oldest.
const HEADS_KEPT: usize = 256;
/// Ledgers after blocks that are not final.
const MAX_SPECULATIVE: usize = 64;

/// The last finalized block whose transfers are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub height: u64,
    #[serde(serialize_with = "as_text")]
    pub hash: Hash,
    #[serde(serialize_with = "as_text")]
    pub state_root: Hash,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    pub txs: usize,
}

/// How far this node is, compared with what it heard since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The highest height that this node knows to be final.
    pub tip: u64,
    /// Whether it lacks blocks, or has not yet seen the network finalize one since it started.
    pub catching_up: bool,
}

/// The state after a block, as far as this node knows it.
pub enum StateAt {
    Known(Arc<Ledger>),
    /// Not executed here yet; ask for its parent.
    Unknown,
    /// At or below the finalized height, and not the head.
    Past,
}

struct Inner {
    head: Head,
    ledger: Arc<Ledger>,
    /// Ledgers after blocks that are proposed or verified and not yet final.
    speculative: BTreeMap<(u64, Hash), Arc<Ledger>>,
    mempool: Mempool,
    tip: u64,
    tip_at_start: u64,
}

pub struct Chain {
    pub spec: ChainSpec,
    pub upgrades: Upgrades,
    namespace: Vec<u8>,
    inner: Mutex<Inner>,
    heads: broadcast::Sender<Head>,
}

impl Chain {
    pub fn new(spec: ChainSpec, head: Head, ledger: Ledger, upgrades: Upgrades) -> Self {
        let inner = Inner {
            head,
            ledger: Arc::new(ledger),
            speculative: BTreeMap::new(),
            mempool: Mempool::default(),
            tip: head.height,
            tip_at_start: head.height,
        };
        Self { namespace: namespace(&spec.hash), spec, upgrades, inner: Mutex::new(inner), heads: broadcast::channel(HEADS_KEPT).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    pub fn head(&self) -> Head {
        self.lock().head
    }

    pub fn ledger(&self) -> Arc<Ledger> {
        self.lock().ledger.clone()
    }

    /// The head now, and those that follow.
    pub fn subscribe(&self) -> (Head, broadcast::Receiver<Head>) {
        let inner = self.lock();
        (inner.head, self.heads.subscribe())
    }

    /// The finalized tip that the archive held when the node started.
    pub fn set_tip_at_start(&self, tip: u64) {
        let mut inner = self.lock();
        inner.tip_at_start = tip;
        inner.tip = inner.tip.max(tip);
    }

    pub fn heard_tip(&self, tip: u64) {
        let mut inner = self.lock();
        inner.tip = inner.tip.max(tip);
    }

    pub fn progress(&self) -> Progress {
        let inner = self.lock();
        let heard_news = inner.tip > inner.tip_at_start;
        Progress { tip: inner.tip, catching_up: !heard_news || inner.head.height + 1 < inner.tip }
    }

    pub fn state_at(&self, height: Height, hash: &Hash) -> StateAt {
        let inner = self.lock();
        if inner.head.hash == *hash {
            return StateAt::Known(inner.ledger.clone());
        }
        if height.get() <= inner.head.height {
            return StateAt::Past;
        }
        match inner.speculative.get(&(height.get(), *hash)) {
            Some(ledger) => StateAt::Known(ledger.clone()),
            None => StateAt::Unknown,
        }
    }

    /// Keeps the ledger after a block that is not final yet, so that it is not executed again.
    pub fn remember(&self, block: &Sealed, ledger: Arc<Ledger>) {
        let mut inner = self.lock();
        let height = block.inner().height.get();
        if height > inner.head.height {
            inner.speculative.insert((height, block.digest()), ledger);
            if inner.speculative.len() > MAX_SPECULATIVE {
                // The highest is furthest from being final, and can be executed again.
                inner.speculative.pop_last();
            }
        }
    }

    /// The ledger that the transfers of a block of `height` meet: `parent`, after the upgrade of that height if there is one.
    pub fn begin(&self, parent: &Ledger, height: u64) -> Ledger {
        let mut ledger = parent.clone();
        if let Some(plan) = self.upgrades.at(height) {
            ledger.upgrade(plan.name);
        }
        ledger
    }

    /// The upgrade that this node has halted for.
    pub fn halted(&self) -> Option<UpgradePlan> {
        self.upgrades.blocks(self.head().height + 1)
    }

    /// The transfers for a block of `height` on top of `parent`, and the ledger after them.
    pub fn pick(&self, parent: &Ledger, height: u64) -> (Vec<Transfer>, Ledger) {
        self.lock().mempool.pick(&self.begin(parent, height), MAX_TXS, height)
    }

    /// Whether `block`'s transfers are all signed. Those in the mempool were checked when they came.
    pub fn signatures_hold(&self, block: &Sealed) -> bool {
        let known: Vec<bool> = {
            let inner = self.lock();
            block.inner().txs.iter().map(|tx| inner.mempool.get(&tx.hash()) == Some(tx)).collect()
        };
        block.inner().txs.iter().zip(known).all(|(tx, known)| known || tx.verify(&self.namespace))
    }

    /// A finalized block is applied and stored: it becomes the head.
    pub fn advance(&self, block: &Sealed, ledger: Arc<Ledger>) -> Head {
        let content = block.inner();
        let head = Head {
            height: content.height.get(),
            hash: block.digest(),
            state_root: content.state_root,
            timestamp: content.timestamp,
            txs: content.txs.len(),
        };
        let mut inner = self.lock();
        inner.head = head;
        inner.tip = inner.tip.max(head.height);
        inner.speculative = inner.speculative.split_off(&(head.height + 1, Hash::from([0; 32])));
        inner.mempool.settle(&content.txs, &ledger, head.height);
        inner.ledger = ledger;
        // Nobody listening is no error.
        let _ = self.heads.send(head);
        head
    }

    /// Checks a transfer and keeps it for a block.
    pub fn admit(&self, tx: Transfer) -> Result<Hash, Refusal> {
        if self.lock().mempool.get(&tx.hash()).is_some() {
            return Err(Refusal::Known);
        }
        if !tx.verify(&self.namespace) {
            return Err(super::ledger::TxFault::BadSignature.into());
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.mempool.insert(tx, &inner.ledger, inner.head.height)
    }

    pub fn pending(&self, hash: &Hash) -> Option<Transfer> {
        self.lock().mempool.get(hash).cloned()
    }

    pub fn mempool_size(&self) -> usize {
        self.lock().mempool.len()
    }

    /// Transfers that wait for at least `blocks` blocks.
    pub fn overdue(&self, blocks: u64, max: usize) -> Vec<Transfer> {
        let inner = self.lock();
        match inner.head.height.checked_sub(blocks) {
            Some(since) => inner.mempool.waiting_since(since, max),
            None => Vec::new(),
        }
    }

    /// An account, and the nonce for its next transfer (pending ones counted).
    pub fn account(&self, address: &Address) -> (Account, u64) {
        let inner = self.lock();
        (inner.ledger.account(address), inner.mempool.next_nonce(address, &inner.ledger))
    }
}

fn as_text<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}
