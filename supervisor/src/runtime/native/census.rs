//! What carries this home's marks on the machine, whoever accounts for it: to find strays, and to end exactly those.

use super::{
    Inner, NativeRuntime, blocking,
    kin::{Kin, others},
    stop::end_all,
};
use crate::{
    model::LaunchId,
    reaper::{HOME_ID_VAR, LAUNCH_ID_VAR, carries},
    runtime::{Handle, Runtime, RuntimeError},
    sys::{process_env, process_name, process_stat, process_words},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

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
        let (inner, stray) = (Arc::clone(&self.inner), id.clone());
        // Those that only their log gives away; the others go with what `destroy` finds.
        let look = move || others().into_iter().filter_map(|pid| Kin::checked(pid, || inner.launch_of(pid).as_ref() == Some(&stray))).collect();
        end_all(id, look).await?;
        self.destroy(&Handle::unrecorded(id.clone())).await
    }

    /// Kills a keeper that is still one of those that `census` calls lost.
    pub async fn end_lost_keeper(&self, pid: u32) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let look = move || Kin::checked(pid, || inner.lost_keepers().contains(&pid)).into_iter().collect();
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
            if let Some(id) = self.launch_of(pid) {
                launches.entry(id).or_default().processes.insert(pid, process_name(pid));
            }
        }
        for trace in launches.values_mut() {
            trace.node = trace.processes.keys().find_map(|pid| self.log_of(*pid)).map(|log| (log.namespace, log.node));
        }
        for id in self.kept.ids() {
            launches.entry(id).or_default().kept = true;
        }
        let jobs = self.jobs();
        launches.retain(|id, _| !jobs.contains(id));
        Census { launches, lost_keepers: self.lost_keepers() }
    }

    /// The launch that a live process belongs to: by its environment, or, for one that cleared that, by the log that it writes to.
    fn launch_of(&self, pid: u32) -> Option<LaunchId> {
        process_stat(pid).filter(|stat| !stat.is_zombie())?;
        let by_environment = process_env(pid, LAUNCH_ID_VAR).filter(|id| carries(pid, id, &self.home_id));
        if by_environment.is_none() && process_env(pid, HOME_ID_VAR).is_some() {
            return None;
        }
        by_environment.or_else(|| self.log_of(pid).map(|log| log.launch)).map(LaunchId)
    }

    /// What its stdout or stderr says.
    fn log_of(&self, pid: u32) -> Option<LogName> {
        [1, 2].into_iter().find_map(|fd| named_by_log(&self.home, &fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?))
    }

    fn lost_keepers(&self) -> Vec<u32> {
        let Some(own) = self.kept.keeper_pid() else { return Vec::new() };
        let home = self.home.to_string_lossy();
        let is_keeper = |pid: &u32| matches!(process_words(*pid).as_slice(), [_, verb, of, ..] if verb == crate::keeper::KEEPER_VERB && *of == home);
        others().into_iter().filter(|pid| Some(*pid) != own && is_keeper(pid)).collect()
    }
}

/// What the path of a log tells.
#[derive(Debug, PartialEq, Eq)]
struct LogName {
    namespace: String,
    node: String,
    launch: String,
}

/// `<home>/devnets/<namespace>/<devnet>/nodes/<node>/logs/<launch id>.log`, also when that was deleted.
fn named_by_log(home: &Path, log: &Path) -> Option<LogName> {
    let below = log.strip_prefix(home.join("devnets")).ok()?;
    let parts: Vec<&str> = below.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [namespace, devnet, "nodes", node, "logs", file] => Some(LogName {
            namespace: (*namespace).to_owned(),
            node: format!("{devnet}/{node}"),
            launch: file.strip_suffix(" (deleted)").unwrap_or(file).strip_suffix(".log")?.to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_names_its_launch_and_other_files_of_the_home_do_not() {
        let check = |log: &str, expect: Option<&str>| {
            let expect = expect.map(|id| LogName { namespace: "default".into(), node: "net/a".into(), launch: id.into() });
            assert_eq!(named_by_log(Path::new("/h"), Path::new(log)), expect, "{log}");
        };
        check("/h/devnets/default/net/nodes/a/logs/01ab.log", Some("01ab"));
        check("/h/devnets/default/net/nodes/a/logs/01ab.log (deleted)", Some("01ab"));
        check("/h/devnets/default/net/nodes/a/home/01ab.log", None);
        check("/h/logs/devnetd.log", None);
        check("/other/devnets/default/net/nodes/a/logs/01ab.log", None);
    }
}
