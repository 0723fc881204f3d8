//! Watches the sign-state files of validators: one that goes back while its node runs, or moves while it does not, was written by
//! somebody else.
//!
//! A file that names a height is watched; a folder of a chain's own making is compared at each start only, since it changes with
//! every vote and tells nothing of them.

use super::super::{Context, Edit, Story};
use crate::{
    keylease::{KeyError, Look},
    logs::Growth,
    model::{Condition, ConditionStatus, Key, LaunchId, Node, NodePhase, SignMark},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Watches by node; dropping an entry ends its task.
#[derive(Default)]
pub(super) struct SignWatches(Mutex<HashMap<Key, (LaunchId, DropGuard)>>);

impl SignWatches {
    /// From a node's launch on, also when that has ended, until the next launch or the end of the node.
    pub(super) fn keep(&self, key: &Key, node: Option<&Arc<Node>>, cx: &Context) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let launched = node.and_then(|node| Some((node, node.status.launch_id.clone()?, sign_state(node)?)));
        let Some((node, launch, file)) = launched else { return drop(watches.remove(key)) };
        if watches.get(key).is_some_and(|(known, _)| *known == launch) {
            return;
        }
        let cancel = CancellationToken::new();
        watches.insert(key.clone(), (launch.clone(), cancel.clone().drop_guard()));
        let watch = Watch { key: key.clone(), node: node.metadata.name.clone(), launch, file, seen: None, told: false, cx: cx.clone() };
        tokio::spawn(async move { cancel.run_until_cancelled(watch.run()).await });
    }
}

fn sign_state(node: &Node) -> Option<PathBuf> {
    node.spec.consensus_key.as_ref()?;
    Some(Path::new(&node.spec.home_dir).join(node.spec.sign_state.as_ref()?))
}

struct Watch {
    key: Key,
    node: String,
    launch: LaunchId,
    file: PathBuf,
    /// The furthest that it was while this launch ran.
    seen: Option<SignMark>,
    /// Once is enough until the next launch.
    told: bool,
    cx: Context,
}

impl Watch {
    async fn run(mut self) {
        if !self.file.is_file() {
            return;
        }
        // The folder: a file that is renamed into place is another one each time.
        let changes = match Growth::watch(self.file.parent().unwrap_or(&self.file)) {
            Ok(changes) => changes,
            Err(error) => return tracing::warn!(node = self.node, %error, "its sign-state is compared at its starts only"),
        };
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(node = self.node, %error, "its sign-state could not be compared");
            }
            if self.told {
                return;
            }
            changes.changed().await;
        }
    }

    async fn look(&mut self) -> Result<(), KeyError> {
        let Some(node) = self.cx.node(&self.key).await? else { return Ok(()) };
        let runs = matches!(node.status.phase, NodePhase::Starting | NodePhase::Running | NodePhase::Stopping);
        match self.cx.keys().look(&node, runs, self.seen.as_ref()).await? {
            Look::Seen(mark) if runs => self.seen = Some(mark),
            Look::Nothing | Look::Seen(_) => {}
            Look::Moved { reason, message } => self.tell(reason, &message).await?,
        }
        Ok(())
    }

    async fn tell(&mut self, reason: &'static str, message: &str) -> Result<(), KeyError> {
        self.told = true;
        let now = self.cx.clock.now();
        let edit = |node: &mut Node| {
            if node.status.launch_id.as_ref() != Some(&self.launch) {
                return Edit::Skip;
            }
            node.status.conditions.set(Condition::new("SignState", ConditionStatus::False, reason, message), now);
            Edit::Tell(Story::new("node", reason, message).warn().observed("the sign-state was written by another process"))
        };
        Ok(self.cx.edit_node(&self.key, vec![], edit).await?)
    }
}
