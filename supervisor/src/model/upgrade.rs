//! Upgrades: another binary for a running chain, at a height that all its nodes agree on.
//!
//! ```text
//!  Pending ─► Proposing ─► Voting ─┐
//!     │ no vote                    ▼              saved, switched            N equal blocks
//!     ├────────────────────────► Waiting ─► Switching ───────────► Verifying ───────────► Completed
//!     │ no height                               ▲    │ refused         │ died, hung, another app hash
//!     ├─────────────────────────────────────────┘    ▼                 ▼
//!     ▼ refused, cancelled before the switch       RollingBack ─► RolledBack
//!   Failed ◄── Proposing, Voting, Waiting
//! ```
//! Every step is decided from what is stored here and from what the devnet and its nodes are like: any daemon can take the next one.

use super::{BinarySource, BinaryStatus, Conditions, EventId, Meta, NodeOverride, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpgradePhase {
    /// Fetches and checks the new binary, or waits for an upgrade before it.
    #[default]
    Pending,
    Proposing,
    Voting,
    /// For the height.
    Waiting,
    /// All nodes down; their homes are saved, then the devnet gets the new binary.
    Switching,
    Verifying,
    Completed,
    RollingBack,
    RolledBack,
    Failed,
}

impl UpgradePhase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Failed)
    }
    /// Nodes of its devnet run, or are about to run, another binary than before.
    pub fn is_past_the_switch(self) -> bool {
        matches!(self, Self::Switching | Self::Verifying | Self::RollingBack)
    }
}

/// `metadata.name` is `<devnet>/<upgrade name>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    pub metadata: Meta,
    pub spec: UpgradeSpec,
    #[serde(default)]
    pub status: UpgradeStatus,
}

impl Upgrade {
    /// Somebody asked for another try after its end.
    pub fn is_asked_anew(&self) -> bool {
        self.status.phase.is_final() && self.spec.retry > self.status.attempt
    }
    /// There is something left to do.
    pub fn is_open(&self) -> bool {
        !self.status.phase.is_final() || self.is_asked_anew() || self.status.saved.is_some()
    }
    pub fn blocks_to_verify(&self) -> u64 {
        u64::from(if self.spec.verify_blocks == 0 { VERIFY_BLOCKS } else { self.spec.verify_blocks })
    }
    /// The height at which the chain halts. None: the binary is swapped at once.
    pub fn height(&self) -> Option<u64> {
        self.status.height.or(Some(self.spec.height).filter(|height| *height > 0))
    }
}

/// When the spec names no number of blocks.
pub const VERIFY_BLOCKS: u32 = 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeSpec {
    pub devnet_ref: String,
    /// As the chain's handler is called.
    pub upgrade_name: String,
    /// 0: with a vote, the first that the vote allows; without, at once.
    pub height: u64,
    pub binary: BinarySource,
    pub skip_vote: bool,
    /// 0: the default of `VERIFY_BLOCKS`.
    pub verify_blocks: u32,
    pub cancel: bool,
    /// Each request to try again adds one; `status.attempt` catches up.
    pub retry: u64,
    /// The user knows that the binary has a handler of this name, whatever it looks like.
    pub assume_handler: bool,
    /// One node after the other, while the chain goes on; only without a vote and without a height.
    pub rolling: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeStatus {
    pub phase: UpgradePhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    pub conditions: Conditions,
    pub observed_generation: u64,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    pub attempt: u64,
    pub chain_epoch: u64,
    /// The new one, in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinaryStatus>,
    pub sdk_version: String,
    /// declared, missing or unknown.
    pub handler: String,
    /// The homes as they were before the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedState>,
    pub halts: Vec<HaltProof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedBlock>,
    /// What it failed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its devnet was reset since. Told to clients, never stored.
    pub former_chain: bool,
    /// The controller's own notes; no client sees them.
    pub notes: UpgradeNotes,
}

/// What the controller must know again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeNotes {
    /// The family's upgrades are halts at a height; else the binary is only swapped.
    pub halts: bool,
    /// For a proposal: JSON, an array.
    pub messages: String,
    /// What the chain asks to be deposited with it.
    pub deposit: String,
    /// With these the old binary goes on past the height.
    pub skip_args: Vec<String>,
    /// Nodes that were told of the height, by short name.
    pub told: Vec<String>,
    /// What the devnet's spec said of binaries before the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// Generation of the devnet's spec with the new binary, and with the old one again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
    /// Homes are as they were saved.
    pub put_back: bool,
    /// Restarts of each node when it was let run with the new binary.
    pub restarts: BTreeMap<String, u32>,
    /// The highest block before that.
    pub last_height: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Nodes that have the new binary ahead of their devnet, by short name.
    pub rolled: Vec<String>,
    /// Stopped by its user, and started again only to come to the height.
    pub lent: Vec<String>,
    /// Failed before the height, and tried once more to come to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revived: Vec<String>,
}

/// The part of a devnet's spec that a switch changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Before {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinarySource>,
    pub nodes: Vec<NodeOverride>,
    pub sdk_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedState {
    pub path: String,
    pub bytes: u64,
    /// The file system shares the blocks: nothing was copied.
    pub shared: bool,
    pub at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaltProof {
    /// Short name.
    pub node: String,
    pub evidence: String,
}

/// A block in which all nodes came to the same state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VerifiedBlock {
    pub height: u64,
    pub app_hash: String,
    pub nodes: u32,
}
