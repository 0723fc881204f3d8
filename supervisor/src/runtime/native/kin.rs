//! Who belongs to a launch: by cgroup, by session, by the launch id in the environment. Every find is held by descriptor.

use super::{
    Inner,
    orphans::{has_open, orphans},
};
use crate::{
    cgroup::Leaf,
    model::LaunchId,
    reaper::{HOME_ID_VAR, Identity, LAUNCH_ID_VAR, carries, is_of_another_home},
    sys::{Pidfd, all_pids, process_env, process_stat},
};
use std::collections::BTreeSet;

/// A live process that was checked to belong to a launch after its descriptor was opened.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) pid: u32,
    pub(super) pidfd: Pidfd,
}

impl Kin {
    fn is_alive(&self) -> bool {
        self.pidfd.poll().is_ok_and(|(ended, _)| !ended)
    }

    pub(super) fn checked(pid: u32, belongs: impl Fn() -> bool) -> Option<Self> {
        if !belongs() {
            return None;
        }
        let kin = Self { pid, pidfd: Pidfd::open(pid).ok()? };
        // Once more, now that the descriptor holds whoever has the pid.
        (belongs() && kin.is_alive()).then_some(kin)
    }
}

pub(super) fn of_leaf(leaf: &Leaf) -> Vec<Kin> {
    leaf.pids().into_iter().filter_map(|pid| Kin::checked(pid, || leaf.pids().contains(&pid))).collect()
}

/// Live processes with this launch id, and those of its session as long as that session is known to be its own: while the main
/// process holds the pid, or a survivor the session. Where orphans come to us, `log` tells whose one is; there also all that descends
/// from any of them.
pub(super) fn of_launch(identity: &Identity, home_id: &str, survivors: &[Kin], log: Option<(u64, u64)>) -> Vec<Kin> {
    let session_is_ours = || {
        process_stat(identity.pid).is_some_and(|stat| stat.start_time == identity.start_time)
            || survivors.iter().any(|kin| kin.is_alive() && process_stat(kin.pid).is_some_and(|stat| stat.session == identity.pid))
    };
    let in_session = |pid| process_stat(pid).is_some_and(|stat| !stat.is_zombie() && (stat.session == identity.pid || stat.group == identity.pid));
    let survives = |pid| survivors.iter().any(|kin| kin.pid == pid && kin.is_alive());
    let of_session = |pid| in_session(pid) && session_is_ours() && !is_of_another_home(pid, home_id);
    let belongs = |pid| carries(pid, &identity.launch_id, home_id) || of_session(pid) || survives(pid);
    let mut kin: Vec<Kin> = others().into_iter().filter_map(|pid| Kin::checked(pid, || belongs(pid))).collect();
    if let Some(log) = log {
        let left = orphans().into_iter().filter(|stat| !kin.iter().any(|kin| kin.pid == stat.pid)).collect::<Vec<_>>();
        kin.extend(left.into_iter().filter_map(|stat| {
            Kin::checked(stat.pid, || process_stat(stat.pid).is_some_and(|now| now.start_time == stat.start_time) && has_open(stat.pid, log))
        }));
        add_descendants(&mut kin);
    }
    kin
}

/// Whose parent is kin is kin: as long as we hold the parent and it lives, its pid is its own.
fn add_descendants(kin: &mut Vec<Kin>) {
    let stats: Vec<_> = others().into_iter().filter_map(process_stat).collect();
    let mut looked_at = 0;
    while looked_at < kin.len() {
        let parent = &kin[looked_at];
        let is_child = |pid| process_stat(pid).is_some_and(|stat| stat.parent == parent.pid) && parent.is_alive();
        let children = stats.iter().filter(|stat| stat.parent == parent.pid && !kin.iter().any(|kin| kin.pid == stat.pid));
        let children: Vec<Kin> = children.filter_map(|stat| Kin::checked(stat.pid, || is_child(stat.pid))).collect();
        kin.extend(children);
        looked_at += 1;
    }
}

/// Live processes with this launch id of this home: all that is known of a launch without a handle.
pub(super) fn of_id(id: &LaunchId, home_id: &str) -> Vec<Kin> {
    others().into_iter().filter_map(|pid| Kin::checked(pid, || carries(pid, &id.0, home_id))).collect()
}

impl Inner {
    /// See the trait. Jobs that we run now are no strays.
    pub(super) fn owned(&self) -> Vec<LaunchId> {
        let held = self.launches().values().filter(|running| !running.has_ended()).map(|running| running.id.0.clone()).collect::<Vec<_>>();
        let in_leaves = self.cgroups.leaves().into_iter().filter(|(_, leaf)| leaf.populated().unwrap_or(false)).map(|(id, _)| id);
        let with_token = others().into_iter().filter_map(|pid| {
            let ours = process_env(pid, HOME_ID_VAR)? == self.home_id;
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
