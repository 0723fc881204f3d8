//! `gov`: proposals on a devnet's chain. What changes the chain is a transaction; what is shown the chain is asked for.

mod deposit;
mod follow;
mod list;
mod propose;
mod render;
mod show;
mod vote;

use super::tx::{
    failure,
    intent::{Intent, fresh_request_id},
    phase, settle,
};
use crate::{client::Client, context::Context, error::Error, render::objects::name};
use dvb_proto::devnet::v1::{Node, ProposalRef, Transaction};
use serde_json::Value;
use std::collections::BTreeSet;

/// Propose, vote and deposit on a devnet's chain, and see how its proposals stand
///
/// dvbctl gov propose mynet --title "More validators" --param staking.max_validators=200
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Propose(propose::Args),
    Vote(vote::Args),
    Deposit(deposit::Args),
    List(list::Args),
    Show(show::Args),
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Propose(args) => propose::run(ctx, args).await,
        Verb::Vote(args) => vote::run(ctx, args).await,
        Verb::Deposit(args) => deposit::run(ctx, args).await,
        Verb::List(args) => list::run(ctx, args).await,
        Verb::Show(args) => show::run(ctx, args).await,
    }
}

fn reference(ctx: &Context, devnet: &str, id: u64) -> ProposalRef {
    ProposalRef { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned(), id }
}

/// What one signer wants on the chain.
struct Wanted<'a> {
    kind: &'a str,
    signer: &'a str,
    payload: Value,
}

/// Until each is in a block. The first that is Failed is the error.
async fn settle(ctx: &Context, client: &Client, devnet: &str, wanted: Vec<Wanted<'_>>) -> Result<Vec<Transaction>, Error> {
    let mut names = Vec::new();
    for Wanted { kind, signer, payload } in wanted {
        let Value::Object(payload) = payload else { return Err(Error::usage("the payload must be a JSON object")) };
        let intent = Intent { kind: kind.to_owned(), signer: signer.to_owned(), payload, request_id: fresh_request_id()?, ..Intent::default() };
        let tx = client.transactions().create(intent.into_transaction(&ctx.settings.namespace, devnet)).await?.into_inner();
        names.push(name(&tx.metadata).to_owned());
    }
    let waiting: BTreeSet<String> = names.iter().cloned().collect();
    let mut ended = settle::all(ctx, client, devnet, waiting, |_| {}).await?;
    let ended: Vec<Transaction> = names.iter().filter_map(|name| ended.remove(name)).collect();
    match ended.iter().find(|tx| phase(tx) == "Failed") {
        Some(failed) => Err(failure(failed)),
        None => Ok(ended),
    }
}

/// `validator:0` and so on, as many as the devnet has.
async fn validators(ctx: &Context, client: &Client, devnet: &str) -> Result<Vec<String>, Error> {
    let selector = dvb_proto::devnet::v1::ListRequest { devnet: devnet.to_owned(), ..ctx.selector() };
    let nodes = client.nodes().list(selector).await?.into_inner().items;
    let index = |node: &Node| node.spec.as_ref().filter(|spec| spec.role == "validator").map(|spec| spec.index);
    let mut indices: Vec<u32> = nodes.iter().filter_map(index).collect();
    indices.sort_unstable();
    Ok(indices.into_iter().map(|index| format!("validator:{index}")).collect())
}
