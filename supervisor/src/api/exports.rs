//! ExportService: stores what is wanted; the controller makes the file.

use super::{
    Context, admission,
    auth::Caller,
    change::{Decision, Draft, key_of},
    convert,
    declared::{Applied, short_name},
    devnets::reply,
    hopeless,
    watch::{self, Item},
};
use crate::{
    model::{Devnet, Export, ExportPhase, ExportStatus, Fault, FaultCode, Key, Kind, Meta, Object, Uid, Violation, check_name},
    observe::Observations,
    plugin::EXPORT_CAPABILITY,
    store::{Selector, StoreError, Write},
};
use dvb_proto::devnet::v1::{self, export_service_server::ExportService};
use futures::stream::BoxStream;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// How often another name is tried when somebody else took the next one.
const ATTEMPTS: usize = 8;

#[derive(Clone)]
pub(super) struct Exports(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ExportService for Exports {
    async fn create(&self, request: Request<v1::Export>) -> Reply<v1::Export> {
        let caller = Caller::of(&request)?;
        let wanted = convert::export_from_message(request.get_ref());
        reply(match wanted {
            Ok(wanted) => self.store(caller, wanted).await.and_then(|object| message(&object)),
            Err(fault) => Err(fault),
        })
    }

    async fn apply(&self, request: Request<v1::ApplyExportRequest>) -> Reply<v1::ApplyExportResponse> {
        let caller = Caller::of(&request)?;
        let v1::ApplyExportRequest { export, dry_run, beside } = request.into_inner();
        let wanted = convert::export_from_message(&export.unwrap_or_default());
        reply(match wanted {
            Ok(wanted) => self.put(caller, wanted, beside.as_ref(), dry_run).await.and_then(|applied| {
                let export = Some(message(&applied.object)?);
                let (action, changes) = applied.told();
                Ok(v1::ApplyExportResponse { export, action, changes })
            }),
            Err(fault) => Err(fault),
        })
    }

    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Export> {
        let wanted = request.into_inner();
        let found = self.0.find(&key_of(Kind::Export, &wanted.namespace, &wanted.name)).await;
        reply(found.and_then(|object| message(&object)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListExportsResponse> {
        let selector = watch::selector(Kind::Export, request.get_ref(), "");
        let listed = self.0.store.list(&selector).await.map_err(|error| error.fault());
        reply(listed.and_then(|(objects, resource_version)| {
            Ok(v1::ListExportsResponse { items: objects.iter().map(message).collect::<Result<_, _>>()?, resource_version })
        }))
    }

    /// Marks it; the controller ends what runs for it and removes its file. A second delete changes nothing.
    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Export> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let key = key_of(Kind::Export, &request.namespace, &request.name);
        let now = self.0.clock.now();
        let decide = |object: &Object| -> Decision {
            let revision = object.revision();
            if let Some(expected) = request.resource_version.filter(|expected| *expected != 0 && *expected != revision) {
                return Err(StoreError::Conflict { key: key.clone(), expected, actual: revision }.fault());
            }
            let Object::Export(export) = object else { return Ok(None) };
            if export.metadata.deleted_at.is_some() {
                return Ok(None);
            }
            let mut marked = Export::clone(export);
            marked.metadata.deleted_at = Some(now);
            let message = format!("delete of export {} requested", marked.metadata.name);
            let draft = Draft { reason: "DeleteRequested", message, desired: Some("gone".into()), action: Some("delete".into()), ..Draft::default() };
            Ok(Some((marked.into(), draft)))
        };
        reply(self.0.change(caller, &key, decide).await.and_then(|object| message(&object)))
    }

    type WatchStream = BoxStream<'static, Result<v1::ExportEvent, Status>>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let selector = watch::selector(Kind::Export, &request.selector.unwrap_or_default(), &request.name);
        let watch = watch::watch(&self.0, selector, request.resource_version).await;
        reply(watch.map(|watch| Box::pin(watch.into_stream(event)) as Self::WatchStream))
    }
}

impl Exports {
    /// What is there already is compared; what is not is made, or only looked at.
    async fn put(&self, caller: Caller, mut wanted: Export, beside: Option<&v1::Devnet>, dry_run: bool) -> Result<Applied, Fault> {
        let namespace = admission::namespace_or_default(&wanted.metadata.namespace).to_owned();
        let short = short_name(&wanted.metadata.name, &mut wanted.spec.devnet_ref)?;
        let export = self.identify(&wanted, &namespace, &wanted.spec.devnet_ref, &short);
        check(&export, &short)?;
        if let Some(applied) = self.0.apply_present(caller, &export.clone().into(), dry_run).await? {
            return Ok(applied);
        }
        if dry_run {
            self.devnet(&namespace, &wanted, beside).await?;
            return Ok(Applied::created(export.into()));
        }
        Ok(Applied::created(self.store(caller, wanted).await?))
    }

    async fn store(&self, caller: Caller, mut wanted: Export) -> Result<Object, Fault> {
        let namespace = admission::namespace_or_default(&wanted.metadata.namespace).to_owned();
        let named = short_name(&wanted.metadata.name, &mut wanted.spec.devnet_ref)?;
        let devnet = self.devnet(&namespace, &wanted, None).await?;
        for _ in 0..ATTEMPTS {
            let short = if named.is_empty() { self.next_name(&namespace, &devnet.metadata.name).await? } else { named.clone() };
            let export = self.identify(&wanted, &namespace, &devnet.metadata.name, &short);
            check(&export, &short)?;
            let draft = Draft {
                reason: "ExportRequested",
                message: format!(
                    "export of {} at {}",
                    devnet.metadata.name,
                    export.spec.height.map_or("the latest height".into(), |height| format!("height {height}"))
                ),
                desired: Some(format!("{:?}", ExportPhase::Completed)),
                action: Some("export".into()),
                ..Draft::default()
            };
            match self.0.write(caller, export.into(), draft, Write::create).await {
                Err(StoreError::Exists(_)) if named.is_empty() => {}
                Err(StoreError::Exists(_)) => {
                    let name = format!("{}/{short}", devnet.metadata.name);
                    let fault = Fault::new(FaultCode::AlreadyExists, format!("export `{name}` exists already")).about(&name);
                    return Err(fault.remedy(format!("choose another name, or: dvbctl export delete {name}")));
                }
                written => return written.map_err(|error| error.fault()),
            }
        }
        Err(Fault::new(FaultCode::Overloaded, "others take the same names at the same time").retriable())
    }

    /// Which is able to export, and has the node that is to be read. `beside`: as a dry run may know it.
    async fn devnet(&self, namespace: &str, wanted: &Export, beside: Option<&v1::Devnet>) -> Result<Arc<Devnet>, Fault> {
        if wanted.spec.devnet_ref.is_empty() {
            return Err(Fault::invalid(vec![Violation::new("spec.devnetRef", "is missing")]));
        }
        let devnet = self.0.devnet_or(&Key::devnet(namespace, &wanted.spec.devnet_ref), beside).await?;
        let told = |error: crate::plugin::PluginError| error.fault();
        let info = self.0.plugins.get(&devnet.spec.plugin).await.map_err(told)?.info().await.map_err(told)?;
        if hopeless::lacks(&self.0, &devnet, EXPORT_CAPABILITY).await? {
            let message = format!("the binary of {} has no command `export`", devnet.metadata.name);
            return Err(Fault::new(FaultCode::Unimplemented, message).about(&devnet.metadata.name));
        }
        if info.capabilities.iter().any(|capability| capability == EXPORT_CAPABILITY) {
            match beside {
                Some(beside) => hopeless::export(wanted, &convert::devnet_from_message(beside)?)?,
                None => hopeless::export(wanted, &devnet)?,
            }
            hopeless::export_height(&self.0, wanted, &devnet, &info)?;
            return Ok(devnet);
        }
        Err(Fault::new(FaultCode::Unimplemented, format!("plugin {} exports no state", devnet.spec.plugin)).about(&devnet.metadata.name))
    }

    /// `export-1`, `export-2` ...
    async fn next_name(&self, namespace: &str, devnet: &str) -> Result<String, Fault> {
        let (objects, _) = self.0.store.list(&Selector::in_devnet(Kind::Export, namespace, devnet)).await.map_err(|error| error.fault())?;
        let numbers = objects.iter().filter_map(|object| object.meta().name.rsplit_once("/export-")?.1.parse::<u64>().ok());
        Ok(format!("export-{}", numbers.max().unwrap_or(0).saturating_add(1)))
    }

    fn identify(&self, wanted: &Export, namespace: &str, devnet: &str, short: &str) -> Export {
        let now = self.0.clock.now();
        let metadata = Meta {
            name: format!("{devnet}/{short}"),
            namespace: namespace.to_owned(),
            uid: Uid::from_uuid(self.0.clock.fresh_id()),
            labels: wanted.metadata.labels.clone(),
            annotations: wanted.metadata.annotations.clone(),
            generation: 1,
            created_at: now,
            updated_at: now,
            ..Meta::default()
        };
        Export { metadata, spec: wanted.spec.clone(), status: ExportStatus::default() }
    }
}

/// What can be said of it without the chain.
fn check(export: &Export, short: &str) -> Result<(), Fault> {
    let mut violations = Vec::new();
    check_name("metadata.name", short, &mut violations);
    if export.spec.height == Some(0) {
        violations.push(Violation::new("spec.height", "a chain begins at height 1; leave it out for the latest"));
    }
    if let Some(node) = &export.spec.node {
        check_name("spec.node", node, &mut violations);
    }
    if export.spec.memory.is_some_and(|memory| memory.0 < LEAST_MEMORY) {
        violations.push(Violation::new("spec.memory", "is too little for any chain's program; at least 64Mi"));
    }
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

const LEAST_MEMORY: u64 = 64 << 20;

fn message(object: &Object) -> Result<v1::Export, Fault> {
    match object {
        Object::Export(export) => convert::to_message(export.as_ref()),
        other => Err(Fault::new(FaultCode::Internal, format!("{} is no export", other.key()))),
    }
}

fn event(item: Item, _: &Observations) -> Result<v1::ExportEvent, Fault> {
    let object = item.object().map(message).transpose()?;
    Ok(v1::ExportEvent { r#type: item.word().into(), object, resource_version: item.revision() })
}

#[cfg(test)]
#[path = "exports_tests.rs"]
mod tests;
