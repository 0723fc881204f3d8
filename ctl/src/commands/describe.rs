//! `describe`: everything about one object, with what happened to it.

use super::get;
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    kind::{Kind, split},
    render::{self, objects::name},
};
use dvb_proto::devnet::v1::{Event, ListEventsRequest, ListRequest, Node};
use futures::TryStreamExt;

const EVENTS: u32 = 20;

/// Show one devnet, node, transaction, upgrade or export in full, with its conditions and events
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// [KIND] NAME...
    #[arg(required = true, value_name = "NAME")]
    words: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let (kind, names) = split(&args.words);
    if names.is_empty() {
        return Err(Error::usage("name what to describe").with_remedy("dvbctl describe NAME"));
    }
    let client = ctx.client().await?;
    if ctx.settings.format != crate::cli::Format::Table && ctx.settings.format != crate::cli::Format::Wide {
        return get::list(ctx, &client, kind.unwrap_or_else(|| get::of_all(names)), names, &ctx.selector()).await;
    }
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            ctx.print("")?;
        }
        let text = match kind {
            None | Some(Kind::Transaction) if Kind::of(name) == Kind::Transaction => super::tx::describe(ctx, &client, name).await?,
            Some(Kind::Export) => super::export::describe(ctx, &client, name).await?,
            Some(Kind::Upgrade) => super::upgrade::describe(ctx, &client, name).await?,
            None if name.contains('/') => part(ctx, &client, name).await?,
            Some(Kind::Devnet | Kind::Node) if name.contains('/') => node(ctx, &client, name).await?,
            None | Some(Kind::Devnet) => devnet(ctx, &client, name).await?,
            Some(Kind::Node) => return Err(Error::usage(format!("`{name}` is a devnet; a node is {name}/NODE"))),
            Some(kind) => return Err(Error::usage(format!("{} cannot be described", kind.word())).with_remedy(format!("dvbctl get {}", kind.word()))),
        };
        ctx.print(text.trim_end())?;
    }
    Ok(())
}

async fn devnet(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let devnet = client.devnets().get(ctx.object(wanted)).await?.into_inner();
    let selector = ListRequest { devnet: wanted.to_owned(), ..ctx.selector() };
    let nodes = client.nodes().list(selector.clone()).await?.into_inner().items;
    let events = events(client, ListEventsRequest { selector: Some(selector), limit: EVENTS, ..ListEventsRequest::default() }).await?;
    render::describe::devnet(&devnet, &nodes, &events, &ctx.style())
}

/// A node, else what else goes by a name in a devnet.
async fn part(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let missing = match node(ctx, client, wanted).await {
        Err(error) if error.exit == Exit::NotFound => error,
        found => return found,
    };
    if let Ok(text) = super::upgrade::describe(ctx, client, wanted).await {
        return Ok(text);
    }
    if let Ok(text) = super::export::describe(ctx, client, wanted).await {
        return Ok(text);
    }
    super::tx::describe(ctx, client, wanted).await.map_err(|_| missing)
}

async fn node(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error> {
    let node: Node = client.nodes().get(ctx.object(wanted)).await?.into_inner();
    let devnet = wanted.split('/').next().unwrap_or_default().to_owned();
    let selector = ListRequest { devnet, ..ctx.selector() };
    let mut launches = client.nodes().list_launches(selector).await?.into_inner().items;
    launches.retain(|launch| launch.spec.as_ref().is_some_and(|spec| spec.node_ref == name(&node.metadata)));
    let request = ListEventsRequest { selector: Some(ctx.selector()), name: wanted.to_owned(), limit: EVENTS, ..ListEventsRequest::default() };
    render::describe::node(&node, &launches, &events(client, request).await?, &ctx.style())
}

async fn events(client: &Client, request: ListEventsRequest) -> Result<Vec<Event>, Error> {
    Ok(client.devnets().list_events(request).await?.into_inner().try_collect().await?)
}
