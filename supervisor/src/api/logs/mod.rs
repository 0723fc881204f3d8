//! StreamLogs: the log files of a devnet's launches as one stream; what is there first, node by node, then what is written.
//!
//! ```text
//! plan: which launches, from which offset ─► history: each to its end ─► follow: the live launches, then those to come
//! ```

mod follow;
mod history;
mod plan;
#[cfg(test)]
mod tests;

use super::{Context, change::key_of, nearest, status};
use crate::{
    logs::{Item, LogError, LossCause},
    model::{Fault, FaultCode, Kind, Launch, LaunchId, Node, NodeName, Object, Timestamp, Violation},
    store::Selector,
};
use dvb_proto::devnet::v1;
use futures::{StreamExt, stream::BoxStream};
use plan::{Piece, Wanted};
use std::{collections::BTreeSet, sync::Arc};
use tonic::Status;

type Entries = BoxStream<'static, Result<v1::LogEntry, Status>>;

pub(super) async fn stream(cx: &Context, request: v1::LogRequest) -> Result<Entries, Fault> {
    let devnet = key_of(Kind::Devnet, &request.namespace, &request.devnet);
    cx.find(&devnet).await?;
    let wanted = wanted(&request)?;
    let list = |kind| {
        let selector = Selector::in_devnet(kind, &devnet.namespace, &devnet.name);
        async move { cx.store.list(&selector).await.map_err(|error| error.fault()) }
    };
    let (nodes, _) = list(Kind::Node).await?;
    let nodes = choose(nodes, &request.nodes, &devnet.name)?;
    let (launches, revision) = list(Kind::Launch).await?;
    let launches: Vec<Arc<Launch>> = launches.into_iter().filter_map(|object| object.try_into().ok()).collect();
    let known = launches.iter().map(|launch| launch.spec.launch_id.clone()).collect();
    let names: Vec<String> = nodes.iter().map(|node| node.metadata.name.clone()).collect();
    let only_these = (!request.nodes.is_empty()).then(|| names.iter().cloned().collect::<BTreeSet<_>>());
    let one_launch = wanted.launch.is_some() || wanted.previous;
    let planned = tokio::task::spawn_blocking(move || plan::plan(&names, &launches, &wanted)).await;
    let pieces = planned.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))??;
    if !request.follow {
        return Ok(history::read(pieces));
    }
    // What is over is history; the last launch of each node is followed, from the same offset.
    let (live, over): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(|piece| piece.last);
    let follow = follow::Follow::new(cx, &devnet, revision, live, known, only_these, one_launch);
    Ok(history::read(over).chain(follow.into_stream()).boxed())
}

fn wanted(request: &v1::LogRequest) -> Result<Wanted, Fault> {
    let since = request.since.as_deref().map(str::parse::<Timestamp>).transpose().map_err(|error| {
        let message = format!("is no time ({error}); write RFC 3339, as in 2026-01-01T00:00:00Z");
        Fault::invalid(vec![Violation::new("since", message)])
    })?;
    let tail = request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let cursor = |cursor: &v1::LogCursor| (cursor.node.clone(), (LaunchId(cursor.launch_id.clone()), cursor.offset));
    let after = request.after.iter().map(cursor).collect();
    Ok(Wanted { tail, since, launch: request.launch_id.clone().map(LaunchId), previous: request.previous, after })
}

/// The nodes with these short names, all when none is named.
fn choose(nodes: Vec<Object>, short: &[String], devnet: &str) -> Result<Vec<Arc<Node>>, Fault> {
    let all: Vec<Arc<Node>> = nodes.into_iter().filter_map(|object| object.try_into().ok()).collect();
    let names: Vec<NodeName> = all.iter().map(|node| node.node_name()).collect();
    if let Some(unknown) = short.iter().find(|short| !names.iter().any(|name| name.short == **short)) {
        let fault = Fault::new(FaultCode::NotFound, format!("devnet `{devnet}` has no node `{unknown}`")).about(format!("{devnet}/{unknown}"));
        let hint = nearest(unknown, names.iter().map(|name| name.short.as_str()));
        return Err(fault.remedy(hint.map_or_else(|| "dvbctl get nodes".into(), |hint| format!("did you mean `{hint}`? dvbctl get nodes"))));
    }
    let taken = all.into_iter().zip(names).filter(|(_, name)| short.is_empty() || short.contains(&name.short));
    Ok(taken.map(|(node, _)| node).collect())
}

fn entry(node: &str, launch: &LaunchId, item: Item) -> v1::LogEntry {
    let about = v1::LogEntry { node: node.to_owned(), launch_id: launch.to_string(), ..v1::LogEntry::default() };
    let gap = |offset, lost, cause: LossCause, next| v1::LogEntry { offset, lost, lost_because: cause.to_string(), next, ..about.clone() };
    match item {
        Item::Line { bytes, offset, next, partial } => v1::LogEntry { offset, next, line: bytes, partial, ..about },
        Item::Lost { from, to, cause } => gap(from, to - from, cause, to),
        Item::Truncated { at, size, next } => gap(size, at.saturating_sub(size), LossCause::Truncated, next),
        Item::Deleted => v1::LogEntry { note: deleted(node, "only those who follow it already see what its process writes"), ..about },
    }
}

/// The log of a running launch that is not there.
fn missing(node: &str, launch: &LaunchId) -> v1::LogEntry {
    let note = deleted(node, "what its process wrote last and writes cannot be read");
    v1::LogEntry { node: node.to_owned(), launch_id: launch.to_string(), note, ..v1::LogEntry::default() }
}

fn deleted(node: &str, so: &str) -> String {
    format!("somebody deleted its log; {so} until it is restarted: dvbctl restart {node}")
}

fn failed(error: &LogError) -> Status {
    status::status(&error.fault())
}
