//! Freeze and thaw: a chain that stands still, over a crash of the daemon, and what ends a freeze.

use e2e::{TestHome, condition, is_alive};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{fs, time::Duration};

const SOON: Duration = Duration::from_secs(20);
/// Three times as long as a probe may fail before a node counts as unreachable would be too long; this is past its first probes and blocks.
const A_WHILE: Duration = Duration::from_secs(6);

/// Status and reason of a condition; none when the object has no such.
fn says(object: &Value, kind: &str) -> Option<(String, String)> {
    let found = condition(object, kind);
    Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
}

fn is_frozen(object: &Value) -> bool {
    condition(object, "Frozen")["status"] == "True"
}

/// Ticks of cpu time that it has had.
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_frozen_devnet_stands_still_is_neither_sick_nor_halted_and_goes_on_after_a_crash_of_the_daemon() {
    let home = TestHome::new();
    home.up_quickstart("net", "{backoff: 300ms}");
    home.all_rise("net", 2);
    let pids = home.pids("net");
    home.ctl(&["freeze", "net"]).ok().prints("frozen");
    let before = (home.highest("net"), pids.values().map(|pid| ticks(*pid)).collect::<Vec<_>>());
    home.kill_daemon();
    home.ctl(&["daemon", "start"]).ok();
    std::thread::sleep(A_WHILE);
    let devnet = home.devnet("net");
    assert_eq!(devnet["status"]["phase"], "Running", "{devnet}");
    assert!(is_frozen(&devnet), "{devnet}");
    assert_ne!(says(&devnet, "Progressing"), Some(("False".into(), "Halted".into())));
    for (name, node) in home.nodes("net") {
        assert!(is_frozen(&node), "{name}");
        assert_eq!((&node["status"]["phase"], node["status"]["restartCount"].as_u64()), (&"Running".into(), Some(0)), "{name}");
    }
    assert_eq!(pids.values().map(|pid| ticks(*pid)).collect::<Vec<_>>(), before.1, "not a tick of cpu time");
    home.ctl(&["thaw", "net"]).ok().prints("thawed");
    home.all_rise("net", 2);
    assert!(home.highest("net") > before.0);
    assert_eq!(home.pids("net"), pids, "the same processes");
    assert_eq!(condition(&home.devnet("net"), "Frozen"), Value::Null);
}

#[test]
fn one_frozen_validator_hurts_nobody_and_a_chain_without_a_quorum_is_not_called_halted() {
    let home = TestHome::new();
    home.up_quickstart("net", "{backoff: 300ms}");
    home.ctl(&["freeze", "net/validator-3"]).ok();
    home.eventually("the others go on", SOON, |home| {
        let nodes = home.nodes("net");
        let height = |name: &str| nodes[name]["status"]["blockHeight"].as_u64().unwrap_or(0);
        height("validator-0") >= height("validator-3") + 3
    });
    home.ctl(&["freeze", "net/validator-2"]).ok();
    home.eventually("no block comes", SOON, |home| says(&home.devnet("net"), "Progressing") == Some(("False".into(), "Frozen".into())));
    assert_eq!(home.devnet("net")["status"]["phase"], "Running");
    home.ctl(&["describe", "net"]).ok().prints("frozen: validator-2, validator-3");
    home.ctl(&["get", "nodes", "net"]).ok().says("net/validator-3 is frozen; dvbctl thaw net/validator-3");
    home.ctl(&["thaw", "net"]).ok().says("net/validator-2 was frozen by itself and stays so; dvbctl thaw net/validator-2");
    home.ctl(&["thaw", "net/validator-2", "net/validator-3"]).ok();
    home.all_rise("net", 2);
    assert_eq!(home.nodes("net").values().map(|node| node["status"]["restartCount"].as_u64().unwrap()).sum::<u64>(), 0);
}

const TWO: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: two}
spec:
  plugin: exec
  restart: {backoff: 200ms}
  services:
    - {name: polite, command: [sh, -c, 'trap \"echo heard > term; exit 0\" TERM; while :; do sleep 0.05; done'], restart: {policy: always}}
    - {name: b, command: [sleep, '1000'], restart: {policy: always}}
";

#[test]
fn stop_delete_and_restart_end_a_freeze_and_a_death_waits_for_the_thaw() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", TWO);
    home.ctl(&["up", &file]).ok();
    let pid = home.pid("two/polite");
    home.ctl(&["freeze", "two"]).ok();
    home.ctl(&["get", "devnets"]).ok().says("two is frozen; dvbctl thaw two");
    home.ctl(&["up", &file]).ok();
    assert!(is_frozen(&home.devnet("two")), "a file that does not name it leaves it so");
    home.ctl(&["thaw", "two/b"]).exits(4).says("dvbctl thaw two");
    home.ctl(&["restart", "two/b"]).exits(4).says("dvbctl thaw two");

    home.ctl(&["stop", "two"]).ok();
    assert!(!is_alive(pid));
    assert_eq!(home.node("two/polite")["status"]["lastExit"]["code"], 0, "it heard the signal");
    home.ctl(&["freeze", "two"]).exits(4).says("dvbctl start two");
    home.ctl(&["start", "two"]).ok();
    assert!(!is_frozen(&home.devnet("two")));

    home.ctl(&["freeze", "two/b"]).ok();
    kill(home.pid("two/b"), Signal::SIGKILL).unwrap();
    home.eventually("b died", SOON, |home| home.node("two/b")["status"]["phase"] == "Crashed");
    std::thread::sleep(Duration::from_secs(1)); // five times its back-off
    assert_eq!(home.node("two/b")["status"]["phase"], "Crashed");
    home.ctl(&["up", &file]).exits(1).says("two/b is Crashed and frozen").says("dvbctl thaw two/b");
    home.ctl(&["why", "two/b"]).ok().prints("it is frozen; dvbctl thaw two/b lets it go on");
    home.ctl(&["thaw", "two/b"]).ok();
    home.ctl(&["wait", "two/b", "--for=Running", "--timeout", "20s"]).ok();

    home.ctl(&["freeze", "two/polite"]).ok();
    let frozen = home.pid("two/polite");
    home.ctl(&["restart", "two/polite"]).ok();
    assert!(!is_alive(frozen) && home.pid("two/polite") != frozen && !is_frozen(&home.node("two/polite")));
    home.ctl(&["freeze", "two"]).ok();
    let pids = home.pids("two");
    home.ctl(&["delete", "two", "--yes"]).ok();
    assert!(pids.values().all(|pid| !is_alive(*pid)));
}

const DYING: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: dying}
spec:
  plugin: exec
  devnetResources: {memory: 512Mi}
  restart: {policy: never}
  services:
    - {name: dumped, command: [sh, -c, 'ulimit -c unlimited || exit 3; kill -ABRT $$']}
    - {name: killed, command: [sh, -c, 'echo its last line; sleep 1000']}
";

/// A core is a file here only where the machine's pattern says so.
fn core_is_a_file() -> bool {
    fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| !pattern.starts_with(['|', '/']))
}

#[test]
fn describe_tells_a_death_in_full_with_its_core_and_the_devnet_says_whether_its_limits_hold() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", DYING);
    home.ctl(&["apply", "-f", &file]).ok();
    home.ctl(&["wait", "dying", "--for=condition=Provisioned", "--timeout", "20s"]).ok();
    home.ctl(&["wait", "dying/killed", "--for=Running", "--timeout", "20s"]).ok();
    let (status, _) = says(&home.devnet("dying"), "LimitsEnforced").expect("limits are asked for");
    let mend = home.devnet("dying")["status"]["conditions"].to_string().contains("remedy");
    assert!(status == "True" || mend, "what cannot be held is said with its mend");
    assert!(home.node("dying/killed")["status"]["usage"]["ioRead"].is_number() || home.node("dying/killed")["status"]["usage"].is_null());

    kill(home.pid("dying/killed"), Signal::SIGKILL).unwrap();
    home.ctl(&["wait", "dying/killed", "--for=Failed", "--timeout", "20s"]).ok();
    home.ctl(&["describe", "dying/killed"])
        .ok()
        .prints("SIGKILL by somebody other than devnetd")
        .prints("How:           SIGKILL")
        .prints("its last line");

    home.ctl(&["wait", "dying/dumped", "--for=Failed", "--timeout", "20s"]).ok();
    let exit = home.node("dying/dumped")["status"]["lastExit"].clone();
    if exit["code"] == 3 || !core_is_a_file() {
        return println!("SKIP: this machine writes no core file into a process's folder");
    }
    let core = exit["core"]["path"].as_str().unwrap_or_else(|| panic!("no core in {exit}")).to_owned();
    assert!(fs::metadata(&core).unwrap().len() > 0);
    home.ctl(&["describe", "dying/dumped"]).ok().prints("SIGABRT").prints(&core);
}

const STORM: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: storm}
spec:
  plugin: exec
  restart: {policy: always, backoff: 0s, maxRestarts: 1000}
  restartBudget: 5
  services:
    - {name: a, command: [sleep, '0.05']}
    - {name: b, command: [sleep, '0.05']}
";

#[test]
fn a_storm_of_restarts_is_held_by_the_budget_of_its_devnet_and_says_so() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", STORM);
    home.ctl(&["apply", "-f", &file]).ok();
    home.eventually("both wait", SOON, |home| {
        let nodes = home.nodes("storm");
        nodes.len() == 2 && nodes.values().all(|node| condition(node, "Ready")["reason"] == "RestartStorm")
    });
    let restarts: u64 = home.nodes("storm").values().map(|node| node["status"]["restartCount"].as_u64().unwrap()).sum();
    assert_eq!(restarts, 5);
    home.ctl(&["why", "storm/a"]).ok().prints("spec.restartBudget");
}

#[test]
fn a_budget_of_restarts_counts_on_when_its_daemon_is_killed() {
    let home = TestHome::new();
    let text = STORM.replace("'0.05'", "'1000'").replace("restartBudget: 5", "restartBudget: 1");
    home.ctl(&["up", &home.file("devnet.yaml", &text)]).ok();
    let first = home.pid("storm/a");
    kill(first, Signal::SIGKILL).unwrap();
    home.eventually("it is restarted", SOON, |home| home.pids("storm").get("a").is_some_and(|pid| *pid != first && is_alive(*pid)));
    let nodes = home.pids("storm");
    home.kill_daemon();
    nodes.values().for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap());
    home.ctl(&["daemon", "start"]).ok();
    home.eventually("both wait", SOON, |home| home.nodes("storm").values().all(|node| condition(node, "Ready")["reason"] == "RestartStorm"));
    let restarts: u64 = home.nodes("storm").values().map(|node| node["status"]["restartCount"].as_u64().unwrap()).sum();
    assert_eq!(restarts, 1, "the restart of before the crash is all that the budget has");
}
