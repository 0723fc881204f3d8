//! A random run of bounded length: nodes, daemon and keeper are killed or stand still, the disk fills up, descriptors run out, in the middle
//! of stops, starts and restarts; and all ends as asked for.
//!
//! The seed is printed; `DVB_TEST_SEED=N` does the same steps again. `DVB_TEST_FULL` makes the run ten times as long, `DVB_TEST_MINUTES=N`
//! as long as one likes; `DVB_TEST_PACE=MS` pauses between steps, for a long run beside other work.

use e2e::{TestHome, limit_descriptors};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
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
    - {name: b, command: [sh, -c, 'seq 1 2000; exec sleep 1000'], restart: {policy: always}}
";
const NODES: [&str; 2] = ["net/a", "net/b"];
const LENGTH: Duration = Duration::from_secs(20);
/// Room for what a store grows to in hours (25,000 events are 13 MB, 2,500 changes 5, its journal 5) and some logs; little enough to be
/// filled in a moment.
const DISK: &str = "40m";
/// How long one fault lasts at most.
const FAULT_MS: usize = 1500;
/// So often all must end as asked for, besides at the end.
const CHECK_EVERY: Duration = Duration::from_secs(120);

#[test]
fn whatever_is_killed_in_a_random_run_all_ends_as_it_was_asked_for() {
    let seed = variable("DVB_TEST_SEED").unwrap_or_else(fresh_seed);
    println!("DVB_TEST_SEED={seed}");
    let home = TestHome::on_small_disk(DISK).unwrap_or_else(|| {
        println!("SKIP of full disks: this kernel gives users no namespaces");
        TestHome::new()
    });
    let file = home.file("devnet.yaml", DEVNET);
    home.ctl(&["up", &file]).ok();
    let mut run = Run { home, file, random: Random(seed | 1), done: BTreeMap::new() };
    let (start, length, pace) = (Instant::now(), length(), Duration::from_millis(variable("DVB_TEST_PACE").unwrap_or_default()));
    let mut next_check = CHECK_EVERY;
    while start.elapsed() < length {
        run.step();
        thread::sleep(pace);
        if start.elapsed() > next_check {
            run.bring_to_its_end();
            run.home.ctl(&["up", &run.file]).ok();
            next_check += CHECK_EVERY;
        }
    }
    run.bring_to_its_end();
    let steps: usize = run.done.values().sum();
    println!("MEASURED: {steps} random steps within {length:.0?}, seed {seed}: {:?}", run.done);
}

struct Run {
    home: TestHome,
    file: String,
    random: Random,
    done: BTreeMap<&'static str, usize>,
}

impl Run {
    /// A call may fail, as its daemon may be dying: what counts is how it all ends.
    fn step(&mut self) {
        let what = match self.random.below(16) {
            0..=2 => self.kill_a_node(),
            3 | 4 => self.kill_the_daemon(),
            5 => self.kill_the_keeper(),
            6 => self.without_disk(),
            7 => self.without_descriptors(),
            8 => self.stand_still(),
            9 => {
                self.pause(400);
                "pause"
            }
            _ => self.ask(),
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn ask(&mut self) -> &'static str {
        let node = NODES[self.random.below(NODES.len())];
        let verb = ["stop", "start", "restart"][self.random.below(3)];
        drop(self.home.ctl(&[verb, node, "--no-wait"]));
        verb
    }

    fn kill_a_node(&mut self) -> &'static str {
        let mains: Vec<_> = self.home.mains().into_iter().collect();
        if !mains.is_empty() {
            send(Pid::from_raw(mains[self.random.below(mains.len())]), Signal::SIGKILL);
        }
        "kill node"
    }

    fn kill_the_daemon(&self) -> &'static str {
        self.home.daemons().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        "kill daemon"
    }

    fn kill_the_keeper(&self) -> &'static str {
        self.home.keeper().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        "kill keeper"
    }

    fn without_disk(&mut self) -> &'static str {
        if !self.home.has_small_disk() {
            return "no small disk";
        }
        self.home.fill_disk(0);
        self.something_meanwhile();
        self.home.clear_disk();
        "full disk"
    }

    fn without_descriptors(&mut self) -> &'static str {
        let daemons = self.home.daemons();
        let more = self.random.below(4) as u64;
        for pid in &daemons {
            limit_descriptors(*pid, Some(more));
        }
        self.something_meanwhile();
        for pid in &daemons {
            limit_descriptors(*pid, None);
        }
        "no descriptors"
    }

    /// As after a laptop's sleep, or under a debugger.
    fn stand_still(&mut self) -> &'static str {
        let processes: Vec<_> = self.home.processes().into_iter().map(|(pid, _)| pid).collect();
        if processes.is_empty() {
            return "nobody to stand still";
        }
        let pid = processes[self.random.below(processes.len())];
        send(pid, Signal::SIGSTOP);
        self.pause(FAULT_MS);
        send(pid, Signal::SIGCONT);
        "stand still"
    }

    fn something_meanwhile(&mut self) {
        if self.random.below(2) == 0 {
            self.kill_a_node();
        } else {
            self.ask();
        }
        self.pause(FAULT_MS);
    }

    fn pause(&mut self, at_most_ms: usize) {
        thread::sleep(Duration::from_millis(self.random.below(at_most_ms) as u64));
    }

    fn bring_to_its_end(&self) {
        let home = &self.home;
        let within = Duration::from_secs(30);
        home.eventually("a daemon runs", within, |home| home.ctl(&["daemon", "start"]).code == 0);
        home.ctl(&["stop", "net", "--timeout", "30s"]).ok();
        home.eventually("all are stopped", within, |home| home.mains().is_empty());
        for node in NODES {
            home.ctl(&["start", node, "--no-wait"]).ok();
        }
        home.ctl(&["start", "net", "--timeout", "30s"]).ok();
        home.eventually("both run", within, |home| home.pids("net").len() == NODES.len() && home.devnet("net")["status"]["phase"] == "Running");
        home.assert_each_once("net");
        home.ctl(&["delete", "net", "--yes", "--timeout", "30s"]).ok();
        assert_eq!(home.mains(), BTreeSet::new());
        assert_eq!(home.leaves(), BTreeSet::new());
        assert_eq!(home.rows("leases"), 0);
    }
}

/// It may have died by now.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

fn length() -> Duration {
    let minutes = variable("DVB_TEST_MINUTES").map(|minutes: u64| Duration::from_secs(60 * minutes));
    minutes.unwrap_or(if std::env::var_os("DVB_TEST_FULL").is_some() { LENGTH * 10 } else { LENGTH })
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
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
