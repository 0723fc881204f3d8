//! Launches that stand still: by the kernel's freezer where the cgroup has one, else by SIGSTOP to all of the launch's kin.

use super::{Inner, blocking, kin::Kin, running::Running};
use crate::{
    runtime::{Handle, RuntimeError},
    sys::process_stat,
};
use nix::sys::signal::Signal;
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Between two looks at who still moves: a process stops when it is next scheduled, one may fork before that, and no event tells of
/// the stop of a process that is not our child.
const STOP_PAUSE: Duration = Duration::from_millis(5);
const STOP_ROUNDS: u32 = 1_000;

impl Inner {
    pub(super) async fn freeze(self: &Arc<Self>, handle: &Handle) -> Result<(), RuntimeError> {
        match self.find(handle).await? {
            Some(running) if !running.has_ended() => match running.freezer() {
                Some(leaf) => leaf.freeze().await.map_err(|source| RuntimeError::Io { path: leaf.path().to_owned(), source }),
                None => blocking(move || running.stop_kin()).await,
            },
            _ => Ok(()),
        }
    }

    pub(super) async fn thaw(self: &Arc<Self>, handle: &Handle) -> Result<(), RuntimeError> {
        match self.find(handle).await? {
            Some(running) => running.let_go_on().await,
            None => Ok(()),
        }
    }
}

impl Running {
    pub(super) fn is_frozen(&self) -> bool {
        match self.freezer() {
            Some(leaf) => !self.has_ended() && leaf.is_frozen(),
            None => !self.has_ended() && is_held(self.identity.pid),
        }
    }

    /// A signal that was sent before is heard now.
    pub(super) async fn let_go_on(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let running = Arc::clone(self);
        match self.freezer() {
            Some(leaf) => leaf.thaw().map_err(|source| RuntimeError::Io { path: leaf.path().to_owned(), source })?,
            None if is_held(self.identity.pid) => {
                blocking(move || running.signal_kin(&running.members(), Signal::SIGCONT)).await?;
            }
            None => {}
        }
        self.signal(Signal::SIGCONT)
    }

    fn stop_kin(&self) -> Result<(), RuntimeError> {
        let mut told = HashSet::new();
        for _ in 0..STOP_ROUNDS {
            let moving: Vec<Kin> = self.members().into_iter().filter(|kin| !stands_still(kin.pid)).collect();
            if moving.iter().all(|kin| told.contains(&kin.pid) && is_held(kin.pid)) {
                return Ok(());
            }
            self.signal_kin(&moving, Signal::SIGSTOP)?;
            told.extend(moving.iter().map(|kin| kin.pid));
            std::thread::sleep(STOP_PAUSE);
        }
        Err(RuntimeError::NotFrozen { id: self.id.clone(), pids: self.members().iter().map(|kin| kin.pid).collect() })
    }

    fn signal_kin(&self, kin: &[Kin], signal: Signal) -> Result<(), RuntimeError> {
        let fail = |pid: u32| move |source| RuntimeError::Io { path: format!("/proc/{pid}").into(), source };
        kin.iter().try_for_each(|kin| kin.pidfd.signal(signal).map_err(fail(kin.pid)))
    }
}

/// It stands still, or waits in the kernel, perhaps for a child that stands still, and stops before it does anything else.
fn is_held(pid: u32) -> bool {
    match process_stat(pid) {
        Some(stat) if stat.state == 'D' => stop_is_pending(pid),
        _ => stands_still(pid),
    }
}

fn stop_is_pending(pid: u32) -> bool {
    const STOP: u64 = 1 << (Signal::SIGSTOP as u64 - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & STOP != 0)
}

/// Stopped by a signal or a debugger, or dead.
fn stands_still(pid: u32) -> bool {
    process_stat(pid).is_none_or(|stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}
