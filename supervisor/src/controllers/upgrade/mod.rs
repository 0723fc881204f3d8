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

use super::{Action, Context, ReconcileError, Reconciler};
use crate::model::{Key, Uid};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Sessions by devnet; dropping an entry ends its task.
#[derive(Default)]
pub struct UpgradeController {
    sessions: Mutex<HashMap<Key, (Uid, DropGuard)>>,
}

impl UpgradeController {
    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, (Uid, DropGuard)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Reconciler for UpgradeController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let devnet = cx.devnet(&key.namespace, &key.name).await?;
        let mut sessions = self.sessions();
        match devnet.filter(|devnet| devnet.metadata.deleted_at.is_none()) {
            None => drop(sessions.remove(key)),
            Some(devnet) if sessions.get(key).is_some_and(|(uid, _)| *uid == devnet.metadata.uid) => {}
            Some(devnet) => {
                let cancel = CancellationToken::new();
                sessions.insert(key.clone(), (devnet.metadata.uid.clone(), cancel.clone().drop_guard()));
                let (key, cx) = (key.clone(), Arc::new(cx.clone()));
                tokio::spawn(async move { cancel.run_until_cancelled(session::run(key, cx)).await });
            }
        }
        Ok(Action::AwaitChange)
    }
}
