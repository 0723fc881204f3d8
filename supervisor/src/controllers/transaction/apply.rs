//! Writes what became of transactions: one commit for all of them, and one event for those that came to the same end.

use super::super::{Context, ReconcileError, Story};
use super::lane::Entry;
use crate::{
    model::{Condition, ConditionStatus, EventId, Key, SignedAttempt, Transaction, TransactionPhase, TxEvent},
    plugin::tx::{IncludedTx, TxRefusal, UnsignedTx},
    store::Write,
};
use std::{collections::BTreeMap, sync::Arc};

pub(super) use super::super::placing::hex;

/// What the chain says of one transaction is kept up to this many bytes.
const MAX_EVENT_BYTES: usize = 16 << 10;

/// How a transaction ends.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Included(IncludedTx),
    /// Not in a block, and never will be.
    Refused(TxRefusal),
    /// Its chain is gone.
    Reset,
}

/// Returns the indices again. `sender` is the signer's address, where it is known.
pub(super) async fn end(entries: &mut [Entry], endings: &BTreeMap<usize, Ending>, sender: &str, cx: &Context) -> Result<Vec<usize>, ReconcileError> {
    let (mut changed, mut events) = (Vec::with_capacity(endings.len()), Vec::new());
    let mut confirmed: BTreeMap<(Option<EventId>, u64), Vec<usize>> = BTreeMap::new();
    for (&index, ending) in endings {
        let mut tx = Transaction::clone(&entries[index].tx);
        if !sender.is_empty() {
            tx.status.sender = Some(sender.to_owned());
        }
        ended(&mut tx, ending, cx);
        match ending {
            Ending::Included(found) if found.code == 0 => {
                confirmed.entry((tx.status.cause.clone(), found.height)).or_default().push(changed.len());
            }
            _ => tx.status.cause = Some(cx.tell_into(&mut events, &key_of(&tx), tx.status.cause.clone(), failure(&tx))),
        }
        changed.push((index, tx));
    }
    for ((parent, height), members) in confirmed {
        let first = &changed[members[0]].1;
        let (subject, message) = match members.as_slice() {
            [_] => (key_of(first), format!("is in block {height}")),
            many => {
                let devnet = Key::devnet(&first.metadata.namespace, &first.spec.devnet_ref);
                (devnet, format!("{} transactions of {} are in block {height}", many.len(), first.spec.signer))
            }
        };
        let id = cx.tell_into(&mut events, &subject, parent, Story::new("transaction", "Confirmed", message).observed(format!("block {height}")));
        members.iter().for_each(|member| changed[*member].1.status.cause = Some(id.clone()));
    }
    commit(entries, changed, events, cx).await?;
    Ok(endings.keys().copied().collect())
}

/// The bytes are in the store when this returns: only then may anybody see them.
pub(super) async fn store_signed(
    entries: &mut [Entry],
    signed: BTreeMap<usize, (UnsignedTx, SignedAttempt)>,
    sender: &str,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let sign = |(index, (unsigned, attempt)): (usize, (UnsignedTx, SignedAttempt))| {
        let mut tx = Transaction::clone(&entries[index].tx);
        let status = &mut tx.status;
        status.phase = TransactionPhase::Signing;
        status.tx_hash = Some(attempt.hash.clone());
        status.signed = Some(attempt);
        status.attempts += 1;
        status.sender = Some(sender.to_owned());
        status.gas_limit = (unsigned.gas_limit > 0).then_some(unsigned.gas_limit);
        status.fee = Some(unsigned.fee).filter(|fee| !fee.is_empty());
        status.meaning = Some(unsigned.meaning).filter(|meaning| !meaning.is_empty());
        status.error = None;
        (index, tx)
    };
    let changed = signed.into_iter().map(sign).collect();
    commit(entries, changed, Vec::new(), cx).await
}

/// A node took them.
pub(super) async fn submitted(entries: &mut [Entry], taken: &[usize], cx: &Context) -> Result<(), ReconcileError> {
    note(entries, taken, TransactionPhase::Submitted, None, cx).await
}

/// In `phase` for now, and why. Nothing is written where that is known already.
pub(super) async fn note(
    entries: &mut [Entry],
    indices: &[usize],
    phase: TransactionPhase,
    words: Option<&str>,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let news = |index: &&usize| !entries[**index].is_in(phase) || entries[**index].tx.status.error.as_deref() != words;
    let change = |index: &usize| {
        let mut tx = Transaction::clone(&entries[*index].tx);
        tx.status.phase = phase;
        tx.status.error = words.map(str::to_owned);
        (*index, tx)
    };
    let changed: Vec<_> = indices.iter().filter(news).map(change).collect();
    commit(entries, changed, Vec::new(), cx).await
}

fn ended(tx: &mut Transaction, ending: &Ending, cx: &Context) {
    let status = &mut tx.status;
    status.signed = None;
    let (phase, reason) = match ending {
        Ending::Included(found) => {
            status.height = Some(found.height);
            status.gas_used = Some(found.gas_used);
            status.events = bounded(&found.events);
            status.code = (found.code != 0).then_some(found.code);
            status.error = (found.code != 0).then(|| found.log.clone());
            if found.code == 0 { (TransactionPhase::Confirmed, "InBlock") } else { (TransactionPhase::Failed, "FailedInBlock") }
        }
        Ending::Refused(refusal) => {
            status.code = (refusal.code != 0).then_some(refusal.code);
            status.error = Some(refusal.message.clone());
            (TransactionPhase::Failed, "Refused")
        }
        Ending::Reset => {
            status.error = Some("the devnet was reset before it was confirmed".into());
            (TransactionPhase::Failed, "DevnetReset")
        }
    };
    status.phase = phase;
    let (holds, message) = match phase {
        TransactionPhase::Confirmed => (ConditionStatus::True, format!("it is in block {}", status.height.unwrap_or_default())),
        _ => (ConditionStatus::False, status.error.clone().unwrap_or_default()),
    };
    status.conditions.set(Condition::new("Confirmed", holds, reason, message), cx.clock.now());
}

fn failure(tx: &Transaction) -> Story {
    let status = &tx.status;
    let words = status.error.clone().unwrap_or_default();
    let story = Story::new("transaction", "TransactionFailed", words).warn().desired("in a block");
    match status.height {
        Some(height) => story.observed(format!("in block {height} with code {}", status.code.unwrap_or_default())),
        None => story.observed("in no block"),
    }
}

fn bounded(events: &[TxEvent]) -> Vec<TxEvent> {
    let mut room = MAX_EVENT_BYTES;
    let size = |event: &TxEvent| event.kind.len() + event.attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let fits = |event: &&TxEvent| {
        let left = room.checked_sub(size(event));
        room = left.unwrap_or(0);
        left.is_some()
    };
    events.iter().take_while(fits).cloned().collect()
}

/// Writes all or nothing, and puts what was written into the entries.
async fn commit(entries: &mut [Entry], changed: Vec<(usize, Transaction)>, events: Vec<Write>, cx: &Context) -> Result<(), ReconcileError> {
    if changed.is_empty() {
        return Ok(());
    }
    // Events first: the objects are the last writes of the commit, and take its last revisions, one each.
    let writes = events.into_iter().chain(changed.iter().map(|(_, tx)| Write::update(tx.clone()))).collect();
    let last = cx.store.commit(writes).await?;
    let count = changed.len() as u64;
    for ((index, mut tx), back) in changed.into_iter().zip((0..count).rev()) {
        tx.metadata.resource_version = last - back;
        entries[index].tx = Arc::new(tx);
    }
    Ok(())
}

fn key_of(tx: &Transaction) -> Key {
    Key::transaction(&tx.metadata.namespace, &tx.metadata.name)
}
