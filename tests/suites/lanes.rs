//! Lanes on a real chain: what a mempool, too little gas, many processes and a killed daemon do to payments of one signer.

use crate::{
    tx::{Ledger, Wasmd, assert_once_each, standing, transfers},
    wasmd::devnet,
};
use e2e::{TestHome, is_alive, wasmd};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

const NET: &str = "lanes";
const LEDGER: Wasmd = Wasmd { node: "validator-0" };
const PATIENCE: Duration = Duration::from_secs(240);
/// Processes at once.
const PAYERS: u64 = 20;

/// Two validators; `more` are further lines of the spec.
fn up(home: &TestHome, program: &Path, more: &[&str]) {
    let lines = [&["localhost: false"], more].concat();
    let text = std::fs::read_to_string(devnet(home, NET, program, &lines)).unwrap();
    let text = text.replace("validators: 4", "validators: 2").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["up", &home.file("lanes.yaml", &text), "--timeout", "120s"]).ok();
    home.all_rise(NET, 1);
}

fn start(home: &TestHome, words: &[&str]) -> Child {
    home.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dvbctl starts")
}

#[track_caller]
fn succeeds(child: Child) -> Value {
    let output = child.wait_with_output().expect("dvbctl ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// With room for two transactions in every node, a block holds two at most.
#[test]
fn a_full_mempool_is_told_and_waited_for_until_all_are_confirmed_once() {
    const ROOM: usize = 2;
    const COUNT: u64 = 12;
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let small = |node: u32| format!("{{name: validator-{node}, config: {{config.toml: {{mempool: {{size: {ROOM}}}}}}}}}");
    up(&home, &program, &[&format!("nodes: [{}, {}]", small(0), small(1))]);
    let before = standing(&home, NET, &LEDGER);
    let (lines, total) = transfers(&home, COUNT, "bank/send", "stake");
    let batch = start(&home, &["tx", "batch", NET, "-f", &lines, "--wait", "--timeout", "240s", "-o", "json"]);
    home.eventually("it is told why they wait", PATIENCE, |home| {
        let list = home.json(&["tx", "list", NET]);
        let waits = |tx: &Value| tx["status"]["phase"] == "Retrying" && tx["status"]["error"].to_string().contains("mempool is full");
        list["items"].as_array().is_some_and(|items| items.iter().any(waits))
    });
    let summary = succeeds(batch);
    assert_eq!((summary["confirmed"].as_u64(), summary["failed"].as_u64()), (Some(COUNT), Some(0)), "{summary}");
    let mut blocks: BTreeMap<u64, usize> = BTreeMap::new();
    for tx in home.json(&["tx", "list", NET])["items"].as_array().unwrap() {
        assert_eq!(tx["status"]["error"], Value::Null, "nothing is left of the wait: {tx}");
        *blocks.entry(tx["status"]["height"].as_u64().unwrap()).or_default() += 1;
    }
    assert!(blocks.values().all(|held| *held <= ROOM), "the mempool was not as small as the spec says: {blocks:?}");
    assert_once_each(&home, NET, &LEDGER, COUNT, total, &before);
}

#[test]
fn processes_at_once_keep_one_signers_sequence_and_too_little_gas_ends_in_the_chains_words() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    up(&home, &program, &[]);
    let pay = ["tx", "submit", NET, "--type", "bank/send", "--signer", "account:0", "--to", "account:9", "--amount", "7stake", "--wait"];
    let with = |more: &[&'static str]| [&pay, more].concat();
    let account = |name: &str| LEDGER.account(&home, NET, name);
    let ((_, sequence), (balance, _)) = (account("account:0"), account("account:9"));
    let payers: Vec<Child> = (0..PAYERS).map(|_| start(&home, &with(&["--timeout", "240s", "-o", "json"]))).collect();
    let mut sequences: Vec<Value> = payers.into_iter().map(succeeds).map(|tx| tx["status"]["phase"].clone()).collect();
    sequences.dedup();
    assert_eq!(sequences, [json!("Confirmed")]);
    assert_eq!((account("account:0").1, account("account:9").0), (sequence + PAYERS, balance + 7 * PAYERS));

    // What a simulation finds is less than the fee's own deduction and the signature's check need in the block.
    home.ctl(&with(&["--gas-factor", "1.0"])).exits(1).says("out of gas");
    home.ctl(&with(&["--gas", "30000"])).exits(1).says("out of gas");
    assert_eq!(account("account:9").0, balance + 7 * PAYERS, "nothing was paid");
    let limit = |factor: &'static str| home.json(&with(&["--gas-factor", factor]))["status"]["gasLimit"].as_f64().unwrap();
    let (twice, thrice) = (limit("2.0"), limit("3.0"));
    assert!((thrice / twice - 1.5).abs() < 0.05, "{twice} and {thrice}");
    assert_eq!(account("account:9").0, balance + 7 * (PAYERS + 2), "the lane goes on after failures");
}

/// The crash matrix has the same steps on the devchain.
#[test]
fn a_daemon_killed_at_each_step_of_a_payment_on_wasmd_pays_once() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    up(&home, &program, &[]);
    let (before, others) = (LEDGER.account(&home, NET, "account:0"), LEDGER.account(&home, NET, "account:9"));
    for (paid, point) in (1..).zip(["tx/signed", "tx/sent", "tx/seen"]) {
        home.ctl(&["daemon", "stop"]).ok();
        let armed = home.command(&["daemon", "start"]).env("FAILPOINTS", point).output().expect("dvbctl runs");
        assert!(armed.status.success(), "{}", String::from_utf8_lossy(&armed.stderr));
        let daemon = home.daemon_pid().expect("the daemon runs");
        let pay = ["tx", "submit", NET, "--type", "bank/send", "--signer", "account:0", "--to", "account:9", "--amount", "7stake"];
        let words = [&pay[..], &["--request-id", point.rsplit('/').next().unwrap(), "-o", "name"]].concat();
        let _ = home.ctl(&words); // it may die before it answers
        home.eventually(&format!("it dies at {point}"), PATIENCE, |_| !is_alive(daemon));
        home.ctl(&["daemon", "start"]).ok();
        home.ctl(&[&words[..], &["--wait", "--timeout", "240s"]].concat()).ok();
        home.all_rise(NET, 1); // a second one would be in a block by now
        let now = (LEDGER.account(&home, NET, "account:0").1, LEDGER.account(&home, NET, "account:9").0);
        assert_eq!(now, (before.1 + paid, others.0 + 7 * paid), "{point}");
    }
}
