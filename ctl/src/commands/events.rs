//! `events`: what happened, oldest first; `-f` follows.

use crate::{
    cli::Format,
    client::Client,
    context::Context,
    error::Error,
    render::{self, Named, Row, print_items, table::Layout},
};
use dvb_proto::devnet::v1::{Event, ListEventsRequest, ListRequest};
use futures::{StreamExt, TryStreamExt, stream};

/// What is printed when nothing else is asked for.
const DEFAULT_LIMIT: u32 = 100;

/// Widths of columns that suit most events: those to come are not known.
const LIKELY: [u16; 4] = [5, 7, 18, 22];

/// Show the events of a devnet, a node or everything; oldest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devnets or nodes; none: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Go on as new events come
    #[arg(short, long)]
    follow: bool,
    /// The newest N; 0: all that are kept
    #[arg(long, default_value_t = DEFAULT_LIMIT, value_name = "N")]
    limit: u32,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    print(ctx, &client, &args.names, &ctx.selector(), args.follow, args.limit).await
}

/// Events about the named objects, or all. Those of a devnet include its nodes'.
pub(super) async fn print(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest, follow: bool, limit: u32) -> Result<(), Error> {
    let requests: Vec<ListEventsRequest> = requests(names, selector, follow, limit);
    let mut streams = Vec::new();
    for request in requests {
        streams.push(client.devnets().list_events(request).await?.into_inner());
    }
    if !follow {
        let mut events: Vec<Event> = stream::select_all(streams).try_collect().await?;
        events.sort_by_key(|event| event.seq);
        return print_items(ctx, &events, Named::Many, "events");
    }
    let mut events = stream::select_all(streams);
    let mut began: Option<Layout> = None;
    while let Some(event) = events.next().await {
        let event = event?;
        if ctx.is_structured() {
            ctx.print(render::to_value(&event)?.to_string())?;
        } else if ctx.settings.format == Format::Name {
            ctx.print(event.reference())?;
        } else {
            let style = ctx.style();
            let table = render::rows(&[event], &style);
            let text = match &began {
                Some(layout) => table.render_rows(layout, style.width, style.color),
                None => table.render_in(began.insert(table.layout(&LIKELY, style.width)), style.width, style.color),
            };
            ctx.print(text)?;
        }
    }
    Ok(())
}

fn requests(names: &[String], selector: &ListRequest, follow: bool, limit: u32) -> Vec<ListEventsRequest> {
    let all = ListEventsRequest { selector: Some(selector.clone()), name: String::new(), limit, follow, after_seq: 0 };
    if names.is_empty() {
        return vec![all];
    }
    let request = |name: &String| match name.contains('/') {
        true => ListEventsRequest { name: name.clone(), ..all.clone() },
        false => ListEventsRequest { selector: Some(ListRequest { devnet: name.clone(), ..selector.clone() }), ..all.clone() },
    };
    names.iter().map(request).collect()
}
