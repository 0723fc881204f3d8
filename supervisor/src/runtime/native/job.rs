//! Jobs: commands that run to their end, in a cgroup of their own, killed when they take too long or nobody waits any more.

use super::{
    Inner, blocking,
    running::Running,
    spawn::{Order, Output, open_output},
};
use crate::{
    model::LaunchId,
    runtime::{Grants, Handle, JobResult, JobSpec, RuntimeError},
};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::timeout;

/// For a job without a timeout of its own (zero): nothing here is unbounded.
const LONGEST: Duration = Duration::from_secs(600);
/// Nothing is on record of a job; its id alone tells it from a launch.
const JOB_PREFIX: &str = "job-";

impl Inner {
    /// Jobs of a daemon that was killed: nobody waits for them, and they would write where the next try does.
    pub(super) async fn end_abandoned_jobs(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let inner = Arc::clone(self);
        let find = move || {
            let leaves = inner.cgroups.leaves().into_iter().map(|(id, _)| LaunchId(id));
            let found = leaves.chain(inner.owned()).filter(|id| id.0.starts_with(JOB_PREFIX));
            Ok(found.filter(|id| !inner.jobs().contains(id)).collect::<BTreeSet<_>>())
        };
        for id in blocking(find).await? {
            tracing::warn!(job = %id, "ends what an earlier devnetd had begun");
            self.destroy(&Handle::unrecorded(id)).await?;
        }
        Ok(())
    }

    pub(super) async fn run(self: &Arc<Self>, job: &JobSpec) -> Result<JobResult, RuntimeError> {
        let stdout = job.out_dir.join(format!("{}.out", job.name));
        let stderr = job.out_dir.join(format!("{}.err", job.name));
        let (inner, same, out, err) = (Arc::clone(self), job.clone(), stdout.clone(), stderr.clone());
        let guard = blocking(move || {
            let id = LaunchId(format!("{JOB_PREFIX}{}", LaunchId::from_uuid(inner.clock.fresh_id())));
            let order = Order {
                id: id.clone(),
                path: &same.path,
                argv: &same.argv,
                env: &same.env,
                cwd: &same.cwd,
                stdout: open_output(&out, Output::Replace)?,
                stderr: open_output(&err, Output::Replace)?,
                limits: same.limits,
                group_limits: Default::default(),
            };
            inner.jobs().insert(id.clone());
            let running = inner.launch(order, Grants::default()).inspect_err(|_| {
                inner.jobs().remove(&id);
            })?;
            // Inside the closure: when nobody waits for it any more, the guard is dropped with its result, and kills.
            Ok(KillGuard { inner: Arc::clone(&inner), running: Some(running) })
        })
        .await?;
        guard.finish(job, JobResult { name: job.name.clone(), stdout, stderr, ..JobResult::default() }).await
    }
}

/// Kills the job when it is dropped before the job was brought to its end.
struct KillGuard {
    inner: Arc<Inner>,
    running: Option<Arc<Running>>,
}

impl KillGuard {
    async fn finish(mut self, job: &JobSpec, mut result: JobResult) -> Result<JobResult, RuntimeError> {
        let Some(running) = self.running.clone() else { return Ok(result) };
        let after = if job.timeout.is_zero() { LONGEST } else { job.timeout };
        let ended = timeout(after, running.exited()).await;
        // Also what it left in the background.
        let exit = self.inner.kill(&running).await?;
        self.inner.forget(&running)?;
        self.running = None;
        ended.map_err(|_| RuntimeError::JobTimedOut { name: job.name.clone(), after })?;
        result.exit = exit;
        Ok(result)
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.request_end();
        let _ = running.signal(Signal::SIGKILL);
        if let Some(leaf) = &running.leaf {
            let _ = leaf.kill();
        }
        // What cannot be done at once: those outside a cgroup, and taking the cgroup away.
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let inner = Arc::clone(&self.inner);
            tokio.spawn(async move {
                if let Err(error) = inner.kill(&running).await.and_then(|_| inner.forget(&running)) {
                    tracing::warn!(job = %running.id, %error, "an abandoned job left something behind");
                }
            });
        }
    }
}
