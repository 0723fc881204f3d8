//! What every object carries.

use super::{Timestamp, Uid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const DEFAULT_NAMESPACE: &str = "default";

/// The store's sequence number of a write; 0 for an object that was never written.
pub type Revision = u64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: Uid,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub generation: u64,
    pub resource_version: Revision,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}
