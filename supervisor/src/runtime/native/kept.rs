//! Pidfds of launches as the keeper holds them: put in after each fork, taken back after a crash, let go with the launch.

use crate::{keeper::Keeper, model::LaunchId, reaper::Identity, sys::Pidfd};
use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    sync::{Mutex, PoisonError},
};

/// In the keeper a launch's pidfd has this before its id.
const PREFIX: &str = "launch/";

#[derive(Default)]
pub(super) struct Kept {
    /// None: nothing outlives this daemon but the processes themselves.
    keeper: Option<Keeper>,
    /// Came back and was not asked for yet.
    back: Mutex<HashMap<LaunchId, Pidfd>>,
}

impl Kept {
    /// Takes back what an earlier daemon left with the keeper, and lets go of those launches that are not `open`: their end is on record.
    pub(super) fn with(keeper: Keeper, open: impl Fn(&LaunchId) -> bool) -> Self {
        let found = keeper.recall(PREFIX).unwrap_or_else(|error| {
            tracing::warn!(%error, "how nodes ended while no devnetd ran cannot be told");
            Vec::new()
        });
        let mut back = HashMap::new();
        for (name, fd) in found {
            let id = LaunchId(name[PREFIX.len()..].to_owned());
            if open(&id) {
                back.insert(id, Pidfd::from(fd));
            } else {
                keeper.release(&name);
            }
        }
        Self { keeper: Some(keeper), back: Mutex::new(back) }
    }

    /// A launch goes on without: only its exit would be lost with a crash.
    pub(super) fn put(&self, id: &LaunchId, pidfd: BorrowedFd<'_>) {
        if let Some(keeper) = &self.keeper
            && let Err(error) = keeper.put(&name_of(id), pidfd)
        {
            tracing::warn!(launch = %id, %error, "should devnetd be killed, the exit of this launch will not be known");
        }
    }

    /// The process of a launch of an earlier daemon, alive or dead.
    pub(super) fn take(&self, id: &LaunchId) -> Option<Pidfd> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// As if it had not been taken.
    pub(super) fn give_back(&self, id: &LaunchId, pidfd: Pidfd) {
        self.back.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), pidfd);
    }

    /// Launches that the keeper holds something of.
    pub(super) fn ids(&self) -> Vec<LaunchId> {
        let names = self.keeper.as_ref().and_then(|keeper| keeper.names().ok()).unwrap_or_default();
        names.iter().filter_map(|name| name.strip_prefix(PREFIX)).map(|id| LaunchId(id.to_owned())).collect()
    }

    /// None: whether there is one cannot be told. None within: there is none.
    pub(super) fn keeper_pid(&self) -> Option<Option<u32>> {
        self.keeper.as_ref()?.pid_if_any().ok()
    }

    pub(super) fn release(&self, id: &LaunchId) {
        self.take(id);
        if let Some(keeper) = &self.keeper {
            keeper.release(&name_of(id));
        }
    }
}

/// Whether this descriptor can be the one of that process: one that has been reaped has no pid any more.
pub(super) fn fits(pidfd: &Pidfd, identity: &Identity, boot_id: &str) -> bool {
    identity.boot_id == boot_id && pidfd.pid().is_ok_and(|pid| pid.is_none_or(|pid| pid == identity.pid))
}

fn name_of(id: &LaunchId) -> String {
    format!("{PREFIX}{id}")
}
