//! The daemon comes and goes; the nodes do not notice.

use e2e::{NODES, TestHome, is_alive};
use nix::sys::signal::{Signal, kill};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

const QUICK: &str = "{backoff: 300ms}";

#[test]
fn a_home_whose_name_was_misspelt_is_told_and_not_made() {
    let home = TestHome::new();
    let named = home.home().display().to_string();
    let verbs: [&[&str]; 9] = [
        &["get", "devnets"],
        &["describe", "net"],
        &["logs", "net"],
        &["why", "net"],
        &["wait", "net", "--for=Running"],
        &["delete", "net", "--yes"],
        &["tx", "list", "net"],
        &["binaries"],
        &["daemon", "restart"],
    ];
    for verb in verbs {
        home.ctl(verb).exits(3).says(&format!("there is no home {named}")).says("dvbctl up, apply or daemon start makes a new home");
        assert!(!home.home().exists() && home.processes().is_empty(), "{verb:?}");
    }
    let services =
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec: {plugin: exec, services: [{name: a, command: [sleep, '1000']}]}\n";
    home.ctl(&["apply", "-f", &home.file("devnet.yaml", services)]).ok();
    assert!(home.daemon_pid().is_some());
}

#[test]
fn a_home_that_was_moved_or_copied_is_refused_with_the_way_back() {
    let home = TestHome::new();
    let services =
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec: {plugin: exec, services: [{name: a, command: [sleep, '1000']}]}\n";
    home.ctl(&["up", &home.file("devnet.yaml", services)]).ok();
    home.ctl(&["daemon", "stop", "--with-nodes"]).ok();
    let (was, is) = (home.home(), home.path().join("moved"));
    fs::rename(was, &is).unwrap();
    let elsewhere = is.to_str().unwrap();
    let refused = |mend: &str| {
        let told = home.ctl(&["--home", elsewhere, "daemon", "start"]).exits(5);
        told.says(&format!("the home {elsewhere} was {} when its devnets were made", was.display())).says(mend);
    };
    let back = format!("mv {elsewhere} {}", was.display());
    refused(&format!("mend: {back}"));
    fs::create_dir(was).unwrap();
    refused(&format!("mend: dvbctl --home {}; a copy can only take its place: move that away, then {back}", was.display()));
    fs::remove_dir(was).unwrap();
    fs::rename(&is, was).unwrap();
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["wait", "net", "--for=Running", "--timeout", "60s"]).ok();
}

#[test]
fn the_daemon_starts_on_demand_and_status_tells_whether_it_runs() {
    let home = TestHome::new();
    home.ctl(&["daemon", "status"]).exits(5).says("does not run").says("dvbctl daemon start");
    fs::create_dir(home.home()).unwrap();
    assert_eq!(home.json(&["get", "devnets"])["items"].as_array().map(Vec::len), Some(0));
    let pid = home.daemon_pid().expect("get has started it");
    home.ctl(&["daemon", "start"]).ok().prints("runs already");
    assert_eq!(home.daemon_pid(), Some(pid));
    home.ctl(&["daemon", "stop"]).ok();
    home.ctl(&["daemon", "status"]).exits(5);
    home.eventually("the daemon has gone", Duration::from_secs(60), |_| !is_alive(pid));
}

#[test]
fn daemon_stop_leaves_nodes_running_and_the_next_dvbctl_takes_them_up_again() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let (daemon, before) = (home.daemon_pid().unwrap(), home.pids("quick"));
    home.ctl(&["daemon", "stop"]).ok();
    home.eventually("the daemon has gone", Duration::from_secs(60), |_| !is_alive(daemon));
    for (name, pid) in &before {
        assert!(is_alive(*pid), "{name} runs without a daemon");
    }
    assert_eq!(home.pids("quick"), before, "adopted with the same pids");
    assert_ne!(home.daemon_pid(), Some(daemon));
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("quick", 1);
    assert!(home.nodes("quick").values().all(|node| node["status"]["restartCount"] == 0));
}

#[test]
fn nodes_outlive_a_killed_daemon_and_one_that_died_meanwhile_is_restarted_by_the_next() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let (daemon, before) = (home.daemon_pid().unwrap(), home.pids("quick"));
    kill(daemon, Signal::SIGKILL).unwrap();
    home.eventually("the daemon has gone", Duration::from_secs(60), |_| !is_alive(daemon));
    for (name, pid) in &before {
        assert!(is_alive(*pid), "{name} outlives the daemon");
    }
    kill(before["validator-1"], Signal::SIGKILL).unwrap();
    home.eventually("validator-1 is dead", Duration::from_secs(60), |_| !is_alive(before["validator-1"]));
    home.ctl(&["daemon", "start"]).ok();
    home.eventually("validator-1 runs again", Duration::from_secs(60), |home| {
        let pids = home.pids("quick");
        pids.get("validator-1").is_some_and(|pid| *pid != before["validator-1"])
    });
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("quick", 1);
    let after = home.pids("quick");
    for name in NODES.into_iter().filter(|name| *name != "validator-1") {
        assert_eq!(after[name], before[name], "{name} is the same process");
    }
}

#[test]
fn the_nodes_that_daemon_stop_with_nodes_stopped_are_started_by_the_next_daemon() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    let before = home.pids("quick");
    home.ctl(&["daemon", "stop", "--with-nodes"]).ok();
    for (name, pid) in &before {
        assert!(!is_alive(*pid), "{name} is stopped");
    }
    home.ctl(&["wait", "quick", "--for=Running", "--timeout", "60s"]).ok();
    home.all_rise("quick", 1);
}

#[test]
fn two_homes_and_three_devnets_run_side_by_side_without_a_clash() {
    let (one, other) = (TestHome::new(), TestHome::new());
    let start = Instant::now();
    for (home, name) in [(&one, "first"), (&one, "second"), (&other, "first")] {
        home.up_quickstart(name, QUICK);
    }
    println!("MEASURED: three devnets up in {:?}", start.elapsed());
    assert_ne!(one.daemon_pid(), other.daemon_pid());
    let mut addresses = BTreeSet::new();
    for (home, name) in [(&one, "first"), (&one, "second"), (&other, "first")] {
        home.all_rise(name, 1);
        for (short, node) in home.nodes(name) {
            assert_eq!(node["status"]["phase"], "Running", "{name}/{short}");
            assert_eq!(node["status"]["restartCount"], 0, "{name}/{short}");
            assert!(addresses.insert(node["spec"]["address"].as_str().unwrap().to_owned()), "{} is taken twice", node["spec"]["address"]);
        }
    }
    assert_eq!(addresses.len(), 3 * NODES.len());
    one.ctl(&["delete", "first", "--yes"]).ok();
    one.all_rise("second", 1);
    other.all_rise("first", 1);
}
