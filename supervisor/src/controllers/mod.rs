//! Controllers: each drives one kind of object towards what was asked for.
//!
//! A reconciler reads the state, never the reason why it was woken; it decides in a pure `plan` and acts in a thin `apply`. It is
//! idempotent, and writes nothing when nothing changed. Only controllers join the runtime with the plugins.

mod context;
#[cfg(test)]
mod death_tests;
pub mod devnet;
pub mod export;
mod fault;
pub mod health;
#[cfg(test)]
mod key_tests;
mod manager;
pub mod node;
mod placing;
mod sessions;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transaction;
#[cfg(test)]
mod truth_tests;
pub mod upgrade;

pub use context::{Context, Edit, Story};
pub use manager::{ControllerKind, Manager, Task, Wake};

use crate::{
    binaries::BinaryError,
    clone::CloneError,
    keylease::KeyError,
    model::{Fault, Key, Violation},
    plugin::PluginError,
    ports::PortError,
    runtime::RuntimeError,
    store::StoreError,
};
use async_trait::async_trait;
use std::{path::PathBuf, time::Duration};

/// What a reconciler asks for when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wake on the next change only.
    AwaitChange,
    /// Wake on the next change, or after this long.
    RequeueAfter(Duration),
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Binary(#[from] BinaryError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Clone(#[from] CloneError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("job {name} failed: {reason}")]
    Job { name: String, reason: String },
    #[error("{}", first(.0))]
    Invalid(Vec<Violation>),
    #[error("{file} has not the digest that the plugin announced")]
    Digest { file: PathBuf },
    #[error("{0}")]
    Unfit(String),
    #[error("{}", .0.message)]
    Fault(Fault),
}

fn first(violations: &[Violation]) -> String {
    violations.first().map_or_else(|| "the spec is invalid".into(), |violation| format!("{}: {}", violation.field, violation.message))
}

/// Drives objects of one kind. The manager never calls it for one key twice at once.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Makes one step towards the desired state of `key`; a missing object means that it is gone, and is no error.
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError>;
}
