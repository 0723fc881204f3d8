//! Transactions: what somebody wants signed and sent, and how far that is.
//!
//! ```text
//!  Pending ──► Building ──► Signing ──► Submitted ──► Confirmed
//!     ▲           │ refused     │ bytes stored  │ ▲        (in a block, code 0)
//!     │           ▼             ▼               ▼ │ sent again
//!     │         Failed ◄─── provably dead ◄── Retrying
//!     └──────── provably dead, and the cause passes ──┘
//! ```
//! A phase is written when it lasts: what is built, signed and sent in one go shows as Pending, Signing, Submitted.

use super::{Conditions, EventId, Meta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionPhase {
    /// Waits for its turn in the lane of its signer.
    #[default]
    Pending,
    /// Its gas could not be simulated yet; tried again.
    Building,
    /// Signed and stored, not yet taken by a node.
    Signing,
    /// A node took it.
    Submitted,
    /// Signed, and no node has it for now; the same bytes are sent again, or new ones once the old are dead.
    Retrying,
    Confirmed,
    Failed,
}

impl TransactionPhase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed)
    }
}

/// `metadata.name` is `<devnet>/tx-<digest of the request id>`: a second submit finds the first by its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    pub metadata: Meta,
    pub spec: TransactionSpec,
    #[serde(default)]
    pub status: TransactionStatus,
}

impl Transaction {
    /// The name under which the store holds the transaction of a request id.
    pub fn name_of(devnet: &str, request_id: &str) -> String {
        let digest = Sha256::digest(request_id.as_bytes());
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{devnet}/tx-{short}")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransactionSpec {
    pub devnet_ref: String,
    pub tx_type: String,
    /// `validator:0`, `account:3`, or an address of these.
    pub signer: String,
    pub payload: Value,
    /// 0: simulated.
    pub gas_limit: u64,
    pub memo: String,
    pub request_id: String,
    /// Simulated gas is multiplied by it; 0: the default of `GAS_FACTOR`.
    pub gas_factor: f64,
}

/// Of the gas that a simulation used.
pub const GAS_FACTOR: f64 = 1.4;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransactionStatus {
    pub phase: TransactionPhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub events: Vec<TxEvent>,
    pub conditions: Conditions,
    /// The bytes that may be in a block. None: nothing that was signed for it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedAttempt>,
    pub attempts: u32,
    pub chain_epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Never stored: at each read the API says so of what was confirmed before a reset of the chain.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub former_chain: bool,
}

/// What was stored before it was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SignedAttempt {
    /// Hex.
    pub raw: String,
    pub hash: String,
    pub sequence: u64,
    /// The chain's height when it was signed: no block up to it holds these bytes.
    pub height: u64,
    /// Last height at which a block may hold them; 0: they never expire.
    pub expires_at: u64,
}

/// What the chain said while it ran the transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TxEvent {
    #[serde(rename = "type")]
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}
