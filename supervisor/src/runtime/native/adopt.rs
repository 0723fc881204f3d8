//! Finds a launch of an earlier daemon again, by all that its handle remembers.

use super::{Inner, running::Running};
use crate::{
    cgroup::Leaf,
    reaper::{Found, Process, find},
    runtime::{Handle, RuntimeError},
};
use std::sync::Arc;

impl Inner {
    /// None: its main process is gone, or the handle tells no process.
    pub(super) async fn adopt(self: &Arc<Self>, handle: &Handle) -> Result<Option<Arc<Running>>, RuntimeError> {
        let Some(state) = self.state(handle)? else { return Ok(None) };
        let leaf = state.cgroup.as_deref().and_then(|path| self.cgroups.open(path));
        let in_leaf = |pid| leaf.as_ref().map(Leaf::pids).is_some_and(|pids| pids.contains(&pid));
        let Found::Process(pidfd) = find(&state.identity, &self.boot_id, in_leaf) else { return Ok(None) };
        let process = Process::new(state.identity.pid, pidfd)
            .map_err(|source| RuntimeError::Io { path: format!("/proc/{}", state.identity.pid).into(), source })?;
        let running = Running::new(state.identity, process, leaf, handle.started_at);
        let ours = Arc::clone(self.launches().entry(handle.id.clone()).or_insert_with(|| Arc::clone(&running)));
        if Arc::ptr_eq(&ours, &running) {
            let dead_already = running.is_dead();
            running.watch(Arc::clone(&self.clock));
            if dead_already {
                running.exited().await;
            }
        }
        Ok(Some(ours))
    }
}
