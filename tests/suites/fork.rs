//! Exports and forks of a chain that we did not write: wasmd on three versions of the Cosmos SDK.

#[path = "../../plugins/cosmos/tests/support/state.rs"]
mod state;

use crate::fire::peak_memory;
use crate::tx::{address, number, wasmd_account, wasmd_query};
use dvb_plugin_sdk::{sha256_file, sha256_hex as sum};
use e2e::{TestHome, Wasmd, wasmd, wasmds};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(60);

pub(crate) fn file(home: &TestHome, name: &str, program: &Path, spec: &str) -> String {
    let binary = program.display();
    let spec = format!("{{plugin: cosmos, binary: {{path: {binary}}}, accounts: 4, blockTime: 300ms, localhost: false, {spec}}}");
    home.file(&format!("{name}.yaml"), &format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
}

/// `words` of `dvbctl tx submit`, waited for.
pub(crate) fn submit(home: &TestHome, devnet: &str, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    home.ctl(&[&["tx", "submit", devnet], &words[..], &["--wait", "--timeout", "60s"]].concat()).ok();
}

#[test]
fn on_each_sdk_a_devnet_of_two_that_begins_with_an_export_of_three_has_the_old_balances() {
    for wasmd in wasmds() {
        println!("wasmd {} (SDK {}): {}", wasmd.version, wasmd.sdk, two_from_three(&wasmd));
    }
}

/// What the exports took, in words.
fn two_from_three(wasmd: &Wasmd) -> String {
    let home = TestHome::new();
    let prunes = "nodes: [{name: validator-2, config: {app.toml: {pruning: everything}}}]";
    home.ctl(&["up", &file(&home, "old", &wasmd.path, &format!("validators: 3, {prunes}")), "--timeout", "90s"]).ok();
    submit(&home, "old", "--type bank/send --signer account:0 --to account:1 --amount 7stake");
    submit(&home, "old", "--type staking/delegate --signer account:2 --set validator=validator:1 --amount 5000000stake");
    let [payer, payee, delegator] = ["account:0", "account:1", "account:2"].map(|name| address(&home, "old", name));
    let accounts = |devnet: &str| [&payer, &payee].map(|address| wasmd_account(&home, &format!("{devnet}/validator-0"), address));
    let (before, height, pids) = (accounts("old"), home.highest("old"), home.pids("old"));
    assert!(before[0].1 == 1 && before[1].0 > before[0].0, "{before:?}");
    submit(&home, "old", "--type bank/send --signer account:0 --to account:1 --amount 9stake"); // after that height: none of its state
    home.eventually("validator-2 has pruned the first heights", SOON, |home| home.lowest("old") >= height.max(24));

    let (at, copy) = (height.to_string(), home.path().join("state.json"));
    let create =
        ["export", "create", "old", "then", "--node", "validator-1", "--height", &at, "--timeout", "90s", "--to", &copy.display().to_string()];
    home.ctl(&create).ok().prints("sha256");
    let done = home.json(&["get", "export", "old/then"])["status"].clone();
    assert_eq!((&done["phase"], &done["height"]), (&json!("Completed"), &json!(height)), "{done}");
    let state: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
    let initial = &state["initial_height"];
    assert_eq!(initial.as_u64().or_else(|| initial.as_str()?.parse().ok()), Some(height + 1), "{initial}");
    home.ctl(&["export", "create", "old", "zero", "--for-zero-height", "--wait", "--timeout", "90s"]).ok();
    let zero = home.json(&["get", "export", "old/zero"])["status"].clone();
    assert!(zero["height"].as_u64() >= Some(24), "{zero}");
    let refused = |name: &str, more: [&str; 4]| home.ctl(&[&["export", "create", "old", name, "--wait", "--timeout", "90s"], &more[..]].concat());
    refused("pruned", ["--node", "validator-2", "--height", "1"]).exits(1).says("no state of height 1").says("pruning = \"nothing\"");
    home.ctl(&["export", "watch", "old/pruned"]).exits(1).says("no state of height 1");
    home.ctl(&["export", "watch", "old/then", "old/zero"]).ok().prints("Completed");
    refused("far", ["--node", "validator-1", "--height", "999999"]).exits(4).says("spec.height: is 999999").says("is not there yet");
    home.all_rise("old", 2);
    assert_eq!(home.pids("old"), pids, "no node was restarted for it");

    home.ctl(&["up", &file(&home, "new", &wasmd.path, "validators: 2, genesis: {fromExport: old/then}"), "--timeout", "90s"]).ok();
    home.all_rise("new", 2);
    assert!(home.lowest("new") > height, "it goes on where the other was");
    assert_eq!(accounts("new"), before);
    let delegated = wasmd_query(&home, "new/validator-0", &["staking", "delegations", &delegator]);
    let shares: Vec<&str> =
        delegated["delegation_responses"].as_array().unwrap().iter().filter_map(|one| one["balance"]["amount"].as_str()).collect();
    assert_eq!(shares, ["5000000"], "{delegated}");
    for validator in ["new/validator-0", "new/validator-1"] {
        home.eventually("each of the two votes", SOON, |home| home.node(validator)["status"]["details"]["votingPower"] == "1000");
    }
    submit(&home, "new", "--type bank/send --signer account:0 --to account:1 --amount 3stake"); // accounts of its own
    submit(&home, "new", "--type staking/delegate --signer account:2 --set validator=validator:1 --amount 1000stake");
    format!("{} bytes at height {height}, a node stood still for {} ms", done["bytes"], done["clone"]["pausedMs"])
}

/// Answers each request with the file, until the test ends.
fn serve(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            let _ = stream.read(&mut [0; 4096]); // one short request
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes)); // or its client went away
        }
    });
    format!("http://{address}/genesis.json")
}

#[test]
fn a_state_by_url_begins_a_chain_and_one_that_is_wrong_is_refused_before_anything_runs() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    home.ctl(&["up", &file(&home, "old", &program, "validators: 1"), "--timeout", "90s"]).ok();
    submit(&home, "old", "--type bank/send --signer account:0 --to account:1 --amount 7stake");
    let payee = address(&home, "old", "account:1");
    let (balance, _) = wasmd_account(&home, "old/validator-0", &payee);
    let copy = home.path().join("state.json");
    home.ctl(&["export", "create", "old", "--timeout", "90s", "--to", &copy.display().to_string()]).ok();
    let good = fs::read(&copy).unwrap();
    let mut state: Value = serde_json::from_slice(&good).unwrap();
    let supply = number(&state["app_state"]["bank"]["supply"], "amount");
    state["app_state"]["bank"]["supply"][0]["amount"] = json!((supply + 1).to_string());
    let bad = serde_json::to_vec(&state).unwrap();

    let fork = |name: &str, url: &str, sha256: &str| {
        let file = file(&home, name, &program, &format!("validators: 2, genesis: {{fromUrl: \"{url}\", sha256: \"{sha256}\"}}"));
        home.ctl(&["up", &file, "--timeout", "90s"])
    };
    let (good_url, bad_url) = (serve(good.clone()), serve(bad.clone()));
    fork("other", &good_url, &sum(&bad)).exits(1).says(&sum(&bad));
    fork("odd", &bad_url, &sum(&bad)).exits(1).says(&format!("bank.supply says {}stake, the balances are {supply}stake", supply + 1));
    for name in ["other", "odd"] {
        assert!(home.pids(name).is_empty(), "{name}");
        home.ctl(&["delete", name, "--yes"]).ok();
    }
    fork("right", &good_url, &sum(&good)).ok();
    home.all_rise("right", 1);
    assert_eq!(wasmd_account(&home, "right/validator-0", &payee).0, balance);
}

/// 10 MiB are more than a message of the plugin protocol should carry: the full node's genesis is the shared file itself.
#[test]
fn a_full_node_joins_a_chain_whose_genesis_is_large() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let state = home.file("state.json", &large_state(&home, &program));
    let large = fs::metadata(&state).unwrap().len();
    assert!(large > 10 << 20, "{large}");
    let apply = |full_nodes: u32| {
        let sha256 = sum(&fs::read(&state).unwrap());
        let spec = format!("validators: 1, fullNodes: {full_nodes}, genesis: {{fromFile: {state}, sha256: {sha256}}}");
        home.ctl(&["up", &file(&home, "large", &program, &spec), "--timeout", "90s"]).ok();
    };
    apply(0);
    apply(1);
    home.all_rise("large", 2);
    let genesis = |node: &str| {
        let home = home.node(&format!("large/{node}"))["spec"]["homeDir"].as_str().unwrap().to_owned();
        fs::metadata(format!("{home}/config/genesis.json")).unwrap()
    };
    let (first, late) = (genesis("validator-0"), genesis("fullnode-0"));
    assert!(late.len() > large && (first.dev(), first.ino()) == (late.dev(), late.ino()), "one file: {first:?} and {late:?}");
}

/// The chain's default state, and tokens with long descriptions.
#[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
fn large_state(home: &TestHome, program: &Path) -> String {
    let dir = home.path().join("init");
    let mut init = Command::new(program);
    init.env("LD_LIBRARY_PATH", program.with_file_name("lib")).args(["init", "x", "--chain-id", "old-1", "--home"]).arg(&dir);
    assert!(init.output().unwrap().status.success());
    let mut state: Value = serde_json::from_slice(&fs::read(dir.join("config/genesis.json")).unwrap()).unwrap();
    let token = |number: u32| {
        let denom = format!("token{number}");
        let units = json!([{"denom": &denom, "exponent": 0, "aliases": []}]);
        json!({"name": &denom, "symbol": &denom, "base": &denom, "display": &denom, "denom_units": units, "description": "x".repeat(1 << 20)})
    };
    state["app_state"]["bank"]["denom_metadata"] = (0..10).map(token).collect();
    state.to_string()
}

/// The chain itself would read it all: its nodes are not started. Half a gigabyte with the whole suite only, which costs a minute.
#[test]
fn daemon_and_plugin_take_in_a_large_state_in_bounded_memory() {
    const MEGABYTE: u64 = 1 << 20;
    const MOST_RESIDENT: u64 = 64 * MEGABYTE;
    let Some(program) = wasmd() else { return };
    let size = if std::env::var_os("DVB_TEST_FULL").is_some() { 500 } else { 40 } * MEGABYTE;
    let home = TestHome::new();
    let large = home.path().join("large.json");
    state::write(&large, size);
    let (given, sha256) = (fs::metadata(&large).unwrap().len(), sha256_file(&large).unwrap());
    let genesis = format!("{{fromFile: {}, sha256: {sha256}, patch: {{app_state: {{odd: true}}}}}}", large.display());
    let spec = format!("validators: 2, desired: stopped, genesis: {genesis}");
    let begun = Instant::now();
    home.ctl(&["apply", "--wait", "--timeout", "300s", "-f", &file(&home, "large", &program, &spec)]).ok();
    let took = begun.elapsed();
    let plugin = home.processes().into_iter().find(|(_, command)| command.contains("dvb-plugin-cosmos")).expect("the plugin runs").0;
    let [daemon, plugin] = [home.daemon_pid().unwrap(), plugin].map(|pid| peak_memory(pid) * 1024);
    println!(
        "MEASURED: a devnet from a state of {} MB: provisioned in {took:.1?}; at most {} MiB resident in devnetd, {} in its plugin",
        given / 1_000_000,
        daemon / MEGABYTE,
        plugin / MEGABYTE
    );
    let genesis = home.home().join("devnets/default/large/shared/genesis.json");
    assert!(fs::metadata(genesis).unwrap().len() > given / 10 * 9, "it is the state that was given");
    assert!(daemon.max(plugin) < MOST_RESIDENT, "{daemon} and {plugin}");
}
