//! Messages that only the chain itself describes: ibc's, and those of its own modules. It serves the descriptors of its protobuf types,
//! by which JSON becomes bytes and bytes JSON.

use super::{
    json,
    wire::{Wire, WireError},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions, prost::Message,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

const DESCRIPTORS: &str = "/cosmos.reflection.v1.ReflectionService/FileDescriptors";
/// Binaries whose descriptors are kept: some ten megabytes each.
const KEPT: usize = 4;
const ANY: &str = "google.protobuf.Any";

/// The protobuf types of one chain.
pub(crate) struct Described {
    pool: DescriptorPool,
    /// Says of a field which type the chain's code has for it.
    custom_type: Option<ExtensionDescriptor>,
}

/// Of a conversion.
#[derive(Clone, Copy)]
enum Way {
    ToWire,
    FromWire,
}

/// The parameters of a module, how they are asked for, and the message that sets them.
pub(crate) struct Settable {
    pub(crate) module: String,
    /// Of its MsgUpdateParams, which has who may do so in field 1 and the parameters in field 2.
    pub(crate) url: String,
    pub(crate) query: String,
    /// The field of the query's answer that holds them.
    pub(crate) field: u32,
    pub(crate) params: MessageDescriptor,
}

/// What a chain of this binary describes; a node is asked once per binary. None: it serves no descriptors.
pub(crate) async fn ask(binary_sha256: &str, wire: &mut Wire) -> Result<Option<Arc<Described>>, WireError> {
    let known = kept().get(binary_sha256).cloned();
    if let Some(known) = known.filter(|_| !binary_sha256.is_empty()) {
        return Ok(Some(known));
    }
    let answer = wire.query(DESCRIPTORS, &[]).await?;
    if answer.code != 0 {
        return Ok(None);
    }
    let described = match Described::new(&answer.value) {
        Ok(described) => Arc::new(described),
        Err(error) => {
            tracing::warn!(%error, "the chain's descriptors cannot be read");
            return Ok(None);
        }
    };
    let mut kept = kept();
    if kept.len() >= KEPT {
        kept.clear();
    }
    if !binary_sha256.is_empty() {
        kept.insert(binary_sha256.to_owned(), described.clone());
    }
    Ok(Some(described))
}

fn kept() -> std::sync::MutexGuard<'static, BTreeMap<String, Arc<Described>>> {
    static KEPT: OnceLock<Mutex<BTreeMap<String, Arc<Described>>>> = OnceLock::new();
    KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Described {
    /// From the files' descriptors, as a FileDescriptorSet has them.
    pub(crate) fn new(files: &[u8]) -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(files)?;
        let custom_type = pool.get_extension_by_name("gogoproto.customtype");
        Ok(Self { pool, custom_type })
    }

    /// A message of the chain, from JSON without its `@type`. The error names the field.
    pub(crate) fn encode_any(&self, type_url: &str, message: Value) -> Result<Vec<u8>, String> {
        let kind = self.pool.get_message_by_name(type_url.trim_start_matches('/'));
        self.encode(&kind.ok_or("the chain has no such message")?, message)
    }

    /// None: the chain has no such message, or its bytes hold more than is described.
    pub(crate) fn decode_any(&self, type_url: &str, bytes: &[u8]) -> Option<Value> {
        let kind = self.pool.get_message_by_name(type_url.trim_start_matches('/'))?;
        let json = self.decode(&kind, bytes).ok()?;
        let again = self.encode(&kind, json.clone()).ok()?;
        (again == bytes).then_some(json)
    }

    pub(crate) fn encode(&self, kind: &MessageDescriptor, mut message: Value) -> Result<Vec<u8>, String> {
        self.fractions(kind, &mut message, Way::ToWire)?;
        DynamicMessage::deserialize(kind.clone(), message).map(|message| message.encode_to_vec()).map_err(|error| error.to_string())
    }

    /// Fields that have the value that protobuf does not write are left out, and so is what is not described.
    pub(crate) fn decode(&self, kind: &MessageDescriptor, bytes: &[u8]) -> Result<Value, String> {
        let message = DynamicMessage::decode(kind.clone(), bytes).map_err(|error| error.to_string())?;
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true).skip_default_fields(true);
        let mut json = message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())?;
        self.fractions(kind, &mut json, Way::FromWire)?;
        Ok(json)
    }

    /// The modules whose parameters a message sets.
    pub(crate) fn settable(&self) -> Vec<Settable> {
        self.pool.services().filter_map(|service| self.settable_by(&service)).collect()
    }

    fn settable_by(&self, service: &prost_reflect::ServiceDescriptor) -> Option<Settable> {
        let package = service.full_name().strip_suffix(".Query")?;
        let message = self.pool.get_message_by_name(&format!("{package}.MsgUpdateParams"))?;
        let params = message.get_field(2).filter(|field| field.name() == "params" && message.get_field(1).is_some())?.kind();
        let params = params.as_message()?.clone();
        let holds = |field: &FieldDescriptor| field.name() == "params" && field.kind().as_message() == Some(&params);
        let (query, field) = service.methods().find_map(|method| {
            let field = method.output().fields().find(holds)?.number();
            method.name().ends_with("Params").then(|| (format!("/{}/{}", service.full_name(), method.name()), field))
        })?;
        // The part before the version: `transfer` of ibc.applications.transfer.v1.
        let module = package.rsplit('.').nth(1)?.to_owned();
        Some(Settable { module, url: format!("/{}", message.full_name()), query, field, params })
    }

    /// Brings every decimal fraction of a message into its other form.
    fn fractions(&self, kind: &MessageDescriptor, message: &mut Value, way: Way) -> Result<(), String> {
        let Value::Object(members) = message else { return Ok(()) };
        if kind.full_name() == ANY {
            let inner = members.get("@type").and_then(Value::as_str).unwrap_or_default().trim_start_matches('/').to_owned();
            return match self.pool.get_message_by_name(&inner) {
                Some(inner) if inner.full_name() != ANY => self.fractions(&inner, message, way),
                _ => Ok(()),
            };
        }
        for (name, value) in members {
            let Some(field) = kind.get_field_by_name(name).or_else(|| kind.get_field_by_json_name(name)) else { continue };
            let (inner, is_fraction) = match field.kind() {
                Kind::Message(entry) if field.is_map() => (entry.map_entry_value_field().kind(), false),
                kind => (kind, self.is_fraction(&field)),
            };
            let all: Vec<&mut Value> = match value {
                Value::Array(items) if field.is_list() => items.iter_mut().collect(),
                Value::Object(entries) if field.is_map() => entries.values_mut().collect(),
                one => vec![one],
            };
            for value in all {
                match &inner {
                    Kind::Message(inner) => self.fractions(inner, value, way)?,
                    kind if is_fraction => fraction(name, matches!(kind, Kind::Bytes), value, way)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// On the wire it is an integer of 10^-18.
    fn is_fraction(&self, field: &FieldDescriptor) -> bool {
        let Some(custom_type) = &self.custom_type else { return false };
        let options = field.options();
        options.get_extension(custom_type).as_str().is_some_and(|name| name.ends_with(".Dec") || name.ends_with(".LegacyDec"))
    }
}

/// Digits as text; in a field of bytes the wire has these digits, and JSON base64 of them.
fn fraction(name: &str, in_bytes: bool, value: &mut Value, way: Way) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Ok(()), // not set, or protobuf's reader tells what is wrong with it
    };
    if let Way::ToWire = way {
        let digits = json::scale(&text).ok_or_else(|| format!("{name}: `{text}` is no decimal fraction with at most {} places", json::PLACES))?;
        *value = if in_bytes { STANDARD.encode(digits) } else { digits }.into();
        return Ok(());
    }
    let digits = if in_bytes { STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok()) } else { Some(text) };
    if let Some(fraction) = digits.and_then(|digits| json::unscale(&digits)) {
        *value = fraction.into();
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    const GOGO: &str = r#"
        syntax = "proto2";
        package gogoproto;
        import "google/protobuf/descriptor.proto";
        extend google.protobuf.FieldOptions { optional string customtype = 65003; }
    "#;
    /// A module of some chain's own.
    const MODULE: &str = r#"
        syntax = "proto3";
        package app.burner.v1;
        import "gogoproto/gogo.proto";
        import "google/protobuf/any.proto";
        message Params {
            string rate = 1 [(gogoproto.customtype) = "cosmossdk.io/math.LegacyDec"];
            bytes share = 2 [(gogoproto.customtype) = "github.com/cosmos/cosmos-sdk/types.Dec"];
            uint64 blocks = 3;
            repeated Params more = 4;
        }
        message MsgUpdateParams { string signer = 1; Params params = 2; }
        message MsgBurn { string owner = 1; uint64 amount = 2; google.protobuf.Any why = 3; }
        message QueryParamsRequest {}
        message QueryParamsResponse { uint64 height = 1; Params params = 2; }
        service Query { rpc BurnerParams(QueryParamsRequest) returns (QueryParamsResponse); }
    "#;

    pub(crate) fn described() -> Described {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("gogoproto")).unwrap();
        fs::write(dir.path().join("gogoproto/gogo.proto"), GOGO).unwrap();
        fs::write(dir.path().join("burner.proto"), MODULE).unwrap();
        let mut compiler = protox::Compiler::new([dir.path()]).unwrap();
        compiler.include_imports(true).open_file("burner.proto").unwrap();
        Described::new(&compiler.encode_file_descriptor_set()).unwrap()
    }

    #[test]
    fn a_message_that_only_the_chain_describes_goes_into_bytes_and_back() {
        let chain = described();
        let params =
            json!({"rate": "0.200000000000000000", "share": "0.010000000000000000", "blocks": "7", "more": [{"rate": "1.000000000000000000"}]});
        let message = json!({"signer": "wasm1gov", "params": params});
        let bytes = chain.encode_any("/app.burner.v1.MsgUpdateParams", message.clone()).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("200000000000000000") && String::from_utf8_lossy(&bytes).contains("10000000000000000"));
        assert_eq!(chain.decode_any("/app.burner.v1.MsgUpdateParams", &bytes).unwrap(), message);
        let nested = json!({"owner": "wasm1a", "amount": "5", "why": {"@type": "/app.burner.v1.Params", "rate": "0.5"}});
        let bytes = chain.encode_any("/app.burner.v1.MsgBurn", nested).unwrap();
        assert_eq!(chain.decode_any("/app.burner.v1.MsgBurn", &bytes).unwrap()["why"]["rate"], "0.500000000000000000");
        let more = [bytes.as_slice(), &[0x7a, 1, 7]].concat();
        assert_eq!(chain.decode_any("/app.burner.v1.MsgBurn", &more), None, "a field that nobody describes would be lost");
    }

    #[test]
    fn what_is_wrong_in_such_a_message_is_named() {
        let chain = described();
        let check = |url: &str, message: Value, why: &str| {
            let error = chain.encode_any(url, message).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        check("/app.burner.v1.MsgBurn", json!({"ownr": "x"}), "ownr");
        check("/app.burner.v1.MsgBurn", json!({"amount": "many"}), "invalid digit");
        check("/app.burner.v1.MsgMint", json!({}), "no such message");
        check("/app.burner.v1.MsgUpdateParams", json!({"params": {"share": "half"}}), "share: `half` is no decimal fraction");
    }

    #[test]
    fn modules_whose_parameters_can_be_set_are_found_with_their_query() {
        let found = described().settable();
        let [module] = found.as_slice() else { panic!("{} of them", found.len()) };
        assert_eq!((module.module.as_str(), module.url.as_str()), ("burner", "/app.burner.v1.MsgUpdateParams"));
        assert_eq!((module.query.as_str(), module.field), ("/app.burner.v1.Query/BurnerParams", 2));
    }
}
