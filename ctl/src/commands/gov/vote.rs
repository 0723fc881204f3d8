//! `gov vote`: by one, some, or all validators.

use super::{Wanted, follow, reference, render, settle, validators};
use crate::{context::Context, error::Error};
use serde_json::{Map, Value, json};

const OPTIONS: [&str; 4] = ["yes", "no", "abstain", "noWithVeto"];

/// Vote on a proposal
///
/// dvbctl gov vote mynet 1 yes --all-validators   |   dvbctl gov vote mynet 1 --option yes=0.7,no=0.3 --from validator:0
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("choice").required(true).args(["option", "options"])))]
pub(super) struct Args {
    devnet: String,
    id: u64,
    #[arg(value_parser = OPTIONS)]
    option: Option<String>,
    /// A vote in parts that come to 1
    #[arg(long = "option", value_delimiter = ',', value_parser = parse_part, value_name = "OPTION=WEIGHT")]
    options: Vec<(String, String)>,
    /// Each validator of the devnet votes
    #[arg(long, conflicts_with = "signers", required_unless_present = "signers")]
    all_validators: bool,
    /// validator:N, account:N, or the address of one; several with commas
    #[arg(long = "from", value_delimiter = ',', value_name = "WHO")]
    signers: Vec<String>,
    /// A second call with the same id is the same votes
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait until the proposal is passed, rejected or failed; anything but passed is exit 1
    #[arg(long)]
    wait: bool,
}

/// Votes that failed are told one by one, and are exit 1 in the end; the others count.
pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let (choice, payload) = payload(&args)?;
    let client = ctx.client().await?;
    // For the NotFound of a proposal that does not exist, before anything is signed.
    client.gov().get(reference(ctx, &args.devnet, args.id)).await?;
    let signers = if args.all_validators { validators(ctx, &client, &args.devnet).await? } else { args.signers };
    let wanted = signers.iter().map(|signer| Wanted {
        kind: "gov/vote",
        signer,
        payload: payload.clone(),
        request_id: args.request_id.as_ref().map(|id| format!("{id}-{signer}")),
    });
    let outcomes = settle(ctx, &client, &args.devnet, wanted.collect()).await?;
    let failed: Vec<(&String, Error)> = signers.iter().zip(outcomes).filter_map(|(signer, outcome)| Some((signer, outcome.err()?))).collect();
    if failed.len() == signers.len() {
        return Err(failure(&args.devnet, args.id, signers.len(), failed));
    }
    if args.wait {
        failed.iter().for_each(|(signer, error)| ctx.note(format!("{signer} did not vote: {}", error.fault.message)));
    }
    let proposal = match args.wait {
        true => follow::decided(ctx, &client, &args.devnet, args.id).await?,
        false => client.gov().get(reference(ctx, &args.devnet, args.id)).await?.into_inner(),
    };
    if ctx.is_structured() {
        ctx.print_structured(&proposal)?;
    } else {
        let voted = render::count(signers.len() - failed.len(), "signer");
        ctx.print(format!("{voted} voted {choice}; {}", render::progress(&proposal)))?;
    }
    if !failed.is_empty() {
        return Err(failure(&args.devnet, args.id, signers.len(), failed));
    }
    if args.wait { follow::check(&args.devnet, &proposal) } else { Ok(()) }
}

/// What is voted, in words and for the chain.
fn payload(args: &Args) -> Result<(String, Value), Error> {
    if let Some(option) = &args.option {
        return Ok((option.clone(), json!({"proposal": args.id, "option": option})));
    }
    let parts: Map<String, Value> = args.options.iter().map(|(option, weight)| (option.clone(), json!(weight))).collect();
    if parts.len() < args.options.len() {
        return Err(Error::usage("an option is given twice"));
    }
    let choice = args.options.iter().map(|(option, weight)| format!("{option}={weight}")).collect::<Vec<_>>().join(",");
    Ok((choice, json!({"proposal": args.id, "options": parts})))
}

fn parse_part(text: &str) -> Result<(String, String), String> {
    let (option, weight) = text.split_once('=').ok_or_else(|| format!("`{text}`: write OPTION=WEIGHT, as in yes=0.7,no=0.3"))?;
    if !OPTIONS.contains(&option) {
        return Err(format!("`{option}`: write {}", OPTIONS.join(", ")));
    }
    match weight.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok((option.to_owned(), weight.to_owned())),
        _ => Err(format!("`{weight}` is no part of a vote: more than 0, at most 1, all together 1")),
    }
}

fn failure(devnet: &str, id: u64, asked: usize, failed: Vec<(&String, Error)>) -> Error {
    let remedy = failed.iter().find_map(|(_, error)| error.fault.remedy.clone());
    let message = format!("{} of {} on proposal {id} failed", render::count(failed.len(), "vote"), asked);
    let error = Error::failed("VoteFailed", message).about(devnet).with_remedy(remedy.unwrap_or_else(|| format!("dvbctl gov show {devnet} {id}")));
    failed.into_iter().fold(error, |error, (signer, why)| error.with_note(format!("{signer}: {}", why.fault.message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_vote_is_an_option_and_a_weight() {
        assert_eq!(parse_part("yes=0.7"), Ok(("yes".into(), "0.7".into())));
        for (wrong, says) in
            [("yes", "OPTION=WEIGHT"), ("maybe=1", "noWithVeto"), ("no=1.5", "at most 1"), ("no=-1", "more than 0"), ("no=x", "no part")]
        {
            assert!(parse_part(wrong).unwrap_err().contains(says), "{wrong}");
        }
    }
}
