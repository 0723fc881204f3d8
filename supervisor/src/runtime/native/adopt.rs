//! Finds a launch of an earlier daemon again: by all that its handle remembers, or by the id that it carries.

use super::{
    Inner, NativeState, blocking,
    kept::fits,
    running::{Running, Seen},
};
use crate::{
    cgroup::Leaf,
    model::{Exit, LaunchId},
    reaper::{Found, Identity, Process, carries, find},
    runtime::{Handle, RuntimeError},
    sys::{age, all_pids, executable, process_stat},
};
use std::{os::unix::fs::MetadataExt, sync::Arc};

impl Inner {
    /// None: its main process is gone, or the handle tells no process.
    pub(super) async fn adopt(self: &Arc<Self>, handle: &Handle) -> Result<Option<Arc<Running>>, RuntimeError> {
        let Some(state) = self.state(handle)? else { return Ok(None) };
        let leaf = state.cgroup.as_deref().and_then(|path| self.cgroups.open(path));
        // The keeper has held the process since its fork, so its pid cannot have been reused under it.
        let kept = self.kept.take(&handle.id).filter(|pidfd| fits(pidfd, &state.identity, &self.boot_id));
        let pidfd = match kept {
            Some(pidfd) => pidfd,
            None => {
                let in_leaf = |pid| leaf.as_ref().map(Leaf::pids).is_some_and(|pids| pids.contains(&pid));
                let Found::Process(pidfd) = find(&state.identity, &self.boot_id, &self.marks.home_id, in_leaf) else { return Ok(None) };
                pidfd
            }
        };
        let process = Process::new(state.identity.pid, pidfd, self.kernel)
            .map_err(|source| RuntimeError::Io { path: format!("/proc/{}", state.identity.pid).into(), source })?;
        let log = state.log.filter(|_| self.subreaper);
        let running = Running::new(state.identity, &self.marks, process, leaf, log, handle.started_at);
        let ours = Arc::clone(self.launches().entry(handle.id.clone()).or_insert_with(|| Arc::clone(&running)));
        if Arc::ptr_eq(&ours, &running) {
            self.kept.put(&running.id, running.pidfd());
            let dead_already = running.is_dead();
            running.watch(Arc::clone(&self.clock), if dead_already { Seen::Afterwards } else { Seen::Live });
            if dead_already {
                running.exited().await;
            }
        }
        Ok(Some(ours))
    }

    /// What is still to be known of a launch without a main process: that the machine was booted since, or the counters of its cgroup,
    /// while that is there.
    pub(super) fn traces(&self, handle: &Handle) -> Result<Option<Exit>, RuntimeError> {
        let Some(state) = self.state(handle)? else { return Ok(None) };
        if state.identity.boot_id != self.boot_id {
            return Ok(Some(Exit { at: self.clock.now(), unseen: true, rebooted: true, ..Exit::default() }));
        }
        let leaf = state.cgroup.as_deref().and_then(|path| self.cgroups.open(path));
        Ok(leaf.map(|leaf| {
            let counters = leaf.counters();
            let (oom, memory_peak) = (counters.oom, counters.memory_peak);
            let cpu_time_ms = counters.cpu_micros.map(|micros| micros / 1_000);
            Exit { at: self.clock.now(), oom_killed: oom.is_some(), memory_peak, cpu_time_ms, oom, unseen: true, ..Exit::default() }
        }))
    }

    /// The handle of a launch whose fork nobody recorded. None: it was never forked, or it ended without a trace.
    pub(super) async fn find_unrecorded(self: &Arc<Self>, id: &LaunchId) -> Result<Option<Handle>, RuntimeError> {
        if let Some(running) = self.known(id) {
            return self.handle_of(&running).map(Some);
        }
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || inner.look_for(&id)).await
    }

    fn look_for(&self, id: &LaunchId) -> Result<Option<Handle>, RuntimeError> {
        let leaf = self.cgroups.leaves().into_iter().find(|(found, _)| *found == id.0).map(|(_, leaf)| leaf);
        let kept = self.kept.take(id);
        let pid = match &kept {
            Some(pidfd) => pidfd.pid().ok().flatten(),
            None => self.main_process(id, leaf.as_ref()),
        };
        if pid.is_none() && kept.is_none() {
            return Ok(None);
        }
        // One that was reaped is known by the keeper's descriptor alone; there is no process 0 to be mistaken for it.
        let stat = pid.and_then(process_stat);
        let identity = Identity {
            pid: pid.unwrap_or_default(),
            start_time: stat.map(|stat| stat.start_time).unwrap_or_default(),
            boot_id: self.boot_id.clone(),
            launch_id: id.0.clone(),
            executable: pid.and_then(executable),
        };
        if let Some(pidfd) = kept {
            self.kept.give_back(id, pidfd);
        }
        let started_at = self.clock.now().minus(stat.and_then(|stat| age(stat.start_time)).unwrap_or_default());
        let log = pid.and_then(|pid| std::fs::metadata(format!("/proc/{pid}/fd/1")).ok()).map(|about| (about.dev(), about.ino()));
        let log = log.filter(|_| self.subreaper);
        let state = NativeState { identity, cgroup: leaf.map(|leaf| leaf.path().to_owned()), log };
        self.handle(id.clone(), pid, started_at, &state).map(Some)
    }

    /// We start each launch as the leader of a session of its own, so of those that carry its id the eldest leader is its main process.
    fn main_process(&self, id: &LaunchId, leaf: Option<&Leaf>) -> Option<u32> {
        let me = std::process::id();
        let in_leaf = leaf.map(Leaf::pids).unwrap_or_default();
        let is_ours = |pid: u32| in_leaf.contains(&pid) || carries(pid, &id.0, &self.marks.home_id);
        let ours = all_pids().unwrap_or_default().into_iter().filter(|pid| *pid != me && is_ours(*pid));
        let leaders = ours.filter_map(process_stat).filter(|stat| stat.session == stat.pid && !stat.is_zombie());
        leaders.min_by_key(|stat| (stat.start_time, stat.pid)).map(|stat| stat.pid)
    }
}
