//! `stop`: a devnet or a node is not to run; its data stays.

use super::{Changed, settle};
use crate::{context::Context, error::Error, follow::Target};

/// Stop a devnet (NAME) or node (NAME/NODE); its data stays
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
            None => Changed::Devnet(Box::new(client.devnets().stop(object).await?.into_inner())),
            Some(_) => Changed::Node(Box::new(client.nodes().stop(object).await?.into_inner())),
        };
        settle(ctx, &client, &target, changed, "stop", !args.no_wait).await?;
    }
    Ok(())
}
