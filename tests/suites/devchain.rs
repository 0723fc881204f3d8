//! The quickstart devnet: four validators and a full node of the embedded chain, and what is done to them.

use e2e::{NODES, TestHome, is_alive, parent};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::{collections::BTreeMap, fs, time::Duration};

const QUICK: &str = "{backoff: 300ms}";

/// What must not change over stop and start, and over a reset: key, address and home of each node.
fn identity(home: &TestHome, devnet: &str) -> BTreeMap<String, [Value; 4]> {
    let of = |node: &Value| ["consensusKey", "address", "ports", "homeDir"].map(|field| node["spec"][field].clone());
    home.nodes(devnet).iter().map(|(name, node)| (name.clone(), of(node))).collect()
}

fn accounts(home: &TestHome, devnet: &str) -> Vec<String> {
    let devnet = home.devnet(devnet);
    let accounts = devnet["status"]["accounts"].as_array().cloned().unwrap_or_default();
    accounts.iter().map(|account| account["address"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The bytes of a devnet's genesis.
fn genesis(home: &TestHome, devnet: &str) -> Vec<u8> {
    fs::read(home.home().join("devnets/default").join(devnet).join("shared/genesis.json")).unwrap()
}

#[test]
fn up_gives_five_running_nodes_with_rising_heights_that_are_the_daemons_children() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let nodes = home.nodes("quick");
    assert_eq!(nodes.keys().collect::<Vec<_>>(), NODES.iter().collect::<Vec<_>>());
    for (name, node) in &nodes {
        assert_eq!(node["status"]["phase"], "Running", "{name}");
        assert_eq!(node["status"]["restartCount"], 0, "{name}");
    }
    home.all_rise("quick", 2);
    let daemon = home.daemon_pid().unwrap();
    let pids = home.pids("quick");
    assert_eq!(pids.len(), NODES.len());
    for (name, pid) in pids {
        assert_eq!(parent(pid), Some(daemon), "{name}");
    }
}

#[test]
fn a_killed_validator_comes_back_and_catches_up_and_why_names_the_signal() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let before = home.pids("quick");
    let victim = before["validator-2"];
    kill(victim, Signal::SIGKILL).unwrap();
    home.eventually("validator-2 is restarted", Duration::from_secs(60), |home| home.node("quick/validator-2")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("quick", 2);
    let node = home.node("quick/validator-2");
    assert_eq!(node["status"]["restartCount"], 1);
    assert_eq!(node["status"]["lastExit"]["signal"], "SIGKILL");
    assert!(!node["status"]["catchingUp"].as_bool().unwrap_or(false));
    home.ctl(&["why", "quick/validator-2"]).ok().prints("SIGKILL");
    let after = home.pids("quick");
    for name in NODES {
        assert_eq!(before[name] == after[name], name != "validator-2", "only the killed node has a new process: {name}");
    }
}

#[test]
fn with_two_of_four_validators_down_the_devnet_says_at_which_height_it_halted() {
    let home = TestHome::new();
    home.up_quickstart("quick", "{policy: never}");
    home.all_rise("quick", 1);
    for name in ["quick/validator-1", "quick/validator-3"] {
        kill(home.pid(name), Signal::SIGKILL).unwrap();
    }
    home.ctl(&["wait", "quick", "--for=Degraded", "--timeout", "60s"]).ok();
    // The shortest time without blocks that counts as a stall is ten seconds.
    home.ctl(&["wait", "quick", "--for=condition=Progressing=False", "--timeout", "60s"]).ok();
    let devnet = home.devnet("quick");
    assert_eq!(devnet["status"]["phase"], "Degraded");
    let conditions = devnet["status"]["conditions"].as_array().unwrap();
    let halt = conditions.iter().find(|condition| condition["type"] == "Progressing").unwrap();
    assert_eq!(halt["reason"], "Halted", "{halt}");
    let height = home.node("quick/validator-0")["status"]["blockHeight"].as_u64().unwrap();
    assert!(height > 0 && halt["message"].as_str().unwrap().contains(&format!("at height {height}:")), "{height}: {halt}");
    home.ctl(&["restart", "quick/validator-1", "quick/validator-3"]).ok();
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    home.eventually("blocks again", Duration::from_secs(60), |home| home.lowest("quick") > height);
}

#[test]
fn stop_and_start_go_on_at_the_same_height_with_the_same_addresses() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["wait", "quick", "--for=height=12", "--timeout", "60s"]).ok();
    let before = home.highest("quick");
    let (identity_before, accounts_before, pids) = (identity(&home, "quick"), accounts(&home, "quick"), home.pids("quick"));
    home.ctl(&["stop", "quick"]).ok();
    assert_eq!(home.devnet("quick")["status"]["phase"], "Stopped");
    for (name, pid) in &pids {
        assert!(!is_alive(*pid), "{name} is stopped");
    }
    home.ctl(&["start", "quick"]).ok();
    // A start takes fewer blocks' time than there were blocks before it: this height cannot have been made anew.
    assert!(home.highest("quick") >= before, "{:?} after {before}", home.heights("quick"));
    home.all_rise("quick", 1);
    assert_eq!(identity(&home, "quick"), identity_before);
    assert_eq!(accounts(&home, "quick"), accounts_before);
}

#[test]
fn reset_begins_at_height_0_with_the_same_keys_and_addresses() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["wait", "quick", "--for=height=12", "--timeout", "60s"]).ok();
    let (identity_before, accounts_before, genesis_before) = (identity(&home, "quick"), accounts(&home, "quick"), genesis(&home, "quick"));
    assert!(identity_before["validator-0"][0].is_string(), "{identity_before:?}");
    assert_eq!(accounts_before.len(), 10);
    home.ctl(&["reset", "quick", "--yes"]).ok();
    assert!(home.highest("quick") < 12, "{:?}", home.heights("quick"));
    home.all_rise("quick", 1);
    assert_eq!(identity(&home, "quick"), identity_before);
    assert_eq!(accounts(&home, "quick"), accounts_before);
    assert!(genesis(&home, "quick") == genesis_before, "the same spec gives the same genesis");
}

#[test]
fn delete_leaves_no_process_no_lease_and_no_file() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let pids = home.pids("quick");
    assert!(home.rows("leases") > 0);
    home.ctl(&["delete", "quick", "--yes"]).ok();
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name}");
    }
    for table in ["devnets", "nodes", "launches", "leases", "plans"] {
        assert_eq!(home.rows(table), 0, "{table}");
    }
    home.ctl(&["get", "devnet", "quick"]).exits(3);
    assert!(!home.home().join("devnets/default/quick").exists());
    let ours = home.daemon_pid();
    // Plugins and the keeper are the daemon's, and go with it.
    let belongs = |command: &str| command.contains("dvb-plugin-") || command.contains("devnetd keeper ");
    let others: Vec<_> = home.processes().into_iter().filter(|(pid, command)| Some(*pid) != ours && !belongs(command)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_service_finds_its_chain_in_its_environment_and_sends_a_transfer() {
    let home = TestHome::new();
    let faucet = r#"
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: paid}
spec:
  plugin: commonware
  validators: 1
  services:
    - name: faucet
      after: [validator-0]
      command: [sh, -c, '"$DVB_BINARY" tx transfer --rpc "$DVB_RPC" --mnemonic "$DVB_MNEMONIC_FILE" --to account:1 --amount 1000 --wait && echo paid && exec sleep 1000']
      readiness: {log: paid}
"#;
    home.ctl(&["up", &home.file("paid.yaml", faucet)]).ok();
    let env = home.ctl(&["env", "paid", "-o", "json"]).ok().json();
    let launches = home.ctl(&["get", "launches", "paid/faucet", "-o", "json"]).ok().json();
    assert_eq!(launches["items"].as_array().map(Vec::len), Some(1), "it was started once: {launches}");
    assert_eq!(env["DVB_RPC"], env["DVB_VALIDATOR_0_RPC"]);
}
