//! The state machine: accounts with balances and nonces, and what a transfer does to them.
//!
//! The root is a hash over all accounts in address order. That costs a pass over all accounts for each block, which is nothing
//! for the thousands of accounts of a devnet, and keeps the root simple enough to check by hand.

use std::collections::BTreeMap;

use commonware_cryptography::Hasher as _;
use commonware_cryptography::sha256::Sha256;
use serde::Serialize;

use super::Hash;
use super::tx::{Address, Transfer};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    pub balance: u64,
    /// Transfers made so far, which is the nonce of the next one.
    pub nonce: u64,
}

/// Why a transfer cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxFault {
    #[error("the signature does not fit the sender, the content or this chain's genesis hash")]
    BadSignature,
    #[error("the amount is 0; a transfer moves at least 1")]
    ZeroAmount,
    #[error("nonce {given} was used already; the next nonce of {account} is {next}")]
    NonceTooLow { account: Address, given: u64, next: u64 },
    #[error("nonce {given} is too far ahead; the next nonce of {account} is {next}")]
    NonceTooHigh { account: Address, given: u64, next: u64 },
    #[error("the transfer expired at height {expiry}; the next block is {height}")]
    Expired { expiry: u64, height: u64 },
    #[error("insufficient balance: {account} has {available} to spend and the transfer needs {needed}")]
    InsufficientBalance { account: Address, available: u64, needed: u64 },
}

/// All accounts. The sum of balances fits 64 bits (genesis checks it), so no credit can overflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    accounts: BTreeMap<Address, Account>,
    /// Upgrades of the rules, in their order: they are part of the state.
    upgrades: Vec<String>,
}

impl Ledger {
    pub fn new(accounts: impl IntoIterator<Item = (Address, Account)>) -> Self {
        Self { accounts: accounts.into_iter().collect(), upgrades: Vec::new() }
    }

    /// An account that was never used is empty.
    pub fn account(&self, address: &Address) -> Account {
        self.accounts.get(address).copied().unwrap_or_default()
    }

    pub fn accounts(&self) -> impl Iterator<Item = (&Address, &Account)> {
        self.accounts.iter()
    }

    pub fn upgrade(&mut self, name: String) {
        self.upgrades.push(name);
    }

    /// Moves the money in a block of this height, or changes nothing. Signatures are checked elsewhere, once.
    pub fn apply(&mut self, tx: &Transfer, height: u64) -> Result<(), TxFault> {
        let mut sender = self.account(&tx.from);
        check_nonce(tx, sender.nonce)?;
        if tx.is_expired(height) {
            return Err(TxFault::Expired { expiry: tx.expiry, height });
        }
        if tx.amount == 0 {
            return Err(TxFault::ZeroAmount);
        }
        if sender.balance < tx.amount {
            return Err(TxFault::InsufficientBalance { account: tx.from, available: sender.balance, needed: tx.amount });
        }
        sender.balance -= tx.amount;
        sender.nonce += 1;
        self.accounts.insert(tx.from, sender);
        self.accounts.entry(tx.to).or_default().balance += tx.amount;
        Ok(())
    }

    /// The ledger after all of `txs`, or the first that does not apply.
    pub fn apply_all(&self, txs: &[Transfer], height: u64) -> Result<Self, TxFault> {
        let mut next = self.clone();
        txs.iter().try_for_each(|tx| next.apply(tx, height))?;
        Ok(next)
    }

    pub fn root(&self) -> Hash {
        let mut bytes = Vec::with_capacity(8 + self.accounts.len() * 48);
        bytes.extend_from_slice(&(self.accounts.len() as u64).to_be_bytes());
        for (address, account) in &self.accounts {
            bytes.extend_from_slice(&address.0);
            bytes.extend_from_slice(&account.balance.to_be_bytes());
            bytes.extend_from_slice(&account.nonce.to_be_bytes());
        }
        for name in &self.upgrades {
            bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        Sha256::hash(&[&bytes])
    }
}

fn check_nonce(tx: &Transfer, next: u64) -> Result<(), TxFault> {
    let (account, given) = (tx.from, tx.nonce);
    match given.cmp(&next) {
        std::cmp::Ordering::Less => Err(TxFault::NonceTooLow { account, given, next }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(TxFault::NonceTooHigh { account, given, next }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chain::tx::tests::{key, transfer, until};
    use proptest::prelude::*;

    pub(crate) fn address(seed: u64) -> Address {
        Address::of(&key(seed))
    }

    pub(crate) fn rich(seeds: impl IntoIterator<Item = u64>, balance: u64) -> Ledger {
        Ledger::new(seeds.into_iter().map(|seed| (address(seed), Account { balance, nonce: 0 })))
    }

    #[test]
    fn a_transfer_moves_money_and_counts_the_nonce() {
        let mut ledger = rich([1], 10);
        ledger.apply(&transfer(1, 2, 4, 0), 1).unwrap();
        assert_eq!(ledger.account(&address(1)), Account { balance: 6, nonce: 1 });
        assert_eq!(ledger.account(&address(2)), Account { balance: 4, nonce: 0 });
    }

    #[test]
    fn what_does_not_apply_is_named_and_changes_nothing() {
        let mut ledger = rich([1], 10);
        ledger.apply(&transfer(1, 1, 10, 0), 1).unwrap();
        let account = address(1);
        let check = |tx: Transfer, expect: TxFault| {
            let mut after = ledger.clone();
            assert_eq!(after.apply(&tx, 5), Err(expect));
            assert_eq!(after, ledger);
        };
        check(transfer(1, 2, 1, 0), TxFault::NonceTooLow { account, given: 0, next: 1 });
        check(transfer(1, 2, 1, 2), TxFault::NonceTooHigh { account, given: 2, next: 1 });
        check(transfer(1, 2, 11, 1), TxFault::InsufficientBalance { account, available: 10, needed: 11 });
        check(transfer(1, 2, 0, 1), TxFault::ZeroAmount);
        check(until(1, 2, 1, 1, 4), TxFault::Expired { expiry: 4, height: 5 });
        assert!(ledger.clone().apply(&until(1, 2, 1, 1, 5), 5).is_ok(), "the last block that may hold it");
    }

    #[test]
    fn an_upgrade_is_part_of_the_state() {
        let (before, mut after) = (rich([1], 10), rich([1], 10));
        after.upgrade("v2".into());
        assert_ne!(before.root(), after.root());
    }

    #[test]
    fn the_root_tells_ledgers_apart() {
        let ledger = rich([1, 2], 10);
        assert_eq!(ledger.root(), rich([2, 1], 10).root());
        assert_ne!(ledger.root(), rich([1], 10).root());
        assert_ne!(ledger.root(), ledger.apply_all(&[transfer(1, 2, 1, 0)], 1).unwrap().root());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn money_is_neither_made_nor_lost(moves in proptest::collection::vec((0..4u64, 0..6u64, 0..50u64, 0..3u64), 0..24)) {
            let mut ledger = rich(0..4, 100);
            for (from, to, amount, nonce) in moves {
                let _ = ledger.apply(&transfer(from, to, amount, nonce), 1);
                let sum: u64 = ledger.accounts().map(|(_, account)| account.balance).sum();
                prop_assert_eq!(sum, 400);
            }
        }
    }
}
