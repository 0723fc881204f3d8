//! `tx watch`: the transactions of a devnet, and a row for each change.

use super::super::get;
use crate::{context::Context, error::Error};
use dvb_proto::devnet::v1::Transaction;

/// Follow the transactions of a devnet
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "DEVNET|NAME")]
    names: Vec<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    get::follow::<Transaction>(ctx, &client, &args.names, &ctx.selector()).await
}
