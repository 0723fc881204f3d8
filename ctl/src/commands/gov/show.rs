//! `gov show`: one proposal, with its tally, its votes and what it would change.

use super::{follow, reference, render};
use crate::{cli::Format, context::Context, error::Error};

/// Show a proposal: its tally, its votes, and what it would change
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    id: u64,
    /// Wait until it is passed, rejected or failed; anything but passed is exit 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let proposal = match args.wait {
        true => follow::decided(ctx, &client, &args.devnet, args.id).await?,
        false => client.gov().get(reference(ctx, &args.devnet, args.id)).await?.into_inner(),
    };
    match ctx.settings.format {
        Format::Json | Format::Yaml => ctx.print_structured(&proposal)?,
        Format::Name => ctx.print(format!("proposal/{}", proposal.id))?,
        Format::Table | Format::Wide => ctx.print(render::describe(&proposal).trim_end())?,
    }
    if args.wait { follow::check(&args.devnet, &proposal) } else { Ok(()) }
}
