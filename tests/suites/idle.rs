//! An idle daemon: it wakes for what happens, not for timers.

use e2e::TestHome;
use std::{fmt::Write as _, fs, thread, time::Duration};

const CHILDREN: usize = 200;
const WATCHED: Duration = Duration::from_secs(5);
/// Of all threads together. A timer of one second would make five, and one per child a thousand.
const FEW: u64 = 5;

#[test]
fn a_daemon_with_many_sleeping_children_does_not_wake() {
    let home = TestHome::new();
    let mut text = String::from("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: many}\nspec:\n  plugin: exec\n  services:\n");
    for number in 0..CHILDREN {
        let _ = writeln!(text, "  - {{name: s{number}, command: [sleep, '10000']}}");
    }
    let file = home.file("many.yaml", &text);
    home.ctl(&["up", &file, "--timeout", "120s"]).ok();
    assert_eq!(home.devnet("many")["status"]["readyNodes"], CHILDREN);
    let daemon = home.daemon_pid().unwrap().as_raw();
    thread::sleep(Duration::from_secs(2)); // what `up` and `get` asked for is done by then
    let before = switches(daemon);
    thread::sleep(WATCHED);
    let woken = switches(daemon) - before;
    assert!(woken <= FEW, "{woken} wake-ups within {WATCHED:?}");
}

/// How often threads of `pid` have given up the processor by themselves, which each must do before it can wake.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).map(str::trim).map(str::parse::<u64>);
        line.expect("the kernel counts them").unwrap()
    };
    // A thread that ends in between counts no more; it was one of those for blocking work.
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).map(of).sum::<u64>()
}
