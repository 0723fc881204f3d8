//! The state that a devnet begins with: which export it is, and so which bytes.

use super::Context;
use crate::model::{Devnet, Export, ExportPhase, Fault, FaultCode, Key, Object, Violation};

/// Writes the digest of the named export into the spec: what counts from then on are the bytes, whatever becomes of the export.
pub(super) async fn resolve(cx: &Context, mut wanted: Devnet, present: Option<&Devnet>) -> Result<Devnet, Fault> {
    let genesis = &wanted.spec.genesis;
    let Some(name) = genesis.from_export.clone().filter(|name| name.contains('/')) else { return Ok(wanted) };
    let kept = present.map(|present| &present.spec.genesis).filter(|kept| kept.from_export == genesis.from_export);
    if let Some(digest) = kept.and_then(|kept| kept.sha256.clone())
        && genesis.sha256.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&digest))
    {
        wanted.spec.genesis.sha256 = Some(digest);
        return Ok(wanted);
    }
    let namespace = super::admission::namespace_or_default(&wanted.metadata.namespace);
    let found = cx.store.get(&Key::export(namespace, &name)).await.map_err(|error| error.fault())?;
    let Some(Object::Export(export)) = found else {
        return Err(invalid(&wanted, format!("export `{name}` does not exist in namespace {namespace}"), Some("dvbctl get exports")));
    };
    let digest = digest(&export)?;
    if wanted.spec.genesis.sha256.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&digest)) {
        return Err(invalid(&wanted, format!("export `{name}` has the sha256 {digest}, not the one in spec.genesis.sha256"), None));
    }
    wanted.spec.genesis.sha256 = Some(digest);
    Ok(wanted)
}

fn digest(export: &Export) -> Result<String, Fault> {
    let name = &export.metadata.name;
    match (export.status.phase, &export.status.sha256) {
        (ExportPhase::Completed, Some(digest)) => Ok(digest.clone()),
        (ExportPhase::Failed, _) => Err(Fault::new(FaultCode::InvalidSpec, format!("export `{name}` has failed: there is no state to begin with"))
            .about(name)
            .remedy(format!("dvbctl export status {name}"))),
        (phase, _) => Err(Fault::new(FaultCode::Conflict, format!("export `{name}` is {phase:?}: its state is not whole yet"))
            .about(name)
            .retriable()
            .remedy(format!("dvbctl export status {name} --wait, then apply again"))),
    }
}

fn invalid(devnet: &Devnet, message: String, suggestion: Option<&str>) -> Fault {
    let violation = Violation { suggestion: suggestion.map(str::to_owned), ..Violation::new("spec.genesis.fromExport", message) };
    Fault::invalid(vec![violation]).about(&devnet.metadata.name)
}
