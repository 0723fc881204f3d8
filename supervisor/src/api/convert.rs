//! Model <-> generated message, through the one JSON shape that both have. But for `node_message`, no other file knows the messages' fields.

use crate::model::{API_VERSION, Devnet, Event, Export, Fault, FaultCode, Kind, Launch, Node, Transaction, Upgrade, Violation};
use dvb_proto::devnet::v1;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Keys below which nulls mean something (a merge patch removes a field with one): they are kept as they are.
const FREE_FORM: [&str; 3] = ["patch", "config", "payload"];

/// A model type that has a message.
pub trait Part: Serialize {
    type Message: DeserializeOwned;
}

/// One that is an object.
pub trait Wire: Part {
    /// What clients do not see: fields of a part of the stored JSON.
    const HIDDEN: &[(&str, &[&str])] = &[];
    /// What clients see besides.
    fn name_kind(_message: &mut Self::Message) {}
}

macro_rules! named {
    ($($kind:ident $({ $($hidden:tt)* })?),*) => {$(
        impl Part for $kind {
            type Message = v1::$kind;
        }
        impl Wire for $kind {
            $(const HIDDEN: &[(&str, &[&str])] = &[$($hidden)*];)?
            fn name_kind(message: &mut Self::Message) {
                (message.api_version, message.kind) = (API_VERSION.into(), Kind::$kind.name().into());
            }
        }
    )*};
}

named! {
    Devnet,
    Node,
    // How it is watched and stopped, and the runtime's own handle.
    Launch { ("spec", &["stopSignal", "graceMs", "readiness", "cwd"]), ("status", &["handle"]) },
    Transaction,
    Upgrade { ("status", &["notes"]) },
    Export
}

impl Part for Event {
    type Message = v1::Event;
}

impl Wire for Event {}

impl Part for Fault {
    type Message = v1::Fault;
}

impl Wire for Fault {}

/// Cannot fail while the shapes agree, which the tests below hold them to; if it does, that is an Internal fault.
pub fn to_message<T: Wire>(object: &T) -> Result<T::Message, Fault> {
    let mut message = if T::HIDDEN.is_empty() { through_json(object)? } else { shown(object).map_err(misfit)? };
    T::name_kind(&mut message);
    Ok(message)
}

/// As text, which takes a third of the time that a tree of values takes.
pub(super) fn through_json<T: Part>(part: &T) -> Result<T::Message, Fault> {
    let text = serde_json::to_vec(part).map_err(misfit)?;
    // Where it does not fit is looked for only when it does not: keeping the path costs more than the rest of the conversion.
    let whole = serde_json::from_slice(&text);
    whole.or_else(|_| serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text))).map_err(misfit)
}

/// Without what is hidden.
fn shown<T: Wire>(object: &T) -> Result<T::Message, Box<dyn std::error::Error>> {
    let mut json = serde_json::to_value(object)?;
    for (part, fields) in T::HIDDEN {
        if let Some(Value::Object(part)) = json.get_mut(part) {
            part.retain(|field, _| !fields.contains(&field.as_str()));
        }
    }
    Ok(serde_path_to_error::deserialize(json)?)
}

fn misfit(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::Internal, format!("an object does not fit its message: {error}"))
}

/// What a user sent, typed. A fault is InvalidSpec with the field's path.
pub fn from_message<T: DeserializeOwned>(message: &impl Serialize) -> Result<T, Fault> {
    // Only JSON text inside a message can fail here, and `devnet_from_message` looked at that with its path.
    let json =
        serde_json::to_value(message).map_err(|error| Fault::invalid(vec![Violation::new("the document", format!("holds no JSON: {error}"))]))?;
    from_json(json)
}

/// A devnet as a client sends it: metadata and spec. What only the daemon writes (status, times, deletion) is not read.
pub fn devnet_from_message(message: &v1::Devnet) -> Result<Devnet, Fault> {
    for (field, text, expected) in [("apiVersion", &message.api_version, API_VERSION), ("kind", &message.kind, Kind::Devnet.name())] {
        if !text.is_empty() && text != expected {
            let violation = Violation { suggestion: Some(expected.into()), ..Violation::new(field, format!("must be {expected}, not `{text}`")) };
            return Err(Fault::invalid(vec![violation]));
        }
    }
    let mut metadata = message.metadata.clone().unwrap_or_default();
    for time in [&mut metadata.created_at, &mut metadata.updated_at] {
        if time.is_empty() {
            *time = EPOCH.into();
        }
    }
    let spec = message.spec.clone().unwrap_or_default();
    check_json_texts(&spec)?;
    let spec = Some(spec);
    from_message(&v1::Devnet { metadata: Some(metadata), spec, status: None, ..message.clone() })
}

/// A transaction as a client sends it: metadata and spec. An empty payload is an empty object.
pub fn transaction_from_message(message: &v1::Transaction) -> Result<Transaction, Fault> {
    let metadata = dated(message.metadata.as_ref());
    let mut spec = message.spec.clone().unwrap_or_default();
    if spec.payload.is_empty() {
        spec.payload = "{}".into();
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&spec.payload) {
        return Err(Fault::invalid(vec![Violation::new("spec.payload", format!("is no JSON: {}", dvb_proto::words::plain(&error.to_string())))]));
    }
    from_message(&v1::Transaction { metadata: Some(metadata), spec: Some(spec), status: None, ..message.clone() })
}

/// An upgrade as a client sends it: metadata and spec.
pub fn upgrade_from_message(message: &v1::Upgrade) -> Result<Upgrade, Fault> {
    let (metadata, spec) = (Some(dated(message.metadata.as_ref())), Some(message.spec.clone().unwrap_or_default()));
    from_message(&v1::Upgrade { metadata, spec, status: None, ..message.clone() })
}

/// An export as a client sends it: metadata and spec.
pub fn export_from_message(message: &v1::Export) -> Result<Export, Fault> {
    let (metadata, spec) = (Some(dated(message.metadata.as_ref())), Some(message.spec.clone().unwrap_or_default()));
    from_message(&v1::Export { metadata, spec, status: None, ..message.clone() })
}

fn dated(metadata: Option<&v1::Metadata>) -> v1::Metadata {
    let mut metadata = metadata.cloned().unwrap_or_default();
    for time in [&mut metadata.created_at, &mut metadata.updated_at] {
        if time.is_empty() {
            *time = EPOCH.into();
        }
    }
    metadata
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Fields that are text in protobuf and a nested value in JSON.
fn check_json_texts(spec: &v1::DevnetSpec) -> Result<(), Fault> {
    let patch = spec.genesis.iter().map(|genesis| (String::from("spec.genesis.patch"), genesis.patch.as_deref()));
    let configs = spec.nodes.iter().enumerate().map(|(i, node)| (format!("spec.nodes[{i}].config"), node.config.as_deref()));
    let bad = |(field, text): (String, Option<&str>)| {
        let error = serde_json::from_str::<serde::de::IgnoredAny>(text?).err()?;
        Some(Violation::new(field, format!("is no JSON: {}", dvb_proto::words::plain(&error.to_string()))))
    };
    let violations: Vec<Violation> = patch.chain(configs).filter_map(bad).collect();
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

fn from_json<T: DeserializeOwned>(mut json: Value) -> Result<T, Fault> {
    drop_nulls(&mut json);
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        let field = if path == "." { String::from("the document") } else { path };
        let message = dvb_proto::words::plain(&reason);
        Fault::invalid(vec![Violation { suggestion: nearest_expected(&reason), ..Violation::new(field, message) }])
    })
}

/// Absent `optional` fields of a message serialize as null; the model takes absence only by absence.
fn drop_nulls(json: &mut Value) {
    match json {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.iter_mut().filter(|(key, _)| !FREE_FORM.contains(&key.as_str())).for_each(|(_, value)| drop_nulls(value));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// serde says "unknown variant `dcker`, expected `native` or `docker`": the nearest of those that it expects.
fn nearest_expected(reason: &str) -> Option<String> {
    let (head, tail) = reason.split_once(", expected ")?;
    let given = head.split('`').nth(1)?;
    let names = tail.split('`').skip(1).step_by(2);
    super::nearest(given, names)
}

#[cfg(test)]
#[path = "convert_properties.rs"]
mod properties;

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
