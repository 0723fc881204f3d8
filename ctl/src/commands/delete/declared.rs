//! `delete -f`: what the documents declare goes, last first. What belongs to a devnet of theirs goes with it.

use super::{Args, devnets};
use crate::{
    client::Client,
    commands::export,
    confirm::confirm,
    context::Context,
    document::{Document, Wanted, load},
    error::{Error, Exit},
    follow::Target,
};
use dvb_proto::devnet::v1::{DeleteRequest, ObjectRef};
use tonic::Status;

pub(super) async fn run(ctx: &Context, args: &Args) -> Result<(), Error> {
    let documents = load(&args.file, &ctx.settings.namespace, &ctx.settings.env, &ctx.settings.cwd)?;
    let client = ctx.client().await?;
    let mut present = Vec::new();
    for document in documents.iter().rev() {
        match find(&client, document).await {
            Ok(()) => present.push(document),
            Err(error) if error.exit == Exit::NotFound => ctx.note(format!("{} is not there", title(document))),
            Err(error) => return Err(error),
        }
    }
    let goes_with_its_devnet = |one: &&Document| {
        let is_its = |other: &&&Document| other.wanted.namespace() == one.wanted.namespace() && other.wanted.name() == one.wanted.devnet();
        !one.wanted.is_devnet() && present.iter().any(|other| other.wanted.is_devnet() && is_its(&other))
    };
    let doomed: Vec<&Document> = present.iter().copied().filter(|one| !goes_with_its_devnet(one)).collect();
    if doomed.is_empty() {
        return Err(Error::not_found(format!("nothing of {} is there", args.file.join(", "))).with_remedy("dvbctl get devnets"));
    }
    let list: Vec<String> = doomed.iter().map(|document| title(document)).collect();
    let files = if args.keep_data { "the files of devnets stay" } else { "their files are lost" };
    confirm(ctx, args.yes, &format!("Delete {}; {files}.", list.join(", ")), &format!("dvbctl delete -f {}", args.file.join(" -f ")))?;
    let mut targets = Vec::new();
    for document in doomed {
        if document.wanted.is_devnet() {
            targets.push(Target { namespace: document.wanted.namespace().to_owned(), devnet: document.wanted.name(), node: None });
        } else {
            delete(ctx, &client, document, args.no_wait).await?;
        }
    }
    devnets(ctx, &client, args, &targets).await
}

/// For the NotFound of what does not exist.
async fn find(client: &Client, document: &Document) -> Result<(), Error> {
    let reference = ObjectRef { namespace: document.wanted.namespace().to_owned(), name: document.wanted.name() };
    let found: Result<(), Status> = match &document.wanted {
        Wanted::Devnet(_) => client.devnets().get(reference).await.map(drop),
        Wanted::Transaction(_) => client.transactions().get(reference).await.map(drop),
        Wanted::Upgrade(_) => client.upgrades().get(reference).await.map(drop),
        Wanted::Export(_) => client.exports().get(reference).await.map(drop),
    };
    Ok(found?)
}

async fn delete(ctx: &Context, client: &Client, document: &Document, no_wait: bool) -> Result<(), Error> {
    let name = document.wanted.name();
    let request = DeleteRequest { namespace: document.wanted.namespace().to_owned(), name: name.clone(), ..DeleteRequest::default() };
    match &document.wanted {
        Wanted::Devnet(_) => {}
        Wanted::Transaction(_) => drop(client.transactions().delete(request).await?),
        Wanted::Upgrade(_) => drop(client.upgrades().delete(request).await?),
        Wanted::Export(_) => {
            client.exports().delete(request).await?;
            if !no_wait {
                export::settle::gone(&ctx.in_namespace(document.wanted.namespace()), client, &name).await?;
            }
        }
    }
    match ctx.settings.format {
        crate::cli::Format::Name => Ok(ctx.print(format!("{}/{name}", document.wanted.word()))?),
        _ => Ok(ctx.print(format!("{} deleted", title(document)))?),
    }
}

fn title(document: &Document) -> String {
    format!("{} {}", document.wanted.word(), document.wanted.name())
}
