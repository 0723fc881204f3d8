//! Many devnets come and go: the daemon must be afterwards as it was before.

use e2e::TestHome;
use nix::unistd::Pid;
use std::{fs, time::Instant};

const DEVNET: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: brief}\nspec:\n  plugin: exec\n  services:\n  \
                      - {name: a, command: [sleep, '1000']}\n  - {name: b, command: [sh, -c, 'echo here; exec sleep 1000'], readiness: {log: here}}\n";

#[test]
fn a_hundred_devnets_come_and_go_and_nothing_is_left() {
    let rounds = if std::env::var_os("DVB_TEST_FULL").is_some() { 100 } else { 20 };
    let home = TestHome::new();
    let file = home.file("brief.yaml", DEVNET);
    let round = || {
        home.ctl(&["up", &file]).ok();
        home.ctl(&["delete", "brief", "--yes"]).ok();
    };
    // The first ones fill caches and start what stays: the plugin, threads.
    (0..5).for_each(|_| round());
    let daemon = home.daemon_pid().unwrap();
    let before = footprint(&home, daemon);
    let start = Instant::now();
    (0..rounds).for_each(|_| round());
    let each = start.elapsed() / rounds;
    let after = footprint(&home, daemon);
    println!("MEASURED: {each:.1?} for `up` and `delete` of a devnet of two commands, {rounds} times; before {before:?}, after {after:?}");
    assert_eq!(home.daemon_pid(), Some(daemon));
    // Readers of the store come as they are needed, at most four with two descriptors each, and stay.
    assert!(after.descriptors <= before.descriptors + 8 && after.threads <= before.threads + 4, "{after:?}");
    assert!(after.processes <= before.processes && after.leases == 0 && after.folders == before.folders, "{after:?}");
    assert!(after.memory_kib < before.memory_kib + 8 * 1024, "{after:?}");
}

/// What a daemon holds of the machine.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
    processes: usize,
    leases: u64,
    folders: usize,
}

fn footprint(home: &TestHome, daemon: Pid) -> Footprint {
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
    }
}
