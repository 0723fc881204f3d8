//! What only a node can tell: accounts, gas, prices; and what it is handed and asked for.

use super::{
    described::{self, Described},
    invalid, messages,
    refusal::{self, Standing},
    sign::{self, Unsigned},
    signers::Signers,
    wire::{Queried, Wire, WireError, number},
};
use crate::{binary::Chain, config, keys::AccountKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use cosmos_sdk_proto::{
    cosmos::{
        auth::v1beta1::{BaseAccount, QueryAccountRequest, QueryAccountResponse},
        bank::v1beta1::{QueryAllBalancesRequest, QueryAllBalancesResponse},
        base::{
            node::v1beta1::{ConfigRequest, ConfigResponse},
            v1beta1::Coin,
        },
    },
    traits::Message,
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    sync::Arc,
};

/// Simulations of one call. Beyond, the most that one of the same type used is taken.
const MAX_SIMULATIONS: usize = 16;
/// Blocks that one call reads.
const MAX_BLOCKS: u64 = 100;
/// No such account.
const NOT_FOUND: i64 = 22;

pub async fn account(request: &pb::GetAccountRequest) -> Result<pb::TxAccount> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized)?;
    let signers = Signers::new(&devnet, &chain);
    signers.key(&request.signer)?;
    let address = signers.address(&request.signer)?;
    let Some(node) = &request.node else { return Ok(pb::TxAccount { address, ..pb::TxAccount::default() }) };
    let mut wire = open(node).await?;
    let query = QueryAccountRequest { address: address.clone() }.encode_to_vec();
    let found = wire.query("/cosmos.auth.v1beta1.Query/Account", &query).await?;
    if found.code == NOT_FOUND {
        let height = committed(&mut wire).await?;
        return Ok(pb::TxAccount { address, height, ..pb::TxAccount::default() });
    }
    let base = base_account(&found)?;
    Ok(pb::TxAccount {
        exists: true,
        sequence: base.sequence,
        height: found.height,
        balance: balance(&mut wire, &address).await?,
        detail: sign::account_detail(base.account_number),
        address,
    })
}

/// What the chain describes of its messages: asked for by the first intent of a call that needs it.
async fn asked_once<'a>(known: &'a mut Option<Option<Arc<Described>>>, binary_sha256: &str, wire: &mut Wire) -> Result<Option<&'a Arc<Described>>> {
    if known.is_none() {
        *known = Some(described::ask(binary_sha256, wire).await?);
    }
    Ok(known.as_ref().and_then(Option::as_ref))
}

pub async fn build(request: &pb::BuildTxRequest) -> Result<pb::BuildTxResponse> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized)?;
    let signers = Signers::new(&devnet, &chain);
    let key = signers.key(&request.signer)?;
    let from = signers.address(&request.signer)?;
    let mut node = match &request.node {
        Some(node) => {
            let mut wire = open(node).await?;
            let price = price(&mut wire).await?;
            Some((wire, price))
        }
        None => None,
    };
    let (mut gas, mut sequence) = (Gas::default(), request.next_sequence);
    let mut outcomes = Vec::with_capacity(request.intents.len());
    let mut described = None; // asked for once, whatever the answer
    for intent in &request.intents {
        let mut said = messages::read(intent, &from, &signers, None);
        if let Err(PluginFault::FailedPrecondition(words)) = said {
            said = match &mut node {
                Some((wire, _)) => match asked_once(&mut described, &devnet.binary_sha256, wire).await? {
                    Some(chain) => messages::read(intent, &from, &signers, Some(chain)),
                    None => Err(invalid(format!("{words}: the chain describes none of its messages"))),
                },
                None => {
                    outcomes.push(pb::BuildOutcome { outcome: Some(pb::build_outcome::Outcome::Built(untold(intent))) });
                    continue;
                }
            };
        }
        let outcome = match said {
            Err(fault) => Err(pb::TxRefusal { class: "invalid".into(), message: fault.to_string(), ..pb::TxRefusal::default() }),
            Ok(said) => {
                let unsigned = Unsigned { messages: said.messages, memo: intent.memo.clone(), ..Unsigned::default() };
                let limit = match (intent.gas_limit, &mut node) {
                    (0, Some((wire, _))) => gas.limit(intent, &unsigned, &key, &mut sequence, request.gas_factor, wire).await?,
                    (0, None) => return Err(invalid("without a node there is no simulation: give a gas limit")),
                    (given, _) => Ok(given),
                };
                limit.map(|limit| finish(unsigned, limit, node.as_ref().and_then(|(_, price)| price.as_ref()), said.meaning))
            }
        };
        outcomes.push(pb::BuildOutcome {
            outcome: Some(match outcome {
                Ok(built) => pb::build_outcome::Outcome::Built(built),
                Err(refused) => pb::build_outcome::Outcome::Refused(refused),
            }),
        });
    }
    Ok(pb::BuildTxResponse { outcomes })
}

/// Nothing can be said against it without a node. What has no body cannot be signed.
fn untold(intent: &pb::TxIntent) -> pb::UnsignedTx {
    pb::UnsignedTx { gas_limit: intent.gas_limit, meaning: format!("{}: known to the chain alone", intent.r#type), ..pb::UnsignedTx::default() }
}

pub async fn broadcast(request: &pb::BroadcastTxRequest) -> Result<pb::BroadcastTxResponse> {
    let mut wire = open(&request.node.clone().unwrap_or_default()).await?;
    let mut outcomes = Vec::with_capacity(request.raw.len());
    for raw in &request.raw {
        let refused = match wire.call("broadcast_tx_sync", json!({"tx": STANDARD.encode(raw)})).await {
            Ok(answer) => match answer["code"].as_i64().unwrap_or_default() {
                0 => None,
                code => refusal::of_code(text(&answer["codespace"]), code, text(&answer["log"])),
            },
            Err(WireError::Rpc { method, message, data }) => match refusal::of_rpc(&data) {
                Some(refused) => refused,
                None => return Err(WireError::Rpc { method, message, data }.into()),
            },
            Err(error) => return Err(error.into()),
        };
        let stop = refused.is_some();
        outcomes.push(pb::BroadcastOutcome { accepted: !stop, refused });
        if stop {
            break;
        }
    }
    Ok(pb::BroadcastTxResponse { outcomes })
}

/// Reads the blocks themselves: the index of transactions is written later than the block, and may be off.
pub async fn find(request: &pb::GetTxRequest) -> Result<pb::GetTxResponse> {
    let mut wire = open(&request.node.clone().unwrap_or_default()).await?;
    let tip = committed(&mut wire).await?;
    let Some((heights, complete)) = range(&request.queries, tip) else {
        return Ok(pb::GetTxResponse { height: tip, ..pb::GetTxResponse::default() });
    };
    let wanted: BTreeSet<&str> = request.queries.iter().map(|query| query.hash.as_str()).collect();
    let (mut included, mut dropped) = (Vec::new(), Vec::new());
    for height in heights {
        let block = wire.call("block", json!({"height": height.to_string()})).await?;
        let hashes: Vec<String> =
            items(&block["block"]["data"]["txs"]).filter_map(|tx| STANDARD.decode(text(tx)).ok()).map(|raw| sign::hash(&raw)).collect();
        if !hashes.iter().any(|hash| wanted.contains(hash.as_str())) {
            continue;
        }
        let results = wire.call("block_results", json!({"height": height.to_string()})).await?;
        let ours = hashes.into_iter().zip(items(&results["txs_results"])).filter(|(hash, _)| wanted.contains(hash.as_str()));
        for (hash, result) in ours {
            match refusal::in_block(text(&result["codespace"]), result["code"].as_i64().unwrap_or_default()) {
                Standing::TooEarly => dropped.push(hash),
                Standing::TooLate => {}
                Standing::Counts => included.push(in_block(hash, height, result)),
            }
        }
    }
    // What a later block of this call carried out was not dropped in the end.
    dropped.retain(|hash| !included.iter().any(|tx| tx.hash == *hash));
    Ok(pb::GetTxResponse { height: complete, included, dropped })
}

/// Which blocks are to be read, and up to which height the answer is then complete. None: nothing new can be there.
fn range(queries: &[pb::TxQuery], tip: u64) -> Option<(RangeInclusive<u64>, u64)> {
    let first = queries.iter().map(|query| query.after_height).min()? + 1;
    // No block beyond the last expiry can hold any of them.
    let end = queries.iter().map(|query| if query.expiry_height == 0 { tip } else { query.expiry_height }).max()?.min(tip);
    if first > end {
        return None;
    }
    let last = end.min(first + MAX_BLOCKS - 1);
    Some((first..=last, if last == end { tip } else { last }))
}

fn in_block(hash: String, height: u64, result: &Value) -> pb::IncludedTx {
    let events = items(&result["events"]).map(|event| pb::TxEvent {
        r#type: text(&event["type"]).into(),
        attributes: items(&event["attributes"]).map(|pair| (text(&pair["key"]).to_owned(), text(&pair["value"]).to_owned())).collect(),
    });
    pb::IncludedTx {
        hash,
        height,
        code: result["code"].as_i64().unwrap_or_default(),
        log: text(&result["log"]).into(),
        gas_used: number(&result["gas_used"]),
        events: events.collect(),
    }
}

/// Gas that simulations of this call found, so that a batch of alike transactions is simulated once.
#[derive(Default)]
struct Gas {
    alike: HashMap<Vec<u8>, u64>,
    most: BTreeMap<String, u64>,
    simulated: usize,
}

impl Gas {
    /// Outer error: the node does not answer. Inner: the chain says no.
    async fn limit(
        &mut self,
        intent: &pb::TxIntent,
        unsigned: &Unsigned,
        key: &AccountKey,
        sequence: &mut u64,
        factor: f64,
        wire: &mut Wire,
    ) -> Result<std::result::Result<u64, pb::TxRefusal>> {
        let likeness = likeness(intent);
        if let Some(limit) = self.alike.get(&likeness) {
            return Ok(Ok(*limit));
        }
        if self.simulated >= MAX_SIMULATIONS
            && let Some(most) = self.most.get(&intent.r#type)
        {
            return Ok(Ok(*most));
        }
        self.simulated += 1;
        let used = match simulate(unsigned, key, sequence, wire).await? {
            Ok(used) => used,
            Err(refused) => return Ok(Err(refused)),
        };
        let limit = (used as f64 * factor.max(1.0)).ceil() as u64;
        self.alike.insert(likeness, limit);
        let most = self.most.entry(intent.r#type.clone()).or_default();
        *most = limit.max(*most);
        Ok(Ok(limit))
    }
}

/// Transfers of any amount to one account need the same gas; of anything else, only the very same.
fn likeness(intent: &pb::TxIntent) -> Vec<u8> {
    let mut payload: Value = serde_json::from_str(&intent.payload).unwrap_or_default();
    if intent.r#type == messages::SEND
        && let Value::Object(fields) = &mut payload
    {
        fields.remove("amount");
    }
    Sha256::digest(format!("{}\n{payload}\n{}", intent.r#type, intent.memo.len())).to_vec()
}

/// The chain's state for simulations holds what waits in the mempool: it tells itself which sequence comes next.
async fn simulate(unsigned: &Unsigned, key: &AccountKey, sequence: &mut u64, wire: &mut Wire) -> Result<std::result::Result<u64, pb::TxRefusal>> {
    let mut refused = None;
    for _ in 0..2 {
        let raw = sign::unsigned(unsigned, key, *sequence);
        let answer = wire.query("/app/simulate", &raw).await?;
        if answer.code == 0 {
            let result: Value = serde_json::from_slice(&answer.value).map_err(|error| PluginFault::Internal(format!("/app/simulate: {error}")))?;
            return Ok(Ok(number(&result["gas_info"]["gas_used"])));
        }
        let refusal = refusal::of_code(&answer.codespace, answer.code, &answer.log).unwrap_or_default();
        let next = refusal.next_sequence;
        refused = Some(refusal);
        match next {
            Some(next) => *sequence = next,
            None => break,
        }
    }
    Ok(Err(refused.unwrap_or_default()))
}

fn finish(mut unsigned: Unsigned, gas_limit: u64, price: Option<&Price>, meaning: String) -> pb::UnsignedTx {
    unsigned.fee.gas_limit = gas_limit;
    unsigned.fee.amount = price.map(|price| price.fee(gas_limit)).into_iter().collect();
    let fee = unsigned.fee.amount.iter().map(|coin| format!("{}{}", coin.amount, coin.denom)).collect();
    pb::UnsignedTx { body: sign::write_body(&unsigned), gas_limit, fee, meaning }
}

/// What a node wants for a unit of gas.
#[derive(Clone, Debug, PartialEq)]
struct Price {
    amount: f64,
    denom: String,
}

impl Price {
    /// The first of `0.025stake,0.1other` that is more than nothing.
    fn parse(text: &str) -> Option<Self> {
        let coin = |coin: &str| {
            let end = coin.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let amount: f64 = coin[..end].parse().ok()?;
            (amount > 0.0).then(|| Self { amount, denom: coin[end..].to_owned() })
        };
        text.split(',').map(str::trim).find_map(coin)
    }
    fn fee(&self, gas: u64) -> Coin {
        Coin { denom: self.denom.clone(), amount: format!("{}", (self.amount * gas as f64).ceil() as u128) }
    }
}

async fn price(wire: &mut Wire) -> Result<Option<Price>> {
    let found = wire.query("/cosmos.base.node.v1beta1.Service/Config", &ConfigRequest {}.encode_to_vec()).await?;
    // A node without this service has no word on prices; then CheckTx tells.
    Ok(ConfigResponse::decode(found.value.as_slice()).ok().and_then(|config| Price::parse(&config.minimum_gas_price)))
}

async fn balance(wire: &mut Wire, address: &str) -> Result<String> {
    let query = QueryAllBalancesRequest { address: address.into(), ..QueryAllBalancesRequest::default() };
    let found = wire.query("/cosmos.bank.v1beta1.Query/AllBalances", &query.encode_to_vec()).await?;
    let balances = QueryAllBalancesResponse::decode(found.value.as_slice()).map_err(|error| unreadable("AllBalances", &error))?.balances;
    Ok(balances.iter().map(|coin| format!("{}{}", coin.amount, coin.denom)).collect::<Vec<_>>().join(","))
}

/// The height up to which blocks are executed and stored.
async fn committed(wire: &mut Wire) -> Result<u64> {
    Ok(number(&wire.call("abci_info", json!({})).await?["response"]["last_block_height"]))
}

fn base_account(found: &Queried) -> Result<BaseAccount> {
    if found.code != 0 {
        return Err(PluginFault::Unavailable(format!("account query: {} (code {})", found.log, found.code)));
    }
    let any = QueryAccountResponse::decode(found.value.as_slice()).map_err(|error| unreadable("Account", &error))?.account.unwrap_or_default();
    if any.type_url != "/cosmos.auth.v1beta1.BaseAccount" {
        return Err(PluginFault::FailedPrecondition(format!("an account of type {} cannot sign here", any.type_url)));
    }
    BaseAccount::decode(any.value.as_slice()).map_err(|error| unreadable("BaseAccount", &error))
}

async fn open(node: &pb::PlacedNode) -> Result<Wire> {
    let address = config::address(node, "rpc").map_err(|error| invalid(error.to_string()))?;
    Ok(Wire::open(&address).await?)
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> PluginFault {
    PluginFault::Internal(format!("{what}: {error}"))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_from_where_the_last_call_ended_and_not_beyond_any_expiry() {
        let query = |after_height, expiry_height| pb::TxQuery { hash: String::new(), after_height, expiry_height };
        let check = |queries: &[pb::TxQuery], tip, expect: Option<(u64, u64, u64)>| {
            assert_eq!(range(queries, tip).map(|(heights, complete)| (*heights.start(), *heights.end(), complete)), expect);
        };
        check(&[query(7, 60), query(9, 70)], 12, Some((8, 12, 12)));
        check(&[query(7, 60)], 500, Some((8, 60, 500)));
        check(&[query(7, 0)], 500, Some((8, 107, 107)));
        check(&[query(12, 60)], 12, None);
        check(&[query(60, 60)], 99, None);
        check(&[], 99, None);
    }

    #[test]
    fn a_fee_is_gas_times_the_first_price_that_is_not_nothing() {
        assert_eq!(Price::parse("0stake"), None);
        assert_eq!(Price::parse(""), None);
        let price = Price::parse("0stake, 0.025ufee").unwrap();
        assert_eq!(price.fee(100_001), Coin { denom: "ufee".into(), amount: "2501".into() });
    }

    #[test]
    fn transfers_are_alike_whatever_their_amount() {
        let intent = |kind: &str, payload: &str| pb::TxIntent { r#type: kind.into(), payload: payload.into(), ..pb::TxIntent::default() };
        let send = |payload| likeness(&intent(messages::SEND, payload));
        assert_eq!(send(r#"{"to":"a","amount":"1x"}"#), send(r#"{"to":"a","amount":"2x"}"#));
        assert_ne!(send(r#"{"to":"a","amount":"1x"}"#), send(r#"{"to":"b","amount":"1x"}"#));
        assert_ne!(likeness(&intent("any", r#"{"amount":1}"#)), likeness(&intent("any", r#"{"amount":2}"#)));
    }
}
