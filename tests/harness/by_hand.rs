//! A node's process as a user would start it from its home, without devnetd: the floor that figures are compared with.

use crate::TestHome;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Ends with SIGTERM, and is waited for, when dropped.
pub struct ByHand {
    child: Child,
}

impl ByHand {
    /// `<binaryPath> start --home <homeDir>` of a Cosmos node's spec; its output goes to a file of the test.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    pub fn start(home: &TestHome, spec: &Value) -> Self {
        let word = |name: &str| spec[name].as_str().expect("a word in a node's spec").to_owned();
        let log = home.path().join(format!("{}-{}.log", word("role"), spec["index"]));
        let log = File::create(log).expect("a log file");
        let program = word("binaryPath");
        let mut command = Command::new(&program);
        command.env("LD_LIBRARY_PATH", Path::new(&program).with_file_name("lib"));
        command.args(["start", "--home"]).arg(word("homeDir")).stdin(Stdio::null()).stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        Self { child: command.spawn().expect("the chain's binary starts") }
    }
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
