//! What can be said of a spec before anything is done about it: what its plugin refuses, and what a look at its binaries tells.

use crate::{
    binaries::{self, describe},
    model::{BinarySource, Devnet, Fault, FaultCode},
    plugin::{DevnetContext, PluginError, Plugins},
};
use std::time::Duration;
use tokio::time::timeout;

/// How long an apply waits for the plugin's word. One that is slower, hangs or is ill keeps nobody from applying: provisioning asks
/// it again, and the devnet's condition tells.
const WORD_WITHIN: Duration = Duration::from_secs(2);

/// The violations that the plugin can name at once.
pub(super) async fn refuse_violations(devnet: &Devnet, plugins: &dyn Plugins) -> Result<(), Fault> {
    let ask = async { plugins.get(&devnet.spec.plugin).await?.validate(&DevnetContext::of(devnet)).await };
    match timeout(WORD_WITHIN, ask).await {
        Ok(Ok(violations)) if !violations.is_empty() => Err(Fault::invalid(violations).about(&devnet.metadata.name)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Everything that provisioning would stumble over and that can be seen without doing anything, in the order and in the words in
/// which it would be told there.
pub(super) async fn foresee(devnet: &Devnet, present: Option<&Devnet>, plugins: &dyn Plugins) -> Result<(), Fault> {
    let told = |error: PluginError| error.fault();
    let plugin = plugins.get(&devnet.spec.plugin).await.map_err(told)?;
    let info = plugin.info().await.map_err(told)?;
    let violations = plugin.validate(&DevnetContext::of(devnet)).await.map_err(told)?;
    if !violations.is_empty() {
        return Err(Fault::invalid(violations).about(&devnet.metadata.name));
    }
    if let Some(lack) = info.lacks_binary(&devnet.spec) {
        return Err(Fault::new(FaultCode::InvalidSpec, lack).about(&devnet.metadata.name).remedy("mend the spec, then apply it again"));
    }
    for source in unresolved(devnet, present) {
        binaries::inspect(source).await.map_err(|error| error.fault())?;
    }
    Ok(())
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
