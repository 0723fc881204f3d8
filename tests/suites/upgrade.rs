//! Upgrades on the devchain: from the halt at a height to equal blocks with the new binary, or back to how it was.

mod wasmd;

use e2e::{Follower, TestHome, binary};
use serde_json::Value;
use std::time::Duration;

const QUICK: &str = "{backoff: 300ms}";

fn up(home: &TestHome) {
    home.up_quickstart("quick", QUICK);
    home.all_rise("quick", 1);
}

/// A height that the chain has not reached while the upgrade is asked for.
fn ahead(home: &TestHome) -> String {
    (home.highest("quick") + 40).to_string()
}

fn next_binary() -> String {
    binary("devchain-v2").display().to_string()
}

/// A program of the test: a script around the new binary, which begins with `first`.
fn wrapped(home: &TestHome, name: &str, first: &str) -> String {
    home.program(name, &format!("{first}\nexec {} \"$@\"", next_binary()))
}

fn create(home: &TestHome, height: &str, program: &str) {
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", height, "--binary", program, "--skip-vote"]).ok();
}

fn status(home: &TestHome, name: &str) -> Value {
    home.json(&["get", "upgrade", name])["status"].clone()
}

fn settled(home: &TestHome, name: &str) -> Value {
    let output = home.ctl(&["upgrade", "status", name, "--wait", "--timeout", "150s", "-o", "json"]);
    serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stderr))["status"].clone()
}

/// For what a chain is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

fn until_phase(home: &TestHome, name: &str, phase: &str) {
    home.eventually(&format!("{name} is {phase}"), PATIENCE, |home| status(home, name)["phase"] == phase);
}

/// The events of an upgrade, oldest first.
fn reasons(home: &TestHome, name: &str) -> Vec<String> {
    let events = home.json(&["events", name]);
    events["items"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_devchain_halts_at_the_height_and_goes_on_with_the_new_binary() {
    let home = TestHome::new();
    up(&home);
    let height = ahead(&home);
    let voted = ["upgrade", "create", "quick", "--name", "v2", "--height", &height, "--binary", &next_binary()];
    home.ctl(&voted).exits(4).says("the chain of quick has no governance").says("--skip-vote");
    let height = ahead(&home);
    let asked =
        ["upgrade", "create", "quick", "--name", "v2", "--height", &height, "--binary", &next_binary(), "--skip-vote", "--wait", "--timeout", "120s"];
    home.ctl(&asked).ok().prints("Completed");
    let done = status(&home, "quick/v2");
    assert_eq!(done["handler"], "declared");
    assert_eq!(done["halts"].as_array().unwrap().len(), 5, "{done}");
    assert!(done["halts"][0]["evidence"].as_str().unwrap().contains("no handler for v2"), "{done}");
    assert!(done["verified"]["height"].as_u64() >= height.parse().ok(), "{done}");
    assert_eq!(done["verified"]["nodes"], 5);
    let devnet = home.devnet("quick");
    assert_eq!(devnet["status"]["sdkVersion"], "protocol-2");
    let history = devnet["status"]["sdkVersionHistory"].as_array().unwrap();
    let turns: Vec<(&str, u64)> = history.iter().map(|turn| (turn["version"].as_str().unwrap(), turn["height"].as_u64().unwrap_or(0))).collect();
    assert_eq!(turns, [("protocol-1", 0), ("protocol-2", height.parse().unwrap())]);
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "20s"]).ok();
    home.all_rise("quick", 2);
    home.eventually("the saved homes are freed", Duration::from_secs(5), |home| reasons(home, "quick/v2").contains(&"SavedStateFreed".to_owned()));
    let told = reasons(&home, "quick/v2");
    let order = ["UpgradeRequested", "Waiting", "Scheduled", "Switching", "HoldsNodes", "StateSaved", "Verifying", "Completed", "SavedStateFreed"];
    let mut rest = told.iter();
    assert!(order.iter().all(|reason| rest.any(|told| told == reason)), "{told:?}");
    home.eventually("the saved homes are gone", Duration::from_secs(5), |home| !home.home().join("devnets/default/quick/upgrades/v2").exists());
    home.ctl(&["why", "upgrade", "quick/v2"]).ok().prints("UpgradeRequested").prints("[user:");
    home.ctl(&["get", "upgrades"]).ok().prints("Completed");
    home.ctl(&["describe", "upgrade", "quick/v2"]).ok().prints("no handler for v2");
    home.ctl(&["upgrade", "cancel", "quick/v2"]).exits(4).says("moved on");
    home.ctl(&["upgrade", "retry", "quick/v2"]).exits(4);
    home.ctl(&["describe", "quick"]).ok().prints("protocol-1  from the beginning").prints(&format!("protocol-2  from height {height}"));
    // The file is as it was before the upgrade.
    let file = home.path().join("quick.yaml").display().to_string();
    for verb in [["apply", "-f"].as_slice(), &["apply", "--dry-run", "-f"], &["up"]] {
        home.ctl(&[verb, &[file.as_str()]].concat()).exits(4).says("from before upgrade quick/v2").says(&next_binary());
    }
    let text = std::fs::read_to_string(&file).unwrap().replace("spec:\n", &format!("spec:\n  binary: {{path: {}}}\n", next_binary()));
    home.ctl(&["apply", "-f", &home.file("new.yaml", &text)]).ok().prints("unchanged");
    // The upgrade's record goes; what the chain went through stays the devnet's.
    home.ctl(&["upgrade", "delete", "quick/v2", "--yes"]).ok();
    home.ctl(&["apply", "-f", &file]).exits(4).says("from before upgrade quick/v2");
    let again = ["upgrade", "create", "quick", "--name", "v3", "--binary", &next_binary(), "--skip-vote"];
    home.ctl(&again).exits(4).says("is the binary that quick runs already");
    home.ctl(&["reset", "quick", "--yes"]).ok();
    home.all_rise("quick", 1);
}

#[test]
fn a_height_in_the_past_and_an_unknown_name_are_refused_before_anything_happens() {
    let home = TestHome::new();
    up(&home);
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", "1", "--binary", &next_binary(), "--skip-vote"])
        .exits(4)
        .says("the chain is at");
    home.ctl(&["upgrade", "create", "nope", "--name", "v2", "--height", "99", "--binary", &next_binary(), "--skip-vote"]).exits(3);
    home.ctl(&["upgrade", "create", "quick", "--name", "v2"]).exits(2);
    let missing = home.path().join("nothing").display().to_string();
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--binary", &missing, "--skip-vote"]).exits(4).says("nothing does not exist");
    assert_eq!(home.rows("upgrades"), 0, "what is refused is not there");
    home.ctl(&["upgrade", "create", "quick", "--name", "v9", "--height", &ahead(&home), "--binary", &next_binary(), "--skip-vote"]).ok();
    let refused = settled(&home, "quick/v9");
    assert_eq!(refused["phase"], "Failed");
    assert!(refused["why"].as_str().unwrap().contains("no handler for v9"), "{refused}");
    home.ctl(&["upgrade", "status", "quick/v9", "--wait"]).exits(1).says("create it again under the same name");
    home.ctl(&["upgrade", "watch", "quick/v9"]).exits(1).prints("Failed").says("no handler for v9");
    home.ctl(&["upgrade", "watch", "quick/none"]).exits(3).says("quick/none");
    home.ctl(&["upgrade", "watch", "none"]).exits(3).says("none");
    home.ctl(&["upgrade", "cancel", "quick/v9"]).ok().prints("Failed already, there is nothing to cancel");
    // What was refused before anything was done for it does not keep its name from a better one.
    let wrong = home.program("wrong", r"printf '\033[1;31merror:\033[0m no such command\n' >&2; exit 2");
    for binary in ["/bin/true", &wrong] {
        home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", &ahead(&home), "--binary", binary, "--skip-vote"]).ok();
        let refused = settled(&home, "quick/v2");
        let why = refused["why"].as_str().unwrap();
        assert!(why.contains("no devchain") || why.contains("exit code 2: error: no such command"), "{refused}");
        assert!(!refused.to_string().contains("u001b"), "what steers a terminal is told: {refused}");
    }
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", &ahead(&home), "--binary", &next_binary(), "--skip-vote"]).ok();
    let mut watch = Follower::of(&home, &["upgrade", "watch", "quick/v2", "-o", "json"]);
    assert_eq!(watch.exit_code(), Some(0), "{:?}", watch.phases());
    let phases = watch.phases();
    let phases: Vec<&str> = phases.iter().map(String::as_str).filter(|phase| *phase != "Pending").collect(); // it may have been over
    assert_eq!(phases, ["Waiting", "Switching", "Verifying", "Completed"], "each once");
    assert_eq!(status(&home, "quick/v2")["phase"], "Completed");
    home.ctl(&["upgrade", "watch", "quick/v2"]).ok().prints("Completed");
    home.ctl(&["upgrade", "watch", "quick/v2", "quick/v9"]).exits(1).says("quick/v9");
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--binary", &wrong, "--skip-vote"]).exits(4).says("exists already and is Completed");
    home.all_rise("quick", 2);
}

/// Half a download: it has the right name, the right mode and the right beginning.
#[test]
fn a_corrupt_binary_fails_the_upgrade_before_the_chain_is_asked_for_anything() {
    let home = TestHome::new();
    up(&home);
    let whole = std::fs::read(next_binary()).unwrap();
    let corrupt = home.program("corrupt", "");
    std::fs::write(&corrupt, &whole[..whole.len() / 2]).unwrap();
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", &ahead(&home), "--binary", &corrupt, "--skip-vote"])
        .exits(4)
        .says("corrupt cannot be run");
    assert_eq!(home.rows("upgrades"), 0, "what is refused is not there");
    // Only running it tells that this one is no devchain.
    let garbled = wrapped(&home, "garbled", "echo nonsense; exit 0");
    let height = ahead(&home);
    create(&home, &height, &garbled);
    let refused = settled(&home, "quick/v2");
    assert_eq!(refused["phase"], "Failed", "{refused}");
    assert!(refused["why"].as_str().unwrap().contains("garbled"), "it names the binary: {refused}");
    home.eventually("the chain passes the height", Duration::from_secs(60), |home| home.lowest("quick") > height.parse().unwrap());
    assert_eq!(home.devnet("quick")["status"]["sdkVersion"], "protocol-1");
    home.ctl(&["upgrade", "delete", "quick/v2", "--yes"]).ok();
    create(&home, &ahead(&home), &next_binary());
    assert_eq!(settled(&home, "quick/v2")["phase"], "Completed");
}

#[test]
fn a_binary_that_cannot_run_is_rolled_back_and_tried_again_with_one_that_can() {
    let home = TestHome::new();
    up(&home);
    let flag = home.path().join("mended");
    let broken = wrapped(&home, "broken", &format!("[ \"$1\" != run ] || [ -e {} ] || {{ echo 'error: bad flag'; exit 2; }}", flag.display()));
    let height = ahead(&home);
    create(&home, &height, &broken);
    let back = settled(&home, "quick/v2");
    assert_eq!(back["phase"], "RolledBack", "{back}");
    assert!(back["why"].as_str().unwrap().contains("failed with the new binary"), "{back}");
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "30s"]).ok();
    home.all_rise("quick", 2);
    assert_eq!(home.devnet("quick")["status"]["sdkVersion"], "protocol-1");
    assert!(home.lowest("quick") >= height.parse().unwrap(), "the chain went on past the height");
    assert!(reasons(&home, "quick/v2").contains(&"StatePutBack".to_owned()));
    std::fs::write(&flag, "").unwrap();
    home.ctl(&["upgrade", "retry", "quick/v2", "--wait", "--timeout", "120s"]).ok().prints("Completed");
    assert_eq!(home.devnet("quick")["status"]["sdkVersion"], "protocol-2");
    home.all_rise("quick", 2);
}

#[test]
fn one_that_is_cancelled_before_the_height_leaves_the_chain_alone_and_a_second_one_waits_for_it() {
    let home = TestHome::new();
    up(&home);
    let height = (home.highest("quick") + 40).to_string();
    create(&home, &height, &next_binary());
    home.eventually("all nodes are told", Duration::from_secs(20), |home| reasons(home, "quick/v2").contains(&"Scheduled".to_owned()));
    home.ctl(&["upgrade", "create", "quick", "--name", "swap", "--binary", &next_binary(), "--skip-vote"]).ok();
    home.eventually("the second waits", Duration::from_secs(10), |home| {
        status(home, "quick/swap")["message"].as_str().is_some_and(|message| message.contains("waits until upgrade quick/v2"))
    });
    home.ctl(&["upgrade", "delete", "quick/v2", "--yes"]).exits(4);
    home.ctl(&["upgrade", "cancel", "quick/v2", "--wait", "--timeout", "20s"]).ok().prints("Failed");
    assert!(status(&home, "quick/v2")["why"].as_str().unwrap().contains("cancelled"));
    home.ctl(&["upgrade", "status", "quick/swap", "--wait", "--timeout", "120s"]).ok().prints("Completed");
    home.all_rise("quick", 2);
    assert_eq!(home.devnet("quick")["status"]["sdkVersion"], "protocol-2");
}

#[test]
fn an_upgrade_of_a_stopped_devnet_waits_and_a_reset_ends_it() {
    let home = TestHome::new();
    up(&home);
    home.ctl(&["stop", "quick"]).ok();
    create(&home, "900", &next_binary());
    home.eventually("it waits", Duration::from_secs(10), |home| {
        status(home, "quick/v2")["message"].as_str().is_some_and(|text| text.contains("is stopped"))
    });
    home.ctl(&["start", "quick"]).ok();
    until_phase(&home, "quick/v2", "Waiting");
    home.ctl(&["reset", "quick", "--yes"]).ok();
    let ended = settled(&home, "quick/v2");
    assert_eq!(ended["phase"], "Failed");
    assert!(ended["why"].as_str().unwrap().contains("was reset"), "{ended}");
    home.ctl(&["delete", "quick", "--yes"]).ok();
    assert_eq!(home.rows("upgrades"), 0);
}

#[test]
fn a_validator_that_was_stopped_over_the_height_comes_to_it_first_and_is_stopped_again() {
    let home = TestHome::new();
    up(&home);
    home.ctl(&["stop", "quick/validator-3"]).ok();
    let height = ahead(&home);
    create(&home, &height, &next_binary());
    let done = settled(&home, "quick/v2");
    assert_eq!(done["phase"], "Completed", "{done}");
    assert_eq!(done["halts"].as_array().unwrap().len(), 5, "{done}");
    home.eventually("it is stopped again", Duration::from_secs(15), |home| home.node("quick/validator-3")["status"]["phase"] == "Stopped");
    home.ctl(&["start", "quick/validator-3"]).ok();
    home.all_rise("quick", 2);
}

#[test]
fn a_daemon_that_is_killed_in_each_phase_goes_on_to_the_same_end() {
    let home = TestHome::new();
    up(&home);
    let height = ahead(&home);
    create(&home, &height, &wrapped(&home, "slow", "[ \"$1\" != run ] || sleep 1"));
    for phase in ["Waiting", "Switching", "Verifying"] {
        home.eventually(&format!("it is {phase} or further"), Duration::from_secs(60), |home| {
            let now = status(home, "quick/v2")["phase"].as_str().unwrap_or_default().to_owned();
            now == phase || now == "Completed"
        });
        replace_daemon(&home);
    }
    let done = settled(&home, "quick/v2");
    assert_eq!(done["phase"], "Completed", "{done}");
    home.all_rise("quick", 2);
}

#[test]
fn a_daemon_that_is_killed_while_it_rolls_back_brings_the_devnet_back() {
    let home = TestHome::new();
    up(&home);
    let height = ahead(&home);
    create(&home, &height, &wrapped(&home, "broken", "[ \"$1\" != run ] || exit 2"));
    until_phase(&home, "quick/v2", "RollingBack");
    replace_daemon(&home);
    let back = settled(&home, "quick/v2");
    assert_eq!(back["phase"], "RolledBack", "{back}");
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "30s"]).ok();
    home.all_rise("quick", 2);
}

fn replace_daemon(home: &TestHome) {
    home.kill_daemon();
    home.ctl(&["daemon", "start"]).ok();
}

#[test]
fn a_binary_is_swapped_one_node_after_the_other_while_the_chain_goes_on_and_back_when_one_fails() {
    let home = TestHome::new();
    up(&home);
    let old = binary("devchain").display().to_string();
    let bad = home.program("bad", &format!("[ \"$1\" != run ] || exit 2\nexec {old} \"$@\""));
    home.ctl(&["upgrade", "create", "quick", "--name", "x", "--binary", &old, "--rolling"]).exits(2);
    let words = ["upgrade", "create", "quick", "--name", "bad", "--binary", &bad, "--skip-vote", "--rolling", "--wait", "--timeout", "200s"];
    home.ctl(&words).exits(1).says("RolledBack");
    let back = status(&home, "quick/bad");
    assert_eq!(reasons(&home, "quick/bad").iter().filter(|reason| *reason == "Rolling").count(), 1, "the others were left alone: {back}");
    let spec = home.devnet("quick")["spec"].clone();
    assert!(spec["nodes"].as_array().is_none_or(Vec::is_empty) && spec["binary"].is_null(), "{spec}");
    home.all_rise("quick", 2);

    let before = home.pids("quick");
    let good = home.program("good", &format!("exec {old} \"$@\" # the same again"));
    home.ctl(&["upgrade", "create", "quick", "--name", "good", "--binary", &good, "--skip-vote", "--rolling"]).ok();
    home.eventually("a node has it", Duration::from_secs(60), |home| reasons(home, "quick/good").contains(&"Rolling".to_owned()));
    // The file names neither the binary nor any node; it takes nothing from those that were given it.
    home.ctl(&["apply", "-f", &home.path().join("quick.yaml").display().to_string()]).ok().prints("unchanged");
    assert_eq!(settled(&home, "quick/good")["phase"], "Completed");
    let (after, spec) = (home.pids("quick"), home.devnet("quick")["spec"].clone());
    assert!(before.iter().all(|(node, pid)| after[node] != *pid), "{before:?} {after:?}");
    assert!(spec["nodes"].as_array().is_none_or(Vec::is_empty) && spec["binary"]["path"] == good.as_str(), "{spec}");
    assert_eq!(reasons(&home, "quick/good").iter().filter(|reason| *reason == "Rolling").count(), before.len());
    assert!(!reasons(&home, "quick/good").contains(&"HoldsNodes".to_owned()), "the chain never stood still");
    home.all_rise("quick", 2);
}

#[test]
fn a_daemon_that_is_killed_in_the_midst_of_a_roll_goes_on_with_the_nodes_that_are_left() {
    let home = TestHome::new();
    up(&home);
    let (old, before) = (binary("devchain").display().to_string(), home.pids("quick"));
    let good = home.program("good", &format!("exec {old} \"$@\" # the same again"));
    home.ctl(&["upgrade", "create", "quick", "--name", "good", "--binary", &good, "--skip-vote", "--rolling"]).ok();
    let rolled = |home: &TestHome| reasons(home, "quick/good").iter().filter(|reason| *reason == "Rolling").count();
    for at_least in [1, 3] {
        home.eventually("so many nodes were told to change", Duration::from_secs(90), |home| rolled(home) >= at_least);
        replace_daemon(&home);
    }
    let done = settled(&home, "quick/good");
    assert_eq!(done["phase"], "Completed", "{done}");
    assert_eq!(rolled(&home), before.len(), "each node changed once");
    let after = home.pids("quick");
    assert!(before.iter().all(|(node, pid)| after[node] != *pid), "{before:?} {after:?}");
    assert!(!reasons(&home, "quick/good").contains(&"HoldsNodes".to_owned()), "the chain never stood still");
    let spec = home.devnet("quick")["spec"].clone();
    assert!(spec["nodes"].as_array().is_none_or(Vec::is_empty) && spec["binary"]["path"] == good.as_str(), "{spec}");
    home.all_rise("quick", 2);
}
