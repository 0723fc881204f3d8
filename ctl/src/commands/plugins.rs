//! `plugins`: which chain families are here, and how they do.

use super::get;
use crate::{context::Context, error::Error, kind::Kind};

/// List plugins: the chain families that can be used
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    get::list(ctx, &client, Kind::Plugin, &args.names, &ctx.selector()).await
}
