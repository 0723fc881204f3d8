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

use super::{Action, Context, ReconcileError, Reconciler};
use crate::model::{Key, Uid};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Sessions by devnet; dropping an entry ends its task.
pub struct TransactionController {
    sessions: Mutex<HashMap<Key, (Uid, DropGuard)>>,
    /// How many finished transactions of a devnet are kept.
    keep: usize,
}

impl TransactionController {
    pub fn new(keep: usize) -> Self {
        Self { sessions: Mutex::default(), keep }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, (Uid, DropGuard)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Reconciler for TransactionController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let devnet = cx.devnet(&key.namespace, &key.name).await?;
        let mut sessions = self.sessions();
        match devnet.filter(|devnet| devnet.metadata.deleted_at.is_none()) {
            None => drop(sessions.remove(key)),
            Some(devnet) if sessions.get(key).is_some_and(|(uid, _)| *uid == devnet.metadata.uid) => {}
            Some(devnet) => {
                let cancel = CancellationToken::new();
                sessions.insert(key.clone(), (devnet.metadata.uid.clone(), cancel.clone().drop_guard()));
                let (key, cx, keep) = (key.clone(), Arc::new(cx.clone()), self.keep);
                tokio::spawn(async move { cancel.run_until_cancelled(session::run(key, cx, keep)).await });
            }
        }
        Ok(Action::AwaitChange)
    }
}
