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
fn on_each_sdk_a_contract_and_its_code_are_in_a_fork() {
    wasmds().iter().for_each(a_contract_lives_on);
}

fn a_contract_lives_on(wasmd: &Wasmd) {
    let home = TestHome::new();
    home.ctl(&["up", &file(&home, "old", &wasmd.path, "validators: 1"), "--timeout", "90s"]).ok();
    let [verifier, beneficiary] = ["account:0", "account:1"].map(|name| address(&home, "old", name));
    let code = STANDARD.encode(fs::read(CODE).unwrap());
    tell(&home, "old", json!({"@type": "/cosmwasm.wasm.v1.MsgStoreCode", "sender": verifier, "wasm_byte_code": code}));
    let contract = escrow(&home, "old", &verifier, &beneficiary);
    let stands = |devnet: &str| (smart(&home, devnet, &contract)["verifier"].clone(), balance(&home, devnet, &contract));
    assert_eq!(stands("old"), (json!(verifier), 1000));

    home.ctl(&["export", "create", "old", "then", "--wait", "--timeout", "90s"]).ok();
    home.ctl(&["up", &file(&home, "new", &wasmd.path, "validators: 1, genesis: {fromExport: old/then}"), "--timeout", "90s"]).ok();
    home.all_rise("new", 1);
    assert_eq!(stands("new"), (json!(verifier), 1000), "wasmd {}", wasmd.version);

    // Its code runs: another one of it does what its verifier, an account of the fork, says.
    let own = address(&home, "new", "account:0");
    let second = escrow(&home, "new", &own, &beneficiary);
    assert_ne!(second, contract);
    let before = balance(&home, "new", &beneficiary);
    tell(
        &home,
        "new",
        json!({"@type": "/cosmwasm.wasm.v1.MsgExecuteContract", "sender": own, "contract": second, "msg": {"release": {}}, "funds": []}),
    );
    assert_eq!((balance(&home, "new", &beneficiary), balance(&home, "new", &second)), (before + 1000, 0));
}

/// A message of `account:0`, confirmed.
fn tell(home: &TestHome, devnet: &str, message: Value) {
    let payload = home.file("payload.json", &json!({"messages": [message]}).to_string());
    submit(home, devnet, &format!("--type any --signer account:0 --payload @{payload}"));
}

/// A new contract of the first code that was stored, with 1000 stake; its address.
fn escrow(home: &TestHome, devnet: &str, verifier: &str, beneficiary: &str) -> String {
    let list = || {
        let contracts = wasmd_query(home, &format!("{devnet}/validator-0"), &["wasm", "list-contract-by-code", "1"])["contracts"].clone();
        contracts.as_array().cloned().unwrap_or_default()
    };
    let before = list();
    let terms = json!({"verifier": verifier, "beneficiary": beneficiary});
    let funds = json!([{"denom": "stake", "amount": "1000"}]);
    let kind = "/cosmwasm.wasm.v1.MsgInstantiateContract";
    tell(home, devnet, json!({"@type": kind, "sender": verifier, "code_id": "1", "label": "escrow", "msg": terms, "funds": funds}));
    let new: Vec<Value> = list().into_iter().filter(|contract| !before.contains(contract)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0].as_str().unwrap().to_owned()
}

/// What the contract itself answers.
fn smart(home: &TestHome, devnet: &str, contract: &str) -> Value {
    wasmd_query(home, &format!("{devnet}/validator-0"), &["wasm", "contract-state", "smart", contract, r#"{"verifier":{}}"#])["data"].clone()
}

fn balance(home: &TestHome, devnet: &str, address: &str) -> u64 {
    number(&wasmd_query(home, &format!("{devnet}/validator-0"), &["bank", "balances", address]), "amount")
}
