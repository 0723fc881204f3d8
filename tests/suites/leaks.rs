//! Many devnets come and go: daemon, keeper and machine must be afterwards as they were before.

use e2e::{TestHome, cgroups_of, is_alive};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    time::{Duration, Instant},
};

const BRIEF: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: brief}\nspec:\n  plugin: exec\n  services:\n  \
                     - {name: a, command: [sleep, '1000']}\n  - {name: b, command: [sh, -c, 'echo here; exec sleep 1000'], readiness: {log: here}}\n";
const CHAIN: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: chain}\n\
                     spec: {plugin: commonware, validators: 2, blockTime: 300ms, localhost: false}\n";
const ROUNDS: u32 = 100;
const CHAINS: u32 = 6;
/// On a loaded machine only a fifth of the rounds is sure: what has not begun by then is left out, but not with DVB_TEST_FULL.
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLING: Duration = Duration::from_secs(60);
/// What fills caches and starts what stays: the plugins, threads.
const FIRST: u32 = 3;

#[test]
fn a_hundred_devnets_come_and_go_and_nothing_is_left() {
    println!("{}", come_and_go("brief", BRIEF, ROUNDS));
}

#[test]
fn chains_come_and_go_and_nothing_is_left() {
    println!("{}", come_and_go("chain", CHAIN, CHAINS));
}

/// Nobody is left who would clear them away: the test's own end does.
#[test]
fn a_home_whose_processes_were_all_killed_leaves_no_cgroup_behind() {
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", BRIEF)]).ok();
    let (hash, nodes, keeper) = (home.hash(), home.pids("brief"), home.keeper().unwrap());
    home.kill_daemon();
    for pid in nodes.into_values().chain([keeper]) {
        kill(pid, Signal::SIGKILL).unwrap();
        home.eventually("it has gone", SETTLING, |_| !is_alive(pid));
    }
    if cgroups_of(&hash).is_empty() {
        return println!("SKIP: there are no cgroups here");
    }
    drop(home);
    assert_eq!(cgroups_of(&hash), Vec::<std::path::PathBuf>::new());
}

/// What it took.
#[expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]
fn come_and_go(name: &str, document: &str, rounds: u32) -> String {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", document);
    let round = || {
        home.ctl(&["up", &file]).ok();
        home.ctl(&["delete", name, "--yes"]).ok();
    };
    (0..FIRST).for_each(|_| round());
    let (daemon, keeper) = (home.daemon_pid().unwrap(), home.keeper().unwrap());
    let before = settled(&home, daemon, keeper);
    assert_eq!((before.leases, before.folders), (0, 0), "{before:?}");
    let start = Instant::now();
    let is_full = std::env::var_os("DVB_TEST_FULL").is_some();
    let goes_on = |done: &u32| is_full || *done < rounds / 5 || start.elapsed() < PATIENCE;
    let done = (0..rounds).take_while(goes_on).inspect(|_| round()).count() as u32;
    assert!(done == rounds || !is_full, "{done} of {rounds} rounds");
    let each = start.elapsed() / done;
    // The last descriptors of a launch go after the answer.
    let mut after = footprint(&home, daemon, keeper);
    home.eventually(&format!("it holds what it held before: {before:?}"), SETTLING, |home| {
        after = footprint(home, daemon, keeper);
        println!("{after:?}"); // shown when this fails
        after.of_machine() == before.of_machine() && after.processes <= before.processes
    });
    assert_eq!((home.daemon_pid(), home.keeper()), (Some(daemon), Some(keeper)));
    // Readers of the store come as they are needed, at most four with two descriptors each, and stay.
    assert!(after.descriptors <= before.descriptors + 8 && after.threads <= before.threads + 4, "{after:?}");
    assert!(after.memory_kib < before.memory_kib + 8 * 1024, "{after:?}");
    assert_eq!(after.of_machine(), before.of_machine(), "{after:?}");
    assert!(after.leases == 0 && after.folders == 0 && after.processes <= before.processes, "{before:?}, {after:?}");
    format!("MEASURED: {each:.1?} for `up` and `delete` of {name}, {done} times; before {before:?}, after {after:?}")
}

/// What the home holds of the machine.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
    processes: usize,
    leases: u64,
    folders: usize,
    /// Folders of cgroups, those of its launches and those above.
    cgroups: usize,
    /// Abstract ones that its processes hold: of ports, subnets and keys.
    sockets: usize,
    /// Descriptors of the keeper.
    keeper: usize,
}

impl Footprint {
    /// What must be back to where it was when all devnets are gone.
    fn of_machine(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        (self.leases, self.cgroups, self.sockets, self.keeper, self.folders)
    }
}

/// When what ends by itself has ended: no look of ten in a row sees less than the one before.
fn settled(home: &TestHome, daemon: Pid, keeper: Pid) -> Footprint {
    let (mut last, mut same) = (footprint(home, daemon, keeper), 0);
    home.eventually("no more is given back", SETTLING, |home| {
        let before = std::mem::replace(&mut last, footprint(home, daemon, keeper));
        let is_same = (last.descriptors, last.processes, last.of_machine()) == (before.descriptors, before.processes, before.of_machine());
        same = if is_same { same + 1 } else { 0 };
        same == 10
    });
    last
}

fn footprint(home: &TestHome, daemon: Pid, keeper: Pid) -> Footprint {
    let entries = |path: String| fs::read_dir(path).map(Iterator::count).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    Footprint {
        descriptors: entries(format!("/proc/{daemon}/fd")),
        threads: entries(format!("/proc/{daemon}/task")),
        memory_kib: memory.unwrap(),
        processes: home.processes().len(),
        leases: home.rows("leases"),
        folders: entries(home.home().join("devnets/default").display().to_string()),
        cgroups: home.cgroups(),
        sockets: home.abstract_sockets(),
        keeper: entries(format!("/proc/{keeper}/fd")),
    }
}
