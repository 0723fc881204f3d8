//! Events and Explain: what happened, and for one object the walk from its state back to the request that began it.

use super::{Context, change::key_of, convert, status};
use crate::{
    model::{Devnet, Event, EventId, Fault, FaultCode, Kind, Node, Object},
    store::EventFilter,
};
use dvb_proto::devnet::v1;
use futures::{Stream, StreamExt, stream::BoxStream};
use std::collections::HashSet;
use tonic::Status;

/// The longest story that is told; a longer chain of causes is cut here.
const MAX_CHAIN: usize = 100;

/// Kept events that the request takes, oldest first, then with `follow` those to come.
pub(super) async fn events(cx: &Context, request: v1::ListEventsRequest) -> Result<BoxStream<'static, Result<v1::Event, Status>>, Fault> {
    let mut filter = filter(&request);
    let kept = cx.store.events(&filter).await.map_err(|error| error.fault())?;
    filter.after_seq = kept.last().map_or(filter.after_seq, |event| event.seq);
    let kept = futures::stream::iter(kept).map(|event| message(&event));
    if !request.follow {
        return Ok(kept.boxed());
    }
    Ok(kept.chain(follow(cx, EventFilter { limit: 0, ..filter })).boxed())
}

/// The state in a sentence, and the events that led to it: newest effect first, back to the user's request.
pub(super) async fn explain(cx: &Context, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Fault> {
    let kind =
        if request.kind.eq_ignore_ascii_case("node") || request.kind.is_empty() && request.name.contains('/') { Kind::Node } else { Kind::Devnet };
    let object = cx.find(&key_of(kind, &request.namespace, &request.name)).await?;
    let (headline, cause) = match &object {
        Object::Devnet(devnet) => (devnet_headline(devnet), devnet.status.cause.clone()),
        Object::Node(node) => (node_headline(node), node.status.cause.clone()),
        other => return Err(Fault::new(FaultCode::Internal, format!("{} has no story", other.key()))),
    };
    let chain = chain(cx, &object, cause).await?;
    Ok(v1::ExplainResponse { headline, chain: chain.iter().map(convert::to_message).collect::<Result<_, _>>()? })
}

/// Walks `parent` from the object's cause; without one, from the newest event about it. Ends where events are compacted.
async fn chain(cx: &Context, object: &Object, cause: Option<EventId>) -> Result<Vec<Event>, Fault> {
    let mut chain: Vec<Event> = Vec::new();
    let mut told = HashSet::new();
    let mut next = match cause {
        Some(id) => cx.store.event(&id).await.map_err(|error| error.fault())?,
        None => None,
    };
    if next.is_none() {
        let meta = object.meta();
        let kind = Some(object.kind().name().to_owned());
        let newest = EventFilter { namespace: Some(meta.namespace.clone()), kind, name: Some(meta.name.clone()), limit: 1, ..EventFilter::default() };
        next = cx.store.events(&newest).await.map_err(|error| error.fault())?.pop();
    }
    while let Some(event) = next {
        let parent = event.parent.clone();
        told.insert(event.id.clone());
        chain.push(event);
        next = match parent {
            Some(id) if chain.len() < MAX_CHAIN && !told.contains(&id) => cx.store.event(&id).await.map_err(|error| error.fault())?,
            _ => None,
        };
    }
    Ok(chain)
}

fn devnet_headline(devnet: &Devnet) -> String {
    let status = &devnet.status;
    let mut line = format!("{} is {:?}: {} of {} nodes ready", devnet.metadata.name, status.phase, status.ready_nodes, status.nodes);
    let trouble = status.conditions.0.iter().find(|condition| condition.status == crate::model::ConditionStatus::False);
    for more in [status.message.as_deref(), trouble.map(|condition| condition.message.as_str())].into_iter().flatten().filter(|more| !more.is_empty())
    {
        if !line.contains(more) {
            line.push_str("; ");
            line.push_str(more);
        }
    }
    line
}

fn node_headline(node: &Node) -> String {
    let status = &node.status;
    let mut line = format!("{} is {:?}", node.metadata.name, status.phase);
    if let Some(pid) = status.pid {
        line.push_str(&format!(" (pid {pid})"));
    }
    let trouble = status.conditions.0.iter().find(|condition| condition.status == crate::model::ConditionStatus::False);
    let exit = status.last_exit.as_ref().filter(|_| status.pid.is_none()).map(|exit| exit.message.as_str());
    let next = status.next_restart.map(|at| format!("next start at {at}"));
    for more in [exit, trouble.map(|condition| condition.message.as_str()), next.as_deref()].into_iter().flatten().filter(|more| !more.is_empty()) {
        if !line.contains(more) {
            line.push_str("; ");
            line.push_str(more);
        }
    }
    line
}

fn filter(request: &v1::ListEventsRequest) -> EventFilter {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let selector = request.selector.clone().unwrap_or_default();
    let kind = match request.name.as_str() {
        "" => None,
        name if name.contains('/') => Some(Kind::Node.name().to_owned()),
        _ => Some(Kind::Devnet.name().to_owned()),
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
