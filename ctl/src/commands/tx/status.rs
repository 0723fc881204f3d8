//! `tx status`: how one transaction does.

use super::{describe, failure, phase, settle};
use crate::{
    cli::Format,
    context::Context,
    error::Error,
    render::{Named, objects::name, print_items},
};

/// Show one transaction
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// DEVNET/tx-..., or DEVNET/REQUEST-ID
    name: String,
    /// Wait until it is Confirmed or Failed; Failed is exit 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let tx = client.transactions().get(ctx.object(&args.name)).await?.into_inner();
    let tx = if args.wait { settle::one(ctx, &client, name(&tx.metadata)).await? } else { tx };
    match ctx.settings.format {
        Format::Table | Format::Wide => ctx.print(describe(ctx, &client, &args.name).await?.trim_end())?,
        _ => print_items(ctx, std::slice::from_ref(&tx), Named::One, "")?,
    }
    if args.wait && phase(&tx) == "Failed" { Err(failure(&tx)) } else { Ok(()) }
}
