//! `get`: objects in a table, as JSON or YAML; `-w` follows them.

use crate::{
    cli::{Format, parse_label},
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::Target,
    kind::{Kind, split},
    render::{self, Named, Row, Style, print_items, table::Layout},
    watch::{Change, Watched, watch},
};
use dvb_proto::devnet::v1::{Devnet, Empty, Export, Launch, ListRequest, Node, PluginRef, Transaction, Upgrade, View};
use futures::{StreamExt, stream};
use std::collections::BTreeMap;

/// List or show objects: devnets, nodes, upgrades, transactions, exports, events, launches, plugins, ports, binaries
///
/// dvbctl get [KIND] [NAME...]: `get nodes` lists all nodes, `get nodes mynet` those of mynet, `get node mynet/validator-0` one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// [KIND] [NAME...]; kinds in singular, plural or short (dn no ev)
    #[arg(value_name = "KIND|NAME")]
    words: Vec<String>,
    /// Go on: a new row for each change
    #[arg(short, long)]
    watch: bool,
    /// Only objects with these labels: key=value,key=value
    #[arg(short = 'l', long = "selector", value_parser = parse_label, value_delimiter = ',', value_name = "LABELS")]
    labels: Vec<(String, String)>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let (kind, names) = split(&args.words);
    let is_kindless = kind.is_none() && !names.iter().any(|name| name.contains('/'));
    let kind = kind.unwrap_or_else(|| of_all(names));
    let client = ctx.client().await?;
    let selector = ListRequest { labels: args.labels.into_iter().collect(), ..ctx.selector() };
    let done = match (kind, args.watch) {
        (Kind::Devnet, true) => follow::<Devnet>(ctx, &client, names, &selector).await,
        (Kind::Node, true) => follow::<Node>(ctx, &client, names, &selector).await,
        (Kind::Transaction, true) => follow::<Transaction>(ctx, &client, names, &selector).await,
        (Kind::Upgrade, true) => follow::<Upgrade>(ctx, &client, names, &selector).await,
        (Kind::Export, true) => follow::<Export>(ctx, &client, names, &selector).await,
        (Kind::Event, true) => super::events::print(ctx, &client, names, &selector, true, 0).await,
        (kind, true) => Err(Error::usage(format!("{} cannot be watched", kind.word()))),
        (kind, false) => list(ctx, &client, kind, names, &selector).await,
    };
    done.map_err(|error| match args.words.first() {
        Some(word) if is_kindless && error.exit == Exit::NotFound && error.fault.subject.as_ref() == Some(word) => no_kind(word, error),
        _ => error,
    })
}

/// `get pods`: the word was taken for a devnet's name, but there is none of that name.
fn no_kind(word: &str, error: Error) -> Error {
    // The daemon knows whether a devnet has a name like it.
    let devnet = error.fault.remedy.clone().filter(|remedy| remedy.contains("did you mean"));
    let kind = || Kind::nearest(word).map(|kind| format!("did you mean `dvbctl get {kind}`?"));
    let remedy = devnet.or_else(kind).unwrap_or_else(|| "dvbctl get devnets".to_owned());
    let kinds: Vec<&str> = Kind::all().collect();
    Error::usage(format!("`{word}` is neither a kind nor a devnet; kinds are {}", kinds.join(", "))).with_remedy(remedy)
}

/// What names without a kind name: nodes when one is a node, else what the first is.
pub(super) fn of_all(names: &[String]) -> Kind {
    let mut kinds = names.iter().map(|name| Kind::of(name)).filter(|kind| *kind != Kind::Devnet);
    kinds.next().unwrap_or(Kind::Devnet)
}

/// Lists objects of `kind`: all, or those named. What is named but does not exist is NotFound.
pub(super) async fn list(ctx: &Context, client: &Client, kind: Kind, names: &[String], selector: &ListRequest) -> Result<(), Error> {
    let named = if names.len() == 1 { Named::One } else { Named::Many };
    match kind {
        Kind::Devnet if names.is_empty() => {
            let devnets = client.devnets().list(selector.clone()).await?.into_inner().items;
            print_items(ctx, &devnets, named, "devnets")
        }
        Kind::Devnet => {
            let mut devnets = Vec::new();
            for name in names {
                devnets.push(client.devnets().get(ctx.object(name)).await?.into_inner());
            }
            print_items(ctx, &devnets, named, "devnets")
        }
        Kind::Node => {
            let view = if matches!(ctx.settings.format, Format::Table | Format::Name) { View::Basic } else { View::Full };
            let nodes = nodes(ctx, client, names, &ListRequest { view: view.into(), ..selector.clone() }).await?;
            let named = if names.len() == 1 && names[0].contains('/') { Named::One } else { Named::Many };
            print_items(ctx, &nodes, named, "nodes")
        }
        Kind::Event => super::events::print(ctx, client, names, selector, false, 0).await,
        Kind::Launch => {
            let node = |launch: &Launch| launch.spec.as_ref().map(|spec| spec.node_ref.clone()).unwrap_or_default();
            let mut launches = Vec::new();
            for request in requests(names, selector) {
                launches.extend(client.nodes().list_launches(request).await?.into_inner().items);
            }
            launches.retain(|launch| is_meant(names, &node(launch)));
            must_exist(ctx, client, names, launches.is_empty()).await?;
            print_items(ctx, &launches, Named::Many, "launches")
        }
        Kind::Port => {
            let mut ports = Vec::new();
            for request in requests(names, selector) {
                ports.extend(client.nodes().list_ports(request).await?.into_inner().items);
            }
            ports.retain(|port| is_meant(names, &port.node));
            must_exist(ctx, client, names, ports.is_empty()).await?;
            print_items(ctx, &ports, Named::Many, "ports")
        }
        Kind::Plugin if names.is_empty() => print_items(ctx, &client.plugins().list(Empty {}).await?.into_inner().items, named, "plugins"),
        Kind::Plugin => {
            let mut plugins = Vec::new();
            for name in names {
                plugins.push(client.plugins().get(PluginRef { name: name.clone() }).await?.into_inner());
            }
            print_items(ctx, &plugins, named, "plugins")
        }
        Kind::Binary => super::binaries::list(ctx, client, names).await,
        Kind::Upgrade => {
            let found = super::upgrade::find(ctx, client, names, selector).await?;
            let named = if names.len() == 1 && names[0].contains('/') { Named::One } else { Named::Many };
            print_items(ctx, &found, named, "upgrades")
        }
        Kind::Transaction => {
            let found = super::tx::find(ctx, client, names, selector).await?;
            let named = if names.len() == 1 && names[0].contains('/') { Named::One } else { Named::Many };
            print_items(ctx, &found, named, "transactions")
        }
        Kind::Export => {
            let found = super::export::find(ctx, client, names, selector).await?;
            let named = if names.len() == 1 && names[0].contains('/') { Named::One } else { Named::Many };
            print_items(ctx, &found, named, "exports")
        }
    }
}

/// Nodes by name: `a/b` is one, `a` all of devnet a; no name: all that the selector takes.
pub(super) async fn nodes(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<Vec<Node>, Error> {
    if names.is_empty() {
        return Ok(client.nodes().list(selector.clone()).await?.into_inner().items);
    }
    let mut nodes = Vec::new();
    for name in names {
        if name.contains('/') {
            nodes.push(client.nodes().get(ctx.object(name)).await?.into_inner());
            continue;
        }
        let request = ListRequest { devnet: name.clone(), ..selector.clone() };
        let found = client.nodes().list(request).await?.into_inner().items;
        if found.is_empty() {
            client.devnets().get(ctx.object(name)).await?;
        }
        nodes.extend(found);
    }
    Ok(nodes)
}

/// One request for each devnet that is named, or one for all.
pub(super) fn requests(names: &[String], selector: &ListRequest) -> Vec<ListRequest> {
    if names.is_empty() {
        return vec![selector.clone()];
    }
    let mut devnets: Vec<&str> = names.iter().map(|name| name.split('/').next().unwrap_or_default()).collect();
    devnets.sort_unstable();
    devnets.dedup();
    devnets.into_iter().map(|devnet| ListRequest { devnet: devnet.to_owned(), ..selector.clone() }).collect()
}

/// Where nothing was found of what is named, the names may be wrong.
async fn must_exist(ctx: &Context, client: &Client, names: &[String], found_nothing: bool) -> Result<(), Error> {
    for name in names.iter().filter(|_| found_nothing && !ctx.settings.all_namespaces) {
        if name.contains('/') {
            client.nodes().get(ctx.object(name)).await?;
        } else {
            client.devnets().get(ctx.object(name)).await?;
        }
    }
    Ok(())
}

fn is_meant(names: &[String], node: &str) -> bool {
    names.is_empty() || names.iter().any(|name| name == node || node.split('/').next() == Some(name))
}

/// What comes to an end by itself.
pub(super) trait Ending: Watched + Row {
    /// The full name of the object that `wanted`, `a/b`, means; NotFound when there is none.
    async fn full_name(ctx: &Context, client: &Client, wanted: &str) -> Result<String, Error>;
    /// None while it goes on; an error says how it failed.
    fn ended(&self) -> Option<Result<(), Error>>;
}

/// As `follow`, but what is named must exist; and when each name is that of one object it ends with the last of them: with an error when
/// one of them failed.
pub(super) async fn follow_to_end<T: Ending>(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<(), Error> {
    let mut meant = Vec::new();
    for name in names {
        if name.contains('/') {
            meant.push(T::full_name(ctx, client, name).await?);
        } else {
            client.devnets().get(ctx.object(name)).await?;
            meant.push(name.clone());
        }
    }
    let is_one = |name: &String| name.contains('/');
    let mut ends = Ends::new(meant.iter().filter(|name| is_one(name)).cloned().collect());
    let is_endless = meant.is_empty() || !meant.iter().all(is_one);
    follow_until::<T>(ctx, client, &meant, selector, |feed, change| if is_endless { None } else { ends.see(feed, change) }).await
}

/// Which of the objects that are followed, by feed, have ended, and how.
struct Ends {
    names: Vec<String>,
    known: Vec<Known>,
    /// Feeds whose present state is not complete.
    untold: usize,
}

enum Known {
    /// Not told since the present state was asked for.
    Nothing,
    Open,
    Ended(Result<(), Error>),
}

impl Ends {
    fn new(names: Vec<String>) -> Self {
        Self { known: names.iter().map(|_| Known::Nothing).collect(), untold: names.len(), names }
    }

    /// How all of it ended, when nothing is left to follow.
    fn see<T: Ending>(&mut self, feed: usize, change: &Change<T>) -> Option<Result<(), Error>> {
        let known = self.known.get_mut(feed)?;
        match change {
            Change::Added(object) | Change::Modified(object) => *known = object.ended().map_or(Known::Open, Known::Ended),
            Change::Deleted(_) => return Some(Err(gone(&self.names[feed]))),
            Change::Bookmark if matches!(known, Known::Nothing) => return Some(Err(gone(&self.names[feed]))),
            Change::Bookmark => self.untold = self.untold.saturating_sub(1),
            Change::Resync => *known = Known::Nothing,
        }
        let is_over = self.untold == 0 && self.known.iter().all(|known| matches!(known, Known::Ended(_)));
        is_over.then(|| self.known.drain(..).try_for_each(|known| if let Known::Ended(how) = known { how } else { Ok(()) }))
    }
}

fn gone(name: &str) -> Error {
    Error::failed("Gone", format!("{name} was deleted")).about(name)
}

pub(super) async fn follow<T: Watched + Row>(ctx: &Context, client: &Client, names: &[String], selector: &ListRequest) -> Result<(), Error> {
    follow_until::<T>(ctx, client, names, selector, |_, _| None).await
}

/// Prints the present state, then each change, until `ended` says how it ended; it gets each change with the index of its feed, the name's.
async fn follow_until<T: Watched + Row>(
    ctx: &Context,
    client: &Client,
    names: &[String],
    selector: &ListRequest,
    mut ended: impl FnMut(usize, &Change<T>) -> Option<Result<(), Error>>,
) -> Result<(), Error> {
    let feeds = if names.is_empty() {
        vec![watch::<T>(client, selector.clone(), "")]
    } else {
        let feed = |name: &String| {
            let target = Target::parse(&ctx.settings.namespace, name);
            match (T::IN_DEVNET, target.node) {
                (true, None) => watch::<T>(client, ListRequest { devnet: target.devnet, ..selector.clone() }, ""),
                _ => watch::<T>(client, selector.clone(), name),
            }
        };
        names.iter().map(feed).collect()
    };
    let mut bookmarks = feeds.len();
    let mut changes = stream::select_all(feeds.into_iter().enumerate().map(|(feed, changes)| changes.map(move |change| (feed, change))));
    let mut first = Vec::new();
    let mut printer = Printer { ctx, began: None, said: BTreeMap::new() };
    while let Some((feed, change)) = changes.next().await {
        let change = change?;
        let end = ended(feed, &change);
        match change {
            // The present state is one table; after it each change is a row.
            Change::Added(object) | Change::Modified(object) | Change::Deleted(object) if bookmarks > 0 => first.push(object),
            Change::Added(object) | Change::Modified(object) | Change::Deleted(object) => printer.print(&[object])?,
            Change::Bookmark => {
                bookmarks = bookmarks.saturating_sub(1);
                if bookmarks == 0 && !first.is_empty() {
                    printer.print(&std::mem::take(&mut first))?;
                }
            }
            Change::Resync => {}
        }
        if let Some(end) = end {
            return end;
        }
    }
    Ok(())
}

struct Printer<'a> {
    ctx: &'a Context,
    /// How the first table looked: later rows keep to it.
    began: Option<(Style, Layout)>,
    /// The last row of each object, as it would have looked at the beginning: its age is no change.
    said: BTreeMap<String, String>,
}

impl Printer<'_> {
    fn print<T: Row>(&mut self, items: &[T]) -> Result<(), Error> {
        match self.ctx.settings.format {
            Format::Json => items.iter().try_for_each(|item| Ok(self.ctx.print(render::to_value(item)?.to_string())?)),
            Format::Yaml => items.iter().try_for_each(|item| {
                let text = render::yaml(&render::to_value(item)?)?;
                Ok(self.ctx.print(format!("---\n{}", text.trim_end()))?)
            }),
            Format::Name => Ok(items.iter().try_for_each(|item| self.ctx.print(item.reference()))?),
            Format::Table | Format::Wide => {
                let now = self.ctx.style();
                let text = match &self.began {
                    Some((style, layout)) => {
                        if !is_news(&mut self.said, items, style, layout) {
                            return Ok(());
                        }
                        render::rows(items, &Style { now: now.now, ..*style }).render_rows(layout, now.width, now.color)
                    }
                    None => {
                        let style = render::suited(items, &now);
                        let table = render::rows(items, &style);
                        let layout = table.layout(&[], style.width);
                        let text = table.render_in(&layout, style.width, style.color);
                        is_news(&mut self.said, items, &style, &layout);
                        self.began = Some((style, layout));
                        text
                    }
                };
                Ok(self.ctx.print(text)?)
            }
        }
    }
}

/// Whether a row of these objects looks different from their last one; much of what changes in an object has no column.
fn is_news<T: Row>(said: &mut BTreeMap<String, String>, items: &[T], style: &Style, layout: &Layout) -> bool {
    let mut news = false;
    for item in items {
        let row = render::rows(std::slice::from_ref(item), style).render_rows(layout, style.width, false);
        news |= said.get(&item.reference()) != Some(&row);
        said.insert(item.reference(), row);
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{Metadata, NodeStatus};

    #[test]
    fn a_row_that_looks_as_before_is_no_news() {
        let style = Style { wide: false, chain: true, namespaces: false, color: false, width: None, now: jiff::Timestamp::UNIX_EPOCH };
        let node = |phase: &str, generation| {
            let metadata = Some(Metadata { name: "a/b".into(), resource_version: generation, ..Metadata::default() });
            [Node { metadata, status: Some(NodeStatus { phase: phase.into(), ..NodeStatus::default() }), ..Node::default() }]
        };
        let layout = render::rows(&node("Starting", 1), &style).layout(&[], style.width);
        let mut said = BTreeMap::new();
        let mut check = |node: [Node; 1], expect| assert_eq!(is_news(&mut said, &node, &style, &layout), expect);
        check(node("Starting", 1), true);
        check(node("Starting", 2), false);
        check(node("Running", 3), true);
        check(node("Starting", 4), true);
    }
}
