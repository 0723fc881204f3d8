//! `export`: a running devnet's state as a file, for another devnet to begin with.

mod create;
pub(super) mod settle;

use super::get;
use crate::{
    cli::Format,
    client::Client,
    confirm::confirm,
    context::Context,
    error::Error,
    render::{self, Named, objects::name, print_items},
};
use dvb_proto::devnet::v1::{DeleteRequest, Export, ListEventsRequest, ListRequest};
use futures::TryStreamExt;

const EVENTS: u32 = 40;

/// Write the state of running devnets to files, for others to begin with
///
/// dvbctl export create mynet --wait, then `genesis: {fromExport: mynet/export-1}` in another devnet's spec
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Create(Box<create::Args>),
    /// List the exports of devnets, or all
    List {
        #[arg(value_name = "DEVNET")]
        devnets: Vec<String>,
    },
    /// Show one export with all its steps
    Status {
        /// DEVNET/EXPORT
        name: String,
        /// Wait until it has ended; anything but Completed is exit 1
        #[arg(long)]
        wait: bool,
    },
    /// Delete one with its file; what began with it keeps a copy
    Delete {
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Follow the exports of a devnet; or those named, until the last has ended: anything but Completed is exit 1
    Watch {
        #[arg(value_name = "DEVNET|NAME")]
        names: Vec<String>,
    },
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Create(args) => create::run(ctx, *args).await,
        Verb::List { devnets } => {
            let client = ctx.client().await?;
            print_items(ctx, &find(ctx, &client, &devnets, &ctx.selector()).await?, Named::Many, "exports")
        }
        Verb::Status { name, wait } => status(ctx, &name, wait).await,
        Verb::Delete { name, yes } => {
            let client = ctx.client().await?;
            client.exports().get(ctx.object(&name)).await?;
            confirm(ctx, yes, &format!("Delete export {name} with its file."), &format!("dvbctl export delete {name}"))?;
            let request = DeleteRequest { namespace: ctx.settings.namespace.clone(), name: name.clone(), ..DeleteRequest::default() };
            let export = client.exports().delete(request).await?.into_inner();
            settle::gone(ctx, &client, &name).await?;
            tell(ctx, &export, "deleted")
        }
        Verb::Watch { names } => {
            let client = ctx.client().await?;
            get::follow_to_end::<Export>(ctx, &client, &names, &ctx.selector()).await
        }
    }
}

impl get::Ending for Export {
    async fn full_name(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
        Ok(name(&client.exports().get(ctx.object(wanted)).await?.into_inner().metadata).to_owned())
    }
    fn ended(&self) -> Option<Result<(), Error>> {
        has_ended(self).then(|| succeeded(self))
    }
}

/// Exports by name: `a/b` is one, `a` all of devnet a; no name: all that the selector takes.
pub(super) async fn find(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<Vec<Export>, Error> {
    if names.is_empty() {
        return Ok(client.exports().list(selector.clone()).await?.into_inner().items);
    }
    let mut found = Vec::new();
    for name in names {
        if name.contains('/') {
            found.push(client.exports().get(ctx.object(name)).await?.into_inner());
            continue;
        }
        let items = client.exports().list(ListRequest { devnet: name.clone(), ..selector.clone() }).await?.into_inner().items;
        if items.is_empty() {
            client.devnets().get(ctx.object(name)).await?; // for the NotFound of a devnet that does not exist
        }
        found.extend(items);
    }
    Ok(found)
}

/// The long form, with its events.
pub(super) async fn describe(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let export = client.exports().get(ctx.object(wanted)).await?.into_inner();
    let request = ListEventsRequest { selector: Some(ctx.selector()), name: wanted.to_owned(), limit: EVENTS, ..ListEventsRequest::default() };
    let events: Vec<_> = client.devnets().list_events(request).await?.into_inner().try_collect().await?;
    render::describe::export(&export, &events, &ctx.style())
}

async fn status(ctx: &Context, name: &str, wait: bool) -> Result<(), Error> {
    let client = ctx.client().await?;
    let export = client.exports().get(ctx.object(name)).await?.into_inner();
    let export = if wait { settle::ended(ctx, &client, name).await? } else { export };
    match ctx.settings.format {
        Format::Table | Format::Wide => ctx.print(describe(ctx, &client, name).await?.trim_end())?,
        _ => print_items(ctx, std::slice::from_ref(&export), Named::One, "")?,
    }
    if wait { succeeded(&export) } else { Ok(()) }
}

fn tell(ctx: &Context, export: &Export, word: &str) -> Result<(), Error> {
    match ctx.settings.format {
        Format::Table | Format::Wide => Ok(ctx.print(format!("export {}: {word}", name(&export.metadata)))?),
        _ => print_items(ctx, std::slice::from_ref(export), Named::One, ""),
    }
}

pub(super) fn succeeded(export: &Export) -> Result<(), Error> {
    if phase(export) == "Completed" {
        return Ok(());
    }
    let name = name(&export.metadata);
    let status = export.status.clone().unwrap_or_default();
    let error = Error::failed("ExportFailed", format!("export {name} is {}: {}", phase(export), status.message.unwrap_or_default()));
    let mend = status.conditions.into_iter().find(|condition| condition.r#type == "Completed").and_then(|condition| condition.remedy);
    Err(error.about(name).with_remedy(mend.unwrap_or_else(|| format!("dvbctl export status {name}"))))
}

fn has_ended(export: &Export) -> bool {
    matches!(phase(export), "Completed" | "Failed")
}

pub(super) fn phase(export: &Export) -> &str {
    export.status.as_ref().map_or("", |status| status.phase.as_str())
}
