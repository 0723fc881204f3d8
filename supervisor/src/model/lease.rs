//! Leases: what a devnet holds of the machine (subnets, ports, validator keys). Unique by name; they go with their devnet.

use super::{Meta, Timestamp};
use serde::{Deserialize, Serialize};

/// `metadata.name` is the resource itself: `subnet/127.64.3`, `port/127.64.3.1/26657`, `key/<genesis>/<key>`. Namespace: that of the devnet;
/// the store keeps names of leases unique over all namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub metadata: Meta,
    pub spec: LeaseSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub devnet_ref: String,
    /// Full node name; none for what the whole devnet holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_ref: Option<String>,
    /// A port's name in its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub wildcard: bool,
    /// Of a key: how far it had signed when its process last ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_mark: Option<SignMark>,
}

/// A sign-state at one moment: what must never go back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SignMark {
    /// Height, round and step; empty where the file does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub position: Vec<u64>,
    /// Of a file its bytes, of a folder its files' names, sizes and times.
    pub digest: String,
    pub modified: Timestamp,
}
