//! A runtime without processes, for tests of what stands above: a test decides when a launch ends, what fails and what jobs answer.

use super::{Adopted, Capabilities, Grants, Handle, JobResult, JobSpec, LaunchSpec, LetGo, Runtime, RuntimeError, StopPolicy};
use crate::{
    model::{Exit, LaunchId, RawJson, Resources, Usage},
    sys::Clock,
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

type JobAnswer = Arc<dyn Fn(&JobSpec) -> Result<JobResult, RuntimeError> + Send + Sync>;

/// Clones share their state: keep one, give one to the code under test.
#[derive(Clone)]
pub struct FakeRuntime {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    frozen: Arc<watch::Sender<bool>>,
    forks_held: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    launches: BTreeMap<LaunchId, Fake>,
    started: Vec<LaunchSpec>,
    granted: BTreeMap<LaunchId, Vec<String>>,
    stopped: Vec<(LaunchId, StopPolicy)>,
    signals: Vec<(LaunchId, Signal)>,
    destroyed: Vec<LaunchId>,
    jobs: Vec<JobSpec>,
    group_limits: Vec<(Vec<String>, Resources)>,
    failures: VecDeque<RuntimeError>,
    destroy_failures: VecDeque<RuntimeError>,
    strange: BTreeSet<LaunchId>,
    pidless: bool,
    answer: Option<JobAnswer>,
    capabilities: Capabilities,
    next_pid: u32,
}

/// One launch that it knows.
struct Fake {
    handle: Handle,
    exit: watch::Sender<Option<Exit>>,
    /// The test has more to tell of its end.
    late: Option<watch::Sender<Option<Exit>>>,
    stopping: bool,
    frozen: bool,
    usage: Usage,
    /// Open as long as the process lives.
    grants: Grants,
}

impl FakeRuntime {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let capabilities = Capabilities {
            cgroup_driver: "fake".into(),
            cgroup_message: "no process is behind this".into(),
            kills_descendants: true,
            ..Capabilities::default()
        };
        let state = State { capabilities, next_pid: 1_000_000, ..State::default() };
        let [frozen, forks_held] = [(); 2].map(|()| Arc::new(watch::channel(false).0));
        Self { clock, state: Arc::new(Mutex::new(state)), frozen, forks_held }
    }

    /// What was started, in order; a start that failed is not among them.
    pub fn started(&self) -> Vec<LaunchSpec> {
        self.state().started.clone()
    }
    /// Names of the descriptors that a launch was given.
    pub fn granted(&self, id: &LaunchId) -> Vec<String> {
        self.state().granted.get(id).cloned().unwrap_or_default()
    }
    /// Calls of `stop`, in order, also for launches that were dead already.
    pub fn stopped(&self) -> Vec<(LaunchId, StopPolicy)> {
        self.state().stopped.clone()
    }
    pub fn signals(&self) -> Vec<(LaunchId, Signal)> {
        self.state().signals.clone()
    }
    pub fn destroyed(&self) -> Vec<LaunchId> {
        self.state().destroyed.clone()
    }
    pub fn jobs(&self) -> Vec<JobSpec> {
        self.state().jobs.clone()
    }
    /// Launches that have not ended.
    pub fn live(&self) -> Vec<LaunchId> {
        self.state().launches.values().filter(|fake| fake.exit.borrow().is_none()).map(|fake| fake.handle.id.clone()).collect()
    }
    pub fn handle(&self, id: &LaunchId) -> Option<Handle> {
        self.state().launches.get(id).map(|fake| fake.handle.clone())
    }

    /// Ends a launch as `exit` says (its `at`, when zero, becomes now). False when there is no such live launch.
    pub fn exit(&self, id: &LaunchId, exit: Exit) -> bool {
        let now = self.clock.now();
        self.state().launches.get_mut(id).is_some_and(|fake| fake.end(exit, now))
    }
    /// Ends a launch without a status; returns what tells the whole exit later.
    pub fn exit_before_its_status(&self, id: &LaunchId) -> Option<watch::Sender<Option<Exit>>> {
        let now = self.clock.now();
        let mut state = self.state();
        let fake = state.launches.get_mut(id)?;
        let late = watch::channel(None).0;
        fake.late = Some(late.clone());
        fake.end(Exit::default(), now).then_some(late)
    }
    /// The next start that is not spoken for answers with this error; several queue up.
    pub fn fail_next_start(&self, error: RuntimeError) {
        self.state().failures.push_back(error);
    }
    /// The next destroy that is not spoken for fails with this error and destroys nothing.
    pub fn fail_next_destroy(&self, error: RuntimeError) {
        self.state().destroy_failures.push_back(error);
    }
    /// From now on launches have no pid, as containers have none.
    pub fn hide_pids(&self) {
        self.state().pidless = true;
    }
    /// Without it every job exits 0 and writes nothing.
    pub fn answer_jobs(&self, answer: impl Fn(&JobSpec) -> Result<JobResult, RuntimeError> + Send + Sync + 'static) {
        self.state().answer = Some(Arc::new(answer));
    }
    /// From now on `stop` hangs until `thaw_stops`, or until the test ends the launch itself.
    pub fn freeze_stops(&self) {
        self.frozen.send_replace(true);
    }
    pub fn thaw_stops(&self) {
        self.frozen.send_replace(false);
    }
    /// From now on a start whose `go` has said true forks nothing yet, until `release_forks`.
    pub fn hold_forks(&self) {
        self.forks_held.send_replace(true);
    }
    pub fn release_forks(&self) {
        self.forks_held.send_replace(false);
    }
    /// From now on `adopt` of this launch is an error.
    pub fn estrange(&self, id: &LaunchId) {
        self.state().strange.insert(id.clone());
    }
    /// As if it had vanished while no daemon ran: `adopt` answers Gone.
    pub fn lose(&self, id: &LaunchId) {
        self.state().launches.remove(id);
    }
    /// As if by somebody else: nobody is told.
    pub fn set_frozen(&self, id: &LaunchId, frozen: bool) {
        if let Some(fake) = self.state().launches.get_mut(id) {
            fake.frozen = frozen;
        }
    }
    /// Calls of `limit_group`, in order.
    pub fn group_limits(&self) -> Vec<(Vec<String>, Resources)> {
        self.state().group_limits.clone()
    }
    pub fn set_usage(&self, id: &LaunchId, usage: Usage) {
        if let Some(fake) = self.state().launches.get_mut(id) {
            fake.usage = usage;
        }
    }
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        self.state().capabilities = capabilities;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exits(&self, handle: &Handle) -> Result<watch::Receiver<Option<Exit>>, RuntimeError> {
        self.state().launches.get(&handle.id).map(|fake| fake.exit.subscribe()).ok_or_else(|| RuntimeError::ForeignHandle(handle.id.clone()))
    }
}

impl Fake {
    fn end(&mut self, mut exit: Exit, now: crate::model::Timestamp) -> bool {
        if exit.at == crate::model::Timestamp::default() {
            exit.at = now;
        }
        exit.requested |= self.stopping;
        self.grants = Grants::default();
        self.exit.send_if_modified(|slot| {
            let live = slot.is_none();
            if live {
                *slot = Some(exit);
            }
            live
        })
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn capabilities(&self) -> Capabilities {
        self.state().capabilities.clone()
    }

    async fn start_when(&self, go: BoxFuture<'static, bool>, spec: LaunchSpec, mut grants: Grants) -> Result<Handle, RuntimeError> {
        if !go.await {
            return Err(RuntimeError::CalledOff(spec.id));
        }
        let _ = self.forks_held.subscribe().wait_for(|held| !held).await; // we have the sender ourselves
        grants.let_go.take().into_iter().for_each(|LetGo(let_go)| let_go());
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        state.next_pid += 1;
        let pid = (!state.pidless).then_some(state.next_pid);
        let handle = Handle { id: spec.id.clone(), version: 1, pid, started_at: now, state: RawJson::null() };
        state.started.push(spec.clone());
        state.granted.insert(spec.id.clone(), grants.fds.iter().map(|(name, _)| name.clone()).collect());
        let fake = Fake {
            handle: handle.clone(),
            exit: watch::channel(None).0,
            late: None,
            stopping: false,
            frozen: false,
            usage: Usage::default(),
            grants,
        };
        state.launches.insert(spec.id.clone(), fake);
        Ok(handle)
    }

    async fn adopt(&self, handle: &Handle) -> Result<Adopted, RuntimeError> {
        let state = self.state();
        if state.strange.contains(&handle.id) {
            return Err(RuntimeError::ForeignHandle(handle.id.clone()));
        }
        let Some(fake) = state.launches.get(&handle.id) else { return Ok(Adopted::Gone) };
        let exit = fake.exit.borrow().clone();
        Ok(exit.map_or(Adopted::Running, Adopted::Exited))
    }

    async fn find(&self, id: &LaunchId) -> Result<Option<Handle>, RuntimeError> {
        Ok(self.handle(id))
    }

    fn late_exit(&self, handle: &Handle) -> Option<BoxFuture<'static, Exit>> {
        let mut late = self.state().launches.get(&handle.id)?.late.as_ref()?.subscribe();
        Some(Box::pin(async move { late.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()).unwrap_or_default() }))
    }

    async fn wait(&self, handle: &Handle) -> Result<Exit, RuntimeError> {
        let mut exits = self.exits(handle)?;
        let lost = || RuntimeError::ForeignHandle(handle.id.clone());
        let exit = exits.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        exit.ok_or_else(lost)
    }

    async fn stop(&self, handle: &Handle, policy: StopPolicy) -> Result<Exit, RuntimeError> {
        {
            let mut state = self.state();
            state.stopped.push((handle.id.clone(), policy));
            if let Some(fake) = state.launches.get_mut(&handle.id) {
                fake.stopping = true;
            }
        }
        let mut frozen = self.frozen.subscribe();
        tokio::select! {
            ended = self.wait(handle) => return ended,
            _ = frozen.wait_for(|frozen| !frozen) => {}
        }
        self.exit(&handle.id, Exit { signal: Some(policy.signal as i32), requested: true, ..Exit::default() });
        self.wait(handle).await
    }

    async fn signal(&self, handle: &Handle, signal: Signal) -> Result<(), RuntimeError> {
        self.state().signals.push((handle.id.clone(), signal));
        if signal == Signal::SIGCONT {
            self.set_frozen(&handle.id, false); // as where no freezer is
        }
        Ok(())
    }

    async fn freeze(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.set_frozen(&handle.id, true);
        Ok(())
    }

    async fn thaw(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.set_frozen(&handle.id, false);
        Ok(())
    }

    async fn is_frozen(&self, handle: &Handle) -> Result<bool, RuntimeError> {
        Ok(self.state().launches.get(&handle.id).is_some_and(|fake| fake.frozen && fake.exit.borrow().is_none()))
    }

    async fn limit_group(&self, path: &[String], limits: &Resources) -> Result<(), RuntimeError> {
        self.state().group_limits.push((path.to_vec(), *limits));
        Ok(())
    }

    async fn clear(&self, _handle: &Handle) -> Result<(), RuntimeError> {
        self.state().destroy_failures.pop_front().map_or(Ok(()), Err)
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(error) = state.destroy_failures.pop_front() {
            return Err(error);
        }
        state.destroyed.push(handle.id.clone());
        if let Some(mut fake) = state.launches.remove(&handle.id) {
            fake.stopping = true;
            fake.end(Exit { signal: Some(Signal::SIGKILL as i32), ..Exit::default() }, now);
        }
        Ok(())
    }

    async fn usage(&self, handle: &Handle) -> Result<Usage, RuntimeError> {
        self.state().launches.get(&handle.id).map(|fake| fake.usage).ok_or_else(|| RuntimeError::ForeignHandle(handle.id.clone()))
    }

    async fn processes(&self, _: &Handle) -> Result<Option<Vec<u32>>, RuntimeError> {
        Ok(None)
    }

    async fn run(&self, job: &JobSpec) -> Result<JobResult, RuntimeError> {
        let answer = {
            let mut state = self.state();
            state.jobs.push(job.clone());
            state.answer.clone()
        };
        if let Some(answer) = answer {
            return answer(job);
        }
        let exit = Exit { code: Some(0), at: self.clock.now(), ..Exit::default() };
        let stdout = job.out_dir.join(format!("{}.out", job.name));
        let stderr = job.out_dir.join(format!("{}.err", job.name));
        Ok(JobResult { name: job.name.clone(), exit, stdout, stderr })
    }

    async fn owned(&self) -> Result<Vec<LaunchId>, RuntimeError> {
        Ok(self.live())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Timestamp, sys::ManualClock};
    use std::time::Duration;

    fn fake() -> FakeRuntime {
        FakeRuntime::new(Arc::new(ManualClock::at(Timestamp::from_millis(1_000))))
    }

    async fn started(fake: &FakeRuntime, id: &str) -> Handle {
        let spec = LaunchSpec { id: LaunchId(id.into()), ..LaunchSpec::default() };
        fake.start(spec, Grants::default()).await.unwrap()
    }

    const POLICY: StopPolicy = StopPolicy { signal: Signal::SIGTERM, grace: Duration::ZERO };

    #[tokio::test]
    async fn the_test_decides_how_a_launch_ends() {
        let fake = fake();
        let handle = started(&fake, "a").await;
        assert_eq!(fake.live(), std::slice::from_ref(&handle.id));
        assert!(fake.exit(&handle.id, Exit { code: Some(7), ..Exit::default() }));
        assert!(!fake.exit(&handle.id, Exit::default()), "it ends once");
        let exit = fake.wait(&handle).await.unwrap();
        assert_eq!((exit.code, exit.requested, exit.at), (Some(7), false, Timestamp::from_millis(1_000)));
        assert_eq!(fake.adopt(&handle).await.unwrap(), Adopted::Exited(exit));
    }

    #[tokio::test]
    async fn a_frozen_stop_waits_for_the_thaw() {
        let fake = fake();
        let handle = started(&fake, "a").await;
        fake.freeze_stops();
        let (runtime, same) = (fake.clone(), handle.clone());
        let stop = tokio::spawn(async move { runtime.stop(&same, POLICY).await });
        tokio::task::yield_now().await;
        assert!(!stop.is_finished());
        assert_eq!(fake.live().len(), 1);
        fake.thaw_stops();
        assert!(stop.await.unwrap().unwrap().requested);
        assert!(fake.live().is_empty());
    }

    #[tokio::test]
    async fn a_start_fails_once_when_told_to() {
        let fake = fake();
        fake.fail_next_start(RuntimeError::NoProgram { program: "/x".into() });
        let refused = fake.start(LaunchSpec::default(), Grants::default()).await;
        assert!(matches!(refused, Err(RuntimeError::NoProgram { .. })));
        started(&fake, "a").await;
        assert_eq!(fake.started().len(), 1);
    }

    #[tokio::test]
    async fn destroy_forgets_and_frees_the_waiters() {
        let fake = fake();
        let handle = started(&fake, "a").await;
        let (runtime, same) = (fake.clone(), handle.clone());
        let waiter = tokio::spawn(async move { runtime.wait(&same).await });
        tokio::task::yield_now().await;
        fake.destroy(&handle).await.unwrap();
        assert_eq!(waiter.await.unwrap().unwrap().signal, Some(9));
        assert_eq!(fake.adopt(&handle).await.unwrap(), Adopted::Gone);
    }
}
