//! A random run of bounded length: nodes and daemons are killed in the middle of stops, starts and restarts, and all ends as asked for.
//!
//! The seed is printed; `DVB_TEST_SEED=N` does the same steps again. `DVB_TEST_FULL` makes the run ten times as long.

use crate::adoption::{assert_each_once, running};
use e2e::TestHome;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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
    - {name: b, command: [sleep, '1000'], restart: {policy: always}}
";
const NODES: [&str; 2] = ["net/a", "net/b"];
const LENGTH: Duration = Duration::from_secs(20);

#[test]
fn whatever_is_killed_in_a_random_run_all_ends_as_it_was_asked_for() {
    let seed = std::env::var("DVB_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh_seed);
    println!("DVB_TEST_SEED={seed}");
    let length = if std::env::var_os("DVB_TEST_FULL").is_some() { LENGTH * 10 } else { LENGTH };
    let home = TestHome::new();
    let file = home.file("devnet.yaml", DEVNET);
    home.ctl(&["up", &file]).ok();
    let (start, mut random, mut steps) = (Instant::now(), Random(seed | 1), 0);
    while start.elapsed() < length {
        step(&home, &mut random);
        steps += 1;
    }
    bring_to_its_end(&home);
    println!("MEASURED: {steps} random steps within {length:.0?}, seed {seed}");
}

/// A call may fail, as its daemon may be dying: what counts is how it all ends.
fn step(home: &TestHome, random: &mut Random) {
    let node = NODES[random.below(NODES.len())];
    match random.below(8) {
        0 | 1 => {
            let mains: Vec<_> = running(home).into_iter().collect();
            if !mains.is_empty() {
                let _ = kill(Pid::from_raw(mains[random.below(mains.len())]), Signal::SIGKILL); // it may have died by now
            }
        }
        2 | 3 => {
            // Not by asking it, which would start one.
            let daemons = home.processes().into_iter().filter(|(_, command)| command.contains("devnetd") && command.contains("--home"));
            for (pid, _) in daemons {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        4 => drop(home.ctl(&["stop", node, "--no-wait"])),
        5 => drop(home.ctl(&["start", node, "--no-wait"])),
        6 => drop(home.ctl(&["restart", node, "--no-wait"])),
        _ => thread::sleep(Duration::from_millis(random.below(400) as u64)),
    }
}

fn bring_to_its_end(home: &TestHome) {
    let within = Duration::from_secs(30);
    home.eventually("a daemon runs", within, |home| home.ctl(&["daemon", "start"]).code == 0);
    home.ctl(&["stop", "net", "--timeout", "30s"]).ok();
    home.eventually("all are stopped", within, |home| running(home).is_empty());
    for node in NODES {
        home.ctl(&["start", node, "--no-wait"]).ok();
    }
    home.ctl(&["start", "net", "--timeout", "30s"]).ok();
    home.eventually("both run", within, |home| home.pids("net").len() == NODES.len() && home.devnet("net")["status"]["phase"] == "Running");
    assert_each_once(home);
    home.ctl(&["delete", "net", "--yes", "--timeout", "30s"]).ok();
    assert_eq!(running(home), BTreeSet::new());
    assert_eq!(home.rows("leases"), 0);
}

fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64)
}

/// Xorshift: the same steps for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}
