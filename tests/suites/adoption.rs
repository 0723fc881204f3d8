//! What a killed devnetd leaves behind, the next one finds: each process once, each exit as it was.

use e2e::{TestHome, all_pids, binary, is_alive, parent};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// `coder` exits with 7 when it is told USR1.
const DEVNET: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec:
  plugin: exec
  restart: {backoff: 200ms}
  services:
    - {name: coder, command: [sh, -c, 'trap \"exit 7\" USR1; echo up; while :; do sleep 0.05; done'], readiness: {log: up}, restart: {policy: always}}
    - {name: victim, command: [sleep, '1000'], restart: {policy: always}}
    - {name: bystander, command: [sleep, '1000'], restart: {policy: always}}
";

const SOON: Duration = Duration::from_secs(60);

fn up() -> TestHome {
    let home = TestHome::new();
    up_in(&home);
    home
}

fn up_in(home: &TestHome) {
    let file = home.file("devnet.yaml", DEVNET);
    home.ctl(&["up", &file]).ok();
}

fn settled(home: &TestHome, name: &str, restarts: u64) {
    home.eventually(&format!("{name} runs with {restarts} restarts"), SOON, |home| {
        let node = home.node(name);
        node["status"]["phase"] == "Running" && node["status"]["restartCount"] == restarts
    });
}

#[test]
fn exits_while_no_daemon_ran_are_told_truly_and_each_node_is_restarted_once() {
    let home = up();
    let before = home.pids("net");
    home.kill_daemon();
    assert!(home.keeper().is_some(), "the keeper outlives the daemon");
    kill(before["coder"], Signal::SIGUSR1).unwrap();
    kill(before["victim"], Signal::SIGABRT).unwrap();
    home.eventually("both are dead", SOON, |_| !is_alive(before["coder"]) && !is_alive(before["victim"]));
    home.ctl(&["daemon", "start"]).ok();
    settled(&home, "net/coder", 1);
    settled(&home, "net/victim", 1);
    // The status is there when PID 1 has reaped the process, at once or a second later.
    if !status_comes(&home, "net/coder") {
        println!("SKIP of the statuses: this kernel does not tell the exit of a process that is not our child (Linux 6.15 does)");
        return;
    }
    assert_eq!(home.node("net/coder")["status"]["lastExit"]["code"], 7);
    assert!(status_comes(&home, "net/victim"));
    assert_eq!(home.node("net/victim")["status"]["lastExit"]["signal"], "SIGABRT");
    home.ctl(&["why", "net/coder"]).ok().prints("exit code 7 while devnetd was down");
    let after = home.pids("net");
    assert_eq!(after["bystander"], before["bystander"]);
    assert_eq!(home.node("net/bystander")["status"]["restartCount"], 0);
    home.assert_each_once("net");
}

fn status_comes(home: &TestHome, name: &str) -> bool {
    for _ in 0..100 {
        let exit = home.node(name)["status"]["lastExit"].clone();
        if exit["code"].is_number() || exit["signal"].is_string() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50)); // PID 1 reaps when it likes
    }
    false
}

#[test]
fn on_an_old_kernel_the_exit_is_unknown_and_says_so() {
    let home = TestHome::new().with_env("DVB_OLD_KERNEL", "1");
    up_in(&home);
    let before = home.pids("net");
    home.kill_daemon();
    kill(before["victim"], Signal::SIGKILL).unwrap();
    kill(before["coder"], Signal::SIGUSR1).unwrap();
    home.eventually("both are dead", SOON, |_| !is_alive(before["victim"]) && !is_alive(before["coder"]));
    home.ctl(&["daemon", "start"]).ok();
    settled(&home, "net/victim", 1);
    settled(&home, "net/coder", 1);
    let spoken = home.node("net/coder")["status"]["lastExit"].clone();
    assert!(
        spoken["message"].as_str().unwrap().ends_with("last line: up") && spoken["logTail"][0] == "up",
        "what it said is what is known: {spoken}"
    );
    let exit = home.node("net/victim")["status"]["lastExit"].clone();
    assert!(exit["code"].is_null() && exit["signal"].is_null(), "{exit}");
    assert!(exit["message"].as_str().unwrap().contains("while devnetd was down"), "{exit}");
    home.assert_each_once("net");
    // Without cgroup.kill a stop still leaves nobody.
    let pids = home.pids("net");
    home.ctl(&["stop", "net"]).ok();
    assert!(pids.values().all(|pid| !is_alive(*pid)));
}

/// The node of a chain says why it ends; nobody sees that it does.
#[test]
fn the_cause_of_an_exit_that_nobody_saw_is_read_from_its_log() {
    const LAST: &str = "Error: app hash mismatch at height 7";
    let home = TestHome::new().with_env("DVB_OLD_KERNEL", "1");
    let node = binary("mock-node").display().to_string();
    let script = format!(
        "case \"$*\" in *--rpc*) ;; *) exec {node} \"$@\" ;; esac\n\
         {node} \"$@\" & child=$!\ntrap 'echo \"{LAST}\"; exit 3' USR1\nwait $child"
    );
    let spec = format!(
        "{{plugin: mock, validators: 1, localhost: false, binary: {{path: {}}}, restart: {{backoff: 100ms}}}}",
        home.program("node", &script)
    );
    let text = format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec: {spec}\n");
    home.ctl(&["up", &home.file("devnet.yaml", &text)]).ok();
    let before = home.pid("net/validator-0");
    assert!(home.processes().iter().any(|(_, command)| command.contains("mock-node") && command.contains("--rpc")), "{:?}", home.processes());
    home.kill_daemon();
    kill(before, Signal::SIGUSR1).unwrap();
    home.eventually("it is dead", SOON, |_| !is_alive(before));
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["wait", "net/validator-0", "--for=Failed", "--timeout", "60s"]).ok();
    let exit = home.node("net/validator-0")["status"]["lastExit"].clone();
    assert_eq!((&exit["class"], &exit["code"]), (&"app-hash".into(), &serde_json::Value::Null), "{exit}");
    assert!(exit["logTail"].as_array().unwrap().iter().any(|line| line == LAST), "{exit}");
    let message = exit["message"].as_str().unwrap();
    assert!(message.contains("while devnetd was down") && message.contains(LAST), "{message}");
    home.ctl(&["why", "net/validator-0"]).ok().prints("app hash mismatch");
    assert!(home.mains().is_empty(), "such a node is not started again");
    let left: Vec<_> = home.processes().into_iter().filter(|(_, command)| command.contains("--rpc")).collect();
    assert_eq!(left, [], "the child that its end left is gone too");
}

#[test]
fn a_launch_that_was_forked_and_not_recorded_is_taken_up_as_it_runs() {
    let home = up();
    let before = home.pids("net");
    home.kill_daemon();
    // As if devnetd had been killed between fork and record.
    let store = rusqlite::Connection::open(home.home().join("devnetd.db")).unwrap();
    let changed = store.execute("UPDATE launches SET status = '{\"phase\":\"Intended\"}'", []).unwrap();
    assert_eq!(changed, 3);
    drop(store);
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["wait", "net", "--for=Running", "--timeout", "60s"]).ok();
    home.eventually("all are recorded", SOON, |home| home.pids("net").len() == 3);
    assert_eq!(home.pids("net"), before);
    home.assert_each_once("net");
    home.ctl(&["why", "net/coder"]).ok().prints("did not come to record");
    home.ctl(&["stop", "net"]).ok();
    assert!(before.values().all(|pid| !is_alive(*pid)), "and stopped like any other");
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_ends_with_the_last_launch() {
    let home = up();
    let first = home.keeper().expect("there is one from the first launch on");
    assert_eq!(parent(first), home.daemon_pid());
    kill(first, Signal::SIGKILL).unwrap();
    home.eventually("another keeper runs", SOON, |home| home.keeper().is_some_and(|pid| pid != first));
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "the first is no zombie");
    let before = home.pids("net");
    home.kill_daemon();
    kill(before["coder"], Signal::SIGUSR1).unwrap();
    home.eventually("it is dead", SOON, |_| !is_alive(before["coder"]));
    home.ctl(&["daemon", "start"]).ok();
    settled(&home, "net/coder", 1);
    if status_comes(&home, "net/coder") {
        assert_eq!(home.node("net/coder")["status"]["lastExit"]["code"], 7, "the second keeper held what the first did");
    }
    home.ctl(&["delete", "net", "--yes"]).ok();
    let second = home.keeper().expect("it stays as long as the daemon does");
    home.ctl(&["daemon", "stop"]).ok();
    home.eventually("the keeper has gone", SOON, |_| !is_alive(second));
}

#[test]
fn with_daemon_and_keeper_killed_nodes_are_adopted_all_the_same() {
    let home = up();
    let before = home.pids("net");
    let first = home.keeper().expect("it runs");
    home.kill_daemon();
    kill(first, Signal::SIGKILL).unwrap();
    home.eventually("the keeper has gone", SOON, |_| !is_alive(first));
    kill(before["victim"], Signal::SIGKILL).unwrap();
    home.eventually("one node too", SOON, |_| !is_alive(before["victim"]));
    home.ctl(&["daemon", "start"]).ok();
    settled(&home, "net/victim", 1);
    assert!(home.node("net/victim")["status"]["lastExit"]["message"].as_str().unwrap().contains("while devnetd was down"));
    assert_eq!((home.pids("net")["coder"], home.pids("net")["bystander"]), (before["coder"], before["bystander"]));
    assert!(home.keeper().is_some_and(|pid| pid != first), "what was adopted is kept again");
    home.assert_each_once("net");
}

#[test]
fn a_reload_keeps_pids_and_children_and_nobody_is_refused_meanwhile() {
    let home = up();
    let (daemon, before) = (home.daemon_pid().unwrap(), home.pids("net"));
    let keeper_before = home.keeper();
    let reload = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| home.ctl(&["get", "devnets", "-o", "name"]))).collect();
        let reload = home.ctl(&["daemon", "reload"]);
        for answer in asking {
            let answer = answer.join().unwrap();
            // One that was under way may be told that this daemon ends; nobody finds the door shut.
            assert!(!answer.stderr.contains("does not run") && !answer.stderr.contains("refuse"), "{}", answer.stderr);
        }
        reload
    });
    reload.ok().prints("reloaded").prints(&daemon.to_string());
    assert_eq!(home.daemon_pid(), Some(daemon), "the same process");
    assert_eq!(home.pids("net"), before);
    assert_eq!(home.keeper(), keeper_before);
    for pid in before.values() {
        assert_eq!(parent(*pid), Some(daemon), "still a child");
    }
    kill(before["coder"], Signal::SIGUSR1).unwrap();
    settled(&home, "net/coder", 1);
    assert_eq!(home.node("net/coder")["status"]["lastExit"]["code"], 7);
    home.assert_each_once("net");
    let started = |home: &TestHome| home.json(&["daemon", "status"])["startedAt"].clone();
    let first = started(&home);
    kill(daemon, Signal::SIGHUP).unwrap();
    home.eventually("it is executed once more", SOON, |home| started(home) != first);
    assert_eq!(home.daemon_pid(), Some(daemon));
    assert_eq!(home.node("net/victim")["status"]["restartCount"], 0);
    let zombies: Vec<_> = all_pids().into_iter().filter(|pid| parent(*pid) == Some(daemon) && !is_alive(*pid)).collect();
    assert_eq!(zombies, [], "no zombies");
}

/// Forked twice, in a session of its own, with a cleared environment; the second one has closed the log and left the folder, too.
const HIDING: [(&str, &str); 2] = [("logged", ""), ("nameless", "exec >/dev/null 2>&1; cd /;")];

/// Killed when dropped, should they live: nothing on them tells that they are this test's.
struct Hidden([Pid; 2]);

impl Drop for Hidden {
    fn drop(&mut self) {
        for pid in self.0.iter().filter(|pid| is_alive(**pid)) {
            let _ = kill(*pid, Signal::SIGKILL); // it may have ended
        }
    }
}

#[test]
fn without_cgroups_a_grandchild_that_hides_is_gone_after_a_stop_by_the_daemon_that_comes_after_a_crash() {
    for main_dies in [false, true] {
        let home = TestHome::new().with_env("DVB_NO_CGROUPS", "1");
        let at = |name: &str| home.path().join(name);
        let service = |(name, shuts): (&str, &str)| {
            let hides = format!("trap \"\" TERM; {shuts} sleep 1000 & echo $! > {}; wait", at(name).display());
            let program = home.program(&format!("{name}.sh"), &format!("(setsid env -i PATH=\"$PATH\" sh -c '{hides}' &)\nexec sleep 1000"));
            format!("    - {{name: {name}, command: [{program}], restart: {{policy: always}}}}\n")
        };
        let services: String = HIDING.map(service).concat();
        let devnet =
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: exec\n  restart: {backoff: 200ms}\n  services:\n";
        home.ctl(&["up", &home.file("devnet.yaml", &format!("{devnet}{services}"))]).ok();
        let hidden = || HIDING.map(|(name, _)| fs::read_to_string(at(name)).ok().and_then(|pid| pid.trim().parse().ok()).map(Pid::from_raw));
        home.eventually("all hide", SOON, |_| hidden().iter().all(Option::is_some));
        let first = Hidden(hidden().map(Option::unwrap));
        home.kill_daemon();
        assert!(first.0.iter().all(|pid| is_alive(*pid)), "they outlive the daemon");
        if main_dies {
            home.mains().into_iter().for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap());
        }
        home.ctl(&["daemon", "start"]).ok();
        if main_dies {
            HIDING.iter().for_each(|(name, _)| settled(&home, &format!("net/{name}"), 1));
            assert!(first.0.iter().all(|pid| !is_alive(*pid)), "gone before their node was started again");
        }
        home.eventually("they hide again", SOON, |_| hidden().iter().all(|pid| pid.is_some_and(is_alive)));
        let last = Hidden(hidden().map(Option::unwrap));
        home.ctl(&["stop", "net", "--timeout", "60s"]).ok();
        assert!(first.0.iter().chain(&last.0).all(|pid| !is_alive(*pid)), "main died: {main_dies}; {:?} {:?}", first.0, last.0);
        home.ctl(&["orphans"]).ok().says("no orphans");
    }
}

/// Not of devnetd: it writes down each signal that can be caught. Killed, and waited for, when dropped.
struct Stranger {
    child: Child,
    heard: std::path::PathBuf,
}

impl Stranger {
    #[expect(clippy::disallowed_methods, reason = "a stranger is nobody's launch")]
    fn start(home: &TestHome) -> Self {
        const LISTEN: &str =
            r#"for s in HUP INT QUIT TERM USR1 USR2 CONT; do trap "echo $s >>$0" $s; done; echo ready >$0; while :; do sleep 0.05; done"#;
        let heard = home.path().join("heard");
        let child = Command::new("setsid")
            .args(["bash", "-c", LISTEN])
            .arg(&heard)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let stranger = Self { child, heard };
        home.eventually("the stranger listens", SOON, |_| stranger.heard() == "ready\n");
        stranger
    }
    fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Clock ticks since boot.
    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
    }
    fn heard(&self) -> String {
        fs::read_to_string(&self.heard).unwrap_or_default()
    }
    #[track_caller]
    fn assert_left_alone(&self, what: &str) {
        assert!(is_alive(Pid::from_raw(self.pid().cast_signed())), "{what}: it lives");
        assert_eq!(self.heard(), "ready\n", "{what}: it heard no signal");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record of `net/victim` says that its process is this one.
fn forge(home: &TestHome, pid: u32, start_time: Option<u64>) {
    let store = rusqlite::Connection::open(home.home().join("devnetd.db")).unwrap();
    let set = |path: &str, value: u64| {
        let changed = store.execute(
            "UPDATE launches SET status = json_set(status, ?1, ?2) WHERE node = 'net/victim' AND json_extract(status, '$.phase') = 'Running'",
            rusqlite::params![path, value],
        );
        assert_eq!(changed.unwrap(), 1, "{path}");
    };
    for path in ["$.pid", "$.handle.pid", "$.handle.state.identity.pid"] {
        set(path, pid.into());
    }
    if let Some(start_time) = start_time {
        set("$.handle.state.identity.startTime", start_time);
    }
}

#[test]
fn a_stranger_with_the_pid_of_a_dead_node_is_never_adopted_nor_signalled() {
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", &DEVNET.replace("backoff: 200ms", "backoff: 200ms, maxRestarts: 50"))]).ok();
    let stranger = Stranger::start(&home);
    let stop_daemon = |kill_keeper: bool| {
        let victim = home.pid("net/victim");
        let keeper = home.keeper().unwrap();
        home.kill_daemon();
        kill(victim, Signal::SIGKILL).unwrap();
        if kill_keeper {
            kill(keeper, Signal::SIGKILL).unwrap();
        }
        home.eventually("all are dead", SOON, |_| !is_alive(victim) && (!kill_keeper || !is_alive(keeper)));
    };
    let mut restarts = 0;
    // With the keeper, which has held the dead one's pidfd, and without; with another start time, and even with the stranger's own.
    for (kill_keeper, start_time) in [(false, None), (true, None), (false, Some(stranger.start_time())), (true, Some(stranger.start_time()))] {
        let what = format!("keeper killed: {kill_keeper}, start time: {start_time:?}");
        stop_daemon(kill_keeper);
        forge(&home, stranger.pid(), start_time);
        home.ctl(&["daemon", "start"]).ok();
        restarts += 1;
        settled(&home, "net/victim", restarts);
        stranger.assert_left_alone(&what);
        home.assert_each_once("net");
    }
    for verb in [&["stop", "net"][..], &["delete", "net", "--yes"]] {
        if verb[0] == "delete" {
            home.ctl(&["start", "net"]).ok();
        }
        stop_daemon(true);
        forge(&home, stranger.pid(), Some(stranger.start_time()));
        home.ctl(verb).ok();
        stranger.assert_left_alone(verb[0]);
        assert!(home.mains().is_empty());
    }
}
