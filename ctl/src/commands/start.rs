//! `start`: a devnet or a node is to run.

use super::{Changed, note_those_apart, one_node_each, settle};
use crate::{context::Context, error::Error, follow::Target};
use dvb_proto::devnet::v1::StartRequest;

/// Start a stopped devnet (NAME) or node (NAME/NODE)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Let this one launch sign although its key is in use elsewhere or its sign-state went back (validators only; is put on record)
    #[arg(long)]
    allow_double_sign: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let targets: Vec<Target> = args.names.iter().map(|name| Target::parse(&ctx.settings.namespace, name)).collect();
    one_node_each(&targets, args.allow_double_sign, "start")?;
    let client = ctx.client().await?;
    for target in &targets {
        let object = ctx.object(target.name());
        let changed = match target.node {
            None => {
                let devnet = client.devnets().start(object).await?.into_inner();
                note_those_apart(ctx, &client, target, ("stopped", "start"), |spec| spec.desired == "stopped").await?;
                Changed::Devnet(Box::new(devnet))
            }
            Some(_) => {
                let request = StartRequest { namespace: object.namespace, name: object.name, allow_double_sign: args.allow_double_sign };
                Changed::Node(Box::new(client.nodes().start(request).await?.into_inner()))
            }
        };
        settle(ctx, &client, target, changed, "start", !args.no_wait).await?;
    }
    Ok(())
}
