//! A node's process as a user would start it, past devnetd.

use crate::TestHome;
use nix::unistd::Pid;
use serde_json::Value;
use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Killed, and waited for, when dropped.
pub struct ByHand {
    child: Child,
}

impl ByHand {
    /// With the libraries that came with the program; its output goes to `log`.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    pub fn start(program: &str, args: &[&str], log: &Path) -> Self {
        let log = File::create(log).expect("a log file");
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", Path::new(program).with_file_name("lib"));
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        Self { child: command.spawn().expect("the program starts") }
    }

    /// `<binaryPath> start --home <homeDir>` of a Cosmos node's spec.
    pub fn cosmos(home: &TestHome, spec: &Value) -> Self {
        let word = |name: &str| spec[name].as_str().expect("a word in a node's spec").to_owned();
        let log = home.path().join(format!("{}-{}.log", word("role"), spec["index"]));
        Self::start(&word("binaryPath"), &["start", "--home", &word("homeDir")], &log)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}
