//! The transaction controller: drives transactions to their end, exactly once.
//!
//! ```text
//!  devnet ──► session ──► lane of each signer: ask the chain ─► plan ─► settle ─► build, sign, store ─► send ─► note what came of it
//!                ▲                                                                  ▲ never before the bytes are stored
//!                └── the store's feed · each new block · back-off after an error
//! ```
//! A session is a task for each devnet. It is quiet while there is nothing to do: it then listens to the store alone. A lane is the
//! one place that gives sequences to a signer; [`plan`] says what it must always keep to.

mod apply;
mod lane;
mod plan;
mod session;
mod target;
#[cfg(test)]
mod tests;

use super::{Action, Context, ReconcileError, Reconciler, sessions::Sessions};
use crate::model::Key;
use async_trait::async_trait;
use std::sync::Arc;

pub struct TransactionController {
    /// By devnet.
    sessions: Sessions,
    /// How many finished transactions of a devnet are kept.
    keep: usize,
}

impl TransactionController {
    pub fn new(keep: usize) -> Self {
        Self { sessions: Sessions::default(), keep }
    }
}

#[async_trait]
impl Reconciler for TransactionController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let devnet = cx.devnet(&key.namespace, &key.name).await?;
        match devnet.filter(|devnet| devnet.metadata.deleted_at.is_none()) {
            None => self.sessions.end(key),
            Some(devnet) => self.sessions.keep(key, &devnet.metadata.uid, || session::run(key.clone(), Arc::new(cx.clone()), self.keep)),
        }
        Ok(Action::AwaitChange)
    }
}
