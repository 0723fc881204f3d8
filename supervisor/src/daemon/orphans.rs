//! `dvbctl orphans`: compares what is on the machine with what the store accounts for, and ends what nobody does.

use super::logs::UnusedLog;
use crate::{
    api::orphans::{Orphan, Orphans, Reaped},
    config::Home,
    events::Recorder,
    model::{Fault, FaultCode, Key, Kind, LaunchId, LaunchPhase, Object},
    runtime::{Census, NativeRuntime, Trace},
    store::{Selector, Store, Write},
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tracing::warn;

pub(super) struct HomeOrphans {
    pub(super) home: Home,
    pub(super) recorder: Recorder,
    pub(super) store: Arc<dyn Store>,
    pub(super) runtime: NativeRuntime,
}

/// What is just being started or taken away looks like a stray, and nothing tells when that is over: only what is seen twice, so
/// far apart, is one.
const SECOND_LOOK: Duration = Duration::from_millis(500);

#[async_trait]
impl Orphans for HomeOrphans {
    async fn list(&self) -> Result<Vec<Orphan>, Fault> {
        Ok(self.strays().await?.into_values().map(|(_, orphan)| orphan).collect())
    }

    async fn reap(&self, ids: Vec<String>) -> Result<Vec<Reaped>, Fault> {
        let mut strays = self.strays().await?;
        let mut results = Vec::new();
        for id in ids {
            let failure = match strays.remove(&id) {
                Some((stray, _)) => self.end(&stray).await.err(),
                None => None, // it has gone by itself, or somebody accounts for it now
            };
            results.push(Reaped { id, failure });
        }
        Ok(results)
    }
}

impl HomeOrphans {
    /// Once, when the daemon starts: what runs and has no row was started by a store that this one is not, as after a backup was put
    /// back. Nobody would look for it otherwise. Of `unused` logs those go that no such process has.
    pub(super) async fn tell(&self, unused: Vec<UnusedLog>) {
        let strays = match self.strays().await {
            Ok(strays) => strays,
            Err(fault) => return warn!(%fault, "whether processes run that nobody accounts for cannot be told"),
        };
        let is_stray = |id: &LaunchId| strays.values().any(|(stray, _)| matches!(stray, Stray::Launch(of, _) if of == id));
        for UnusedLog { launch, path } in unused.into_iter().filter(|log| !is_stray(&log.launch)) {
            if let Err(error) = fs::remove_file(&path) {
                warn!(%launch, path = %path.display(), %error, "the empty log of a launch that never was stays until its node is removed");
            }
        }
        let mut events = Vec::new();
        for (stray, orphan) in strays.values() {
            let Stray::Launch(id, trace) = stray else { continue };
            if trace.processes.is_empty() {
                continue;
            }
            warn!(launch = %id, what = orphan.what, "runs, and the store does not know it; dvbctl orphans --reap ends it");
            if let Some((namespace, node)) = &trace.node {
                let event = self.recorder.event(&Key::node(namespace, node), "StrayProcess").warning().launch(id);
                let message = format!("{} runs as a launch that the store does not know, as after a backup was put back", orphan.what);
                events.push(event.message(message).observed(&orphan.what).action("none; dvbctl orphans --reap ends it").write());
            }
        }
        if let Err(error) = self.record(events).await {
            warn!(%error, "processes that nobody accounts for have no event");
        }
    }

    async fn record(&self, events: Vec<Write>) -> Result<(), crate::store::StoreError> {
        if events.is_empty() { Ok(()) } else { self.store.commit(events).await.map(drop) }
    }

    async fn strays(&self) -> Result<BTreeMap<String, (Stray, Orphan)>, Fault> {
        let first = self.look().await?;
        if first.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let mut second = self.look().await?;
        second.retain(|id, _| first.contains_key(id));
        Ok(second)
    }

    /// The machine first: what was started before that look has its row by the second.
    async fn look(&self) -> Result<BTreeMap<String, (Stray, Orphan)>, Fault> {
        let census = self.runtime.census().await.map_err(|error| error.fault())?;
        let root = self.home.root().join("devnets");
        let folders = tokio::task::spawn_blocking(move || folders(root)).await.map_err(|panic| super::furnish::internal(panic.to_string()))?;
        let selector = Selector { kinds: vec![Kind::Devnet, Kind::Launch], ..Selector::default() };
        let (objects, _) = self.store.list(&selector).await.map_err(|error| error.fault())?;
        Ok(unaccounted(&census, folders, &objects).into_iter().map(|stray| (stray.id(), (stray.clone(), stray.orphan()))).collect())
    }

    async fn end(&self, stray: &Stray) -> Result<(), Fault> {
        match stray {
            Stray::Launch(id, _) => self.runtime.end_stray(id).await.map_err(|error| error.fault()),
            Stray::Keeper(pid) => self.runtime.end_lost_keeper(*pid).await.map_err(|error| error.fault()),
            Stray::Folder(folder) => {
                let path = folder.path.clone();
                let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(path)).await;
                match removed.map_err(|panic| super::furnish::internal(panic.to_string()))? {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let message = format!("cannot remove {}: {error}", folder.path.display());
                        Err(Fault::new(FaultCode::Internal, message).remedy(format!("remove it by hand: rm -r {}", folder.path.display())))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stray {
    Launch(LaunchId, Trace),
    Keeper(u32),
    Folder(Folder),
}

/// Of one devnet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Folder {
    namespace: String,
    devnet: String,
    path: PathBuf,
}

/// Leases and launch rows need no look: the store keeps no lease without its devnet and no row without its node, and a row whose process
/// is gone is closed by the node's controller.
///
/// A launch is accounted for until its end is on record and the runtime has let go of it.
fn unaccounted(census: &Census, folders: Vec<Folder>, objects: &[Object]) -> Vec<Stray> {
    let (mut launches, mut devnets) = (BTreeSet::new(), BTreeSet::new());
    for object in objects {
        match object {
            Object::Launch(launch) if launch.status.phase != LaunchPhase::Ended || launch.status.handle.is_some() => {
                launches.insert(&launch.spec.launch_id);
            }
            Object::Devnet(devnet) => {
                devnets.insert((&devnet.metadata.namespace, &devnet.metadata.name));
            }
            _ => {}
        }
    }
    let strays = census.launches.iter().filter(|(id, _)| !launches.contains(id)).map(|(id, trace)| Stray::Launch(id.clone(), trace.clone()));
    let lost = census.lost_keepers.iter().map(|pid| Stray::Keeper(*pid));
    let left = folders.into_iter().filter(|folder| !devnets.contains(&(&folder.namespace, &folder.devnet))).map(Stray::Folder);
    strays.chain(lost).chain(left).collect()
}

impl Stray {
    fn id(&self) -> String {
        match self {
            Self::Launch(id, _) => format!("launch/{id}"),
            Self::Keeper(pid) => format!("keeper/{pid}"),
            Self::Folder(folder) => format!("folder/{}", folder.path.display()),
        }
    }

    fn orphan(&self) -> Orphan {
        let id = self.id();
        let (kind, name) = id.split_once('/').unwrap_or_default();
        let (what, why, holds_data) = match self {
            Self::Launch(_, trace) => (described(trace), "no launch that is under way has this id", false),
            Self::Keeper(pid) => {
                (format!("pid {pid} (devnetd keeper)"), "devnetd cannot reach it: it holds for a daemon of another network namespace", false)
            }
            Self::Folder(folder) => (
                format!("files of devnet {}/{}", folder.namespace, folder.devnet),
                "there is no such devnet; it was deleted with --keep-data, or its deletion was cut off",
                true,
            ),
        };
        Orphan { kind: kind.to_owned(), name: name.to_owned(), what, why: why.to_owned(), holds_data, id: id.clone() }
    }
}

fn described(trace: &Trace) -> String {
    let processes = trace.processes.iter().map(|(pid, name)| format!("pid {pid} ({name})"));
    let cgroup = trace.cgroup.iter().map(|path| format!("cgroup {}", path.display()));
    let kept = trace.kept.then(|| "a pidfd with the keeper".to_owned());
    processes.chain(cgroup).chain(kept).collect::<Vec<_>>().join(", ")
}

/// `devnets/<namespace>/<devnet>`.
fn folders(root: PathBuf) -> Vec<Folder> {
    let below = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
    };
    let found =
        below(root).flat_map(|(namespace, path)| below(path).map(move |(devnet, path)| Folder { namespace: namespace.clone(), devnet, path }));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Devnet, DevnetSpec, DevnetStatus, Launch, LaunchRecord, LaunchStatus, Meta, RawJson};

    fn launch(id: &str, phase: LaunchPhase, held: bool) -> Object {
        let spec = LaunchRecord { launch_id: LaunchId(id.into()), ..LaunchRecord::default() };
        let status = LaunchStatus { phase, handle: held.then(RawJson::null), ..LaunchStatus::default() };
        Launch { metadata: Meta::default(), spec: spec.into(), status }.into()
    }

    fn census(ids: &[&str]) -> Census {
        let trace = Trace { processes: [(7, "sleep".to_owned())].into(), kept: true, ..Trace::default() };
        Census { launches: ids.iter().map(|id| (LaunchId((*id).into()), trace.clone())).collect(), lost_keepers: vec![] }
    }

    #[test]
    fn a_launch_is_accounted_for_until_its_end_is_on_record_and_it_is_let_go() {
        let objects = [
            launch("intended", LaunchPhase::Intended, false),
            launch("running", LaunchPhase::Running, true),
            launch("ending", LaunchPhase::Ended, true),
            launch("ended", LaunchPhase::Ended, false),
        ];
        let found = unaccounted(&census(&["intended", "running", "ending", "ended", "unknown"]), vec![], &objects);
        assert_eq!(found.iter().map(Stray::id).collect::<Vec<_>>(), ["launch/ended", "launch/unknown"]);
        assert_eq!(found[0].orphan().what, "pid 7 (sleep), a pidfd with the keeper");
    }

    #[test]
    fn folders_without_their_devnet_are_told_as_data_and_devnets_of_another_namespace_do_not_count() {
        let folder = |namespace: &str, devnet: &str| Folder { namespace: namespace.into(), devnet: devnet.into(), path: "/h/x".into() };
        let metadata = Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() };
        let devnet: Object = Devnet { metadata, spec: DevnetSpec::default(), status: DevnetStatus::default() }.into();
        let found = unaccounted(&Census::default(), vec![folder("default", "net"), folder("other", "net")], &[devnet]);
        assert_eq!(found, [Stray::Folder(folder("other", "net"))]);
        assert!(found[0].orphan().holds_data);
    }
}
