//! A chain without consensus for transactions in tests: accounts, a mempool, and blocks that a test makes.

use super::FakePlugin;
use crate::{
    model::PlacedNode,
    plugin::{
        DevnetContext, PluginError,
        tx::{
            BroadcastOutcome, BuildOutcome, BuildRequest, IncludedTx, RefusalClass, SignItem, SignedTx, TxAccount, TxLookup, TxPlugin, TxQuery,
            TxRefusal, TxSupport, TxType, UnsignedTx,
        },
    },
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Blocks that signed bytes live.
pub const FAKE_LIFE: u64 = 10;
const BALANCE: u64 = 1_000;

/// What is signed: a transfer, with all that makes its bytes its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FakeTx {
    pub from: String,
    pub amount: u64,
    pub sequence: u64,
    pub expires_at: u64,
}

#[derive(Debug, Default)]
pub(super) struct FakeChain {
    height: u64,
    /// Balance and next sequence of who has used it.
    accounts: BTreeMap<String, (u64, u64)>,
    pool: BTreeMap<(String, u64), FakeTx>,
    blocks: Vec<(u64, FakeTx)>,
    /// Carried by blocks in vain, and not told of yet.
    dropped: Vec<FakeTx>,
    /// So many broadcasts are carried out and not answered.
    unheard: usize,
    /// The mempool takes so many more.
    room: Option<usize>,
}

impl FakePlugin {
    /// Puts what the mempool holds into a block of height + 1, and has `node` announce it.
    pub fn make_block(&self, node: &str) {
        let height = self.state().chain.make_block();
        self.announce(node, height);
    }
    /// The next `count` broadcasts reach the mempool, and their answers are lost.
    pub fn lose_answers(&self, count: usize) {
        self.state().chain.unheard = count;
    }
    /// A block of height + 1 carries what the mempool holds, too early for all of it.
    pub fn waste_block(&self, node: &str) {
        let mut state = self.state();
        state.chain.height += 1;
        let (height, wasted) = (state.chain.height, std::mem::take(&mut state.chain.pool));
        state.chain.dropped.extend(wasted.into_values());
        drop(state);
        self.announce(node, height);
    }
    /// A block of height + 1 carries the first of what the mempool holds, too early for it. The node drops the rest, and tells nobody.
    pub fn waste_first(&self, node: &str) {
        let mut state = self.state();
        state.chain.height += 1;
        let (height, wasted) = (state.chain.height, std::mem::take(&mut state.chain.pool));
        state.chain.dropped.extend(wasted.into_values().next());
        drop(state);
        self.announce(node, height);
    }
    /// As a node does that restarts.
    pub fn forget_pool(&self) {
        self.state().chain.pool.clear();
    }
    /// The mempool takes only so many more.
    pub fn limit_pool(&self, room: Option<usize>) {
        self.state().chain.room = room;
    }
    /// A transaction of the same key that the daemon knows nothing of, straight into the mempool.
    pub fn submit_from_outside(&self, from: &str) {
        let mut state = self.state();
        let sequence = state.chain.next(from);
        let tx = FakeTx { from: from.into(), amount: 1, sequence, expires_at: u64::MAX };
        state.chain.pool.insert((from.into(), sequence), tx);
    }
    /// All that is in blocks, in order.
    pub fn included(&self) -> Vec<FakeTx> {
        self.state().chain.blocks.iter().map(|(_, tx)| tx.clone()).collect()
    }
    /// How many wait in the mempool.
    pub fn pending(&self) -> usize {
        self.state().chain.pool.len()
    }
}

impl FakeChain {
    pub(super) fn height(&self) -> u64 {
        self.height
    }
    fn account(&self, address: &str) -> (u64, u64) {
        self.accounts.get(address).copied().unwrap_or((BALANCE, 0))
    }
    /// The first sequence that is neither used nor pending.
    fn next(&self, address: &str) -> u64 {
        let mut next = self.account(address).1;
        while self.pool.contains_key(&(address.to_owned(), next)) {
            next += 1;
        }
        next
    }
    fn make_block(&mut self) -> u64 {
        self.height += 1;
        let height = self.height;
        self.pool.retain(|_, tx| tx.expires_at >= height);
        for (_, tx) in std::mem::take(&mut self.pool) {
            let (balance, next) = self.account(&tx.from);
            if tx.sequence == next {
                self.accounts.insert(tx.from.clone(), (balance.saturating_sub(tx.amount), next + 1));
                self.blocks.push((height, tx));
            }
        }
        height
    }
    fn take(&mut self, tx: FakeTx) -> BroadcastOutcome {
        let no = |class, message: String, next| Err(TxRefusal { class, message, code: 1, next_sequence: next });
        let key = (tx.from.clone(), tx.sequence);
        if self.pool.get(&key) == Some(&tx) {
            return Ok(());
        }
        let next = self.next(&tx.from);
        if tx.sequence != next {
            return no(RefusalClass::Sequence, format!("expected {next}, got {}", tx.sequence), Some(next));
        }
        if tx.expires_at <= self.height {
            return no(RefusalClass::Expired, "expired".into(), None);
        }
        let (balance, _) = self.account(&tx.from);
        if balance < tx.amount {
            return no(RefusalClass::Funds, format!("{} has {balance} and needs {}", tx.from, tx.amount), None);
        }
        match &mut self.room {
            Some(0) => return no(RefusalClass::MempoolFull, "the mempool is full".into(), None),
            Some(room) => *room -= 1,
            None => {}
        }
        self.pool.insert(key, tx);
        Ok(())
    }
}

fn hash(raw: &[u8]) -> String {
    super::digest(raw)
}

fn read(raw: &[u8]) -> Option<FakeTx> {
    serde_json::from_slice(raw).ok()
}

#[async_trait]
impl TxPlugin for FakePlugin {
    async fn tx_support(&self, _devnet: &DevnetContext) -> Result<TxSupport, PluginError> {
        let types = vec![TxType { name: "transfer".into(), description: "moves money".into(), template: r#"{"amount":1}"#.into() }];
        Ok(TxSupport { types, max_in_flight: 4, expiry_blocks: FAKE_LIFE })
    }

    async fn account(&self, _devnet: &DevnetContext, node: Option<&PlacedNode>, signer: &str) -> Result<TxAccount, PluginError> {
        self.begin("account", "").await?;
        let address = signer.replace("account:", "fake1");
        if !address.starts_with("fake1") {
            let message = format!("`{signer}` is no signer of this devnet");
            return Err(PluginError::Rejected { name: self.name.clone(), code: "InvalidArgument".into(), message });
        }
        let state = self.state();
        let (balance, sequence) = if node.is_some() { state.chain.account(&address) } else { (0, 0) };
        Ok(TxAccount { exists: address != "fake1poor", address, sequence, height: state.chain.height, balance: balance.to_string(), detail: vec![] })
    }

    async fn build(&self, _devnet: &DevnetContext, node: Option<&PlacedNode>, request: BuildRequest) -> Result<Vec<BuildOutcome>, PluginError> {
        self.begin("build", "").await?;
        let build = |intent: crate::plugin::tx::TxIntent| {
            let payload: serde_json::Value = serde_json::from_str(&intent.payload).unwrap_or_default();
            if node.is_none() && intent.tx_type != "transfer" {
                let message = format!("there is no transaction type {}; there is transfer", intent.tx_type);
                return Err(TxRefusal { class: RefusalClass::Invalid, message, ..TxRefusal::default() });
            }
            match payload["amount"].as_u64() {
                Some(amount) => {
                    Ok(UnsignedTx { body: amount.to_be_bytes().to_vec(), gas_limit: 7, fee: "1fake".into(), meaning: format!("moves {amount}") })
                }
                None => Err(TxRefusal { class: RefusalClass::Invalid, message: "payload.amount is no number".into(), ..TxRefusal::default() }),
            }
        };
        Ok(request.intents.into_iter().map(build).collect())
    }

    async fn sign(&self, _devnet: &DevnetContext, _signer: &str, account: &TxAccount, items: Vec<SignItem>) -> Result<Vec<SignedTx>, PluginError> {
        self.begin("sign", "").await?;
        let sign = |item: SignItem| {
            let amount = u64::from_be_bytes(item.body.try_into().unwrap_or_default());
            let tx = FakeTx { from: account.address.clone(), amount, sequence: item.sequence, expires_at: item.expires_at };
            let raw = serde_json::to_vec(&tx).unwrap_or_default();
            SignedTx { hash: hash(&raw), raw }
        };
        Ok(items.into_iter().map(sign).collect())
    }

    async fn broadcast(&self, _devnet: &DevnetContext, _node: &PlacedNode, raw: Vec<Vec<u8>>) -> Result<Vec<BroadcastOutcome>, PluginError> {
        self.begin("broadcast", "").await?;
        let mut state = self.state();
        let mut outcomes = Vec::new();
        for tx in raw.iter().filter_map(|raw| read(raw)) {
            outcomes.push(state.chain.take(tx));
            if outcomes.last().is_some_and(Result::is_err) {
                break;
            }
        }
        if state.chain.unheard > 0 {
            state.chain.unheard -= 1;
            return Err(PluginError::Rejected { name: self.name.clone(), code: "Unavailable".into(), message: "the answer was lost".into() });
        }
        Ok(outcomes)
    }

    async fn lookup(&self, _devnet: &DevnetContext, _node: &PlacedNode, queries: Vec<TxQuery>) -> Result<TxLookup, PluginError> {
        self.begin("lookup", "").await?;
        let mut state = self.state();
        let dropped = std::mem::take(&mut state.chain.dropped).iter().map(|tx| hash(&serde_json::to_vec(tx).unwrap_or_default())).collect();
        let found = |(height, tx): &(u64, FakeTx)| {
            let hash = hash(&serde_json::to_vec(tx).unwrap_or_default());
            let wanted = queries.iter().any(|query| query.hash == hash && *height > query.after_height);
            wanted.then(|| (hash, IncludedTx { height: *height, gas_used: 5, ..IncludedTx::default() }))
        };
        Ok(TxLookup { height: state.chain.height, included: state.chain.blocks.iter().filter_map(found).collect(), dropped })
    }
}
