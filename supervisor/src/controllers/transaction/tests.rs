//! The controller on a fake chain, through the real manager and store.

use super::super::testing::{NET, NS, Rig, key};
use crate::{
    model::{Desired, Key, Kind, Transaction, TransactionPhase},
    plugin::{PluginError, fake::FakePlugin},
    store::{Selector, Write, fixtures},
};
use std::{collections::BTreeSet, sync::Arc};

const NODE: &str = "validator-0";

async fn rig() -> Rig {
    Rig::running(|spec| spec.validators = Some(1)).await
}

impl Rig {
    /// As the API stores it.
    async fn submit(&self, id: &str, signer: &str, payload: serde_json::Value) -> Key {
        let mut tx = fixtures::transaction(NS, NET, id);
        (tx.spec.signer, tx.spec.payload, tx.spec.tx_type) = (signer.into(), payload, "transfer".into());
        tx.status.chain_epoch = self.devnet().await.map_or(0, |devnet| devnet.spec.operations.reset);
        let key = Key::transaction(NS, &tx.metadata.name);
        self.store.commit(vec![Write::create(tx)]).await.unwrap();
        key
    }
    async fn pay(&self, id: &str, amount: u64) -> Key {
        self.submit(id, "account:0", serde_json::json!({ "amount": amount })).await
    }
    async fn comes_to(&self, key: &Key, phase: TransactionPhase) -> Arc<Transaction> {
        self.until(key, &format!("{key} is {phase:?}"), |tx: &Transaction| tx.status.phase == phase).await
    }
    async fn transactions(&self) -> usize {
        self.store.list(&Selector::in_devnet(Kind::Transaction, NS, NET)).await.unwrap().0.len()
    }
}

fn unavailable() -> PluginError {
    PluginError::Rejected { name: "fake".into(), code: "Unavailable".into(), message: "nobody there".into() }
}

/// The sequences in blocks have no gap, and no amount is there twice.
fn assert_once_each(plugin: &FakePlugin, amounts: &[u64]) {
    let included = plugin.included();
    let mut found: Vec<u64> = included.iter().map(|tx| tx.amount).collect();
    found.sort_unstable();
    assert_eq!(found, amounts, "{included:?}");
    let sequences: BTreeSet<(&str, u64)> = included.iter().map(|tx| (tx.from.as_str(), tx.sequence)).collect();
    assert_eq!(sequences.len(), amounts.len());
}

#[tokio::test]
async fn a_transfer_is_signed_stored_sent_and_confirmed_by_the_block_that_holds_it() {
    let rig = rig().await;
    let tx = rig.pay("a", 7).await;
    let sent = rig.comes_to(&tx, TransactionPhase::Submitted).await;
    let signed = sent.status.signed.clone().unwrap();
    assert_eq!((signed.sequence, signed.expires_at, sent.status.sender.as_deref()), (0, crate::plugin::fake::FAKE_LIFE, Some("fake10")));
    assert_eq!((sent.status.fee.as_deref(), sent.status.meaning.as_deref()), (Some("1fake"), Some("moves 7")));
    rig.plugin.make_block(NODE);
    let done = rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_eq!((done.status.height, done.status.gas_used, done.status.signed.as_ref()), (Some(1), Some(5), None));
    assert_once_each(&rig.plugin, &[7]);
    let cause = done.status.cause.clone().unwrap();
    assert_eq!(rig.store.event(&cause).await.unwrap().unwrap().reason, "Confirmed");
}

#[tokio::test]
async fn one_signer_gets_consecutive_sequences_and_a_window_bounds_what_is_in_flight() {
    let rig = rig().await;
    let mut keys = Vec::new();
    for amount in 1..=10 {
        keys.push(rig.pay(&format!("t{amount}"), amount).await);
    }
    for key in &keys[..4] {
        rig.comes_to(key, TransactionPhase::Submitted).await;
    }
    assert_eq!(rig.plugin.pending(), 4);
    for key in &keys {
        while rig.store.get(key).await.unwrap().is_some_and(|object| !is_confirmed(object)) {
            rig.plugin.make_block(NODE);
            tokio::task::yield_now().await;
        }
    }
    assert_once_each(&rig.plugin, &(1..=10).collect::<Vec<_>>());
    let order: Vec<u64> = rig.plugin.included().iter().map(|tx| tx.amount).collect();
    assert_eq!(order, (1..=10).collect::<Vec<_>>(), "in the order in which they were wanted");
}

fn is_confirmed(object: crate::model::Object) -> bool {
    Arc::<Transaction>::try_from(object).is_ok_and(|tx| tx.status.phase == TransactionPhase::Confirmed)
}

#[tokio::test]
async fn what_the_chain_will_never_take_fails_at_once_with_its_words_and_leaves_no_gap() {
    let rig = rig().await;
    let funds = rig.pay("rich", 5_000).await;
    let bad = rig.submit("bad", "account:0", serde_json::json!({"amount": "many"})).await;
    let stranger = rig.submit("stranger", "nobody", serde_json::json!({"amount": 1})).await;
    let poor = rig.submit("poor", "account:poor", serde_json::json!({"amount": 1})).await;
    let good = rig.pay("good", 3).await;
    for (key, words) in [(&funds, "has 1000 and needs 5000"), (&bad, "no number"), (&stranger, "no signer"), (&poor, "no account on the chain")] {
        let failed = rig.comes_to(key, TransactionPhase::Failed).await;
        assert!(failed.status.error.as_deref().unwrap_or_default().contains(words), "{failed:?}");
        assert!(failed.status.signed.is_none() && failed.status.conditions.is_false("Confirmed"));
    }
    rig.comes_to(&good, TransactionPhase::Submitted).await;
    rig.plugin.make_block(NODE);
    rig.comes_to(&good, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[3]);
}

/// To read a block is most of what a node is asked for, and its accounts change with its blocks.
#[tokio::test]
async fn a_block_is_read_once_for_all_signers_and_an_account_once_between_two_blocks() {
    let rig = rig().await;
    let calls = |method: &str| rig.plugin.calls().iter().filter(|call| *call == method).count();
    let txs = [rig.pay("a", 7).await, rig.submit("b", "account:1", serde_json::json!({"amount": 8})).await];
    for tx in &txs {
        rig.comes_to(tx, TransactionPhase::Submitted).await;
    }
    let (lookups, accounts) = (calls("lookup"), calls("account"));
    rig.plugin.make_block(NODE);
    for tx in &txs {
        rig.comes_to(tx, TransactionPhase::Confirmed).await;
    }
    assert_eq!((calls("lookup") - lookups, calls("account") - accounts), (1, 2));
    assert_eq!((lookups, accounts), (0, 4), "each address once, and each account once");
}

#[tokio::test]
async fn a_lost_answer_neither_doubles_nor_loses_a_payment() {
    let rig = rig().await;
    rig.plugin.lose_answers(2);
    let tx = rig.pay("a", 7).await;
    rig.comes_to(&tx, TransactionPhase::Retrying).await;
    rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.plugin.make_block(NODE);
    let done = rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_eq!(done.status.attempts, 1, "the same bytes were sent again");
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn a_node_that_forgets_its_mempool_is_sent_the_same_bytes_again() {
    let rig = rig().await;
    let tx = rig.pay("a", 7).await;
    let first = rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.plugin.forget_pool();
    while rig.plugin.pending() == 0 {
        rig.plugin.make_block(NODE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    rig.plugin.make_block(NODE);
    let done = rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_eq!((done.status.attempts, &done.status.tx_hash), (1, &first.status.tx_hash));
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn what_a_block_carried_in_vain_is_sent_again_with_the_next_and_not_failed() {
    let rig = rig().await;
    let tx = rig.pay("a", 7).await;
    rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.plugin.waste_block(NODE);
    while rig.plugin.pending() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    rig.plugin.make_block(NODE);
    let done = rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_eq!(done.status.attempts, 1);
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn what_comes_after_what_a_block_carried_in_vain_is_sent_again_with_it() {
    let rig = rig().await;
    let txs = [rig.pay("a", 7).await, rig.pay("b", 8).await, rig.pay("c", 9).await];
    for tx in &txs {
        rig.comes_to(tx, TransactionPhase::Submitted).await;
    }
    rig.plugin.waste_first(NODE);
    let all_again = async {
        while rig.plugin.pending() < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all_again).await.expect("without another block");
    rig.plugin.make_block(NODE);
    for tx in &txs {
        assert_eq!(rig.comes_to(tx, TransactionPhase::Confirmed).await.status.attempts, 1);
    }
    assert_once_each(&rig.plugin, &[7, 8, 9]);
}

#[tokio::test]
async fn bytes_are_replaced_only_once_they_have_expired() {
    let rig = rig().await;
    let tx = rig.pay("a", 7).await;
    let first = rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.plugin.limit_pool(Some(0));
    rig.plugin.forget_pool();
    let stale = first.status.signed.clone().unwrap();
    for _ in 0..stale.expires_at - 1 {
        rig.plugin.make_block(NODE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let still = rig.until(&tx, "it is there", |_: &Transaction| true).await;
    assert_eq!(still.status.signed.as_ref(), Some(&stale), "they may still be in a block");
    rig.plugin.limit_pool(None);
    rig.plugin.make_block(NODE);
    let again =
        rig.until(&tx, "it is signed anew", |tx: &Transaction| tx.status.attempts == 2 && tx.status.phase == TransactionPhase::Submitted).await;
    assert_ne!(again.status.tx_hash, first.status.tx_hash);
    rig.plugin.make_block(NODE);
    rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn a_wallet_that_uses_the_same_key_only_delays_ours() {
    let rig = rig().await;
    rig.plugin.submit_from_outside("fake10");
    let tx = rig.pay("a", 7).await;
    let sent = rig.comes_to(&tx, TransactionPhase::Submitted).await;
    assert_eq!(sent.status.signed.as_ref().map(|signed| signed.sequence), Some(1));
    rig.plugin.make_block(NODE);
    rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[1, 7]);
}

#[tokio::test]
async fn a_daemon_that_dies_between_storing_and_sending_goes_on_with_the_stored_bytes() {
    let mut rig = rig().await;
    rig.plugin.hold("broadcast");
    let tx = rig.pay("a", 7).await;
    let stored = rig.comes_to(&tx, TransactionPhase::Signing).await;
    rig.plugin.until_called("broadcast").await;
    rig.stop_daemon().await;
    rig.plugin.release("broadcast");
    rig.start_daemon();
    let sent = rig.comes_to(&tx, TransactionPhase::Submitted).await;
    assert_eq!(sent.status.signed, stored.status.signed);
    rig.plugin.make_block(NODE);
    rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn a_daemon_that_dies_after_the_block_finds_its_transaction_in_it() {
    let mut rig = rig().await;
    let tx = rig.pay("a", 7).await;
    rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.stop_daemon().await;
    rig.plugin.make_block(NODE);
    rig.start_daemon();
    rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_tried_again() {
    let rig = rig().await;
    for method in ["account", "build", "sign", "lookup"] {
        rig.plugin.fail_next(method, unavailable());
    }
    let tx = rig.pay("a", 7).await;
    rig.comes_to(&tx, TransactionPhase::Submitted).await;
    rig.plugin.make_block(NODE);
    rig.comes_to(&tx, TransactionPhase::Confirmed).await;
    assert_once_each(&rig.plugin, &[7]);
}

#[tokio::test]
async fn transactions_of_a_stopped_devnet_wait_until_it_runs_again() {
    let rig = rig().await;
    rig.change(|devnet| devnet.spec.desired = Some(Desired::Stopped)).await;
    rig.phase(crate::model::DevnetPhase::Stopped).await;
    let tx = rig.pay("a", 7).await;
    rig.change(|devnet| devnet.spec.desired = Some(Desired::Running)).await;
    rig.comes_to(&tx, TransactionPhase::Submitted).await;
}

#[tokio::test]
async fn a_reset_fails_what_was_not_confirmed_and_later_ones_go_on() {
    let rig = rig().await;
    let old = rig.pay("old", 7).await;
    rig.comes_to(&old, TransactionPhase::Submitted).await;
    rig.change(|devnet| devnet.spec.operations.reset += 1).await;
    let failed = rig.comes_to(&old, TransactionPhase::Failed).await;
    assert!(failed.status.error.as_deref().unwrap_or_default().contains("was reset"));
    rig.phase(crate::model::DevnetPhase::Running).await;
    let new = rig.pay("new", 3).await;
    rig.comes_to(&new, TransactionPhase::Submitted).await;
}

#[tokio::test]
async fn only_the_newest_finished_transactions_are_kept_and_deleting_the_devnet_takes_all() {
    let mut rig = rig().await;
    rig.stop_daemon().await;
    rig.keep = 10;
    rig.start_daemon();
    for id in 0..30 {
        let tx = rig.submit(&format!("t{id}"), "nobody", serde_json::json!({"amount": 1})).await;
        rig.until(&tx, "it failed, or is gone already", |tx: &Transaction| tx.status.phase == TransactionPhase::Failed).await;
    }
    let last = rig.pay("last", 1).await;
    rig.comes_to(&last, TransactionPhase::Submitted).await;
    assert!(rig.transactions().await <= 13, "{}", rig.transactions().await);
    rig.delete().await;
    rig.gone(&key()).await;
    rig.assert_nothing_left().await;
}
