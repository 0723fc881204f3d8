//! Upgrades and exports that can come to no good end, as far as that is known when they are asked for: no node is asked, nothing is built.

use super::{Context, foresight::WORD_WITHIN, names};
use crate::{
    binaries,
    model::{Devnet, DevnetPhase, Export, Fault, FaultCode, Key, Kind, Object, Upgrade, Violation},
    plugin::{EXPORTS_NEWEST, PluginInfo, gov::GOV_CAPABILITY, upgrade::UPGRADE_CAPABILITY},
    store::Selector,
};
use std::path::Path;
use tokio::time::timeout;

/// The binary, as far as a look at it tells, and what the chain's family is able to do.
pub(super) async fn upgrade(cx: &Context, wanted: &Upgrade, devnet: &Devnet) -> Result<(), Fault> {
    let name = devnet.metadata.name.as_str();
    if !devnet.spec.has_chain() {
        let fault = Fault::new(FaultCode::Unimplemented, format!("devnet {name} has no chain that could be upgraded: its plugin is exec"));
        return Err(fault.about(name).remedy("change spec.services in its file, then dvbctl apply"));
    }
    let source = &wanted.spec.binary;
    if let Err(error) = binaries::inspect(source).await {
        let fault = error.fault();
        let violations = vec![Violation::new("spec.binary", fault.message.clone())];
        return Err(Fault { violations, ..fault }.about(name));
    }
    if !wanted.spec.skip_vote
        && let Some(lack) = cannot_vote(cx, devnet).await?
    {
        let message = format!("the chain of {name} has no governance to vote on it ({lack})");
        let violation = Violation { suggestion: Some("skipVote: true".into()), ..Violation::new("spec.skipVote", message) };
        return Err(Fault::invalid(vec![violation]).about(name).remedy("add --skip-vote, or spec.skipVote: true"));
    }
    Ok(())
}

/// An upgrade to the binary that the devnet runs, when none comes before it.
pub(super) async fn no_change(cx: &Context, wanted: &Upgrade, devnet: &Devnet) -> Result<(), Fault> {
    if !is_the_running_one(wanted, devnet).await || has_another_ahead(cx, wanted, devnet).await? {
        return Ok(());
    }
    let name = devnet.metadata.name.as_str();
    let message = format!("{} is the binary that {name} runs already", binaries::describe(&wanted.spec.binary));
    let fault = Fault::invalid(vec![Violation::new("spec.binary", message)]);
    Err(fault.about(name).remedy(format!("name the new binary; which one it runs: dvbctl describe {name}")))
}

/// Whether the node that is to be read is one of the chain's. `devnet` is as it is, or as the file beside the export makes it.
pub(super) fn export(wanted: &Export, devnet: &Devnet) -> Result<(), Fault> {
    let Some(node) = wanted.spec.node.as_ref().filter(|node| !names::makes(&devnet.spec, node)) else { return Ok(()) };
    let name = devnet.metadata.name.as_str();
    let last = (devnet.spec.full_nodes.checked_sub(1)).map_or_else(String::new, |last| format!(", fullnode-0 to fullnode-{last}"));
    let message =
        format!("devnet {name} has no chain node `{node}`; there are validator-0 to validator-{}{last}", devnet.spec.validators().max(1) - 1);
    Err(Fault::invalid(vec![Violation::new("spec.node", message)]).about(name).remedy(format!("dvbctl get nodes {name}")))
}

/// A height that the chain, which runs, does not have yet, or one that its family does not keep.
pub(super) fn export_height(cx: &Context, wanted: &Export, devnet: &Devnet, info: &PluginInfo) -> Result<(), Fault> {
    let name = devnet.metadata.name.as_str();
    let reached = cx.observations.highest(&devnet.metadata.namespace, name);
    let (Some(height), Some(reached)) = (wanted.spec.height, reached) else { return Ok(()) };
    let keeps_newest = info.capabilities.iter().any(|capability| capability == EXPORTS_NEWEST);
    let (message, remedy) = if height > reached && devnet.status.phase == DevnetPhase::Running {
        let message = format!("is {height}, and the chain is at {reached}: that state is not there yet");
        (message, "wait for that height, or leave the height out for the latest")
    } else if height < reached && keeps_newest {
        let message = format!("is {height}, and the chain is at {reached}: that state is gone, plugin {} keeps the newest only", info.name);
        (message, "leave the height out for the latest")
    } else {
        return Ok(());
    };
    let violation = Violation { suggestion: Some(reached.to_string()), ..Violation::new("spec.height", message) };
    Err(Fault::invalid(vec![violation]).about(name).remedy(remedy))
}

/// None when the plugin does not say it now.
async fn info(cx: &Context, plugin: &str) -> Option<PluginInfo> {
    timeout(WORD_WITHIN, async { cx.plugins.get(plugin).await.ok()?.info().await.ok() }).await.ok()?
}

/// Who lacks what a vote on an upgrade takes: the plugin, or the binary by what it says of itself. None also when nobody knows yet.
async fn cannot_vote(cx: &Context, devnet: &Devnet) -> Result<Option<String>, Fault> {
    let plugin = devnet.spec.plugin.as_str();
    let Some(info) = info(cx, plugin).await else { return Ok(None) };
    for needed in [GOV_CAPABILITY, UPGRADE_CAPABILITY] {
        if !info.capabilities.iter().any(|capability| capability == needed) {
            return Ok(Some(format!("plugin {plugin}")));
        }
        if lacks(cx, devnet, needed).await? {
            return Ok(Some(format!("its binary has no module {needed}")));
        }
    }
    Ok(None)
}

/// The devnet's binary is known not to have this capability of its plugin.
pub(super) async fn lacks(cx: &Context, devnet: &Devnet, capability: &str) -> Result<bool, Fault> {
    let key = Key::new(Kind::Plan, &devnet.metadata.namespace, &devnet.metadata.name);
    let Some(Object::Plan(plan)) = cx.store.get(&key).await.map_err(|error| error.fault())? else { return Ok(false) };
    Ok(plan.spec.lacks.iter().any(|lacking| lacking == capability))
}

async fn is_the_running_one(wanted: &Upgrade, devnet: &Devnet) -> bool {
    let Some(running) = &devnet.status.binary else { return false };
    match &wanted.spec.binary.path {
        Some(path) => binaries::has_content_of(Path::new(path), Path::new(&running.path), &running.sha256).await,
        None => devnet.spec.binary.as_ref() == Some(&wanted.spec.binary) && binaries::is_fixed(&wanted.spec.binary),
    }
}

/// Then the devnet may run something else when this one's turn comes.
async fn has_another_ahead(cx: &Context, wanted: &Upgrade, devnet: &Devnet) -> Result<bool, Fault> {
    let selector = Selector::in_devnet(Kind::Upgrade, &devnet.metadata.namespace, &devnet.metadata.name);
    let (upgrades, _) = cx.store.list(&selector).await.map_err(|error| error.fault())?;
    Ok(upgrades
        .iter()
        .any(|object| matches!(object, Object::Upgrade(other) if other.is_open() && other.spec.upgrade_name != wanted.spec.upgrade_name)))
}
