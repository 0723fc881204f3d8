//! `daemon stop --with-nodes`: first nobody starts processes any more, then those that run are stopped.
//!
//! Nothing is written: desired states stay, so the next daemon finds the launches ended and starts the nodes again.

use super::{furnish::internal, reload::Reload};
use crate::{
    api::daemon::Control,
    model::{Fault, Kind, Launch, LaunchPhase, Object, RawJson},
    ports::Ports,
    runtime::{Handle, Runtime, StopPolicy},
    store::{Selector, Store},
    sys::signal_from_name,
};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use nix::sys::signal::Signal;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Nodes that are stopped at the same time: a stop mostly waits for its node.
const TOGETHER: usize = 64;

pub(super) struct NativeEnding {
    pub(super) store: Arc<dyn Store>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) ports: Arc<Ports>,
    /// Ends the controllers.
    pub(super) stop: CancellationToken,
    /// They have ended.
    pub(super) idle: CancellationToken,
    pub(super) reload: Reload,
}

#[async_trait]
impl Control for NativeEnding {
    async fn prepare_reload(&self) -> Result<String, Fault> {
        self.reload.prepare().await
    }

    fn stop_nodes(&self) -> BoxStream<'static, Result<String, Fault>> {
        let (store, runtime, stop, idle) = (self.store.clone(), self.runtime.clone(), self.stop.clone(), self.idle.clone());
        let begin = async move {
            stop.cancel();
            idle.cancelled().await;
            store.list(&Selector::kind(Kind::Launch)).await.map_err(|error| error.fault())
        };
        let stopped = futures::stream::once(begin).flat_map(move |listed| match listed {
            Ok((objects, _)) => stop_all(objects, runtime.clone()),
            Err(fault) => futures::stream::iter([Err(fault)]).boxed(),
        });
        let ports = self.ports.clone();
        let unparked = async move { ports.unpark_all().await.err().map(|error| Err(error.fault())) };
        stopped.chain(futures::stream::once(unparked).filter_map(std::future::ready)).boxed()
    }
}

fn stop_all(objects: Vec<Object>, runtime: Arc<dyn Runtime>) -> BoxStream<'static, Result<String, Fault>> {
    let live = objects.into_iter().filter_map(|object| match object {
        Object::Launch(launch) if launch.status.phase != LaunchPhase::Ended && launch.status.handle.is_some() => Some(launch),
        _ => None,
    });
    let stops: Vec<_> = live.map(|launch| stop_one(launch, runtime.clone())).collect();
    futures::stream::iter(stops).buffer_unordered(TOGETHER).map(Ok).boxed()
}

/// What became of it, in words: one that does not stop must not keep the others up.
async fn stop_one(launch: Arc<Launch>, runtime: Arc<dyn Runtime>) -> String {
    match try_to_stop(&launch, runtime).await {
        Ok(()) => format!("{} stopped", launch.spec.node_ref),
        Err(fault) => format!("{} could not be stopped: {fault}", launch.spec.node_ref),
    }
}

async fn try_to_stop(launch: &Launch, runtime: Arc<dyn Runtime>) -> Result<(), Fault> {
    let spec = &launch.spec;
    let handle = launch.status.handle.clone().unwrap_or_else(RawJson::null);
    let handle: Handle = handle.read().map_err(|error| internal(format!("the handle of {} is damaged: {error}", spec.node_ref)))?;
    let signal = signal_from_name(&spec.stop_signal).unwrap_or(Signal::SIGTERM);
    let policy = StopPolicy { signal, grace: Duration::from_millis(spec.grace_ms) };
    // A launch whose process this runtime does not know yet is taken up first.
    runtime.adopt(&handle).await.map_err(|error| error.fault())?;
    runtime.stop(&handle, policy).await.map_err(|error| error.fault())?;
    // Its cgroup and its place with the keeper go too: nothing is left of the home's processes.
    runtime.destroy(&handle).await.map_err(|error| error.fault())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Devnet, DevnetSpec, DevnetStatus, LaunchId, LaunchRecord, LaunchStatus, Meta},
        runtime::{Adopted, Grants, LaunchSpec, fake::FakeRuntime},
        store::{MemoryStore, Write},
        sys::SystemClock,
    };

    #[tokio::test]
    async fn nodes_are_stopped_after_the_controllers_and_ended_launches_are_left_alone() {
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let runtime = Arc::new(FakeRuntime::new(clock.clone()));
        let ports = Arc::new(Ports::new(store.clone(), clock.clone(), "home".into()));
        let meta = |name: &str| Meta { name: name.into(), namespace: "default".into(), ..Meta::default() };
        let mut writes = vec![Write::create(Devnet { metadata: meta("n"), spec: DevnetSpec::default(), status: DevnetStatus::default() })];
        let mut handles = Vec::new();
        for (id, phase) in [("l1", LaunchPhase::Running), ("l2", LaunchPhase::Ended), ("l3", LaunchPhase::Running)] {
            let handle = runtime.start(LaunchSpec { id: LaunchId(id.into()), ..LaunchSpec::default() }, Grants::default()).await.unwrap();
            let node_ref = format!("n/{id}");
            let node = crate::model::Node { metadata: meta(&node_ref), ..node() };
            writes.push(Write::create(node));
            let spec = LaunchRecord { node_ref: node_ref.clone(), launch_id: LaunchId(id.into()), ..LaunchRecord::default() };
            let status = LaunchStatus { phase, handle: Some(RawJson::of(&handle).unwrap()), ..LaunchStatus::default() };
            writes.push(Write::create(Launch { metadata: meta(&format!("{node_ref}@{id}")), spec: spec.into(), status }));
            handles.push(handle);
        }
        store.commit(writes).await.unwrap();
        let (stop, idle) = (CancellationToken::new(), CancellationToken::new());
        let ending = NativeEnding { store, runtime: runtime.clone(), ports, stop: stop.clone(), idle: idle.clone(), reload: Reload::default() };
        let controllers = tokio::spawn(async move {
            stop.cancelled().await;
            idle.cancel();
        });
        let mut told: Vec<_> = ending.stop_nodes().map(|step| step.unwrap()).collect().await;
        controllers.await.unwrap();
        told.sort();
        assert_eq!(told, ["n/l1 stopped", "n/l3 stopped"]);
        for (handle, runs) in handles.iter().zip([false, true, false]) {
            assert_eq!(runtime.adopt(handle).await.unwrap() == Adopted::Running, runs, "{}", handle.id);
        }
    }

    fn node() -> crate::model::Node {
        let spec = crate::model::NodeSpec { devnet_ref: "n".into(), ..Default::default() };
        crate::model::Node { metadata: Meta::default(), spec, status: Default::default() }
    }
}
