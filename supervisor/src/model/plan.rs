//! The plan that a plugin made for a devnet: stored, and reused until the generation or the plugin's digest changes.

use super::{DevnetSpec, Meta};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// `metadata.name` is the devnet's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub metadata: Meta,
    pub spec: PlanBody,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanBody {
    pub devnet_ref: String,
    /// Of the devnet, when it was made.
    pub generation: u64,
    /// Digest of the spec it was made of, without what only holds nodes down or counts requests (`DevnetSpec::digest`).
    pub spec_digest: String,
    /// The spec itself: what nodes are launched from while a newer one is refused or not yet taken up. None: made by an older devnetd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devnet_spec: Option<Arc<DevnetSpec>>,
    /// SHA-256 of the plugin's executable.
    pub plugin_digest: String,
    pub binary_sha256: String,
    /// What Initialize returned, hex; opaque.
    pub initialized: String,
    pub sdk_version: String,
    /// Capabilities of the plugin that the devnet's binary has not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    pub nodes: Vec<PlannedNode>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedNode {
    /// Short name.
    pub name: String,
    pub role: String,
    pub index: u32,
    pub ports: Vec<PlannedPort>,
    pub consensus_key: String,
    pub sign_state: String,
    pub key_file: String,
    pub after: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedPort {
    pub name: String,
    /// The chain's standard number.
    pub port: u16,
    /// The binary binds 0.0.0.0 whatever it is told.
    pub wildcard: bool,
    /// TCP: held while the node does not run.
    pub park: bool,
    pub udp: bool,
    /// For endpoints: http, ws, tcp.
    pub scheme: String,
}

/// A node where it will run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacedNode {
    pub name: String,
    pub role: String,
    pub index: u32,
    pub address: String,
    pub ports: BTreeMap<String, u16>,
    pub home_dir: String,
}
