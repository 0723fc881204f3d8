//! What to do next in one lane: the transactions of one signer on one devnet, in the order in which they were wanted.
//!
//! Guarantees, for any history: bytes that were perhaps sent are replaced only once they are provably dead; no two living bytes of
//! a lane have the same sequence; new bytes fill the lowest free sequences, so that a gap closes as soon as there is something to
//! close it with.

use std::collections::BTreeSet;

/// A node that took bytes and let so many blocks pass without them has probably lost them: they are sent again.
pub(super) const RESEND_AFTER: u64 = 5;

/// Whether a node may have these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// For sure nobody has them.
    Never,
    /// Sent, and the answer is not known; or an earlier daemon signed them.
    Perhaps,
    /// A node took them, at this height.
    Taken { height: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) sequence: u64,
    /// Last height at which a block may hold them; 0: they never expire.
    pub(super) expires_at: u64,
    pub(super) sent: Sent,
    /// A block holds them.
    pub(super) included: bool,
}

/// One transaction of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) bytes: Option<Bytes>,
    /// Not to be signed (again) now.
    pub(super) held: bool,
}

/// What is known of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Of the account's next transaction, by what is in blocks, and the height at which it was so.
    pub(super) sequence: u64,
    pub(super) sequence_height: u64,
    /// What is in no block up to this height is known not to be.
    pub(super) height: u64,
    /// What a node said it expects next, pending transactions of others counted.
    pub(super) expects: Option<u64>,
}

/// Indices into the items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In a block.
    pub(super) settled: Vec<usize>,
    /// Their bytes can never be in a block.
    pub(super) dead: Vec<usize>,
    /// To be sent (again), in this order.
    pub(super) send: Vec<usize>,
    /// To be signed, in this order, with this sequence each.
    pub(super) sign: Vec<(usize, u64)>,
}

/// `window`: signed and not in a block, at most.
pub(super) fn plan(items: &[Item], chain: &Chain, window: usize) -> Plan {
    let mut plan = Plan::default();
    let floor = chain.expects.map_or(chain.sequence, |expects| expects.max(chain.sequence));
    let mut living: Vec<(usize, Bytes)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match item.bytes {
            Some(bytes) if bytes.included => plan.settled.push(index),
            Some(bytes) if is_dead(&bytes, chain) => plan.dead.push(index),
            Some(bytes) => living.push((index, bytes)),
            None => {}
        }
    }
    living.sort_by_key(|(_, bytes)| (bytes.sequence, bytes.sent == Sent::Never));
    plan.dead.extend(misplaced(&mut living, floor));
    let overdue = |bytes: &Bytes| match bytes.sent {
        Sent::Never | Sent::Perhaps => true,
        Sent::Taken { height } => chain.height >= height + RESEND_AFTER,
    };
    plan.send = living.iter().filter(|(_, bytes)| overdue(bytes)).map(|(index, _)| *index).collect();

    let taken: BTreeSet<u64> = living.iter().map(|(_, bytes)| bytes.sequence).collect();
    let free = (floor..).filter(|sequence| !taken.contains(sequence));
    let unsigned = items.iter().enumerate().filter(|(index, item)| !item.held && (item.bytes.is_none() || plan.dead.contains(index)));
    plan.sign = unsigned.map(|(index, _)| index).zip(free).take(window.saturating_sub(living.len())).collect();
    plan
}

/// Proof by the chain alone: the last height that could hold them is over, or another transaction used their sequence.
fn is_dead(bytes: &Bytes, chain: &Chain) -> bool {
    let expired = bytes.expires_at > 0 && chain.height >= bytes.expires_at;
    let overtaken = chain.sequence > bytes.sequence && chain.height >= chain.sequence_height;
    expired || overtaken
}

/// Takes out of `living`, which is sorted by sequence, what nobody has and no node would take: behind a gap, or doubled.
fn misplaced(living: &mut Vec<(usize, Bytes)>, floor: u64) -> Vec<usize> {
    let (mut next, mut out) = (floor, Vec::new());
    living.retain(|(index, bytes)| {
        let keep = bytes.sent != Sent::Never || bytes.sequence == next;
        if !keep {
            out.push(*index);
        } else if bytes.sequence >= next {
            next = bytes.sequence + 1;
        }
        keep
    });
    out
}

#[cfg(test)]
mod tests;
