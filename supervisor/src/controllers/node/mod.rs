//! The node controller: one process per node that should run, none for one that should not; restarts by cause with back-off.
//!
//! `plan` decides from values; this file gathers them, and `apply` carries the step out.

mod apply;
mod budget;
mod certificate;
mod core_dump;
mod ending;
mod freeze;
mod history;
mod kept;
mod launch;
mod launching;
mod plan;
mod recovery;
mod sign_watch;
mod signing;

pub(super) use launch::{job_spec, program, run_job};
pub(super) use plan::class_reason;

use super::{Action, Context, ReconcileError, Reconciler, devnet::planned_ports};
use crate::{
    model::{FROZEN, Key, Kind, Launch, LaunchId, LaunchPhase, Node},
    runtime::{Adopted, Handle},
};
use async_trait::async_trait;
use budget::Budgets;
use plan::{Decision, Process, Seen, Step};
use sign_watch::SignWatches;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Remembers only which launches have a waiter and how many restarts there were of late, and watches sign-states; everything else is
/// in the store, as the restarts are.
#[derive(Default)]
pub struct NodeController {
    watched: Arc<Mutex<HashSet<LaunchId>>>,
    sign_states: SignWatches,
    budgets: Budgets,
}

#[async_trait]
impl Reconciler for NodeController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        loop {
            let taken = self.step(key, cx).await;
            if let Err(error) = &taken {
                launching::tell_of_shortage(key, error, cx).await;
            }
            let Some(Decision { step, requeue }) = taken? else { return Ok(Action::AwaitChange) };
            // A process that ended is on record now. What follows needs no trip over the change feed.
            if !matches!(step, Step::RecordExit(_) | Step::Recover) {
                return Ok(requeue.map_or(Action::AwaitChange, Action::RequeueAfter));
            }
        }
    }
}

impl NodeController {
    /// Takes the next step and returns it. None: there is no such node.
    async fn step(&self, key: &Key, cx: &Context) -> Result<Option<Decision>, ReconcileError> {
        let node = cx.node(key).await?;
        self.sign_states.keep(key, node.as_ref(), cx);
        let Some(node) = node else { return Ok(None) };
        let launch = launch_of(&node, cx).await?;
        let released = match &launch {
            Some(launch) => ending::release(launch, cx).await?, // before all else: what may be left of it must not meet the next launch
            None => None,
        };
        let process = self.process(&node, launch.as_deref(), cx).await?;
        let jitter = budget::jitter(node.status.launch_id.as_ref());
        let steady = cx.observations.get(key).is_some_and(|seen| seen.steady);
        // One that runs waits for nobody.
        let waits_for = if matches!(process, Process::Alive { .. }) { None } else { self.first_unready(&node, cx).await? };
        let seen = Seen { process, now: cx.clock.now(), waits_for, jitter, steady };
        let decision = self.budgets.hold(&node, plan::plan(&node, &seen), cx).await?;
        let decision = match (&decision.step, launch.as_deref()) {
            (Step::RecordExit(exit), Some(launch)) => ending::end(&node, launch, exit.as_ref(), &seen, &self.budgets, cx).await?,
            (step, launch) => apply::apply(&node, launch, released, step, &self.budgets, cx).await.map(|()| decision)?,
        };
        let idles = seen.process == Process::None && !matches!(decision.step, Step::Launch { .. });
        let requeue = match idles && !park(&node, cx).await {
            true => Some(decision.requeue.map_or(PARK_AGAIN, |requeue| requeue.min(PARK_AGAIN))),
            false => decision.requeue,
        };
        Ok(Some(Decision { requeue, ..decision }))
    }

    /// What became of the node's last launch; sees to it that its end wakes this controller.
    async fn process(&self, node: &Node, launch: Option<&Launch>, cx: &Context) -> Result<Process, ReconcileError> {
        let Some(launch) = launch.filter(|launch| launch.status.phase != LaunchPhase::Ended) else { return Ok(Process::None) };
        let Some(handle) = handle_of(launch) else { return Ok(Process::Intended) };
        Ok(match cx.runtime.adopt(&handle).await? {
            Adopted::Running => {
                let may_be_frozen = node.is_to_be_frozen() || node.status.conditions.get(FROZEN).is_some();
                let frozen = may_be_frozen && cx.runtime.is_frozen(&handle).await?;
                self.watch(node, handle, cx);
                Process::Alive { ready: node.status.conditions.is_true("Ready"), frozen }
            }
            Adopted::Exited(exit) => Process::Exited(exit),
            Adopted::Gone => Process::Gone,
        })
    }

    /// One waiter per launch and daemon.
    fn watch(&self, node: &Node, handle: Handle, cx: &Context) {
        if !self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.id.clone()) {
            return;
        }
        let (cx, key, watched) = (cx.clone(), Key::node(&node.metadata.namespace, &node.metadata.name), self.watched.clone());
        tokio::spawn(async move {
            match cx.runtime.wait(&handle).await {
                Ok(_) => drop(watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.id)),
                // It stays in the set: a wait that cannot be had is not asked for again and again.
                Err(error) => tracing::warn!(node = %key, %error, "cannot wait for the process"),
            }
            cx.wake.node(&key);
        });
    }

    /// The first node in `spec.after` that is not ready. One that has died with us, as at a reboot, may be on record as ready until it is
    /// looked at: so its process is.
    async fn first_unready(&self, node: &Node, cx: &Context) -> Result<Option<String>, ReconcileError> {
        for short in &node.spec.after {
            let key = Key::node(&node.metadata.namespace, &format!("{}/{short}", node.spec.devnet_ref));
            let good = match cx.node(&key).await? {
                Some(other) if other.status.conditions.is_true("Completed") => true,
                Some(other) if other.status.conditions.is_true("Ready") => self.lives(&other, cx).await?,
                _ => false,
            };
            if !good {
                return Ok(Some(short.clone()));
            }
        }
        Ok(None)
    }

    async fn lives(&self, node: &Node, cx: &Context) -> Result<bool, ReconcileError> {
        let Some(handle) = launch_of(node, cx).await?.as_deref().and_then(handle_of) else { return Ok(false) };
        // Its own session tells what is wrong with it; here it must not keep another node's end from being recorded.
        Ok(cx.runtime.adopt(&handle).await.is_ok_and(|adopted| adopted == Adopted::Running))
    }
}

/// Nothing tells when a stranger lets go of a port that is to be held.
const PARK_AGAIN: Duration = Duration::from_secs(30);

/// Nobody takes the ports of a node that does not run, if its plan says so. One that cannot be had is no reason to do nothing else;
/// false: it is to be tried again.
async fn park(node: &Node, cx: &Context) -> bool {
    let parked = async {
        let Some(devnet) = cx.accepted_devnet(&node.metadata.namespace, &node.spec.devnet_ref).await? else { return Ok(true) };
        Ok::<_, ReconcileError>(cx.ports.park(node, &planned_ports(&devnet, node, cx).await?).await?)
    };
    parked.await.unwrap_or_else(|error| {
        tracing::warn!(node = %node.metadata.name, %error, "ports are not held while the node does not run");
        false
    })
}

/// The node's last one.
async fn launch_of(node: &Node, cx: &Context) -> Result<Option<Arc<Launch>>, ReconcileError> {
    let Some(id) = &node.status.launch_id else { return Ok(None) };
    let key = Key::new(Kind::Launch, &node.metadata.namespace, &launch_name(&node.metadata.name, id));
    Ok(cx.store.get(&key).await?.and_then(|object| object.try_into().ok()))
}

pub(super) fn launch_name(node: &str, id: &LaunchId) -> String {
    format!("{node}@{id}")
}

/// None before the fork was recorded, or when an older devnetd wrote what this one cannot read.
pub(super) fn handle_of(launch: &Launch) -> Option<Handle> {
    launch.status.handle.as_ref()?.read().ok()
}
