//! `start`: a devnet or a node is to run.

use super::{Changed, settle};
use crate::{context::Context, error::Error, follow::Target};

/// Start a stopped devnet (NAME) or node (NAME/NODE)
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
            None => Changed::Devnet(Box::new(client.devnets().start(object).await?.into_inner())),
            Some(_) => Changed::Node(Box::new(client.nodes().start(object).await?.into_inner())),
        };
        settle(ctx, &client, &target, changed, "start", !args.no_wait).await?;
    }
    Ok(())
}
