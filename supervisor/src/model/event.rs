//! Events: the audit trail. Each step that did something records what it saw, wanted, did, and what caused it.

use super::{EventId, LaunchId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    #[default]
    Normal,
    Warning,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    pub id: EventId,
    /// Order of commit; the store gives it, 0 before.
    pub seq: u64,
    pub time: Timestamp,
    /// Kind, namespace and name of the subject.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// CamelCase, stable.
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The event that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_id: Option<LaunchId>,
    /// `user:1000`, `controller/node` ...
    pub actor: String,
}
