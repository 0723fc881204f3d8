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

use super::{Action, Context, ReconcileError, Reconciler, sessions::Sessions};
use crate::model::{Export, Key};
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Default)]
pub struct ExportController {
    /// By export.
    sessions: Sessions,
    /// One node at a time stands still: two exports of one node must not let it go on under each other.
    still: Arc<tokio::sync::Mutex<()>>,
}

#[async_trait]
impl Reconciler for ExportController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let export = cx.store.get(key).await?.and_then(|object| Arc::<Export>::try_from(object).ok());
        match export {
            None => self.sessions.end(key),
            Some(export) if export.metadata.deleted_at.is_some() => {
                self.sessions.end(key);
                let _last = self.still.lock().await; // nobody clones into what is removed now
                apply::remove(&export, cx).await?;
            }
            Some(export) if export.status.phase.is_final() => self.sessions.end(key),
            Some(export) => self.sessions.keep(key, &export.metadata.uid, || session::run(key.clone(), cx.clone(), self.still.clone())),
        }
        Ok(Action::AwaitChange)
    }
}
