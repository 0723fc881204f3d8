//! The export controller: makes a file with a devnet's state at one height, while its nodes run.
//!
//! ```text
//!  export ──► session: plan ─► choose a node ─► hold it still, clone its data, let it go on ─► the chain's program reads the clone ─► file
//!                        │ nobody is ready: wait for the devnet's nodes
//! ```
//! A session is a task for each export that has not ended. All that it makes lies in the export's own folder, and everything but the file
//! goes when it ends. A session that was cut off is begun anew: its node is let go on first.

mod apply;
mod files;
mod pause;
mod plan;
mod session;
#[cfg(test)]
mod tests;

use super::{Action, Context, ReconcileError, Reconciler};
use crate::model::{Export, Key, Uid};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Sessions by export; dropping an entry ends its task.
#[derive(Default)]
pub struct ExportController {
    sessions: Mutex<HashMap<Key, (Uid, DropGuard)>>,
    /// One node at a time stands still: two exports of one node must not let it go on under each other.
    still: Arc<tokio::sync::Mutex<()>>,
}

impl ExportController {
    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, (Uid, DropGuard)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Reconciler for ExportController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let export = cx.store.get(key).await?.and_then(|object| Arc::<Export>::try_from(object).ok());
        match export {
            None => drop(self.sessions().remove(key)),
            Some(export) if export.metadata.deleted_at.is_some() => {
                drop(self.sessions().remove(key));
                let _last = self.still.lock().await; // nobody clones into what is removed now
                apply::remove(&export, cx).await?;
            }
            Some(export) if export.status.phase.is_final() => drop(self.sessions().remove(key)),
            Some(export) => {
                let mut sessions = self.sessions();
                if sessions.get(key).is_none_or(|(uid, _)| *uid != export.metadata.uid) {
                    let cancel = CancellationToken::new();
                    sessions.insert(key.clone(), (export.metadata.uid.clone(), cancel.clone().drop_guard()));
                    let session = session::Session { key: key.clone(), cx: cx.clone(), still: self.still.clone() };
                    tokio::spawn(async move { cancel.run_until_cancelled(session.run()).await });
                }
            }
        }
        Ok(Action::AwaitChange)
    }
}
