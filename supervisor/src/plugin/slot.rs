//! The place of one plugin: at most one process in it, started on demand, kept while it is used, held back when it fails.
//!
//! ```text
//!         call             GetInfo ok               idle for a while
//! Idle ─────────► Starting ──────────► Running ──────────────────────► Idle
//!                    │ ▲ call, wait over  │ dies, hangs, pollutes
//!              fails ▼ │                  ▼
//!                   Backoff ◄─────────────┘        Starting ── other protocol ──► Broken, until the file is another
//! ```

use super::{
    HostSettings, PluginError, PluginInfo, client,
    process::Process,
    search::{Executable, FileIdentity, Search},
};
use crate::{model::Timestamp, sys::Clock};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// A process that lived for so long counts as sound: its death is the first failure again.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// For a plugin that only says who it is: somebody waits for the list.
const INTRODUCED_WITHIN: Duration = Duration::from_secs(3);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What all slots of a host share.
pub(super) struct Shared {
    pub(super) settings: HostSettings,
    pub(super) search: Search,
    pub(super) clock: Arc<dyn Clock>,
}

pub(super) struct Slot {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    /// Held while a process is being started.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Running>>,
    backoff: Backoff,
    /// Kept for as long as the executable is this one.
    refusal: Option<(FileIdentity, PluginError)>,
    /// What it said of itself, and the executable that said it.
    info: Option<(FileIdentity, PluginInfo)>,
}

pub(super) struct Running {
    pub(super) process: Process,
    pub(super) info: PluginInfo,
    identity: FileIdentity,
    started: Timestamp,
    in_use: watch::Sender<usize>,
    lost: AtomicBool,
}

/// The right to use the process: it is not stopped for idleness while one exists.
pub(super) struct Lease {
    slot: Arc<Slot>,
    pub(super) running: Arc<Running>,
}

impl Lease {
    fn new(slot: &Arc<Slot>, running: Arc<Running>) -> Self {
        running.in_use.send_modify(|count| *count += 1);
        Self { slot: slot.clone(), running }
    }
    /// The process is of no more use: nobody gets it again, and the failure counts, once.
    pub(super) fn lost(&self, why: &PluginError) {
        self.slot.lost(&self.running, why);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.running.in_use.send_modify(|count| *count -= 1);
    }
}

impl Slot {
    pub(super) fn new(name: &str, shared: Arc<Shared>) -> Self {
        Self { name: name.to_owned(), shared, starting: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// The running process, or a new one.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, PluginError> {
        if let Some(lease) = self.current() {
            return Ok(lease);
        }
        // A task of its own: the start goes on when the caller loses patience, and the next one has it.
        let slot = self.clone();
        let started = tokio::spawn(async move {
            let _starting = slot.starting.lock().await;
            match slot.current() {
                Some(lease) => Ok(lease),
                None => slot.start().await,
            }
        });
        started.await.unwrap_or_else(|error| Err(PluginError::Spawn { name: self.name.clone(), reason: error.to_string() }))
    }

    /// Lets it say who it is, once for each build of it. It is started for that alone and stopped again, unless it runs anyway.
    pub(super) async fn introduce(&self) {
        let _starting = self.starting.lock().await;
        let Some(exe) = self.shared.search.find(&self.name) else { return };
        let is_known = self.state().info.as_ref().is_some_and(|(identity, _)| *identity == exe.identity);
        if is_known || self.admit(&exe).is_err() {
            return;
        }
        if let Ok((process, _)) = self.begin(&exe, INTRODUCED_WITHIN).await {
            process.stop().await;
        }
    }

    /// State word and message for `get plugins`, and what this executable said of itself.
    pub(super) fn describe(&self, exe: &Executable) -> (&'static str, String, Option<PluginInfo>) {
        let now = self.shared.clock.now();
        let state = self.state();
        let (word, message) = match (&state.running, &state.refusal, state.backoff.wait(now)) {
            (Some(_), _, _) => ("Running", String::new()),
            (None, Some((_, refusal)), _) => ("Broken", refusal.to_string()),
            (None, None, Some(wait)) => ("Backoff", format!("tried again in {wait:?}; last: {}", state.backoff.last)),
            (None, None, None) => ("Idle", state.backoff.last.clone()),
        };
        let info = state.info.as_ref().filter(|(identity, _)| *identity == exe.identity).map(|(_, info)| info.clone());
        (word, message, info)
    }

    /// Stops the process, if there is one, and waits until it is gone.
    pub(super) async fn stop(&self) {
        let running = self.state().running.take();
        if let Some(running) = running {
            running.process.stop().await;
        }
    }

    fn current(self: &Arc<Self>) -> Option<Lease> {
        let found = self.shared.search.find(&self.name);
        let mut state = self.state();
        let running = state.running.clone()?;
        // Replaced by another build: the old process ends with its last call. Gone for a moment: a build is under way.
        if found.is_some_and(|exe| exe.identity != running.identity) {
            state.running = None;
            return None;
        }
        Some(Lease::new(self, running))
    }

    async fn start(self: &Arc<Self>) -> Result<Lease, PluginError> {
        let exe = self.shared.search.find(&self.name).ok_or_else(|| self.shared.search.missing(&self.name))?;
        self.admit(&exe)?;
        let (process, info) = self.begin(&exe, self.shared.settings.call_limit).await?;
        let started = self.shared.clock.now();
        let running = Running { process, info, identity: exe.identity, started, in_use: watch::Sender::new(0), lost: AtomicBool::new(false) };
        let running = Arc::new(running);
        self.state().running = Some(running.clone());
        tracing::debug!(plugin = self.name, path = %exe.path.display(), "plugin started");
        tokio::spawn(watch_end(Arc::downgrade(self), Arc::downgrade(&running), running.process.gone()));
        let idle_after = self.shared.settings.idle_after;
        tokio::spawn(stop_when_idle(Arc::downgrade(self), Arc::downgrade(&running), running.in_use.subscribe(), idle_after));
        Ok(Lease::new(self, running))
    }

    /// A process that has said who it is; a failure counts.
    async fn begin(&self, exe: &Executable, limit: Duration) -> Result<(Process, PluginInfo), PluginError> {
        let process = Process::spawn(&self.name, &exe.path, &self.shared.settings.env).await;
        let begun = match process {
            Ok(process) => match client::handshake(&self.name, exe.by_name, &process, limit).await {
                Ok(info) => Ok((process, info)),
                Err(error) => {
                    process.stop().await;
                    Err(error)
                }
            },
            Err(error) => Err(error),
        };
        let now = self.shared.clock.now();
        let mut state = self.state();
        match begun {
            Ok((process, info)) => {
                state.info = Some((exe.identity, info.clone()));
                Ok((process, info))
            }
            Err(error @ PluginError::Incompatible { .. }) => {
                state.refusal = Some((exe.identity, error.clone()));
                Err(error)
            }
            Err(error) => {
                state.backoff.fail(now, Duration::ZERO, error.to_string());
                Err(error)
            }
        }
    }

    /// Whether this executable may be tried now. Another build than the last one may always.
    fn admit(&self, exe: &Executable) -> Result<(), PluginError> {
        let now = self.shared.clock.now();
        let mut state = self.state();
        if let Some((identity, refusal)) = &state.refusal {
            if *identity == exe.identity {
                return Err(refusal.clone());
            }
            state.refusal = None;
        }
        if state.backoff.of != Some(exe.identity) {
            state.backoff = Backoff { of: Some(exe.identity), ..Backoff::default() };
        }
        match state.backoff.wait(now) {
            Some(retry_in) => {
                Err(PluginError::Backoff { name: self.name.clone(), failures: state.backoff.failures, retry_in, last: state.backoff.last.clone() })
            }
            None => Ok(()),
        }
    }

    fn lost(&self, running: &Arc<Running>, why: &PluginError) {
        let now = self.shared.clock.now();
        let mut state = self.state();
        if state.running.as_ref().is_some_and(|current| Arc::ptr_eq(current, running)) {
            state.running = None;
        }
        if !running.lost.swap(true, Ordering::SeqCst) {
            state.backoff.fail(now, now.since(running.started), why.to_string());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices a death between two calls.
async fn watch_end(slot: Weak<Slot>, running: Weak<Running>, gone: impl Future<Output = bool>) {
    if gone.await {
        return;
    }
    let (Some(slot), Some(running)) = (slot.upgrade(), running.upgrade()) else { return };
    let error = running.process.failure("no call").await;
    tracing::warn!(plugin = slot.name, "{error}");
    slot.lost(&running, &error);
}

/// One timer per quiet spell; an idle plugin costs nothing, a used one no wake-up.
async fn stop_when_idle(slot: Weak<Slot>, running: Weak<Running>, mut in_use: watch::Receiver<usize>, idle_after: Duration) {
    loop {
        if in_use.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        match tokio::time::timeout(idle_after, in_use.changed()).await {
            Ok(Ok(())) => continue,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        let (Some(slot), Some(running)) = (slot.upgrade(), running.upgrade()) else { return };
        {
            let mut state = slot.state();
            if *running.in_use.borrow() > 0 {
                continue;
            }
            if state.running.as_ref().is_some_and(|current| Arc::ptr_eq(current, &running)) {
                state.running = None;
            }
        }
        tracing::debug!(plugin = slot.name, "plugin stopped, nobody uses it");
        running.process.stop().await;
        return;
    }
}

/// How often it failed in a row, and when it may be tried again.
#[derive(Clone, Debug, Default)]
struct Backoff {
    of: Option<FileIdentity>,
    failures: u32,
    at: Timestamp,
    last: String,
}

impl Backoff {
    fn fail(&mut self, now: Timestamp, lived: Duration, last: String) {
        self.failures = if lived >= SOUND_AFTER { 1 } else { self.failures.saturating_add(1) };
        self.at = now;
        self.last = last;
    }
    /// None: now. The first failure is free; then 0.5 s, 1 s, 2 s ... 30 s. A clock that went back does not lengthen it.
    fn wait(&self, now: Timestamp) -> Option<Duration> {
        let doublings = self.failures.checked_sub(2)?;
        let delay = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_WAIT);
        let wait = delay.saturating_sub(now.since(self.at));
        (now >= self.at && !wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_runs_out() {
        let at = Timestamp::from_millis(1_000_000);
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            backoff.fail(at, Duration::ZERO, "x".into());
            waits.push(backoff.wait(at).map_or(0, |wait| wait.as_millis()));
        }
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.wait(at.plus(Duration::from_millis(29_999))), Some(Duration::from_millis(1)));
        assert_eq!(backoff.wait(at.plus(Duration::from_secs(30))), None);
        assert_eq!(backoff.wait(Timestamp::from_millis(0)), None);
    }

    #[test]
    fn a_long_life_forgives_what_was_before() {
        let now = Timestamp::from_millis(1_000_000);
        let mut backoff = Backoff::default();
        (0..5).for_each(|_| backoff.fail(now, Duration::from_secs(1), "x".into()));
        backoff.fail(now, SOUND_AFTER, "x".into());
        assert_eq!(backoff.failures, 1);
    }
}
