//! One suite that every plugin passes, run against an executable over a real pipe, whatever language it is written in.
//!
//! In a plugin's own tests:
//! ```no_run
//! use dvb_plugin_sdk::conformance::{Profile, run};
//! let report = run(std::path::Path::new("target/debug/dvb-plugin-mine"), Profile::default());
//! assert!(report.passed(), "{report}");
//! ```
//! By hand, and for plugins that are not written in Rust: `dvb-conformance PATH`.

mod genesis;
mod jobs;
mod launch;
mod process;
mod session;
mod statics;
mod transactions;

use crate::pb;
use std::{fmt, path::Path};

/// The devnet that the suite asks about, and how much of the suite applies.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `binary_path` empty: the plugin's own default binary. Validators and full nodes that the plugin does not want (its
    /// `default_validators` is 0) are set to 0.
    pub devnet: pb::DevnetContext,
    /// Environment that jobs get beside PATH and what they name.
    pub job_env: Vec<(String, String)>,
    /// Environment that the plugin gets beside PATH, HOME and TMPDIR.
    pub plugin_env: Vec<(String, String)>,
}

impl Default for Profile {
    fn default() -> Self {
        let devnet = pb::DevnetContext {
            name: "conformance".into(),
            namespace: "default".into(),
            uid: "0190b6f0000070008000000000000001".into(),
            chain_id: "conformance-1".into(),
            validators: 4,
            full_nodes: 1,
            accounts: 3,
            seed: "the seed of the conformance suite".into(),
            genesis_time: "2026-01-01T00:00:00Z".into(),
            ..pb::DevnetContext::default()
        };
        Self { devnet, job_env: Vec::new(), plugin_env: Vec::new() }
    }
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It does not apply, and why.
    Skipped(String),
    Failed(String),
}

/// One line per check, in the order in which they ran.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub checks: Vec<(&'static str, Outcome)>,
    /// What the plugin wrote to stderr, its last lines.
    pub stderr: String,
}

impl Report {
    /// No check failed. Skipped ones do not count.
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }
    /// None: there is no check of that name.
    pub fn outcome(&self, check: &str) -> Option<&Outcome> {
        self.checks.iter().find(|(name, _)| *name == check).map(|(_, outcome)| outcome)
    }
    fn add(&mut self, check: &'static str, result: Checked) {
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(Finding::Skip(why)) => Outcome::Skipped(why),
            Err(Finding::Fail(why)) => Outcome::Failed(why),
        };
        self.checks.push((check, outcome));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.checks {
            match outcome {
                Outcome::Passed => writeln!(f, "ok    {name}")?,
                Outcome::Skipped(why) => writeln!(f, "SKIP  {name}: {why}")?,
                Outcome::Failed(why) => writeln!(f, "FAIL  {name}: {why}")?,
            }
        }
        if !self.passed() && !self.stderr.is_empty() {
            writeln!(f, "the plugin's stderr:\n{}", self.stderr)?;
        }
        Ok(())
    }
}

/// Why a check did not pass.
#[derive(Debug)]
enum Finding {
    Skip(String),
    Fail(String),
}

type Checked<T = ()> = Result<T, Finding>;

fn fail<T>(why: impl Into<String>) -> Checked<T> {
    Err(Finding::Fail(why.into()))
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { fail(why()) }
}

/// Runs the suite against an executable. Starts it, and leaves neither process nor file behind. Takes a second or two for a plugin
/// without jobs. Callable from anywhere, a tokio runtime included (it blocks the thread).
pub fn run(exe: &Path, profile: Profile) -> Report {
    let work = || match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(session::run(exe, profile)),
        Err(error) => {
            let mut report = Report::default();
            report.add("start", fail(format!("no runtime for the suite: {error}")));
            report
        }
    };
    // A thread of its own, because a runtime cannot be entered from within another one.
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
