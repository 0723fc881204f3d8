//! A process that stands still: what it has written is then one moment of its data, as after a SIGKILL.

use super::super::ReconcileError;
use crate::runtime::{Handle, Runtime, RuntimeError};
use futures::executor::block_on;
use nix::sys::signal::Signal;
use procfs::process::Process;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// A thread that waits for its disk stops when that has answered.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The process goes on when this is dropped. Its methods block.
pub(super) struct Pause {
    runtime: Arc<dyn Runtime>,
    handle: Handle,
    since: Instant,
}

impl Pause {
    /// Returns when no thread of it runs any more.
    pub(super) fn begin(runtime: Arc<dyn Runtime>, handle: Handle) -> Result<Self, ReconcileError> {
        let pause = Self { runtime, handle, since: Instant::now() };
        block_on(pause.runtime.signal(&pause.handle, Signal::SIGSTOP))?;
        let Some(pid) = pause.handle.pid else { return Ok(pause) };
        // Nothing tells when the threads of a process have stopped that is not always our child.
        while !stands_still(pid) {
            if pause.since.elapsed() > PATIENCE {
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("it does not stand still within {PATIENCE:?}"));
                return Err(RuntimeError::Io { path: PathBuf::from(format!("/proc/{pid}")), source }.into());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(pause)
    }

    pub(super) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Err(error) = block_on(self.runtime.signal(&self.handle, Signal::SIGCONT)) {
            tracing::warn!(launch = %self.handle.id, %error, "a node that stood still for an export cannot be let go on");
        }
    }
}

/// All threads are stopped, or there are none any more.
fn stands_still(pid: u32) -> bool {
    let Some(tasks) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()).and_then(|process| process.tasks().ok()) else { return true };
    tasks.flatten().filter_map(|task| task.stat().ok()).all(|stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Home,
        model::LaunchId,
        runtime::{Grants, LaunchSpec, Machine, NativeRuntime},
        sys::SystemClock,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_stands_still_as_long_as_its_pause() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().canonicalize().unwrap());
        let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::new(&home, Arc::new(SystemClock), Machine::default()).unwrap());
        let spec = LaunchSpec {
            id: LaunchId("0123456789abcdef0123456789abcdef".into()),
            path: vec!["default".into(), "net".into(), "busy".into()],
            argv: ["/bin/sh", "-c", "while :; do :; done"].map(String::from).to_vec(),
            cwd: dir.path().to_owned(),
            log: dir.path().join("log"),
            ..LaunchSpec::default()
        };
        let handle = runtime.start(spec, Grants::default()).await.unwrap();
        let (same, paused) = (runtime.clone(), handle.clone());
        let (still, after) = tokio::task::spawn_blocking(move || {
            let pid = paused.pid.unwrap();
            let pause = Pause::begin(same, paused);
            let still = pause.is_ok() && stands_still(pid);
            drop(pause);
            (still, pid)
        })
        .await
        .unwrap();
        // SIGCONT is taken before the signal's sender returns, so the state is another one already.
        let goes_on = !stands_still(after);
        runtime.destroy(&handle).await.unwrap();
        assert!(still && goes_on, "{still} {goes_on}");
    }
}
