//! `gov deposit`: adds to the deposit of a proposal.

use super::{Wanted, reference, render, settle_one};
use crate::{context::Context, error::Error};
use serde_json::json;

/// Add to the deposit of a proposal
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    id: u64,
    /// As in 1000stake
    #[arg(allow_hyphen_values = true)]
    amount: String,
    /// account:N, validator:N, or the address of one
    #[arg(long = "from", default_value = "account:0", value_name = "WHO")]
    signer: String,
    /// A second call with the same id is the same transaction
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let payload = json!({"proposal": args.id, "amount": args.amount});
    let wanted = Wanted { kind: "gov/deposit", signer: &args.signer, payload, request_id: args.request_id };
    settle_one(ctx, &client, &args.devnet, wanted).await?;
    let proposal = client.gov().get(reference(ctx, &args.devnet, args.id)).await?.into_inner();
    if ctx.is_structured() {
        return ctx.print_structured(&proposal);
    }
    Ok(ctx.print(format!("{}; its deposit is {}", render::progress(&proposal), proposal.total_deposit))?)
}
