//! What carries this home's marks on the machine, whoever accounts for it: to find strays, and to end exactly those.

use super::{
    Inner, NativeRuntime, blocking,
    kin::{Kin, others},
    stop::end_all,
};
use crate::{
    model::LaunchId,
    runtime::{Handle, Runtime, RuntimeError},
    sys::{process_name, process_words},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// All that was found of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Pids and names of live processes.
    pub processes: BTreeMap<u32, String>,
    /// Namespace and full name of its node, where a process still writes to its log.
    pub node: Option<(String, String)>,
    pub cgroup: Option<PathBuf>,
    /// The keeper holds its pidfd.
    pub kept: bool,
}

/// By launch id, and keepers of this home that no daemon can reach: another network namespace has another keeper's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub launches: BTreeMap<LaunchId, Trace>,
    pub lost_keepers: Vec<u32>,
}

impl NativeRuntime {
    /// Jobs that we run now are left out. Reads /proc.
    pub async fn census(&self) -> Result<Census, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || Ok(inner.census())).await
    }

    /// Kills what is found of a launch and removes its cgroup; the caller is sure that nobody accounts for it.
    pub async fn end_stray(&self, id: &LaunchId) -> Result<(), RuntimeError> {
        self.destroy(&Handle::unrecorded(id.clone())).await
    }

    /// Kills a keeper that is still one of those that `census` calls lost.
    pub async fn end_lost_keeper(&self, pid: u32) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let look = move |how| Kin::checked(pid, how, || inner.lost_keepers().contains(&pid)).into_iter().collect();
        end_all(&LaunchId(format!("keeper {pid}")), look).await
    }
}

impl Inner {
    fn census(&self) -> Census {
        let mut launches: BTreeMap<LaunchId, Trace> = BTreeMap::new();
        for (id, leaf) in self.cgroups.leaves() {
            let trace = launches.entry(LaunchId(id)).or_default();
            trace.processes.extend(leaf.pids().into_iter().map(|pid| (pid, process_name(pid))));
            trace.cgroup = Some(leaf.path().to_owned());
        }
        for pid in others() {
            if let Some(id) = self.marks.launch_of(pid) {
                launches.entry(LaunchId(id)).or_default().processes.insert(pid, process_name(pid));
            }
        }
        for trace in launches.values_mut() {
            trace.node = trace.processes.keys().find_map(|pid| self.marks.log_of(*pid)).map(|log| (log.namespace, log.node));
        }
        for id in self.kept.ids() {
            launches.entry(id).or_default().kept = true;
        }
        let jobs = self.jobs();
        launches.retain(|id, _| !jobs.contains(id));
        Census { launches, lost_keepers: self.lost_keepers() }
    }

    fn lost_keepers(&self) -> Vec<u32> {
        let Some(own) = self.kept.keeper_pid() else { return Vec::new() };
        let home = self.marks.home.to_string_lossy();
        let is_keeper = |pid: &u32| matches!(process_words(*pid).as_slice(), [_, verb, of, ..] if verb == crate::keeper::KEEPER_VERB && *of == home);
        others().into_iter().filter(|pid| Some(*pid) != own && is_keeper(pid)).collect()
    }
}
