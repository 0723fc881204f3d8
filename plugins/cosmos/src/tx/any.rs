//! Any message of the chain, as JSON with its `@type` (as the chain's own command line writes it) or as base64 of its protobuf bytes. What is not
//! known here as JSON, the chain itself may describe.

use super::{described::Described, invalid, json};
use base64::{Engine, engine::general_purpose::STANDARD};
use cosmos_sdk_proto::{
    Any,
    cosmos::{auth, authz, bank, crisis, distribution, feegrant, gov, mint, slashing, staking, upgrade, vesting},
    cosmwasm::wasm,
    traits::{Message, Name},
};
use dvb_plugin_sdk::{PluginFault, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::OnceLock};

/// A message that can be written as JSON.
struct Known {
    encode: fn(Value) -> serde_json::Result<Vec<u8>>,
    /// None: the bytes hold more than is known here.
    decode: fn(&[u8]) -> Option<Value>,
}

/// `{"@type": "/cosmos.bank.v1beta1.MsgSend", "from_address": ...}` for what is known here or described by the chain,
/// `{"@type": "/a.b.MsgC", "value": "base64"}` for all. FailedPrecondition: only the chain could tell, and its description is not there.
pub(crate) fn pack(message: &Value, chain: Option<&Described>) -> Result<Any> {
    let Value::Object(fields) = message else { return Err(invalid("a message must be a JSON object")) };
    let type_url = fields.get("@type").and_then(Value::as_str).filter(|url| url.starts_with('/') && url.len() > 1);
    let type_url = type_url.ok_or_else(|| invalid("a message needs \"@type\", as in /cosmos.bank.v1beta1.MsgSend"))?;
    let mut rest = fields.clone();
    rest.shift_remove("@type");
    let value = match (rest.get("value").and_then(Value::as_str), known().get(type_url)) {
        (Some(base64), _) if rest.len() == 1 => {
            STANDARD.decode(base64).map_err(|error| invalid(format!("{type_url}: \"value\" is no base64: {error}")))?
        }
        (_, Some(known)) => {
            let mut rest = Value::Object(rest);
            if let Some(document) = document(type_url, &mut rest) {
                json::document_to_wire(document);
            }
            json::to_wire(&mut rest, json::fractions(type_url)).map_err(|error| invalid(format!("{type_url}: {error}")))?;
            (known.encode)(rest).map_err(|error| invalid(format!("{type_url}: {error}")))?
        }
        (_, None) => match chain {
            Some(chain) => chain.encode_any(type_url, Value::Object(rest)).map_err(|error| invalid(format!("{type_url}: {error}")))?,
            None => {
                let message =
                    format!("{type_url} is not known here as JSON; write {{\"@type\": \"{type_url}\", \"value\": \"base64 of its protobuf bytes\"}}");
                return Err(PluginFault::FailedPrecondition(message));
            }
        },
    };
    Ok(Any { type_url: type_url.into(), value })
}

/// As `pack` takes it: JSON where nothing of the message is lost by it, base64 elsewhere.
pub(crate) fn unpack(message: &Any, chain: Option<&Described>) -> Value {
    let url = &message.type_url;
    if !is_known(url)
        && let Some(Value::Object(members)) = chain.and_then(|chain| chain.decode_any(url, &message.value))
    {
        return Value::Object(Map::from_iter([("@type".to_owned(), Value::from(url.as_str()))].into_iter().chain(members)));
    }
    let mut fields = Map::from_iter([("@type".to_owned(), Value::from(url.as_str()))]);
    match known().get(url).and_then(|known| (known.decode)(&message.value)) {
        Some(json) => {
            let mut json = json::from_wire(json, json::fractions(url));
            if let Some(document) = document(url, &mut json) {
                json::document_from_wire(document);
            }
            match json {
                Value::Object(members) => fields.extend(members),
                _ => drop(fields.insert("value".to_owned(), Value::from(STANDARD.encode(&message.value)))),
            }
        }
        None => drop(fields.insert("value".to_owned(), Value::from(STANDARD.encode(&message.value)))),
    }
    Value::Object(fields)
}

/// Whether it is JSON without a word of the chain.
pub(crate) fn is_known(type_url: &str) -> bool {
    known().contains_key(type_url)
}

/// What a message tells a contract.
fn document<'a>(type_url: &str, message: &'a mut Value) -> Option<&'a mut Value> {
    type_url.starts_with("/cosmwasm.wasm.v1.").then(|| message.get_mut("msg"))?
}

/// The messages that can be written as JSON, by type URL.
fn known() -> &'static BTreeMap<String, Known> {
    static KNOWN: OnceLock<BTreeMap<String, Known>> = OnceLock::new();
    KNOWN.get_or_init(|| BTreeMap::from_iter(list()))
}

fn entry<M: Message + Name + Default + Serialize + DeserializeOwned>() -> (String, Known) {
    let encode = |json| serde_json::from_value::<M>(json).map(|message| message.encode_to_vec());
    let decode = |bytes: &[u8]| {
        let message = M::decode(bytes).ok()?;
        let complete = message.encoded_len() == bytes.len();
        serde_json::to_value(&message).ok().filter(|_| complete)
    };
    (M::type_url(), Known { encode, decode })
}

macro_rules! messages {
    ($($module:path: $($name:ident)*;)*) => {
        fn list() -> Vec<(String, Known)> {
            vec![$($({ use $module as module; entry::<module::$name>() }),*),*]
        }
    };
}

messages! {
    auth::v1beta1: MsgUpdateParams;
    authz::v1beta1: MsgGrant MsgRevoke MsgExec;
    bank::v1beta1: MsgSend MsgMultiSend MsgSetSendEnabled MsgUpdateParams;
    crisis::v1beta1: MsgUpdateParams MsgVerifyInvariant;
    distribution::v1beta1: MsgCommunityPoolSpend MsgDepositValidatorRewardsPool MsgFundCommunityPool MsgSetWithdrawAddress MsgUpdateParams
        MsgWithdrawDelegatorReward MsgWithdrawValidatorCommission;
    feegrant::v1beta1: MsgGrantAllowance MsgPruneAllowances MsgRevokeAllowance;
    gov::v1: MsgCancelProposal MsgDeposit MsgSubmitProposal MsgUpdateParams MsgVote MsgVoteWeighted;
    mint::v1beta1: MsgUpdateParams;
    slashing::v1beta1: MsgUnjail MsgUpdateParams;
    staking::v1beta1: MsgBeginRedelegate MsgCancelUnbondingDelegation MsgCreateValidator MsgDelegate MsgEditValidator MsgUndelegate MsgUpdateParams;
    upgrade::v1beta1: MsgCancelUpgrade MsgSoftwareUpgrade;
    vesting::v1beta1: MsgCreatePeriodicVestingAccount MsgCreatePermanentLockedAccount MsgCreateVestingAccount;
    wasm::v1: MsgClearAdmin MsgExecuteContract MsgInstantiateContract MsgInstantiateContract2 MsgMigrateContract MsgPinCodes MsgStoreAndInstantiateContract
        MsgStoreCode MsgSudoContract MsgUnpinCodes MsgUpdateAdmin MsgUpdateContractLabel MsgUpdateInstantiateConfig MsgUpdateParams;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_base64_come_to_the_same_bytes() {
        let json = json!({"@type": "/cosmos.bank.v1beta1.MsgSend", "from_address": "wasm1a", "to_address": "wasm1b", "amount": [{"denom": "stake", "amount": "7"}]});
        let packed = pack(&json, None).unwrap();
        let message = bank::v1beta1::MsgSend::decode(packed.value.as_slice()).unwrap();
        assert_eq!((message.to_address.as_str(), message.amount[0].amount.as_str()), ("wasm1b", "7"));
        let again = pack(&json!({"@type": packed.type_url, "value": STANDARD.encode(&packed.value)}), None).unwrap();
        assert_eq!(again, packed);
    }

    #[test]
    fn an_upgrade_reads_as_the_chains_command_line_writes_it() {
        let plan = json!({"name": "v0.50", "time": "0001-01-01T00:00:00Z", "height": "38", "info": "{}", "upgraded_client_state": null});
        let packed = pack(&json!({"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "authority": "wasm1gov", "plan": plan}), None).unwrap();
        let message = upgrade::v1beta1::MsgSoftwareUpgrade::decode(packed.value.as_slice()).unwrap();
        assert_eq!(message.plan.map(|plan| (plan.name, plan.height)), Some(("v0.50".into(), 38)));
    }

    #[test]
    fn what_a_contract_is_told_is_json_or_base64_of_it() {
        let execute =
            |msg: Value| json!({"@type": "/cosmwasm.wasm.v1.MsgExecuteContract", "sender": "wasm1a", "contract": "wasm1c", "msg": msg, "funds": []});
        let plain = execute(json!({"release": {"to": "x"}}));
        let packed = pack(&plain, None).unwrap();
        let message = wasm::v1::MsgExecuteContract::decode(packed.value.as_slice()).unwrap();
        assert_eq!(message.msg, br#"{"release":{"to":"x"}}"#);
        assert_eq!(pack(&execute(STANDARD.encode(&message.msg).into()), None).unwrap(), packed);
        assert_eq!(unpack(&packed, None)["msg"], plain["msg"]);
        // Written otherwise than we would: its very bytes are shown.
        let spaced = STANDARD.encode(r#"{ "release": {} }"#);
        assert_eq!(unpack(&pack(&execute(spaced.clone().into()), None).unwrap(), None)["msg"], spaced);
    }

    #[test]
    fn what_was_packed_is_unpacked_and_what_is_not_known_stays_whole() {
        let send = json!({"@type": "/cosmos.bank.v1beta1.MsgSend", "from_address": "wasm1a", "to_address": "wasm1b", "amount": [{"denom": "stake", "amount": "7"}]});
        assert_eq!(unpack(&pack(&send, None).unwrap(), None), send);
        let mint = json!({"@type": "/cosmos.mint.v1beta1.MsgUpdateParams", "authority": "wasm1gov", "params": {"mint_denom": "stake", "inflation_max": "0.200000000000000000"}});
        let packed = pack(&mint, None).unwrap();
        assert_eq!(unpack(&packed, None), mint);
        let message = cosmos_sdk_proto::cosmos::mint::v1beta1::MsgUpdateParams::decode(packed.value.as_slice()).unwrap();
        assert_eq!(message.params.unwrap().inflation_max, "200000000000000000");
        let newer = Any { value: [packed.value.as_slice(), &[0x7a, 1, 7]].concat(), ..packed };
        assert_eq!(unpack(&newer, None)["value"], STANDARD.encode(&newer.value));
        assert_eq!(pack(&unpack(&newer, None), None).unwrap(), newer);
        let foreign = Any { type_url: "/a.b.MsgC".into(), value: vec![1, 2] };
        assert_eq!(unpack(&foreign, None), json!({"@type": "/a.b.MsgC", "value": "AQI="}));
    }

    #[test]
    fn what_the_chain_alone_describes_is_json_too_and_without_its_word_nothing_is_decided() {
        let chain = super::super::described::tests::described();
        let burn = json!({"@type": "/app.burner.v1.MsgBurn", "owner": "wasm1a", "amount": "5"});
        let packed = pack(&burn, Some(&chain)).unwrap();
        assert_eq!((packed.type_url.as_str(), unpack(&packed, Some(&chain))), ("/app.burner.v1.MsgBurn", burn.clone()));
        assert!(unpack(&packed, None)["value"].is_string());
        assert!(matches!(pack(&burn, None), Err(PluginFault::FailedPrecondition(words)) if words.contains("base64 of its protobuf bytes")));
        let wrong = pack(&json!({"@type": "/app.burner.v1.MsgBurn", "ownr": "x"}), Some(&chain)).unwrap_err();
        assert!(matches!(wrong, PluginFault::InvalidArgument(words) if words.contains("/app.burner.v1.MsgBurn: ") && words.contains("ownr")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, why) in [
            (json!({"@type": "/cosmos.bank.v1beta1.MsgSend", "from": "x"}), "from"),
            (json!({"@type": "/a.b.MsgC", "x": 1}), "base64 of its protobuf bytes"),
            (json!({"@type": "/a.b.MsgC", "value": "?"}), "no base64"),
            (json!({"value": ""}), "@type"),
            (json!("x"), "JSON object"),
        ] {
            let error = pack(&message, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
