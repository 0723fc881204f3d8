//! Devnets of plain commands: the whole way through store, controllers, runtime and client without a chain.

use e2e::{TestHome, is_alive, parent};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

const TWO: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: two}
spec:
  plugin: exec
  restart: {backoff: 200ms}
  services:
    - {name: a, command: [sleep, '1000'], restart: {policy: always}}
    - {name: b, command: [sleep, '1000'], after: [a]}
";

#[test]
fn up_runs_commands_and_delete_leaves_nothing() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", TWO);
    home.ctl(&["up", &file]).ok();
    let devnet = home.devnet("two");
    assert_eq!(devnet["status"]["phase"], "Running");
    assert_eq!(devnet["status"]["readyNodes"], 2);
    let (a, b) = (home.pid("two/a"), home.pid("two/b"));
    let daemon = home.daemon_pid().unwrap();
    for pid in [a, b] {
        assert_eq!(parent(pid), Some(daemon), "nodes are the daemon's children");
    }
    home.ctl(&["delete", "two", "--yes"]).ok();
    for pid in [a, b] {
        assert!(!is_alive(pid), "{pid} is gone");
    }
    home.ctl(&["get", "devnet", "two"]).exits(3);
    assert!(!home.home().join("devnets/default/two").exists());
}

#[test]
fn a_killed_command_comes_back_and_why_tells_the_story() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", TWO);
    home.ctl(&["up", &file]).ok();
    let first = home.pid("two/a");
    kill(first, Signal::SIGKILL).unwrap();
    home.eventually("a is restarted", Duration::from_secs(10), |home| home.node("two/a")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "two", "--for=Running", "--timeout", "20s"]).ok();
    let node = home.node("two/a");
    assert_ne!(node["status"]["pid"].as_i64().unwrap(), i64::from(first.as_raw()));
    assert_eq!(node["status"]["lastExit"]["signal"], "SIGKILL");
    home.ctl(&["why", "two/a"]).ok().prints("SIGKILL");
}

#[test]
fn stop_and_start_keep_addresses() {
    let home = TestHome::new();
    let file = home.file("devnet.yaml", TWO);
    home.ctl(&["up", &file]).ok();
    let before = home.nodes("two");
    home.ctl(&["stop", "two"]).ok();
    assert_eq!(home.devnet("two")["status"]["phase"], "Stopped");
    home.ctl(&["start", "two"]).ok();
    let after = home.nodes("two");
    for (name, node) in before {
        assert_eq!(node["spec"]["address"], after[&name]["spec"]["address"]);
    }
    home.ctl(&["stop", "two/a"]).ok();
    home.ctl(&["start", "two"]).ok().says("two/a was stopped by itself and stays so; dvbctl start two/a");
    assert_eq!(home.node("two/a")["status"]["phase"], "Stopped");
}

fn exec(services: &str) -> String {
    format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  services:\n{services}")
}

#[test]
fn a_command_that_exits_at_once_is_not_told_to_be_running() {
    let home = TestHome::new();
    let file = home.file("x.yaml", &exec("  - {name: dies, command: [sh, -c, 'exit 3'], restart: {policy: never}}\n"));
    home.ctl(&["up", &file, "--timeout", "30s"]).exits(1).says("exit code 3");
    assert_eq!(home.devnet("net")["status"]["phase"], "Failed");
}

#[test]
fn a_command_that_completes_is_all_that_was_asked_for() {
    for policy in ["never", "onFailure"] {
        let home = TestHome::new();
        let file = home.file("x.yaml", &exec(&format!("  - {{name: setup, command: ['true'], restart: {{policy: {policy}}}}}\n")));
        home.ctl(&["up", &file, "--timeout", "30s"]).ok();
        let node = home.node("net/setup");
        assert_eq!(node["status"]["phase"], "Stopped");
        assert!(node["status"]["conditions"].to_string().contains("Completed"), "{node}");
    }
}

#[test]
fn a_program_that_is_missing_fails_its_own_command_and_the_others_run() {
    let home = TestHome::new();
    let services =
        "  - {name: a, command: [sleep, '1000']}\n  - {name: lost, command: [no-such-program]}\n  - {name: gone, command: [/no/such/file]}\n";
    let file = home.file("x.yaml", &exec(services));
    home.ctl(&["up", &file, "--timeout", "30s"]).exits(1).says("lost").says("there is no program `no-such-program`");
    home.ctl(&["wait", "net/a", "--for=Running", "--timeout", "10s"]).ok();
    assert!(is_alive(home.pid("net/a")));
    for (name, message) in [("net/lost", "no-such-program"), ("net/gone", "/no/such/file does not exist")] {
        let node = home.node(name);
        assert_eq!(node["status"]["phase"], "Failed");
        assert!(node["status"]["lastExit"]["message"].as_str().unwrap().contains(message), "{node}");
    }
}

/// As a Go program writes it: the cause first, then more lines of its stack than the certificate keeps.
#[test]
fn a_panic_is_told_by_its_own_line_and_without_what_steers_a_terminal() {
    let home = TestHome::new();
    let stack = r"printf '\033[31mpanic: cannot open the store\033[0m\n\ngoroutine 1 [running]:\n' >&2; i=0; while [ $i -lt 60 ]; do printf 'main.f%d(0x1)\n\t/src/main.go:%d +0x1d\n' $i $i >&2; i=$((i+1)); done; printf '\033[2mbye\033[0m\n' >&2; exit 2";
    let program = home.program("panics", stack);
    let file = home.file("x.yaml", &exec(&format!("  - {{name: a, command: [{program}], restart: {{policy: never}}}}\n")));
    home.ctl(&["up", &file, "--timeout", "60s"]).exits(1).says("panic: cannot open the store");
    let exit = home.node("net/a")["status"]["lastExit"].clone();
    assert_eq!((exit["message"].as_str().unwrap(), exit["class"].as_str().unwrap()), ("exit code 2: panic: cannot open the store", "panic"));
    let tail = exit["logTail"].as_array().unwrap();
    assert_eq!((tail.len(), tail[19].as_str().unwrap()), (20, "bye"));
    home.ctl(&["why", "net/a"]).ok().prints("panic: cannot open the store");
}
