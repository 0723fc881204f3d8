//! ListEvents and Explain: what happened, and for one object the walk from its state back to the request that began it.

use super::{Context, change::key_of, convert, merge, status};
use crate::{
    events,
    model::{Event, Fault, Kind, Object},
    store::EventFilter,
};
use dvb_proto::devnet::v1;
use futures::{Stream, StreamExt, stream::BoxStream};
use tonic::Status;

/// Kept events that the request takes, oldest first, then with `follow` those to come.
pub(super) async fn events(cx: &Context, request: v1::ListEventsRequest) -> Result<BoxStream<'static, Result<v1::Event, Status>>, Fault> {
    let mut filter = filter(&request);
    let kept = cx.store.events(&filter).await.map_err(|error| error.fault())?;
    if kept.is_empty() {
        find_named(cx, &request).await?;
    }
    filter.after_seq = kept.last().map_or(filter.after_seq, |event| event.seq);
    let kept = futures::stream::iter(kept).map(|event| message(&event));
    if !request.follow {
        return Ok(kept.boxed());
    }
    Ok(kept.chain(follow(cx, EventFilter { limit: 0, ..filter })).boxed())
}

/// The state in a sentence, and the events that led to it: newest effect first, back to the user's request.
pub(super) async fn explain(cx: &Context, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Fault> {
    let named = Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&request.kind));
    let kind = match named {
        Some(kind) => kind,
        None => kind_there(cx, &request.namespace, &request.name).await?,
    };
    let key = key_of(kind, &request.namespace, &request.name);
    let object = cx.find(&key).await?; // for a NotFound that names the nearest
    let mut told = events::explain(cx.store.as_ref(), key.kind, &key.namespace, &key.name).await.map_err(|error| error.fault())?;
    if let Object::Node(node) = &object
        && merge::is_bereft(&node.status)
    {
        told.headline.push_str("; its process has ended since, and how is being put on record");
    }
    Ok(v1::ExplainResponse { headline: told.headline, chain: told.chain.iter().map(convert::to_message).collect::<Result<_, _>>()? })
}

/// Of what is gone, events may be kept; of what never was, or is misspelt, there is nothing to tell.
async fn find_named(cx: &Context, request: &v1::ListEventsRequest) -> Result<(), Fault> {
    let selector = request.selector.clone().unwrap_or_default();
    if selector.all_namespaces || request.after_seq > 0 {
        return Ok(());
    }
    for name in [request.name.as_str(), selector.devnet.as_str()].into_iter().filter(|name| !name.is_empty()) {
        let kind = kind_there(cx, &selector.namespace, name).await?;
        cx.find(&key_of(kind, &selector.namespace, name)).await?;
    }
    Ok(())
}

/// Upgrades and exports are called as nodes are: the store tells which it is.
async fn kind_there(cx: &Context, namespace: &str, name: &str) -> Result<Kind, Fault> {
    let kind = kind_of(name);
    if kind == Kind::Node {
        for other in [Kind::Upgrade, Kind::Export] {
            if cx.store.get(&key_of(other, namespace, name)).await.map_err(|error| error.fault())?.is_some() {
                return Ok(other);
            }
        }
    }
    Ok(kind)
}

/// `mynet` is a devnet, `mynet/tx-0123456789abcdef` a transaction, `mynet/validator-0` a node.
fn kind_of(name: &str) -> Kind {
    match name.split_once('/') {
        None => Kind::Devnet,
        Some((_, short)) if is_transaction(short) => Kind::Transaction,
        Some(_) => Kind::Node,
    }
}

fn is_transaction(short: &str) -> bool {
    short.strip_prefix("tx-").is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn filter(request: &v1::ListEventsRequest) -> EventFilter {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let selector = request.selector.clone().unwrap_or_default();
    let kind = match request.name.as_str() {
        "" => None,
        name => Some(kind_of(name)).filter(|kind| *kind != Kind::Node).map(|kind| kind.name().to_owned()), // else a node's, an upgrade's or an export's
    };
    EventFilter {
        namespace: (!selector.all_namespaces).then(|| super::admission::namespace_or_default(&selector.namespace).to_owned()),
        kind,
        name: some(&request.name),
        devnet: some(&selector.devnet),
        launch: None,
        after_seq: request.after_seq,
        limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
    }
}

fn follow(cx: &Context, filter: EventFilter) -> impl Stream<Item = Result<v1::Event, Status>> + Send + 'static {
    cx.store.watch_events(filter).map(|event| match event {
        Ok(event) => message(&event),
        Err(error) => Err(status::status(&error.fault())),
    })
}

fn message(event: &Event) -> Result<v1::Event, Status> {
    convert::to_message(event).map_err(|fault| status::status(&fault))
}
