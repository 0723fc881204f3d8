//! `upgrade`: another binary for a running chain, driven to its end by the daemon.

mod create;
pub(super) mod settle;

use super::get;
use crate::{
    cli::Format,
    client::Client,
    confirm::confirm,
    context::Context,
    error::Error,
    goal::has_ended,
    render::{self, Named, objects::name, print_items},
};
use dvb_proto::devnet::v1::{DeleteRequest, ListEventsRequest, ListRequest, Upgrade};
use futures::TryStreamExt;

const EVENTS: u32 = 40;

/// Upgrade running chains to another binary, and follow that
///
/// dvbctl upgrade create mynet --name v0.60 --height 120 --binary ./wasmd-0.60 --wait
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Create(Box<create::Args>),
    /// List the upgrades of devnets, or all
    List {
        #[arg(value_name = "DEVNET")]
        devnets: Vec<String>,
    },
    /// Show one upgrade with all its steps
    Status {
        /// DEVNET/UPGRADE
        name: String,
        /// Wait until it has ended; anything but Completed is exit 1
        #[arg(long)]
        wait: bool,
    },
    /// Cancel one: before the switch nothing changes, after it the devnet is rolled back
    Cancel {
        name: String,
        #[arg(long)]
        wait: bool,
    },
    /// Try one again that failed or was rolled back
    Retry {
        name: String,
        #[arg(long)]
        wait: bool,
    },
    /// Follow the upgrades of a devnet; or those named, until the last has ended: anything but Completed is exit 1
    Watch {
        #[arg(value_name = "DEVNET|NAME")]
        names: Vec<String>,
    },
    /// Delete the record of one that has ended
    Delete {
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Create(args) => create::run(ctx, *args).await,
        Verb::List { devnets } => {
            let client = ctx.client().await?;
            print_items(ctx, &find(ctx, &client, &devnets, &ctx.selector()).await?, Named::Many, "upgrades")
        }
        Verb::Status { name, wait } => status(ctx, &name, wait).await,
        Verb::Cancel { name, wait } => {
            let client = ctx.client().await?;
            let upgrade = client.upgrades().cancel(ctx.object(&name)).await?.into_inner();
            if !upgrade.spec.as_ref().is_some_and(|spec| spec.cancel) {
                return tell(ctx, &upgrade, &format!("{} already, there is nothing to cancel", phase(&upgrade)));
            }
            if !wait {
                return tell(ctx, &upgrade, "cancel requested");
            }
            let upgrade = settle::ended(ctx, &client, &name).await?;
            tell(ctx, &upgrade, phase(&upgrade))
        }
        Verb::Retry { name, wait } => {
            let client = ctx.client().await?;
            let upgrade = client.upgrades().retry(ctx.object(&name)).await?.into_inner();
            if wait { finish(ctx, &client, &name).await } else { tell(ctx, &upgrade, "retry requested") }
        }
        Verb::Watch { names } => {
            let client = ctx.client().await?;
            get::follow_to_end::<Upgrade>(ctx, &client, &names, &ctx.selector()).await
        }
        Verb::Delete { name, yes } => {
            let client = ctx.client().await?;
            client.upgrades().get(ctx.object(&name)).await?;
            confirm(ctx, yes, &format!("Delete the record of upgrade {name}."), &format!("dvbctl upgrade delete {name}"))?;
            let request = DeleteRequest { namespace: ctx.settings.namespace.clone(), name: name.clone(), ..DeleteRequest::default() };
            let upgrade = client.upgrades().delete(request).await?.into_inner();
            tell(ctx, &upgrade, "deleted")
        }
    }
}

impl get::Ending for Upgrade {
    async fn full_name(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
        Ok(name(&client.upgrades().get(ctx.object(wanted)).await?.into_inner().metadata).to_owned())
    }
    fn ended(&self) -> Option<Result<(), Error>> {
        has_ended(self).then(|| succeeded(self))
    }
}

/// Upgrades by name: `a/b` is one, `a` all of devnet a; no name: all that the selector takes.
pub(super) async fn find(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<Vec<Upgrade>, Error> {
    if names.is_empty() {
        return Ok(client.upgrades().list(selector.clone()).await?.into_inner().items);
    }
    let mut found = Vec::new();
    for name in names {
        if name.contains('/') {
            found.push(client.upgrades().get(ctx.object(name)).await?.into_inner());
            continue;
        }
        let items = client.upgrades().list(ListRequest { devnet: name.clone(), ..selector.clone() }).await?.into_inner().items;
        if items.is_empty() {
            client.devnets().get(ctx.object(name)).await?; // for the NotFound of a devnet that does not exist
        }
        found.extend(items);
    }
    Ok(found)
}

/// The long form, with its events.
pub(super) async fn describe(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let upgrade = client.upgrades().get(ctx.object(wanted)).await?.into_inner();
    let request = ListEventsRequest { selector: Some(ctx.selector()), name: wanted.to_owned(), limit: EVENTS, ..ListEventsRequest::default() };
    let events: Vec<_> = client.devnets().list_events(request).await?.into_inner().try_collect().await?;
    render::describe::upgrade(&upgrade, &events, &ctx.style())
}

async fn status(ctx: &Context, name: &str, wait: bool) -> Result<(), Error> {
    let client = ctx.client().await?;
    let upgrade = client.upgrades().get(ctx.object(name)).await?.into_inner();
    let upgrade = if wait { settle::ended(ctx, &client, name).await? } else { upgrade };
    match ctx.settings.format {
        Format::Table | Format::Wide => ctx.print(describe(ctx, &client, name).await?.trim_end())?,
        _ => print_items(ctx, std::slice::from_ref(&upgrade), Named::One, "")?,
    }
    if wait { succeeded(&upgrade) } else { Ok(()) }
}

/// Waits for its end and says how it ended.
async fn finish(ctx: &Context, client: &Client, wanted: &str) -> Result<(), Error> {
    let upgrade = settle::ended(ctx, client, wanted).await?;
    tell(ctx, &upgrade, phase(&upgrade))?;
    succeeded(&upgrade)
}

fn tell(ctx: &Context, upgrade: &Upgrade, word: &str) -> Result<(), Error> {
    match ctx.settings.format {
        Format::Table | Format::Wide => Ok(ctx.print(format!("upgrade {}: {word}", name(&upgrade.metadata)))?),
        _ => print_items(ctx, std::slice::from_ref(upgrade), Named::One, ""),
    }
}

pub(super) fn succeeded(upgrade: &Upgrade) -> Result<(), Error> {
    if phase(upgrade) == "Completed" {
        return Ok(());
    }
    let name = name(&upgrade.metadata);
    let why = upgrade.status.as_ref().and_then(|status| status.why.clone()).unwrap_or_default();
    let error = Error::failed("UpgradeFailed", format!("upgrade {name} is {}: {why}", phase(upgrade)));
    Err(error.about(name).with_remedy(mend(upgrade)))
}

/// One that was never accepted asks for the wrong thing, most often: trying the same again helps only when that was mended in place.
fn mend(upgrade: &Upgrade) -> String {
    let name = name(&upgrade.metadata);
    match upgrade.status.as_ref().is_some_and(|status| status.binary.is_some()) {
        true => format!("dvbctl upgrade status {name}; when the cause is mended: dvbctl upgrade retry {name}"),
        false => format!(
            "to ask for something else, create it again under the same name; when the cause is mended where it is: dvbctl upgrade retry {name}"
        ),
    }
}

pub(super) fn phase(upgrade: &Upgrade) -> &str {
    upgrade.status.as_ref().map_or("", |status| status.phase.as_str())
}
