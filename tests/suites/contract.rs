//! Contracts on a chain that we did not write: deployed by `tx submit`, and still there in a fork.

use crate::{
    fork::{file, submit},
    tx::{address, number, wasmd_query},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::{TestHome, Wasmd, wasmds};
use serde_json::{Value, json};
use std::fs;

/// The escrow of CosmWasm's examples (Apache-2.0), as wasmd v0.45.0 has it among its test data: who is its verifier lets the money go.
const CODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/hackatom.wasm.gz");

#[test]
fn on_each_sdk_a_contract_lives_on_in_a_fork_and_obeys_the_same_key() {
    wasmds().iter().for_each(a_contract_lives_on);
}

fn a_contract_lives_on(wasmd: &Wasmd) {
    let home = TestHome::new();
    // The accounts of both devnets are those of one mnemonic: who has the key in one has it in the other.
    let spec = |more: &str| format!("validators: 1, seed: {} about{more}", ["abandon"; 11].join(" "));
    home.ctl(&["up", &file(&home, "old", &wasmd.path, &spec("")), "--timeout", "90s"]).ok();
    let [verifier, beneficiary] = ["account:0", "account:1"].map(|name| address(&home, "old", name));
    assert_eq!(verifier, "wasm19rl4cm2hmr8afy4kldpxz3fka4jguq0akuugk7", "as any wallet has it");
    let code = STANDARD.encode(fs::read(CODE).unwrap());
    tell(&home, "old", json!({"@type": "/cosmwasm.wasm.v1.MsgStoreCode", "sender": verifier, "wasm_byte_code": code}));
    let terms = json!({"verifier": verifier, "beneficiary": beneficiary});
    let funds = json!([{"denom": "stake", "amount": "1000"}]);
    let kind = "/cosmwasm.wasm.v1.MsgInstantiateContract";
    tell(&home, "old", json!({"@type": kind, "sender": verifier, "code_id": "1", "label": "escrow", "msg": terms, "funds": funds}));
    let contract = query(&home, "old", &["wasm", "list-contract-by-code", "1"])["contracts"][0].as_str().unwrap().to_owned();
    let stands = |devnet: &str| (smart(&home, devnet, &contract)["verifier"].clone(), balance(&home, devnet, &contract));
    assert_eq!(stands("old"), (json!(verifier), 1000));

    home.ctl(&["export", "create", "old", "then", "--wait", "--timeout", "90s"]).ok();
    home.ctl(&["up", &file(&home, "new", &wasmd.path, &spec(", genesis: {fromExport: old/then}")), "--timeout", "90s"]).ok();
    home.all_rise("new", 1);
    assert_eq!(stands("new"), (json!(verifier), 1000), "wasmd {}", wasmd.version);
    assert_eq!(address(&home, "new", "account:0"), verifier);
    // Its code runs.
    let before = balance(&home, "new", &beneficiary);
    let release =
        json!({"@type": "/cosmwasm.wasm.v1.MsgExecuteContract", "sender": verifier, "contract": contract, "msg": {"release": {}}, "funds": []});
    tell(&home, "new", release);
    assert_eq!((balance(&home, "new", &beneficiary), balance(&home, "new", &contract)), (before + 1000, 0));
    assert_eq!(balance(&home, "old", &contract), 1000, "they are two chains");
}

/// A message of `account:0`, confirmed.
fn tell(home: &TestHome, devnet: &str, message: Value) {
    let payload = home.file("payload.json", &json!({"messages": [message]}).to_string());
    submit(home, devnet, &format!("--type any --signer account:0 --payload @{payload}"));
}

fn query(home: &TestHome, devnet: &str, words: &[&str]) -> Value {
    wasmd_query(home, &format!("{devnet}/validator-0"), words)
}

/// What the contract itself answers.
fn smart(home: &TestHome, devnet: &str, contract: &str) -> Value {
    query(home, devnet, &["wasm", "contract-state", "smart", contract, r#"{"verifier":{}}"#])["data"].clone()
}

fn balance(home: &TestHome, devnet: &str, address: &str) -> u64 {
    number(&query(home, devnet, &["bank", "balances", address]), "amount")
}
