//! `restart`: new launches of a devnet's nodes or of one node; optionally with the binary that was rebuilt in place.

use super::{Changed, one_node_each, settle};
use crate::{context::Context, error::Error, follow::Target};
use dvb_proto::devnet::v1::{RestartDevnetRequest, StartRequest};

/// Restart a devnet (NAME) or node (NAME/NODE)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Take the binary at spec.binary.path as it is now (devnets only)
    #[arg(long)]
    refresh_binary: bool,
    /// Let this one launch sign although its key is in use elsewhere or its sign-state went back (validators only; is put on record)
    #[arg(long)]
    allow_double_sign: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let targets: Vec<Target> = args.names.iter().map(|name| Target::parse(&ctx.settings.namespace, name)).collect();
    if let Some(target) = targets.iter().find(|target| target.node.is_some() && args.refresh_binary) {
        return Err(Error::usage(format!("--refresh-binary is for a whole devnet, and {} is a node", target.name()))
            .with_remedy(format!("dvbctl restart {} --refresh-binary", target.devnet)));
    }
    one_node_each(&targets, args.allow_double_sign, "restart")?;
    let client = ctx.client().await?;
    for target in &targets {
        let object = ctx.object(target.name());
        let changed = match target.node {
            None => {
                let request = RestartDevnetRequest { namespace: object.namespace, name: object.name, refresh_binary: args.refresh_binary };
                Changed::Devnet(Box::new(client.devnets().restart(request).await?.into_inner()))
            }
            Some(_) => {
                let request = StartRequest { namespace: object.namespace, name: object.name, allow_double_sign: args.allow_double_sign };
                Changed::Node(Box::new(client.nodes().restart(request).await?.into_inner()))
            }
        };
        settle(ctx, &client, target, changed, "restart", !args.no_wait).await?;
    }
    Ok(())
}
