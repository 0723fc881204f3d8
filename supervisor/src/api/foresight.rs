//! What can be said of a spec before anything is done about it: what its plugin refuses, and what a look at its binaries tells.

use super::names;
use crate::{
    binaries::{self, describe},
    model::{BinarySource, Devnet, Fault, FaultCode, Kind, NodeOverride, Object, PastUpgrade, Upgrade, UpgradePhase, Violation},
    plugin::{ChainPlugin, DevnetContext, PluginError, PluginInfo, Plugins},
    store::{Selector, Store},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a request waits for the plugin's word. One that is slower, hangs or is ill keeps nobody from asking for something: the
/// controllers ask it again, and what comes of it is told.
pub(super) const WORD_WITHIN: Duration = Duration::from_secs(2);

/// What the plugin can say at once against the spec.
pub(super) async fn refuse_at_once(devnet: &Devnet, plugins: &dyn Plugins) -> Result<(), Fault> {
    let ask = async { objection(devnet, plugins.get(&devnet.spec.plugin).await?.as_ref()).await };
    match timeout(WORD_WITHIN, ask).await {
        Ok(Ok((_, Some(objection)))) => Err(objection),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the plugin says of itself, and what it has against the spec.
async fn objection(devnet: &Devnet, plugin: &dyn ChainPlugin) -> Result<(PluginInfo, Option<Fault>), PluginError> {
    let info = plugin.info().await?;
    let violations = plugin.validate(&DevnetContext::of(devnet)).await?;
    let fault = if violations.is_empty() { info.lacks_binary(&devnet.spec) } else { Some(Fault::invalid(violations)) };
    Ok((info, fault.map(|fault| fault.about(&devnet.metadata.name))))
}

/// Everything that provisioning would stumble over and that can be seen without doing anything, in the order and in the words in
/// which it would be told there.
pub(super) async fn foresee(devnet: &Devnet, present: Option<&Devnet>, plugins: &dyn Plugins, store: &dyn Store) -> Result<(), Fault> {
    let told = |error: PluginError| error.fault();
    let plugin = plugins.get(&devnet.spec.plugin).await.map_err(told)?;
    let (info, objection) = objection(devnet, plugin.as_ref()).await.map_err(told)?;
    if let Some(objection) = objection {
        return Err(objection);
    }
    if present.is_some_and(|present| present.status.genesis_hash.is_some()) {
        foresee_latecomers(devnet, &info, store).await?;
    }
    for source in unresolved(devnet, present) {
        binaries::inspect(source).await.map_err(|error| error.fault())?;
    }
    Ok(())
}

/// The binary of before an upgrade, as it stands in a file that was not changed since: with it the chain would go back.
pub(super) async fn refuse_the_binary_of_before(devnet: &Devnet, present: &Devnet, store: &dyn Store) -> Result<(), Fault> {
    if devnet.spec.binary == present.spec.binary {
        return Ok(());
    }
    match past_upgrades(present, store).await?.iter().find(|past| past.before == devnet.spec.binary) {
        Some(past) => Err(left_behind(devnet, present, past)),
        None => Ok(()),
    }
}

/// A file that says what was before upgrades which it declares itself, and which have carried the devnet on to its present binary, is
/// fulfilled: that binary stays, and the second value says so. `declared` are their names.
pub(super) async fn follow_declared_upgrades(
    mut wanted: Devnet,
    present: &Devnet,
    declared: &[String],
    store: &dyn Store,
) -> Result<(Devnet, Option<String>), Fault> {
    if declared.is_empty() || wanted.spec.binary == present.spec.binary {
        return Ok((wanted, None));
    }
    let (mut spec, mut by) = (wanted.spec.clone(), Vec::new());
    for past in past_upgrades(present, store).await? {
        if spec.binary == past.before && declared.contains(&past.name) {
            let of_nodes = spec.nodes.iter_mut().filter(|node| node.binary.is_some() && node.binary == past.before);
            of_nodes.for_each(|node| node.binary = Some(past.after.clone()));
            spec.binary = Some(past.after);
            by.push(format!("{}/{}", present.metadata.name, past.name));
        }
    }
    if by.is_empty() || spec.binary != present.spec.binary {
        return Ok((wanted, None));
    }
    let note = format!(
        "{} gave way to {} by upgrade {}, which the file declares: that stays",
        named(wanted.spec.binary.as_ref()),
        named(spec.binary.as_ref()),
        by.join(", ")
    );
    wanted.spec = spec;
    Ok((wanted, Some(note)))
}

/// While an upgrade gives the nodes its binary one after the other, a file that says of them what it said before that takes it from
/// none. What a file says anew counts.
pub(super) async fn keep_what_was_rolled(mut wanted: Devnet, present: &Devnet, store: &dyn Store) -> Result<Devnet, Fault> {
    for upgrade in upgrades_of(present, store).await? {
        let (status, notes) = (&upgrade.status, &upgrade.status.notes);
        let goes_on = !status.phase.is_final() && notes.switched.is_none() && notes.restored.is_none();
        let Some(before) = notes.before.as_ref().filter(|_| goes_on) else { continue };
        let spec = &mut wanted.spec;
        let rolled: Vec<&String> = notes.rolled.iter().filter(|name| names::makes(spec, name)).collect();
        for name in rolled {
            if spec.node(name).is_none() {
                spec.nodes.push(NodeOverride { name: name.clone(), ..NodeOverride::default() });
            }
            let was = before.nodes.iter().find(|was| was.name == *name).and_then(|was| was.binary.as_ref());
            let over = spec.nodes.iter_mut().filter(|over| over.name == *name && over.binary.as_ref() == was);
            over.for_each(|over| over.binary = Some(upgrade.spec.binary.clone()));
        }
    }
    Ok(wanted)
}

/// Binaries that gave way to others in the chain that the devnet has now, oldest first: by the devnet's own record, and by an upgrade that
/// has switched and is not on that record, or not yet.
async fn past_upgrades(present: &Devnet, store: &dyn Store) -> Result<Vec<PastUpgrade>, Fault> {
    let epoch = present.spec.operations.reset;
    let mut all: Vec<PastUpgrade> = present.status.upgrades.iter().filter(|past| past.chain_epoch == epoch).cloned().collect();
    let mut others = upgrades_of(present, store).await?;
    others.sort_by_key(|upgrade| upgrade.metadata.created_at);
    for upgrade in others {
        let (status, name) = (&upgrade.status, &upgrade.spec.upgrade_name);
        let counts = status.phase == UpgradePhase::Completed || status.phase.is_past_the_switch();
        let Some(before) =
            status.notes.before.as_ref().filter(|_| counts && !all.iter().any(|past| past.name == *name && past.after == upgrade.spec.binary))
        else {
            continue;
        };
        all.push(PastUpgrade {
            name: name.clone(),
            before: before.binary.clone(),
            after: upgrade.spec.binary.clone(),
            height: status.height.unwrap_or_default(),
            ..PastUpgrade::default()
        });
    }
    Ok(all)
}

fn named(binary: Option<&BinarySource>) -> String {
    binary.map_or_else(|| "the plugin's own binary".to_owned(), describe)
}

/// Those of the chain that the devnet has now.
async fn upgrades_of(present: &Devnet, store: &dyn Store) -> Result<Vec<Arc<Upgrade>>, Fault> {
    let selector = Selector::in_devnet(Kind::Upgrade, &present.metadata.namespace, &present.metadata.name);
    let (upgrades, _) = store.list(&selector).await.map_err(|error| error.fault())?;
    let upgrades = upgrades.into_iter().filter_map(|object| Arc::<Upgrade>::try_from(object).ok());
    Ok(upgrades.filter(|upgrade| upgrade.status.chain_epoch == present.spec.operations.reset).collect())
}

fn left_behind(devnet: &Devnet, present: &Devnet, past: &PastUpgrade) -> Fault {
    let name = &devnet.metadata.name;
    let (old, by) = (named(devnet.spec.binary.as_ref()), format!("{name}/{}", past.name));
    let height = if past.height > 0 { format!(" at height {}", past.height) } else { String::new() };
    let new = serde_json::to_string(&present.spec.binary).unwrap_or_default();
    let message = format!("{old} is from before upgrade {by}, by which the chain has gone on{height}");
    let violation = Violation { suggestion: Some(format!("binary: {new}")), ..Violation::new("spec.binary", message) };
    let remedy = format!(
        "put `binary: {new}` into the file, or the upgrade beside the devnet; to go back to the old one all the same: dvbctl upgrade create {name} --name NAME --skip-vote --binary ...; \
         to begin anew with it: dvbctl reset {name}, then apply"
    );
    let fault = Fault::invalid(vec![violation]);
    Fault { code: FaultCode::Immutable, ..fault }.about(name).remedy(remedy)
}

/// A full node that is to join a chain whose family takes none after genesis.
async fn foresee_latecomers(devnet: &Devnet, info: &PluginInfo, store: &dyn Store) -> Result<(), Fault> {
    let selector = Selector::in_devnet(Kind::Node, &devnet.metadata.namespace, &devnet.metadata.name);
    let (nodes, _) = store.list(&selector).await.map_err(|error| error.fault())?;
    let is_there = |short: &str| nodes.iter().any(|object| matches!(object, Object::Node(node) if node.node_name().short == short));
    let late = (0..devnet.spec.full_nodes).map(|index| format!("fullnode-{index}")).find(|short| !is_there(short));
    let refusal = late.and_then(|late| info.refuses_latecomer(&late, &devnet.metadata.name));
    refusal.map_or(Ok(()), |refusal| Err(unfit(devnet, refusal)))
}

fn unfit(devnet: &Devnet, message: String) -> Fault {
    Fault::new(FaultCode::InvalidSpec, message).about(&devnet.metadata.name).remedy("mend the spec, then apply it again")
}

/// What is in the cache already need not be where it came from any more.
fn unresolved<'a>(devnet: &'a Devnet, present: Option<&'a Devnet>) -> impl Iterator<Item = &'a BinarySource> {
    let resolved = present.and_then(|present| present.status.binary.as_ref());
    let own = devnet.spec.binary.iter().filter(move |source| resolved.is_none_or(|resolved| resolved.source != describe(source)));
    let before = present.filter(|present| present.status.conditions.is_true("Provisioned"));
    let overrides = devnet.spec.nodes.iter().filter_map(move |over| {
        let known = before.and_then(|before| before.spec.node(&over.name)?.binary.as_ref());
        over.binary.as_ref().filter(|source| known != Some(*source))
    });
    own.chain(overrides)
}
