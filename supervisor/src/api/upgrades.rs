//! UpgradeService: stores what is wanted and refuses what can be known to be wrong. The controller does the rest.

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
    model::{Devnet, Fault, FaultCode, Key, Kind, Meta, Object, Revision, Timestamp, Uid, Upgrade, UpgradePhase, UpgradeStatus, Violation},
    observe::Observations,
    store::{Expect, StoreError, Write},
};
use dvb_proto::devnet::v1::{self, upgrade_service_server::UpgradeService};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};

const MAX_NAME: usize = 60;
/// More blocks are no better proof.
const MAX_VERIFY: u32 = 1_000;

#[derive(Clone)]
pub(super) struct Upgrades(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl UpgradeService for Upgrades {
    async fn create(&self, request: Request<v1::Upgrade>) -> Reply<v1::Upgrade> {
        let caller = Caller::of(&request)?;
        let wanted = convert::upgrade_from_message(request.get_ref()).and_then(check);
        reply(match wanted {
            Ok(wanted) => self.store(caller, wanted).await.and_then(|object| message(&object)),
            Err(fault) => Err(fault),
        })
    }

    async fn apply(&self, request: Request<v1::ApplyUpgradeRequest>) -> Reply<v1::ApplyUpgradeResponse> {
        let caller = Caller::of(&request)?;
        let v1::ApplyUpgradeRequest { upgrade, dry_run, beside } = request.into_inner();
        let wanted = convert::upgrade_from_message(&upgrade.unwrap_or_default()).and_then(check);
        let applied = async {
            let applied = self.put(caller, wanted?, beside.filter(|_| dry_run).as_ref(), dry_run).await?;
            let upgrade = Some(self.told(&applied.object).await?);
            let (action, changes) = applied.told();
            Ok(v1::ApplyUpgradeResponse { upgrade, action, changes })
        };
        reply(applied.await)
    }

    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        let wanted = request.into_inner();
        let found = self.0.find(&key_of(Kind::Upgrade, &wanted.namespace, &wanted.name)).await;
        reply(match found {
            Ok(object) => self.told(&object).await,
            Err(fault) => Err(fault),
        })
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListUpgradesResponse> {
        let selector = watch::selector(Kind::Upgrade, request.get_ref(), "");
        let listed = async {
            let (objects, resource_version) = self.0.store.list(&selector).await.map_err(|error| error.fault())?;
            let items = stream::iter(&objects).then(|object| self.told(object)).try_collect().await?;
            Ok(v1::ListUpgradesResponse { items, resource_version })
        };
        reply(listed.await)
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Upgrade> {
        reply(self.remove(&request.into_inner()).await)
    }

    async fn cancel(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let changed = self.0.change(caller, &key_of(Kind::Upgrade, &wanted.namespace, &wanted.name), cancelled).await;
        reply(changed.and_then(|object| message(&object)))
    }

    async fn retry(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        let caller = Caller::of(&request)?;
        let wanted = request.into_inner();
        let changed = self.0.change(caller, &key_of(Kind::Upgrade, &wanted.namespace, &wanted.name), retried).await;
        reply(changed.and_then(|object| message(&object)))
    }

    type WatchStream = BoxStream<'static, Result<v1::UpgradeEvent, Status>>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let selector = watch::selector(Kind::Upgrade, &request.selector.unwrap_or_default(), &request.name);
        let watch = watch::watch(&self.0, selector, request.resource_version).await;
        let service = self.clone();
        let dated = move |event: Result<v1::UpgradeEvent, Status>| {
            let service = service.clone();
            async move {
                let v1::UpgradeEvent { r#type, object, resource_version } = event?;
                let object = match object {
                    Some(upgrade) => Some(service.dated(upgrade).await),
                    None => None,
                };
                Ok::<_, Status>(v1::UpgradeEvent { r#type, object, resource_version })
            }
        };
        reply(watch.map(|watch| Box::pin(watch.into_stream(event).then(dated)) as Self::WatchStream))
    }
}

impl Upgrades {
    async fn told(&self, object: &Object) -> Result<v1::Upgrade, Fault> {
        Ok(self.dated(message(object)?).await)
    }

    /// With a word on whether the chain that it changed is the present one.
    async fn dated(&self, mut upgrade: v1::Upgrade) -> v1::Upgrade {
        let namespace = upgrade.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
        let devnet = Key::devnet(namespace, upgrade.spec.as_ref().map_or("", |spec| spec.devnet_ref.as_str()));
        let epoch = self.0.epoch(&devnet).await;
        if let Some(status) = &mut upgrade.status {
            status.former_chain = epoch.is_some_and(|epoch| status.chain_epoch < epoch);
        }
        upgrade
    }

    /// What is there already is compared; what is not is made, or only looked at.
    async fn put(&self, caller: Caller, wanted: Upgrade, beside: Option<&v1::Devnet>, dry_run: bool) -> Result<Applied, Fault> {
        let namespace = admission::namespace_or_default(&wanted.metadata.namespace).to_owned();
        let devnet = self.0.devnet_or(&Key::devnet(&namespace, &wanted.spec.devnet_ref), beside).await?;
        let asked = (wanted.spec.cancel, wanted.spec.retry);
        let mut upgrade = self.identify(wanted.clone(), &devnet);
        (upgrade.spec.cancel, upgrade.spec.retry) = asked;
        match self.0.apply_present(caller, &upgrade.clone().into(), dry_run).await {
            Ok(Some(applied)) => return Ok(applied),
            Ok(None) => {}
            Err(fault) if fault.code == FaultCode::Immutable && self.was_refused(&Object::from(upgrade.clone()).key()).await? => {}
            Err(fault) => return Err(fault),
        }
        if upgrade.spec.cancel {
            return Err(Fault::invalid(vec![Violation::new(
                "spec.cancel",
                "is true, and there is nothing to cancel: take it out to begin the upgrade",
            )]));
        }
        upgrade.spec.retry = 0;
        if dry_run {
            self.refuse_the_past(&wanted, &devnet)?;
            hopeless::upgrade(&self.0, &wanted, &devnet).await?;
            return Ok(Applied::created(upgrade.into()));
        }
        Ok(Applied::created(self.store(caller, wanted).await?))
    }

    fn identify(&self, wanted: Upgrade, devnet: &Devnet) -> Upgrade {
        let namespace = admission::namespace_or_default(&wanted.metadata.namespace).to_owned();
        named(wanted, namespace, devnet, self.0.clock.now(), Uid::from_uuid(self.0.clock.fresh_id()))
    }

    async fn was_refused(&self, key: &Key) -> Result<bool, Fault> {
        Ok(self.0.store.get(key).await.map_err(|error| error.fault())?.as_ref().and_then(refused).is_some())
    }

    /// The height that the chain has reached.
    fn refuse_the_past(&self, wanted: &Upgrade, devnet: &Devnet) -> Result<u64, Fault> {
        let reached = self.0.observations.highest(&devnet.metadata.namespace, &devnet.metadata.name).unwrap_or(0);
        refuse_the_past(wanted, reached).map(|()| reached)
    }

    async fn store(&self, caller: Caller, wanted: Upgrade) -> Result<Object, Fault> {
        let namespace = admission::namespace_or_default(&wanted.metadata.namespace).to_owned();
        let devnet = self.0.devnet(&Key::devnet(&namespace, &wanted.spec.devnet_ref)).await?;
        let reached = self.refuse_the_past(&wanted, &devnet)?;
        let key = Key::upgrade(&namespace, &format!("{}/{}", devnet.metadata.name, wanted.spec.upgrade_name));
        let present = self.0.store.get(&key).await.map_err(|error| error.fault())?;
        let refused = present.as_ref().and_then(refused);
        if let Some(Object::Upgrade(present)) = present.filter(|_| refused.is_none()) {
            return Err(exists(&present));
        }
        hopeless::upgrade(&self.0, &wanted, &devnet).await?;
        hopeless::no_change(&self.0, &wanted, &devnet).await?;
        let draft = Draft {
            reason: "UpgradeRequested",
            message: match wanted.spec.height {
                0 => format!("upgrade {} of devnet {}", wanted.spec.upgrade_name, devnet.metadata.name),
                height => format!("upgrade {} of devnet {} at height {height}", wanted.spec.upgrade_name, devnet.metadata.name),
            },
            observed: Some(format!("height {reached}")),
            desired: Some("Completed".into()),
            action: Some("upgrade".into()),
        };
        let upgrade = self.identify(wanted, &devnet);
        let name = upgrade.metadata.name.clone();
        let write = |object| Write::Put { object, expect: refused.map_or(Expect::Absent, Expect::At) };
        match self.0.write(caller, upgrade.into(), draft, write).await {
            Ok(object) => Ok(object),
            Err(StoreError::Exists(_) | StoreError::Conflict { .. }) => {
                Err(Fault::new(FaultCode::AlreadyExists, format!("upgrade {name} was just asked for by somebody else"))
                    .about(name.as_str())
                    .remedy(format!("dvbctl upgrade status {name}")))
            }
            Err(error) => Err(error.fault()),
        }
    }

    /// One that is under way holds nodes and saved homes: it is cancelled first.
    async fn remove(&self, request: &v1::DeleteRequest) -> Result<v1::Upgrade, Fault> {
        let key = key_of(Kind::Upgrade, &request.namespace, &request.name);
        let object = self.0.find(&key).await?;
        let Object::Upgrade(upgrade) = &object else { return Err(Fault::new(FaultCode::Internal, format!("{key} is no upgrade"))) };
        let revision = object.revision();
        if let Some(expected) = request.resource_version.filter(|expected| *expected != 0 && *expected != revision) {
            return Err(StoreError::Conflict { key, expected, actual: revision }.fault());
        }
        if upgrade.status.phase.is_final() && !upgrade.is_asked_anew() && upgrade.is_open() {
            let message = format!("{} is {:?}, and its saved homes are being removed", key.name, upgrade.status.phase);
            return Err(Fault::new(FaultCode::Conflict, message).about(key.name.as_str()).retriable().remedy("try again in a moment"));
        }
        if upgrade.is_open() {
            let message = format!("{} is {:?}; only what has ended can be deleted", key.name, upgrade.status.phase);
            return Err(Fault::new(FaultCode::Immutable, message).about(key.name.as_str()).remedy(format!("dvbctl upgrade cancel {}", key.name)));
        }
        self.0.store.commit(vec![Write::Delete { key, expect: Expect::At(revision) }]).await.map_err(|error| error.fault())?;
        message(&object)
    }
}

/// The revision of an upgrade that was refused before anything was done for it: its name is free for a better one.
fn refused(present: &Object) -> Option<Revision> {
    let Object::Upgrade(present) = present else { return None };
    let was_refused = present.status.phase == UpgradePhase::Failed && present.status.binary.is_none() && !present.is_open();
    was_refused.then_some(present.metadata.resource_version)
}

/// What can be said of it without the chain. What its name says already need not stand in the spec again.
fn check(mut upgrade: Upgrade) -> Result<Upgrade, Fault> {
    let spec = &mut upgrade.spec;
    let short = short_name(&upgrade.metadata.name, &mut spec.devnet_ref)?;
    let mut violations = Vec::new();
    if spec.upgrade_name.is_empty() {
        spec.upgrade_name.clone_from(&short);
    }
    let spec = &upgrade.spec;
    if spec.devnet_ref.is_empty() {
        violations.push(Violation::new("spec.devnetRef", "is missing"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if spec.upgrade_name.is_empty() || spec.upgrade_name.len() > MAX_NAME || !spec.upgrade_name.chars().all(fits) {
        violations.push(Violation::new("spec.upgradeName", format!("must be 1 to {MAX_NAME} letters, digits, dots, dashes or underscores")));
    } else if !short.is_empty() && short != spec.upgrade_name {
        let message = format!("is `{short}`, and spec.upgradeName `{}`: an upgrade is called as its handler is", spec.upgrade_name);
        violations.push(Violation { suggestion: Some(spec.upgrade_name.clone()), ..Violation::new("metadata.name", message) });
    }
    let source = &spec.binary;
    let sources =
        [source.path.is_some(), source.go_module.is_some(), source.url.is_some(), source.cargo.is_some(), source.npm.is_some(), source.git.is_some()];
    if sources.iter().filter(|given| **given).count() != 1 {
        violations.push(Violation::new("spec.binary", "must name exactly one source: path, goModule, url, cargo, npm or git"));
    }
    if spec.rolling && (!spec.skip_vote || spec.height > 0) {
        let message = "a binary is swapped one node after the other without a vote and without a height: set skipVote, leave height out";
        violations.push(Violation::new("spec.rolling", message));
    }
    if spec.verify_blocks > MAX_VERIFY {
        violations.push(Violation::new("spec.verifyBlocks", format!("is {}; more than {MAX_VERIFY} prove no more", spec.verify_blocks)));
    }
    if violations.is_empty() { Ok(upgrade) } else { Err(Fault::invalid(violations)) }
}

/// An upgrade of the same name, with what its phase leaves to do about it.
fn exists(present: &Upgrade) -> Fault {
    let (name, phase) = (&present.metadata.name, present.status.phase);
    let anew = format!("dvbctl upgrade delete {name} --yes, then create it anew");
    let remedy = match phase {
        UpgradePhase::Completed => format!("for another upgrade choose another name; to do without the record: {anew}"),
        UpgradePhase::Failed | UpgradePhase::RolledBack if !present.is_asked_anew() => {
            format!("to try the same again: dvbctl upgrade retry {name}; with another binary or height: {anew}")
        }
        _ => format!("dvbctl upgrade status {name}"),
    };
    Fault::new(FaultCode::AlreadyExists, format!("upgrade {name} exists already and is {phase:?}")).about(name.as_str()).remedy(remedy)
}

fn refuse_the_past(upgrade: &Upgrade, reached: u64) -> Result<(), Fault> {
    let height = upgrade.spec.height;
    if height == 0 || height > reached + 1 {
        return Ok(());
    }
    let message = format!("is {height}, and the chain is at {reached} already");
    Err(Fault::invalid(vec![Violation { suggestion: Some((reached + 20).to_string()), ..Violation::new("spec.height", message) }]))
}

fn named(wanted: Upgrade, namespace: String, devnet: &Devnet, now: Timestamp, uid: Uid) -> Upgrade {
    let metadata = Meta {
        name: format!("{}/{}", devnet.metadata.name, wanted.spec.upgrade_name),
        namespace,
        uid,
        labels: wanted.metadata.labels,
        annotations: wanted.metadata.annotations,
        generation: 1,
        created_at: now,
        updated_at: now,
        ..Meta::default()
    };
    let status = UpgradeStatus { chain_epoch: devnet.spec.operations.reset, ..UpgradeStatus::default() };
    let spec = crate::model::UpgradeSpec { cancel: false, retry: 0, ..wanted.spec };
    Upgrade { metadata, spec, status }
}

fn cancelled(object: &Object) -> Decision {
    let Object::Upgrade(upgrade) = object else { return Ok(None) };
    let name = &upgrade.metadata.name;
    if upgrade.status.phase == UpgradePhase::Completed {
        let message = format!("{name} is Completed: the chain has moved on with the new binary");
        return Err(Fault::new(FaultCode::Immutable, message).about(name.as_str()).remedy("upgrade again, or dvbctl reset the devnet"));
    }
    if upgrade.spec.cancel || upgrade.status.phase.is_final() {
        return Ok(None);
    }
    let mut next = Upgrade::clone(upgrade);
    next.spec.cancel = true;
    next.metadata.generation += 1;
    let observed = Some(format!("{:?}", upgrade.status.phase));
    let draft = Draft { reason: "CancelRequested", message: format!("cancel of upgrade {name} requested"), observed, ..Draft::default() };
    Ok(Some((next.into(), Draft { desired: Some("cancelled".into()), action: Some("cancel".into()), ..draft })))
}

fn retried(object: &Object) -> Decision {
    let Object::Upgrade(upgrade) = object else { return Ok(None) };
    let name = &upgrade.metadata.name;
    match upgrade.status.phase {
        UpgradePhase::Failed | UpgradePhase::RolledBack => {}
        phase => {
            let message = format!("{name} is {phase:?}; only what failed or was rolled back is tried again");
            return Err(Fault::new(FaultCode::Immutable, message).about(name.as_str()));
        }
    }
    if upgrade.is_asked_anew() {
        return Ok(None);
    }
    let mut next = Upgrade::clone(upgrade);
    next.spec.cancel = false;
    next.spec.retry += 1;
    next.metadata.generation += 1;
    let observed = Some(format!("{:?}", upgrade.status.phase));
    let draft = Draft { reason: "RetryRequested", message: format!("another try of upgrade {name} requested"), observed, ..Draft::default() };
    Ok(Some((next.into(), Draft { desired: Some("Completed".into()), action: Some("retry".into()), ..draft })))
}

fn message(object: &Object) -> Result<v1::Upgrade, Fault> {
    match object {
        Object::Upgrade(upgrade) => convert::to_message(upgrade.as_ref()),
        other => Err(Fault::new(FaultCode::Internal, format!("{} is no upgrade", other.key()))),
    }
}

fn event(item: Item, _: &Observations) -> Result<v1::UpgradeEvent, Fault> {
    let object = item.object().map(message).transpose()?;
    Ok(v1::UpgradeEvent { r#type: item.word().into(), object, resource_version: item.revision() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures;

    fn upgrade(edit: impl FnOnce(&mut Upgrade)) -> Upgrade {
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        upgrade.spec.binary.path = Some("/bin/next".into());
        edit(&mut upgrade);
        upgrade
    }

    #[test]
    fn what_is_wrong_is_named_field_by_field() {
        let fields = |edit: fn(&mut Upgrade)| {
            let fault = check(upgrade(edit)).unwrap_err();
            fault.violations.iter().map(|violation| violation.field.clone()).collect::<Vec<_>>()
        };
        assert!(check(upgrade(|_| {})).is_ok());
        assert_eq!(fields(|upgrade| upgrade.spec.upgrade_name = "a/b".into()), ["spec.upgradeName"]);
        assert_eq!(fields(|upgrade| upgrade.spec.binary.url = Some("http://x".into())), ["spec.binary"]);
        assert_eq!(fields(|upgrade| (upgrade.spec.binary.path, upgrade.spec.verify_blocks) = (None, 9_999)), ["spec.binary", "spec.verifyBlocks"]);
    }

    #[test]
    fn a_height_that_the_chain_has_reached_is_refused_with_one_that_it_has_not() {
        let fault = refuse_the_past(&upgrade(|_| {}), 30).unwrap_err();
        assert!(fault.message.contains("at 30 already"), "{fault:?}");
        assert_eq!(fault.violations[0].suggestion.as_deref(), Some("50"));
        assert!(refuse_the_past(&upgrade(|_| {}), 28).is_ok());
        assert!(refuse_the_past(&upgrade(|upgrade| upgrade.spec.height = 0), 99).is_ok());
    }

    #[test]
    fn only_what_failed_is_tried_again_and_what_completed_is_not_cancelled() {
        let at = |phase| Object::from(upgrade(|upgrade| upgrade.status.phase = phase));
        assert!(retried(&at(UpgradePhase::Waiting)).is_err() && cancelled(&at(UpgradePhase::Completed)).is_err());
        let Some((Object::Upgrade(again), _)) = retried(&at(UpgradePhase::RolledBack)).unwrap() else { panic!("it is tried again") };
        assert!(again.is_asked_anew());
        assert!(cancelled(&at(UpgradePhase::Failed)).unwrap().is_none());
        assert!(cancelled(&at(UpgradePhase::Verifying)).unwrap().is_some());
    }
}
