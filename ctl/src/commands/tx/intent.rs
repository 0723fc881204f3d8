//! From flags, or a line of a batch, to a transaction that is wanted.

use crate::error::Error;
use dvb_proto::devnet::v1::{Metadata, Transaction, TransactionSpec};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;

/// One transaction as a line of a batch; flags come to the same.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in crate::commands) struct Intent {
    #[serde(rename = "type")]
    pub(in crate::commands) kind: String,
    pub(in crate::commands) signer: String,
    pub(in crate::commands) payload: Map<String, Value>,
    /// Short for `payload.to` and `payload.amount`.
    pub(in crate::commands) to: Option<String>,
    pub(in crate::commands) amount: Option<Value>,
    pub(in crate::commands) gas: u64,
    pub(in crate::commands) gas_factor: f64,
    pub(in crate::commands) memo: String,
    pub(in crate::commands) request_id: String,
}

impl Intent {
    pub(in crate::commands) fn into_transaction(self, namespace: &str, devnet: &str) -> Transaction {
        let Self { kind, signer, mut payload, to, amount, gas, gas_factor, memo, request_id } = self;
        payload.extend(to.map(|to| ("to".to_owned(), Value::from(to))));
        payload.extend(amount.map(|amount| ("amount".to_owned(), amount)));
        Transaction {
            metadata: Some(Metadata { namespace: namespace.to_owned(), ..Metadata::default() }),
            spec: Some(TransactionSpec {
                devnet_ref: devnet.to_owned(),
                tx_type: kind,
                signer,
                payload: Value::Object(payload).to_string(),
                gas_limit: gas,
                memo,
                request_id,
                gas_factor,
            }),
            ..Transaction::default()
        }
    }
}

/// JSON, or `@FILE` with JSON in it.
pub(in crate::commands) fn parse_payload(text: &str) -> Result<Map<String, Value>, Error> {
    let read;
    let json = match text.strip_prefix('@') {
        Some(path) => {
            read = fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
            &read
        }
        None => text,
    };
    match serde_json::from_str(json) {
        Ok(Value::Object(payload)) => Ok(payload),
        Ok(other) => Err(Error::usage(format!("the payload must be a JSON object, not {other}"))),
        Err(error) => Err(Error::usage(format!("the payload is no JSON: {error}"))),
    }
}

/// `key=value`; the value is JSON where it reads as JSON, else text.
pub(in crate::commands) fn parse_field(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| format!("`{text}` is no field; write key=value"))?;
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

/// Drawn by the client, so that it can ask again after a lost connection without paying twice.
pub(in crate::commands) fn fresh_request_id() -> Result<String, Error> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let id = fs::read_to_string(SOURCE).map_err(|error| Error::file(SOURCE, &error))?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_becomes_a_transaction_and_short_forms_go_into_the_payload() {
        let line = r#"{"type":"bank/send","signer":"account:0","to":"account:1","amount":"7stake","payload":{"x":1},"requestId":"r"}"#;
        let spec = serde_json::from_str::<Intent>(line).unwrap().into_transaction("", "mynet").spec.unwrap();
        let payload: Value = serde_json::from_str(&spec.payload).unwrap();
        assert_eq!(payload, json!({"x": 1, "to": "account:1", "amount": "7stake"}));
        assert_eq!((spec.devnet_ref.as_str(), spec.tx_type.as_str(), spec.request_id.as_str()), ("mynet", "bank/send", "r"));
        assert!(serde_json::from_str::<Intent>(r#"{"typ":"x"}"#).is_err());
    }

    #[test]
    fn fields_are_json_where_they_read_as_json() {
        assert_eq!(parse_field("proposal=3"), Ok(("proposal".into(), json!(3))));
        assert_eq!(parse_field("option=yes"), Ok(("option".into(), json!("yes"))));
        assert!(parse_field("x").is_err() && parse_field("=1").is_err());
    }
}
