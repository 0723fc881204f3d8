//! The upgrade controller: drives upgrades from the check of the new binary to equal blocks with it, or back.
//!
//! ```text
//!  devnet ──► session ──► gather facts ─► plan (pure) ─► apply one step, recorded ──► again
//!                ▲
//!                └── the store's feed · what nodes are seen at · a look after a pause where nothing announces
//! ```
//! A session is a task for each devnet; its upgrades are driven one after the other, in the order in which they were asked for. It is
//! quiet while there is none: it then listens to the store alone.

mod apply;
mod check;
mod facts;
mod homes;
mod plan;
mod session;
mod switch;
mod vote;

use super::{Action, Context, ReconcileError, Reconciler, sessions::Sessions};
use crate::model::Key;
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Default)]
pub struct UpgradeController {
    /// By devnet.
    sessions: Sessions,
}

#[async_trait]
impl Reconciler for UpgradeController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let devnet = cx.devnet(&key.namespace, &key.name).await?;
        match devnet.filter(|devnet| devnet.metadata.deleted_at.is_none()) {
            None => self.sessions.end(key),
            Some(devnet) => self.sessions.keep(key, &devnet.metadata.uid, || session::run(key.clone(), Arc::new(cx.clone()))),
        }
        Ok(Action::AwaitChange)
    }
}
