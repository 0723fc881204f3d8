//! Types of transaction: a payload in, protobuf messages and a line for people out.

use super::{any, invalid, signers::Signers};
use cosmos_sdk_proto::{
    Any,
    cosmos::{
        bank::v1beta1::MsgSend,
        base::v1beta1::Coin,
        gov::v1::{MsgDeposit, MsgSubmitProposal, MsgVote, VoteOption},
        staking::v1beta1::{MsgDelegate, MsgUndelegate},
    },
    traits::Message,
};
use dvb_plugin_sdk::{Result, pb};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub(super) const SEND: &str = "bank/send";
const DELEGATE: &str = "staking/delegate";
const UNBOND: &str = "staking/unbond";
const VOTE: &str = "gov/vote";
const DEPOSIT: &str = "gov/deposit";
const PROPOSE: &str = "gov/submit-proposal";
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
        kind(VOTE, "votes on a proposal: yes, no, abstain or noWithVeto", json!({"proposal": 1, "option": "yes"})),
        kind(DEPOSIT, "adds to the deposit of a proposal", json!({"proposal": 1, "amount": "1000stake"})),
        kind(PROPOSE, "submits a proposal with a deposit; messages as in `any`", proposal),
        kind(ANY, "any messages, as JSON with @type or with the protobuf bytes as value in base64", any),
    ]
}

pub(super) fn read(intent: &pb::TxIntent, from: &str, signers: &Signers<'_>) -> Result<Said> {
    match intent.r#type.as_str() {
        SEND => send(payload(intent)?, from, signers),
        DELEGATE => stake(payload(intent)?, from, signers, DELEGATE),
        UNBOND => stake(payload(intent)?, from, signers, UNBOND),
        VOTE => vote(payload(intent)?, from),
        DEPOSIT => deposit(payload(intent)?, from),
        PROPOSE => propose(payload(intent)?, from),
        ANY => anything(payload(intent)?),
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
    option: String,
    #[serde(default)]
    metadata: String,
}

fn vote(Vote { proposal, option, metadata }: Vote, from: &str) -> Result<Said> {
    let value = match option.as_str() {
        "yes" => VoteOption::Yes,
        "no" => VoteOption::No,
        "abstain" => VoteOption::Abstain,
        "noWithVeto" => VoteOption::NoWithVeto,
        other => return Err(invalid(format!("option `{other}`: write yes, no, abstain or noWithVeto"))),
    };
    let message = MsgVote { proposal_id: proposal, voter: from.into(), option: value.into(), metadata };
    Ok(Said { messages: vec![packed("/cosmos.gov.v1.MsgVote", &message)], meaning: format!("votes {option} on proposal {proposal}") })
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

fn propose(propose: Propose, from: &str) -> Result<Said> {
    let Propose { title, summary, deposit, messages, mut metadata, expedited } = propose;
    if messages.is_empty() && metadata.is_empty() {
        metadata = title.clone(); // the chain takes no proposal with neither
    }
    let meaning = format!("proposes `{title}` with a deposit of {deposit}");
    let message = MsgSubmitProposal {
        messages: messages.iter().map(any::pack).collect::<Result<_>>()?,
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

fn anything(Anything { messages }: Anything) -> Result<Said> {
    if messages.is_empty() {
        return Err(invalid("payload.messages is empty"));
    }
    let messages: Vec<Any> = messages.iter().map(any::pack).collect::<Result<_>>()?;
    let names: Vec<&str> = messages.iter().map(|message| message.type_url.trim_start_matches('/')).collect();
    Ok(Said { meaning: names.join(", "), messages })
}

fn payload<T: DeserializeOwned>(intent: &pb::TxIntent) -> Result<T> {
    serde_json::from_str(&intent.payload).map_err(|error| invalid(format!("payload of {}: {error}", intent.r#type)))
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
        read(&intent, &signers.address("account:0").unwrap(), &signers)
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
    fn wrong_payloads_are_explained() {
        for (kind, payload, why) in [
            (SEND, r#"{"to": "account:9", "amount": "7stake"}"#, "has 2"),
            (SEND, r#"{"to": "account:1", "amount": "seven"}"#, "7stake"),
            (SEND, r#"{"to": "account:1"}"#, "amount"),
            (DELEGATE, r#"{"validator": "account:0", "amount": "7stake"}"#, "no validator"),
            (VOTE, r#"{"proposal": 1, "option": "maybe"}"#, "noWithVeto"),
            (ANY, r#"{"messages": []}"#, "empty"),
            (ANY, r#"{"messages": [{"@type": "/x.Y", "value": "?"}]}"#, "base64"),
            ("bank/burn", "{}", "bank/send"),
        ] {
            let message = said(kind, payload).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }
}
