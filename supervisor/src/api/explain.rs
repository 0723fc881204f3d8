//! ListEvents and Explain: what happened, and for one object the walk from its state back to the request that began it.

use super::{Context, change::key_of, convert, merge, nearest, status};
use crate::{
    events,
    model::{Event, Fault, FaultCode, Key, Kind, Object, Transaction},
    store::{EventFilter, Selector},
};
use dvb_proto::devnet::v1;
use futures::{Stream, StreamExt, stream::BoxStream};
use tonic::Status;

/// Kept events that the request takes, oldest first, then with `follow` those to come.
pub(super) async fn events(cx: &Context, request: v1::ListEventsRequest) -> Result<BoxStream<'static, Result<v1::Event, Status>>, Fault> {
    let mut filter = filter(&request);
    let mut kept = cx.store.events(&filter).await.map_err(|error| error.fault())?;
    if kept.is_empty()
        && let Some(named) = find_named(cx, &request).await?
        && named.name != request.name
    {
        (filter.kind, filter.name) = (Some(named.kind.name().to_owned()), Some(named.name)); // it was called by its request id
        kept = cx.store.events(&filter).await.map_err(|error| error.fault())?;
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
    let key = find_key(cx, named, &request.namespace, &request.name).await?;
    let object = cx.find(&key).await?; // for a NotFound that names the nearest
    let mut told = events::explain(cx.store.as_ref(), key.kind, &key.namespace, &key.name).await.map_err(|error| error.fault())?;
    if let Object::Node(node) = &object
        && merge::is_bereft(&node.status)
    {
        told.headline.push_str("; its process has ended since, and how is being put on record");
    }
    Ok(v1::ExplainResponse { headline: told.headline, chain: told.chain.iter().map(convert::to_message).collect::<Result<_, _>>()? })
}

/// The object whose events are asked for. Of what is gone, events may be kept; of what never was, or is misspelt, there is nothing to tell.
async fn find_named(cx: &Context, request: &v1::ListEventsRequest) -> Result<Option<Key>, Fault> {
    let selector = request.selector.clone().unwrap_or_default();
    if selector.all_namespaces || request.after_seq > 0 {
        return Ok(None);
    }
    if !selector.devnet.is_empty() {
        find_key(cx, None, &selector.namespace, &selector.devnet).await?;
    }
    match request.name.as_str() {
        "" => Ok(None),
        name => find_key(cx, None, &selector.namespace, name).await.map(Some),
    }
}

/// What goes by a name in a devnet.
const PARTS: [Kind; 4] = [Kind::Node, Kind::Upgrade, Kind::Export, Kind::Transaction];

/// `a` is a devnet; `a/b` a node, an upgrade, an export or a transaction, which is also called `a/REQUEST-ID`: the store tells which.
async fn find_key(cx: &Context, kind: Option<Kind>, namespace: &str, name: &str) -> Result<Key, Fault> {
    let kinds = match (kind, name.split_once('/')) {
        (Some(kind), _) => vec![kind],
        (None, None) => vec![Kind::Devnet],
        (None, Some((_, short))) if is_transaction(short) => vec![Kind::Transaction],
        (None, Some(_)) => PARTS.to_vec(),
    };
    for kind in &kinds {
        let by_request_id = name.split_once('/').filter(|_| *kind == Kind::Transaction).map(|(devnet, id)| Transaction::name_of(devnet, id));
        for called in [Some(name.to_owned()), by_request_id].into_iter().flatten() {
            let key = key_of(*kind, namespace, &called);
            if cx.store.get(&key).await.map_err(|error| error.fault())?.is_some() {
                return Ok(key);
            }
        }
    }
    let missing = match cx.find(&key_of(kinds[0], namespace, name)).await {
        Ok(object) => return Ok(object.key()), // it came about just now
        Err(fault) => fault,
    };
    if kind.is_some() || missing.code != FaultCode::NotFound {
        return Err(missing);
    }
    let missing = match name.split_once('/') {
        Some((devnet, _)) => Fault { message: format!("there is no node, upgrade, export or transaction `{name}`"), ..missing }
            .remedy(format!("dvbctl get nodes {devnet}; likewise upgrades, exports and transactions")),
        None => missing,
    };
    Err(match meant(cx, namespace, name).await {
        Some(meant) => missing.remedy(format!("did you mean `{meant}`? dvbctl why {meant}")),
        None => missing,
    })
}

/// What is called so, or almost so, in any devnet of the namespace: a name without its devnet, or misspelt.
async fn meant(cx: &Context, namespace: &str, name: &str) -> Option<String> {
    let namespace = Some(super::admission::namespace_or_default(namespace).to_owned());
    let (objects, _) = cx.store.list(&Selector { kinds: PARTS.to_vec(), namespace, ..Selector::default() }).await.ok()?;
    let names: Vec<String> = objects
        .iter()
        .map(|object| match object {
            Object::Transaction(tx) => format!("{}/{}", tx.spec.devnet_ref, tx.spec.request_id),
            other => other.meta().name.clone(),
        })
        .collect();
    match name.contains('/') {
        true => nearest(name, names.iter().map(String::as_str)),
        false => names.into_iter().find(|other| other.split_once('/').is_some_and(|(_, short)| short == name)),
    }
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
