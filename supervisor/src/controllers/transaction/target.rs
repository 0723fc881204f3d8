//! Whom a session speaks to: the plugin, and a node that is ready.

use super::super::{Context, ReconcileError, placing};
use crate::{
    model::{Devnet, Key, PlacedNode},
    plugin::{
        ChainPlugin, DevnetContext, ready,
        tx::{TX_CAPABILITY, TxSupport},
    },
};
use std::sync::Arc;

/// The plugin with all that it must be told of the devnet.
#[derive(Clone)]
pub(super) struct Family {
    pub(super) plugin: Arc<dyn ChainPlugin>,
    pub(super) devnet: DevnetContext,
    pub(super) support: TxSupport,
}

/// A family with one of its nodes.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) family: Family,
    pub(super) node: PlacedNode,
}

/// How it is with a devnet's chain.
pub(super) enum Standing {
    /// Not yet, or not now: the change feed tells when that changes.
    Waiting,
    /// The plugin has no transactions; the words are for the user.
    Unable(String),
    Able(Box<Family>, Option<PlacedNode>),
}

/// `turn` counts failures: another ready node gets its turn after each.
pub(super) async fn find(devnet: &Devnet, turn: usize, cx: &Context) -> Result<Standing, ReconcileError> {
    let (namespace, name) = (&devnet.metadata.namespace, &devnet.metadata.name);
    let Some(plan) = cx.plan(namespace, name).await? else { return Ok(Standing::Waiting) };
    if devnet.spec.operations.reset != devnet.status.operations.reset {
        return Ok(Standing::Waiting);
    }
    let nodes = cx.nodes(namespace, name).await?;
    let plugin = cx.plugins.get(&devnet.spec.plugin).await?;
    if !plugin.info().await?.capabilities.iter().any(|capability| capability == TX_CAPABILITY) {
        return Ok(Standing::Unable(format!("plugin {} makes no transactions", devnet.spec.plugin)));
    }
    let context = placing::stored_context(devnet, &plan.spec, &nodes);
    let support = plugin.tx_support(&context).await?;
    let ready = ready(&nodes);
    let node = ready.get(turn % ready.len().max(1)).map(|node| placing::placed(node));
    Ok(Standing::Able(Box::new(Family { plugin, devnet: context, support }), node))
}

pub(super) async fn devnet(key: &Key, cx: &Context) -> Result<Option<Arc<Devnet>>, ReconcileError> {
    Ok(cx.devnet(&key.namespace, &key.name).await?)
}
