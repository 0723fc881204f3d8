//! `gov`: proposals on a devnet's chain. What changes the chain is a transaction; what is shown the chain is asked for.

mod cancel;
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
    phase,
    settle::{self, Settling},
    store,
};
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    render::objects::name,
};
use dvb_proto::devnet::v1::{Node, ProposalRef, Transaction};
use serde_json::Value;

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
    Cancel(cancel::Args),
    List(list::Args),
    Show(show::Args),
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Propose(args) => propose::run(ctx, args).await,
        Verb::Vote(args) => vote::run(ctx, args).await,
        Verb::Deposit(args) => deposit::run(ctx, args).await,
        Verb::Cancel(args) => cancel::run(ctx, args).await,
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
    /// Asked again with it, it is the same transaction. None: drawn.
    request_id: Option<String>,
}

/// The transaction when it is in a block; the error when it is refused or Failed.
async fn settle_one(ctx: &Context, client: &Client, devnet: &str, wanted: Wanted<'_>) -> Result<Transaction, Error> {
    settle(ctx, client, devnet, vec![wanted]).await?.pop().ok_or_else(|| Error::failed("Gone", "the transaction was deleted"))?
}

/// Each when it is in a block, or why it is in none. What goes wrong with one holds up no other.
async fn settle(ctx: &Context, client: &Client, devnet: &str, wanted: Vec<Wanted<'_>>) -> Result<Vec<Result<Transaction, Error>>, Error> {
    let settling = Settling::begin(ctx, client, devnet).await?;
    let (mut submitted, mut stored) = (Vec::new(), Vec::new());
    for Wanted { kind, signer, payload, request_id } in wanted {
        let Value::Object(payload) = payload else { return Err(Error::usage("the payload must be a JSON object")) };
        let request_id = request_id.map_or_else(fresh_request_id, Ok)?;
        let intent = Intent { kind: kind.to_owned(), signer: signer.to_owned(), payload, request_id, ..Intent::default() };
        match store(client, intent.into_transaction(&ctx.settings.namespace, devnet)).await {
            Ok(tx) => {
                submitted.push(Ok(name(&tx.metadata).to_owned()));
                stored.push(tx);
            }
            Err(error) if matches!(error.exit, Exit::Refused | Exit::Failed) => submitted.push(Err(error)),
            Err(error) => return Err(error), // nobody is there to submit the others to
        }
    }
    let mut ended = settling.stored(ctx, client, stored).await?;
    let mut outcome = |name: String| match ended.remove(&name) {
        Some(tx) if phase(&tx) == "Failed" => Err(failure(&tx)),
        Some(tx) => Ok(tx),
        None => Err(Error::failed("Gone", format!("transaction {name} was deleted"))),
    };
    Ok(submitted.into_iter().map(|name| name.and_then(&mut outcome)).collect())
}

/// One that is stored already, when it is in a block.
async fn submitted(ctx: &Context, client: &Client, tx: &Transaction) -> Result<Transaction, Error> {
    let tx = settle::one(ctx, client, name(&tx.metadata)).await?;
    if phase(&tx) == "Failed" { Err(failure(&tx)) } else { Ok(tx) }
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
