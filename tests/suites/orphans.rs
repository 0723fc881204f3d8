//! `dvbctl orphans` finds what nobody accounts for and ends exactly that; and killed daemons leave no keeper behind.

use e2e::{NODES, TestHome, binary, is_alive};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const DEVNET: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec:
  plugin: exec
  restart: {backoff: 100ms}
  services:
    - {name: a, command: [sleep, '1000'], restart: {policy: always}}
";
const SOON: Duration = Duration::from_secs(60);

/// Killed, and waited for, when dropped.
struct Sleeper(Child);

impl Sleeper {
    #[expect(clippy::disallowed_methods, reason = "a stray is nobody's child")]
    fn start(environment: &[(&str, &str)], output: Option<&Path>) -> Self {
        let output = output.map_or_else(Stdio::null, |path| File::create(path).unwrap().into());
        let mut command = Command::new("sleep");
        command.arg("1000").env_clear().envs(environment.iter().copied()).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it was reaped as an orphan, most likely
        let _ = self.0.wait();
    }
}

fn up() -> TestHome {
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", DEVNET)]).ok();
    home
}

fn listed(home: &TestHome) -> Vec<String> {
    let items = home.json(&["orphans"])["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|orphan| orphan["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn strays_are_listed_and_reaped_and_nobody_else_is_touched() {
    let home = up();
    let node = home.pid("net/a");
    home.ctl(&["orphans"]).ok().says("no orphans");
    let ours = home.hash();
    let mut marked = Sleeper::start(&[("DVB_HOME_ID", &ours), ("DVB_LAUNCH_ID", "marked")], None);
    // One that has cleared its environment still writes to its launch's log.
    let log = home.home().canonicalize().unwrap().join("devnets/default/net/nodes/a/logs/hidden.log");
    let mut hidden = Sleeper::start(&[], Some(&log));
    let mut foreign = Sleeper::start(&[("DVB_HOME_ID", "another"), ("DVB_LAUNCH_ID", "marked")], None);
    let gone = home.home().join("devnets/default/gone");
    fs::create_dir_all(gone.join("nodes")).unwrap();

    assert_eq!(listed(&home)[..1], [format!("folder/{}", gone.canonicalize().unwrap().display())]);
    assert_eq!(listed(&home)[1..], ["launch/hidden", "launch/marked"]);
    home.ctl(&["orphans"]).ok().prints("(sleep)");
    home.ctl(&["orphans", "--reap"]).exits(2).says("--yes");
    home.ctl(&["orphans", "--reap", "--yes"]).ok().prints("launch/marked is gone").prints("launch/hidden is gone");
    assert!(marked.has_ended() && hidden.has_ended());
    assert!(!foreign.has_ended() && is_alive(node) && gone.exists());
    home.ctl(&["orphans", "--reap", "--data", "--yes"]).ok().prints("folder/");
    assert!(!gone.exists());
    assert_eq!(listed(&home), [""; 0]);
    assert_eq!(home.pid("net/a"), node);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a daemon in a namespace of its own")]
fn a_keeper_that_no_daemon_can_reach_is_listed_and_reaped() {
    let home = TestHome::new();
    let inside = home.command(&["daemon", "start"]);
    let mut started = Command::new("unshare");
    started.args(["--user", "--map-root-user", "--net"]).arg(binary("dvbctl")).args(inside.get_args());
    started.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if !started.output().is_ok_and(|output| output.status.success()) {
        println!("SKIP: this kernel gives users no network namespaces");
        return;
    }
    home.ctl(&["up", &home.file("devnet.yaml", DEVNET)]).ok();
    let lost = home.keeper().unwrap();
    home.kill_daemon();
    // This one's keeper is another: the address of the first is in another namespace.
    home.ctl(&["daemon", "start"]).ok();
    assert_eq!(listed(&home), [format!("keeper/{lost}")]);
    home.ctl(&["orphans", "--reap", "--yes"]).ok();
    home.eventually("it has gone", SOON, |_| !is_alive(lost));
    assert_eq!(listed(&home), [""; 0]);
    home.assert_each_once("net");
}

#[test]
fn daemons_that_are_killed_again_and_again_leave_no_second_keeper_and_none_in_the_end() {
    let rounds = if std::env::var_os("DVB_TEST_FULL").is_some() { 40 } else { 6 };
    let home = up();
    for round in 0..rounds {
        // In all moments of a start: while it adopts, launches, or speaks to the keeper.
        let mut starting = home.command(&["daemon", "start"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(round * 13 % 250));
        home.mains().into_iter().filter(|_| round % 3 == 0).for_each(|pid| send(Pid::from_raw(pid)));
        home.daemons().into_iter().for_each(send);
        starting.wait().unwrap();
        home.daemons().into_iter().for_each(send);
        let _ = home.keeper(); // it checks that there is at most one
    }
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["restart", "net", "--timeout", "60s"]).ok(); // one that was killed so often has used up its restarts
    // What was killed before this daemon came is on record as running until it has looked.
    home.eventually("what was killed runs again", SOON, |home| {
        let recorded = home.pids("net");
        recorded.len() == home.nodes("net").len() && recorded.values().all(|pid| is_alive(*pid))
    });
    home.assert_each_once("net");
    assert_eq!(listed(&home), [""; 0]);
    home.ctl(&["delete", "net", "--yes"]).ok();
    home.ctl(&["daemon", "stop"]).ok();
    home.eventually("nobody is left", SOON, |home| home.processes().is_empty());
    println!("MEASURED: no keeper is left after {rounds} daemons that were killed while they started");
}

/// It may have gone by itself.
fn send(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

/// The store as it is now, with no daemon at work on it.
fn back_up(home: &TestHome) -> PathBuf {
    home.ctl(&["daemon", "stop"]).ok();
    home.eventually("the daemon has gone", SOON, |home| home.daemons().is_empty());
    let backup = home.path().join("backup.db");
    fs::copy(home.home().join("devnetd.db"), &backup).unwrap();
    backup
}

/// The daemon is killed, and its store is as it was.
fn put_back(home: &TestHome, backup: &Path) {
    home.kill_daemon();
    let store = home.home().join("devnetd.db");
    for ending in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", store.display())); // there is not always one
    }
    fs::copy(backup, &store).unwrap();
}

/// The event and the warning by which the daemon's start names a process that the store does not know.
#[track_caller]
fn is_named(home: &TestHome, node: &str, stray: Pid) {
    home.eventually(&format!("{node}'s stray is named"), SOON, |home| {
        // Not those of the node alone: there may be none of that name.
        let events = home.json(&["events"])["items"].as_array().cloned().unwrap_or_default();
        let tells = |event: &serde_json::Value| {
            event["name"] == node && event["message"].as_str().is_some_and(|text| text.contains(&format!("pid {stray} ")))
        };
        events.iter().any(|event| event["reason"] == "StrayProcess" && event["type"] == "Warning" && tells(event))
    });
    let log = fs::read_to_string(home.home().join("logs/devnetd.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(&format!("pid {stray} ")) && line.contains("dvbctl orphans --reap")), "{log}");
}

#[test]
fn a_store_put_back_from_a_backup_while_nodes_run_leaves_a_stray_that_is_named_and_reaped() {
    let home = up();
    let backup = back_up(&home);
    home.ctl(&["restart", "net/a"]).ok();
    let newer = home.pid("net/a");
    put_back(&home, &backup);
    home.ctl(&["wait", "net", "--for=Running", "--timeout", "60s"]).ok();
    home.eventually("the old record's launch is over, and another runs", SOON, |home| home.pids("net").values().all(|pid| is_alive(*pid)));
    assert_eq!(listed(&home).len(), 1, "the launch that the backup does not know");
    is_named(&home, "net/a", newer);
    assert!(is_alive(newer));
    home.ctl(&["orphans", "--reap", "--yes"]).ok();
    home.eventually("the stray has gone", SOON, |_| !is_alive(newer));
    home.assert_each_once("net");
}

#[test]
fn a_chain_that_runs_beside_yesterdays_store_is_started_twice_by_nobody_and_goes_on_after_a_reap() {
    let home = TestHome::new();
    home.up_quickstart("quick", "{backoff: 300ms, maxBackoff: 1s, maxRestarts: 1000}");
    let backup = back_up(&home);
    home.ctl(&["restart", "quick", "--timeout", "60s"]).ok();
    let newer = home.pids("quick");
    put_back(&home, &backup);
    home.ctl(&["daemon", "start"]).ok();
    for name in NODES {
        is_named(&home, &format!("quick/{name}"), newer[name]);
    }
    // Validators by their keys, the full node by its ports: each refusal names who is in the way.
    home.eventually("each start is refused, by pid", SOON, |home| {
        let refused = |(name, node): (&String, &serde_json::Value)| {
            node["status"]["lastExit"]["message"].as_str().is_some_and(|text| text.contains(&format!("pid {} ", newer[name])))
        };
        home.nodes("quick").iter().all(refused)
    });
    let running = newer.values().map(|pid| pid.as_raw()).collect();
    assert_eq!(home.mains(), running, "nobody runs but those");
    assert_eq!(listed(&home).len(), NODES.len());
    home.ctl(&["orphans", "--reap", "--yes"]).ok();
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    assert!(newer.values().all(|pid| !is_alive(*pid)));
    home.all_rise("quick", 1);
    home.assert_each_once("quick");
    home.ctl(&["orphans"]).ok().says("no orphans");
}

#[test]
fn a_devnet_that_is_younger_than_the_store_that_was_put_back_is_found_and_its_yaml_brings_it_up_again() {
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let backup = back_up(&home);
    let file = home.file("devnet.yaml", DEVNET);
    home.ctl(&["up", &file]).ok();
    let node = home.pid("net/a");
    put_back(&home, &backup);
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["get", "devnet", "net"]).exits(3);
    is_named(&home, "net/a", node);
    let found = listed(&home);
    assert!(found.len() == 2 && found[0].starts_with("folder/") && found[1].starts_with("launch/"), "{found:?}");
    home.ctl(&["orphans", "--reap", "--data", "--yes"]).ok();
    assert!(!is_alive(node));
    home.ctl(&["up", &file]).ok();
    home.assert_each_once("net");
    home.ctl(&["orphans"]).ok().says("no orphans");
}
