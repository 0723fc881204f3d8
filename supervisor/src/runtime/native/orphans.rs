//! Without cgroups the daemon is the subreaper of what it starts: a grandchild whose parents have gone becomes the daemon's child,
//! instead of a stranger's under PID 1. So it is found, and what has died of it is reaped.

use super::Inner;
use crate::sys::{ProcessStat, age, all_pids, process_stat};
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// Those who started a child themselves reap it at once; what is still a zombie then has nobody but us.
const PATIENCE: Duration = Duration::from_secs(3);
/// After a reload, launches of before are children that are taken up first.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// From now on orphans of our descendants come to us. It stays so over an exec.
pub(super) fn take_in(inner: &Arc<Inner>) -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut deaths = {
        let _inside = tokio::runtime::Handle::current().enter();
        signal(SignalKind::child())?
    };
    let weak = Arc::downgrade(inner);
    tokio::spawn(async move {
        sleep(FIRST_LOOK).await;
        let mut left = look(&weak).await;
        while let Some(again) = left {
            // Only a death can make a zombie; a young one is looked at once more.
            if !again && deaths.recv().await.is_none() {
                return;
            }
            sleep(PATIENCE).await;
            left = look(&weak).await;
        }
    });
    Ok(())
}

/// Live orphans, and main processes of launches with them.
pub(super) fn orphans() -> Vec<ProcessStat> {
    adopted().into_iter().filter(|stat| !stat.is_zombie()).collect()
}

/// Whether the process has this file open: a launch's log is its own alone, and what it starts inherits it.
pub(super) fn has_open(pid: u32, file: (u64, u64)) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|about| (about.dev(), about.ino()) == file)
}

/// None: the runtime is gone. True: a zombie was too young to be sure of.
async fn look(inner: &Weak<Inner>) -> Option<bool> {
    let inner = inner.upgrade()?;
    tokio::task::spawn_blocking(move || inner.reap_orphans()).await.ok()
}

impl Inner {
    fn reap_orphans(&self) -> bool {
        let zombies = adopted().into_iter().filter(|stat| stat.is_zombie() && !self.is_main(stat.pid));
        // One that was forked just now may not be in our books yet.
        let (young, old): (Vec<_>, Vec<_>) = zombies.partition(|stat| age(stat.start_time).is_none_or(|age| age < PATIENCE));
        for pid in old.iter().filter_map(|stat| Pid::from_raw(stat.pid.cast_signed())) {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        !young.is_empty()
    }

    fn is_main(&self, pid: u32) -> bool {
        self.launches().values().any(|running| running.identity.pid == pid)
    }
}

/// Children outside our session. Those that the daemon keeps for itself, plugins and tools, stay within it; launches do not.
fn adopted() -> Vec<ProcessStat> {
    let me = std::process::id();
    // Not by getsid of rustix: in a PID namespace the leader may be outside, and then the session is 0.
    let session = process_stat(me).map(|stat| stat.session).unwrap_or_default();
    let stats = all_pids().unwrap_or_default().into_iter().filter_map(process_stat);
    stats.filter(|stat| stat.parent == me && stat.session != session).collect()
}
