//! A random run of bounded length over a chain of two validators and two commands: nodes, daemon and keeper are killed or stand still, the
//! disk fills up, descriptors run out, in the middle of stops, starts and restarts; and all ends as asked for.
//!
//! Seed and steps are printed; `DVB_TEST_SEED=N` does the same steps again. `DVB_TEST_MINUTES=N` (`cargo xtask test --minutes N`) makes the
//! run as long as one likes, `DVB_TEST_FULL` ten times as long; `DVB_TEST_PACE=MS` pauses between steps, for a long run beside other work.

#![expect(clippy::print_stdout, reason = "the seed and the steps, which a failure is replayed by")]

mod plan;

use e2e::{TestHome, keys_held, limit_descriptors};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plan::{Deed, Meanwhile, Step, Verb, plan};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const DEVNETS: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec:
  plugin: exec
  restart: {backoff: 100ms}
  services:
    - {name: a, command: [sleep, '1000'], restart: {policy: always}}
    - {name: b, command: [sh, -c, 'seq 1 2000; exec sleep 1000'], restart: {policy: always}}
---
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: chain}
spec: {plugin: commonware, validators: 2, blockTime: 300ms, localhost: false, restart: {backoff: 100ms}}
";
const NODES: [&str; 4] = ["net/a", "net/b", "chain/validator-0", "chain/validator-1"];
const LENGTH: Duration = Duration::from_secs(30);
/// Of the run without cgroups.
const FEW: usize = 12;
/// Room for what a store grows to in hours (25,000 events are 13 MB, 2,500 changes 5, its journal 5), for some logs and for the chain; little
/// enough to be filled in a moment. The chain makes blocks as long as the run lasts.
const DISK_MIB: u64 = 96;
const DISK_MIB_A_MINUTE: u64 = 8;
/// So often all must end as asked for, besides at the end.
const CHECK_EVERY: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

#[test]
fn whatever_is_killed_in_a_random_run_all_ends_as_it_was_asked_for() {
    let (length, pace) = (length(), Duration::from_millis(variable("DVB_TEST_PACE").unwrap_or_default()));
    let home = TestHome::on_small_disk(&format!("{}m", DISK_MIB + DISK_MIB_A_MINUTE * length.as_secs() / 60)).unwrap_or_else(|| {
        println!("SKIP of full disks: this kernel gives users no namespaces");
        TestHome::new()
    });
    let seed = seed();
    let mut run = Run::begin(home, seed);
    let (start, mut next_check) = (Instant::now(), CHECK_EVERY);
    for step in plan(seed).take_while(|_| start.elapsed() < length) {
        run.take(step);
        thread::sleep(pace);
        if start.elapsed() > next_check {
            run.bring_to_its_end();
            run.home.ctl(&["up", &run.file]).ok();
            next_check += CHECK_EVERY;
        }
    }
    run.bring_to_its_end();
    println!("MEASURED: {}, within {length:.0?}, seed {seed}", run.summary());
}

#[test]
fn what_is_killed_in_a_random_run_without_cgroups_ends_as_it_was_asked_for() {
    let seed = seed();
    let mut run = Run::begin(TestHome::new().with_env("DVB_NO_CGROUPS", "1"), seed);
    plan(seed).take(FEW).for_each(|step| run.take(step));
    run.bring_to_its_end();
    println!("MEASURED: {}, without cgroups, seed {seed}", run.summary());
}

struct Run {
    home: TestHome,
    file: String,
    done: BTreeMap<String, usize>,
}

impl Run {
    fn begin(home: TestHome, seed: u64) -> Self {
        println!("DVB_TEST_SEED={seed}");
        let file = home.file("devnets.yaml", DEVNETS);
        home.ctl(&["up", &file]).ok();
        Self { home, file, done: BTreeMap::new() }
    }

    /// A call may fail, as its daemon may be dying: what counts is how it all ends.
    fn take(&mut self, step: Step) {
        let what = match step.deed {
            Deed::KillNode => self.kill_a_node(step.whom),
            Deed::KillDaemon => kill_all("kill daemon", self.home.daemons()),
            Deed::KillKeeper => kill_all("kill keeper", self.home.keeper()),
            Deed::FullDisk => self.without_disk(step),
            Deed::NoDescriptors => self.without_descriptors(step),
            Deed::StandStill => self.stand_still(step),
            Deed::Pause => {
                thread::sleep(step.lasts);
                "pause"
            }
            Deed::Ask(verb) => self.ask(verb, step.whom),
        };
        println!("step {}: {step:?}: {what}", self.done.values().sum::<usize>());
        *self.done.entry(what.to_owned()).or_default() += 1;
        self.assert_no_key_twice();
    }

    fn ask(&self, verb: Verb, whom: usize) -> &'static str {
        drop(self.home.ctl(&[verb.word(), NODES[whom % NODES.len()], "--no-wait"]));
        verb.word()
    }

    fn kill_a_node(&self, whom: usize) -> &'static str {
        let mains: Vec<_> = self.home.mains().into_iter().collect();
        if mains.is_empty() {
            return "nobody to kill";
        }
        send(Pid::from_raw(mains[whom % mains.len()]), Signal::SIGKILL);
        "kill node"
    }

    fn without_disk(&self, step: Step) -> &'static str {
        if !self.home.has_small_disk() {
            return "no small disk";
        }
        self.home.fill_disk(0);
        self.something_meanwhile(step);
        self.home.clear_disk();
        "full disk"
    }

    fn without_descriptors(&self, step: Step) -> &'static str {
        let daemons = self.home.daemons();
        for pid in &daemons {
            limit_descriptors(*pid, Some(step.whom as u64 % 4));
        }
        self.something_meanwhile(step);
        for pid in &daemons {
            limit_descriptors(*pid, None);
        }
        "no descriptors"
    }

    /// As after a laptop's sleep, or under a debugger.
    fn stand_still(&self, step: Step) -> &'static str {
        let processes: Vec<_> = self.home.processes().into_iter().map(|(pid, _)| pid).collect();
        if processes.is_empty() {
            return "nobody to stand still";
        }
        let pid = processes[step.whom % processes.len()];
        send(pid, Signal::SIGSTOP);
        thread::sleep(step.lasts);
        send(pid, Signal::SIGCONT);
        "stand still"
    }

    fn something_meanwhile(&self, step: Step) {
        match step.meanwhile {
            Meanwhile::KillNode => self.kill_a_node(step.whom),
            Meanwhile::Ask(verb) => self.ask(verb, step.whom),
        };
        thread::sleep(step.lasts);
    }

    /// At no time do two processes of this home's nodes hold one key, whatever is recorded.
    fn assert_no_key_twice(&self) {
        let mains = self.home.mains();
        for (key, holders) in keys_held() {
            let ours: Vec<_> = holders.intersection(&mains).collect();
            assert!(ours.len() <= 1, "{key} is held by {ours:?}");
        }
    }

    fn bring_to_its_end(&self) {
        let home = &self.home;
        home.eventually("a daemon runs", SOON, |home| home.ctl(&["daemon", "start"]).code == 0);
        // Before anything is put in order: what runs by now is on record, each once.
        home.eventually("each process once", SOON, |home| home.mains() == recorded(home));
        for devnet in ["net", "chain"] {
            home.ctl(&["stop", devnet, "--timeout", "60s"]).ok();
        }
        home.eventually("all are stopped", SOON, |home| home.mains().is_empty());
        for node in NODES {
            home.ctl(&["start", node, "--no-wait"]).ok();
        }
        for devnet in ["net", "chain"] {
            home.ctl(&["start", devnet, "--timeout", "60s"]).ok();
            home.eventually("all run", SOON, |home| home.pids(devnet).len() == 2 && home.devnet(devnet)["status"]["phase"] == "Running");
        }
        let before = home.highest("chain");
        home.eventually("the chain goes on", SOON, |home| home.lowest("chain") > before + 1);
        home.assert_keys_held_once("chain");
        assert_eq!(home.mains(), recorded(home), "each process once");
        for devnet in ["net", "chain"] {
            home.ctl(&["delete", devnet, "--yes", "--timeout", "60s"]).ok();
        }
        assert_eq!(home.mains(), BTreeSet::new());
        assert_eq!(home.leaves(), BTreeSet::new());
        assert_eq!(home.rows("leases"), 0);
    }

    fn summary(&self) -> String {
        format!("{} random steps: {:?}", self.done.values().sum::<usize>(), self.done)
    }
}

/// The processes that the daemon knows of.
fn recorded(home: &TestHome) -> BTreeSet<i32> {
    ["net", "chain"].into_iter().flat_map(|devnet| home.pids(devnet).into_values()).map(Pid::as_raw).collect()
}

fn kill_all(what: &'static str, pids: impl IntoIterator<Item = Pid>) -> &'static str {
    pids.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
    what
}

/// It may have died by now.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

fn length() -> Duration {
    let minutes = variable("DVB_TEST_MINUTES").map(|minutes: u64| Duration::from_secs(60 * minutes));
    minutes.unwrap_or(if std::env::var_os("DVB_TEST_FULL").is_some() { LENGTH * 10 } else { LENGTH })
}

fn seed() -> u64 {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    variable("DVB_TEST_SEED").unwrap_or_else(fresh)
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
