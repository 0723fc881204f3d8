//! Exports: a file with a devnet's state at one height.
//!
//! ```text
//!  Pending ──► Cloning ──► Exporting ──► Completed
//!     │           │            │
//!     └───────────┴────────────┴──► Failed
//! ```
//! A node's data is cloned while the node stands still, then the chain's own program reads the clone. A daemon that dies in the middle
//! begins anew with the clone.

use super::{ByteSize, Conditions, EventId, Meta};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportPhase {
    /// Waits for a node whose data can be read.
    #[default]
    Pending,
    /// A node stands still while its data is cloned.
    Cloning,
    /// The chain's program reads the clone.
    Exporting,
    Completed,
    Failed,
}

impl ExportPhase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// `metadata.name` is `<devnet>/<short name>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    pub metadata: Meta,
    pub spec: ExportSpec,
    #[serde(default)]
    pub status: ExportStatus,
}

impl Export {
    /// The name below the devnet's.
    pub fn short_name(&self) -> &str {
        self.metadata.name.split_once('/').map_or("", |(_, short)| short)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportSpec {
    pub devnet_ref: String,
    /// None: the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    pub for_zero_height: bool,
    /// Short name of the node whose data is read. None: one that is missed least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the chain's program may take. None: what the daemon grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportStatus {
    pub phase: ExportPhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of the file so far.
    pub bytes: u64,
    pub conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Written before the node is held still: whoever comes next lets it go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneReport>,
}

/// What the copy of a node's data cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloneReport {
    /// reflink | copy
    pub way: String,
    pub bytes: u64,
    /// How long the node stood still.
    pub paused_ms: u64,
}
