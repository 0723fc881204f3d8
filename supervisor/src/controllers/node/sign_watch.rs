//! Watches the sign-states of validators: one that goes back while its node runs, or moves while it does not, was written by somebody
//! else. As it moves, who else can sign with the key is looked for, too.
//!
//! A file that names a height is compared at each change. A folder of a chain's own making tells nothing of votes: that it moved while
//! its node was down counts when somebody is seen at work there, and it is not watched for a while after each look, as it changes with
//! every vote.

use super::super::{Context, Edit, Story};
use crate::{
    keylease::{KeyError, Look},
    logs::Growth,
    model::{Condition, ConditionStatus, Key, LaunchId, Node, NodePhase, SignMark},
};
use futures::future::select_all;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Watches by node; dropping an entry ends its task.
#[derive(Default)]
pub(super) struct SignWatches(Mutex<HashMap<Key, (LaunchId, DropGuard)>>);

impl SignWatches {
    /// From a node's launch on, also when that has ended, until the next launch or the end of the node.
    pub(super) fn keep(&self, key: &Key, node: Option<&Arc<Node>>, cx: &Context) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let launched = node.and_then(|node| Some((node, node.status.launch_id.clone()?, sign_state(node)?)));
        let Some((node, launch, state)) = launched else { return drop(watches.remove(key)) };
        if watches.get(key).is_some_and(|(known, _)| *known == launch) {
            return;
        }
        let cancel = CancellationToken::new();
        watches.insert(key.clone(), (launch.clone(), cancel.clone().drop_guard()));
        let watch =
            Watch { key: key.clone(), node: node.metadata.name.clone(), launch, state, seen: None, told: false, rivals_at: None, cx: cx.clone() };
        tokio::spawn(async move { cancel.run_until_cancelled(watch.run()).await });
    }
}

fn sign_state(node: &Node) -> Option<PathBuf> {
    node.spec.consensus_key.as_ref()?;
    Some(Path::new(&node.spec.home_dir).join(node.spec.sign_state.as_ref()?))
}

const KEY_LEASE: &str = "KeyLease";

/// Of a file its folder; of a folder all of it; of what is not there yet the nearest folder that is.
fn folders_to_watch(state: &Path) -> Vec<PathBuf> {
    if !state.is_dir() {
        return state.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned).into_iter().collect();
    }
    let mut folders = vec![state.to_owned()];
    let mut read = 0;
    while read < folders.len() && folders.len() < MOST_FOLDERS {
        let below = fs::read_dir(&folders[read]).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(below.filter(|path| path.is_dir()));
        read += 1;
    }
    folders.truncate(MOST_FOLDERS);
    folders
}

struct Watch {
    key: Key,
    node: String,
    launch: LaunchId,
    state: PathBuf,
    /// The furthest that it was while this launch ran.
    seen: Option<SignMark>,
    /// Once is enough until the next launch.
    told: bool,
    /// When rivals were last looked for.
    rivals_at: Option<Instant>,
    cx: Context,
}

/// Between two looks at the processes of the machine, or at a folder: blocks come more often than anybody starts a node by hand.
const REST: Duration = Duration::from_secs(2);
/// Folders in a sign-state that are watched; beyond, one is as good as the other.
const MOST_FOLDERS: usize = 32;

impl Watch {
    async fn run(mut self) {
        loop {
            // Folders: a file that is renamed into place is another one each time.
            let watches = folders_to_watch(&self.state).into_iter().map(|folder| Growth::watch(&folder)).collect::<Result<Vec<_>, _>>();
            let changes = match watches {
                Ok(changes) => changes,
                Err(error) => return tracing::warn!(node = self.node, %error, "its sign-state is compared at its starts only"),
            };
            let rests = !self.state.is_file();
            loop {
                if let Err(error) = self.look().await {
                    tracing::warn!(node = self.node, %error, "its sign-state could not be compared");
                }
                if self.told {
                    return;
                }
                select_all(changes.iter().map(|change| Box::pin(change.changed()))).await;
                if rests {
                    break;
                }
            }
            drop(changes);
            sleep(REST).await;
        }
    }

    async fn look(&mut self) -> Result<(), KeyError> {
        let Some(node) = self.cx.node(&self.key).await? else { return Ok(()) };
        let runs = matches!(node.status.phase, NodePhase::Starting | NodePhase::Running | NodePhase::Stopping);
        if runs {
            self.look_for_rivals(&node).await?;
        }
        match self.cx.keys().look(&node, runs, self.seen.as_ref()).await? {
            Look::Seen(mark) if runs => self.seen = Some(mark),
            Look::Nothing | Look::Seen(_) => {}
            Look::Moved { reason, message } => self.tell(reason, &message).await?,
        }
        Ok(())
    }

    async fn look_for_rivals(&mut self, node: &Node) -> Result<(), KeyError> {
        let said = node.status.conditions.get(KEY_LEASE).map(|condition| condition.reason.as_str());
        if said == Some("DoubleSignAllowed") || self.rivals_at.is_some_and(|at| at.elapsed() < REST) {
            return Ok(());
        }
        self.rivals_at = Some(Instant::now());
        let (condition, story) = match self.cx.keys().rivals(node).await? {
            None if said != Some("KeyInUse") => return Ok(()),
            None => {
                let message = "no other process on this machine signs with its key any more";
                (Condition::new(KEY_LEASE, ConditionStatus::True, "Held", message), Story::new("node", "KeyHeld", message))
            }
            Some(rivals) => {
                let message = rivals.to_string();
                let condition = Condition::new(KEY_LEASE, ConditionStatus::False, "KeyInUse", message.clone());
                let story = Story::new("node", "KeyInUse", message).warn().observed("a process without its lease can sign with its key");
                (condition.with_remedy(rivals.remedy_while_it_runs()), story)
            }
        };
        let now = self.cx.clock.now();
        let edit = |node: &mut Node| match node.status.launch_id.as_ref() == Some(&self.launch) && node.status.conditions.set(condition.clone(), now)
        {
            true => Edit::Tell(story.clone()),
            false => Edit::Skip,
        };
        Ok(self.cx.edit_node(&self.key, vec![], edit).await?)
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
