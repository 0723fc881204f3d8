//! Launches that stand still: by the kernel's freezer where the cgroup has one, else by SIGSTOP to all of the launch's kin.

use super::{
    Inner, blocking,
    kin::{self, Find, Kin, is_held},
    running::Running,
};
use crate::runtime::{Handle, RuntimeError};
use nix::sys::signal::Signal;
use std::sync::Arc;

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
                blocking(move || running.signal_kin(&running.members(Find::Hold), Signal::SIGCONT)).await?;
            }
            None => {}
        }
        self.signal(Signal::SIGCONT)
    }

    fn stop_kin(&self) -> Result<(), RuntimeError> {
        match kin::halt(|how| self.members(how)) {
            (_, true) => Ok(()),
            (kin, false) => Err(RuntimeError::NotFrozen { id: self.id.clone(), pids: kin.iter().map(|kin| kin.pid).collect() }),
        }
    }

    fn signal_kin(&self, kin: &[Kin], signal: Signal) -> Result<(), RuntimeError> {
        let fail = |pid: u32| move |source| RuntimeError::Io { path: format!("/proc/{pid}").into(), source };
        kin.iter().try_for_each(|kin| kin.pidfd.signal(signal).map_err(fail(kin.pid)))
    }
}
