//! Transfers that wait for a block: bounded, ordered by nonce within an account.

use std::collections::{BTreeMap, HashMap};

use super::Hash;
use super::ledger::{Ledger, TxFault};
use super::tx::{Address, Transfer};

/// Transfers in all.
pub const MAX_PENDING: usize = 10_000;
/// Transfers of one account, and how far a nonce may be ahead.
pub const MAX_PER_ACCOUNT: u64 = 64;
/// A transfer that found no block within so many is forgotten.
pub const MAX_AGE_BLOCKS: u64 = 600;

/// Why a transfer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Tx(#[from] TxFault),
    #[error("this very transfer is pending already")]
    Known,
    #[error("another transfer of {account} with nonce {nonce} is pending")]
    NonceTaken { account: Address, nonce: u64 },
    #[error("the mempool holds {MAX_PENDING} transfers and takes no more until some are in a block")]
    Full,
}

#[derive(Clone, Debug)]
struct Entry {
    tx: Transfer,
    since: u64,
}

#[derive(Debug, Default)]
pub struct Mempool {
    by_account: BTreeMap<Address, BTreeMap<u64, Entry>>,
    by_hash: HashMap<Hash, (Address, u64)>,
}

impl Mempool {
    /// Takes a transfer whose signature was checked. `ledger` and `height` are those of the last finalized block.
    pub fn insert(&mut self, tx: Transfer, ledger: &Ledger, height: u64) -> Result<Hash, Refusal> {
        let hash = tx.hash();
        self.check(&tx, &hash, ledger, height)?;
        self.by_hash.insert(hash, (tx.from, tx.nonce));
        self.by_account.entry(tx.from).or_default().insert(tx.nonce, Entry { tx, since: height });
        Ok(hash)
    }

    fn check(&self, tx: &Transfer, hash: &Hash, ledger: &Ledger, height: u64) -> Result<(), Refusal> {
        if self.by_hash.contains_key(hash) {
            return Err(Refusal::Known);
        }
        if tx.amount == 0 {
            return Err(TxFault::ZeroAmount.into());
        }
        if tx.is_expired(height + 1) {
            return Err(TxFault::Expired { expiry: tx.expiry, height: height + 1 }.into());
        }
        let sender = ledger.account(&tx.from);
        let (account, given, next) = (tx.from, tx.nonce, sender.nonce);
        if given < next {
            return Err(TxFault::NonceTooLow { account, given, next }.into());
        }
        if given - next >= MAX_PER_ACCOUNT {
            return Err(TxFault::NonceTooHigh { account, given, next }.into());
        }
        let pending = self.by_account.get(&account);
        if pending.is_some_and(|pending| pending.contains_key(&given)) {
            return Err(Refusal::NonceTaken { account, nonce: given });
        }
        let spoken_for: u64 = pending.map_or(0, |pending| pending.range(..given).fold(0, |sum, (_, entry)| sum.saturating_add(entry.tx.amount)));
        let available = sender.balance.saturating_sub(spoken_for);
        if available < tx.amount {
            return Err(TxFault::InsufficientBalance { account, available, needed: tx.amount }.into());
        }
        if self.by_hash.len() >= MAX_PENDING {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// The transfers for a block of `height` on top of `ledger`, at most `max`, and the ledger after them.
    ///
    /// Accounts take turns, so that a busy one cannot keep the others out.
    pub fn pick(&self, ledger: &Ledger, max: usize, height: u64) -> (Vec<Transfer>, Ledger) {
        let mut after = ledger.clone();
        let mut picked = Vec::new();
        let mut queues: Vec<_> = self.by_account.values().map(|pending| pending.values().peekable()).collect();
        while !queues.is_empty() && picked.len() < max {
            queues.retain_mut(|queue| {
                let Some(entry) = queue.find(|entry| entry.tx.nonce >= after.account(&entry.tx.from).nonce) else { return false };
                if picked.len() == max || after.apply(&entry.tx, height).is_err() {
                    return false;
                }
                picked.push(entry.tx.clone());
                true
            });
        }
        (picked, after)
    }

    /// Forgets what a finalized block settled: used nonces of the accounts in `txs`, what expired, and what waited too long.
    pub fn settle(&mut self, txs: &[Transfer], ledger: &Ledger, height: u64) {
        for account in txs.iter().map(|tx| tx.from) {
            let next = ledger.account(&account).nonce;
            self.retain_in(account, |nonce, _| nonce >= next);
        }
        let accounts: Vec<_> = self.by_account.keys().copied().collect();
        for account in accounts {
            self.retain_in(account, |_, entry| entry.since + MAX_AGE_BLOCKS > height && !entry.tx.is_expired(height + 1));
        }
    }

    fn retain_in(&mut self, account: Address, keep: impl Fn(u64, &Entry) -> bool) {
        let Some(pending) = self.by_account.get_mut(&account) else { return };
        let by_hash = &mut self.by_hash;
        pending.retain(|nonce, entry| {
            let kept = keep(*nonce, entry);
            if !kept {
                by_hash.remove(&entry.tx.hash());
            }
            kept
        });
        if pending.is_empty() {
            self.by_account.remove(&account);
        }
    }

    pub fn get(&self, hash: &Hash) -> Option<&Transfer> {
        let (account, nonce) = self.by_hash.get(hash)?;
        self.by_account.get(account)?.get(nonce).map(|entry| &entry.tx)
    }

    /// The first nonce of `account` that is neither used nor pending.
    pub fn next_nonce(&self, account: &Address, ledger: &Ledger) -> u64 {
        let mut next = ledger.account(account).nonce;
        let pending = self.by_account.get(account);
        while pending.is_some_and(|pending| pending.contains_key(&next)) {
            next += 1;
        }
        next
    }

    /// Transfers that wait since `height` or longer, at most `max`: peers may have missed them.
    pub fn waiting_since(&self, height: u64, max: usize) -> Vec<Transfer> {
        self.by_account.values().flat_map(BTreeMap::values).filter(|entry| entry.since <= height).take(max).map(|entry| entry.tx.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ledger::tests::{address, rich};
    use crate::chain::tx::tests::{transfer, until};
    use proptest::prelude::*;

    fn filled(txs: &[Transfer], ledger: &Ledger) -> Mempool {
        let mut pool = Mempool::default();
        for tx in txs {
            pool.insert(tx.clone(), ledger, 0).unwrap();
        }
        pool
    }

    #[test]
    fn each_refusal_says_why() {
        let ledger = rich([1], 10);
        let account = address(1);
        let mut pool = filled(&[transfer(1, 2, 6, 0)], &ledger);
        let mut check = |tx, expect| assert_eq!(pool.insert(tx, &ledger, 0), Err(expect));
        check(transfer(1, 2, 6, 0), Refusal::Known);
        check(transfer(1, 2, 5, 0), Refusal::NonceTaken { account, nonce: 0 });
        check(transfer(1, 2, 5, 1), TxFault::InsufficientBalance { account, available: 4, needed: 5 }.into());
        check(transfer(1, 2, 0, 1), TxFault::ZeroAmount.into());
        check(transfer(1, 2, 1, 64), TxFault::NonceTooHigh { account, given: 64, next: 0 }.into());
        let used = ledger.apply_all(&[transfer(1, 2, 6, 0)], 1).unwrap();
        assert_eq!(pool.insert(transfer(1, 2, 1, 0), &used, 0), Err(TxFault::NonceTooLow { account, given: 0, next: 1 }.into()));
    }

    #[test]
    fn nonces_that_came_out_of_order_are_picked_in_order() {
        let ledger = rich([1], 10);
        let pool = filled(&[transfer(1, 2, 1, 2), transfer(1, 2, 1, 0), transfer(1, 2, 1, 1)], &ledger);
        let nonces: Vec<_> = pool.pick(&ledger, 9, 1).0.iter().map(|tx| tx.nonce).collect();
        assert_eq!(nonces, [0, 1, 2]);
        assert_eq!(pool.next_nonce(&address(1), &ledger), 3);
    }

    #[test]
    fn a_gap_holds_back_what_follows_it() {
        let ledger = rich([1], 10);
        let pool = filled(&[transfer(1, 2, 1, 0), transfer(1, 2, 1, 2)], &ledger);
        assert_eq!(pool.pick(&ledger, 9, 1).0.len(), 1);
    }

    #[test]
    fn what_expired_is_refused_not_picked_and_forgotten() {
        let ledger = rich([1], 10);
        let mut pool = filled(&[until(1, 2, 1, 0, 7)], &ledger);
        assert_eq!(pool.insert(until(1, 2, 1, 1, 7), &ledger, 7), Err(TxFault::Expired { expiry: 7, height: 8 }.into()));
        assert_eq!((pool.pick(&ledger, 9, 7).0.len(), pool.pick(&ledger, 9, 8).0.len()), (1, 0));
        pool.settle(&[], &ledger, 6);
        assert_eq!(pool.len(), 1);
        pool.settle(&[], &ledger, 7);
        assert!(pool.is_empty());
    }

    #[test]
    fn accounts_take_turns() {
        let ledger = rich([1, 2], 10);
        let pool = filled(&[transfer(1, 3, 1, 0), transfer(1, 3, 1, 1), transfer(2, 3, 1, 0)], &ledger);
        let mut senders: Vec<_> = pool.pick(&ledger, 2, 1).0.iter().map(|tx| tx.from).collect();
        senders.sort();
        senders.dedup();
        assert_eq!(senders.len(), 2);
    }

    #[test]
    fn a_pending_ancestor_s_transfers_are_not_picked_again() {
        let ledger = rich([1], 10);
        let txs = [transfer(1, 2, 1, 0), transfer(1, 2, 1, 1)];
        let pool = filled(&txs, &ledger);
        let speculative = ledger.apply_all(&txs[..1], 1).unwrap();
        assert_eq!(pool.pick(&speculative, 9, 1).0, txs[1..]);
    }

    #[test]
    fn a_finalized_block_settles_its_transfers_and_age_the_rest() {
        let ledger = rich([1, 2], 10);
        let txs = [transfer(1, 2, 1, 0), transfer(2, 1, 1, 1)];
        let mut pool = filled(&txs, &ledger);
        let after = ledger.apply_all(&txs[..1], 1).unwrap();
        pool.settle(&txs[..1], &after, 1);
        assert_eq!((pool.len(), pool.get(&txs[0].hash())), (1, None));
        pool.settle(&[], &after, MAX_AGE_BLOCKS);
        assert!(pool.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_picked_applies(moves in proptest::collection::vec((0..3u64, 0..4u64, 1..40u64, 0..6u64), 0..24), max in 0..10usize) {
            let ledger = rich(0..3, 60);
            let mut pool = Mempool::default();
            for (from, to, amount, nonce) in moves {
                let _ = pool.insert(transfer(from, to, amount, nonce), &ledger, 0);
            }
            let (picked, after) = pool.pick(&ledger, max, 1);
            prop_assert!(picked.len() <= max);
            prop_assert_eq!(ledger.apply_all(&picked, 1).unwrap(), after);
        }
    }
}
