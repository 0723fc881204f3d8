//! `gov cancel`: takes a proposal back.

use super::{Wanted, reference, settle_one};
use crate::{context::Context, error::Error};
use serde_json::json;

/// Take a proposal back before its vote ends: only who proposed it can, on Cosmos SDK 0.50 and later
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    id: u64,
    /// account:N, validator:N, or the address of one
    #[arg(long = "from", default_value = "account:0", value_name = "WHO")]
    signer: String,
    /// A second call with the same id is the same transaction
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    if args.request_id.is_none() {
        // For the NotFound of a proposal that does not exist, before anything is signed.
        client.gov().get(reference(ctx, &args.devnet, args.id)).await?;
    }
    let payload = json!({"proposal": args.id});
    let wanted = Wanted { kind: "gov/cancel-proposal", signer: &args.signer, payload, request_id: args.request_id };
    let tx = settle_one(ctx, &client, &args.devnet, wanted).await?;
    if ctx.is_structured() {
        return ctx.print_structured(&tx);
    }
    Ok(ctx.print(format!("proposal {} of {} is cancelled; the chain keeps a part of its deposit", args.id, args.devnet))?)
}
