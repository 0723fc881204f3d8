//! Ends launches: signal, grace, kill, and nothing is left.

use super::{
    Inner, blocking,
    kin::{self, Find, Kin},
    running::Running,
};
use crate::{
    cgroup::Leaf,
    model::{Exit, LaunchId},
    reaper::Process,
    runtime::{Handle, RuntimeError, StopPolicy},
    sys::{Kernel, failpoint},
};
use futures::future::join_all;
use nix::sys::signal::Signal;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the kernel may take to end killed processes; beyond, something hangs in it (disk, debugger).
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Inner {
    /// The main process gets the signal first. When it ends in time, what it leaves behind gets the same signal and the rest of
    /// the grace: a node behind a shell may still close its database.
    pub(super) async fn stop(self: &Arc<Self>, handle: &Handle, policy: StopPolicy) -> Result<Exit, RuntimeError> {
        let Some(running) = self.find(handle).await? else {
            self.end_leftovers(handle).await?;
            return Ok(Exit { at: self.clock.now(), requested: true, ..Exit::default() });
        };
        let deadline = Instant::now() + policy.grace;
        if !running.has_ended() {
            running.request_end();
            if running.leaf.is_none() {
                // While its tree can still be seen: with their parents gone, nothing leads to its grandchildren.
                running.remember_survivors().await;
            }
            running.signal(policy.signal)?;
            failpoint("stop/signalled");
            // A process that stands still takes a signal only when it goes on.
            running.let_go_on().await?;
        }
        if timeout_at(deadline, running.exited()).await.is_ok() {
            let rest = members(&running).await?;
            rest.iter().for_each(|kin| {
                let _ = kin.pidfd.signal(policy.signal);
            });
            let _ = timeout_at(deadline, gone(&running, rest)).await;
        }
        failpoint("stop/kill");
        self.kill(&running).await
    }

    pub(super) async fn clear(self: &Arc<Self>, handle: &Handle) -> Result<Option<Arc<Running>>, RuntimeError> {
        let Some(running) = self.find(handle).await? else {
            self.end_leftovers(handle).await?;
            return Ok(None);
        };
        self.kill(&running).await?;
        Ok(Some(running))
    }

    pub(super) async fn destroy(self: &Arc<Self>, handle: &Handle) -> Result<(), RuntimeError> {
        if let Some(running) = self.clear(handle).await? {
            return self.forget(&running);
        }
        for leaf in self.leaves_of(handle)? {
            leaf.remove().map_err(|source| RuntimeError::Io { path: leaf.path().to_owned(), source })?;
        }
        self.kept.release(&handle.id);
        Ok(())
    }

    /// Kills all of it and waits until nothing is left.
    pub(super) async fn kill(&self, running: &Arc<Running>) -> Result<Exit, RuntimeError> {
        if !running.has_ended() {
            running.request_end();
        }
        match &running.leaf {
            Some(leaf) => {
                running.signal(Signal::SIGKILL)?;
                kill_leaf(&running.id, leaf).await?;
            }
            None => {
                running.signal_group(Signal::SIGSTOP);
                let same = Arc::clone(running);
                kill_kin(&running.id, move |how| same.members(how)).await?;
                running.signal_group(Signal::SIGKILL);
                running.signal(Signal::SIGKILL)?;
            }
        }
        let left = || RuntimeError::NotGone { id: running.id.clone(), pids: vec![running.identity.pid] };
        timeout(KILL_PATIENCE, running.exited()).await.map_err(|_| left())
    }

    /// Removes the cgroup and the memory of a launch that has ended.
    pub(super) fn forget(&self, running: &Running) -> Result<(), RuntimeError> {
        if let Some(leaf) = &running.leaf {
            leaf.remove().map_err(|source| RuntimeError::Io { path: leaf.path().to_owned(), source })?;
        }
        self.launches().remove(&running.id);
        self.kept.release(&running.id);
        self.jobs().remove(&running.id);
        Ok(())
    }

    /// Its main process is gone or unknown: ends what carries its mark.
    async fn end_leftovers(self: &Arc<Self>, handle: &Handle) -> Result<(), RuntimeError> {
        for leaf in self.leaves_of(handle)? {
            kill_leaf(&handle.id, &leaf).await?;
        }
        let (id, inner) = (handle.id.clone(), Arc::clone(self));
        kill_kin(&handle.id, move |how| kin::of_id(&id, &inner.marks, how)).await
    }
}

async fn kill_leaf(id: &LaunchId, leaf: &Leaf) -> Result<(), RuntimeError> {
    match timeout(KILL_PATIENCE, leaf.kill_and_wait()).await {
        Ok(killed) => killed.map_err(|source| RuntimeError::Io { path: leaf.path().to_owned(), source }),
        Err(_) => Err(RuntimeError::NotGone { id: id.clone(), pids: leaf.pids() }),
    }
}

/// `look` finds the live kin anew each time; each is held by descriptor.
pub(super) async fn end_all(id: &LaunchId, look: impl Fn(Find) -> Vec<Kin> + Send + Sync + 'static) -> Result<(), RuntimeError> {
    let look = Arc::new(look);
    kill_kin(id, move |how| look(how)).await
}

/// First all stand still, so that nobody forks while his kin is killed; who slipped through is found by the next look.
async fn kill_kin(id: &LaunchId, look: impl Fn(Find) -> Vec<Kin> + Clone + Send + 'static) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let look = look.clone();
        let (kin, _) = blocking(move || Ok(kin::halt(look))).await?;
        if kin.is_empty() {
            return Ok(());
        }
        let pids = kin.iter().map(|kin| kin.pid).collect();
        kin.iter().for_each(|kin| {
            let _ = kin.pidfd.signal(Signal::SIGKILL);
        });
        if timeout_at(deadline, all_ended(kin)).await.is_err() {
            return Err(RuntimeError::NotGone { id: id.clone(), pids });
        }
    }
}

async fn members(running: &Arc<Running>) -> Result<Vec<Kin>, RuntimeError> {
    let running = Arc::clone(running);
    blocking(move || Ok(running.members(Find::Hold))).await
}

async fn gone(running: &Running, rest: Vec<Kin>) {
    match &running.leaf {
        Some(leaf) => {
            let _ = leaf.emptied().await;
        }
        None => all_ended(rest).await,
    }
}

async fn all_ended(kin: Vec<Kin>) {
    let processes = kin.into_iter().filter_map(|kin| Process::new(kin.pid, kin.pidfd, Kernel::as_it_is()).ok());
    join_all(processes.map(|process| async move { process.ended().await })).await;
}
