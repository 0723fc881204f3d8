//! A machine that refuses what others give: no further process, read-only cgroups, no bus, a clock that goes back.

use e2e::{TestHome, binary, condition, is_alive, limit_processes};
use nix::sys::signal::{Signal, kill};
use std::{
    process::Command,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

fn document(more: &str) -> String {
    format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  restart: {{backoff: 200ms, maxRestarts: 1}}\n  \
         services: [{{name: a, command: [sleep, '1000'], restart: {{policy: always}}}}]\n{more}"
    )
}

/// Another process runs for it, and no second one.
#[track_caller]
fn runs_again(home: &TestHome, before: nix::unistd::Pid) {
    home.eventually("it runs again", SOON, |home| home.pids("net").get("a").is_some_and(|pid| *pid != before && is_alive(*pid)));
    home.assert_each_once("net");
}

#[test]
fn a_daemon_that_may_fork_no_more_says_so_uses_up_no_restart_and_goes_on_when_it_may() {
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", &document(""))]).ok();
    let (daemon, node) = (home.daemon_pid().unwrap(), home.pid("net/a"));
    let Some(limit) = limit_processes(daemon) else {
        println!("SKIP: no pids controller here that this user may set");
        return;
    };
    kill(node, Signal::SIGKILL).unwrap();
    home.eventually("it says what it lacks", SOON, |home| condition(&home.node("net/a"), "Ready")["reason"] == "NoResources");
    let node_now = home.node("net/a");
    let ready = condition(&node_now, "Ready");
    assert!(ready["message"].as_str().unwrap().contains("no further process"), "{ready}");
    assert!(ready["remedy"].as_str().unwrap().contains("pids.max"), "{ready}");
    // More often than the one restart that the spec allows.
    let tries = |home: &TestHome| {
        let events = home.json(&["events", "net/a"]);
        events["items"].as_array().map_or(0, |events| {
            events.iter().filter(|event| event["message"].as_str().is_some_and(|text| text.contains("no further process"))).count()
        })
    };
    home.eventually("it is tried again and again", SOON * 2, |home| tries(home) >= 4);
    assert!(home.node("net/a")["status"]["phase"] != "Failed");
    assert_eq!(home.daemon_pid(), Some(daemon), "the same daemon answers all the while");
    home.ctl(&["describe", "node", "net/a"]).ok().prints("no further process");
    let launches = home.rows("launches");
    assert!(launches <= 2, "{launches} rows of launches that never were");
    drop(limit);
    runs_again(&home, node);
    assert_eq!(home.daemon_pid(), Some(daemon));
}

/// Runs dvbctl in a mount namespace of its own whose cgroup file systems are read-only. None: users get no namespaces here.
#[expect(clippy::disallowed_methods, reason = "a daemon in a namespace of its own")]
fn with_read_only_cgroups(home: &TestHome, args: &[&str]) -> Option<std::process::Output> {
    const REMOUNT: &str = r#"while read -r _ _ _ _ at rest; do case "$rest" in *" - cgroup"*) mount -o remount,bind,ro "$at" || exit 99;; esac; done </proc/self/mountinfo; exec "$@""#;
    let inside = home.command(args);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", REMOUNT, "sh"]).arg(binary("dvbctl")).args(inside.get_args());
    command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(home.path());
    let output = command.output().ok()?;
    let refused = output.status.code() == Some(99) || String::from_utf8_lossy(&output.stderr).starts_with("unshare:");
    (!refused).then_some(output)
}

#[test]
fn with_read_only_cgroups_devnetd_does_without_says_which_and_still_stops_all() {
    let home = TestHome::new();
    let Some(started) = with_read_only_cgroups(&home, &["daemon", "start"]) else {
        println!("SKIP: this kernel gives users no mount namespaces");
        return;
    };
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let status = home.json(&["daemon", "status"]);
    assert_eq!(status["cgroupDriver"], "none");
    let said = status["cgroupMessage"].as_str().unwrap();
    assert!(said.contains("Read-only file system") || said.contains("no cgroup version 2"), "{said}");
    // Its grandchild hides behind a session of its own and a cleared environment.
    let hides = document("    - {name: b, command: [sh, -c, 'setsid env -i sleep 1001 & exec sleep 1000'], resources: {memory: 64Mi}}\n")
        .replace("services: [", "services:\n    - ")
        .replace("{policy: always}}]", "{policy: always}}");
    home.ctl(&["up", &home.file("devnet.yaml", &hides)]).ok();
    let limits = condition(&home.node("net/b"), "LimitsEnforced");
    assert_eq!(limits["status"], "False", "{limits}");
    assert!(limits["message"].as_str().unwrap().contains(said) && limits["remedy"].is_string(), "{limits}");
    let node = home.pid("net/a");
    kill(node, Signal::SIGKILL).unwrap();
    runs_again(&home, node);
    home.ctl(&["stop", "net", "--timeout", "30s"]).ok();
    let daemon = home.daemon_pid();
    let sleeps = |pid: &nix::unistd::Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    let left: Vec<_> = e2e::all_pids().into_iter().filter(|pid| e2e::parent(*pid) == daemon && is_alive(*pid) && sleeps(pid)).collect();
    assert_eq!(left, [], "the daemon is the subreaper, and no sleeper is left with it");
    assert!(home.mains().is_empty());
    home.ctl(&["orphans"]).ok().says("no orphans");
}

#[test]
fn without_a_bus_or_a_user_manager_everything_runs_and_install_says_what_it_lacks() {
    // Nobody is behind these addresses; devnetd asks systemd on its private socket, and nobody else.
    let home = TestHome::new();
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let home = home
        .with_env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .with_env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .with_env("XDG_RUNTIME_DIR", &empty.display().to_string());
    home.ctl(&["up", &home.file("devnet.yaml", &document(""))]).ok();
    let node = home.pid("net/a");
    kill(node, Signal::SIGKILL).unwrap();
    runs_again(&home, node);
    home.ctl(&["daemon", "restart"]).ok();
    home.assert_each_once("net");
    // The units are for the default home alone.
    let of_default = |verb: &str| home.command(&["daemon", verb]).env_remove("DVB_HOME").env("HOME", home.path()).output().unwrap();
    let told = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert!(text.contains(&format!("no systemd user manager listens at {}", empty.display())) && text.contains("log in by ssh"), "{text}");
    };
    let refused = of_default("install");
    assert_eq!(refused.status.code(), Some(1));
    told(&refused.stderr);
    told(&of_default("doctor").stdout);
    home.ctl(&["stop", "net"]).ok();
    assert!(home.mains().is_empty());
}

#[test]
fn a_clock_set_back_a_day_keeps_nobody_waiting_and_the_order_of_events() {
    let home = TestHome::new();
    // Its back-off outlasts all that is tried, and longer than a restart is awaited; by yesterday's clock it would be over tomorrow.
    let slow = document("").replace("backoff: 200ms, maxRestarts: 1", "backoff: 60s, maxRestarts: 50");
    home.ctl(&["up", &home.file("devnet.yaml", &slow)]).ok();
    let first = home.pid("net/a");
    kill(first, Signal::SIGKILL).unwrap();
    home.eventually("it waits for its restart", SOON, |home| home.node("net/a")["status"]["phase"] == "Backoff");
    home.kill_daemon();
    let yesterday = (-86_400).to_string();
    let begun = Instant::now();
    let started = home.command(&["daemon", "start"]).env("DVB_CLOCK_SHIFT", &yesterday).output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    runs_again(&home, first);
    println!("MEASURED: with the clock set back a day a node that waited to be restarted ran again after {:.1?}", begun.elapsed());
    // A death by the new clock, which asks for no long back-off, and what a user asks.
    home.ctl(&["apply", "-f", &home.file("devnet.yaml", &document("").replace("maxRestarts: 1", "maxRestarts: 50"))]).ok();
    home.eventually("its back-off is short", SOON, |home| home.node("net/a")["spec"]["restart"]["backoffMs"] == 200);
    let second = home.pid("net/a");
    kill(second, Signal::SIGKILL).unwrap();
    runs_again(&home, second);
    home.ctl(&["restart", "net/a", "--timeout", "30s"]).ok();
    home.ctl(&["stop", "net", "--timeout", "30s"]).ok();
    home.ctl(&["start", "net", "--timeout", "30s"]).ok();
    assert!(home.ctl(&["why", "net/a"]).ok().stdout.contains("starts"), "the story is whole");
    let events = home.json(&["events", "net/a"])["items"].as_array().cloned().unwrap();
    let position = |reason: &str| events.iter().rposition(|event| event["reason"] == reason).unwrap_or_else(|| panic!("no {reason}"));
    let (died, stopped) = (position("Died"), position("Stopped"));
    assert!(died < stopped && stopped < position("Running"), "by commit, not by clock");
    let times: Vec<&str> = events.iter().filter_map(|event| event["time"].as_str()).collect();
    assert!(times[0] > times[times.len() - 1], "the clock did go back: {} to {}", times[0], times[times.len() - 1]);
    home.assert_each_once("net");
}
