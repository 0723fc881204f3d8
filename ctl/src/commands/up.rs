//! `up`: from a file (or nothing at all) to running nodes, in one command.

use super::apply;
use crate::{
    cli::Format,
    client::Client,
    context::Context,
    document::{Document, Source, Wanted, load, parse_documents},
    error::Error,
    render::{
        self, Named, Row,
        objects::{name, refusal},
        print_items,
    },
};
use dvb_proto::devnet::v1::{Devnet, ListRequest, Metadata, ObjectRef, RestartDevnetRequest};
use std::sync::Arc;

const DEFAULT_FILE: &str = "devnet.yaml";
/// What `up` brings up where there is no file: the embedded chain, with the contract's defaults.
const DEFAULT_DEVNET: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: local}\nspec: {plugin: commonware}\n";
const SHOWN_ACCOUNTS: usize = 3;

/// Bring a devnet up and wait until it runs
///
/// Without FILE and without a devnet.yaml here, brings up a devnet of the embedded chain.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File, folder, or - for stdin [default: devnet.yaml]
    file: Option<String>,
    /// Return as soon as the devnet is accepted
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let documents = documents(ctx, args.file)?;
    if let Some(other) = documents.iter().find(|document| !document.wanted.is_devnet()) {
        let error = Error::usage(format!("{}: `up` brings devnets up, and this is of kind {}", other.position(), other.wanted.word()));
        return Err(error.with_remedy("dvbctl apply -f FILE --wait takes all kinds"));
    }
    let client = ctx.client().await?;
    apply::check(&client, &documents).await?;
    let mut devnets = Vec::new();
    for document in &documents {
        let Wanted::Devnet(wanted) = &document.wanted else { continue };
        let made = apply::send(&client, document, &documents, false).await?;
        made.note.iter().for_each(|note| ctx.note(note));
        let apply::Object::Devnet(devnet) = made.object else { continue };
        let mut devnet = *devnet;
        ctx.note(format!("devnet {} {}", name(&devnet.metadata), made.action));
        let stopped = |devnet: &Devnet| devnet.spec.as_ref().and_then(|spec| spec.desired.as_deref()) == Some("stopped");
        let Metadata { namespace, name, .. } = devnet.metadata.clone().unwrap_or_default();
        if stopped(&devnet) && !stopped(wanted) {
            devnet = client.devnets().start(ObjectRef { namespace, name }).await?.into_inner();
        } else if made.action == "unchanged" && was_refused(&devnet) {
            ctx.note(format!("devnet {name} could not be provisioned before: trying again"));
            devnet = client.devnets().restart(RestartDevnetRequest { namespace, name, ..RestartDevnetRequest::default() }).await?.into_inner();
        }
        devnets.push(devnet);
    }
    if !args.no_wait {
        for devnet in &mut devnets {
            *devnet = apply::wait(ctx, &client, devnet).await?;
        }
    }
    if !matches!(ctx.settings.format, Format::Table | Format::Wide) {
        let named = if devnets.len() == 1 { Named::One } else { Named::Many };
        return print_items(ctx, &devnets, named, "devnets");
    }
    for devnet in &devnets {
        if args.no_wait {
            ctx.print(format!("devnet {} is coming up; dvbctl wait --for=Running {0}", name(&devnet.metadata)))?;
        } else {
            summary(ctx, &client, devnet).await?;
        }
    }
    Ok(())
}

/// It has no nodes that could run. What kept it from them, a program or a file that was missing, may be mended by now: no spec tells.
fn was_refused(devnet: &Devnet) -> bool {
    devnet.status.as_ref().is_some_and(|status| status.phase == "Failed" && refusal(&status.conditions).is_some())
}

fn documents(ctx: &Context, file: Option<String>) -> Result<Vec<Document>, Error> {
    let settings = &ctx.settings;
    let file = match file {
        None if !settings.cwd.join(DEFAULT_FILE).exists() => {
            ctx.note(format!("no {DEFAULT_FILE} here: bringing up the devnet `local` of the embedded chain (plugin commonware)"));
            let source = Arc::new(Source { name: "<default>".into(), text: DEFAULT_DEVNET.into() });
            return Ok(parse_documents(&source, &settings.namespace, &settings.env, &settings.cwd)?);
        }
        file => file.unwrap_or_else(|| DEFAULT_FILE.to_owned()),
    };
    load(&[file], &settings.namespace, &settings.env, &settings.cwd)
}

/// Nodes, accounts, the mnemonic, and what to do next.
async fn summary(ctx: &Context, client: &Client, devnet: &Devnet) -> Result<(), Error> {
    let metadata = devnet.metadata.clone().unwrap_or_default();
    let selector = ListRequest { namespace: metadata.namespace.clone(), devnet: metadata.name.clone(), ..ListRequest::default() };
    let nodes = client.nodes().list(selector).await?.into_inner().items;
    ctx.print(render::table(&nodes, &ctx.style()))?;
    // As of the same moment as the nodes: much may have happened since it ran first.
    let devnet = client.devnets().get(ObjectRef { namespace: metadata.namespace.clone(), name: metadata.name.clone() }).await?.into_inner();
    let status = devnet.status.clone().unwrap_or_default();
    ctx.print("")?;
    let height = status.current_height.map(|height| format!(" at height {height}")).unwrap_or_default();
    let chain = status.chain_id.as_deref().filter(|_| devnet.has_chain()).map(|chain| format!(", chain {chain}")).unwrap_or_default();
    ctx.print(format!("{} is {}{height}{chain}", metadata.name, status.phase))?;
    if !status.accounts.is_empty() {
        ctx.print(format!("{} funded accounts:", status.accounts.len()))?;
        for account in status.accounts.iter().take(SHOWN_ACCOUNTS) {
            ctx.print(format!("  {}  {}  {}", account.name, account.address, account.balance))?;
        }
        if status.accounts.len() > SHOWN_ACCOUNTS {
            ctx.print(format!("  and {} more: dvbctl describe {}", status.accounts.len() - SHOWN_ACCOUNTS, metadata.name))?;
        }
    }
    if let Some(path) = &status.mnemonic_path {
        ctx.print(format!("mnemonic: {path}"))?;
    }
    let namespace = if metadata.namespace == "default" { String::new() } else { format!(" -n {}", metadata.namespace) };
    let node = nodes.first().map_or(metadata.name.as_str(), |node| name(&node.metadata));
    ctx.print("\nTry next:")?;
    ctx.print(format!("  dvbctl logs {}{namespace} -f --tail 5", metadata.name))?;
    ctx.print(format!("  eval \"$(dvbctl env {}{namespace})\"", metadata.name))?;
    match nodes.first().and_then(|node| node.status.as_ref()).and_then(|status| status.pid) {
        Some(pid) => ctx.print(format!("  kill -9 {pid}; dvbctl get nodes {}{namespace}; dvbctl why {node}{namespace}", metadata.name))?,
        None => ctx.print(format!("  dvbctl why {node}{namespace}"))?,
    }
    Ok(())
}
