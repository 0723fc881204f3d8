//! `orphans`: what belongs to this home and is not accounted for.

use crate::{
    confirm::confirm,
    context::Context,
    error::Error,
    render::{Named, print_items},
};
use dvb_proto::devnet::v1::{Empty, Orphan, ReapOrphansRequest};

/// List what belongs to this home and nobody accounts for: processes, cgroups, keepers, folders
///
/// There should be none. What is listed was left by a crash, by another kernel namespace, or by hand.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill or remove what is listed; folders only with --data
    #[arg(long)]
    reap: bool,
    /// Also remove folders of devnets that are no more; their files are lost
    #[arg(long, requires = "reap")]
    data: bool,
    /// Do not ask
    #[arg(short, long, requires = "reap")]
    yes: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let found = client.daemon().list_orphans(Empty {}).await?.into_inner().items;
    if !args.reap {
        return print_items(ctx, &found, Named::Many, "orphans");
    }
    let chosen: Vec<Orphan> = found.into_iter().filter(|orphan| args.data || !orphan.holds_data).collect();
    if chosen.is_empty() {
        ctx.note("no orphans");
        return Ok(());
    }
    let list: Vec<String> = chosen.iter().map(|orphan| format!("{}: {}", orphan.id, orphan.what)).collect();
    let command = if args.data { "dvbctl orphans --reap --data" } else { "dvbctl orphans --reap" };
    confirm(ctx, args.yes, &format!("Kill or remove {}.", list.join("; ")), command)?;
    let ids = chosen.into_iter().map(|orphan| orphan.id).collect();
    let results = client.daemon().reap_orphans(ReapOrphansRequest { ids }).await?.into_inner().items;
    let mut failed = Vec::new();
    for result in results {
        match result.failure {
            None => ctx.print(format!("{} is gone", result.id))?,
            Some(failure) => failed.push(format!("{}: {failure}", result.id)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::failed("NotReaped", failed.join("; ")).with_remedy("dvbctl orphans")) }
}
