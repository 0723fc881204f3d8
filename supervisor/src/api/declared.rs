//! Apply of what happens once (transactions, upgrades, exports): made when nothing of that name is there, and never changed afterwards
//! except for its labels and annotations. Its name is its identity: the same document applied again is the same object.

use super::{
    Context,
    admission::{Action, being_deleted},
    auth::Caller,
    change::Draft,
    diff::{FieldChange, diff},
};
use crate::model::{Fault, FaultCode, Meta, Object, UpgradeSpec, Violation};
use dvb_proto::devnet::v1;
use serde_json::{Value, json};

/// What an apply came to.
pub(super) struct Applied {
    pub object: Object,
    pub action: Action,
    pub changes: Vec<FieldChange>,
}

impl Applied {
    pub(super) fn created(object: Object) -> Self {
        let changes = diff("spec", &json!({}), &spec(&object));
        Self { object, action: Action::Created, changes }
    }

    /// As the messages of all kinds have them.
    pub(super) fn told(self) -> (String, Vec<v1::FieldChange>) {
        let change = |change: FieldChange| v1::FieldChange { field: change.field, before: change.before, after: change.after };
        (self.action.word().into(), self.changes.into_iter().map(change).collect())
    }
}

impl Context {
    /// `wanted` beside the object of its name. None: there is none, it is to be made.
    pub(super) async fn apply_present(&self, caller: Caller, wanted: &Object, dry_run: bool) -> Result<Option<Applied>, Fault> {
        let key = wanted.key();
        let Some(object) = self.store.get(&key).await.map_err(|error| error.fault())? else { return Ok(None) };
        if object.meta().deleted_at.is_some() {
            return Err(being_deleted(&key.name));
        }
        refuse_changes(&object, wanted)?;
        let changes = diff("metadata", &labels(object.meta()), &labels(wanted.meta()));
        if changes.is_empty() {
            return Ok(Some(Applied { object, action: Action::Unchanged, changes }));
        }
        let object = if dry_run { object } else { self.change(caller, &key, |present| Ok(relabelled(present, wanted.meta()))).await? };
        Ok(Some(Applied { object, action: Action::Configured, changes }))
    }
}

/// The short name that `name` means, which may be `mynet/v2` or `v2`; the first says the devnet too.
pub(super) fn short_name(name: &str, devnet_ref: &mut String) -> Result<String, Fault> {
    let Some((devnet, short)) = name.split_once('/') else { return Ok(name.to_owned()) };
    if devnet_ref.is_empty() {
        *devnet_ref = devnet.to_owned();
    }
    if devnet_ref == devnet {
        return Ok(short.to_owned());
    }
    let violation = Violation::new("metadata.name", format!("`{name}` is a name in devnet {devnet}, and spec.devnetRef is {devnet_ref}"));
    Err(Fault::invalid(vec![Violation { suggestion: Some(short.to_owned()), ..violation }]))
}

fn refuse_changes(present: &Object, wanted: &Object) -> Result<(), Fault> {
    let changes = diff("spec", &spec(present), &spec(&with_verbs_of(present, wanted)));
    if changes.is_empty() {
        return Ok(());
    }
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let violation =
        |change: &FieldChange| Violation::new(&change.field, format!("is {} and cannot become {}", show(&change.before), show(&change.after)));
    let fields: Vec<&str> = changes.iter().map(|change| change.field.as_str()).collect();
    let (kind, name) = (present.kind().name().to_lowercase(), &present.meta().name);
    let message = format!("{} cannot change: {kind} `{name}` is {} with another spec", fields.join(", "), phase(present));
    let remedy = match present {
        Object::Upgrade(_) => format!("take the change out, or: dvbctl upgrade cancel {name}; dvbctl upgrade delete {name}; then apply it again"),
        Object::Transaction(_) => "take the change out, or give it another metadata.name: that is another transaction".to_owned(),
        _ => format!("take the change out, give it another metadata.name, or: dvbctl {kind} delete {name}, then apply it again"),
    };
    let violations = changes.iter().map(violation).collect();
    Err(Fault { violations, ..Fault::new(FaultCode::Immutable, message) }.about(name.as_str()).remedy(remedy))
}

/// Cancel and retry are set by verbs: a document from before them does not take them back.
fn with_verbs_of(present: &Object, wanted: &Object) -> Object {
    let (Object::Upgrade(present), Object::Upgrade(wanted)) = (present, wanted) else { return wanted.clone() };
    let (cancel, retry) = (wanted.spec.cancel || present.spec.cancel, wanted.spec.retry.max(present.spec.retry));
    let mut wanted = crate::model::Upgrade::clone(wanted);
    wanted.spec = UpgradeSpec { cancel, retry, ..wanted.spec };
    wanted.into()
}

fn relabelled(present: &Object, wanted: &Meta) -> Option<(Object, Draft)> {
    if labels(present.meta()) == labels(wanted) {
        return None;
    }
    let mut object = present.clone();
    let meta = object.meta_mut();
    (meta.labels, meta.annotations) = (wanted.labels.clone(), wanted.annotations.clone());
    Some((
        object,
        Draft { reason: "MetadataChanged", message: "changed: labels or annotations".into(), action: Some("apply".into()), ..Draft::default() },
    ))
}

fn labels(meta: &Meta) -> Value {
    json!({"labels": meta.labels, "annotations": meta.annotations})
}

fn spec(object: &Object) -> Value {
    let spec = match object {
        Object::Upgrade(upgrade) => serde_json::to_value(&upgrade.spec),
        Object::Transaction(tx) => serde_json::to_value(&tx.spec),
        Object::Export(export) => serde_json::to_value(&export.spec),
        _ => Ok(Value::Null),
    };
    spec.unwrap_or_default()
}

fn phase(object: &Object) -> String {
    match object {
        Object::Upgrade(upgrade) => format!("{:?}", upgrade.status.phase),
        Object::Transaction(tx) => format!("{:?}", tx.status.phase),
        Object::Export(export) => format!("{:?}", export.status.phase),
        _ => "there".to_owned(),
    }
}

#[cfg(test)]
#[path = "declared_tests.rs"]
mod tests;
