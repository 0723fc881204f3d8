//! `thaw`: the processes of a devnet or a node go on.

use super::{Changed, freezing};
use crate::{context::Context, error::Error, follow::Target};

/// Let a frozen devnet (NAME) or node (NAME/NODE) go on
///
/// A node that was frozen by itself stays so when its devnet is thawed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    for name in &args.names {
        let target = Target::parse(&ctx.settings.namespace, name);
        let object = ctx.object(name);
        let changed = match target.node {
            None => Changed::Devnet(Box::new(client.devnets().thaw(object).await?.into_inner())),
            Some(_) => Changed::Node(Box::new(client.nodes().thaw(object).await?.into_inner())),
        };
        freezing(ctx, &client, &target, changed, false, !args.no_wait).await?;
    }
    Ok(())
}
