//! Exports and forks on the devchain: the state of a chain that runs, and another devnet that begins with it.

use crate::tx::{address, endpoint, http};
use e2e::{Follower, TestHome, binary};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

const QUICK: &str = "{backoff: 300ms}";
const SOON: Duration = Duration::from_secs(30);

/// A devnet of two validators that begins with a state.
fn fork(home: &TestHome, name: &str, genesis: &str) -> String {
    let spec = format!("{{plugin: commonware, validators: 2, accounts: 2, blockTime: 300ms, localhost: false, genesis: {genesis}}}");
    home.file(&format!("{name}.yaml"), &format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
}

/// What a devnet's chain says of an address: balance and nonce.
fn account(home: &TestHome, devnet: &str, address: &str) -> (u64, u64) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "account", "params": [address]}).to_string();
    let request = format!("POST / HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = http(&endpoint(home, &format!("{devnet}/validator-0"), "rpc"), &request);
    (answer["result"]["balance"].as_u64().unwrap(), answer["result"]["nonce"].as_u64().unwrap())
}

fn pay(home: &TestHome, devnet: &str, amount: &str) {
    let tx = ["tx", "submit", devnet, "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", amount, "--wait"];
    home.ctl(&tx).ok();
}

fn status(home: &TestHome, name: &str) -> Value {
    home.json(&["get", "export", name])["status"].clone()
}

fn reasons(home: &TestHome, name: &str) -> Vec<String> {
    let events = home.json(&["events", name]);
    events["items"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_devnet_that_begins_with_an_export_has_the_old_balances_under_new_validators() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    pay(&home, "quick", "7");
    let (payer, payee) = (address(&home, "quick", "account:0"), address(&home, "quick", "account:1"));
    let (before, pids) = ([account(&home, "quick", &payer), account(&home, "quick", &payee)], home.pids("quick"));
    let copy = home.path().join("state.json");
    home.ctl(&["export", "create", "quick", "--to", &copy.display().to_string()]).ok().prints("sha256");
    let done = status(&home, "quick/export-1");
    assert_eq!((&done["phase"], &done["node"]), (&json!("Completed"), &json!("fullnode-0")), "{done}");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(done["path"].as_str().unwrap()).unwrap());
    let state: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
    assert_eq!(state["height"], done["height"]);
    pay(&home, "quick", "9"); // after the export: none of its state
    home.all_rise("quick", 2);
    assert_eq!(home.pids("quick"), pids, "no node was restarted for it");

    home.ctl(&["up", &fork(&home, "again", "{fromExport: quick/export-1}")]).ok();
    home.all_rise("again", 1);
    assert_eq!([account(&home, "again", &payer), account(&home, "again", &payee)], before);
    assert_eq!(home.devnet("again")["spec"]["genesis"]["sha256"], done["sha256"]);
    assert_ne!(home.node("again/validator-0")["spec"]["consensusKey"], home.node("quick/validator-0")["spec"]["consensusKey"]);
    pay(&home, "again", "3");

    home.ctl(&["export", "list", "quick"]).ok().prints("Completed");
    home.ctl(&["export", "delete", "quick/export-1"]).exits(2);
    home.ctl(&["export", "delete", "quick/export-1", "--yes"]).ok();
    assert!(!Path::new(done["path"].as_str().unwrap()).exists());
    home.ctl(&["reset", "again", "--yes"]).ok();
    home.all_rise("again", 1);
    assert_eq!(account(&home, "again", &payer), before[0], "it keeps a copy of its own");
}

#[test]
fn what_cannot_be_exported_says_why() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.all_rise("quick", 2);
    home.ctl(&["export", "create", "quick", "old", "--height", "1"]).exits(4).says("spec.height: is 1").says("keeps the newest only");
    home.ctl(&["export", "create", "quick", "old", "--wait"]).ok();
    home.ctl(&["export", "create", "quick", "far", "--height", "999999", "--wait"]).exits(4).says("spec.height: is 999999").says("is not there yet");
    home.ctl(&["export", "create", "quick", "old"]).exits(4).says("exists already");
    home.ctl(&["export", "create", "quick", "--node", "validator-9", "--wait"]).exits(4).says("no chain node `validator-9`");
    assert_eq!(home.rows("exports"), 1, "what is refused is not there");
    home.ctl(&["export", "create", "nope"]).exits(3);
    home.ctl(&["export", "watch", "quick/old"]).ok().prints("Completed");
    home.ctl(&["export", "watch", "quick/none"]).exits(3).says("quick/none");
    home.ctl(&["why", "export", "quick/old"]).ok().prints("Completed").prints("[user:");
    home.ctl(&["why", "old"]).exits(3).says("did you mean `quick/old`? dvbctl why quick/old");
    home.ctl(&["why", "quick/odl"]).exits(3).says("dvbctl why quick/old");
    home.all_rise("quick", 1);
}

#[test]
fn an_export_goes_on_after_a_kill_of_the_daemon_and_no_node_notices() {
    let home = TestHome::new();
    let (begun, go) = (home.path().join("begun"), home.path().join("go"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let script = format!("if [ \"$1\" = export ]; then : > {}; {wait}; fi\nexec {} \"$@\"", begun.display(), binary("devchain").display());
    let program = home.program("slow", &script);
    let spec = format!("{{plugin: commonware, validators: 2, blockTime: 300ms, localhost: false, binary: {{path: {program}}}}}");
    let file = home.file("slow.yaml", &format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: slow}}\nspec: {spec}\n"));
    home.ctl(&["up", &file]).ok();
    let pids = home.pids("slow");
    home.ctl(&["export", "create", "slow", "kept"]).ok().prints("requested");
    let mut watch = Follower::of(&home, &["export", "watch", "slow/kept", "-o", "json"]);
    home.eventually("the chain's program reads the clone", SOON, |_| begun.exists());
    assert_eq!(status(&home, "slow/kept")["phase"], "Exporting");
    home.kill_daemon();
    fs::write(&go, "").unwrap();
    home.ctl(&["export", "status", "slow/kept", "--wait", "--timeout", "60s"]).ok().prints("Completed");
    assert!(watch.ends_well(), "over the death of the daemon: {:?}", watch.phases());
    let phases = watch.phases();
    assert_eq!(phases.iter().filter(|phase| *phase == "Completed").count(), 1, "{phases:?}");
    assert!(phases.iter().any(|phase| phase == "Exporting"), "{phases:?}");
    assert_eq!(reasons(&home, "slow/kept").iter().filter(|reason| *reason == "Cloning").count(), 2, "it began anew");
    let folder = Path::new(status(&home, "slow/kept")["path"].as_str().unwrap()).parent().unwrap().to_owned();
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["genesis.json"]);
    home.all_rise("slow", 2);
    assert_eq!(home.pids("slow"), pids);
}

#[test]
fn who_waits_for_an_export_is_told_how_much_is_written() {
    let home = TestHome::new();
    let (part, go) = (home.path().join("part"), home.path().join("go"));
    let wait = |file: &Path| format!("while [ ! -e {} ]; do sleep 0.05; done", file.display());
    // The last argument but none after it is the file: so much is in it, then more, then the state itself.
    let steps = format!("for to; do :; done\nhead -c 3000 /dev/zero > \"$to\"; {}; head -c 9000 /dev/zero > \"$to\"; {}", wait(&part), wait(&go));
    let script = format!("if [ \"$1\" = export ]; then {steps}; fi\nexec {} \"$@\"", binary("devchain").display());
    let program = home.program("slow", &script);
    let spec = format!("{{plugin: commonware, validators: 2, blockTime: 300ms, localhost: false, binary: {{path: {program}}}}}");
    let file = home.file("slow.yaml", &format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: slow}}\nspec: {spec}\n"));
    home.ctl(&["up", &file]).ok();
    home.ctl(&["export", "create", "slow", "kept"]).ok();
    let bytes = |home: &TestHome| status(home, "slow/kept")["bytes"].as_u64().unwrap_or_default();
    home.eventually("something is written", SOON, |home| bytes(home) == 3_000);
    let mut waiting =
        home.command(&["export", "status", "slow/kept", "--wait", "--timeout", "60s"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut until = |words: &str| {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended without `{words}`");
        }
    };
    until("2.9Ki so far");
    fs::write(&part, "").unwrap();
    until("8.8Ki so far");
    fs::write(&go, "").unwrap();
    until("Completed");
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn a_frozen_devnet_is_exported_when_it_is_thawed_and_not_let_go_on_before() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["freeze", "quick"]).ok();
    let height = home.highest("quick");
    home.ctl(&["export", "create", "quick"]).ok();
    home.eventually("it says what it waits for", SOON, |home| {
        status(home, "quick/export-1")["message"].as_str().is_some_and(|message| message.contains("no node of the devnet is ready"))
    });
    assert_eq!(home.highest("quick"), height);
    home.ctl(&["thaw", "quick"]).ok();
    home.ctl(&["export", "status", "quick/export-1", "--wait", "--timeout", "30s"]).ok().prints("Completed");
    home.all_rise("quick", 1);
}

#[test]
fn a_file_with_another_sha256_begins_no_chain_and_the_right_one_does() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["export", "create", "quick", "--to", &home.file("state.json", "")]).ok();
    let right = status(&home, "quick/export-1")["sha256"].as_str().unwrap().to_owned();
    let wrong = "0".repeat(64);
    let file = fork(&home, "wrong", &format!("{{fromFile: ./state.json, sha256: \"{wrong}\"}}"));
    home.ctl(&["up", &file, "--timeout", "30s"]).exits(1).says(&right).says(&wrong);
    assert!(home.pids("wrong").is_empty());
    home.ctl(&["apply", "-f", &fork(&home, "bare", "{fromFile: ./state.json}")]).exits(4).says("sha256");
    home.ctl(&["apply", "-f", &fork(&home, "none", "{fromExport: quick/nope}")]).exits(4).says("does not exist");
    home.ctl(&["up", &fork(&home, "right", &format!("{{fromFile: ./state.json, sha256: {right}}}"))]).ok();
    home.all_rise("right", 1);
}
