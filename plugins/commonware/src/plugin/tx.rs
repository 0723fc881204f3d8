//! Transfers: the only transaction of the devchain.
//!
//! The payload is `{"to": "account:1", "amount": 7}`; `to` may be an address. There is no gas and no fee.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use dvb_plugin_sdk::{PluginFault, Result, pb, plain};
use serde::Deserialize;
use serde_json::{Value, json};

use super::health::{client, fault};
use crate::chain::Hash;
use crate::chain::client::{AccountView, ClientError, Connection, Status};
use crate::chain::mempool::MAX_PER_ACCOUNT;
use crate::chain::rpc::NOT_FOUND;
use crate::chain::tx::{Address, Transfer, namespace};
use crate::keys;

const TYPE: &str = "transfer";
/// Blocks that a signed transfer lives.
const LIFE: u32 = 60;
/// Calls of one exchange; the first asks for the height.
const QUERIES: usize = 63;
/// Keys of this many accounts stay in memory: to derive one costs thousands of hashes.
const KEYS_KEPT: usize = 20_000;

pub(super) fn supported() -> pb::SupportedTxTypes {
    let template = json!({"to": "account:1", "amount": 7});
    let transfer =
        pb::TxType { name: TYPE.into(), description: "moves units from the signer to another account".into(), template: template.to_string() };
    pb::SupportedTxTypes { types: vec![transfer], max_in_flight: u32::try_from(MAX_PER_ACCOUNT).unwrap_or(u32::MAX), expiry_blocks: LIFE }
}

pub(super) async fn account(request: &pb::GetAccountRequest) -> Result<pb::TxAccount> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let address = Address::of(&signer(&devnet, &request.signer)?).to_string();
    let Some(node) = &request.node else { return Ok(pb::TxAccount { address, ..pb::TxAccount::default() }) };
    // The account first: the height that is told is then at least the one at which it is so.
    let calls = [("account", json!([address])), ("status", json!([]))];
    let mut answers = client(node)?.connect().await.map_err(fault)?.batch(&calls).await.map_err(fault)?.into_iter();
    let view: AccountView = read(answers.next())?;
    let status: Status = read(answers.next())?;
    Ok(pb::TxAccount {
        address,
        exists: true, // every key has an account, if only an empty one
        sequence: view.nonce,
        height: status.height,
        balance: view.balance.to_string(),
        detail: hex::decode(&status.genesis_hash).map_err(|error| PluginFault::Internal(format!("genesis hash: {error}")))?,
    })
}

pub(super) fn build(request: &pb::BuildTxRequest) -> pb::BuildTxResponse {
    let devnet = request.devnet.clone().unwrap_or_default();
    let outcome = |intent: &pb::TxIntent| {
        let outcome = match unsigned(&devnet, &request.signer, intent) {
            Ok(built) => pb::build_outcome::Outcome::Built(built),
            Err(message) => pb::build_outcome::Outcome::Refused(pb::TxRefusal { class: "invalid".into(), message, ..pb::TxRefusal::default() }),
        };
        pb::BuildOutcome { outcome: Some(outcome) }
    };
    pb::BuildTxResponse { outcomes: request.intents.iter().map(outcome).collect() }
}

pub(super) fn sign(request: &pb::SignTxRequest) -> Result<pb::SignTxResponse> {
    let key = signer(&request.devnet.clone().unwrap_or_default(), &request.signer)?;
    let account = request.account.clone().unwrap_or_default();
    let genesis =
        crate::chain::decode::<Hash>(&account.detail).map_err(|_| PluginFault::InvalidArgument("account.detail is no genesis hash".into()))?;
    let namespace = namespace(&genesis);
    let sign = |item: &pb::SignItem| {
        let (to, amount) = read_body(&item.body)?;
        let tx = Transfer::sign_until(&key, to, amount, item.sequence, item.expiry_height, &namespace);
        Ok(pb::SignedTx { raw: tx.encode().to_vec(), hash: tx.hash().to_string() })
    };
    Ok(pb::SignTxResponse { signed: request.items.iter().map(sign).collect::<Result<_>>()? })
}

pub(super) async fn broadcast(request: &pb::BroadcastTxRequest) -> Result<pb::BroadcastTxResponse> {
    let mut node = client(&request.node.clone().unwrap_or_default())?.connect().await.map_err(fault)?;
    let mut outcomes = Vec::with_capacity(request.raw.len());
    for raw in &request.raw {
        let refused = match node.call("submit", json!([hex::encode(raw)])).await {
            Ok(_) => None,
            Err(ClientError::Rpc { code: PENDING_ALREADY, .. }) => None,
            Err(ClientError::Rpc { code, message }) => Some(refusal(&mut node, raw, code, message).await?),
            Err(error) => return Err(fault(error)),
        };
        let stop = refused.is_some();
        outcomes.push(pb::BroadcastOutcome { accepted: !stop, refused });
        if stop {
            break;
        }
    }
    Ok(pb::BroadcastTxResponse { outcomes })
}

pub(super) async fn find(request: &pb::GetTxRequest) -> Result<pb::GetTxResponse> {
    let mut node = client(&request.node.clone().unwrap_or_default())?.connect().await.map_err(fault)?;
    let (mut complete, mut included) = (u64::MAX, Vec::new());
    for queries in request.queries.chunks(QUERIES) {
        // The height first: what is final up to it is found by the calls that follow.
        let calls: Vec<(&str, Value)> =
            std::iter::once(("status", json!([]))).chain(queries.iter().map(|query| ("tx", json!([query.hash])))).collect();
        let mut answers = node.batch(&calls).await.map_err(fault)?.into_iter();
        let status: Status = read(answers.next())?;
        complete = complete.min(status.height);
        for answer in answers {
            match answer {
                Ok(tx) if tx["status"] == "finalized" => included.push(in_block(&tx)),
                Ok(_) | Err(ClientError::Rpc { code: NOT_FOUND, .. }) => {}
                Err(error) => return Err(fault(error)),
            }
        }
    }
    Ok(pb::GetTxResponse { height: if complete == u64::MAX { 0 } else { complete }, included, dropped: Vec::new() })
}

fn in_block(tx: &Value) -> pb::IncludedTx {
    let text = |field: &str| tx[field].as_str().map_or_else(|| tx[field].to_string(), str::to_owned);
    let attributes = ["from", "to", "amount", "nonce"].into_iter().map(|field| (field.to_owned(), text(field)));
    pb::IncludedTx {
        hash: text("hash"),
        height: tx["height"].as_u64().unwrap_or_default(),
        events: vec![pb::TxEvent { r#type: TYPE.into(), attributes: attributes.collect() }],
        ..pb::IncludedTx::default()
    }
}

const PENDING_ALREADY: i64 = -32015;

/// What the node's no means; a wrong nonce comes with the right one.
async fn refusal(node: &mut Connection, raw: &[u8], code: i64, message: String) -> Result<pb::TxRefusal> {
    let class = match code {
        -32011 | -32012 => "sequence",
        -32013 => "funds",
        -32016 => "full",
        -32017 => "expired",
        _ => "invalid",
    };
    let mut next_sequence = None;
    if class == "sequence" {
        let from = raw.get(..32).map(hex::encode).unwrap_or_default();
        let view: AccountView = read(Some(node.call("account", json!([from])).await))?;
        next_sequence = Some(view.next_nonce);
    }
    Ok(pb::TxRefusal { class: class.into(), message, code, next_sequence })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    to: String,
    amount: Value,
}

fn unsigned(devnet: &pb::DevnetContext, from: &str, intent: &pb::TxIntent) -> std::result::Result<pb::UnsignedTx, String> {
    if intent.r#type != TYPE {
        return Err(format!("there is no transaction type {:?} on the devchain; there is {TYPE}", intent.r#type));
    }
    if !intent.memo.is_empty() {
        return Err("a transfer of the devchain has no memo".into());
    }
    let payload: Payload = serde_json::from_str(&intent.payload).map_err(|error| format!("payload: {}", plain(&error.to_string())))?;
    let to = address(devnet, &payload.to)?;
    let amount = payload.amount.as_u64().or_else(|| payload.amount.as_str()?.parse().ok());
    let amount = amount.ok_or_else(|| format!("payload.amount: {} is no whole number of units", payload.amount))?;
    let body = [to.0.as_slice(), &amount.to_be_bytes()].concat();
    Ok(pb::UnsignedTx { body, meaning: format!("{amount} from {from} to {}", payload.to), ..pb::UnsignedTx::default() })
}

fn read_body(body: &[u8]) -> Result<(Address, u64)> {
    let bad = || PluginFault::InvalidArgument("a body that BuildTx did not make".into());
    let (to, amount) = body.split_at_checked(32).ok_or_else(bad)?;
    Ok((Address(to.try_into().map_err(|_| bad())?), u64::from_be_bytes(amount.try_into().map_err(|_| bad())?)))
}

/// Whose address `text` is: `account:N` of this devnet, or any.
fn address(devnet: &pb::DevnetContext, text: &str) -> std::result::Result<Address, String> {
    match text.strip_prefix("account:") {
        Some(_) => signer(devnet, text).map(|key| Address::of(&key)).map_err(|fault| fault.to_string()),
        None => text.parse::<Address>().map_err(|error| format!("payload.to: {error}")),
    }
}

/// The key of `account:N`, or of the account with this address.
fn signer(devnet: &pb::DevnetContext, name: &str) -> Result<PrivateKey> {
    let unknown = |why: &str| PluginFault::InvalidArgument(format!("`{name}` is no signer of this devnet: {why}"));
    if let Some(index) = name.strip_prefix("account:") {
        let index: u32 = index.parse().map_err(|_| unknown("account: takes a number"))?;
        if index >= devnet.accounts {
            return Err(unknown(&format!("it has {} accounts, counted from 0", devnet.accounts)));
        }
        return account_key(devnet, index);
    }
    if name.starts_with("validator:") {
        return Err(unknown("a validator of the devchain has no account; sign with account:0"));
    }
    let wanted: Address = name.parse().map_err(|_| unknown("write account:0 or the address of an account"))?;
    for index in 0..devnet.accounts {
        let key = account_key(devnet, index)?;
        if Address::of(&key) == wanted {
            return Ok(key);
        }
    }
    Err(unknown("none of its accounts has this address"))
}

fn account_key(devnet: &pb::DevnetContext, index: u32) -> Result<PrivateKey> {
    /// By seed, chain id and index.
    type Keys = HashMap<(String, String, u32), PrivateKey>;
    static KEYS: OnceLock<Mutex<Keys>> = OnceLock::new();
    let keys = KEYS.get_or_init(Mutex::default);
    let name = (devnet.seed.clone(), devnet.chain_id.clone(), index);
    if let Some(key) = keys.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
        return Ok(key.clone());
    }
    let mnemonic = keys::mnemonic(&devnet.seed, &devnet.chain_id);
    let key = keys::account_key(&mnemonic, index).map_err(|error| PluginFault::Internal(error.to_string()))?;
    let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
    if keys.len() >= KEYS_KEPT {
        keys.clear();
    }
    keys.insert(name, key.clone());
    Ok(key)
}

fn read<T: serde::de::DeserializeOwned>(answer: Option<std::result::Result<Value, ClientError>>) -> Result<T> {
    let value = answer.ok_or_else(|| PluginFault::Internal("an answer is missing".into()))?.map_err(fault)?;
    serde_json::from_value(value).map_err(|error| PluginFault::Internal(format!("an answer that cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devnet() -> pb::DevnetContext {
        pb::DevnetContext { seed: "s".into(), chain_id: "net-1".into(), accounts: 2, ..pb::DevnetContext::default() }
    }

    fn built(payload: &str) -> std::result::Result<pb::UnsignedTx, String> {
        unsigned(&devnet(), "account:0", &pb::TxIntent { r#type: TYPE.into(), payload: payload.into(), ..pb::TxIntent::default() })
    }

    #[test]
    fn signers_are_accounts_by_number_or_address() {
        let first = Address::of(&signer(&devnet(), "account:0").unwrap());
        assert_eq!(Address::of(&signer(&devnet(), &first.to_string()).unwrap()), first);
        for (name, why) in [("account:2", "2 accounts"), ("account:x", "a number"), ("validator:0", "no account"), ("bob", "write account:0")] {
            let message = signer(&devnet(), name).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn the_same_request_gives_the_same_bytes_and_each_part_of_it_counts() {
        let body = built(r#"{"to":"account:1","amount":7}"#).unwrap().body;
        let sign_with = |sequence, expiry_height, genesis: u8| {
            let item = pb::SignItem { body: body.clone(), sequence, expiry_height };
            let account = pb::TxAccount { detail: vec![genesis; 32], ..pb::TxAccount::default() };
            let request = pb::SignTxRequest { devnet: Some(devnet()), signer: "account:0".into(), account: Some(account), items: vec![item] };
            sign(&request).unwrap().signed.remove(0)
        };
        let signed = sign_with(3, 60, 1);
        assert_eq!(signed, sign_with(3, 60, 1));
        let tx: Transfer = crate::chain::decode(&signed.raw).unwrap();
        assert!((tx.amount, tx.nonce, tx.expiry) == (7, 3, 60) && tx.verify(&namespace(&Hash::from([1; 32]))));
        for other in [sign_with(4, 60, 1), sign_with(3, 61, 1), sign_with(3, 60, 2)] {
            assert_ne!(signed.hash, other.hash);
        }
    }

    #[test]
    fn payloads_are_read_and_wrong_ones_are_explained() {
        assert_eq!(built(r#"{"to":"account:1","amount":"7"}"#).unwrap().meaning, "7 from account:0 to account:1");
        for (payload, why) in [
            (r#"{"to":"account:9","amount":7}"#, "2 accounts"),
            (r#"{"to":"account:1","amount":-7}"#, "whole number"),
            (r#"{"to":"account:1","amount":"7stake"}"#, "whole number"),
            (r#"{"to":"account:1"}"#, "amount"),
            (r#"{"to":"account:1","amount":7,"x":1}"#, "x"),
            (r#"{"to":"zz","amount":7}"#, "64 hexadecimal digits"),
        ] {
            let message = built(payload).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
    }
}
