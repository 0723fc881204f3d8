//! The parameters of the chain's modules: as they are, with some of them changed, and the difference.
//!
//! MsgUpdateParams replaces all parameters of a module. So those of now are read from the chain, the wanted ones are changed, and the
//! rest, also what a newer chain has and this plugin does not know, goes back byte for byte.

use super::{
    authority, invalid,
    layout::{field_names, fields, nested},
    refused,
};
use crate::{
    binary::Chain,
    config,
    tx::{
        any,
        described::{self, Described},
        json, messages,
        wire::Wire,
    },
};
use cosmos_sdk_proto::{
    Any,
    cosmos::{auth, bank, distribution, gov, mint, slashing, staking},
    cosmwasm::wasm,
    traits::{Message, Name},
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which parameters a gov query wants: any kind is answered with all of them.
const GOV_KIND: &str = "tallying";

/// A module whose parameters governance can change.
struct Module<'a> {
    name: String,
    /// Of its MsgUpdateParams.
    url: String,
    query: String,
    /// The field of the query's answer that holds them.
    field: u32,
    names: Vec<String>,
    read: Read<'a>,
    write: Write<'a>,
}

type Read<'a> = Box<dyn Fn(&[u8]) -> std::result::Result<Value, String> + Send + Sync + 'a>;
type Write<'a> = Box<dyn Fn(Value) -> std::result::Result<Vec<u8>, String> + Send + Sync + 'a>;

/// The messages that set `values`, and what they change.
pub async fn draft(request: &pb::DraftParamChangeRequest) -> Result<pb::DraftParamChangeResponse> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized)?;
    let authority = authority(&chain)?;
    if request.values.is_empty() {
        return Err(invalid("no parameter is named; write one as in staking.max_validators=50"));
    }
    let address = config::address(&request.node.clone().unwrap_or_default(), "rpc").map_err(|error| invalid(error.to_string()))?;
    let mut wire = Wire::open(&address).await?;
    let usual = modules();
    let strange = request.values.keys().any(|path| !usual.iter().any(|module| path.split('.').next() == Some(module.name.as_str())));
    let chain = if strange { described::ask(&devnet.binary_sha256, &mut wire).await? } else { None };
    let known = and_described(usual, chain.as_deref());
    let mut wanted: BTreeMap<usize, Vec<(&str, Value)>> = BTreeMap::new();
    for (path, text) in &request.values {
        let (at, field) = locate(path, &known)?;
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        wanted.entry(at).or_default().push((field, value));
    }
    let (mut drafted, mut changes) = (Vec::new(), Vec::new());
    for (at, values) in wanted {
        let module = &known[at];
        let before = module.current(&mut wire).await?;
        let after = module.changed(&before, values)?;
        drafted.push(any::unpack(&module.message(&authority, &after), chain.as_deref()));
        changes.extend(module.difference(&before, &after)?);
    }
    if changes.is_empty() {
        return Err(invalid("the chain's parameters have these values already"));
    }
    Ok(pb::DraftParamChangeResponse { messages: Value::from(drafted).to_string(), changes })
}

/// What these messages of a proposal would change now.
pub(super) async fn changes(messages: &[Any], chain: Option<&Described>, wire: &mut Wire) -> Result<Vec<pb::ParamChange>> {
    let (known, mut changes) = (and_described(modules(), chain), Vec::new());
    for message in messages {
        let Some(module) = known.iter().find(|module| module.url == message.type_url) else { continue };
        let Some(after) = nested(&message.value, 2) else { continue };
        let before = module.current(wire).await?;
        changes.extend(module.difference(&before, after)?);
    }
    Ok(changes)
}

impl Module<'_> {
    /// Of now, as bytes.
    async fn current(&self, wire: &mut Wire) -> Result<Vec<u8>> {
        let request = match self.name.as_str() {
            "gov" => gov::v1::QueryParamsRequest { params_type: GOV_KIND.into() }.encode_to_vec(),
            _ => Vec::new(),
        };
        let answer = wire.query(&self.query, &request).await?;
        if answer.code != 0 {
            return Err(refused(&format!("the parameters of {}", self.name), &answer));
        }
        Ok(nested(&answer.value, self.field).unwrap_or_default().to_vec())
    }

    /// `before` with these fields set.
    fn changed(&self, before: &[u8], values: Vec<(&str, Value)>) -> Result<Vec<u8>> {
        let mut params = self.show(before)?;
        for (field, value) in values {
            let place = field.split('.').try_fold(&mut params, |params, name| params.get_mut(name));
            let place = place.ok_or_else(|| self.unknown(field))?;
            *place = as_coins(value, place, field)?;
            self.bytes(&params).map_err(|why| invalid(format!("{}.{field}: {why}", self.name)))?;
        }
        let mut after = self.bytes(&params).map_err(|why| invalid(format!("{}: {why}", self.name)))?;
        after.extend(self.foreign(before)?);
        Ok(after)
    }

    /// Of the form that people read.
    fn bytes(&self, params: &Value) -> std::result::Result<Vec<u8>, String> {
        let mut message = json!({ "params": params });
        json::to_wire(&mut message, json::fractions(&self.url))?;
        (self.write)(message["params"].take())
    }

    /// MsgUpdateParams: field 1 is the authority, field 2 the parameters. So is the layout of an Any.
    fn message(&self, authority: &str, params: &[u8]) -> Any {
        let value = Any { type_url: authority.into(), value: params.to_vec() }.encode_to_vec();
        Any { type_url: self.url.clone(), value }
    }

    fn difference(&self, before: &[u8], after: &[u8]) -> Result<Vec<pb::ParamChange>> {
        let mut found = Vec::new();
        differ(&self.name, &self.show(before)?, &self.show(after)?, &mut found);
        Ok(found)
    }

    /// All fields, also those that have the value that protobuf does not write.
    fn show(&self, bytes: &[u8]) -> Result<Value> {
        let params = (self.read)(bytes).map_err(|why| PluginFault::Internal(format!("the parameters of {}: {why}", self.name)))?;
        let mut shown = json::from_wire(json!({ "params": params }), json::fractions(&self.url));
        let mut params = Map::new();
        for name in &self.names {
            let there = shown["params"].get_mut(name).map(Value::take);
            params.insert(name.clone(), there.unwrap_or_else(|| self.zero(name)));
        }
        Ok(Value::Object(params))
    }

    /// The value that protobuf does not write: the first that the field takes.
    fn zero(&self, name: &str) -> Value {
        let candidates = [json!(false), json!(0), json!(""), json!([]), json!({})];
        candidates.into_iter().find(|value| (self.write)(json!({ name: value })).is_ok()).unwrap_or_default()
    }

    /// Fields of these parameters that only the chain knows.
    fn foreign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let unreadable = |why: String| PluginFault::Internal(format!("the parameters of {}: {why}", self.name));
        let known = (self.read)(bytes).and_then(|params| (self.write)(params)).map_err(unreadable)?;
        let written: Vec<u32> = fields(&known).into_iter().map(|field| field.number).collect();
        let foreign: Vec<u8> =
            fields(bytes).into_iter().filter(|field| !written.contains(&field.number)).flat_map(|field| field.whole.to_vec()).collect();
        if known.len() + foreign.len() != bytes.len() {
            let message = format!("the parameters of {} hold what this plugin cannot write back; propose them with --file", self.name);
            return Err(PluginFault::FailedPrecondition(message));
        }
        Ok(foreign)
    }

    fn unknown(&self, field: &str) -> PluginFault {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let first = field.split('.').next().unwrap_or_default();
        let hint =
            nearest(first, &names).map_or_else(|| format!("there are {}", names.join(", ")), |name| format!("did you mean {}.{name}?", self.name));
        invalid(format!("{} has no parameter `{field}`; {hint}", self.name))
    }
}

/// The module and the field of `staking.max_validators`.
fn locate<'a>(path: &'a str, known: &[Module<'_>]) -> Result<(usize, &'a str)> {
    let names: Vec<&str> = known.iter().map(|module| module.name.as_str()).collect();
    let Some((module, field)) = path.split_once('.').filter(|(_, field)| !field.is_empty()) else {
        return Err(invalid(format!("`{path}` names no parameter; write MODULE.FIELD, as in staking.max_validators")));
    };
    match names.iter().position(|name| *name == module) {
        Some(at) => Ok((at, field)),
        None => {
            let hint = nearest(module, &names).map_or_else(String::new, |name| format!("did you mean {name}? "));
            let all = names.join(", ");
            Err(invalid(format!("there is no module `{module}` here: {hint}known are {all}; parameters of others can be proposed with --file")))
        }
    }
}

/// Coins may be written `5stake`.
fn as_coins(value: Value, before: &Value, field: &str) -> Result<Value> {
    match &value {
        Value::String(text) if before.is_array() => {
            let coins = messages::coins(text).map_err(|error| invalid(format!("{field}: {error}")))?;
            serde_json::to_value(coins).map_err(|error| invalid(format!("{field}: {error}")))
        }
        _ => Ok(value),
    }
}

fn differ(path: &str, old: &Value, new: &Value, found: &mut Vec<pb::ParamChange>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            for name in names {
                let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                differ(&format!("{path}.{name}"), &of(before), &of(after), found);
            }
        }
        _ if old == new => {}
        _ => found.push(pb::ParamChange { path: path.to_owned(), old: old.to_string(), new: new.to_string() }),
    }
}

fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let likely = names.iter().map(|name| (strsim::jaro_winkler(given, name), *name)).filter(|(likeness, _)| *likeness > 0.75);
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// With those that the chain describes beyond the usual ones. Of two of one name the first counts.
fn and_described<'a>(mut known: Vec<Module<'a>>, chain: Option<&'a Described>) -> Vec<Module<'a>> {
    let Some(chain) = chain else { return known };
    for described::Settable { module, url, query, field, params } in chain.settable() {
        if known.iter().any(|known| known.name == module || known.url == url) {
            continue;
        }
        let names = params.fields().map(|field| field.name().to_owned()).collect();
        let written = params.clone();
        let read = Box::new(move |bytes: &[u8]| chain.decode(&params, bytes));
        let write = Box::new(move |json| chain.encode(&written, json));
        known.push(Module { name: module, url, query, field, names, read, write });
    }
    known
}

/// Those of the SDK and of wasm, which are known without a word of the chain.
fn modules() -> Vec<Module<'static>> {
    vec![
        module::<auth::v1beta1::MsgUpdateParams, auth::v1beta1::Params>("auth", "/cosmos.auth.v1beta1.Query/Params", 1),
        module::<bank::v1beta1::MsgUpdateParams, bank::v1beta1::Params>("bank", "/cosmos.bank.v1beta1.Query/Params", 1),
        module::<distribution::v1beta1::MsgUpdateParams, distribution::v1beta1::Params>(
            "distribution",
            "/cosmos.distribution.v1beta1.Query/Params",
            1,
        ),
        module::<gov::v1::MsgUpdateParams, gov::v1::Params>("gov", "/cosmos.gov.v1.Query/Params", 4),
        module::<mint::v1beta1::MsgUpdateParams, mint::v1beta1::Params>("mint", "/cosmos.mint.v1beta1.Query/Params", 1),
        module::<slashing::v1beta1::MsgUpdateParams, slashing::v1beta1::Params>("slashing", "/cosmos.slashing.v1beta1.Query/Params", 1),
        module::<staking::v1beta1::MsgUpdateParams, staking::v1beta1::Params>("staking", "/cosmos.staking.v1beta1.Query/Params", 1),
        module::<wasm::v1::MsgUpdateParams, wasm::v1::Params>("wasm", "/cosmwasm.wasm.v1.Query/Params", 1),
    ]
}

fn module<M: Name, P: Message + Default + Serialize + DeserializeOwned>(name: &str, query: &str, field: u32) -> Module<'static> {
    Module {
        name: name.into(),
        url: M::type_url(),
        query: query.into(),
        field,
        names: field_names::<P>().into_iter().map(str::to_owned).collect(),
        read: Box::new(|bytes| {
            P::decode(bytes).map_err(|error| error.to_string()).and_then(|params| serde_json::to_value(params).map_err(|error| error.to_string()))
        }),
        write: Box::new(|json| serde_json::from_value::<P>(json).map(|params| params.encode_to_vec()).map_err(|error| error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Module<'static> {
        modules().into_iter().find(|module| module.name == name).unwrap()
    }

    fn staking() -> Vec<u8> {
        staking::v1beta1::Params {
            max_validators: 100,
            max_entries: 7,
            bond_denom: "stake".into(),
            min_commission_rate: "0".into(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn one_field_changes_and_the_others_stay() {
        let module = named("staking");
        let after = module.changed(&staking(), vec![("max_validators", json!(50))]).unwrap();
        let params = staking::v1beta1::Params::decode(after.as_slice()).unwrap();
        assert_eq!((params.max_validators, params.max_entries, params.bond_denom.as_str()), (50, 7, "stake"));
        let changes = module.difference(&staking(), &after).unwrap();
        assert_eq!(changes, [pb::ParamChange { path: "staking.max_validators".into(), old: "100".into(), new: "50".into() }]);
        let message = any::unpack(&module.message("wasm1gov", &after), None);
        assert_eq!((&message["authority"], &message["params"]["max_validators"]), (&json!("wasm1gov"), &json!(50)));
        assert_eq!(any::pack(&message, None).unwrap(), module.message("wasm1gov", &after));
    }

    #[test]
    fn a_field_that_only_the_chain_knows_goes_back_untouched() {
        let newer = [staking().as_slice(), &[0xba, 1, 3, b'n', b'e', b'w']].concat();
        let after = named("staking").changed(&newer, vec![("max_entries", json!(9))]).unwrap();
        assert!(after.ends_with(&[0xba, 1, 3, b'n', b'e', b'w']));
        assert_eq!(staking::v1beta1::Params::decode(after.as_slice()).unwrap().max_entries, 9);
    }

    #[test]
    fn every_kind_of_field_can_be_set_also_where_it_was_not_written() {
        let gov = named("gov");
        let values = vec![
            ("burn_vote_veto", json!(true)),
            ("voting_period", json!("2.500s")),
            ("min_deposit", json!("7stake,3atom")),
            ("quorum", json!("0.5")),
        ];
        let params = gov::v1::Params::decode(gov.changed(&[], values).unwrap().as_slice()).unwrap();
        assert!(params.burn_vote_veto && params.quorum == "0.5" && params.voting_period.unwrap().nanos == 500_000_000);
        assert_eq!(params.min_deposit.iter().map(|coin| coin.denom.as_str()).collect::<Vec<_>>(), ["atom", "stake"]);
        let slashing = named("slashing").changed(&[], vec![("slash_fraction_downtime", json!(0.25))]).unwrap();
        let slashing = slashing::v1beta1::Params::decode(slashing.as_slice()).unwrap();
        assert_eq!(slashing.slash_fraction_downtime, b"250000000000000000");
    }

    #[test]
    fn parameters_of_a_module_that_only_the_chain_describes_are_changed_in_the_same_way() {
        let chain = crate::tx::described::tests::described();
        let known = and_described(modules(), Some(&chain));
        let (at, field) = locate("burner.share", &known).unwrap();
        let before = (known[at].write)(json!({"rate": "0.5", "blocks": "7"})).unwrap();
        let newer = [before.as_slice(), &[0xba, 1, 3, b'n', b'e', b'w']].concat();
        let after = known[at].changed(&newer, vec![(field, json!(0.25))]).unwrap();
        assert!(after.ends_with(&[0xba, 1, 3, b'n', b'e', b'w']), "what nobody describes goes back untouched");
        let changes = known[at].difference(&newer, &after).unwrap();
        let told: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.new.as_str())).collect();
        assert_eq!(told, [("burner.share", "\"0.250000000000000000\"")]);
        let message = any::unpack(&known[at].message("wasm1gov", &before), Some(&chain));
        assert_eq!((&message["signer"], &message["params"]["blocks"]), (&json!("wasm1gov"), &json!("7")));
        assert!(locate("burnr.share", &known).unwrap_err().to_string().contains("did you mean burner?"));
    }

    #[test]
    fn what_cannot_be_set_is_explained() {
        let known = modules();
        let check = |path: &str, value: Value, why: &str| {
            let error = match locate(path, &known) {
                Ok((at, field)) => known[at].changed(&staking(), vec![(field, value)]).unwrap_err(),
                Err(error) => error,
            };
            assert!(error.to_string().contains(why), "{error}");
        };
        check("staking.max_validator", json!(1), "did you mean staking.max_validators?");
        check("staking.zzz", json!(1), "there are unbonding_time, max_validators");
        check("stakng.max_validators", json!(1), "did you mean staking?");
        check("ibc.x", json!(1), "known are auth, bank");
        check("staking", json!(1), "MODULE.FIELD");
        check("staking.max_validators", json!("many"), "staking.max_validators: ");
        check("staking.min_commission_rate", json!("half"), "`half` is no decimal");
    }
}
