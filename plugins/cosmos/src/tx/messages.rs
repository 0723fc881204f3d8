//! Types of transaction: a payload in, protobuf messages and a line for people out.

use super::{any, described::Described, invalid, signers::Signers};
use crate::binary::Chain;
use cosmos_sdk_proto::{
    Any,
    cosmos::{
        bank::v1beta1::MsgSend,
        base::v1beta1::Coin,
        gov::v1::{MsgCancelProposal, MsgDeposit, MsgSubmitProposal, MsgVote, MsgVoteWeighted, VoteOption, WeightedVoteOption},
        staking::v1beta1::{MsgDelegate, MsgUndelegate},
    },
    traits::Message,
};
use dvb_plugin_sdk::{Result, pb, plain};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const SEND: &str = "bank/send";
const DELEGATE: &str = "staking/delegate";
const UNBOND: &str = "staking/unbond";
const VOTE: &str = "gov/vote";
const DEPOSIT: &str = "gov/deposit";
const PROPOSE: &str = "gov/submit-proposal";
const CANCEL: &str = "gov/cancel-proposal";
const ANY: &str = "any";

/// What a signature will say.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) messages: Vec<Any>,
    pub(super) meaning: String,
}

pub(super) fn types() -> Vec<pb::TxType> {
    let kind = |name: &str, description: &str, template: Value| pb::TxType {
        name: name.into(),
        description: description.into(),
        template: template.to_string(),
    };
    let proposal = json!({"title": "A title", "summary": "What it is for", "deposit": "50000000stake", "messages": [], "expedited": false});
    let send = json!({"@type": "/cosmos.bank.v1beta1.MsgSend", "from_address": "", "to_address": "", "amount": [{"denom": "stake", "amount": "7"}]});
    let any = json!({ "messages": [send] });
    vec![
        kind(SEND, "coins from the signer to another account", json!({"to": "account:1", "amount": "7stake"})),
        kind(DELEGATE, "stakes coins of the signer with a validator", json!({"validator": "validator:0", "amount": "1000stake"})),
        kind(UNBOND, "takes staked coins back, after the unbonding time", json!({"validator": "validator:0", "amount": "1000stake"})),
        kind(
            VOTE,
            "votes on a proposal: yes, no, abstain or noWithVeto, or \"options\": {\"yes\": 0.7, \"no\": 0.3}",
            json!({"proposal": 1, "option": "yes"}),
        ),
        kind(DEPOSIT, "adds to the deposit of a proposal", json!({"proposal": 1, "amount": "1000stake"})),
        kind(PROPOSE, "submits a proposal with a deposit; messages as in `any`", proposal),
        kind(CANCEL, "takes one's own proposal back before its vote ends (SDK 0.50 and later)", json!({"proposal": 1})),
        kind(ANY, "any messages, as JSON with @type or with the protobuf bytes as value in base64", any),
    ]
}

pub(super) fn takes(chain: &Chain, kind: &str) -> bool {
    (chain.has_module("gov") || !kind.starts_with("gov/")) && (kind != CANCEL || chain.has_newer_gov())
}

/// `described`: by the chain, for messages that are not known here. FailedPrecondition: it would be needed, and is not there.
pub(super) fn read(intent: &pb::TxIntent, from: &str, signers: &Signers<'_>, described: Option<&Described>) -> Result<Said> {
    match intent.r#type.as_str() {
        SEND => send(payload(intent)?, from, signers),
        DELEGATE => stake(payload(intent)?, from, signers, DELEGATE),
        UNBOND => stake(payload(intent)?, from, signers, UNBOND),
        VOTE => vote(payload(intent)?, from),
        DEPOSIT => deposit(payload(intent)?, from),
        PROPOSE => propose(payload(intent)?, from, signers.chain(), described),
        CANCEL => cancel(payload(intent)?, from, signers.chain()),
        ANY => anything(payload(intent)?, described),
        other => {
            let names: Vec<String> = types().into_iter().map(|kind| kind.name).collect();
            Err(invalid(format!("there is no transaction type `{other}`; there are {}", names.join(", "))))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to: String,
    amount: String,
}

fn send(Send { to, amount }: Send, from: &str, signers: &Signers<'_>) -> Result<Said> {
    let coins = coins(&amount)?;
    let message = MsgSend { from_address: from.into(), to_address: signers.address(&to)?, amount: coins };
    Ok(Said { messages: vec![packed("/cosmos.bank.v1beta1.MsgSend", &message)], meaning: format!("sends {amount} to {to}") })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stake {
    validator: String,
    amount: String,
}

fn stake(Stake { validator, amount }: Stake, from: &str, signers: &Signers<'_>, kind: &str) -> Result<Said> {
    let validator_address = signers.validator(&validator)?;
    let (delegator_address, coin) = (from.to_owned(), Some(one_coin(&amount)?));
    let (message, meaning) = if kind == DELEGATE {
        let message = MsgDelegate { delegator_address, validator_address, amount: coin };
        (packed("/cosmos.staking.v1beta1.MsgDelegate", &message), format!("delegates {amount} to {validator}"))
    } else {
        let message = MsgUndelegate { delegator_address, validator_address, amount: coin };
        (packed("/cosmos.staking.v1beta1.MsgUndelegate", &message), format!("unbonds {amount} from {validator}"))
    };
    Ok(Said { messages: vec![message], meaning })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vote {
    proposal: u64,
    option: Option<String>,
    /// Parts of one vote, which come to 1.
    #[serde(default)]
    options: BTreeMap<String, Value>,
    #[serde(default)]
    metadata: String,
}

fn vote(Vote { proposal, option, options, metadata }: Vote, from: &str) -> Result<Said> {
    let (voter, proposal_id) = (from.to_owned(), proposal);
    let (message, meaning) = match option {
        Some(option) if options.is_empty() => {
            let message = MsgVote { proposal_id, voter, option: vote_option(&option)?.into(), metadata };
            (packed("/cosmos.gov.v1.MsgVote", &message), option)
        }
        None if !options.is_empty() => {
            let weighted = |(option, weight): (&String, &Value)| {
                let weight = weight.as_str().map_or_else(|| weight.to_string(), str::to_owned);
                Ok(WeightedVoteOption { option: vote_option(option)?.into(), weight })
            };
            let parts: Vec<WeightedVoteOption> = options.iter().map(weighted).collect::<Result<_>>()?;
            let meaning = options.keys().zip(&parts).map(|(option, part)| format!("{option}={}", part.weight)).collect::<Vec<_>>().join(",");
            (packed("/cosmos.gov.v1.MsgVoteWeighted", &MsgVoteWeighted { proposal_id, voter, options: parts, metadata }), meaning)
        }
        _ => return Err(invalid("a vote has either option, as in \"yes\", or options, as in {\"yes\": 0.7, \"no\": 0.3}")),
    };
    Ok(Said { messages: vec![message], meaning: format!("votes {meaning} on proposal {proposal}") })
}

fn vote_option(name: &str) -> Result<VoteOption> {
    match name {
        "yes" => Ok(VoteOption::Yes),
        "no" => Ok(VoteOption::No),
        "abstain" => Ok(VoteOption::Abstain),
        "noWithVeto" => Ok(VoteOption::NoWithVeto),
        other => Err(invalid(format!("option `{other}`: write yes, no, abstain or noWithVeto"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    proposal: u64,
}

fn cancel(Cancel { proposal }: Cancel, from: &str, chain: &Chain) -> Result<Said> {
    if !chain.has_newer_gov() {
        return Err(invalid(format!("a proposal can be cancelled since SDK 0.50, and this chain has {}", chain.sdk_version)));
    }
    let message = MsgCancelProposal { proposal_id: proposal, proposer: from.into() };
    Ok(Said { messages: vec![packed("/cosmos.gov.v1.MsgCancelProposal", &message)], meaning: format!("cancels proposal {proposal}") })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deposit {
    proposal: u64,
    amount: String,
}

fn deposit(Deposit { proposal, amount }: Deposit, from: &str) -> Result<Said> {
    let message = MsgDeposit { proposal_id: proposal, depositor: from.into(), amount: coins(&amount)? };
    Ok(Said { messages: vec![packed("/cosmos.gov.v1.MsgDeposit", &message)], meaning: format!("deposits {amount} on proposal {proposal}") })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Propose {
    title: String,
    summary: String,
    deposit: String,
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    metadata: String,
    #[serde(default)]
    expedited: bool,
}

fn propose(propose: Propose, from: &str, chain: &Chain, described: Option<&Described>) -> Result<Said> {
    let Propose { title, summary, deposit, messages, mut metadata, expedited } = propose;
    if expedited && !chain.has_newer_gov() {
        return Err(invalid(format!("expedited proposals came with SDK 0.50, and this chain has {}: leave expedited out", chain.sdk_version)));
    }
    if messages.is_empty() && metadata.is_empty() {
        metadata = title.clone(); // the chain takes no proposal with neither
    }
    let meaning = format!("proposes `{title}` with a deposit of {deposit}");
    let message = MsgSubmitProposal {
        messages: messages.iter().map(|message| any::pack(message, described)).collect::<Result<_>>()?,
        initial_deposit: coins(&deposit)?,
        proposer: from.into(),
        metadata,
        title,
        summary,
        expedited,
    };
    Ok(Said { messages: vec![packed("/cosmos.gov.v1.MsgSubmitProposal", &message)], meaning })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Anything {
    messages: Vec<Value>,
}

fn anything(Anything { messages }: Anything, described: Option<&Described>) -> Result<Said> {
    if messages.is_empty() {
        return Err(invalid("payload.messages is empty"));
    }
    let messages: Vec<Any> = messages.iter().map(|message| any::pack(message, described)).collect::<Result<_>>()?;
    let names: Vec<&str> = messages.iter().map(|message| message.type_url.trim_start_matches('/')).collect();
    Ok(Said { meaning: names.join(", "), messages })
}

fn payload<T: DeserializeOwned>(intent: &pb::TxIntent) -> Result<T> {
    serde_json::from_str(&intent.payload).map_err(|error| invalid(format!("payload of {}: {}", intent.r#type, plain(&error.to_string()))))
}

fn packed<M: Message>(type_url: &str, message: &M) -> Any {
    Any { type_url: type_url.into(), value: message.encode_to_vec() }
}

/// `7stake,3other`, sorted by denom as the SDK wants it.
pub(crate) fn coins(text: &str) -> Result<Vec<Coin>> {
    let mut coins = text.split(',').map(|coin| one_coin(coin.trim())).collect::<Result<Vec<_>>>()?;
    coins.sort_by(|a, b| a.denom.cmp(&b.denom));
    Ok(coins)
}

fn one_coin(text: &str) -> Result<Coin> {
    let bad = || invalid(format!("`{text}` is no amount; write a whole number and its denom, as in 7stake"));
    let end = text.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or_else(bad)?;
    let (amount, denom) = text.split_at(end);
    let is_denom = denom.len() >= 3
        && denom.starts_with(|c: char| c.is_ascii_alphabetic())
        && denom.chars().all(|c| c.is_ascii_alphanumeric() || "/:._-".contains(c));
    if !is_denom {
        return Err(bad());
    }
    Ok(Coin { denom: denom.into(), amount: amount.into() })
}

#[cfg(test)]
mod tests {
    use super::super::signers::tests::{chain, devnet};
    use super::*;

    fn said(kind: &str, payload: &str) -> Result<Said> {
        let (devnet, chain) = (devnet(), chain());
        let signers = Signers::new(&devnet, &chain);
        let intent = pb::TxIntent { r#type: kind.into(), payload: payload.into(), ..pb::TxIntent::default() };
        read(&intent, &signers.address("account:0").unwrap(), &signers, None)
    }

    #[test]
    fn every_template_builds() {
        for kind in types() {
            let said = said(&kind.name, &kind.template).unwrap();
            assert!(!said.messages.is_empty() && !said.meaning.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn a_transfer_names_accounts_and_sorts_coins() {
        let said = said(SEND, r#"{"to": "account:1", "amount": "7stake,3atoken"}"#).unwrap();
        let message = MsgSend::decode(said.messages[0].value.as_slice()).unwrap();
        assert!(message.from_address.starts_with("wasm1") && message.to_address.starts_with("wasm1") && message.to_address != message.from_address);
        let coins: Vec<_> = message.amount.iter().map(|coin| (coin.denom.as_str(), coin.amount.as_str())).collect();
        assert_eq!(coins, [("atoken", "3"), ("stake", "7")]);
    }

    #[test]
    fn a_weighted_vote_keeps_each_part() {
        let said = said(VOTE, r#"{"proposal": 3, "options": {"yes": 0.7, "no": "0.30"}}"#).unwrap();
        let message = MsgVoteWeighted::decode(said.messages[0].value.as_slice()).unwrap();
        let parts: Vec<_> = message.options.iter().map(|part| (part.option(), part.weight.as_str())).collect();
        assert_eq!((message.proposal_id, parts), (3, vec![(VoteOption::No, "0.30"), (VoteOption::Yes, "0.7")]));
        assert_eq!(said.meaning, "votes no=0.30,yes=0.7 on proposal 3");
    }

    #[test]
    fn a_chain_without_governance_takes_none_of_its_transactions() {
        let without = Chain { modules: vec!["bank".into()], ..chain() };
        let taken: Vec<_> = types().into_iter().map(|kind| kind.name).filter(|name| takes(&without, name)).collect();
        assert_eq!(taken, [SEND, DELEGATE, UNBOND, ANY]);
        assert!(takes(&chain(), VOTE), "of a chain whose modules are not known all are tried");
    }

    #[test]
    fn what_an_older_sdk_lacks_is_refused_by_name() {
        let (devnet, chain) = (devnet(), Chain { sdk_version: "v0.47.5".into(), ..chain() });
        let signers = Signers::new(&devnet, &chain);
        let from = signers.address("account:0").unwrap();
        for (kind, payload) in
            [(CANCEL, r#"{"proposal": 1}"#), (PROPOSE, r#"{"title": "T", "summary": "S", "deposit": "1stake", "expedited": true}"#)]
        {
            let intent = pb::TxIntent { r#type: kind.into(), payload: payload.into(), ..pb::TxIntent::default() };
            let words = read(&intent, &from, &signers, None).unwrap_err().to_string();
            assert!(words.contains("SDK 0.50") && words.contains("v0.47.5"), "{words}");
        }
    }

    #[test]
    fn wrong_payloads_are_explained() {
        for (kind, payload, why) in [
            (SEND, r#"{"to": "account:9", "amount": "7stake"}"#, "has 2"),
            (SEND, r#"{"to": "account:1", "amount": "seven"}"#, "7stake"),
            (SEND, r#"{"to": "account:1"}"#, "amount"),
            (DELEGATE, r#"{"validator": "account:0", "amount": "7stake"}"#, "no validator"),
            (VOTE, r#"{"proposal": 1, "option": "maybe"}"#, "noWithVeto"),
            (VOTE, r#"{"proposal": 1, "options": {"yes": 0.7, "nay": 0.3}}"#, "`nay`"),
            (VOTE, r#"{"proposal": 1}"#, "either option"),
            (VOTE, r#"{"proposal": 1, "option": "yes", "options": {"no": "1"}}"#, "either option"),
            (ANY, r#"{"messages": []}"#, "empty"),
            (ANY, r#"{"messages": [{"@type": "/x.Y", "value": "?"}]}"#, "base64"),
            ("bank/burn", "{}", "bank/send"),
        ] {
            let message = said(kind, payload).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }
}
