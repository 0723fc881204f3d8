//! Transactions in the daemon's own types: what a plugin is asked for, and what it answers.

use super::PluginError;
use crate::model::{PlacedNode, TxEvent};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};

use super::DevnetContext;

/// A plugin that has it answers the calls of [`TxPlugin`].
pub const TX_CAPABILITY: &str = "tx";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxSupport {
    pub types: Vec<TxType>,
    /// Signed and not yet in a block, per signer.
    pub max_in_flight: usize,
    /// How many blocks signed bytes should live. 0: they do not expire.
    pub expiry_blocks: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxType {
    pub name: String,
    pub description: String,
    /// JSON.
    pub template: String,
}

/// A signer as the chain knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxAccount {
    pub address: String,
    pub exists: bool,
    pub sequence: u64,
    /// The height at which this is so.
    pub height: u64,
    pub balance: String,
    pub detail: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxIntent {
    pub tx_type: String,
    /// JSON.
    pub payload: String,
    pub gas_limit: u64,
    pub memo: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnsignedTx {
    pub body: Vec<u8>,
    pub gas_limit: u64,
    pub fee: String,
    pub meaning: String,
}

/// Why a transaction is not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalClass {
    Sequence,
    MempoolFull,
    /// The node cannot judge it now: it has made no block since it started.
    Unready,
    Funds,
    #[default]
    Invalid,
    UnknownAccount,
    Fee,
    Expired,
}

impl RefusalClass {
    /// The same transaction may be taken later, or with another sequence.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Sequence | Self::MempoolFull | Self::Unready | Self::Expired)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxRefusal {
    pub class: RefusalClass,
    pub message: String,
    pub code: i64,
    /// What the node expects next, pending ones counted.
    pub next_sequence: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildRequest {
    pub signer: String,
    pub account: TxAccount,
    pub intents: Vec<TxIntent>,
    pub next_sequence: u64,
    pub gas_factor: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignItem {
    pub body: Vec<u8>,
    pub sequence: u64,
    /// Last height at which a block may hold it; 0: never expires.
    pub expires_at: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignedTx {
    pub raw: Vec<u8>,
    pub hash: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxQuery {
    pub hash: String,
    pub after_height: u64,
    pub expires_at: u64,
}

/// What is in blocks up to `height`. A hash that is not there is in no block up to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxLookup {
    pub height: u64,
    pub included: BTreeMap<String, IncludedTx>,
    /// Carried by a block in vain: no mempool holds them any more, and the bytes live on.
    pub dropped: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncludedTx {
    pub height: u64,
    /// 0: it did what it should.
    pub code: i64,
    pub log: String,
    pub gas_used: u64,
    pub events: Vec<TxEvent>,
}

pub type BuildOutcome = Result<UnsignedTx, TxRefusal>;
/// Ok: the node has it, now or before.
pub type BroadcastOutcome = Result<(), TxRefusal>;

/// The transactions of a chain family. The lane of a signer is the only caller; `plugin.proto` tells what each call promises.
#[async_trait]
pub trait TxPlugin: Send + Sync + 'static {
    async fn tx_support(&self, devnet: &DevnetContext) -> Result<TxSupport, PluginError>;
    /// Without a node: the address alone.
    async fn account(&self, devnet: &DevnetContext, node: Option<&PlacedNode>, signer: &str) -> Result<TxAccount, PluginError>;
    /// One outcome for each intent. Without a node: what the payloads alone tell, for intents that give their gas.
    async fn build(&self, devnet: &DevnetContext, node: Option<&PlacedNode>, request: BuildRequest) -> Result<Vec<BuildOutcome>, PluginError>;
    /// One for each item.
    async fn sign(&self, devnet: &DevnetContext, signer: &str, account: &TxAccount, items: Vec<SignItem>) -> Result<Vec<SignedTx>, PluginError>;
    /// In the given order, until one is refused: what follows has no outcome.
    async fn broadcast(&self, devnet: &DevnetContext, node: &PlacedNode, raw: Vec<Vec<u8>>) -> Result<Vec<BroadcastOutcome>, PluginError>;
    async fn lookup(&self, devnet: &DevnetContext, node: &PlacedNode, queries: Vec<TxQuery>) -> Result<TxLookup, PluginError>;
}
