//! The health controller: a session beside each launched node that finds out whether it is ready, how high it is and whether it moves.
//!
//! ```text
//!  launched ──► probing ──ready──► following blocks ──no block for long──► stalled
//!                  ▲                   │    ▲                                 │
//!                  └──stream ended─────┘    └────────────next block───────────┘
//!  frozen: none of this; only its usage is looked at
//! ```
//! Ready and Progressing are conditions on the node and are written when they turn; heights, peers and usage are observations.

mod http;
mod meter;
mod session;

use super::{Action, Context, ReconcileError, Reconciler, node::launch_name, placing::stored_context};
use crate::model::{FROZEN, Key, Kind, Launch, LaunchId, LaunchPhase, Node, NodePhase, PlanBody, Readiness};
use async_trait::async_trait;
use session::Session;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Default)]
pub struct HealthController {
    sessions: Arc<Sessions>,
    /// Ends the task that samples what nodes use.
    metering: OnceLock<DropGuard>,
}

/// By node; dropping an entry ends its task.
#[derive(Default)]
struct Sessions(Mutex<HashMap<Key, (Watched, DropGuard)>>);

#[async_trait]
impl Reconciler for HealthController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        self.metering.get_or_init(|| spawn_until_dropped(meter::sample_when_read(Arc::downgrade(&self.sessions), cx.clone())));
        let node = cx.node(key).await?;
        let Some((node, watched)) = node.as_ref().and_then(|node| Some((node, watched(node)?))) else {
            self.sessions().remove(key);
            cx.observations.forget(key);
            return Ok(Action::AwaitChange);
        };
        if self.sessions().get(key).is_some_and(|(before, _)| *before == watched) {
            return Ok(Action::AwaitChange);
        }
        let before = self.sessions().remove(key); // that of the launch before, or of the same before it was frozen or thawed
        if let Some(session) = open(node, &watched.launch, cx).await? {
            if before.is_none_or(|(before, _)| before.launch != watched.launch) {
                cx.observations.forget(key); // what the session before may have seen last: after a reset it is not so any more
            }
            let session = Box::pin(Box::new(session).run(watched.frozen)); // a future that is passed on has its room twice
            self.sessions().insert(key.clone(), (watched.clone(), spawn_until_dropped(session)));
        }
        Ok(Action::AwaitChange)
    }
}

impl HealthController {
    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, (Watched, DropGuard)>> {
        self.sessions.lock()
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Watched, DropGuard)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Node and launch of each.
    fn launches(&self) -> Vec<(Key, LaunchId)> {
        self.lock().iter().map(|(node, (watched, _))| (node.clone(), watched.launch.clone())).collect()
    }
}

/// On a task that ends with the guard at the latest.
fn spawn_until_dropped(work: impl Future<Output = ()> + Send + 'static) -> DropGuard {
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    tokio::spawn(async move { cancel.run_until_cancelled(work).await });
    guard
}

/// What a session is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    launch: LaunchId,
    /// It stands still, or is about to: then nothing that it does or does not answer says anything.
    frozen: bool,
}

/// The launch that deserves a session: one that is not on its way out. Whether it has a pid is its runtime's business.
fn watched(node: &Node) -> Option<Watched> {
    let alive = matches!(node.status.phase, NodePhase::Starting | NodePhase::Running);
    let frozen = node.is_to_be_frozen() || node.status.conditions.get(FROZEN).is_some();
    node.status.launch_id.clone().filter(|_| alive).map(|launch| Watched { launch, frozen })
}

async fn open(node: &Node, id: &LaunchId, cx: &Context) -> Result<Option<Session>, ReconcileError> {
    let namespace = &node.metadata.namespace;
    let key = Key::new(Kind::Launch, namespace, &launch_name(&node.metadata.name, id));
    let Some(launch) = cx.store.get(&key).await?.and_then(|object| Arc::<Launch>::try_from(object).ok()) else { return Ok(None) };
    if launch.status.phase != LaunchPhase::Running {
        return Ok(None); // its start is recorded together with a change of the node, which wakes this controller again
    }
    let Some(devnet) = cx.accepted_devnet(namespace, &node.spec.devnet_ref).await? else { return Ok(None) };
    let context = match &launch.spec.readiness {
        Readiness::Plugin => {
            let plan = cx.plan(namespace, &node.spec.devnet_ref).await?;
            let nodes = cx.nodes(namespace, &node.spec.devnet_ref).await?;
            Some(stored_context(&devnet, plan.as_deref().map_or(&PlanBody::default(), |plan| &plan.spec), &nodes))
        }
        _ => None,
    };
    Ok(Some(Session::new(node, &launch, &devnet, context, cx)))
}
