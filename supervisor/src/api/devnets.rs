//! DevnetService: each write is decided by `admission` or a few lines here, committed with its event, and answered.

use super::{
    Context,
    admission::{self, Action, Admitted, Fresh, KEEP_DATA, Verb},
    auth::Caller,
    change::{Decision, Draft, key_of},
    convert, explain, foresight, freeze, logs, merge, origin, status,
    watch::{self, Item},
};
use crate::{
    model::{Desired, Devnet, DevnetSpec, Fault, FaultCode, Kind, Object, Uid},
    plugin::PluginError,
    store::{StoreError, Write},
};
use dvb_proto::devnet::v1::{self, devnet_service_server::DevnetService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

/// How often an apply is decided anew when the object changes under it.
const ATTEMPTS: usize = 16;

pub(super) struct Devnets(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DevnetService for Devnets {
    async fn create(&self, request: Request<v1::CreateDevnetRequest>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let admitted = self.put(caller, Verb::Create, request.into_inner().devnet.into(), false).await;
        reply(admitted.and_then(|(devnet, ..)| self.message(&devnet)))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Reply<v1::ApplyResponse> {
        let caller = Caller::of(&request)?;
        let v1::ApplyRequest { devnet, dry_run, upgrades } = request.into_inner();
        let applied = self.put(caller, Verb::Apply, Sent { devnet, upgrades }, dry_run).await;
        reply(applied.and_then(|(devnet, admitted, note)| {
            let change = |change: super::diff::FieldChange| v1::FieldChange { field: change.field, before: change.before, after: change.after };
            let changes = admitted.changes.into_iter().map(change).collect();
            Ok(v1::ApplyResponse { devnet: Some(self.message(&devnet)?), action: admitted.action.word().into(), changes, note })
        }))
    }

    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let wanted = request.into_inner();
        let found = self.0.find(&key_of(Kind::Devnet, &wanted.namespace, &wanted.name)).await;
        reply(found.and_then(|object| self.object_message(&object)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListDevnetsResponse> {
        let selector = watch::selector(Kind::Devnet, request.get_ref(), "");
        let listed = self.0.store.list(&selector).await.map_err(|error| error.fault());
        reply(listed.and_then(|(objects, resource_version)| {
            Ok(v1::ListDevnetsResponse { items: merge::devnets(&objects, &self.0.observations)?, resource_version })
        }))
    }

    async fn update(&self, request: Request<v1::UpdateDevnetRequest>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let admitted = self.put(caller, Verb::Update, request.into_inner().devnet.into(), false).await;
        reply(admitted.and_then(|(devnet, ..)| self.message(&devnet)))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let deleted = self.mark_deleted(caller, request.into_inner()).await;
        reply(deleted.and_then(|object| self.object_message(&object)))
    }

    async fn start(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        self.verb(caller, &wanted.namespace, &wanted.name, |devnet| set_desired(devnet, Desired::Running)).await
    }

    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        self.verb(caller, &wanted.namespace, &wanted.name, |devnet| set_desired(devnet, Desired::Stopped)).await
    }

    async fn restart(&self, request: Request<v1::RestartDevnetRequest>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let refresh = wanted.refresh_binary;
        self.verb(caller, &wanted.namespace, &wanted.name, move |devnet| Some(restart(devnet, refresh))).await
    }

    async fn reset(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let height = self.0.observations.highest(admission::namespace_or_default(&wanted.namespace), &wanted.name);
        self.verb(caller, &wanted.namespace, &wanted.name, move |devnet| Some(reset(devnet, height))).await
    }

    async fn freeze(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.set_frozen(request, true).await
    }

    async fn thaw(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.set_frozen(request, false).await
    }

    type WatchStream = BoxStream<'static, Result<v1::DevnetEvent, Status>>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let selector = watch::selector(Kind::Devnet, &request.selector.unwrap_or_default(), &request.name);
        let watch = watch::watch(&self.0, selector, request.resource_version).await;
        reply(watch.map(|watch| Box::pin(watch.into_stream(event)) as Self::WatchStream))
    }

    type StreamLogsStream = BoxStream<'static, Result<v1::LogEntry, Status>>;
    async fn stream_logs(&self, request: Request<v1::LogRequest>) -> Reply<Self::StreamLogsStream> {
        let stream = logs::stream(&self.0, request.into_inner()).await;
        reply(stream.map(|stream| watch::until_shutdown(stream, self.0.shutdown.clone())))
    }

    type ListEventsStream = BoxStream<'static, Result<v1::Event, Status>>;
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Reply<Self::ListEventsStream> {
        let stream = explain::events(&self.0, request.into_inner()).await;
        reply(stream.map(|stream| watch::until_shutdown(stream, self.0.shutdown.clone())))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Reply<v1::ExplainResponse> {
        reply(explain::explain(&self.0, request.into_inner()).await)
    }
}

/// A fault becomes a status here, for every service.
pub(super) fn reply<T>(result: Result<T, Fault>) -> Reply<T> {
    result.map(Response::new).map_err(|fault| status::status(&fault))
}

/// A devnet as a user sends it, and the names of the upgrades that stand beside it.
#[derive(Default)]
struct Sent {
    devnet: Option<v1::Devnet>,
    upgrades: Vec<String>,
}

impl From<Option<v1::Devnet>> for Sent {
    fn from(devnet: Option<v1::Devnet>) -> Self {
        Self { devnet, upgrades: Vec::new() }
    }
}

impl Devnets {
    /// Create, Apply and Update: admit beside what is there, ask the plugin, and commit unless nothing changed or it is a dry run,
    /// which asks for more.
    async fn put(&self, caller: Caller, verb: Verb, sent: Sent, dry_run: bool) -> Result<(Devnet, Admitted, Option<String>), Fault> {
        let wanted = convert::devnet_from_message(&sent.devnet.unwrap_or_default())?;
        let key = key_of(Kind::Devnet, &wanted.metadata.namespace, &wanted.metadata.name);
        let fresh = Fresh { now: self.0.clock.now(), uid: Uid::from_uuid(self.0.clock.fresh_id()) };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let present = match self.0.store.get(&key).await.map_err(|error| error.fault())? {
                Some(Object::Devnet(devnet)) => Some(devnet),
                _ => None,
            };
            let (mut wanted, mut note) = (origin::resolve(&self.0, wanted.clone(), present.as_deref()).await?, None);
            if let Some(present) = present.as_deref() {
                (wanted, note) = foresight::follow_declared_upgrades(wanted, present, &sent.upgrades, self.0.store.as_ref()).await?;
                wanted = foresight::keep_what_was_rolled(wanted, present, self.0.store.as_ref()).await?;
            }
            let admitted = admission::admit(verb, present.as_deref(), wanted, &fresh)?;
            if present.as_ref().is_none_or(|present| present.spec.plugin != admitted.devnet.spec.plugin) {
                self.check_plugin(&admitted.devnet.spec).await?;
            }
            if let Some(present) = present.as_deref() {
                foresight::refuse_the_binary_of_before(&admitted.devnet, present, self.0.store.as_ref()).await?;
            }
            if dry_run {
                foresight::foresee(&admitted.devnet, present.as_deref(), self.0.plugins.as_ref(), self.0.store.as_ref()).await?;
            } else if admitted.spec_changed {
                foresight::refuse_at_once(&admitted.devnet, self.0.plugins.as_ref()).await?;
            }
            if dry_run || admitted.action == Action::Unchanged {
                return Ok((admitted.devnet.clone(), admitted, note));
            }
            let write = if present.is_some() { Write::update } else { Write::create };
            match self.0.write(caller, admitted.devnet.clone().into(), draft(&admitted), write).await {
                Ok(Object::Devnet(devnet)) => return Ok((Devnet::clone(&devnet), admitted, note)),
                Ok(other) => return Err(Fault::new(FaultCode::Internal, format!("the store gave back a {}", other.kind()))),
                Err(lost @ (StoreError::Conflict { .. } | StoreError::Exists(_) | StoreError::Missing(_))) => last = Some(lost),
                Err(error) => return Err(error.fault()),
            }
        }
        Err(last.map_or_else(|| Fault::new(FaultCode::Internal, "no attempt was made"), |error| error.fault()))
    }

    /// A family that is not installed is refused at once; a plugin that is there but ill is the controllers' business.
    async fn check_plugin(&self, spec: &DevnetSpec) -> Result<(), Fault> {
        if !spec.has_chain() {
            return Ok(());
        }
        match self.0.plugins.digest(&spec.plugin).await {
            Err(missing @ PluginError::Missing { .. }) => Err(missing.fault()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn verb(
        &self,
        caller: Caller,
        namespace: &str,
        name: &str,
        decide: impl Fn(&Devnet) -> Option<(Devnet, Draft)> + Send + Sync,
    ) -> Reply<v1::Devnet> {
        let decide = |object: &Object| -> Decision {
            let Object::Devnet(devnet) = object else { return Ok(None) };
            Ok(decide(devnet).map(|(devnet, draft)| (devnet.into(), draft)))
        };
        let changed = self.0.change(caller, &key_of(Kind::Devnet, namespace, name), decide).await;
        reply(changed.and_then(|object| self.object_message(&object)))
    }

    async fn set_frozen(&self, request: Request<v1::ObjectRef>, on: bool) -> Reply<v1::Devnet> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let decide = |object: &Object| -> Decision {
            let Object::Devnet(devnet) = object else { return Ok(None) };
            Ok(freeze::devnet(devnet, on)?.map(|(devnet, draft)| (devnet.into(), draft)))
        };
        let changed = self.0.change(caller, &key_of(Kind::Devnet, &wanted.namespace, &wanted.name), decide).await;
        reply(changed.and_then(|object| self.object_message(&object)))
    }

    /// Sets `deletedAt`; the controller ends the nodes and removes the object. A second delete changes nothing, except that it
    /// can still ask for the data to go or stay.
    async fn mark_deleted(&self, caller: Caller, request: v1::DeleteRequest) -> Result<Object, Fault> {
        let key = key_of(Kind::Devnet, &request.namespace, &request.name);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let object = self.0.find(&key).await?;
            let Object::Devnet(devnet) = &object else { return Ok(object) };
            if let Some(expected) = request.resource_version.filter(|expected| *expected != 0 && *expected != object.revision()) {
                let actual = object.revision();
                return Err(StoreError::Conflict { key, expected, actual }.fault());
            }
            let Some((marked, draft)) = deleted(devnet, request.keep_data, self.0.clock.now()) else { return Ok(object) };
            match self.0.write(caller, marked.into(), draft, Write::update).await {
                Ok(written) => return Ok(written),
                Err(conflict @ StoreError::Conflict { .. }) => last = Some(conflict),
                Err(error) => return Err(error.fault()),
            }
        }
        Err(last.map_or_else(|| Fault::new(FaultCode::Internal, "no attempt was made"), |error| error.fault()))
    }

    fn message(&self, devnet: &Devnet) -> Result<v1::Devnet, Fault> {
        merge::devnet_message(devnet, &self.0.observations)
    }

    fn object_message(&self, object: &Object) -> Result<v1::Devnet, Fault> {
        match object {
            Object::Devnet(devnet) => self.message(devnet),
            other => Err(Fault::new(FaultCode::Internal, format!("{} is no devnet", other.key()))),
        }
    }
}

fn event(item: Item, observations: &crate::observe::Observations) -> Result<v1::DevnetEvent, Fault> {
    let object = match item.object() {
        Some(Object::Devnet(devnet)) => Some(merge::devnet_message(devnet, observations)?),
        _ => None,
    };
    Ok(v1::DevnetEvent { r#type: item.word().into(), object, resource_version: item.revision() })
}

fn created(devnet: &Devnet) -> String {
    let (name, spec) = (&devnet.metadata.name, &devnet.spec);
    let of = match spec.has_chain() {
        true => format!("{} validators, {} full nodes", spec.validators(), spec.full_nodes),
        false => format!("{} services", spec.services.len()),
    };
    format!("devnet {name} created: plugin {}, {of}", spec.plugin)
}

fn draft(admitted: &Admitted) -> Draft {
    let spec = &admitted.devnet.spec;
    match admitted.action {
        Action::Created => Draft {
            reason: "Created",
            message: created(&admitted.devnet),
            desired: Some(word(spec.desired()).into()),
            action: Some("create".into()),
            ..Draft::default()
        },
        Action::Configured | Action::Unchanged => {
            let fields: Vec<&str> = admitted.changes.iter().map(|change| change.field.as_str()).take(8).collect();
            let more = admitted.changes.len().saturating_sub(fields.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Draft {
                reason: if admitted.spec_changed { "SpecChanged" } else { "MetadataChanged" },
                message: format!("changed: {}{more}", fields.join(", ")),
                action: Some("apply".into()),
                ..Draft::default()
            }
        }
    }
}

fn set_desired(devnet: &Devnet, desired: Desired) -> Option<(Devnet, Draft)> {
    let before = devnet.spec.desired();
    if before == desired {
        return None;
    }
    let mut devnet = devnet.clone();
    devnet.spec.desired = Some(desired);
    devnet.spec.frozen = devnet.spec.frozen.filter(|_| desired == Desired::Running);
    devnet.metadata.generation += 1;
    let (reason, action) = match desired {
        Desired::Running => ("StartRequested", "start"),
        Desired::Stopped => ("StopRequested", "stop"),
    };
    let message = format!("{action} of devnet {} requested", devnet.metadata.name);
    let draft = Draft { reason, message, observed: Some(word(before).into()), desired: Some(word(desired).into()), action: Some(action.into()) };
    Some((devnet, draft))
}

/// A restart of what is stopped starts it, and one of what is frozen thaws it.
fn restart(devnet: &Devnet, refresh_binary: bool) -> (Devnet, Draft) {
    let mut devnet = devnet.clone();
    let observed = Some(word(devnet.spec.desired()).to_owned());
    devnet.spec.operations.restart += 1;
    devnet.spec.operations.refresh_binary += u64::from(refresh_binary);
    devnet.spec.frozen = None;
    if devnet.spec.desired() != Desired::Running {
        devnet.spec.desired = Some(Desired::Running);
    }
    devnet.metadata.generation += 1;
    let binary = if refresh_binary { " with the rebuilt binary" } else { "" };
    let message = format!("restart of devnet {}{binary} requested", devnet.metadata.name);
    let reason = if refresh_binary { "RefreshRequested" } else { "RestartRequested" };
    (devnet, Draft { reason, message, observed, desired: Some("running".into()), action: Some("restart".into()) })
}

fn reset(devnet: &Devnet, height: Option<u64>) -> (Devnet, Draft) {
    let mut devnet = devnet.clone();
    devnet.spec.operations.reset += 1;
    devnet.spec.frozen = None;
    devnet.metadata.generation += 1;
    let message = format!("reset of devnet {} to height 0 requested", devnet.metadata.name);
    let observed = height.map(|height| format!("height {height}"));
    (devnet, Draft { reason: "ResetRequested", message, observed, desired: Some("height 0".into()), action: Some("reset".into()) })
}

/// None when it is marked already in the same way.
fn deleted(devnet: &Devnet, keep_data: bool, now: crate::model::Timestamp) -> Option<(Devnet, Draft)> {
    let kept = devnet.metadata.annotations.contains_key(KEEP_DATA);
    if devnet.metadata.deleted_at.is_some() && kept == keep_data {
        return None;
    }
    let mut devnet = devnet.clone();
    devnet.metadata.deleted_at = devnet.metadata.deleted_at.or(Some(now));
    if keep_data {
        devnet.metadata.annotations.insert(KEEP_DATA.into(), "true".into());
    } else {
        devnet.metadata.annotations.remove(KEEP_DATA);
    }
    let data = if keep_data { ", its files stay" } else { "" };
    let message = format!("delete of devnet {} requested{data}", devnet.metadata.name);
    let draft = Draft { reason: "DeleteRequested", message, desired: Some("gone".into()), action: Some("delete".into()), ..Draft::default() };
    Some((devnet, draft))
}

pub(super) fn word(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "running",
        Desired::Stopped => "stopped",
    }
}
