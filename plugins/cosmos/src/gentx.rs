//! Signed genesis transactions: a validator's `MsgCreateValidator`, which the chain runs at InitChain.
//!
//! The chain decides everything else (powers, delegations, hooks), so this form does not depend on the SDK's version.

use crate::keys::{AccountKey, KeyError, bech32_address};
use base64::{Engine, engine::general_purpose::STANDARD};
use cosmos_sdk_proto::cosmos::{
    base::v1beta1::Coin,
    crypto::{ed25519, secp256k1},
    staking::v1beta1::{CommissionRates, Description, MsgCreateValidator},
    tx::{
        signing::v1beta1::SignMode,
        v1beta1::{AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, mode_info},
    },
};
use cosmos_sdk_proto::{Any, traits::Message};
use serde_json::{Value, json};

const CREATE_VALIDATOR: &str = "/cosmos.staking.v1beta1.MsgCreateValidator";
const ED25519_KEY: &str = "/cosmos.crypto.ed25519.PubKey";
const SECP256K1_KEY: &str = "/cosmos.crypto.secp256k1.PubKey";
/// Enough at the first height, where the chain does not count it.
pub const GAS: u64 = 200_000;

/// What a genesis transaction declares.
pub struct Declaration<'a> {
    pub chain_id: &'a str,
    pub moniker: &'a str,
    /// The node's id, without an address: the same seed gives the same genesis wherever its nodes live, so that the key lease sees it.
    pub memo: &'a str,
    pub denom: &'a str,
    pub stake: u64,
    pub consensus_key: [u8; 32],
    /// Decimal fraction, as the genesis writes it.
    pub commission: &'a str,
    pub account_prefix: &'a str,
    pub validator_prefix: &'a str,
    /// Of the operator; 0 at the first height.
    pub account_number: u64,
    pub gas: u64,
}

/// The JSON form that `genutil.gen_txs` holds. The sequence is 0 at genesis.
pub fn signed(declaration: &Declaration<'_>, operator: &AccountKey) -> Result<Value, KeyError> {
    let message = create_validator(declaration, operator)?;
    let document = sign_doc(declaration, &message, operator);
    let signature = operator.sign(&document.encode_to_vec());
    Ok(as_json(declaration, &message, operator, &signature))
}

/// The bytes that are signed (SIGN_MODE_DIRECT).
fn sign_doc(declaration: &Declaration<'_>, message: &MsgCreateValidator, operator: &AccountKey) -> SignDoc {
    let body = TxBody { messages: vec![any(CREATE_VALIDATOR, message)], memo: declaration.memo.into(), ..TxBody::default() };
    let single = mode_info::Single { mode: SignMode::Direct as i32 };
    let signer = SignerInfo {
        public_key: Some(any(SECP256K1_KEY, &secp256k1::PubKey { key: operator.public() })),
        mode_info: Some(ModeInfo { sum: Some(mode_info::Sum::Single(single)) }),
        sequence: 0,
    };
    let auth = AuthInfo { signer_infos: vec![signer], fee: Some(Fee { gas_limit: declaration.gas, ..Fee::default() }), ..AuthInfo::default() };
    SignDoc {
        body_bytes: body.encode_to_vec(),
        auth_info_bytes: auth.encode_to_vec(),
        chain_id: declaration.chain_id.into(),
        account_number: declaration.account_number,
    }
}

// The SDK marks the delegator's address as deprecated, but 0.47 needs it and later versions accept it.
#[allow(deprecated)]
fn create_validator(d: &Declaration<'_>, operator: &AccountKey) -> Result<MsgCreateValidator, KeyError> {
    let wire = |decimal: &str| decimal_to_wire(decimal);
    Ok(MsgCreateValidator {
        description: Some(Description { moniker: d.moniker.into(), ..Description::default() }),
        commission: Some(CommissionRates { rate: wire(d.commission), max_rate: wire(MAX_RATE), max_change_rate: wire(MAX_CHANGE) }),
        min_self_delegation: "1".into(),
        delegator_address: bech32_address(d.account_prefix, &operator.address())?,
        validator_address: bech32_address(d.validator_prefix, &operator.address())?,
        pubkey: Some(any(ED25519_KEY, &ed25519::PubKey { key: d.consensus_key.to_vec() })),
        value: Some(Coin { denom: d.denom.into(), amount: d.stake.to_string() }),
    })
}

/// A commission may rise to all of it: whatever minimum a chain sets lies below.
const MAX_RATE: &str = "1.000000000000000000";
const MAX_CHANGE: &str = "0.010000000000000000";

#[allow(deprecated)]
fn as_json(d: &Declaration<'_>, message: &MsgCreateValidator, operator: &AccountKey, signature: &[u8]) -> Value {
    json!({
        "body": {
            "messages": [{
                "@type": CREATE_VALIDATOR,
                "description": {"moniker": d.moniker, "identity": "", "website": "", "security_contact": "", "details": ""},
                "commission": {"rate": d.commission, "max_rate": MAX_RATE, "max_change_rate": MAX_CHANGE},
                "min_self_delegation": message.min_self_delegation,
                "delegator_address": message.delegator_address,
                "validator_address": message.validator_address,
                "pubkey": {"@type": ED25519_KEY, "key": STANDARD.encode(d.consensus_key)},
                "value": {"denom": d.denom, "amount": d.stake.to_string()},
            }],
            "memo": d.memo,
            "timeout_height": "0",
            "extension_options": [],
            "non_critical_extension_options": [],
        },
        "auth_info": {
            "signer_infos": [{
                "public_key": {"@type": SECP256K1_KEY, "key": STANDARD.encode(operator.public())},
                "mode_info": {"single": {"mode": "SIGN_MODE_DIRECT"}},
                "sequence": "0",
            }],
            "fee": {"amount": [], "gas_limit": d.gas.to_string(), "payer": "", "granter": ""},
            "tip": null,
        },
        "signatures": [STANDARD.encode(signature)],
    })
}

/// A decimal fraction as the wire carries it: a whole number of 10^-18.
fn decimal_to_wire(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = format!("{whole}{fraction:0<18.18}");
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        digits => digits.into(),
    }
}

fn any<M: Message>(url: &str, message: &M) -> Any {
    Any { type_url: url.into(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Wallet;
    use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

    fn declaration() -> Declaration<'static> {
        Declaration {
            chain_id: "mynet-1",
            moniker: "validator-0",
            memo: "abc@127.0.0.1:26656",
            denom: "stake",
            stake: 1_000_000_000,
            consensus_key: [7; 32],
            commission: "0.100000000000000000",
            account_prefix: "wasm",
            validator_prefix: "wasmvaloper",
            account_number: 0,
            gas: GAS,
        }
    }

    #[test]
    fn decimals_become_whole_numbers_of_ten_to_the_minus_eighteen() {
        let check = |decimal, expect| assert_eq!(decimal_to_wire(decimal), expect, "{decimal}");
        check("0.100000000000000000", "100000000000000000");
        check("1", "1000000000000000000");
        check("0.01", "10000000000000000");
        check("0.000000000000000000", "0");
    }

    #[test]
    fn the_signature_is_the_operators_and_its_s_is_low() {
        let operator = Wallet::from_seed("s", "mynet-1").unwrap().operator(0).unwrap();
        let message = create_validator(&declaration(), &operator).unwrap();
        let document = sign_doc(&declaration(), &message, &operator).encode_to_vec();
        let json = signed(&declaration(), &operator).unwrap();
        let bytes = STANDARD.decode(json["signatures"][0].as_str().unwrap()).unwrap();
        let signature = Signature::from_slice(&bytes).unwrap();
        VerifyingKey::from_sec1_bytes(&operator.public()).unwrap().verify(&document, &signature).unwrap();
        assert_eq!(signature, signature.normalize_s());
    }

    #[test]
    fn a_genesis_transaction_keeps_its_bytes() {
        let operator = Wallet::from_seed("s", "mynet-1").unwrap().operator(0).unwrap();
        insta::assert_json_snapshot!(signed(&declaration(), &operator).unwrap());
    }
}
