//! Nodes that sign: the key's lease before each launch, a refusal that names its holder and ends with it, the mark after each death.

use super::super::{Context, Edit, ReconcileError, Story};
use crate::{
    keylease::{KeyError, KeyLease},
    model::{Condition, ConditionStatus, Devnet, ExitClass, Key, Kind, LastExit, Node, NodePhase, Timestamp},
    reaper,
    store::{Selector, Write},
    sys::{Kernel, Pidfd},
};
use futures::{StreamExt, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};

/// None for a node that signs nothing: it never takes a lease.
pub(super) async fn lease(devnet: &Devnet, node: &Node, cx: &Context) -> Result<Option<KeyLease>, ReconcileError> {
    let (Some(key), Some(genesis)) = (&node.spec.consensus_key, &devnet.status.genesis_hash) else { return Ok(None) };
    let allowed = node.spec.double_sign_request > node.status.observed_double_sign;
    let keys = cx.keys();
    Ok(Some(if allowed { keys.take_anyhow(node, genesis, key).await? } else { keys.take(node, genesis, key).await? }))
}

/// Says on the node, and in the audit trail, what its launch signs with.
pub(super) fn note(next: &mut Node, lease: Option<&KeyLease>, writes: &mut Vec<Write>, cx: &Context) {
    let now = cx.clock.now();
    let Some(lease) = lease else { return };
    let condition = match lease.is_held() {
        true => Condition::new("KeyLease", ConditionStatus::True, "Held", "no other process on this machine signs with its key"),
        false => Condition::new("KeyLease", ConditionStatus::False, "DoubleSignAllowed", "another process signs with its key, as a user allowed"),
    };
    next.status.conditions.set(condition, now);
    writes.extend(lease.writes.iter().cloned());
    match &lease.signed_elsewhere {
        None => drop(next.status.conditions.remove("SignState")),
        Some(what) => {
            next.status.conditions.set(Condition::new("SignState", ConditionStatus::False, "SignedElsewhere", what.clone()), now);
            let story = Story::new("node", "SignedElsewhere", what.clone()).warn().observed("the sign-state moved while it was down");
            let key = Key::node(&next.metadata.namespace, &next.metadata.name);
            cx.tell_into(writes, &key, next.status.cause.clone(), story);
        }
    }
}

/// A launch that was refused for its key. Not a death: it counts against no budget. What may pass is tried again when its holder ends,
/// and with growing pauses; what does not pass by itself waits for a user.
pub(super) async fn refuse(node: &Node, error: &KeyError, (kind, reason): (&str, &str), cx: &Context) -> Result<(), ReconcileError> {
    let (fault, now) = (error.fault(), cx.clock.now());
    let mut next = node.clone();
    next.status.observed_restart = node.spec.restart_request;
    next.status.observed_generation = node.metadata.generation;
    next.status.observed_double_sign = node.spec.double_sign_request;
    next.status.pid = None;
    next.status.last_exit = Some(LastExit { class: ExitClass::KeyRefused, message: fault.message.clone(), at: now, ..LastExit::default() });
    let condition =
        |kind: &str| Condition { remedy: fault.remedy.clone(), ..Condition::new(kind, ConditionStatus::False, reason, fault.message.clone()) };
    let mut changed = next.status.conditions.set(condition(kind), now);
    changed |= next.status.conditions.set(condition("Ready"), now);
    let (phase, action) = if fault.retriable { (NodePhase::Backoff, "wait") } else { (NodePhase::Failed, "give up") };
    changed |= node.status.phase != phase;
    next.status.phase = phase;
    next.status.next_restart = fault.retriable.then(|| now.plus(pause(&next, kind, now)));
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    let mut writes = Vec::new();
    if changed {
        let story = Story::new("node", reason, fault.message.clone()).warn().desired("running").action(action);
        next.status.cause = Some(cx.tell_into(&mut writes, &key, node.status.cause.clone(), story));
    }
    writes.push(Write::update(next.clone()));
    next.metadata.resource_version = cx.store.commit(writes).await?;
    if fault.retriable && !error.holders().is_empty() {
        go_on_without(error.holders(), next, cx);
    }
    Ok(())
}

/// As long again as it has been refused already, within the node's own back-off.
fn pause(node: &Node, kind: &str, now: Timestamp) -> Duration {
    let rules = &node.spec.restart;
    let (least, most) = (Duration::from_millis(rules.backoff_ms), Duration::from_millis(rules.max_backoff_ms));
    let since = node.status.conditions.get(kind).map_or(now, |condition| condition.last_transition_time);
    now.since(since).max(least).min(most)
}

/// Starts the node at once when one of its key's holders ends.
fn go_on_without(holders: Vec<u32>, refused: Node, cx: &Context) {
    let cx = cx.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = one_ends(&holders) => {}
            () = moved_on(&refused, &cx) => return,
        }
        let key = Key::node(&refused.metadata.namespace, &refused.metadata.name);
        let go = cx.edit_node(&key, vec![], |node| {
            if !same_refusal(node, &refused) {
                return Edit::Skip;
            }
            node.status.next_restart = None;
            Edit::Tell(Story::new("node", "HolderEnded", "the process that kept it from starting has ended").desired("running").action("start"))
        });
        if let Err(error) = go.await {
            tracing::warn!(node = %key, %error, "is not started at once; it is at its next back-off");
        }
    });
}

/// Resolves when one of these processes ends; never when none can be watched.
async fn one_ends(pids: &[u32]) {
    let processes: Vec<_> = pids.iter().filter_map(|pid| reaper::Process::new(*pid, Pidfd::open(*pid).ok()?, Kernel::as_it_is()).ok()).collect();
    if processes.len() < pids.len() {
        return; // ended meanwhile
    }
    let mut ends: FuturesUnordered<_> = processes.iter().map(reaper::Process::ended).collect();
    if ends.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the node is no longer in this refusal: a user stopped it, or it was tried again.
async fn moved_on(refused: &Node, cx: &Context) {
    let meta = &refused.metadata;
    let selector = Selector { namespace: Some(meta.namespace.clone()), name: Some(meta.name.clone()), ..Selector::kind(Kind::Node) };
    let mut changes = cx.store.watch(selector, meta.resource_version);
    while let Some(Ok(change)) = changes.next().await {
        if change.deleted || Arc::<Node>::try_from(change.object).is_ok_and(|node| !same_refusal(&node, refused)) {
            return;
        }
    }
}

fn same_refusal(node: &Node, refused: &Node) -> bool {
    node.metadata.uid == refused.metadata.uid && node.status.phase == NodePhase::Backoff && node.status.next_restart == refused.status.next_restart
}

/// After a death: how far it had signed. What cannot be read is no reason to keep the node from its record.
pub(super) async fn record(node: &Node, cx: &Context) -> Result<(), ReconcileError> {
    if node.spec.consensus_key.is_none() {
        return Ok(());
    }
    match cx.keys().record(node).await {
        Err(error @ KeyError::Io { .. }) => {
            tracing::warn!(node = node.metadata.name, %error, "its sign-state is not compared at the next start");
            Ok(())
        }
        result => Ok(result?),
    }
}
