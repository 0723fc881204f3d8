//! One launch that we hold: its process, its cgroup, its exit once there is one.

use super::{
    kin::{self, Find, Kin},
    marks::Marks,
};
use crate::{
    cgroup::Leaf,
    model::{Exit, LaunchId, Timestamp},
    reaper::{Identity, Process, Status},
    runtime::RuntimeError,
    sys::{Clock, failpoint},
};
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// What is known of its end.
#[derive(Clone, Debug)]
struct End {
    exit: Exit,
    /// Nothing more will be known.
    settled: bool,
}

/// When we came to watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Live,
    /// It had ended already.
    Afterwards,
}

pub(super) struct Running {
    pub(super) id: LaunchId,
    pub(super) identity: Identity,
    marks: Arc<Marks>,
    pub(super) leaf: Option<Leaf>,
    /// Last sample of cpu time, for the difference.
    pub(super) sampled: Mutex<Option<super::usage::Sample>>,
    pub(super) started_at: Timestamp,
    process: Process,
    end: watch::Sender<Option<End>>,
    requested: AtomicBool,
    /// Device and inode of its log, where that tells whose orphan a process is.
    log: Option<(u64, u64)>,
    /// Without a cgroup: who was found to belong to it, when that could still be seen.
    survivors: Mutex<Vec<Kin>>,
}

/// How long a death waits for a status that only the process's parent can free.
const STATUS_GRACE: Duration = Duration::from_millis(50);
/// How long the status may come late; `adopt` tells it from then on.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

impl Running {
    pub(super) fn new(
        identity: Identity,
        marks: &Arc<Marks>,
        process: Process,
        leaf: Option<Leaf>,
        log: Option<(u64, u64)>,
        started_at: Timestamp,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: LaunchId(identity.launch_id.clone()),
            identity,
            marks: Arc::clone(marks),
            leaf,
            sampled: Mutex::default(),
            started_at,
            process,
            end: watch::channel(None).0,
            requested: AtomicBool::new(false),
            log,
            survivors: Mutex::default(),
        })
    }

    /// Waits for its end on a task of its own.
    pub(super) fn watch(self: &Arc<Self>, clock: Arc<dyn Clock>, seen: Seen) {
        let running = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = running.process.ended().await {
                tracing::error!(launch = %running.id, %error, "cannot watch a process; taken for dead");
            }
            Box::pin(running.conclude(clock.now(), seen)).await; // there is a task for each launch: its room is needed at the end only
        });
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.end.borrow().as_ref().map(|end| end.exit.clone())
    }

    pub(super) async fn exited(&self) -> Exit {
        let mut ends = self.end.subscribe();
        // The sender is ours, so it outlives the wait.
        let end = ends.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.map(|end| end.exit).unwrap_or_default()
    }

    /// See the trait.
    pub(super) fn late_exit(self: &Arc<Self>) -> Option<BoxFuture<'static, Exit>> {
        let mut ends = self.end.subscribe();
        if ends.borrow_and_update().as_ref().is_none_or(|end| end.settled) {
            return None;
        }
        let running = Arc::clone(self);
        Some(Box::pin(async move {
            let _ = ends.wait_for(|end| end.as_ref().is_some_and(|end| end.settled)).await;
            running.exit().unwrap_or_default()
        }))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    pub(super) fn log(&self) -> Option<(u64, u64)> {
        self.log
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Asks the kernel, not our memory.
    pub(super) fn is_dead(&self) -> bool {
        self.process.has_ended()
    }

    /// What comes now is our doing. No effect on an exit that is there already.
    pub(super) fn request_end(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), RuntimeError> {
        self.process.signal(signal).map_err(|source| RuntimeError::Io { path: format!("/proc/{}", self.identity.pid).into(), source })
    }

    /// To all in the process group that it began with, at once, so that no fork slips through; false before Linux 6.9.
    pub(super) fn signal_group(&self, signal: Signal) -> bool {
        self.process.signal_group(signal).unwrap_or(false)
    }

    /// Every live process of the launch, held by descriptor: of its cgroup, else of its session or with its marks. Reads /proc.
    pub(super) fn members(&self, how: Find) -> Vec<Kin> {
        match &self.leaf {
            Some(leaf) => kin::of_leaf(leaf, how),
            None => self.kin(&self.survivors.lock().unwrap_or_else(PoisonError::into_inner), how),
        }
    }

    /// Its cgroup, where that can be frozen.
    pub(super) fn freezer(&self) -> Option<&Leaf> {
        self.leaf.as_ref().filter(|leaf| leaf.can_freeze())
    }

    async fn conclude(self: &Arc<Self>, at: Timestamp, seen: Seen) {
        failpoint("exit/seen");
        let mut status = self.process.status();
        if status == Status::default() && timeout(STATUS_GRACE, self.process.reaped()).await.is_ok() {
            status = self.process.status();
        }
        let counters = self.leaf.as_ref().map(Leaf::counters).unwrap_or_default();
        let cpu_micros = counters.cpu_micros.or_else(|| self.cpu_micros_of_main());
        if self.leaf.is_none() {
            self.remember_survivors().await;
        }
        self.process.reap();
        failpoint("exit/reaped");
        let exit = Exit {
            code: status.code,
            signal: status.signal,
            at,
            oom_killed: counters.oom.is_some(),
            memory_peak: counters.memory_peak,
            cpu_time_ms: cpu_micros.map(|micros| micros / 1_000),
            oom: counters.oom,
            core_dumped: status.core_dumped,
            requested: self.requested.load(Ordering::SeqCst),
            unseen: seen == Seen::Afterwards,
            rebooted: false,
        };
        let settled = status != Status::default() || !self.process.tells_late();
        self.end.send_replace(Some(End { exit, settled }));
        if !settled {
            let _ = timeout(STATUS_PATIENCE, self.process.reaped()).await;
            self.settle(self.process.status());
        }
    }

    /// While the zombie holds its pid, its session cannot be anybody else's: the last moment to see who belongs to it.
    pub(super) async fn remember_survivors(self: &Arc<Self>) {
        let running = Arc::clone(self);
        let look = move || {
            let mut survivors = running.survivors.lock().unwrap_or_else(PoisonError::into_inner);
            let found = running.kin(&survivors, Find::Hold);
            *survivors = found;
        };
        let _ = tokio::task::spawn_blocking(look).await;
    }

    fn kin(&self, survivors: &[Kin], how: Find) -> Vec<Kin> {
        kin::of_launch(&self.identity, &self.marks, survivors, self.log, how)
    }

    fn settle(&self, status: Status) {
        self.end.send_modify(|end| {
            if let Some(End { exit, settled }) = end {
                (exit.code, exit.signal, exit.core_dumped, *settled) = (status.code, status.signal, status.core_dumped, true);
            }
        });
    }
}
