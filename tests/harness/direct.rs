//! A client that signs and sends by itself, as a user's script would: what the transactions of devnetd are measured beside.

use crate::TestHome;
use dvb_plugin_cosmos::{
    binary::{Chain, Prefixes},
    tx,
};
use dvb_plugin_sdk::pb;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A node that took a transaction may drop it without a word: without a block of ours for so long, all that is missing is sent again.
const SEND_AGAIN: Duration = Duration::from_secs(20);
const GIVE_UP: Duration = Duration::from_secs(120);

/// Transfers of one token from each of `signers` to `account:9`, all sent at once; how long until each is in a block.
pub fn transfers(home: &TestHome, devnet: &str, signers: &[&str], each: usize) -> Duration {
    let (spec, node) = (home.devnet(devnet)["spec"].clone(), home.node(&format!("{devnet}/validator-0"))["spec"].clone());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let prefixes = Prefixes { account: "wasm".into(), validator: "wasmvaloper".into(), consensus: "wasmvalcons".into() };
    let chain = Chain { prefixes, ..Chain::default() };
    let context = pb::DevnetContext {
        seed: text(&spec["seed"]),
        chain_id: text(&spec["chainId"]),
        accounts: 10,
        validators: 4,
        initialized: chain.to_state(),
        ..pb::DevnetContext::default()
    };
    let port = u32::try_from(node["ports"]["rpc"].as_u64().unwrap_or_default()).unwrap_or_default();
    let node = pb::PlacedNode {
        name: "validator-0".into(),
        address: text(&node["address"]),
        ports: [("rpc".to_owned(), port)].into(),
        ..pb::PlacedNode::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let started = Instant::now();
    runtime.block_on(async {
        let runs = signers.iter().map(|signer| tokio::spawn(pay((*signer).to_owned(), each, context.clone(), node.clone())));
        for run in runs.collect::<Vec<_>>() {
            run.await.expect("no panic").expect("the chain takes them");
        }
    });
    started.elapsed()
}

async fn pay(signer: String, count: usize, devnet: pb::DevnetContext, node: pb::PlacedNode) -> dvb_plugin_sdk::Result<()> {
    let (devnet, node) = (Some(devnet), Some(node));
    let account = tx::account(&pb::GetAccountRequest { devnet: devnet.clone(), node: node.clone(), signer: signer.clone() }).await?;
    let payload = r#"{"to": "account:9", "amount": "1stake"}"#.to_owned();
    let intents = vec![pb::TxIntent { r#type: "bank/send".into(), payload, gas_limit: 200_000, memo: String::new() }; count];
    let build = pb::BuildTxRequest {
        devnet: devnet.clone(),
        signer: signer.clone(),
        account: Some(account.clone()),
        intents,
        ..pb::BuildTxRequest::default()
    };
    let bodies = tx::build(&build).await?.outcomes.into_iter().filter_map(|outcome| match outcome.outcome {
        Some(pb::build_outcome::Outcome::Built(built)) => Some(built.body),
        _ => None,
    });
    let items = bodies.zip(account.sequence..).map(|(body, sequence)| pb::SignItem { body, sequence, expiry_height: 0 }).collect();
    let signed = tx::sign(&pb::SignTxRequest { devnet: devnet.clone(), signer, account: Some(account.clone()), items })?.signed;
    let mut waiting: BTreeMap<String, Vec<u8>> = signed.iter().map(|tx| (tx.hash.clone(), tx.raw.clone())).collect();
    let (mut unsent, mut looked_to): (Vec<pb::SignedTx>, u64) = (signed.clone(), account.height);
    let mut progress = Instant::now();
    loop {
        let raw = unsent.iter().map(|tx| tx.raw.clone()).collect();
        let sent = tx::broadcast(&pb::BroadcastTxRequest { devnet: devnet.clone(), node: node.clone(), raw }).await?;
        unsent.drain(..sent.outcomes.iter().filter(|outcome| outcome.accepted).count());
        tokio::time::sleep(Duration::from_millis(100)).await; // as scripts do
        let queries = waiting.keys().map(|hash| pb::TxQuery { hash: hash.clone(), after_height: looked_to, expiry_height: 0 }).collect();
        let found = tx::find(&pb::GetTxRequest { devnet: devnet.clone(), node: node.clone(), queries }).await?;
        looked_to = looked_to.max(found.height);
        if !found.included.is_empty() {
            progress = Instant::now();
        }
        found.included.iter().for_each(|tx| drop(waiting.remove(&tx.hash)));
        if waiting.is_empty() {
            return Ok(());
        }
        let still = progress.elapsed();
        assert!(still < GIVE_UP, "{} transactions of {count} are in no block, and none came in for {still:?}", waiting.len());
        // In the order of their sequences.
        let lost = |tx: &&pb::SignedTx| {
            let is_lost = still > SEND_AGAIN || found.dropped.contains(&tx.hash) || unsent.iter().any(|other| other.hash == tx.hash);
            is_lost && waiting.contains_key(&tx.hash)
        };
        unsent = signed.iter().filter(lost).cloned().collect();
    }
}
