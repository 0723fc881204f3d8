//! Reading and changing one object: every write RPC goes through here. The object and the event that tells who wanted what go in
//! one commit, and the object's `status.cause` names that event.

use super::{
    Context,
    admission::{self, Fresh, Verb},
    auth::Caller,
    convert, nearest,
};
use crate::{
    events::Recorder,
    model::{Devnet, Event, EventId, Fault, FaultCode, Key, Kind, Object, Uid},
    store::{Selector, StoreError, Write},
};
use dvb_proto::devnet::v1;
use std::sync::Arc;

/// How often a write is tried again when somebody else (a controller, mostly) wrote the object in between.
const ATTEMPTS: usize = 16;

/// What the event of a change says; the rest is filled in from the object.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub reason: &'static str,
    pub message: String,
    pub observed: Option<String>,
    pub desired: Option<String>,
    pub action: Option<String>,
}

/// What to do with the object as it stands. None: nothing, it is as asked for already.
pub(super) type Decision = Result<Option<(Object, Draft)>, Fault>;

impl Context {
    /// How often the devnet was reset; None when it is gone.
    pub(super) async fn epoch(&self, devnet: &Key) -> Option<u64> {
        match self.store.get(devnet).await {
            Ok(Some(Object::Devnet(devnet))) => Some(devnet.spec.operations.reset),
            _ => None,
        }
    }

    /// The object, or NotFound with the nearest name.
    pub(super) async fn find(&self, key: &Key) -> Result<Object, Fault> {
        match self.store.get(key).await.map_err(|error| error.fault())? {
            Some(object) => Ok(object),
            None => Err(self.not_found(key).await),
        }
    }

    /// The devnet, unless it is on its way out.
    pub(super) async fn devnet(&self, key: &Key) -> Result<Arc<Devnet>, Fault> {
        match self.find(key).await? {
            Object::Devnet(devnet) if devnet.metadata.deleted_at.is_some() => Err(admission::being_deleted(&key.name)),
            Object::Devnet(devnet) => Ok(devnet),
            other => Err(Fault::new(FaultCode::Internal, format!("{} is no devnet", other.key()))),
        }
    }

    /// As `devnet`; where there is none yet, as the document `beside` would make it, for a dry run.
    pub(super) async fn devnet_or(&self, key: &Key, beside: Option<&v1::Devnet>) -> Result<Arc<Devnet>, Fault> {
        let missing = match self.devnet(key).await {
            Err(fault) if fault.code == FaultCode::NotFound => fault,
            found => return found,
        };
        let Some(beside) = beside else { return Err(missing) };
        let wanted = convert::devnet_from_message(beside)?;
        let fresh = Fresh { now: self.clock.now(), uid: Uid::from_uuid(self.clock.fresh_id()) };
        Ok(Arc::new(admission::admit(Verb::Apply, None, wanted, &fresh)?.devnet))
    }

    /// Reads, decides, writes; again when the object changed in between. `decide` must be pure: it may be called several times.
    pub(super) async fn change(&self, caller: Caller, key: &Key, decide: impl Fn(&Object) -> Decision + Send + Sync) -> Result<Object, Fault> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let present = self.find(key).await?;
            if present.meta().deleted_at.is_some() {
                return Err(admission::being_deleted(&key.name));
            }
            let Some((object, draft)) = decide(&present)? else { return Ok(present) };
            match self.write(caller, object, draft, Write::update).await {
                Ok(written) => return Ok(written),
                Err(conflict @ StoreError::Conflict { .. }) => last = Some(conflict),
                Err(error) => return Err(error.fault()),
            }
        }
        Err(last.map_or_else(|| Fault::new(FaultCode::Internal, "no attempt was made"), |error| error.fault()))
    }

    /// Commits `object` with its event and returns it as stored.
    pub(super) async fn write(
        &self,
        caller: Caller,
        mut object: Object,
        draft: Draft,
        write: impl FnOnce(Object) -> Write + Send,
    ) -> Result<Object, StoreError> {
        let event = self.event(caller, &object, draft);
        set_cause(&mut object, event.id.clone());
        let key = object.key();
        let mut local = object.clone();
        // The object comes last, so that the commit's revision is its own.
        let revision = self.store.commit(vec![Write::Event(Box::new(event)), write(object)]).await?;
        local.meta_mut().resource_version = revision;
        Ok(self.store.get(&key).await?.unwrap_or(local))
    }

    fn event(&self, caller: Caller, object: &Object, draft: Draft) -> Event {
        let recorder = Recorder::new(self.clock.clone()).acting_as(&caller.actor());
        let event = recorder.about(object, draft.reason).message(draft.message).build();
        Event { observed: draft.observed, desired: draft.desired, action: draft.action, ..event }
    }

    async fn not_found(&self, key: &Key) -> Fault {
        let kind = key.kind.name().to_lowercase();
        let name: String = key.name.chars().take(60).collect();
        let fault = Fault::new(FaultCode::NotFound, format!("{kind} `{name}` does not exist in namespace {}", key.namespace)).about(name.clone());
        let selector = Selector { namespace: Some(key.namespace.clone()), ..Selector::kind(key.kind) };
        let known = self.store.list(&selector).await.map(|(objects, _)| objects).unwrap_or_default();
        match nearest(&name, known.iter().map(|object| object.meta().name.as_str())) {
            Some(nearest) => fault.remedy(format!("did you mean `{nearest}`? dvbctl get {kind}s lists them")),
            None => fault.remedy(format!("dvbctl get {kind}s")),
        }
    }
}

fn set_cause(object: &mut Object, id: EventId) {
    match object {
        Object::Devnet(devnet) => Arc::make_mut(devnet).status.cause = Some(id),
        Object::Node(node) => Arc::make_mut(node).status.cause = Some(id),
        Object::Transaction(tx) => Arc::make_mut(tx).status.cause = Some(id),
        Object::Upgrade(upgrade) => Arc::make_mut(upgrade).status.cause = Some(id),
        Object::Export(export) => Arc::make_mut(export).status.cause = Some(id),
        Object::Launch(_) | Object::Lease(_) | Object::Plan(_) => {}
    }
}

/// `Kind::Devnet` of a request's reference.
pub(super) fn key_of(kind: Kind, namespace: &str, name: &str) -> Key {
    Key::new(kind, admission::namespace_or_default(namespace), name)
}
