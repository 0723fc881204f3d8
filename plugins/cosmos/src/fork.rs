//! A genesis from an exported state: all that was stays, the validators become those of this devnet.
//!
//! ```text
//! read    sums, numbers, old validators ──► gentxs ──► write   the same document with ours in it ──► patch
//! ```
//! The old validators stay with all that was delegated to them, jailed and out of the set: their bonded tokens move to the pool of
//! those that are not bonded. Ours come as genesis transactions, as in any other genesis, so that every module hears of them by its
//! own hooks. Nothing that is large is held: balances and accounts flow by, three times at most.

use crate::{
    export,
    genesis::{self, BALANCE},
    keys::{KeyError, module_address},
    stream::{self, Edit, StreamError},
};
use num_bigint::BigUint;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

const BONDED: &str = "BOND_STATUS_BONDED";
const UNBONDED: &str = "BOND_STATUS_UNBONDED";
/// What a genesis transaction may use after the first height, where the chain counts it: before that it does not.
const MOST_GAS: u64 = 10_000_000;
const BUFFER: usize = 1 << 18;

#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("spec.genesis: the state to begin with cannot be used: {0}")]
    Stream(#[from] StreamError),
    #[error("spec.genesis: the state to begin with has no {0}: is it an export of a Cosmos SDK chain?")]
    Missing(&'static str),
    #[error(
        "spec.genesis: the state to begin with is of another chain: it has the address {found}, and addresses of this binary begin with {wanted}1"
    )]
    OtherChain { found: String, wanted: String },
    #[error(
        "spec.genesis: the supply of the state to begin with does not add up: bank.supply says {says}{denom}, the balances are {sum}{denom} together"
    )]
    Supply { denom: String, says: BigUint, sum: BigUint },
    #[error(
        "spec.genesis: the state to begin with does not add up: its bonded validators have {tokens}{denom}, the pool of bonded tokens has {pool}{denom}"
    )]
    Pool { denom: String, tokens: BigUint, pool: BigUint },
    #[error("spec.genesis: the state to begin with has an account of number {0}, which leaves no numbers for those who join")]
    AccountNumber(u64),
    #[error("spec.genesis: the keys of {0} are in the state to begin with already: choose another spec.seed or spec.chainId")]
    SameKeys(String),
    #[error("spec.genesis.patch sets the bond denom {patched}, and the state to begin with is staked in {denom}: leave it out of the patch")]
    Denom { patched: String, denom: String },
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// What has to be known of a state before a chain can begin with it.
pub struct Base {
    path: PathBuf,
    initial_height: u64,
    most_gas: Option<u64>,
    /// 0.50 and later; 0.47 keeps its validators elsewhere.
    has_consensus: bool,
    next_account_number: u64,
    /// Of those addresses that were asked about: the coins that they have.
    known: BTreeMap<String, Purse>,
    validators: Vec<Map<String, Value>>,
    staking: Map<String, Value>,
    gov: Option<Map<String, Value>>,
    slashing: Option<Map<String, Value>>,
    pools: [String; 2],
}

/// Amounts by denom.
type Purse = BTreeMap<String, BigUint>;

#[derive(Clone, Debug, Deserialize)]
struct Coin {
    denom: String,
    amount: String,
}

/// Only what matters, whatever else an item has.
#[derive(Deserialize)]
struct Balance<'a> {
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(default)]
    coins: Vec<Coin>,
}

/// Who joins the old accounts.
pub struct Joining<'a> {
    pub chain_id: &'a str,
    /// RFC 3339.
    pub genesis_time: &'a str,
    /// Bech32 addresses that get [`BALANCE`], in order; one that is there already stays as it is.
    pub funded: &'a [String],
    pub gentxs: Vec<Value>,
}

impl Base {
    /// Reads the state once. `ours`: addresses to look for. Refuses what no chain could begin with.
    pub fn read(path: &Path, prefix: &str, ours: &BTreeSet<String>) -> Result<Self, ForkError> {
        let pools = [module_address("bonded_tokens_pool", prefix)?, module_address("not_bonded_tokens_pool", prefix)?];
        let mut seen = Seen::default();
        let (mut balances, mut accounts) = (Balances::default(), Accounts::default());
        let mut edits = Edit::members([
            ("initial_height", see(&mut seen.initial_height)),
            ("consensus_params", see(&mut seen.consensus_params)),
            ("consensus", see(&mut seen.consensus)),
            (
                "app_state",
                Edit::members([
                    ("auth", Edit::members([("accounts", Edit::Each(Box::new(|text| accounts.see(text, ours)), Vec::new()))])),
                    (
                        "bank",
                        Edit::members([
                            ("balances", Edit::Each(Box::new(|text| balances.see(text, prefix, ours, &pools)), Vec::new())),
                            ("supply", Edit::Each(Box::new(|text| total(text, &mut seen.supply)), Vec::new())),
                        ]),
                    ),
                    (
                        "staking",
                        Edit::members([
                            ("params", see(&mut seen.staking)),
                            ("validators", Edit::Each(Box::new(|text| collect(text, &mut seen.validators)), Vec::new())),
                        ]),
                    ),
                    ("gov", Edit::members([("params", see(&mut seen.gov))])),
                    ("slashing", Edit::members([("params", see(&mut seen.slashing))])),
                ]),
            ),
        ]);
        stream::edit(open(path)?, io::sink(), &mut edits)?;
        drop(edits);
        if let Some(found) = balances.stranger {
            return Err(ForkError::OtherChain { found, wanted: prefix.to_owned() });
        }
        check_supply(&seen.supply, &balances.sums)?;
        let mut known = balances.known;
        for address in accounts.known {
            known.entry(address).or_default();
        }
        let consensus_params = seen.consensus.as_ref().and_then(|consensus| consensus.get("params").cloned()).or(seen.consensus_params);
        let most_gas = consensus_params.as_ref().and_then(|params| export::number(params.pointer("/block/max_gas")?));
        Ok(Self {
            path: path.to_owned(),
            initial_height: seen.initial_height.as_ref().and_then(export::number).unwrap_or(0),
            most_gas: most_gas.filter(|gas| *gas > 0),
            has_consensus: seen.consensus.is_some(),
            next_account_number: number_after(accounts.highest)?,
            known,
            validators: seen.validators,
            staking: seen.staking.ok_or(ForkError::Missing("app_state.staking.params"))?,
            gov: seen.gov,
            slashing: seen.slashing,
            pools,
        })
    }

    /// The token that is staked; a patch cannot change it any more.
    pub fn bond_denom(&self, patches: &[Value]) -> Result<String, ForkError> {
        let denom = self.staking.get("bond_denom").and_then(Value::as_str).ok_or(ForkError::Missing("app_state.staking.params.bond_denom"))?;
        let patched = patches.iter().filter_map(|patch| patch.pointer("/app_state/staking/params/bond_denom")?.as_str());
        match patched.into_iter().find(|patched| *patched != denom) {
            Some(patched) => Err(ForkError::Denom { patched: patched.to_owned(), denom: denom.to_owned() }),
            None => Ok(denom.to_owned()),
        }
    }

    pub fn commission(&self) -> String {
        genesis::commission(&self.staking)
    }

    /// With which number a chain that begins with this state checks the signature of the `index`th account that joins. At the first
    /// height there are no numbers yet.
    pub fn account_number(&self, index: u64) -> u64 {
        if self.initial_height > 1 { self.next_account_number + index } else { 0 }
    }

    pub fn gas(&self) -> u64 {
        self.most_gas.unwrap_or(MOST_GAS).min(MOST_GAS)
    }

    /// Nobody else can have these accounts: a chain of this seed and id made the state, and its validators may still sign.
    pub fn refuse_keys_of(&self, operators: &[(String, String)]) -> Result<(), ForkError> {
        match operators.iter().find(|(_, address)| self.known.contains_key(address)) {
            Some((name, _)) => Err(ForkError::SameKeys(name.clone())),
            None => Ok(()),
        }
    }

    /// What an address will have: `12stake,5uosmo`.
    pub fn balance(&self, address: &str, denom: &str) -> String {
        match self.known.get(address) {
            None => format!("{BALANCE}{denom}"),
            Some(purse) => purse.iter().map(|(denom, amount)| format!("{amount}{denom}")).collect::<Vec<_>>().join(","),
        }
    }

    /// Writes the state with those who join in it.
    pub fn write(self, to: &Path, denom: &str, joining: Joining<'_>) -> Result<(), ForkError> {
        let moved = self.bonded_tokens()?;
        let [mut bonded, mut not_bonded] = self.pools.each_ref().map(|pool| self.known.get(pool).cloned().unwrap_or_default());
        let has = bonded.get(denom).cloned().unwrap_or_default();
        if has != moved {
            return Err(ForkError::Pool { denom: denom.to_owned(), tokens: moved, pool: has });
        }
        bonded.remove(denom);
        *not_bonded.entry(denom.to_owned()).or_default() += moved;
        let mut pools: BTreeMap<&str, Value> =
            BTreeMap::from([(self.pools[0].as_str(), coins(&bonded)), (self.pools[1].as_str(), coins(&not_bonded))]);
        let joined: Vec<&String> = joining.funded.iter().filter(|address| !self.known.contains_key(*address)).collect();
        let accounts = joined.iter().enumerate().map(|(index, address)| genesis::account(address, self.next_account_number + index as u64)).collect();
        let mut balances: Vec<Value> = joined.iter().map(|address| genesis::balance(address, denom)).collect();
        // A pool that nobody has used yet has no balance that could be changed.
        for pool in &self.pools {
            if !self.known.contains_key(pool)
                && let Some(value) = pools.remove(pool.as_str())
            {
                balances.push(json!({"address": pool, "coins": value}));
            }
        }
        let change_pool = |text: &[u8]| -> Result<Option<Value>, String> {
            let balance: Balance<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
            let pool = pools.get(&*balance.address);
            Ok(pool.map(|coins| json!({"address": balance.address, "coins": coins})))
        };
        let mut state = vec![
            ("auth".to_owned(), Edit::members([("accounts", Edit::Append(accounts))])),
            ("bank".to_owned(), Edit::members([("balances", Edit::Each(Box::new(change_pool), balances)), ("supply", Edit::Set(json!([])))])),
            ("staking".to_owned(), self.staking_edit(joining.gentxs.len())),
            ("genutil".to_owned(), Edit::members([("gen_txs", Edit::Set(Value::Array(joining.gentxs)))])),
        ];
        let quick = self.gov.iter().map(|params| ("gov", genesis::quick_governance(params)));
        let tolerant = self.slashing.iter().map(|params| ("slashing", genesis::tolerance(params)));
        for (module, params) in quick.chain(tolerant) {
            state.push((module.to_owned(), Edit::members([("params", Edit::merge(Value::Object(params)))])));
        }
        let mut edits = vec![
            ("chain_id".to_owned(), Edit::Set(json!(joining.chain_id))),
            ("genesis_time".to_owned(), Edit::Set(json!(joining.genesis_time))),
            ("validators".to_owned(), Edit::Remove), // the chain names them at its first height
            ("app_state".to_owned(), Edit::Members(state)),
        ];
        if self.has_consensus {
            edits.push(("consensus".to_owned(), Edit::members([("validators", Edit::Remove)])));
        }
        rewrite(&self.path, to, &mut Edit::Members(edits))
    }

    fn bonded_tokens(&self) -> Result<BigUint, ForkError> {
        let bonded = self.validators.iter().filter(|validator| is_bonded(validator));
        bonded
            .map(|validator| amount(validator.get("tokens").and_then(Value::as_str).unwrap_or_default()))
            .sum::<Option<BigUint>>()
            .ok_or(ForkError::Missing("readable tokens of each validator"))
    }

    /// The old validators can be left, and are left out of the set.
    fn staking_edit(&self, validators: usize) -> Edit<'static> {
        let aside = |validator: &Map<String, Value>| {
            let mut aside = validator.clone();
            aside.insert("jailed".into(), json!(true));
            if is_bonded(validator) {
                aside.insert("status".into(), json!(UNBONDED));
            }
            Value::Object(aside)
        };
        let old = self.validators.iter().map(aside).collect();
        Edit::members([
            ("params", Edit::merge(Value::Object(genesis::room_for(&self.staking, validators)))),
            ("validators", Edit::Set(Value::Array(old))),
            ("last_total_power", Edit::Set(json!("0"))),
            ("last_validator_powers", Edit::Set(json!([]))),
        ])
    }
}

/// Copies a document, edited.
pub fn rewrite(from: &Path, to: &Path, edits: &mut Edit<'_>) -> Result<(), ForkError> {
    let create = |source| ForkError::Io { action: "create", path: to.to_owned(), source };
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(create)?;
    }
    let out = BufWriter::with_capacity(BUFFER, File::create(to).map_err(create)?);
    Ok(stream::edit(open(from)?, out, edits)?)
}

fn open(path: &Path) -> Result<BufReader<File>, ForkError> {
    let file = File::open(path).map_err(|source| ForkError::Io { action: "read", path: path.to_owned(), source })?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

/// Values that are small in every chain.
#[derive(Default)]
struct Seen {
    initial_height: Option<Value>,
    consensus_params: Option<Value>,
    consensus: Option<Value>,
    supply: Purse,
    staking: Option<Map<String, Value>>,
    validators: Vec<Map<String, Value>>,
    gov: Option<Map<String, Value>>,
    slashing: Option<Map<String, Value>>,
}

/// Keeps a value that is not null.
fn see<'a, T: for<'de> Deserialize<'de>>(slot: &'a mut Option<T>) -> Edit<'a> {
    Edit::Visit(Box::new(|text| {
        *slot = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(None)
    }))
}

fn collect(text: &[u8], into: &mut Vec<Map<String, Value>>) -> Result<Option<Value>, String> {
    into.push(serde_json::from_slice(text).map_err(|error| format!("item {}: {error}", into.len()))?);
    Ok(None)
}

fn total(text: &[u8], into: &mut Purse) -> Result<Option<Value>, String> {
    let coin: Coin = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let amount = amount(&coin.amount).ok_or_else(|| format!("{:?} {} is no amount", coin.amount, coin.denom))?;
    into.insert(coin.denom, amount);
    Ok(None)
}

#[derive(Default)]
struct Balances {
    sums: Purse,
    known: BTreeMap<String, Purse>,
    /// The first address, when it is not of this chain.
    stranger: Option<String>,
    begun: bool,
}

impl Balances {
    fn see(&mut self, text: &[u8], prefix: &str, ours: &BTreeSet<String>, pools: &[String]) -> Result<Option<Value>, String> {
        let balance: Balance<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !std::mem::replace(&mut self.begun, true) && !balance.address.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('1')) {
            self.stranger = Some(balance.address.to_string());
        }
        let mut purse = Purse::new();
        for Coin { denom, amount: text } in balance.coins {
            let amount = amount(&text).ok_or_else(|| format!("{} has {text:?} {denom}", balance.address))?;
            match self.sums.get_mut(&denom) {
                Some(sum) => *sum += &amount,
                None => drop(self.sums.insert(denom.clone(), amount.clone())),
            }
            purse.insert(denom, amount);
        }
        if ours.contains(&*balance.address) || pools.iter().any(|pool| *pool == balance.address) {
            self.known.insert(balance.address.into_owned(), purse);
        }
        Ok(None)
    }
}

#[derive(Default)]
struct Accounts {
    highest: Option<u64>,
    known: BTreeSet<String>,
}

impl Accounts {
    /// An account of any type: number and address may lie in an account within it.
    fn see(&mut self, text: &[u8], ours: &BTreeSet<String>) -> Result<Option<Value>, String> {
        let account = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        self.walk(&account, ours);
        Ok(None)
    }

    fn walk(&mut self, value: &Value, ours: &BTreeSet<String>) {
        let Value::Object(members) = value else { return };
        for (name, value) in members {
            match (name.as_str(), value.as_str()) {
                ("account_number", _) => self.highest = self.highest.max(export::number(value)),
                ("address", Some(address)) if ours.contains(address) => drop(self.known.insert(address.to_owned())),
                _ => self.walk(value, ours),
            }
        }
    }
}

/// A genesis without a supply has that of its balances.
fn check_supply(says: &Purse, sums: &Purse) -> Result<(), ForkError> {
    if says.is_empty() {
        return Ok(());
    }
    let zero = BigUint::default();
    for denom in says.keys().chain(sums.keys()) {
        let (said, sum) = (says.get(denom).unwrap_or(&zero), sums.get(denom).unwrap_or(&zero));
        if said != sum {
            return Err(ForkError::Supply { denom: denom.clone(), says: said.clone(), sum: sum.clone() });
        }
    }
    Ok(())
}

fn is_bonded(validator: &Map<String, Value>) -> bool {
    validator.get("status").is_some_and(|status| status == BONDED)
}

/// The number of the next account. Those who join are never more than a `u32` counts.
fn number_after(highest: Option<u64>) -> Result<u64, ForkError> {
    let Some(highest) = highest else { return Ok(0) };
    let next = highest.checked_add(1).filter(|next| next.checked_add(u32::MAX.into()).is_some());
    next.ok_or(ForkError::AccountNumber(highest))
}

fn amount(text: &str) -> Option<BigUint> {
    text.parse().ok()
}

/// In the order of their denoms, as the SDK wants them.
fn coins(purse: &Purse) -> Value {
    let some = purse.iter().filter(|(_, amount)| **amount != BigUint::default());
    some.map(|(denom, amount)| json!({"denom": denom, "amount": amount.to_string()})).collect()
}

#[cfg(test)]
mod tests;
