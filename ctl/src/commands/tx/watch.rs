//! `tx watch`: the transactions of a devnet, and a row for each change.

use super::{super::get, failure, is_final, phase};
use crate::{client::Client, context::Context, error::Error, render::objects::name};
use dvb_proto::devnet::v1::Transaction;

/// Follow the transactions of a devnet; or those named, until the last is Confirmed or Failed: Failed is exit 1
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A devnet, DEVNET/tx-..., or DEVNET/REQUEST-ID
    #[arg(value_name = "DEVNET|NAME")]
    names: Vec<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    get::follow_to_end::<Transaction>(ctx, &client, &args.names, &ctx.selector()).await
}

impl get::Ending for Transaction {
    async fn full_name(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
        Ok(name(&client.transactions().get(ctx.object(wanted)).await?.into_inner().metadata).to_owned())
    }
    fn ended(&self) -> Option<Result<(), Error>> {
        is_final(self).then(|| if phase(self) == "Failed" { Err(failure(self)) } else { Ok(()) })
    }
}
