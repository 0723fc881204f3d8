//! `upgrade create`: asks for one.

use super::{finish, tell};
use crate::{context::Context, document::absolute, error::Error, render::objects::name};
use dvb_proto::devnet::v1::{BinarySource, GoModule, Metadata, Upgrade, UpgradeSpec};

/// Upgrade a running chain to another binary
///
/// With governance: proposes, votes with all validators, waits for the halt at the height, switches, verifies. With --skip-vote nodes
/// are told of the height one by one, or, without --height, the binary is swapped at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    /// As the new binary's upgrade handler is called
    #[arg(long)]
    name: String,
    /// At which the chain halts [default: the first that the vote allows; at once with --skip-vote]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    height: u64,
    #[command(flatten)]
    source: Source,
    /// No proposal and no vote
    #[arg(long)]
    skip_vote: bool,
    /// One node after the other, while the chain goes on: for a binary that changes no state
    #[arg(long, requires = "skip_vote", conflicts_with = "height")]
    rolling: bool,
    /// Blocks in which all nodes must come to the same state [default: 3]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    verify_blocks: u32,
    /// Go on although the binary does not seem to know an upgrade of this name
    #[arg(long)]
    assume_handler: bool,
    /// Wait until it has ended; anything but Completed is exit 1
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Source {
    /// The new binary, on this machine
    #[arg(long, value_name = "PATH", conflicts_with_all = ["go_module", "url"])]
    binary: Option<String>,
    /// The new binary as a Go module
    #[arg(long, value_name = "MODULE@VERSION", conflicts_with = "url")]
    go_module: Option<String>,
    /// Main package of the Go module
    #[arg(long, requires = "go_module")]
    package: Option<String>,
    /// Download; needs --sha256
    #[arg(long, requires = "sha256")]
    url: Option<String>,
    #[arg(long, requires = "url")]
    sha256: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let spec = UpgradeSpec {
        devnet_ref: args.devnet,
        upgrade_name: args.name,
        height: args.height,
        binary: Some(args.source.resolve(ctx)?),
        skip_vote: args.skip_vote,
        verify_blocks: args.verify_blocks,
        rolling: args.rolling,
        assume_handler: args.assume_handler,
        ..UpgradeSpec::default()
    };
    let metadata = Metadata { namespace: ctx.settings.namespace.clone(), ..Metadata::default() };
    let wanted = Upgrade { metadata: Some(metadata), spec: Some(spec), ..Upgrade::default() };
    let client = ctx.client().await?;
    let upgrade = client.upgrades().create(wanted).await?.into_inner();
    if args.wait { finish(ctx, &client, name(&upgrade.metadata)).await } else { tell(ctx, &upgrade, "requested") }
}

impl Source {
    fn resolve(self, ctx: &Context) -> Result<BinarySource, Error> {
        let go_module = self.go_module.map(|named| {
            let (module, version) =
                named.split_once('@').ok_or_else(|| Error::usage(format!("--go-module {named} names no version: MODULE@VERSION")))?;
            Ok::<_, Error>(GoModule { module: module.to_owned(), version: version.to_owned(), package: self.package, ..GoModule::default() })
        });
        let path = self.binary.map(|path| absolute(&ctx.settings.cwd, &path));
        Ok(BinarySource { path, go_module: go_module.transpose()?, url: self.url, sha256: self.sha256, ..BinarySource::default() })
    }
}
