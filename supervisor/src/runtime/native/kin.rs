//! Who belongs to a launch: by cgroup, by session, by its marks. Every find is held by descriptor.

use super::{
    Inner,
    marks::Marks,
    orphans::{has_open, orphans},
};
use crate::{
    cgroup::Leaf,
    model::LaunchId,
    reaper::{HOME_ID_VAR, Identity, LAUNCH_ID_VAR, is_of_another_home},
    sys::{Pidfd, ProcessStat, all_pids, last_pid, process_env, process_stat},
};
use nix::sys::signal::Signal;
use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

/// A live process that was checked to belong to a launch after its descriptor was opened.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) pid: u32,
    pub(super) pidfd: Pidfd,
}

/// What is done with a process in the moment that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Find {
    /// It goes on.
    Hold,
    /// It is told to stand still (SIGSTOP): one that forks and ends would be gone by the time that all are found.
    Halt,
}

impl Kin {
    pub(super) fn is_alive(&self) -> bool {
        self.pidfd.poll().is_ok_and(|(ended, _)| !ended)
    }

    pub(super) fn checked(pid: u32, how: Find, belongs: impl Fn() -> bool) -> Option<Self> {
        if !belongs() {
            return None;
        }
        let kin = Self { pid, pidfd: Pidfd::open(pid).ok()? };
        // Once more, now that the descriptor holds whoever has the pid.
        if !belongs() || !kin.is_alive() {
            return None;
        }
        if how == Find::Halt {
            let _ = kin.pidfd.signal(Signal::SIGSTOP); // who does not obey is seen to go on
        }
        Some(kin)
    }
}

pub(super) fn of_leaf(leaf: &Leaf, how: Find) -> Vec<Kin> {
    leaf.pids().into_iter().filter_map(|pid| Kin::checked(pid, how, || leaf.pids().contains(&pid))).collect()
}

/// Live processes with this launch's marks, and those of its session as long as that session is known to be its own: while the main
/// process holds the pid, or a survivor the session. Where orphans come to us, `log` tells whose one is, by any of its descriptors; there
/// also all that descends from any of them.
pub(super) fn of_launch(identity: &Identity, marks: &Marks, survivors: &[Kin], log: Option<(u64, u64)>, how: Find) -> Vec<Kin> {
    let session_is_ours = || {
        process_stat(identity.pid).is_some_and(|stat| stat.start_time == identity.start_time)
            || survivors.iter().any(|kin| kin.is_alive() && process_stat(kin.pid).is_some_and(|stat| stat.session == identity.pid))
    };
    let in_session = |pid| process_stat(pid).is_some_and(|stat| !stat.is_zombie() && (stat.session == identity.pid || stat.group == identity.pid));
    let survives = |pid| survivors.iter().any(|kin| kin.pid == pid && kin.is_alive());
    let of_session = |pid| in_session(pid) && session_is_ours() && !is_of_another_home(pid, &marks.home_id);
    let marked = |pid| marks.are_on(pid, &identity.launch_id);
    let mut kin = search(how, |pid| marked(pid) || of_session(pid) || survives(pid));
    if let Some(log) = log {
        let left = orphans().into_iter().filter(|stat| !kin.iter().any(|kin| kin.pid == stat.pid)).collect::<Vec<_>>();
        let is_same = |was: &ProcessStat| process_stat(was.pid).is_some_and(|now| now.start_time == was.start_time);
        kin.extend(left.into_iter().filter_map(|stat| Kin::checked(stat.pid, how, || is_same(&stat) && has_open(stat.pid, log))));
        add_descendants(&mut kin, how);
    }
    kin
}

/// Whose parent is kin is kin: as long as we hold the parent and it lives, its pid is its own.
fn add_descendants(kin: &mut Vec<Kin>, how: Find) {
    let stats: Vec<_> = others().into_iter().filter_map(process_stat).collect();
    let mut looked_at = 0;
    while looked_at < kin.len() {
        let parent = &kin[looked_at];
        let is_child = |pid| process_stat(pid).is_some_and(|stat| stat.parent == parent.pid) && parent.is_alive();
        let children = stats.iter().filter(|stat| stat.parent == parent.pid && !kin.iter().any(|kin| kin.pid == stat.pid));
        let children: Vec<Kin> = children.filter_map(|stat| Kin::checked(stat.pid, how, || is_child(stat.pid))).collect();
        kin.extend(children);
        looked_at += 1;
    }
}

/// Live processes with this launch's marks: all that is known of a launch without a handle.
pub(super) fn of_id(id: &LaunchId, marks: &Marks, how: Find) -> Vec<Kin> {
    search(how, |pid| marks.are_on(pid, &id.0))
}

/// One that was listed may have forked and ended before it was looked at, so this goes on until nobody new is listed, which on a busy
/// machine may be never. The youngest first: one that forks and ends is gone in a moment.
fn search(how: Find, belongs: impl Fn(u32) -> bool) -> Vec<Kin> {
    const LISTS: u32 = 20;
    let (mut listed, mut found) = (HashSet::new(), Vec::new());
    for _ in 0..LISTS {
        let mut fresh: Vec<u32> = others().into_iter().filter(|pid| listed.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.sort_unstable_by_key(|pid| std::cmp::Reverse(*pid));
        found.extend(fresh.into_iter().filter_map(|pid| Kin::checked(pid, how, || belongs(pid))));
    }
    found
}

/// How long a process may take to be scheduled once more, which is when it stops.
const HALT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks: no event tells of the stop of a process that is not our child.
const HALT_PAUSE: Duration = Duration::from_millis(2);

/// How many looks in a row that find nobody are believed, though somebody forked meanwhile.
const EMPTY_LOOKS: u32 = 5;

/// Looks, and tells all to stand still, until nobody new is found and all that were found stand still. False: some went on and on. Blocking.
/// That nobody was found is sure only when nobody forked while we looked: each generation of one that forks and ends can slip through.
pub(super) fn halt(look: impl Fn(Find) -> Vec<Kin>) -> (Vec<Kin>, bool) {
    let started = Instant::now();
    let mut held: Vec<Kin> = Vec::new();
    let mut empty_looks = 0;
    loop {
        let youngest = last_pid();
        let mut found = look(Find::Halt);
        if held.is_empty() && found.is_empty() && empty_looks < EMPTY_LOOKS && last_pid() != youngest {
            empty_looks += 1;
            continue;
        }
        held.retain(Kin::is_alive);
        found.retain(|kin| !held.iter().any(|old| old.pid == kin.pid));
        let still = found.is_empty() && held.iter().all(|kin| is_held(kin.pid));
        held.extend(found);
        if still || started.elapsed() > HALT_PATIENCE {
            return (held, still);
        }
        std::thread::sleep(HALT_PAUSE);
    }
}

/// It stands still, or waits in the kernel, perhaps for a child that stands still, and stops before it does anything else.
pub(super) fn is_held(pid: u32) -> bool {
    match process_stat(pid) {
        Some(stat) if stat.state == 'D' => stop_is_pending(pid),
        // Stopped by a signal or a debugger, or dead.
        stat => stat.is_none_or(|stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X')),
    }
}

fn stop_is_pending(pid: u32) -> bool {
    const STOP: u64 = 1 << (Signal::SIGSTOP as u64 - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & STOP != 0)
}

impl Inner {
    /// See the trait. Jobs that we run now are no strays.
    pub(super) fn owned(&self) -> Vec<LaunchId> {
        let held = self.launches().values().filter(|running| !running.has_ended()).map(|running| running.id.0.clone()).collect::<Vec<_>>();
        let in_leaves = self.cgroups.leaves().into_iter().filter(|(_, leaf)| leaf.populated().unwrap_or(false)).map(|(id, _)| id);
        let with_token = others().into_iter().filter_map(|pid| {
            let ours = process_env(pid, HOME_ID_VAR)? == self.marks.home_id;
            ours.then(|| process_env(pid, LAUNCH_ID_VAR)).flatten()
        });
        let ids: BTreeSet<LaunchId> = held.into_iter().chain(in_leaves).chain(with_token).map(LaunchId).collect();
        let jobs = self.jobs();
        ids.into_iter().filter(|id| !jobs.contains(id)).collect()
    }
}

/// All processes but ourselves: a daemon under test may stand in somebody's launch itself.
pub(super) fn others() -> Vec<u32> {
    let me = std::process::id();
    all_pids().unwrap_or_default().into_iter().filter(|pid| *pid != me).collect()
}
