//! What becomes of a devnet that a user sends: defaults, checks, what may not change, and what the change is. Pure.

use super::{
    diff::{FieldChange, diff},
    names::check_references,
};
use crate::model::{
    DEFAULT_NAMESPACE, Desired, Devnet, DevnetSpec, DevnetStatus, Fault, FaultCode, MAX_NODES, Meta, Timestamp, Uid, Violation, validate_devnet,
};
use serde_json::{Value, json};

/// Annotations with this prefix are the daemon's: an applied file neither sets nor removes them.
pub const OWN_ANNOTATIONS: &str = "devnet.builder/";
/// Set by a delete that leaves the files.
pub const KEEP_DATA: &str = "devnet.builder/keep-data";

/// How the user asked. All make the object match what was sent; they differ in what must be there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Nothing of that name.
    Create,
    /// Anything.
    Apply,
    /// An object, at the sent resourceVersion unless that is 0.
    Update,
}

/// What admission may not make up itself.
#[derive(Clone, Debug)]
pub struct Fresh {
    pub now: Timestamp,
    pub uid: Uid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Configured,
    Unchanged,
}

impl Action {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The object to store (as it stands already when unchanged).
#[derive(Clone, Debug)]
pub struct Admitted {
    pub devnet: Devnet,
    pub action: Action,
    pub changes: Vec<FieldChange>,
    pub spec_changed: bool,
}

/// Decides on `wanted` beside the `present` object of that name.
pub fn admit(verb: Verb, present: Option<&Devnet>, mut wanted: Devnet, fresh: &Fresh) -> Result<Admitted, Fault> {
    default_namespace(&mut wanted.metadata);
    check_presence(verb, present, &wanted)?;
    let uid = present.map_or(&fresh.uid, |present| &present.metadata.uid);
    fill_in(&mut wanted.spec, &wanted.metadata.name, uid, present.map(|present| &present.spec), fresh.now);
    let devnet = Devnet { metadata: metadata(present, wanted.metadata, fresh), spec: wanted.spec, status: status(present) };
    check(&devnet)?;
    if let Some(present) = present {
        check_immutable(present, &devnet.spec)?;
    }
    Ok(compare(present, devnet))
}

/// Empty means `default`, in objects as in requests.
pub fn namespace_or_default(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

fn default_namespace(metadata: &mut Meta) {
    metadata.namespace = namespace_or_default(&metadata.namespace).to_owned();
}

fn check_presence(verb: Verb, present: Option<&Devnet>, wanted: &Devnet) -> Result<(), Fault> {
    let name = &wanted.metadata.name;
    let Some(present) = present else {
        if verb == Verb::Update {
            return Err(Fault::new(FaultCode::NotFound, format!("devnet `{name}` does not exist")).about(name).remedy("dvbctl get devnets"));
        }
        return Ok(());
    };
    if present.metadata.deleted_at.is_some() {
        return Err(being_deleted(name));
    }
    if verb == Verb::Create {
        let fault = Fault::new(FaultCode::AlreadyExists, format!("devnet `{name}` exists already")).about(name);
        return Err(fault.remedy("dvbctl apply -f FILE changes it; `dvbctl delete` removes it"));
    }
    let (sent, stored) = (wanted.metadata.resource_version, present.metadata.resource_version);
    if verb == Verb::Update && sent != 0 && sent != stored {
        let message = format!("devnet `{name}` is at resourceVersion {stored}, not {sent}: somebody else changed it");
        return Err(Fault::new(FaultCode::Conflict, message).about(name).retriable().remedy("read it again and repeat the change"));
    }
    Ok(())
}

/// The refusal of every write to an object that is on its way out.
pub fn being_deleted(name: &str) -> Fault {
    let message = format!("`{name}` is being deleted");
    Fault::new(FaultCode::Conflict, message).about(name).retriable().remedy(format!("dvbctl wait --for=delete {name}, then try again"))
}

/// Absent fields get the stored value where there is one that must stay, else their default.
fn fill_in(spec: &mut DevnetSpec, name: &str, uid: &Uid, stored: Option<&DevnetSpec>, now: Timestamp) {
    let kept = stored.cloned().unwrap_or_default();
    let has_chain = spec.has_chain();
    spec.chain_id = spec.chain_id.take().or(kept.chain_id).or_else(|| has_chain.then(|| format!("{name}-1")));
    spec.seed = spec.seed.take().or(kept.seed).or_else(|| Some(format!("{name}-{uid}")));
    spec.genesis.time = spec.genesis.time.or(kept.genesis.time).or_else(|| has_chain.then(|| whole_seconds(now)));
    spec.validators = Some(spec.validators());
    spec.accounts = spec.accounts.or(Some(if has_chain { spec.accounts() } else { 0 }));
    spec.desired = spec.desired.or(kept.desired);
    let stopped = spec.desired == Some(Desired::Stopped);
    spec.frozen = spec.frozen.or(kept.frozen).filter(|_| !stopped); // a stop ends a freeze
    spec.operations = kept.operations;
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.as_millis().div_euclid(1_000) * 1_000)
}

fn metadata(present: Option<&Devnet>, sent: Meta, fresh: &Fresh) -> Meta {
    let own = |key: &String| key.starts_with(OWN_ANNOTATIONS);
    let mut annotations = sent.annotations;
    annotations.retain(|key, _| !own(key));
    match present {
        None => Meta {
            name: sent.name,
            namespace: sent.namespace,
            uid: fresh.uid.clone(),
            labels: sent.labels,
            annotations,
            generation: 1,
            resource_version: 0,
            created_at: fresh.now,
            updated_at: fresh.now,
            deleted_at: None,
        },
        Some(present) => {
            annotations.extend(present.metadata.annotations.iter().filter(|(key, _)| own(key)).map(|(key, value)| (key.clone(), value.clone())));
            Meta { labels: sent.labels, annotations, ..present.metadata.clone() }
        }
    }
}

fn status(present: Option<&Devnet>) -> DevnetStatus {
    present.map(|present| present.status.clone()).unwrap_or_default()
}

fn check(devnet: &Devnet) -> Result<(), Fault> {
    let spec = &devnet.spec;
    let mut violations = validate_devnet(devnet);
    if spec.validators().saturating_add(spec.full_nodes) <= MAX_NODES {
        violations.extend(check_references(spec));
    }
    check_labels("metadata.labels", &devnet.metadata.labels, &mut violations);
    check_labels("metadata.annotations", &devnet.metadata.annotations, &mut violations);
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations).about(shorten(&devnet.metadata.name))) }
}

fn check_labels(field: &str, labels: &std::collections::BTreeMap<String, String>, violations: &mut Vec<Violation>) {
    if labels.len() > 64 {
        violations.push(Violation::new(field, format!("{} entries are too many; at most 64", labels.len())));
    }
    if labels.iter().any(|(key, value)| key.is_empty() || key.len() > 253 || value.len() > 4096) {
        violations.push(Violation::new(field, "keys must have 1 to 253 bytes, values at most 4096"));
    }
}

/// For a message: what a user typed may be as long as they like.
fn shorten(name: &str) -> String {
    name.chars().take(60).collect()
}

fn check_immutable(present: &Devnet, wanted: &DevnetSpec) -> Result<(), Fault> {
    if present.status.genesis_hash.is_none() {
        return Ok(());
    }
    let changes = diff("spec", &fixed_by_genesis(&present.spec), &fixed_by_genesis(wanted));
    if changes.is_empty() {
        return Ok(());
    }
    let name = &present.metadata.name;
    let violations: Vec<Violation> = changes
        .iter()
        .map(|change| {
            let show = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("nothing"));
            Violation::new(&change.field, format!("is {} and cannot become {}", show(&change.before), show(&change.after)))
        })
        .collect();
    let fields: Vec<&str> = changes.iter().map(|change| change.field.as_str()).collect();
    let message = format!("{} cannot change: devnet `{name}` has its genesis", fields.join(", "));
    let remedy = format!(
        "take the change out of the file; for another chain: dvbctl delete {name} --yes, then apply again; to begin the present one at height 0: dvbctl reset {name}"
    );
    Err(Fault { violations, ..Fault::new(FaultCode::Immutable, message) }.about(name).remedy(remedy))
}

fn fixed_by_genesis(spec: &DevnetSpec) -> Value {
    json!({"plugin": spec.plugin, "chainId": spec.chain_id, "seed": spec.seed, "genesis": spec.genesis, "accounts": spec.accounts(), "validators": spec.validators()})
}

fn compare(present: Option<&Devnet>, mut devnet: Devnet) -> Admitted {
    let Some(present) = present else {
        let changes = document_diff(&Value::Null, &document(&devnet));
        return Admitted { devnet, action: Action::Created, changes, spec_changed: true };
    };
    let changes = document_diff(&document(present), &document(&devnet));
    let spec_changed = present.spec != devnet.spec;
    if spec_changed {
        devnet.metadata.generation += 1;
    }
    let same = !spec_changed && present.metadata == devnet.metadata;
    Admitted { devnet, action: if same { Action::Unchanged } else { Action::Configured }, changes, spec_changed }
}

/// What of an object is the user's, in JSON.
fn document(devnet: &Devnet) -> Value {
    json!({"metadata": {"labels": devnet.metadata.labels, "annotations": devnet.metadata.annotations}, "spec": devnet.spec})
}

fn document_diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let part = |document: &Value, name: &str| document.get(name).cloned().unwrap_or_else(|| json!({}));
    let mut changes = diff("metadata", &part(before, "metadata"), &part(after, "metadata"));
    changes.extend(diff("spec", &part(before, "spec"), &part(after, "spec")));
    changes
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
