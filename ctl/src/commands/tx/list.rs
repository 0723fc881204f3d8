//! `tx list`: the transactions of a devnet.

use super::{find, phase};
use crate::{
    context::Context,
    error::Error,
    render::{Named, print_items},
};

/// List the transactions of a devnet, or of all
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "DEVNET")]
    devnets: Vec<String>,
    /// Only those in this phase: Pending, Submitted, Retrying, Confirmed, Failed ...
    #[arg(long)]
    phase: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let mut found = find(ctx, &client, &args.devnets, &ctx.selector()).await?;
    found.retain(|tx| args.phase.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(phase(tx))));
    print_items(ctx, &found, Named::Many, "transactions")
}
