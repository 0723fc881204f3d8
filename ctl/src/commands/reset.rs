//! `reset`: back to height 0 with the same keys, addresses and spec.

use super::{Changed, one_devnet, settle};
use crate::{confirm::confirm, context::Context, error::Error, follow::Target};

/// Put devnets back to height 0: same keys, addresses and spec; blocks and state are lost
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    args.names.iter().try_for_each(|name| one_devnet(name))?;
    let list = args.names.join(" ");
    confirm(ctx, args.yes, &format!("Reset {list}: all blocks and state are lost."), &format!("dvbctl reset {list}"))?;
    let client = ctx.client().await?;
    for name in &args.names {
        let target = Target::parse(&ctx.settings.namespace, name);
        let changed = client.devnets().reset(ctx.object(name)).await?.into_inner();
        settle(ctx, &client, &target, Changed::Devnet(Box::new(changed)), "reset", !args.no_wait).await?;
    }
    Ok(())
}
