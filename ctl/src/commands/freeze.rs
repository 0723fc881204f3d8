//! `freeze`: the processes of a devnet or a node stand still.

use super::{Changed, freezing};
use crate::{context::Context, error::Error, follow::Target};

/// Let all processes of a devnet (NAME) or node (NAME/NODE) stand still, as they are, until `thaw`
///
/// Nothing of it is lost: memory, connections and data stay. A stop or a restart ends a freeze too.
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
            None => Changed::Devnet(Box::new(client.devnets().freeze(object).await?.into_inner())),
            Some(_) => Changed::Node(Box::new(client.nodes().freeze(object).await?.into_inner())),
        };
        freezing(ctx, &client, &target, changed, true, !args.no_wait).await?;
    }
    Ok(())
}
