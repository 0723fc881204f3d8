//! `gov propose`: a text, a change of parameters, or messages from a file.

use super::{Wanted, follow, reference, render, settle_one, submitted};
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
};
use dvb_proto::devnet::v1::{DraftParamChangeRequest, ListProposalsRequest, Transaction};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs};

const PROPOSE: &str = "gov/submit-proposal";

/// Submit a proposal
///
/// A file is JSON as the chain's own command line takes it: title, summary, deposit, messages, metadata, expedited. Flags go before it.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("content").required(true).args(["file", "params", "text"])))]
pub(super) struct Args {
    devnet: String,
    #[arg(long, required_unless_present = "file")]
    title: Option<String>,
    /// [default: the title]
    #[arg(long)]
    summary: Option<String>,
    /// [default: what the chain asks for a vote to begin]
    #[arg(long, value_name = "COINS")]
    deposit: Option<String>,
    /// With the shorter voting period and the higher threshold, where the chain has that
    #[arg(long)]
    expedited: bool,
    /// account:N, validator:N, or the address of one
    #[arg(long, default_value = "account:0", value_name = "WHO")]
    signer: String,
    /// The proposal as JSON, or its messages as a JSON array
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// Change a parameter of the chain; may be given several times
    #[arg(long = "param", value_name = "MODULE.FIELD=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    /// Nothing but words
    #[arg(long)]
    text: bool,
    /// A second call with the same id finds the proposal of the first
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait until it is passed, rejected or failed; anything but passed is exit 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let known = match &args.request_id {
        Some(id) => proposed_before(ctx, &client, &args, id).await?,
        None => None,
    };
    let tx = match known {
        Some(tx) => tx,
        None => {
            let payload = Value::Object(payload(ctx, &client, &args).await?);
            let wanted = Wanted { kind: PROPOSE, signer: &args.signer, payload, request_id: args.request_id.clone() };
            settle_one(ctx, &client, &args.devnet, wanted).await?
        }
    };
    let id = proposal_id(&tx).ok_or_else(|| {
        let error = Error::failed("NoProposal", "the transaction is in a block, and its events name no proposal");
        error.with_remedy(format!("dvbctl gov list {}", args.devnet))
    })?;
    if args.wait {
        ctx.note(format!("proposal {id} is on the chain; vote with: dvbctl gov vote {} {id} yes --all-validators", args.devnet));
    }
    let proposal = match args.wait {
        true => follow::decided(ctx, &client, &args.devnet, id).await?,
        false => client.gov().get(reference(ctx, &args.devnet, id)).await?.into_inner(),
    };
    if ctx.is_structured() {
        ctx.print_structured(&proposal)?;
    } else {
        ctx.print(render::progress(&proposal))?;
    }
    if args.wait { follow::check(&args.devnet, &proposal) } else { Ok(()) }
}

/// What the flags come to: read, drafted, completed.
async fn payload(ctx: &Context, client: &Client, args: &Args) -> Result<Map<String, Value>, Error> {
    let mut payload = args.file.as_deref().map(read).transpose()?.unwrap_or_default();
    if !args.params.is_empty() {
        payload.insert("messages".to_owned(), draft(ctx, client, args).await?);
    }
    for (field, value) in [("title", &args.title), ("summary", &args.summary), ("deposit", &args.deposit)] {
        payload.extend(value.as_ref().map(|value| (field.to_owned(), json!(value))));
    }
    if args.expedited {
        payload.insert("expedited".to_owned(), json!(true));
    }
    complete(ctx, client, &args.devnet, &mut payload).await?;
    Ok(payload)
}

/// The proposal of an earlier call with this request id: a draft of now may say something else, since the chain has gone on.
async fn proposed_before(ctx: &Context, client: &Client, args: &Args, request_id: &str) -> Result<Option<Transaction>, Error> {
    let name = format!("{}/{request_id}", args.devnet);
    let found = match client.transactions().get(ctx.object(&name)).await.map_err(Error::from) {
        Ok(found) => found.into_inner(),
        Err(error) if error.exit == Exit::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let spec = found.spec.clone().unwrap_or_default();
    let before: Value = serde_json::from_str(&spec.payload).unwrap_or_default();
    let is_other = args.title.as_ref().is_some_and(|title| before["title"] != json!(title));
    if spec.tx_type != PROPOSE || is_other {
        let message = format!("request id `{request_id}` was used before, for another transaction: {}", spec.tx_type);
        let error = Error::new(Exit::Refused, "AlreadyExists", message).about(name.as_str());
        return Err(error.with_remedy(format!("choose another request id; dvbctl tx status {name} shows what it was")));
    }
    submitted(ctx, client, &found).await.map(Some)
}

/// The messages that change the parameters; the difference goes to stderr.
async fn draft(ctx: &Context, client: &Client, args: &Args) -> Result<Value, Error> {
    let values: BTreeMap<String, String> = args.params.iter().cloned().collect();
    if values.len() < args.params.len() {
        return Err(Error::usage("a parameter is given twice"));
    }
    let request = DraftParamChangeRequest { namespace: ctx.settings.namespace.clone(), devnet: args.devnet.clone(), values };
    let draft = client.gov().draft_param_change(request).await?.into_inner();
    draft.changes.iter().for_each(|change| ctx.note(render::change(change)));
    serde_json::from_str(&draft.messages).map_err(|error| Error::failed("PluginBroken", format!("its draft is no JSON: {error}")))
}

/// What nobody gave: the summary is the title, the deposit what the chain asks for.
async fn complete(ctx: &Context, client: &Client, devnet: &str, payload: &mut Map<String, Value>) -> Result<(), Error> {
    let title = payload.get("title").cloned().ok_or_else(|| Error::usage("the proposal has no title; give --title"))?;
    payload.entry("summary").or_insert(title);
    if !payload.contains_key("deposit") {
        let request = ListProposalsRequest { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned() };
        let params = client.gov().list(request).await?.into_inner().params.unwrap_or_default();
        let expedited = payload.get("expedited") == Some(&json!(true)) && !params.expedited_min_deposit.is_empty();
        let deposit = if expedited { params.expedited_min_deposit } else { params.min_deposit };
        payload.insert("deposit".to_owned(), json!(deposit));
    }
    Ok(())
}

fn read(path: &str) -> Result<Map<String, Value>, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(proposal)) => Ok(proposal),
        Ok(messages @ Value::Array(_)) => Ok(Map::from_iter([("messages".to_owned(), messages)])),
        Ok(_) => Err(Error::usage(format!("{path}: a proposal is a JSON object, or an array of messages"))),
        Err(error) => Err(Error::usage(format!("{path}: {error}"))),
    }
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(path, _)| path.contains('.'));
    let (path, value) = pair.ok_or_else(|| format!("`{text}` is no parameter; write MODULE.FIELD=VALUE, as in staking.max_validators=50"))?;
    Ok((path.trim().to_owned(), value.trim().to_owned()))
}

/// What the chain said while it took the proposal.
fn proposal_id(tx: &Transaction) -> Option<u64> {
    let events = &tx.status.as_ref()?.events;
    let ids = events.iter().filter(|event| event.r#type == "submit_proposal").filter_map(|event| event.attributes.get("proposal_id"));
    ids.filter_map(|id| id.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{TransactionStatus, TxEvent};

    #[test]
    fn a_parameter_is_a_path_and_a_value_that_may_hold_anything() {
        assert_eq!(parse_param("gov.min_deposit=[{\"denom\":\"a=b\"}]"), Ok(("gov.min_deposit".into(), "[{\"denom\":\"a=b\"}]".into())));
        assert!(parse_param("max_validators=5").is_err() && parse_param("staking.max_validators").is_err());
    }

    #[test]
    fn the_id_is_the_one_that_the_chain_tells() {
        let event = |kind: &str, key: &str, value: &str| TxEvent { r#type: kind.into(), attributes: [(key.into(), value.into())].into() };
        let events = vec![
            event("submit_proposal", "proposal_messages", "x"),
            event("proposal_deposit", "proposal_id", "9"),
            event("submit_proposal", "proposal_id", "7"),
        ];
        let tx = Transaction { status: Some(TransactionStatus { events, ..TransactionStatus::default() }), ..Transaction::default() };
        assert_eq!(proposal_id(&tx), Some(7));
        assert_eq!(proposal_id(&Transaction::default()), None);
    }
}
