//! One validator key signs in at most one process: two homes with one chain, a node started by hand, a sign-state that was put back.

use e2e::{ByHand, TestHome, binary, condition, is_alive, quickstart};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const QUICK: &str = "{backoff: 300ms, maxBackoff: 1s}";
const VALIDATORS: [&str; 4] = ["validator-0", "validator-1", "validator-2", "validator-3"];

/// Everything that keys and genesis are made of is given, so each home that applies it makes the same chain.
fn twins() -> (TestHome, TestHome) {
    let (one, other) = (TestHome::new(), TestHome::new());
    let given = format!("fullNodes: 1\n  chainId: twin-1\n  seed: {}\n  genesis: {{time: \"2026-01-01T00:00:00Z\"}}", one.path().display());
    for home in [&one, &other] {
        home.file("twin.yaml", &quickstart("twin", QUICK).replace("fullNodes: 1", &given));
    }
    (one, other)
}

/// Waits for a condition's reason and returns its message.
#[track_caller]
fn says(home: &TestHome, node: &str, kind: &str, reason: &str) -> String {
    let (devnet, short) = node.split_once('/').unwrap();
    home.eventually(&format!("{node} says {reason}"), Duration::from_secs(60), |home| {
        home.nodes(devnet).get(short).is_some_and(|node| condition(node, kind)["reason"] == reason)
    });
    condition(&home.node(node), kind)["message"].as_str().unwrap_or_default().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The bytes of each file at or below `path`.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().flat_map(|entry| contents(&entry.path())).collect(),
        Err(_) => std::fs::read(path).into_iter().map(|bytes| (path.to_owned(), bytes)).collect(),
    }
}

/// With owners and times, as a backup has them.
#[expect(clippy::disallowed_methods, reason = "a backup is made with cp")]
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_second_home_with_the_same_chain_is_refused_by_the_pids_of_the_first_until_that_is_deleted() {
    let (one, other) = twins();
    one.ctl(&["up", "twin.yaml"]).ok();
    let holders = one.pids("twin");
    other.ctl(&["apply", "-f", "twin.yaml"]).ok();
    for name in VALIDATORS {
        let message = says(&other, &format!("twin/{name}"), "KeyLease", "KeyInUse");
        assert!(message.contains(&format!("pid {} ", holders[name])) && message.contains("another devnetd home"), "{name}: {message}");
        assert!(message.contains(one.home().to_str().unwrap()), "{name}: {message}");
    }
    other.eventually("the full node runs", Duration::from_secs(60), |other| other.pids("twin").keys().eq(["fullnode-0"]));
    other.ctl(&["why", "twin/validator-0"]).ok().prints("KeyInUse");
    one.all_rise("twin", 2);
    assert_eq!(one.pids("twin"), holders, "the first has not noticed");

    one.ctl(&["delete", "twin", "--yes"]).ok();
    other.ctl(&["wait", "twin", "--for=Running", "--timeout", "90s"]).ok();
    other.all_rise("twin", 1);
    assert!(other.nodes("twin").values().all(|node| node["status"]["restartCount"] == 0), "a refusal is no restart");
}

#[test]
fn a_double_signature_is_allowed_for_one_launch_and_put_on_record() {
    let (one, other) = twins();
    one.ctl(&["up", "twin.yaml"]).ok();
    other.ctl(&["apply", "-f", "twin.yaml"]).ok();
    let node = "twin/validator-3";
    says(&other, node, "KeyLease", "KeyInUse");
    other.ctl(&["start", "twin", "--allow-double-sign"]).exits(2).says("one validator");
    other.ctl(&["start", "twin/fullnode-0", "--allow-double-sign"]).says("signs nothing");
    other.ctl(&["start", node, "--allow-double-sign", "--no-wait"]).ok();
    says(&other, node, "KeyLease", "DoubleSignAllowed");
    let events = other.json(&["events", node]);
    let events = events["items"].as_array().cloned().unwrap_or_default();
    let allowed = events.iter().find(|event| event["reason"] == "DoubleSignAllowed").unwrap();
    assert!(text(&allowed["actor"]).starts_with("user:"), "{allowed}");

    other.eventually("it has a process", Duration::from_secs(60), |other| other.pids("twin").contains_key("validator-3"));
    kill(other.pid(node), Signal::SIGKILL).unwrap();
    says(&other, node, "KeyLease", "KeyInUse");
}

#[test]
fn a_validator_started_by_hand_from_its_home_is_named_and_its_end_lets_the_node_start() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["stop", "quick/validator-0"]).ok();
    let spec = home.node("quick/validator-0")["spec"].clone();
    let state = Path::new(&text(&spec["homeDir"])).join(text(&spec["signState"]));
    let signed = contents(&state);
    let by_hand = ByHand::start(&text(&spec["binaryPath"]), &["run", "--home", &text(&spec["homeDir"])], &home.path().join("by-hand.log"));
    // To apply the blocks of the others is not to sign.
    home.eventually("it signs", Duration::from_secs(30), |_| contents(&state) != signed);
    let message = says(&home, "quick/validator-0", "SignState", "SignedElsewhere");
    assert!(message.contains(&format!("pid {} (devchain)", by_hand.pid())), "told at once, by pid: {message}");
    assert_eq!(home.node("quick/validator-0")["status"]["phase"], "Stopped");
    home.ctl(&["start", "quick/validator-0", "--no-wait"]).ok();
    let message = says(&home, "quick/validator-0", "KeyLease", "HomeInUse");
    assert!(message.contains(&format!("pid {} (devchain)", by_hand.pid())), "{message}");
    assert!(is_alive(by_hand.pid()), "nobody kills what he did not start");
    drop(by_hand);
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "90s"]).ok();
    let message = says(&home, "quick/validator-0", "SignState", "SignedElsewhere");
    assert!(message.contains("quick/validator-0"), "{message}");
    home.all_rise("quick", 1);
}

/// The node of a copied home listens where nobody else does.
fn listens_elsewhere(copy: &Path) {
    let config = copy.join("config.toml");
    let lines = std::fs::read_to_string(&config).unwrap();
    let line = |line: &str| if line.starts_with("listen = ") { "listen = \"127.0.0.1:0\"".to_owned() } else { line.to_owned() };
    std::fs::write(&config, lines.lines().map(line).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn a_copy_of_a_validators_home_that_is_started_by_hand_is_told_while_the_node_runs_and_keeps_it_from_starting() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let node = "quick/validator-0";
    let spec = home.node(node)["spec"].clone();
    home.ctl(&["stop", node]).ok();
    let stolen = home.path().join("stolen");
    copy(Path::new(&text(&spec["homeDir"])), &stolen);
    listens_elsewhere(&stolen);
    home.ctl(&["start", node]).ok();
    let pid = home.pid(node);
    let start = || ByHand::start(&text(&spec["binaryPath"]), &["run", "--home", stolen.to_str().unwrap()], &home.path().join("by-hand.log"));
    let by_hand = start();
    let message = says(&home, node, "KeyLease", "KeyInUse");
    assert!(message.contains(&format!("pid {} (devchain), in {}", by_hand.pid(), stolen.display())), "{message}");
    let lease = condition(&home.node(node), "KeyLease");
    assert!(text(&lease["remedy"]).contains(&format!("kill {}", by_hand.pid())), "{lease}");
    assert_eq!(home.pid(node), pid, "it runs on: its user decides who goes");
    home.ctl(&["why", node]).ok().prints("KeyInUse");

    drop(by_hand);
    says(&home, node, "KeyLease", "Held");
    let by_hand = start();
    says(&home, node, "KeyLease", "KeyInUse");
    home.ctl(&["restart", node, "--no-wait"]).ok();
    home.eventually("it is not started beside the copy", Duration::from_secs(60), |home| home.node(node)["status"]["phase"] == "Backoff");
    let refused = condition(&home.node(node), "Ready");
    assert!(refused["reason"] == "KeyInUse" && text(&refused["message"]).contains(&format!("pid {} ", by_hand.pid())), "{refused}");
    drop(by_hand);
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "90s"]).ok();
    says(&home, node, "KeyLease", "Held");
    home.all_rise("quick", 1);
}

/// Devchain refuses a second process in its home by a lock file, as most chains do: here somebody has removed that.
#[test]
fn a_validator_started_by_hand_from_the_home_of_its_running_node_is_told_at_once_by_pid() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let node = "quick/validator-0";
    let (spec, pid) = (home.node(node)["spec"].clone(), home.pid(node));
    let folder = text(&spec["homeDir"]);
    let config = Path::new(&folder).join("config.toml");
    let before = std::fs::read(&config).unwrap();
    listens_elsewhere(Path::new(&folder));
    std::fs::remove_file(Path::new(&folder).join("lock")).unwrap();
    let by_hand = ByHand::start(&text(&spec["binaryPath"]), &["run", "--home", &folder], &home.path().join("by-hand.log"));
    is_told_and_forgotten(&home, node, by_hand, &folder);
    assert_eq!(home.pid(node), pid, "it runs on: its user decides who goes");
    std::fs::write(&config, before).unwrap();
}

/// A mock-node holds no file open, and takes no lock.
#[test]
fn a_node_that_holds_none_of_its_files_open_is_told_too_when_it_is_started_beside_its_own() {
    let home = TestHome::new();
    let spec = format!("{{plugin: mock, validators: 1, localhost: false, binary: {{path: {}}}}}", binary("mock-node").display());
    let devnet = format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec: {spec}\n");
    home.ctl(&["up", &home.file("devnet.yaml", &devnet)]).ok();
    let node = "net/validator-0";
    let (spec, pid) = (home.node(node)["spec"].clone(), home.pid(node));
    let folder = text(&spec["homeDir"]);
    let by_hand = ByHand::start(&text(&spec["binaryPath"]), &["--home", &folder, "--rpc", "127.0.0.1:0"], &home.path().join("by-hand.log"));
    is_told_and_forgotten(&home, node, by_hand, &folder);
    assert_eq!(home.pid(node), pid, "it runs on");
}

fn is_told_and_forgotten(home: &TestHome, node: &str, by_hand: ByHand, folder: &str) {
    let message = says(home, node, "KeyLease", "KeyInUse");
    assert!(message.contains(&format!("pid {} (", by_hand.pid())) && message.contains(folder), "{message}");
    let lease = condition(&home.node(node), "KeyLease");
    assert!(text(&lease["remedy"]).contains(&format!("kill {}", by_hand.pid())), "{lease}");
    assert!(is_alive(by_hand.pid()), "nobody kills what he did not start");
    drop(by_hand);
    says(home, node, "KeyLease", "Held");
}

#[test]
fn a_key_stays_leased_to_its_node_when_daemon_and_keeper_of_that_are_killed() {
    let (one, other) = twins();
    one.ctl(&["up", "twin.yaml"]).ok();
    let holders = one.pids("twin");
    let keeper = one.keeper().expect("there is a keeper");
    one.kill_daemon();
    kill(keeper, Signal::SIGKILL).unwrap();
    one.eventually("the keeper is gone", Duration::from_secs(60), |_| !is_alive(keeper));
    other.ctl(&["apply", "-f", "twin.yaml"]).ok();
    for name in VALIDATORS {
        let message = says(&other, &format!("twin/{name}"), "KeyLease", "KeyInUse");
        assert!(message.contains(&format!("pid {} ", holders[name])), "{name}: {message}");
    }
    one.ctl(&["wait", "twin", "--for=Running", "--timeout", "90s"]).ok();
    assert_eq!(one.pids("twin"), holders);
    one.all_rise("twin", 1);
}

#[test]
fn a_sign_state_from_yesterdays_backup_is_refused_and_the_newer_one_is_taken_again() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let node = "quick/validator-1";
    let spec = home.node(node)["spec"].clone();
    let state = Path::new(&text(&spec["homeDir"])).join(text(&spec["signState"]));
    let (backup, newer) = (home.path().join("backup"), home.path().join("newer"));
    home.ctl(&["stop", node]).ok();
    copy(&state, &backup);
    home.ctl(&["start", node]).ok();
    home.all_rise("quick", 2);
    home.ctl(&["stop", node]).ok();
    copy(&state, &newer);
    copy(&backup, &state);
    home.ctl(&["start", node]).exits(1).says("went back").says("--allow-double-sign");
    assert_eq!(home.node(node)["status"]["phase"], "Failed");
    assert!(!home.pids("quick").contains_key("validator-1"));
    copy(&newer, &state);
    home.ctl(&["restart", node]).ok();
    home.all_rise("quick", 1);
}
