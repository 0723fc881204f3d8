//! `gov list`: the proposals of a devnet's chain.

use crate::{
    context::Context,
    error::Error,
    render::{Named, print_items},
};
use dvb_proto::devnet::v1::ListProposalsRequest;

/// List the proposals of a devnet's chain
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    /// Only those of this status
    #[arg(long, value_parser = ["deposit", "voting", "passed", "rejected", "failed"], ignore_case = true)]
    status: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let request = ListProposalsRequest { namespace: ctx.settings.namespace.clone(), devnet: args.devnet };
    let mut items = ctx.client().await?.gov().list(request).await?.into_inner().items;
    items.retain(|proposal| args.status.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&proposal.status)));
    print_items(ctx, &items, Named::Many, "proposals")
}
