//! The crash matrix: the daemon is killed at each failpoint, and the next one must bring everything to its end.

mod matrix;

use crate::tx::{Devchain, Ledger};
use e2e::{Output, TestHome, binary, is_alive, is_daemon, keys_held, run_cases};
use matrix::{Cgroups, Deed, MATRIX, WITHOUT_CGROUPS};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

const DEVNET: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec:
  plugin: exec
  restart: {backoff: 100ms}
  services:
    - {name: a, command: [sh, -c, 'seq 1 40000; exec sleep 1000'], restart: {policy: always}}
    - {name: b, command: [sleep, '1000'], ports: {web: 18437}, park: [web], restart: {policy: always}}
";
/// What a service of the devnet writes to its log: several segments, and the rest in the live file.
const LINES: u32 = 40_000;
const ONE_SERVICE_LESS: &str = "    - {name: b, ";
const CHAIN: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec: {plugin: commonware, validators: 2, blockTime: 300ms, localhost: false, restart: {backoff: 100ms}}
";
const NEVER_READY: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: exec\n  services:\n    \
                           - {name: a, command: [sleep, '1000'], readiness: {log: never}}\n";
const SETTINGS: &str = "[logs]\nrotate = \"64Ki\"\n";
const PAY: [&str; 13] =
    ["tx", "submit", "net", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "7", "--request-id", "rent"];

/// Homes at a time: a case mostly waits.
const AT_ONCE: usize = 10;
const SOON: Duration = Duration::from_secs(60);
/// For all of them; some two minutes on a quiet machine with two cores.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Before a chain's first node, its binary is asked for its version: that is forked too.
const CHAIN_JOBS: usize = 1;

#[test]
fn whatever_step_a_daemon_dies_at_the_next_one_brings_all_to_its_end() {
    let start = Instant::now();
    let only = std::env::var("DVB_TEST_CRASH").ok(); // to look at one point
    let all = MATRIX.iter().map(|row| (row, Cgroups::AsTheyAre)).chain(WITHOUT_CGROUPS.iter().map(|row| (row, Cgroups::None)));
    let named = all.map(|((point, deed), cgroups)| (format!("{point} at {deed:?}{}", cgroups.suffix()), (*point, *deed, cgroups)));
    let cases: Vec<_> = named.filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only))).collect();
    let (points, count): (BTreeSet<_>, _) = (cases.iter().map(|(_, (point, ..))| name(point)).collect(), cases.len());
    let failed = run_cases(cases, AT_ONCE, LIMIT, |(point, deed, cgroups)| crash_at(point, *deed, *cgroups));
    println!("MEASURED: crash matrix: {} points, {count} runs, within {:.0?}", points.len(), start.elapsed());
    assert!(failed.is_empty(), "{} of {count} broke:\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn a_case_that_hangs_is_named_when_the_time_is_up_and_what_it_waits_for_is_ended() {
    let cases = ["ends", "hangs", "breaks"].map(|name| (name.to_owned(), name)).to_vec();
    let failed = run_cases(cases, 1, Duration::from_secs(5), |name| match *name {
        "hangs" => {
            let home = TestHome::new();
            drop(home.ctl(&["up", &home.file("devnet.yaml", NEVER_READY)]).ok());
        }
        "breaks" => panic!("it begins though the time is up"),
        _ => {}
    });
    assert_eq!(failed.len(), 2, "{failed:#?}");
    assert!(failed[0].contains("1 cases not begun; under way: hangs for"), "{failed:#?}");
    assert!(failed[1].starts_with("hangs: "), "what its `up` said when its daemon was killed: {failed:#?}");
}

#[test]
fn every_failpoint_in_the_source_is_in_the_matrix() {
    let mut found = BTreeSet::new();
    collect_points(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/src"), &mut found);
    let known: BTreeSet<_> = MATRIX.iter().map(|(point, _)| name(point).to_owned()).collect();
    assert_eq!(found, known);
}

fn crash_at(point: &'static str, deed: Deed, cgroups: Cgroups) {
    let home = TestHome::new();
    let home = if cgroups == Cgroups::None { home.with_env("DVB_NO_CGROUPS", "1") } else { home };
    fs::create_dir(home.home()).unwrap();
    fs::write(home.home().join("config.toml"), SETTINGS).unwrap();
    let file = home.file("devnet.yaml", if is_chain(deed) { CHAIN } else { DEVNET });
    if matches!(deed, Deed::KillAdopted | Deed::StopAdopted) {
        home.ctl(&["up", &file]).ok();
        home.ctl(&["daemon", "stop"]).ok();
    }
    let daemon = start_armed(&home, first_point(point, deed));
    if !matches!(deed, Deed::Up | Deed::UpChain | Deed::Recover | Deed::KillAdopted | Deed::StopAdopted) {
        home.ctl(&["up", &file]).ok();
    }
    let accepted = act(&home, deed, &file);
    home.eventually(&format!("it comes by {point}"), SOON, |_| has_ended(daemon));
    let mut survivors = survivors(&home, point, deed);
    if deed == Deed::Recover {
        let _ = start_command(&home, point).output().unwrap(); // it may die before it says that it is ready
        home.eventually(&format!("it comes by {point}"), SOON, |home| home.processes().iter().all(|(_, command)| !is_daemon(command)));
        survivors.extend(home.launches());
    }
    home.ctl(&["daemon", "start"]).ok();
    if !accepted {
        // Nobody was told that it would be done: it may be or not, and asking again must do it.
        let _ = act_again(&home, deed, &file);
    }
    assert_brought_to_its_end(&home, deed, &file, &survivors);
    assert_leaves_nothing(&home);
}

fn is_chain(deed: Deed) -> bool {
    matches!(deed, Deed::UpChain | Deed::KillChain | Deed::DeleteChain | Deed::Export | Deed::Upgrade | Deed::UpgradeBack | Deed::Pay)
}

/// The processes that its death leaves, by launch id; validators hold their keys without it.
fn survivors(home: &TestHome, point: &str, deed: Deed) -> BTreeMap<String, Pid> {
    let least = forked(point, deed);
    home.eventually(&format!("{least} were forked"), SOON, |home| home.launches().len() >= least);
    let survivors = home.launches();
    if matches!(deed, Deed::UpChain | Deed::KillChain) {
        // One that is forked and has not yet executed its program has all that the daemon had.
        home.eventually("each that runs has a key, and nobody else has it", SOON, |_| {
            let held = keys_held();
            let of = |pid: &Pid| held.values().filter(|holders| **holders == BTreeSet::from([pid.as_raw()])).count();
            survivors.values().all(|pid| of(pid) == 1)
        });
    }
    survivors
}

/// How many nodes have a process at least when the daemon dies there.
fn forked(point: &str, deed: Deed) -> usize {
    let (name, pass) = point.split_once('@').map_or((point, 1), |(name, pass)| (name, pass.parse().unwrap()));
    let passed = match name {
        "launch/forked" if is_chain(deed) => pass - CHAIN_JOBS,
        "launch/forked" | "launch/kept" | "launch/started" | "launch/recorded" => pass,
        _ => 0,
    };
    match deed {
        Deed::Up | Deed::UpChain => passed,
        Deed::Kill | Deed::KillChain if passed > 0 => passed - 1, // the one that was killed
        Deed::Recover => usize::from(point == "recover/found"),
        Deed::Freeze | Deed::Thaw | Deed::Export | Deed::Pay => 2, // both run before and through it
        _ => 0,
    }
}

/// What the first of two daemons dies at.
fn first_point(point: &'static str, deed: Deed) -> &'static str {
    match (deed, point) {
        (Deed::Recover, "recover/found") => "launch/forked",
        (Deed::Recover, _) => "launch/intended",
        _ => point,
    }
}

/// Starts the daemon with this failpoint in its environment.
fn start_armed(home: &TestHome, point: &str) -> Pid {
    let started = start_command(home, point).output().unwrap();
    let at_once = point.starts_with("store/"); // the store is written to before the daemon is ready
    assert!(started.status.success() || at_once, "{}", String::from_utf8_lossy(&started.stderr));
    // Not by a call of dvbctl's: a daemon that has died by now would be started again.
    let running: Vec<_> = home.processes().into_iter().filter(|(_, command)| is_daemon(command)).collect();
    assert!(running.len() <= 1, "{running:?}");
    running.first().map_or(Pid::from_raw(i32::MAX), |(pid, _)| *pid)
}

fn start_command(home: &TestHome, point: &str) -> std::process::Command {
    let mut command = home.command(&["daemon", "start"]);
    command.env("FAILPOINTS", point);
    command
}

/// Whether the daemon said that it would be done.
fn act(home: &TestHome, deed: Deed, file: &str) -> bool {
    match deed {
        Deed::Kill | Deed::KillAdopted | Deed::KillChain => {
            kill(home.pid(victim(deed)), Signal::SIGKILL).unwrap();
            true
        }
        _ => act_again(home, deed, file).code == 0,
    }
}

/// Who is killed.
fn victim(deed: Deed) -> &'static str {
    if deed == Deed::KillChain { "net/validator-1" } else { "net/b" }
}

fn act_again(home: &TestHome, deed: Deed, file: &str) -> Output {
    match deed {
        Deed::Up | Deed::UpChain | Deed::Recover => home.ctl(&["up", file, "--no-wait"]),
        Deed::Kill | Deed::KillAdopted | Deed::KillChain => unreachable!("a kill is always done"),
        Deed::Stop | Deed::StopAdopted => home.ctl(&["stop", "net", "--no-wait"]),
        Deed::Restart => home.ctl(&["restart", "net", "--no-wait"]),
        Deed::Freeze => home.ctl(&["freeze", "net", "--no-wait"]),
        Deed::Thaw => {
            home.ctl(&["freeze", "net", "--timeout", "120s"]).ok();
            home.ctl(&["thaw", "net", "--no-wait"])
        }
        Deed::Reset => home.ctl(&["reset", "net", "--yes", "--no-wait"]),
        Deed::Delete | Deed::DeleteChain => home.ctl(&["delete", "net", "--yes", "--no-wait"]),
        Deed::Upgrade | Deed::UpgradeBack => {
            let good = binary("devchain-v2").display().to_string();
            let program =
                if deed == Deed::Upgrade { good } else { home.program("broken", &format!("[ \"$1\" != run ] || exit 2\nexec {good} \"$@\"")) };
            home.ctl(&["upgrade", "create", "net", "--name", "v2", "--binary", &program, "--skip-vote"])
        }
        Deed::Export => home.ctl(&["export", "create", "net", "kept"]),
        Deed::Pay => home.ctl(&PAY),
        Deed::Shrink => {
            let less: Vec<_> = DEVNET.lines().filter(|line| !line.starts_with(ONE_SERVICE_LESS)).collect();
            home.ctl(&["up", &home.file("less.yaml", &less.join("\n")), "--no-wait"])
        }
    }
}

fn assert_brought_to_its_end(home: &TestHome, deed: Deed, file: &str, survivors: &BTreeMap<String, Pid>) {
    match deed {
        Deed::Delete | Deed::DeleteChain => {
            home.eventually("it is gone", SOON, |home| home.ctl(&["get", "devnet", "net"]).code == 3);
            return;
        }
        Deed::Stop | Deed::StopAdopted => {
            home.eventually("it is stopped", SOON, |home| home.devnet("net")["status"]["phase"] == "Stopped");
            assert_eq!(home.pids("net").len(), 0);
            home.assert_each_once("net");
            assert_cgroups(home);
            home.ctl(&["start", "net", "--timeout", "120s"]).ok();
        }
        Deed::Kill | Deed::KillAdopted | Deed::KillChain => {
            home.eventually("it is restarted", SOON, |home| {
                let status = &home.node(victim(deed))["status"];
                status["phase"] == "Running" && status["restartCount"] == 1
            });
        }
        Deed::Freeze => {
            home.ctl(&["wait", "net", "--for=condition=Frozen", "--timeout", "120s"]).ok();
            home.assert_each_once("net");
            home.ctl(&["thaw", "net", "--timeout", "120s"]).ok();
        }
        Deed::Thaw => drop(home.ctl(&["thaw", "net", "--timeout", "120s"]).ok()),
        Deed::Shrink => {
            home.eventually("b has left", SOON, |home| home.nodes("net").len() == 1);
            assert!(!home.home().join("devnets/default/net/nodes/b").exists());
            home.assert_each_once("net");
            assert_untouched(home, deed, survivors, 1);
            home.ctl(&["up", file, "--timeout", "120s"]).ok();
        }
        Deed::Upgrade | Deed::UpgradeBack => {
            let end = if deed == Deed::Upgrade { "Completed" } else { "RolledBack" };
            home.eventually(&format!("it is {end}"), SOON * 2, |home| home.json(&["get", "upgrade", "net/v2"])["status"]["phase"] == end);
            let saved = home.home().join("devnets/default/net/upgrades/v2");
            home.eventually("the saved homes are gone", SOON, |_| fs::read_dir(&saved).map_or(0, Iterator::count) == 0);
        }
        Deed::Export => {
            home.eventually("it is Completed", SOON, |home| home.json(&["get", "export", "net/kept"])["status"]["phase"] == "Completed");
            let folder = home.home().join("devnets/default/net/exports/kept");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing but the state is left");
        }
        Deed::Pay => assert_paid_once(home),
        Deed::Up | Deed::UpChain | Deed::Restart | Deed::Reset | Deed::Recover => {}
    }
    home.ctl(&["wait", "net", "--for=Running", "--timeout", "120s"]).ok();
    home.eventually("both run", SOON, |home| home.pids("net").len() == 2 && home.devnet("net")["status"]["phase"] == "Running");
    home.assert_each_once("net");
    match deed {
        Deed::Stop | Deed::StopAdopted | Deed::Restart | Deed::Reset | Deed::Upgrade | Deed::UpgradeBack => {} // stopped meanwhile, as was asked for
        Deed::Shrink => {}                                                                                     // see above
        _ => assert_untouched(home, deed, survivors, survivors.len()),
    }
    if is_chain(deed) {
        home.assert_keys_held_once("net");
    }
    assert_cgroups(home);
    assert_logs(home);
    assert!(!home.home().join("devnets/default/net/staging").exists());
    match deed {
        Deed::UpChain | Deed::KillChain | Deed::Export | Deed::Upgrade | Deed::UpgradeBack | Deed::Pay => home.all_rise("net", 1),
        _ => assert_log_is_whole(home),
    }
}

/// By the chain's own books; `account:2` has what each began with.
fn assert_paid_once(home: &TestHome) {
    home.ctl(&["tx", "status", "net/rent", "--wait", "--timeout", "120s"]).ok().prints("Confirmed");
    home.all_rise("net", 1); // a second one would be in a block by now
    let account = |name| Devchain.account(home, "net", name);
    assert_eq!((account("account:0").1, account("account:1").0), (1, account("account:2").0 + 7));
}

/// At least so many of those that outlived the daemon run on in the same launch and process, and none but who was killed was restarted.
fn assert_untouched(home: &TestHome, deed: Deed, survivors: &BTreeMap<String, Pid>, least: usize) {
    let nodes = home.nodes("net");
    let runs =
        |(id, pid): &(&String, &Pid)| nodes.values().any(|node| node["status"]["launchId"] == id.as_str() && node["status"]["pid"] == pid.as_raw());
    let untouched = survivors.iter().filter(runs).count();
    assert!(untouched >= least, "{untouched} of {survivors:?} run on; at the end: {:?}", home.launches());
    let killed = matches!(deed, Deed::Kill | Deed::KillAdopted | Deed::KillChain).then(|| victim(deed));
    for node in nodes.values() {
        let restarts = usize::from(killed == node["metadata"]["name"].as_str());
        assert_eq!(node["status"]["restartCount"], restarts, "{}", node["metadata"]["name"]);
    }
}

/// Every line that the service wrote is read once and in order.
fn assert_log_is_whole(home: &TestHome) {
    let numbers = |text: &str| -> Vec<u32> { text.lines().filter_map(|line| line.rsplit(' ').next()?.trim().parse().ok()).collect() };
    let tail = (LINES + 10).to_string();
    let mut read = Vec::new();
    home.eventually("all lines are there", SOON, |home| {
        read = numbers(&home.ctl(&["logs", "net/a", "--tail", &tail]).ok().stdout);
        read.last() == Some(&LINES)
    });
    let whole: Vec<u32> = (1..=LINES).collect();
    assert!(read.ends_with(&whole), "{} lines, from {:?}", read.len(), read.first());
}

/// Where there are cgroups: each is of a launch that runs.
fn assert_cgroups(home: &TestHome) {
    let launches: BTreeSet<_> =
        home.nodes("net").values().filter(|node| node["status"]["pid"].is_number()).map(|node| node["status"]["launchId"].to_string()).collect();
    let leaves: BTreeSet<_> = home.leaves().into_iter().map(|id| format!("\"{id}\"")).collect();
    assert!(leaves.is_subset(&launches), "{leaves:?} are there, {launches:?} run");
}

/// Each is of a launch on record: none is left of one that was cut off before its row was there.
fn assert_logs(home: &TestHome) {
    let logs = |home: &TestHome| -> BTreeSet<String> {
        let folders = ["a", "b", "validator-0", "validator-1"].map(|node| home.home().join("devnets/default/net/nodes").join(node).join("logs"));
        let entries = folders.into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(str::to_owned)).collect()
    };
    home.eventually("each log is of a launch on record", SOON, |home| logs(home).is_subset(&home.recorded_launches()));
}

fn assert_leaves_nothing(home: &TestHome) {
    let _ = home.ctl(&["delete", "net", "--yes", "--timeout", "120s"]);
    home.ctl(&["get", "devnet", "net"]).exits(3);
    assert_eq!(home.mains(), BTreeSet::new(), "no node is left");
    assert_eq!(home.leaves(), BTreeSet::new(), "no cgroup is left");
    assert_eq!(home.rows("leases"), 0, "no lease is left");
    assert!(!home.home().join("devnets/default/net").exists(), "no folder is left");
}

/// Also its other threads, which may hold on to the socket a little longer than the first.
fn has_ended(pid: Pid) -> bool {
    !is_alive(pid) && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

fn name(point: &str) -> &str {
    point.split('@').next().unwrap_or(point)
}

fn collect_points(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            collect_points(&entry.path(), found);
        } else {
            let text = fs::read_to_string(entry.path()).unwrap();
            let calls = text.split("failpoint(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(calls.map(str::to_owned));
        }
    }
}
