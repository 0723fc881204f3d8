//! The daemon on demand. The stand-in for devnetd is this test program itself, called by a script beside a copy of dvbctl.
#![allow(clippy::disallowed_methods, reason = "these tests start programs")]

use crate::common::{
    Answer, answer,
    fake::{Fake, World, serve},
    two_devnets,
};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

const ARGS: &str = "FAKE_DEVNETD_ARGS";

/// Not a test when it is called as one: it becomes the stand-in when the script below calls it.
#[test]
fn stand_in_for_devnetd() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let args: Vec<&str> = args.split(' ').collect();
    let ["--home", home, "--socket", socket] = args.as_slice() else { panic!("unexpected arguments {args:?}") };
    let home = PathBuf::from(home);
    if fs::OpenOptions::new().write(true).create_new(true).open(home.join("devnetd.lock")).is_err() {
        eprintln!("already running");
        std::process::exit(75);
    }
    fs::write(home.join("pid"), std::process::id().to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let notify = std::env::var("NOTIFY_SOCKET").unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"STATUS=up\nREADY=1\n", notify).unwrap();
        serve(Fake::new(World { ..two_devnets() }, home.clone()), listener).await.unwrap();
    });
    fs::remove_file(socket).unwrap();
    fs::remove_file(home.join("devnetd.lock")).unwrap();
    std::process::exit(0);
}

/// A folder with a copy of dvbctl and a devnetd of the test's making; what was started ends with it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(devnetd: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        install(Path::new(env!("CARGO_BIN_EXE_dvbctl")), &dir.path().join("bin/dvbctl"));
        let script = dir.path().join("script");
        fs::write(&script, format!("#!/bin/sh\n{devnetd}\n")).unwrap();
        install(&script, &dir.path().join("bin/devnetd"));
        Self { dir }
    }

    fn standing_in() -> Self {
        let exe = std::env::current_exe().unwrap();
        Self::new(&format!("{ARGS}=\"$*\" exec {} --exact on_demand::stand_in_for_devnetd --nocapture", exe.display()))
    }

    fn home(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("home")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("bin/dvbctl"));
        command.env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin").current_dir(self.dir.path()).stdin(Stdio::null());
        command.arg("--home").arg(self.home()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        answer(self.command(args).output().unwrap())
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.home().join("pid")).ok()?.parse().ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // By its id, and only while it is still the one that we started.
        if let Some(pid) = self.pid()
            && fs::read_to_string(format!("/proc/{pid}/environ")).is_ok_and(|environ| environ.contains(&*self.home().to_string_lossy()))
        {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// Another process writes the program: a child that a test of another thread forks meanwhile cannot hold it open, which would make it
/// "busy" to execute.
fn install(from: &Path, to: &Path) {
    let done = Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
    assert!(done.success(), "install {} {}", from.display(), to.display());
}

fn session_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(3)?.parse().ok()
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn a_verb_starts_the_daemon_in_a_session_of_its_own_and_stop_ends_it() {
    let place = Place::standing_in();
    let answer = place.run(&["daemon", "status"]);
    assert_eq!(answer.code, 5, "status does not start it: {}", answer.out);
    assert!(answer.err.contains("try: dvbctl daemon start"), "{}", answer.err);
    assert_eq!(place.run(&["daemon", "stop"]).out, "devnetd does not run\n");
    assert_eq!(place.run(&["daemon", "reload"]).code, 5);
    assert_eq!(place.run(&["get", "devnets"]).code, 3, "its name may be misspelt");
    assert!(!is_there(&place.home()), "and none of them makes a home");
    fs::create_dir(place.home()).unwrap();

    let answer = place.run(&["get", "devnets", "-o", "name"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "devnet/mynet\ndevnet/other\n"), "{}", answer.err);
    let pid = place.pid().unwrap();
    assert_eq!(session_of(pid), Some(pid), "it leads its own session");
    assert!(place.run(&["daemon", "status"]).out.contains(&format!("pid {pid}")));
    assert!(place.run(&["daemon", "start"]).out.contains("runs already"));
    assert!(place.run(&["daemon", "logs"]).code == 0);
    let answer = place.run(&["daemon", "reload"]);
    assert_eq!(answer.code, 1, "this one serves on as it was: {}", answer.out);
    assert!(answer.err.contains("could not execute its program anew"), "{}", answer.err);
    let answer = place.run(&["daemon", "restart"]);
    assert!(answer.out.contains("started"), "{} {}", answer.out, answer.err);
    assert_ne!(place.pid().unwrap(), pid);
    assert_eq!(place.run(&["daemon", "stop"]).out, "devnetd stopped\n");
    assert_eq!(place.run(&["daemon", "status"]).code, 5);
}

#[test]
fn two_clients_that_race_both_reach_the_one_daemon() {
    let place = Place::standing_in();
    fs::create_dir(place.home()).unwrap();
    let children: Vec<_> =
        (0..4).map(|_| place.command(&["get", "mynet", "-o", "name"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    for child in children {
        let answer = answer(child.wait_with_output().unwrap());
        assert_eq!((answer.code, answer.out.as_str()), (0, "devnet/mynet\n"), "{}", answer.err);
    }
}

#[test]
fn a_daemon_that_dies_at_once_shows_its_last_lines() {
    let place = Place::new("echo 'the store is from a newer version' >&2; exit 3");
    let answer = place.run(&["daemon", "start"]);
    assert_eq!(answer.code, 5);
    assert!(answer.err.contains("exit code 3") && answer.err.contains("  | the store is from a newer version"), "{}", answer.err);
}

#[test]
fn a_missing_devnetd_is_told_with_the_places_that_were_looked_at() {
    let place = Place::new("");
    fs::remove_file(place.dir.path().join("bin/devnetd")).unwrap();
    let answer = place.run(&["daemon", "start"]);
    assert_eq!(answer.code, 5);
    assert!(answer.err.contains("no devnetd program beside dvbctl"), "{}", answer.err);
}

#[test]
fn a_home_that_is_a_file_is_named() {
    let place = Place::standing_in();
    fs::write(place.home(), "").unwrap();
    let answer = place.run(&["get"]);
    assert_eq!(answer.code, 5);
    assert!(answer.err.contains("is not a folder, so devnetd cannot start"), "{}", answer.err);
}

#[test]
fn a_daemon_of_another_home_is_refused() {
    let place = Place::standing_in();
    fs::create_dir(place.home()).unwrap();
    assert_eq!(place.run(&["get"]).code, 0);
    let socket = place.home().join("devnetd.sock");
    let mut command = Command::new(place.dir.path().join("bin/dvbctl"));
    command.env_clear().env("HOME", place.dir.path()).arg("--socket").arg(&socket);
    let with_home = answer(command.arg("--home").arg(place.dir.path().join("elsewhere")).arg("get").output().unwrap());
    assert_eq!(with_home.code, 5, "{}", with_home.out);
    assert!(with_home.err.contains("serves the home"), "{}", with_home.err);
}

#[test]
fn a_wait_that_met_an_ending_daemon_says_so_soon_instead_of_waiting_for_one_that_nobody_starts() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("ending.sock")).unwrap();
    // It still takes the connection (an empty SETTINGS frame of HTTP/2), and ends before it answers the first request.
    let ending = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        let mut preface_and_request = [0; 120];
        stream.read_exact(&mut preface_and_request).unwrap();
    });
    let began = std::time::Instant::now();
    let answer = crate::common::alone(dir.path(), &["--socket", "ending.sock", "wait", "mynet", "--for=Running", "--timeout", "25s"]);
    ending.join().unwrap();
    assert_eq!(answer.code, 5, "{}", answer.err);
    assert!(answer.err.contains("connection to devnetd was lost"), "{}", answer.err);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "that is no better than the timeout");
}
