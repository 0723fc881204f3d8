//! `freeze` and `thaw`: the processes of a devnet or a node stand still, and go on.

use super::{Changed, freezing, note_those_apart};
use crate::{context::Context, error::Error, follow::Target};

/// Let all processes of a devnet (NAME) or node (NAME/NODE) stand still, as they are, until `thaw`
///
/// Nothing of it is lost: memory, connections and data stay. A stop or a restart ends a freeze too.
#[derive(Debug, clap::Args)]
pub(crate) struct Freeze {
    #[command(flatten)]
    which: Which,
}

/// Let a frozen devnet (NAME) or node (NAME/NODE) go on
///
/// A node that was frozen by itself stays so when its devnet is thawed.
#[derive(Debug, clap::Args)]
pub(crate) struct Thaw {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn freeze(ctx: &Context, args: Freeze) -> Result<(), Error> {
    each(ctx, &args.which, true).await
}

pub(crate) async fn thaw(ctx: &Context, args: Thaw) -> Result<(), Error> {
    each(ctx, &args.which, false).await
}

async fn each(ctx: &Context, which: &Which, on: bool) -> Result<(), Error> {
    let client = ctx.client().await?;
    for name in &which.names {
        let target = Target::parse(&ctx.settings.namespace, name);
        let (object, mut devnets, mut nodes) = (ctx.object(name), client.devnets(), client.nodes());
        let changed = match (&target.node, on) {
            (None, true) => Changed::Devnet(Box::new(devnets.freeze(object).await?.into_inner())),
            (None, false) => {
                let devnet = devnets.thaw(object).await?.into_inner();
                note_those_apart(ctx, &client, &target, ("frozen", "thaw"), |spec| spec.frozen).await?;
                Changed::Devnet(Box::new(devnet))
            }
            (Some(_), true) => Changed::Node(Box::new(nodes.freeze(object).await?.into_inner())),
            (Some(_), false) => Changed::Node(Box::new(nodes.thaw(object).await?.into_inner())),
        };
        freezing(ctx, &client, &target, changed, on, !which.no_wait).await?;
    }
    Ok(())
}
