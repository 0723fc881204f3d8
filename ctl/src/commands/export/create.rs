//! `export create`: asks for one, and may wait for its file.

use super::{settle, succeeded, tell};
use crate::{context::Context, document::absolute, error::Error, render::objects::name};
use dvb_proto::devnet::v1::{Export, ExportSpec, Metadata};
use std::fs::OpenOptions;

/// Write a running devnet's state to a file
///
/// A node stands still for moments while its data is cloned; the chain's program reads the clone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    /// Name of the export [default: export-1 and so on]
    name: Option<String>,
    /// Whose state [default: the newest]
    #[arg(long)]
    height: Option<u64>,
    /// Have the chain make the state ready for a chain that begins at height 0
    #[arg(long)]
    for_zero_height: bool,
    /// Whose data is read, as in validator-1 [default: the node that is missed least]
    #[arg(long)]
    node: Option<String>,
    /// What the chain's program may take, as in 8Gi [default: 4Gi]
    #[arg(long)]
    memory: Option<String>,
    /// Copy the state there when it is whole; waits for that
    #[arg(long, value_name = "FILE")]
    to: Option<String>,
    /// Wait until it has ended; anything but Completed is exit 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let metadata = Metadata { namespace: ctx.settings.namespace.clone(), name: args.name.unwrap_or_default(), ..Metadata::default() };
    let Args { devnet: devnet_ref, height, for_zero_height, node, memory, .. } = args;
    let spec = ExportSpec { devnet_ref, height, for_zero_height, node, memory };
    let wanted = Export { metadata: Some(metadata), spec: Some(spec), ..Export::default() };
    if let Some(file) = &args.to {
        check_writable(&absolute(&ctx.settings.cwd, file))?;
    }
    let client = ctx.client().await?;
    let export = client.exports().create(wanted).await?.into_inner();
    if !args.wait && args.to.is_none() {
        return tell(ctx, &export, "requested");
    }
    let export = settle::ended(ctx, &client, name(&export.metadata)).await?;
    if let Some(file) = &args.to {
        succeeded(&export)?;
        copy(ctx, &export, file)?;
    }
    settle::report(ctx, &export)
}

/// Before anything is exported: whether the file can be written. What is in it stays, and what was not there is not there afterwards.
fn check_writable(to: &str) -> Result<(), Error> {
    let is_new = std::fs::symlink_metadata(to).is_err(); // a link that leads nowhere is there
    let opened = OpenOptions::new().append(true).create(true).open(to);
    opened.map_err(|error| Error::file(to, &error).with_remedy("--to FILE, in a folder that is there and that you may write to"))?;
    if is_new {
        std::fs::remove_file(to).map_err(|error| Error::file(to, &error))?;
    }
    Ok(())
}

/// The daemon runs on this machine, so its file is here.
fn copy(ctx: &Context, export: &Export, file: &str) -> Result<(), Error> {
    let from = export.status.as_ref().and_then(|status| status.path.clone()).unwrap_or_default();
    let to = absolute(&ctx.settings.cwd, file);
    std::fs::copy(&from, &to)
        .map(drop)
        .map_err(|error| Error::failed("Io", format!("cannot copy {from} to {to}: {error}")).with_remedy(format!("cp {from} FILE")))
}
