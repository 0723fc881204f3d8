//! The devnet controller: makes a devnet's nodes exist, holds them down or lets them run, and sums up how they are.
//!
//! Only this controller writes which nodes there are and whether they are held down; the node controller does the rest.

mod apply;
mod files;
mod genesis;
mod identity;
mod keepsakes;
mod origin;
mod pace;
mod plan;
mod provision;
mod retries;
mod sum;

pub(super) use files::FreshDir;
pub(super) use identity::initialize_in;
pub(super) use provision::{MAX_ROUNDS, run_jobs};

use super::{Action, Context, ReconcileError, Reconciler, placing::SERVICE};
use crate::model::{Devnet, Key, Node, PlannedPort};
use apply::Attempt;
use async_trait::async_trait;
use pace::Pace;
use plan::{Made, Step};
use retries::Retries;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Remembers only which devnets wait to be provisioned again, and when each was last reported on; everything else is in the store.
#[derive(Default)]
pub struct DevnetController {
    retries: Retries,
    pace: Pace,
}

#[async_trait]
impl Reconciler for DevnetController {
    async fn reconcile(&self, key: &Key, cx: &Context) -> Result<Action, ReconcileError> {
        let Some(devnet) = cx.devnet(&key.namespace, &key.name).await? else {
            self.retries.forget(key);
            self.pace.forget(key);
            return Ok(Action::AwaitChange);
        };
        let nodes = cx.nodes(&key.namespace, &key.name).await?;
        let stored = cx.plan(&key.namespace, &key.name).await?;
        let plugin = match stored {
            Some(_) => cx.plugins.digest(&devnet.spec.plugin).await.ok(), // one that is away for a moment changes nothing
            None => None,
        };
        let made = stored.as_deref().map(|plan| Made {
            spec: &plan.spec.spec_digest,
            plugin_replaced: plugin.as_ref().is_some_and(|digest| *digest != plan.spec.plugin_digest),
        });
        let height = cx.observations.highest(&key.namespace, &key.name).unwrap_or(0);
        let mut step = plan::plan(&devnet, &nodes, made, height);
        let mut action = Action::AwaitChange;
        if let Step::Provision { refresh_binary } = step {
            let Some(left) = self.retries.left(key, &devnet, Instant::now()) else {
                return self.provision(key, &devnet, &nodes, refresh_binary, cx).await;
            };
            // What runs goes on meanwhile, and its devnet's status with it.
            step = made.map_or(Step::Nothing, |_| plan::upkeep(&devnet, &nodes, height));
            action = Action::RequeueAfter(left);
        }
        if let Step::Report(sum) = &step
            && let Some(left) = self.pace.left(key, &devnet, sum, Instant::now())
        {
            step = Step::Nothing;
            action = sooner(action, left);
        }
        apply::apply(&devnet, &nodes, step, cx).await?;
        Ok(action)
    }
}

impl DevnetController {
    /// Each failure is written to the devnet, and that write wakes this controller: so the back-off is kept here, not by the queue.
    async fn provision(&self, key: &Key, devnet: &Devnet, nodes: &[Arc<Node>], refresh: bool, cx: &Context) -> Result<Action, ReconcileError> {
        match apply::attempt(devnet, nodes, refresh, cx).await? {
            Attempt::Over => {
                self.retries.forget(key);
                Ok(Action::AwaitChange)
            }
            Attempt::Again => {
                self.retries.failed(key, devnet, Instant::now());
                Ok(Action::RequeueAfter(Duration::ZERO)) // what runs has its upkeep until the next attempt is due
            }
        }
    }
}

fn sooner(action: Action, left: Duration) -> Action {
    match action {
        Action::AwaitChange => Action::RequeueAfter(left),
        Action::RequeueAfter(other) => Action::RequeueAfter(other.min(left)),
    }
}

/// The ports of a node as its plugin (or its service's spec) declared them.
pub(super) async fn planned_ports(devnet: &Devnet, node: &Node, cx: &Context) -> Result<Vec<PlannedPort>, ReconcileError> {
    let short = node.node_name().short;
    if node.spec.role == SERVICE {
        let service = devnet.spec.services.iter().enumerate().find(|(_, service)| service.name == short);
        return Ok(service.map(|(index, service)| super::placing::planned_service(index, service).ports).unwrap_or_default());
    }
    let plan = cx.plan(&devnet.metadata.namespace, &devnet.metadata.name).await?;
    let planned = plan.as_deref().and_then(|plan| plan.spec.nodes.iter().find(|planned| planned.name == short));
    let mut ports = planned.map(|planned| planned.ports.clone()).unwrap_or_default();
    ports.iter_mut().for_each(|port| port.park |= devnet.spec.parks());
    Ok(ports)
}
