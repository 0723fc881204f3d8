//! `delete`: devnets go, with processes, files, ports and leases; with `-f`, all that documents declare.

mod declared;

use super::revision;
use crate::{
    client::Client,
    confirm::confirm,
    context::Context,
    error::Error,
    follow::{Target, follow},
    goal::Goal,
    kind::{Kind, split},
    render::progress::{Progress, Request},
};
use dvb_proto::devnet::v1::DeleteRequest;

/// Delete devnets with their processes, files, ports and leases
///
/// dvbctl delete NAME...   |   dvbctl delete devnets --all --yes   |   dvbctl delete -f FILE
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// [devnet] NAME...
    #[arg(value_name = "NAME")]
    words: Vec<String>,
    /// What the documents of a file or folder (- for stdin) declare: devnets, and upgrades, transactions and exports of others
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with_all = ["words", "all"])]
    file: Vec<String>,
    /// All devnets of the namespace (with -A, of all namespaces)
    #[arg(long)]
    all: bool,
    /// Keep the files
    #[arg(long)]
    keep_data: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    if !args.file.is_empty() {
        return declared::run(ctx, &args).await;
    }
    let names = names(&args)?;
    let client = ctx.client().await?;
    let targets: Vec<Target> = if args.all {
        let devnets = client.devnets().list(ctx.selector()).await?.into_inner().items;
        let metadata = devnets.into_iter().filter_map(|devnet| devnet.metadata);
        metadata.map(|metadata| Target { namespace: metadata.namespace, devnet: metadata.name, node: None }).collect()
    } else {
        // A name that does not exist is told before anything is asked or lost.
        for name in names {
            client.devnets().get(ctx.object(name)).await?;
        }
        names.iter().map(|name| Target::parse(&ctx.settings.namespace, name)).collect()
    };
    if targets.is_empty() {
        ctx.note("no devnets");
        return Ok(());
    }
    let list: Vec<&str> = targets.iter().map(Target::name).collect();
    let list = list.join(" ");
    let files = if args.keep_data { "their files stay" } else { "their files are lost" };
    let command = if args.all { "dvbctl delete devnets --all".to_owned() } else { format!("dvbctl delete {list}") };
    confirm(ctx, args.yes, &format!("Delete {list}; {files}."), &command)?;
    devnets(ctx, &client, &args, &targets).await
}

/// All are marked first: they end side by side.
async fn devnets(ctx: &Context, client: &Client, args: &Args, targets: &[Target]) -> Result<(), Error> {
    let mut revisions = Vec::new();
    for target in targets {
        let request =
            DeleteRequest { namespace: target.namespace.clone(), name: target.devnet.clone(), keep_data: args.keep_data, resource_version: None };
        let deleted = client.devnets().delete(request).await?.into_inner();
        revisions.push(revision(&deleted.metadata));
    }
    for (target, revision) in targets.iter().zip(revisions) {
        let word = if args.no_wait { "is being deleted" } else { "deleted" };
        if !args.no_wait {
            let mut progress = Progress::of(ctx, Request { revision, node: None });
            let goal = Goal::Deleted { node: None };
            let way_on = format!("dvbctl wait --for=delete {}; the deletion goes on without dvbctl", target.devnet);
            follow(ctx, client, target, &goal, &way_on, |view, missing| progress.see(view, missing)).await?;
        }
        match ctx.settings.format {
            crate::cli::Format::Name => ctx.print(format!("devnet/{}", target.devnet))?,
            _ => ctx.print(format!("devnet {} {word}", target.devnet))?,
        }
    }
    Ok(())
}

fn names(args: &Args) -> Result<&[String], Error> {
    let (kind, names) = split(&args.words);
    match kind {
        None | Some(Kind::Devnet) => {}
        Some(Kind::Node) => {
            return Err(Error::usage("nodes belong to their devnet and are not deleted one by one")
                .with_remedy("lower validators or fullNodes in the file and apply it, or: dvbctl stop NAME/NODE"));
        }
        Some(kind) => return Err(Error::usage(format!("{} cannot be deleted with this verb", kind.word()))),
    }
    match (args.all, names.is_empty()) {
        (true, false) => Err(Error::usage("--all goes without names")),
        (true, true) if kind.is_none() => Err(Error::usage("say what: --all of which kind?").with_remedy("dvbctl delete devnets --all")),
        (false, true) => Err(Error::usage("name the devnets").with_remedy("dvbctl delete NAME, or dvbctl delete devnets --all")),
        _ => match names.iter().find(|name| name.contains('/')) {
            Some(node) => {
                Err(Error::usage(format!("`{node}` is a node; nodes are not deleted one by one")).with_remedy(format!("dvbctl stop {node}")))
            }
            None => Ok(names),
        },
    }
}
