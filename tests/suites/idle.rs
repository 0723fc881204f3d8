//! An idle daemon: it wakes for what happens, not for timers.

use e2e::TestHome;
use std::{collections::BTreeMap, fmt::Write as _, fs, thread, time::Duration};

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
    home.ctl(&["up", &file, "--timeout", "300s"]).ok(); // on a busy machine
    assert_eq!(home.devnet("many")["status"]["readyNodes"], CHILDREN);
    let daemon = home.daemon_pid().unwrap().as_raw();
    thread::sleep(Duration::from_secs(2)); // what `up` and `get` asked for is done by then
    let before = switches(daemon);
    thread::sleep(WATCHED);
    let woken: u64 = switches(daemon).iter().map(|(thread, count)| count - before.get(thread).copied().unwrap_or(0)).sum();
    assert!(woken <= FEW, "{woken} wake-ups within {WATCHED:?}");
}

/// How often each thread of `pid` has given up the processor by itself, which it must do before it can wake.
fn switches(pid: i32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).map(str::trim).map(str::parse::<u64>);
        line.expect("the kernel counts them").unwrap()
    };
    // One that ends in between was for blocking work, and counts no more.
    tasks.filter_map(|task| Some((task.file_name().to_str()?.to_owned(), of(fs::read_to_string(task.path().join("status")).ok()?)))).collect()
}
