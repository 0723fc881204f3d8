//! Chains whose processes live on and make no blocks: what is said of them, and what an upgrade to such a binary comes to.

use crate::wasmd::devnet;
use e2e::{TestHome, Wasmd, condition, wasmd, wasmds};
use serde_json::Value;
use std::{fs, time::Duration};

/// A node that stands still is asked for its words ten seconds later.
const PATIENCE: Duration = Duration::from_secs(90);

/// The condition Progressing of a node, when it is false: reason and message.
fn stands_still(home: &TestHome, node: &str) -> Option<(String, String)> {
    let progressing = condition(&home.node(node), "Progressing");
    let text = |key: &str| progressing[key].as_str().unwrap_or_default().to_owned();
    (progressing["status"] == "False").then(|| (text("reason"), text("message")))
}

fn until_it_stands_still(home: &TestHome, node: &str, reason: &str, words: &str) {
    home.eventually(&format!("{node} is told as {reason}: {words}"), PATIENCE, |home| {
        stands_still(home, node).is_some_and(|(found, message)| found == reason && message.contains(words))
    });
    assert_eq!(home.node(node)["status"]["phase"], "Running", "its process lives");
}

#[test]
fn a_consensus_failure_of_a_process_that_lives_is_told_in_the_chains_words() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    // At a height that it comes to when `up` has long seen it run.
    let file = devnet(&home, "halts", &program, &["localhost: false", "nodes: [{name: validator-0, args: [--halt-height, '40']}]"]);
    let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 1").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["up", &home.file("halts.yaml", &text), "--timeout", "90s"]).ok();
    until_it_stands_still(&home, "halts/validator-0", "ConsensusFailure", "halt per configuration height 40");
    home.ctl(&["describe", "halts/validator-0"]).ok().prints("ConsensusFailure").prints("halt per configuration height 40");
}

/// One of two begins with other balances: neither finds a vote for its blocks, and none of the processes ends.
#[test]
fn on_each_sdk_another_app_hash_is_told_of_processes_that_live() {
    wasmds().iter().for_each(another_app_hash);
}

fn another_app_hash(wasmd: &Wasmd) {
    let home = TestHome::new();
    let file = devnet(&home, "split", &wasmd.path, &["localhost: false", "desired: stopped"]);
    let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 2").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["apply", "-f", &home.file("split.yaml", &text), "--wait", "--timeout", "90s"]).ok();
    let genesis = home.home().join("devnets/default/split/nodes/validator-1/home/config/genesis.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&genesis).unwrap()).unwrap();
    let balances = state["app_state"]["bank"]["balances"].as_array_mut().unwrap();
    balances.last_mut().unwrap()["coins"][0]["amount"] = "7".into();
    fs::remove_file(&genesis).unwrap(); // the others share it
    fs::write(&genesis, state.to_string()).unwrap();
    home.ctl(&["start", "split", "--no-wait"]).ok();
    for node in ["split/validator-0", "split/validator-1"] {
        until_it_stands_still(&home, node, "AppHashMismatch", "wrong Block.Header.AppHash");
    }
}

#[test]
fn an_upgrade_to_a_binary_whose_consensus_fails_goes_back_with_the_chains_words() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let file = devnet(&home, "wasm", &program, &["localhost: false", "restart: {backoff: 300ms}"]);
    let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 2").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["up", &home.file("wasm.yaml", &text), "--timeout", "90s"]).ok();
    home.all_rise("wasm", 2);
    let fails = home.program("fails", &format!("[ \"$1\" != start ] || set -- \"$@\" --halt-height 1\nexec {} \"$@\"", program.display()));
    home.ctl(&["upgrade", "create", "wasm", "--name", "fix", "--binary", &fails, "--skip-vote", "--wait", "--timeout", "240s"]).exits(1);
    let back = home.json(&["get", "upgrade", "wasm/fix"])["status"].clone();
    assert_eq!(back["phase"], "RolledBack", "{back}");
    let why = back["why"].as_str().unwrap();
    assert!(why.contains("halt per configuration height 1") && !why.contains("in time"), "{why}");
    home.ctl(&["wait", "wasm", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("wasm", 2);
}
