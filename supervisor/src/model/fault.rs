//! The one shape of an error that leaves the daemon: stable code, cause, whether a retry helps, the command that mends it.

use serde::{Deserialize, Serialize};

/// Stable: clients act on these. Each maps to one gRPC status in `api::status` and one exit code in dvbctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultCode {
    NotFound,
    AlreadyExists,
    Conflict,
    InvalidSpec,
    Immutable,
    NotReady,
    PermissionDenied,
    HomeMismatch,
    Unimplemented,
    OutOfRange,
    Overloaded,
    ShuttingDown,
    TimedOut,
    PluginMissing,
    PluginBroken,
    PluginIncompatible,
    PluginRejected,
    BinaryMissing,
    BinaryUnusable,
    BinaryBuildFailed,
    PortBusy,
    SubnetBusy,
    SpawnFailed,
    DiskFull,
    ReadOnly,
    StoreCorrupt,
    StoreTooNew,
    GenesisFailed,
    JobFailed,
    Internal,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Fault {
    pub code: FaultCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub retriable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

/// One thing wrong in a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Path in the document: `spec.nodes[0].name`.
    pub field: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Fault {
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), subject: None, retriable: false, remedy: None, violations: Vec::new() }
    }
    pub fn retriable(mut self) -> Self {
        self.retriable = true;
        self
    }
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("the spec has {} faults; first: {}: {}", many.len(), many[0].field, many[0].message),
        };
        Self { violations, ..Self::new(FaultCode::InvalidSpec, message) }
    }
}

impl Violation {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), suggestion: None }
    }
}
