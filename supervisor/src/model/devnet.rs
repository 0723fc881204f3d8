//! Devnets: spec, status and phases.
//!
//! ```text
//!            valid            nodes ready           a node not ready
//! Pending ──────► Provisioning ──────► Running ◄────────────────────► Degraded
//!    │                 │                  │ stop / start                  │
//!    └───► Failed ◄────┘                  └────────► Stopped ◄────────────┘
//!                         any ── delete ──► Deleting ──► gone
//! ```

use super::{BinarySource, Conditions, DevnetSpec, EventId, Meta, Operations, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevnetPhase {
    #[default]
    Pending,
    Provisioning,
    Running,
    Degraded,
    Stopped,
    Failed,
    Deleting,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Devnet {
    pub metadata: Meta,
    pub spec: DevnetSpec,
    #[serde(default)]
    pub status: DevnetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DevnetStatus {
    pub phase: DevnetPhase,
    pub nodes: u32,
    pub ready_nodes: u32,
    /// Observation, merged in at read: the highest height of any node. None: no node's is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_height: Option<u64>,
    pub sdk_version: String,
    pub sdk_version_history: Vec<SdkChange>,
    /// Oldest first; those of chains before a reset go with the next one.
    pub upgrades: Vec<PastUpgrade>,
    pub conditions: Conditions,
    pub observed_generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    /// SHA-256 of the genesis file, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinaryStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    pub accounts: Vec<Account>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnemonic_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The counters of `spec.operations` that were carried out.
    pub operations: Operations,
    /// The event that last changed the state; `why` starts here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// What it is doing or waiting for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The upgrade that holds all nodes down, whatever the spec wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SdkChange {
    pub version: String,
    pub at: Timestamp,
    pub height: u64,
}

/// A binary that gave way to another by an upgrade, told also when the upgrade's own record is deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PastUpgrade {
    /// As its handler is called.
    pub name: String,
    /// None: the plugin's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BinarySource>,
    pub after: BinarySource,
    pub height: u64,
    pub at: Timestamp,
    /// `spec.operations.reset` of the chain that it belongs to.
    pub chain_epoch: u64,
}

/// The binary in the cache that the nodes run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BinaryStatus {
    /// What the spec named, in words: `path /x/wasmd`, `goModule github.com/CosmWasm/wasmd@v0.54.0`.
    pub source: String,
    pub path: String,
    pub sha256: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub name: String,
    pub address: String,
    pub balance: String,
}
