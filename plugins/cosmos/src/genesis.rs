//! The genesis document: the chain's own default, completed with accounts, validators and devnet-friendly parameters.
//!
//! Every module keeps what `init` gave it unless it is named here; keys that a version lacks are passed over.

use num_bigint::BigUint;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Tokens of each account and each validator's operator, in the bond denom.
pub const BALANCE: u64 = 1_000_000_000_000;
/// What each validator stakes of it.
pub const STAKE: u64 = 1_000_000_000;
const COMMISSION: &str = "0.100000000000000000";
/// A proposal is decided while one watches.
const VOTING_PERIOD: &str = "10s";
const EXPEDITED_VOTING_PERIOD: &str = "5s";
const DEPOSIT_PERIOD: &str = "60s";
/// Blocks over which missed signatures count. The default of 100 would jail a node that is down for a minute.
const SIGNED_BLOCKS_WINDOW: u64 = 10_000;
/// The least that the SDK takes for valid.
const JAIL_DURATION: &str = "60s";

#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error("the genesis that `init` wrote has no {0}")]
    Missing(String),
    #[error("the genesis patch sets {0}, which the spec itself says: {1}")]
    Forbidden(String, &'static str),
    #[error(
        "spec.genesis.patch: the supply does not add up: bank.supply says {says}{denom}, the balances are {sum}{denom} together; leave bank.supply \
         out of the patch, and the chain counts them"
    )]
    Supply { denom: String, says: BigUint, sum: BigUint },
}

/// What the spec adds to the chain's default genesis.
pub struct Additions<'a> {
    pub chain_id: &'a str,
    /// RFC 3339.
    pub genesis_time: &'a str,
    pub denom: &'a str,
    /// Bech32 addresses that get [`BALANCE`], in order.
    pub funded: &'a [String],
    pub gentxs: Vec<Value>,
    /// JSON merge patches, applied last and in this order.
    pub patches: &'a [Value],
}

/// The token that validators stake: the last patch's word, else the chain's.
pub fn bond_denom(template: &Value, patches: &[Value]) -> Result<String, GenesisError> {
    const PATH: &str = "/app_state/staking/params/bond_denom";
    let denom = patches.iter().rev().find_map(|p| p.pointer(PATH)).or_else(|| template.pointer(PATH)).and_then(Value::as_str);
    denom.map(str::to_owned).ok_or_else(|| GenesisError::Missing("app_state.staking.params.bond_denom".into()))
}

/// The commission that validators declare: a tenth, or the chain's minimum where that is more.
pub fn commission(staking: &Map<String, Value>) -> String {
    let minimum = staking.get("min_commission_rate").and_then(Value::as_str).unwrap_or(COMMISSION);
    let tenth = 0.1;
    if minimum.parse::<f64>().is_ok_and(|rate| rate > tenth) { minimum.into() } else { COMMISSION.into() }
}

/// Fields that a patch must leave alone, because keys and signatures depend on them; each with the mend.
pub fn check_patch(patch: &Value) -> Result<(), GenesisError> {
    let forbidden = [("/chain_id", "set spec.chainId"), ("/genesis_time", "set spec.genesis.time")];
    match forbidden.iter().find(|(path, _)| patch.pointer(path).is_some()) {
        Some((path, mend)) => Err(GenesisError::Forbidden(path.trim_start_matches('/').replace('/', "."), mend)),
        None => Ok(()),
    }
}

/// Completes `genesis`, the document that `init` wrote.
pub fn complete(mut genesis: Value, additions: Additions<'_>) -> Result<Value, GenesisError> {
    genesis["chain_id"] = json!(additions.chain_id);
    genesis["genesis_time"] = json!(additions.genesis_time);
    let validators = additions.gentxs.len();
    let state = genesis.get_mut("app_state").and_then(Value::as_object_mut).ok_or_else(|| GenesisError::Missing("app_state".into()))?;
    fund(state, additions.funded, additions.denom)?;
    section(state, &["genutil"])?.insert("gen_txs".into(), Value::Array(additions.gentxs));
    set_denom(state, additions.denom)?;
    change_params(state, "gov", quick_governance);
    change_params(state, "slashing", tolerance);
    change_params(state, "staking", |params| room_for(params, validators));
    for patch in additions.patches {
        dvb_plugin_sdk::merge(&mut genesis, patch);
    }
    check_supply(&genesis)?;
    Ok(genesis)
}

/// A supply that a patch names must be that of the balances; none is counted by the chain. Amounts that are none it refuses itself.
fn check_supply(genesis: &Value) -> Result<(), GenesisError> {
    let bank = &genesis["app_state"]["bank"];
    let says = sums(bank["supply"].as_array().into_iter().flatten());
    if says.is_empty() {
        return Ok(());
    }
    let balances = bank["balances"].as_array().into_iter().flatten();
    let sums = sums(balances.filter_map(|balance| balance["coins"].as_array()).flatten());
    let of = |amounts: &BTreeMap<&str, BigUint>, denom: &str| amounts.get(denom).cloned().unwrap_or_default();
    match says.keys().chain(sums.keys()).find(|denom| of(&says, denom) != of(&sums, denom)) {
        Some(denom) => Err(GenesisError::Supply { denom: (*denom).to_owned(), says: of(&says, denom), sum: of(&sums, denom) }),
        None => Ok(()),
    }
}

/// Of coins, by denom.
fn sums<'a>(coins: impl Iterator<Item = &'a Value>) -> BTreeMap<&'a str, BigUint> {
    let mut sums: BTreeMap<&str, BigUint> = BTreeMap::new();
    for coin in coins {
        if let (Some(denom), Some(amount)) = (coin["denom"].as_str(), coin["amount"].as_str().and_then(|amount| amount.parse::<BigUint>().ok())) {
            *sums.entry(denom).or_default() += amount;
        }
    }
    sums
}

fn fund(state: &mut Map<String, Value>, addresses: &[String], denom: &str) -> Result<(), GenesisError> {
    // The chain counts them.
    list(section(state, &["auth"])?, "accounts").extend(addresses.iter().map(|address| account(address, 0)));
    let balances = addresses.iter().map(|address| balance(address, denom));
    let bank = section(state, &["bank"])?;
    list(bank, "balances").extend(balances);
    // Left to the chain, which sums the balances: a patch of the balances then needs no sum of its own.
    bank.insert("supply".into(), json!([]));
    Ok(())
}

/// All places that name the staking token must agree.
fn set_denom(state: &mut Map<String, Value>, denom: &str) -> Result<(), GenesisError> {
    let params = section(state, &["staking", "params"])?;
    let old = params.insert("bond_denom".into(), json!(denom)).unwrap_or_default();
    replace(state, "/mint/params/mint_denom", &old, denom);
    replace(state, "/crisis/constant_fee/denom", &old, denom);
    for deposit in ["/gov/params/min_deposit", "/gov/params/expedited_min_deposit"] {
        for i in 0..items(state, deposit) {
            replace(state, &format!("{deposit}/{i}/denom"), &old, denom);
        }
    }
    let distributed = "/protocolpool/params/enabled_distribution_denoms";
    for i in 0..items(state, distributed) {
        replace(state, &format!("{distributed}/{i}"), &old, denom);
    }
    Ok(())
}

/// Changes what differs in the parameters of a module, if the chain has it.
fn change_params(state: &mut Map<String, Value>, module: &str, changes: impl FnOnce(&Map<String, Value>) -> Map<String, Value>) {
    if let Ok(params) = section(state, &[module, "params"]) {
        let changes = changes(params);
        params.extend(changes);
    }
}

/// The periods of x/gov that are longer than a devnet waits.
pub fn quick_governance(params: &Map<String, Value>) -> Map<String, Value> {
    // An expedited period must stay shorter than the ordinary one; 0.47 has none.
    let wanted = [("voting_period", VOTING_PERIOD), ("max_deposit_period", DEPOSIT_PERIOD), ("expedited_voting_period", EXPEDITED_VOTING_PERIOD)];
    let longer = wanted.into_iter().filter(|(name, value)| params.get(*name).and_then(seconds) > seconds(&json!(value)));
    longer.map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// What x/slashing needs to put up with a node that is down for a while.
pub fn tolerance(params: &Map<String, Value>) -> Map<String, Value> {
    let mut changes = Map::new();
    let window = params.get("signed_blocks_window").and_then(|window| window.as_str()?.parse::<u64>().ok());
    if window.is_none_or(|window| window < SIGNED_BLOCKS_WINDOW) {
        changes.insert("signed_blocks_window".into(), json!(SIGNED_BLOCKS_WINDOW.to_string()));
    }
    if params.get("downtime_jail_duration").and_then(seconds) > seconds(&json!(JAIL_DURATION)) {
        changes.insert("downtime_jail_duration".into(), json!(JAIL_DURATION));
    }
    changes
}

/// Beyond the limit of x/staking the chain would leave the last validators out.
pub fn room_for(params: &Map<String, Value>, validators: usize) -> Map<String, Value> {
    let short = params.get("max_validators").and_then(Value::as_u64).is_some_and(|max| max < validators as u64);
    if short { Map::from_iter([("max_validators".to_owned(), json!(validators))]) } else { Map::new() }
}

/// Of a duration as the SDK writes it, `172800s`.
fn seconds(duration: &Value) -> Option<f64> {
    duration.as_str()?.strip_suffix('s')?.parse().ok()
}

/// An account that has never signed.
pub fn account(address: &str, number: u64) -> Value {
    json!({"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": address, "pub_key": null, "account_number": number.to_string(), "sequence": "0"})
}

/// What it begins with.
pub fn balance(address: &str, denom: &str) -> Value {
    json!({"address": address, "coins": [{"denom": denom, "amount": BALANCE.to_string()}]})
}

fn section<'a>(map: &'a mut Map<String, Value>, path: &[&str]) -> Result<&'a mut Map<String, Value>, GenesisError> {
    path.iter().try_fold(map, |at, key| at.get_mut(*key).and_then(Value::as_object_mut)).ok_or_else(|| GenesisError::Missing(path.join(".")))
}

/// The array under `key`; null and absent count as empty, as they do in Go.
fn list<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = map.entry(key).or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    slot.as_array_mut().expect("made an array above")
}

fn pointer_mut<'a>(state: &'a mut Map<String, Value>, pointer: &str) -> Option<&'a mut Value> {
    let (head, rest) = pointer.trim_start_matches('/').split_once('/')?;
    state.get_mut(head)?.pointer_mut(&format!("/{rest}"))
}

fn items(state: &mut Map<String, Value>, pointer: &str) -> usize {
    pointer_mut(state, pointer).and_then(|v| v.as_array()).map_or(0, Vec::len)
}

fn replace(state: &mut Map<String, Value>, pointer: &str, old: &Value, new: &str) {
    if let Some(slot) = pointer_mut(state, pointer).filter(|slot| **slot == *old) {
        *slot = json!(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of 0.50, cut down to what matters here.
    fn template() -> Value {
        json!({
            "app_name": "<appd>", "genesis_time": "x", "chain_id": "y", "initial_height": 1, "consensus": {"params": {}},
            "app_state": {
                "auth": {"params": {}, "accounts": []},
                "bank": {"balances": [], "supply": [], "denom_metadata": []},
                "crisis": {"constant_fee": {"denom": "stake", "amount": "1000"}},
                "genutil": {"gen_txs": []},
                "gov": {"params": {"min_deposit": [{"denom": "stake", "amount": "10000000"}], "max_deposit_period": "172800s", "voting_period": "172800s",
                    "expedited_voting_period": "86400s", "expedited_min_deposit": [{"denom": "stake", "amount": "50000000"}]}},
                "mint": {"params": {"mint_denom": "stake"}},
                "slashing": {"params": {"signed_blocks_window": "100", "downtime_jail_duration": "600s"}},
                "staking": {"params": {"max_validators": 100, "bond_denom": "stake"}},
                "wasm": {"params": {"untouched": true}},
            }
        })
    }

    fn additions<'a>(denom: &'a str, funded: &'a [String], patches: &'a [Value]) -> Additions<'a> {
        let genesis_time = "2026-01-01T00:00:00Z";
        Additions { chain_id: "mynet-1", genesis_time, denom, funded, gentxs: vec![json!({"gentx": 0})], patches }
    }

    #[test]
    fn the_document_of_init_is_completed_and_the_rest_left_alone() {
        let funded = ["wasm1a".to_owned()];
        insta::assert_json_snapshot!(complete(template(), additions("stake", &funded, &[])).unwrap());
    }

    #[test]
    fn another_bond_denom_reaches_every_module_that_names_it() {
        let patches = [json!({"app_state": {"staking": {"params": {"bond_denom": "uatom"}}}})];
        let denom = bond_denom(&template(), &patches).unwrap();
        let made = complete(template(), additions(&denom, &["wasm1a".to_owned()], &patches)).unwrap();
        assert_eq!(denom, "uatom");
        assert!(!made.to_string().contains("\"stake\""), "{made}");
    }

    #[test]
    fn the_last_patch_has_the_last_word() {
        let profile = json!({"app_state": {"gov": {"params": {"voting_period": "9s"}}, "extra": {}}});
        let patches = [profile, json!({"app_state": {"gov": {"params": {"voting_period": "3s"}}, "wasm": null}})];
        let made = complete(template(), additions("stake", &[], &patches)).unwrap();
        assert!(made["app_state"]["extra"].is_object());
        assert_eq!(made["app_state"]["gov"]["params"]["voting_period"], "3s");
        assert!(made["app_state"].get("wasm").is_none());
    }

    #[test]
    fn a_supply_that_is_not_that_of_the_balances_is_refused_with_both_numbers() {
        let funded = ["wasm1a".to_owned(), "wasm1b".to_owned()];
        let made = |supply: Value| {
            let patches = [json!({"app_state": {"bank": {"supply": supply}}})];
            complete(template(), additions("stake", &funded, &patches)).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(made(json!([{"denom": "stake", "amount": "2000000000000"}])), Ok(()));
        let refused = made(json!([{"denom": "stake", "amount": "5"}])).unwrap_err();
        assert!(refused.contains("bank.supply says 5stake, the balances are 2000000000000stake together"), "{refused}");
        let other = made(json!([{"denom": "stake", "amount": "2000000000000"}, {"denom": "uatom", "amount": "7"}])).unwrap_err();
        assert!(other.contains("says 7uatom, the balances are 0uatom"), "{other}");
    }

    #[test]
    fn a_patch_may_not_move_what_signatures_depend_on() {
        let check = |patch, refused: bool| assert_eq!(check_patch(&patch).is_err(), refused, "{patch}");
        check(json!({"chain_id": "other"}), true);
        check(json!({"genesis_time": "2020-01-01T00:00:00Z"}), true);
        check(json!({"app_state": {"chain_id": 1}}), false);
    }

    #[test]
    fn a_version_that_lacks_modules_is_completed_all_the_same() {
        let mut old = template();
        for module in ["crisis", "mint", "gov", "slashing"] {
            old["app_state"].as_object_mut().unwrap().remove(module);
        }
        assert!(complete(old, additions("stake", &[], &[])).is_ok());
    }

    #[test]
    fn a_genesis_without_staking_is_refused_by_name() {
        let mut odd = template();
        odd["app_state"].as_object_mut().unwrap().remove("staking");
        assert!(bond_denom(&odd, &[]).unwrap_err().to_string().contains("staking.params.bond_denom"));
    }

    #[test]
    fn more_validators_than_the_chain_allows_raise_its_limit() {
        let mut more = additions("stake", &[], &[]);
        more.gentxs = vec![json!({}); 101];
        assert_eq!(complete(template(), more).unwrap()["app_state"]["staking"]["params"]["max_validators"], 101);
    }

    #[test]
    fn only_periods_that_are_too_long_and_windows_that_are_too_short_are_changed() {
        let changes = |of: fn(&Map<String, Value>) -> Map<String, Value>, params: Value| Value::Object(of(params.as_object().unwrap()));
        let long = json!({"voting_period": "172800s", "max_deposit_period": "60s", "expedited_voting_period": "86400s", "quorum": "0.3"});
        assert_eq!(changes(quick_governance, long), json!({"voting_period": "10s", "expedited_voting_period": "5s"}));
        assert_eq!(changes(quick_governance, json!({"voting_period": "3s"})), json!({}));
        let short = json!({"signed_blocks_window": "100", "downtime_jail_duration": "600s"});
        assert_eq!(changes(tolerance, short), json!({"signed_blocks_window": "10000", "downtime_jail_duration": "60s"}));
        assert_eq!(changes(tolerance, json!({"signed_blocks_window": "30000", "downtime_jail_duration": "5s"})), json!({}));
    }

    #[test]
    fn a_chains_minimum_commission_is_kept() {
        let mut high = template();
        let params = high["app_state"]["staking"]["params"].as_object_mut().unwrap();
        assert_eq!(commission(params), COMMISSION);
        params.insert("min_commission_rate".into(), json!("0.200000000000000000"));
        assert_eq!(commission(params), "0.200000000000000000");
    }
}
