//! The rooms above the store, each with its concrete type.

use super::{Base, Furniture, ending::NativeEnding, logs, orphans::HomeOrphans};
use crate::{
    api::binaries::HomeBinaries,
    binaries::Binaries,
    controllers::{
        self, ControllerKind, Manager, devnet::DevnetController, export::ExportController, health::HealthController, node::NodeController,
        transaction::TransactionController, upgrade::UpgradeController,
    },
    events::Recorder,
    keeper::Keeper,
    model::{Fault, FaultCode, Kind, Launch, LaunchPhase},
    plugin::{HostSettings, PluginHost},
    ports::Ports,
    runtime::{Machine, NativeRuntime, Runtime},
    store::Selector,
    sys,
};
use dvb_proto::endpoint;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// A plugin's executable is named so, with its family behind it.
const PLUGIN_PREFIX: &str = "dvb-plugin-";
/// What plugins get of the daemon's environment.
const PLUGIN_ENV: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Makes them all. A room that cannot be made is a fault that ends the daemon's start.
pub async fn furnish(base: &Base) -> Result<Furniture, Fault> {
    let keeper = Keeper::new(base.home.root(), endpoint::home_hash(base.home.root()), sys::own_program(), base.home.daemon_log());
    let launches = launches(base).await?;
    let runtime = native_runtime(base, &launches, keeper.clone()).await?;
    if let Err(error) = runtime.end_abandoned_jobs().await {
        warn!(%error, "a job of an earlier devnetd may still run");
    }
    let recorder = Recorder::new(base.clock.clone());
    let orphans = Arc::new(HomeOrphans { home: base.home.clone(), recorder, store: base.store.clone(), runtime: runtime.clone() });
    let (telling, unused) = (orphans.clone(), logs::unused(&base.home, &launches));
    tokio::spawn(async move { telling.tell(unused).await });
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let plugins = Arc::new(PluginHost::new(plugin_settings(base), base.clock.clone()));
    let ports = Ports::new(base.store.clone(), base.clock.clone(), endpoint::home_hash(base.home.root()));
    let ports = Arc::new(ports.with_keeper(keeper.clone()));
    for conflict in ports.reclaim().await.map_err(|error| error.fault())? {
        warn!(%conflict, "an address of this home is claimed by another");
    }
    let binaries = Binaries::new(&base.home, base.clock.clone());
    let capabilities = runtime.capabilities();
    let (manager, wake) = Manager::new();
    let context = controllers::Context {
        store: base.store.clone(),
        runtime: runtime.clone(),
        plugins: plugins.clone(),
        ports: ports.clone(),
        binaries: Arc::new(binaries.clone()),
        observations: base.observations.clone(),
        clock: base.clock.clone(),
        home: base.home.clone(),
        wake,
    };
    let idle = CancellationToken::new();
    Ok(Furniture {
        plugins: plugins.clone(),
        ports: ports.clone(),
        binaries: Arc::new(HomeBinaries { binaries, store: base.store.clone() }),
        control: Arc::new(NativeEnding {
            store: base.store.clone(),
            runtime,
            ports,
            stop: base.stop.clone(),
            idle: idle.clone(),
            reload: base.reload.clone(),
        }),
        orphans,
        cgroup_driver: capabilities.cgroup_driver,
        cgroup_message: capabilities.cgroup_message,
        cgroup_limits: capabilities.limits,
        cgroup_remedy: capabilities.cgroup_remedy.unwrap_or_default(),
        controllers: run_controllers(manager, context, logs::keep(base)?, base.stop.clone(), plugins, idle, base.settings.keep.transactions),
        keeper,
    })
}

async fn launches(base: &Base) -> Result<Vec<Arc<Launch>>, Fault> {
    let (objects, _) = base.store.list(&Selector::kind(Kind::Launch)).await.map_err(|error| error.fault())?;
    Ok(objects.into_iter().filter_map(|object| object.try_into().ok()).collect())
}

/// With what an earlier daemon left with the keeper.
async fn native_runtime(base: &Base, launches: &[Arc<Launch>], keeper: Keeper) -> Result<NativeRuntime, Fault> {
    let open = launches.iter().filter(|launch| launch.status.phase != LaunchPhase::Ended).map(|launch| launch.spec.launch_id.clone()).collect();
    let machine = Machine { kernel: base.kernel, keeper: Some(keeper), subreaper: true, open, ..Machine::default() };
    let (home, clock) = (base.home.clone(), base.clock.clone());
    let made = tokio::task::spawn_blocking(move || NativeRuntime::new(&home, clock, machine)).await;
    made.map_err(|panic| internal(panic.to_string()))?.map_err(|error| error.fault())
}

/// Until `stop`; then the plugins are ended too, and `idle` says that nobody starts a process any more.
fn run_controllers(
    mut manager: Manager,
    context: controllers::Context,
    logs: BoxFuture<'static, ()>,
    stop: CancellationToken,
    plugins: Arc<PluginHost>,
    idle: CancellationToken,
    keep: usize,
) -> BoxFuture<'static, ()> {
    manager.register(ControllerKind::Devnet, Arc::new(DevnetController::default()));
    manager.register(ControllerKind::Node, Arc::new(NodeController::default()));
    manager.register(ControllerKind::Health, Arc::new(HealthController::default()));
    manager.register(ControllerKind::Transaction, Arc::new(TransactionController::new(keep)));
    manager.register(ControllerKind::Upgrade, Arc::new(UpgradeController::default()));
    manager.register(ControllerKind::Export, Arc::new(ExportController::default()));
    Box::pin(async move {
        let logs = tokio::spawn(logs);
        if let Err(error) = manager.run(context, stop).await {
            error!(%error, "the controllers cannot go on");
        }
        idle.cancel();
        plugins.shutdown().await;
        let _ = logs.await; // it panicked, and that is in the log
    })
}

/// The home's plugins, then those beside the daemon; before both what config.toml names.
fn plugin_settings(base: &Base) -> HostSettings {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.to_owned()));
    let (named, folders): (Vec<_>, Vec<_>) = base.settings.plugins.iter().cloned().partition(|path| !path.is_dir());
    let dirs = folders.into_iter().chain([base.home.plugins()]).chain(beside).collect();
    let extra = named.into_iter().filter_map(|path| Some((family(&path)?, path))).collect();
    let mut env: BTreeMap<String, String> = PLUGIN_ENV.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env.insert("DVB_HOME".into(), base.home.root().display().to_string());
    HostSettings { dirs, extra, env, ..HostSettings::default() }
}

/// `/x/dvb-plugin-cosmos` -> cosmos; any other file is named as a whole.
fn family(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_prefix(PLUGIN_PREFIX).unwrap_or(name).to_owned())
}

/// For a room that cannot do what it was asked.
pub(super) fn internal(message: String) -> Fault {
    Fault::new(FaultCode::Internal, message).remedy("dvbctl daemon logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_family_is_in_its_file_name() {
        let check = |path: &str, expect: Option<&str>| assert_eq!(family(Path::new(path)).as_deref(), expect);
        check("/x/dvb-plugin-cosmos", Some("cosmos"));
        check("/x/mychain", Some("mychain"));
        check("/", None);
    }
}
