//! `tx`: transactions as objects that the daemon drives to their end.

mod batch;
pub(super) mod intent;
mod list;
pub(super) mod settle;
mod status;
mod submit;
mod types;
mod watch;

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    render::{self, objects::name},
    watch::{AWAY_LIMIT, LOOK_AGAIN},
};
use dvb_proto::devnet::v1::{ListEventsRequest, ListRequest, Transaction};
use futures::TryStreamExt;
use std::time::Instant;

const PHASES: [&str; 7] = ["Pending", "Building", "Signing", "Submitted", "Retrying", "Confirmed", "Failed"];
const FINAL: [&str; 2] = ["Confirmed", "Failed"];

/// Submit transactions and follow them
///
/// dvbctl tx submit mynet --type bank/send --signer account:0 --to account:1 --amount 7stake --wait
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Submit(submit::Args),
    Batch(batch::Args),
    Status(status::Args),
    List(list::Args),
    Watch(watch::Args),
    Types(types::Types),
    Templates(types::Templates),
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Submit(args) => submit::run(ctx, args).await,
        Verb::Batch(args) => batch::run(ctx, args).await,
        Verb::Status(args) => status::run(ctx, args).await,
        Verb::List(args) => list::run(ctx, args).await,
        Verb::Watch(args) => watch::run(ctx, args).await,
        Verb::Types(args) => types::list(ctx, args).await,
        Verb::Templates(args) => types::template(ctx, args).await,
    }
}

/// Transactions by name: `a/tx-b` is one, `a` all of devnet a; no name: all that the selector takes.
pub(super) async fn find(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<Vec<Transaction>, Error> {
    if names.is_empty() {
        return Ok(client.transactions().list(selector.clone()).await?.into_inner().items);
    }
    let mut found = Vec::new();
    for name in names {
        if name.contains('/') {
            found.push(client.transactions().get(ctx.object(name)).await?.into_inner());
            continue;
        }
        let items = client.transactions().list(ListRequest { devnet: name.clone(), ..selector.clone() }).await?.into_inner().items;
        if items.is_empty() {
            client.devnets().get(ctx.object(name)).await?; // for the NotFound of a devnet that does not exist
        }
        found.extend(items);
    }
    Ok(found)
}

/// The long form, with its events.
pub(super) async fn describe(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let tx = client.transactions().get(ctx.object(wanted)).await?.into_inner();
    let own = name(&tx.metadata).to_owned(); // it may have been asked for by its request id
    let request = ListEventsRequest { selector: Some(ctx.selector()), name: own, limit: 20, ..ListEventsRequest::default() };
    let events: Vec<_> = client.devnets().list_events(request).await?.into_inner().try_collect().await?;
    render::describe::transaction(&tx, &events, &ctx.style())
}

/// Submits it; again when the daemon went away before it answered: the request id makes that the same transaction.
pub(super) async fn store(client: &Client, tx: Transaction) -> Result<Transaction, Error> {
    let mut lost: Option<Instant> = None;
    loop {
        let error = match client.transactions().create(tx.clone()).await {
            Ok(stored) => return Ok(stored.into_inner()),
            Err(status) => Error::from(status),
        };
        let since = lost.get_or_insert_with(Instant::now);
        if !is_passing(&error) || since.elapsed() > AWAY_LIMIT {
            return Err(error);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The daemon went away in the middle.
fn is_passing(error: &Error) -> bool {
    error.exit == Exit::Unreachable || matches!(error.fault.code.as_str(), "ShuttingDown" | "Unknown" | "Cancelled")
}

pub(super) fn phase(tx: &Transaction) -> &str {
    tx.status.as_ref().map_or("", |status| status.phase.as_str())
}

fn is_final(tx: &Transaction) -> bool {
    FINAL.contains(&phase(tx))
}

/// `mynet/tx-0123 is Failed: insufficient funds`
pub(super) fn failure(tx: &Transaction) -> Error {
    let name = name(&tx.metadata);
    let words = tx.status.as_ref().and_then(|status| status.error.clone()).unwrap_or_default();
    Error::failed("TransactionFailed", format!("transaction {name} is Failed: {words}")).about(name).with_remedy(format!("dvbctl why {name}"))
}
