//! The same on wasmd, by its own governance, from SDK to SDK.

use super::{PATIENCE, reasons, replace_daemon, settled, status, until_phase};
use crate::wasmd::assert_none_signed_twice;
use e2e::{Follower, TestHome, Wasmd, is_alive, program};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// wasmd v0.45.0, v0.54.0 and v0.60.1, as far as they are there, with the plan's name that leads to each.
fn releases() -> Vec<(&'static str, Wasmd)> {
    let plan = |wasmd: &Wasmd| match wasmd.version {
        "v0.54.0" => "v0.50",
        "v0.60.1" => "v0.60",
        _ => "",
    };
    e2e::wasmds().into_iter().map(|wasmd| (plan(&wasmd), wasmd)).collect()
}

/// A vote takes `voting`: long enough for what the test does meanwhile.
fn up_wasmd(home: &TestHome, wasmd: &Wasmd, voting: &str) {
    let text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: wasm}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  validators: 4\n  \
         blockTime: 500ms\n  localhost: false\n  restart: {{backoff: 300ms}}\n  genesis: {{patch: {{app_state: {{gov: {{params: {{voting_period: {voting}}}}}}}}}}}\n",
        wasmd.path.display()
    );
    home.ctl(&["up", &home.file("wasm.yaml", &text), "--timeout", "90s"]).ok();
}

fn propose(home: &TestHome, plan: &str, program: &Path) {
    home.ctl(&["upgrade", "create", "wasm", "--name", plan, "--binary", &program.display().to_string()]).ok();
}

fn sdk(home: &TestHome) -> String {
    home.devnet("wasm")["status"]["sdkVersion"].as_str().unwrap_or_default().to_owned()
}

/// All asked for at once: each waits for the one before. The last is a Go module. A validator is down while the others come to the first height.
#[test]
fn governance_migrates_wasmd_from_sdk_to_sdk() {
    let releases = releases();
    let [(_, first), rest @ ..] = releases.as_slice() else { return };
    let [(next, _), .., (last, module)] = rest else { return }; // the missing ones have been named
    let home = TestHome::new();
    let is_cached = e2e::seed_cache(&home, module);
    up_wasmd(&home, first, "15s");
    let started = Instant::now();
    for (plan, wasmd) in &rest[..rest.len() - 1] {
        propose(&home, plan, &wasmd.path);
    }
    if is_cached {
        let named = format!("github.com/CosmWasm/wasmd@{}", module.version);
        let package = ["--package", "github.com/CosmWasm/wasmd/cmd/wasmd"];
        home.ctl(&[&["upgrade", "create", "wasm", "--name", last, "--go-module", &named], &package[..]].concat()).ok();
    } else {
        propose(&home, last, &module.path);
    }
    let names: Vec<String> = rest.iter().map(|(plan, _)| format!("wasm/{plan}")).collect();
    let mut watch = Follower::of(&home, &[&["upgrade", "watch"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    home.eventually("the last waits for the one before", PATIENCE, |home| {
        status(home, &names[names.len() - 1])["message"].as_str().is_some_and(|message| message.contains("waits until upgrade wasm/"))
    });

    let first_of_them = format!("wasm/{next}");
    until_phase(&home, &first_of_them, "Waiting");
    home.ctl(&["stop", "wasm/validator-3"]).ok();
    let stopped_at = home.highest("wasm");
    let done = settled(&home, &first_of_them);
    assert_eq!(done["phase"], "Completed", "{done}");
    assert!(done["height"].as_u64() > Some(stopped_at), "it was down when the others came there: {done}");
    assert!(reasons(&home, &first_of_them).contains(&"StartsStopped".to_owned()), "it had to come there too");
    home.eventually("it is stopped again", PATIENCE, |home| home.node("wasm/validator-3")["status"]["phase"] == "Stopped");
    home.ctl(&["start", "wasm/validator-3"]).ok();
    let goal = home.highest("wasm") + 1;
    home.eventually("it has caught up, and the chain tells what it missed", PATIENCE, |home| {
        let node = home.node("wasm/validator-3")["status"].clone();
        let missed = node["details"]["missedBlocks"].as_str().and_then(|count| count.parse::<u64>().ok());
        node["blockHeight"].as_u64() >= Some(goal) && node["catchingUp"] != true && missed > Some(0) && node["details"]["votingPower"] != "0"
    });

    assert_eq!(settled(&home, &names[names.len() - 1])["phase"], "Completed");
    assert_eq!(watch.exit_code(), Some(0), "both have ended well");
    for (name, (plan, _)) in names.iter().zip(rest) {
        let done = status(&home, name);
        assert_eq!((done["halts"].as_array().unwrap().len(), done["verified"]["nodes"].as_u64() >= Some(3)), (4, true), "{done}");
        assert!(done["halts"][0]["evidence"].as_str().unwrap().contains(&format!("upgrade-info.json names {plan}")), "{done}");
    }
    println!("MEASURED: {} upgrades of 4 wasmd validators by governance, asked for at once: {:.1?}", rest.len(), started.elapsed());
    assert!(sdk(&home).starts_with(module.sdk), "{}", home.devnet("wasm"));
    if is_cached {
        let running = home.devnet("wasm")["status"]["binary"].clone();
        assert_eq!(
            (&running["source"], &running["version"]),
            (&format!("goModule github.com/CosmWasm/wasmd@{}", module.version).into(), &module.version.into())
        );
    }
    assert_history(&home, &releases);
    home.all_rise("wasm", 2);
}

/// Each release had its turn, from the height of its upgrade on.
fn assert_history(home: &TestHome, releases: &[(&str, Wasmd)]) {
    let history = home.devnet("wasm")["status"]["sdkVersionHistory"].as_array().cloned().unwrap_or_default();
    assert_eq!(history.len(), releases.len(), "{history:?}");
    for (turn, (plan, wasmd)) in history.iter().zip(releases) {
        assert!(turn["version"].as_str().unwrap().starts_with(wasmd.sdk), "{history:?}");
        let at = if *turn == history[0] { Value::Null } else { status(home, &format!("wasm/{plan}"))["height"].clone() };
        assert_eq!(turn["height"].as_u64().unwrap_or(0), at.as_u64().unwrap_or(0), "{history:?}");
    }
}

#[test]
fn a_wasmd_binary_rolls_over_the_validators_while_the_chain_goes_on_and_the_daemon_dies() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    up_wasmd(&home, &Wasmd { version: "v0.54.0", sdk: "v0.50", path: program.clone() }, "10s");
    let (fix, before) = (e2e::with_other_bytes(&home, &program, "wasmd-fix"), home.pids("wasm"));
    home.ctl(&["upgrade", "create", "wasm", "--name", "fix", "--binary", &fix, "--skip-vote", "--rolling"]).ok();
    let rolled = |home: &TestHome| reasons(home, "wasm/fix").iter().filter(|reason| *reason == "Rolling").count();
    home.eventually("the second node was told to change", Duration::from_secs(120), |home| rolled(home) >= 2);
    replace_daemon(&home);
    let done = settled(&home, "wasm/fix");
    assert_eq!(done["phase"], "Completed", "{done}");
    assert_eq!((rolled(&home), before.len()), (4, 4), "each node changed once");
    assert!(!reasons(&home, "wasm/fix").contains(&"HoldsNodes".to_owned()), "the chain never stood still");
    let (after, devnet) = (home.pids("wasm"), home.devnet("wasm"));
    assert!(before.iter().all(|(node, pid)| after[node] != *pid), "{before:?} {after:?}");
    assert_eq!(devnet["spec"]["binary"]["path"], fix.as_str());
    assert!(home.nodes("wasm").values().all(|node| node["spec"]["binaryHash"] == devnet["status"]["binary"]["sha256"]));
    home.all_rise("wasm", 2);
}

/// A fix that changes no state needs no vote: the binary is swapped under the chain, at a height or at once.
#[test]
fn a_wasmd_binary_is_swapped_without_a_vote_at_a_height_and_at_once() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    up_wasmd(&home, &Wasmd { version: "v0.54.0", sdk: "v0.50", path: program.clone() }, "10s");
    let fixed = |name: &str| home.program(name, &format!("exec {} \"$@\" # {name}", program.display()));
    let (first, second) = (fixed("fix-1"), fixed("fix-2"));
    let height = home.highest("wasm") + 12;
    let swap = |name: &str, binary: &str, more: &[&str]| {
        let words = ["upgrade", "create", "wasm", "--name", name, "--binary", binary, "--skip-vote", "--wait", "--timeout", "150s"];
        home.ctl(&[words.as_slice(), more].concat()).ok().prints("Completed");
    };
    swap("fix-1", &first, &["--height", &height.to_string()]);
    let done = status(&home, "wasm/fix-1");
    assert!(done["verified"]["height"].as_u64() > Some(height) && done["proposalId"].is_null(), "{done}");
    swap("fix-2", &second, &[]);
    assert_eq!(home.devnet("wasm")["spec"]["binary"]["path"], second.as_str());
    let file = home.path().join("wasm.yaml").display().to_string();
    home.ctl(&["apply", "-f", &file]).exits(4).says("from before upgrade wasm/fix-1");
    home.all_rise("wasm", 2);
}

#[test]
fn a_daemon_that_is_killed_in_each_phase_of_a_wasmd_upgrade_goes_on_to_the_same_end() {
    let releases = releases();
    let [(_, first), rest @ ..] = releases.as_slice() else { return };
    if rest.is_empty() {
        return; // the missing ones have been named
    }
    let home = TestHome::new();
    up_wasmd(&home, first, "15s");
    for (turn, (plan, wasmd)) in rest.iter().enumerate() {
        upgraded_over_a_kill_in_each_phase(&home, plan, wasmd);
        let proposals = proposals(&home);
        assert_eq!(proposals["proposals"].as_array().map(Vec::len), Some(turn + 1), "one for each upgrade, whatever died when: {proposals}");
    }
    assert_history(&home, &releases);
    home.all_rise("wasm", 2);
    assert_none_signed_twice(&home, "wasm");
}

fn upgraded_over_a_kill_in_each_phase(home: &TestHome, plan: &str, wasmd: &Wasmd) {
    // Daemons die and come meanwhile: a height that leaves them time.
    let (name, height) = (format!("wasm/{plan}"), (home.highest("wasm") + 75).to_string());
    let mut daemon = home.daemon_pid().expect("the daemon runs");
    home.ctl(&["upgrade", "create", "wasm", "--name", plan, "--height", &height, "--binary", &wasmd.path.display().to_string()]).ok();
    let mut watch = Follower::of(home, &["upgrade", "watch", &name, "-o", "json"]);
    for phase in &PHASES[1..6] {
        watch.until_phase(phase);
        kill(daemon, Signal::SIGKILL).expect("it is ours");
        home.eventually("the daemon has gone", PATIENCE, |_| !is_alive(daemon));
        assert_eq!(home.rows(&format!("upgrades WHERE name = '{name}' AND phase = '{phase}'")), 1, "it died in {phase}: {:?}", watch.phases());
        home.ctl(&["daemon", "start"]).ok();
        daemon = home.daemon_pid().expect("the next one runs");
    }
    assert_eq!(watch.exit_code(), Some(0), "{:?}", watch.phases());
    let phases = watch.phases();
    let phases: Vec<&str> = phases.iter().map(String::as_str).filter(|phase| *phase != PHASES[0]).collect(); // it may have been over
    assert_eq!(phases, PHASES[1..], "each once, over five deaths of the daemon");
    let done = status(home, &name);
    assert_eq!((&done["phase"], &done["verified"]["nodes"]), (&"Completed".into(), &4.into()), "{done}");
}

const PHASES: [&str; 7] = ["Pending", "Proposing", "Voting", "Waiting", "Switching", "Verifying", "Completed"];

/// What the chain itself says, by its own command line.
#[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
fn proposals(home: &TestHome) -> Value {
    let node = home.node("wasm/validator-0");
    let rpc = format!("tcp://{}:{}", node["spec"]["address"].as_str().unwrap(), node["spec"]["ports"]["rpc"]);
    let mut command = std::process::Command::new(node["spec"]["binaryPath"].as_str().unwrap());
    command.args(["query", "gov", "proposals", "--node", &rpc, "-o", "json", "--home"]).arg(home.path().join("cli"));
    let output = command.output().expect("the chain's command line runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// It goes on once more when what is asked for was mended in place.
#[test]
fn a_wasmd_upgrade_to_a_binary_of_another_sdk_is_rolled_back_the_chain_goes_on_and_the_right_one_is_tried_again() {
    let releases = releases();
    let [(_, first), (_, second), (plan, third)] = releases.as_slice() else { return };
    let home = with_module_proxy(TestHome::new());
    up_wasmd(&home, second, "15s");
    home.ctl(&["upgrade", "create", "wasm", "--name", "no-such-handler", "--binary", &third.path.display().to_string()]).ok();
    let refused = settled(&home, "wasm/no-such-handler");
    assert!(refused["why"].as_str().unwrap().contains("stands nowhere in the binary"), "{refused}");
    match program("go") {
        Some(_) => no_chain_from_a_go_module(&home, plan),
        None => println!("SKIP: an upgrade to a Go module that is no chain: there is no `go` in PATH"),
    }

    // An older release than the one that runs: it has no handler, and cannot read the state.
    let path = e2e::with_other_bytes(&home, &first.path, "next");
    home.ctl(&["upgrade", "create", "wasm", "--name", plan, "--binary", &path, "--assume-handler"]).ok();
    let name = format!("wasm/{plan}");
    let mut watch = Follower::of(&home, &["upgrade", "watch", &name, "-o", "json"]);
    let back = settled(&home, &name);
    assert_eq!(back["phase"], "RolledBack", "{back}");
    assert_eq!(watch.exit_code(), Some(1), "{:?}", watch.phases());
    let phases = watch.phases();
    assert_eq!(phases[phases.len() - 3..], ["Verifying", "RollingBack", "RolledBack"], "{phases:?}");
    home.ctl(&["wait", "wasm", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("wasm", 2);
    assert!(sdk(&home).starts_with(second.sdk));
    assert!(home.lowest("wasm") > back["height"].as_u64().unwrap(), "it passed the height");
    assert!(reasons(&home, &name).contains(&"StatePutBack".to_owned()));

    fs::rename(e2e::with_other_bytes(&home, &third.path, "mended"), &path).expect("it takes its place");
    home.ctl(&["upgrade", "retry", &name, "--wait", "--timeout", "180s"]).ok().prints("Completed");
    let done = status(&home, &name);
    assert!(done["height"].as_u64() > back["height"].as_u64(), "{done}");
    assert!(sdk(&home).starts_with(third.sdk));
    home.all_rise("wasm", 2);
    assert_none_signed_twice(&home, "wasm");
}

/// Go modules of this home come from a folder, and are unpacked into another.
fn with_module_proxy(home: TestHome) -> TestHome {
    let proxy = format!("file://{}/data/goproxy", env!("CARGO_MANIFEST_DIR"));
    let unpacked = home.path().join("gomod").display().to_string();
    home.with_env("GOPROXY", &proxy).with_env("GOSUMDB", "off").with_env("GOFLAGS", "-modcacherw").with_env("GOMODCACHE", &unpacked)
}

/// A program of a Go module that is built, and then is no chain: nothing is asked of the one that runs.
fn no_chain_from_a_go_module(home: &TestHome, plan: &str) {
    let name = format!("wasm/{plan}");
    let create = |module: &str| {
        home.ctl(&["upgrade", "create", "wasm", "--name", plan, "--go-module", module]).ok();
        let refused = settled(home, &name);
        assert_eq!((&refused["phase"], refused["proposalId"].is_null()), (&"Failed".into(), true), "{refused}");
        refused["why"].as_str().unwrap().to_owned()
    };
    let why = create("devnetd.test/wrongd@v1.0.1");
    assert!(why.contains("go mod download") && why.contains("v1.0.1"), "{why}");
    // What was refused before anything was done for it does not keep its name from a better one.
    let why = create("devnetd.test/wrongd@v1.0.0");
    assert!(why.contains("/wrongd is not a Cosmos SDK chain") && why.contains("wrongd: no chain"), "{why}");
}

/// In each phase of governance there is a way back, and it can be tried again.
#[test]
fn a_wasmd_upgrade_that_is_cancelled_in_its_vote_and_before_its_height_leaves_the_chain_as_it_was() {
    let releases = releases();
    let [.., (_, old), (plan, new)] = releases.as_slice() else { return };
    let home = TestHome::new();
    up_wasmd(&home, old, "15s");
    home.all_rise("wasm", 2);
    let binary = new.path.display().to_string();
    let create = |height: &str| home.ctl(&["upgrade", "create", "wasm", "--name", plan, "--binary", &binary, "--height", height]);
    let name = format!("wasm/{plan}");
    create("2").exits(4).says("the chain is at");
    create(&(home.highest("wasm") + 12).to_string()).ok();
    let early = settled(&home, &name);
    let why = early["why"].as_str().unwrap();
    assert!(early["phase"] == "Failed" && (why.contains("may come before the vote has ended") || why.contains("is past")), "{early}");
    home.ctl(&["upgrade", "delete", &name, "--yes"]).ok();

    propose(&home, plan, &new.path);
    until_phase(&home, &name, "Voting");
    home.ctl(&["upgrade", "cancel", &name, "--wait", "--timeout", "120s"]).ok().prints("Failed");
    assert!(status(&home, &name)["why"].as_str().unwrap().contains("all validators voted no"), "{}", status(&home, &name));
    let outcomes = || -> Vec<String> {
        let listed = home.json(&["gov", "list", "wasm"])["items"].as_array().cloned().unwrap_or_default();
        listed.iter().map(|proposal| proposal["status"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(outcomes(), ["rejected"]);

    let pids = home.pids("wasm");
    home.ctl(&["upgrade", "retry", &name]).ok();
    until_phase(&home, &name, "Waiting");
    assert_eq!(home.pids("wasm"), pids, "no node was touched for the one that was cancelled");
    home.ctl(&["upgrade", "cancel", &name, "--wait", "--timeout", "120s"]).ok().prints("Failed");
    let back = status(&home, &name);
    let height = back["height"].as_u64().unwrap();
    assert!(back["why"].as_str().unwrap().contains(&format!("goes on past height {height}")), "{back}");
    home.eventually("all nodes have passed the height", PATIENCE, |home| home.lowest("wasm") > height + 1);
    assert!(sdk(&home).starts_with(old.sdk));
    let mut both = outcomes();
    both.sort();
    assert_eq!(both, ["passed", "rejected"]);
    assert_none_signed_twice(&home, "wasm");
}
