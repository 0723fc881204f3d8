//! `gov vote`: by one, some, or all validators.

use super::{Wanted, follow, reference, render, settle, validators};
use crate::{context::Context, error::Error};
use serde_json::json;

/// Vote on a proposal
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    id: u64,
    #[arg(value_parser = ["yes", "no", "abstain", "noWithVeto"])]
    option: String,
    /// Each validator of the devnet votes
    #[arg(long, conflicts_with = "signers", required_unless_present = "signers")]
    all_validators: bool,
    /// validator:N, account:N, or the address of one; several with commas
    #[arg(long = "from", value_delimiter = ',', value_name = "WHO")]
    signers: Vec<String>,
    /// Wait until the proposal is passed, rejected or failed; anything but passed is exit 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    // For the NotFound of a proposal that does not exist, before anything is signed.
    client.gov().get(reference(ctx, &args.devnet, args.id)).await?;
    let signers = if args.all_validators { validators(ctx, &client, &args.devnet).await? } else { args.signers };
    let payload = json!({"proposal": args.id, "option": args.option});
    let wanted = signers.iter().map(|signer| Wanted { kind: "gov/vote", signer, payload: payload.clone() });
    settle(ctx, &client, &args.devnet, wanted.collect()).await?;
    ctx.debug(format!("{} voted {} on proposal {}", signers.join(", "), args.option, args.id));
    let proposal = match args.wait {
        true => follow::decided(ctx, &client, &args.devnet, args.id).await?,
        false => client.gov().get(reference(ctx, &args.devnet, args.id)).await?.into_inner(),
    };
    if ctx.is_structured() {
        ctx.print_structured(&proposal)?;
    } else {
        ctx.print(format!("{} voted {}; {}", render::count(signers.len(), "signer"), args.option, render::progress(&proposal)))?;
    }
    if args.wait { follow::check(&args.devnet, &proposal) } else { Ok(()) }
}
