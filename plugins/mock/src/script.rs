//! What goes wrong, by a JSON file named in DVB_MOCK_SCRIPT; read anew at each call, so that a test can change its mind.
//!
//! ```json
//! {
//!   "apiVersion": 7,
//!   "linger": true,
//!   "onStart": {"stdout": "hello"},
//!   "calls": {
//!     "PlanNodes": {"slowMs": 50, "fail": {"code": "INVALID_ARGUMENT", "message": "no"}, "times": 1},
//!     "StartNode": {"stderr": "last words", "crash": {"exit": 3}}
//!   }
//! }
//! ```
//! A call's steps are taken in this order: slowMs, stderr, stdout (raw, between the protocol's frames), fail, crash (`{"exit": N}`
//! or `{"abort": true}`), hang, garbage (a reply that no host can use). `times`: only the first that many calls of this process.
//! `linger`: stay when stdin ends. A missing or unreadable script is no script; `apiVersion` and `linger` count from the start.

use dvb_plugin_sdk::{PluginFault, Result};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Script {
    api_version: u32,
    linger: bool,
    on_start: Step,
    calls: BTreeMap<String, Step>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Step {
    slow_ms: u64,
    stderr: Option<String>,
    stdout: Option<String>,
    fail: Option<Failure>,
    crash: Option<Crash>,
    hang: bool,
    garbage: bool,
    times: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
struct Failure {
    code: String,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Crash {
    Exit(i32),
    Abort(bool),
}

pub(crate) struct Player {
    path: Option<PathBuf>,
    first: Script,
    /// The pipe to the host itself, past the redirection of fd 1.
    raw: File,
    calls: Mutex<BTreeMap<String, u32>>,
}

impl Player {
    /// Also does what the script wants done before anything else.
    pub(crate) fn from_env() -> io::Result<Self> {
        let raw = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let path = env::var_os("DVB_MOCK_SCRIPT").map(PathBuf::from);
        let mut player = Self { path, first: Script::default(), raw, calls: Mutex::default() };
        player.first = player.script();
        player.abrupt(&player.first.on_start)?;
        Ok(player)
    }

    /// 0: whatever the SDK speaks.
    pub(crate) fn api_version(&self) -> u32 {
        self.first.api_version
    }

    pub(crate) fn lingers(&self) -> bool {
        self.first.linger
    }

    /// Plays what the script holds for `call`. True: the reply is to be garbage.
    pub(crate) async fn step(&self, call: &str) -> Result<bool> {
        let Some(step) = self.script().calls.remove(call) else { return Ok(false) };
        if step.times.is_some_and(|times| self.count(call) > times) {
            return Ok(false);
        }
        if step.slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(step.slow_ms)).await;
        }
        self.abrupt(&step).map_err(|error| PluginFault::Internal(error.to_string()))?;
        if step.hang {
            std::future::pending::<()>().await;
        }
        match step.fail {
            Some(failure) => Err(fault(failure)),
            None => Ok(step.garbage),
        }
    }

    /// The steps that need no waiting: output, and the sudden end.
    fn abrupt(&self, step: &Step) -> io::Result<()> {
        if let Some(text) = &step.stderr {
            writeln!(io::stderr(), "{text}")?;
        }
        if let Some(text) = &step.stdout {
            (&self.raw).write_all(text.as_bytes())?;
        }
        match (&step.fail, &step.crash) {
            (None, Some(Crash::Exit(code))) => std::process::exit(*code),
            (None, Some(Crash::Abort(true))) => std::process::abort(),
            _ => Ok(()),
        }
    }

    fn count(&self, call: &str) -> u32 {
        let mut calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = calls.entry(call.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn script(&self) -> Script {
        let Some(path) = &self.path else { return Script::default() };
        let Ok(text) = fs::read_to_string(path) else { return Script::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error, "the script cannot be read and is ignored");
            Script::default()
        })
    }
}

fn fault(failure: Failure) -> PluginFault {
    let message = failure.message;
    match failure.code.as_str() {
        "INVALID_ARGUMENT" => PluginFault::InvalidArgument(message),
        "FAILED_PRECONDITION" => PluginFault::FailedPrecondition(message),
        "UNAVAILABLE" => PluginFault::Unavailable(message),
        "UNIMPLEMENTED" => PluginFault::Unimplemented(message),
        _ => PluginFault::Internal(message),
    }
}
