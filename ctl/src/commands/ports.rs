//! `ports`: the leases, and who holds each port now.

use super::get;
use crate::{context::Context, error::Error, kind::Kind};

/// List leased ports and who holds them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devnets or nodes; none: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    get::list(ctx, &client, Kind::Port, &args.names, &ctx.selector()).await
}
