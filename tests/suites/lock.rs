//! One daemon for a home, whatever becomes of its lock file, and a dvbctl that finds it whatever its environment says.

use e2e::{TestHome, is_alive};
use nix::sys::signal::{Signal, kill};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const DEVNET: &str = "
apiVersion: devnet.builder/v1
kind: Devnet
metadata: {name: net}
spec: {plugin: exec, services: [{name: a, command: [sleep, '1000']}]}
";
const SOON: Duration = Duration::from_secs(20);

fn up() -> TestHome {
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", DEVNET)]).ok();
    home
}

#[test]
fn a_lock_file_removed_under_a_daemon_lets_no_second_one_in() {
    let home = up();
    let (first, node) = (home.daemon_pid().unwrap(), home.pid("net/a"));
    let lock = home.home().join("devnetd.lock");
    let elsewhere = home.path().join("other.sock").display().to_string();
    let refused = |what: &str, code: i32| {
        for args in [&[][..], &["--socket", &elsewhere]] {
            let answer = home.devnetd_at(home.home(), args).exits(code).says(&format!("pid {first}")).says(&home.home().display().to_string());
            assert_eq!(home.daemons(), [first], "{what}: {}", answer.stderr);
        }
    };
    refused("with the file", 75);
    fs::remove_file(&lock).unwrap();
    refused("without it", 69);
    refused("with the one that was just made", 69);
    home.ctl(&["daemon", "reload"]).ok();
    refused("after a reload, which takes the new file", 75);
    fs::remove_file(&lock).unwrap();
    refused("without it after a reload", 69);
    assert_eq!(home.daemon_pid(), Some(first));
    assert_eq!(home.pid("net/a"), node);
    home.ctl(&["daemon", "stop"]).ok();
    home.ctl(&["daemon", "start"]).ok();
    assert_ne!(home.daemon_pid(), Some(first));
    assert_eq!(home.pid("net/a"), node, "adopted as ever");
}

#[test]
fn a_home_removed_under_its_daemon_is_not_served_twice_and_the_refusal_says_whom_to_end() {
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let first = home.daemon_pid().unwrap();
    fs::remove_dir_all(home.home()).unwrap();
    home.ctl(&["daemon", "start"]).exits(5).says(&format!("kill {first}"));
    let log = fs::read_to_string(home.home().join("logs/devnetd.log")).unwrap();
    assert_eq!(log.matches("its lock file was removed").count(), 1, "asked once: {log}");
    home.devnetd().exits(69).says(&format!("kill {first}"));
    kill(first, Signal::SIGTERM).unwrap();
    home.eventually("it has gone", SOON, |_| !is_alive(first));
    assert_eq!(home.json(&["get", "devnets"])["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_moved_home_is_served_at_its_new_place_and_not_while_its_daemon_runs() {
    let home = up();
    let (first, moved) = (home.daemon_pid().unwrap(), home.path().join("moved"));
    let there = moved.display().to_string();
    fs::rename(home.home(), &moved).unwrap();
    home.devnetd_at(&moved, &[]).exits(75).says(&format!("pid {first}")).says(&there);
    fs::rename(&moved, home.home()).unwrap();
    home.ctl(&["delete", "net", "--yes"]).ok();
    home.ctl(&["daemon", "stop"]).ok();
    fs::rename(home.home(), &moved).unwrap();
    // Another one takes the old place meanwhile.
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["--home", &there, "daemon", "start"]).ok().prints(&there);
    home.ctl(&["--home", &there, "daemon", "stop"]).ok();
}

#[test]
fn a_default_home_is_served_in_itself_without_a_runtime_directory_and_found_from_either_side() {
    let home = TestHome::new();
    let run = home.path().join("run");
    fs::create_dir(&run).unwrap();
    let user = home.path().join("h"); // in the path by which processes of this test are told
    fs::create_dir(&user).unwrap();
    let ctl = |runtime_dir: Option<&Path>, args: &[&str]| {
        let mut command = home.command(args);
        command.env_remove("DVB_HOME").env("HOME", &user).env_remove("XDG_RUNTIME_DIR");
        runtime_dir.map(|dir| command.env("XDG_RUNTIME_DIR", dir));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let default = user.canonicalize().unwrap().join(".devnet-builder");
    let removed = home.path().join("removed");
    for (with, other) in [(None, Some(&*run)), (Some(&*run), None), (Some(&*removed), Some(&*run))] {
        ctl(with, &["daemon", "start"]);
        let daemons = home.daemons();
        // Root on a machine with systemd has a runtime directory also without the variable.
        let usual = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
        let place = if with == Some(&run) {
            &run
        } else if usual.exists() {
            &usual
        } else {
            &default
        };
        let status: serde_json::Value = serde_json::from_str(&ctl(with, &["daemon", "status", "-o", "json"])).unwrap();
        assert_eq!(status["socket"].as_str().unwrap(), place.join("devnetd.sock").to_str().unwrap());
        let found: serde_json::Value = serde_json::from_str(&ctl(other, &["daemon", "status", "-o", "json"])).unwrap();
        assert_eq!(found["pid"], status["pid"], "found by a dvbctl with another environment");
        ctl(other, &["get", "devnets"]);
        assert_eq!((daemons.len(), home.daemons()), (1, daemons), "and no second one was started");
        ctl(other, &["daemon", "stop"]);
    }
}
