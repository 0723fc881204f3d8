//! `tx list`: the transactions of a devnet.

use super::{PHASES, find, phase};
use crate::{
    context::Context,
    error::Error,
    render::{Named, print_items},
};
use dvb_proto::devnet::v1::Transaction;

/// List the transactions of a devnet, or of all
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "DEVNET")]
    devnets: Vec<String>,
    /// Only those in this phase
    #[arg(long, value_parser = PHASES, ignore_case = true)]
    phase: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let mut found = find(ctx, &client, &args.devnets, &ctx.selector()).await?;
    found.retain(|tx| args.phase.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(phase(tx))));
    // The store goes by name, which is a digest.
    found.sort_by(|a, b| created(a).cmp(created(b)));
    print_items(ctx, &found, Named::Many, "transactions")
}

/// RFC 3339 in UTC: text sorts as time does.
fn created(tx: &Transaction) -> &str {
    tx.metadata.as_ref().map_or("", |metadata| metadata.created_at.as_str())
}
