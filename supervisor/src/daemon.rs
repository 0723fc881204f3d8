//! Wiring: the one file that names concrete types. Opens the store, furnishes the rooms above it, serves, and ends all in order.
//!
//! ```text
//! open store ─► furnish (plugins, ports, controllers ...) ─► READY=1 ─► serve ─► shutdown fires
//!                                                                                   │ no new calls, streams end, calls finish
//!                                                                                   ▼
//!                            socket file removed ◄─ store closed ◄─ controllers stop   (nodes keep running)
//! ```
//! A reload goes the same way, but the listening socket stays for the program that is executed next (`reload`).

mod calm;
mod ending;
mod furnish;
mod logs;
mod orphans;
pub mod reload;
mod watchdog;

pub use furnish::furnish;

use crate::{
    api::{
        Context, PortStates,
        binaries::BinaryCache,
        daemon::{About, Control},
        orphans::Orphans,
        server::{self, ServerError, SocketFile},
    },
    config::{Home, Settings},
    keeper::Keeper,
    model::{Fault, Kind, Timestamp},
    observe::Observations,
    plugin::Plugins,
    store::{Limits, Selector, SqliteStore, Store, StoreError},
    sys::{self, Clock, Kernel, SystemClock},
};
use futures::future::BoxFuture;
use reload::Reload;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// How long the controllers may take to put down what they hold. What they do not finish, the next start finds in the store.
const CONTROLLERS_GRACE: Duration = Duration::from_secs(10);

/// Resolved: nothing here is looked up again.
#[derive(Clone, Debug)]
pub struct Config {
    pub home: Home,
    pub settings: Settings,
    pub kernel: Kernel,
    pub socket_owner: SocketOwner,
    /// When this program was executed.
    pub started_at: Timestamp,
}

/// How a daemon ended in order.
#[derive(Debug)]
pub enum End {
    Shutdown,
    /// The program is to be executed anew; here is the socket that it goes on listening on.
    Reload(OwnedFd),
}

/// Who made the client socket, and takes its file away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketOwner {
    #[default]
    Daemon,
    /// It goes on listening when the daemon has ended.
    ServiceManager,
}

/// What everything above the store may use.
#[derive(Clone)]
pub struct Base {
    pub home: Home,
    pub settings: Settings,
    pub kernel: Kernel,
    pub reload: Reload,
    pub store: Arc<dyn Store>,
    pub observations: Arc<Observations>,
    pub clock: Arc<dyn Clock>,
    /// Fires when the controllers must put down their work; later than the API's own shutdown.
    pub stop: CancellationToken,
}

/// The rooms above the store, as the API needs them, and the controllers.
pub struct Furniture {
    pub plugins: Arc<dyn Plugins>,
    pub ports: Arc<dyn PortStates>,
    pub binaries: Arc<dyn BinaryCache>,
    pub control: Arc<dyn Control>,
    pub orphans: Arc<dyn Orphans>,
    pub cgroup_driver: String,
    pub cgroup_message: String,
    pub cgroup_limits: bool,
    pub cgroup_remedy: String,
    pub keeper: Keeper,
    /// Runs them; ends when `Base::stop` fires.
    pub controllers: BoxFuture<'static, ()>,
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{fault}{}", remedy(fault))]
    Store { fault: Box<Fault> },
    #[error("cannot read the boot id: {0}")]
    BootId(std::io::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot copy the listening socket: {0}")]
    Listener(std::io::Error),
    #[error("cannot start: {fault}{}", remedy(fault))]
    Furnish { fault: Box<Fault> },
    #[error("the home {} was {} when its devnets were made, and their files and processes go by that path\n  mend: {}", is.display(), was.display(), way_back(was, is))]
    Moved { was: PathBuf, is: PathBuf },
    #[error("the controllers ended by themselves; the log tells why")]
    ControllersEnded,
}

/// Serves `config.home` on `listener` until `shutdown` fires; `reload` tells what for. The caller holds the home's lock for as long as
/// this runs.
pub async fn run<F>(config: Config, listener: UnixListener, shutdown: CancellationToken, reload: Reload, furnish: F) -> Result<End, DaemonError>
where
    F: AsyncFnOnce(&Base) -> Result<Furniture, Fault>,
{
    let socket = SocketFile::of(&listener);
    let owner = config.socket_owner;
    let ended = live(config, listener, shutdown, reload, furnish, socket.as_ref()).await;
    if let Ok(End::Reload(_)) = ended {
        return ended;
    }
    if owner == SocketOwner::Daemon
        && let Some(Err(error)) = socket.as_ref().map(SocketFile::remove)
    {
        warn!(%error, "the socket file stays behind; the next start replaces it");
    }
    ended
}

async fn live<F>(
    config: Config,
    listener: UnixListener,
    shutdown: CancellationToken,
    reload: Reload,
    furnish: F,
    socket: Option<&SocketFile>,
) -> Result<End, DaemonError>
where
    F: AsyncFnOnce(&Base) -> Result<Furniture, Fault>,
{
    let started_at = config.started_at;
    let base = open(config, reload).await?;
    let about = About { started_at, ..about(&base, socket).await? };
    let kept = listener.as_fd().try_clone_to_owned().map_err(DaemonError::Listener)?;
    let furniture = furnish(&base).await.map_err(|fault| DaemonError::Furnish { fault: Box::new(fault) })?;
    let mut controllers = tokio::spawn(furniture.controllers);
    let calm = calm::give_memory_back_after_bursts(base.store.clone());
    let calm = tokio::spawn(base.stop.clone().run_until_cancelled_owned(calm));
    let context = Context {
        store: base.store.clone(),
        observations: base.observations.clone(),
        plugins: furniture.plugins,
        clock: base.clock.clone(),
        home: base.home.clone(),
        ports: furniture.ports,
        binaries: furniture.binaries,
        control: furniture.control,
        orphans: furniture.orphans,
        about: Arc::new(About {
            cgroup_driver: furniture.cgroup_driver,
            cgroup_message: furniture.cgroup_message,
            cgroup_limits: furniture.cgroup_limits,
            cgroup_remedy: furniture.cgroup_remedy,
            ..about
        }),
        shutdown,
    };
    info!(home = %base.home.root().display(), pid = std::process::id(), "serving");
    tell_service_manager(&[sd_notify::NotifyState::Ready]);
    let served = serve(context, listener, &mut controllers, &base.stop).await;
    // Without a reload nobody may wait at the door of a daemon that has ended.
    let kept = base.reload.is_wanted().then_some(kept);
    if kept.is_some() {
        tell_service_manager(&[sd_notify::NotifyState::Reloading, monotonic_now()]);
    } else {
        tell_service_manager(&[sd_notify::NotifyState::Stopping]);
    }
    base.stop.cancel();
    put_down(controllers, calm, furniture.keeper).await;
    served?;
    Ok(kept.map_or(End::Shutdown, End::Reload))
}

/// Until the context's shutdown fires. The controllers may end before `stop` fires only by a defect, and then the daemon ends too, instead of
/// taking orders that nobody carries out.
async fn serve(context: Context, listener: UnixListener, controllers: &mut JoinHandle<()>, stop: &CancellationToken) -> Result<(), DaemonError> {
    let shutdown = context.shutdown.clone();
    let mut serving = std::pin::pin!(server::serve(context, listener));
    let ended = tokio::select! {
        served = &mut serving => return Ok(served?),
        never = watchdog::pat(sd_notify::watchdog_enabled()) => match never {},
        ended = controllers => ended,
    };
    let is_defect = !stop.is_cancelled(); // a shutdown with nodes ends them before the server
    if is_defect {
        error!(?ended, "the controllers ended by themselves");
        shutdown.cancel();
    }
    serving.await?;
    if is_defect { Err(DaemonError::ControllersEnded) } else { Ok(()) }
}

/// Ends what works for the daemon, once it is told to stop.
async fn put_down<T>(mut controllers: JoinHandle<()>, calm: JoinHandle<T>, keeper: Keeper) {
    if !controllers.is_finished() && tokio::time::timeout(CONTROLLERS_GRACE, &mut controllers).await.is_err() {
        warn!("the controllers did not stop within {CONTROLLERS_GRACE:?}; the next start goes on from the store");
        controllers.abort();
    }
    let _ = calm.await; // it holds the store
    let _ = tokio::task::spawn_blocking(move || keeper.close()).await;
    info!("ended");
}

async fn open(config: Config, reload: Reload) -> Result<Base, DaemonError> {
    let Config { home, settings, kernel, .. } = config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits = Limits { changes: settings.keep.changes, events: settings.keep.events };
    let path = home.database();
    let for_store = clock.clone();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, for_store, limits)).await;
    let store = opened.map_err(|panic| store_fault(StoreError::Other(panic.to_string())))?.map_err(store_fault)?;
    let store: Arc<dyn Store> = Arc::new(store);
    stays_in_place(&home, store.as_ref()).await?;
    let observations = Arc::new(Observations::default());
    Ok(Base { home, settings, kernel, reload, store, observations, clock, stop: CancellationToken::new() })
}

/// Rows name folders of the home by their whole paths: from a copy, a daemon would work in the folders of the home that it was copied from.
async fn stays_in_place(home: &Home, store: &dyn Store) -> Result<(), DaemonError> {
    const PLACE: &str = "home";
    let is = home.root().to_string_lossy();
    match store.meta_value(PLACE).await.map_err(store_fault)? {
        Some(was) if was == is => return Ok(()),
        Some(was) if !store.list(&Selector::kind(Kind::Devnet)).await.map_err(store_fault)?.0.is_empty() => {
            return Err(DaemonError::Moved { was: was.into(), is: home.root().to_owned() });
        }
        Some(_) | None => {}
    }
    store.set_meta_value(PLACE, &is).await.map_err(store_fault)
}

fn way_back(was: &Path, is: &Path) -> String {
    let back = format!("mv {} {}", is.display(), was.display());
    if was.exists() { format!("dvbctl --home {}; a copy can only take its place: move that away, then {back}", was.display()) } else { back }
}

/// The store's instance id is drawn once and stays: it tells this store from another one at the same path.
async fn about(base: &Base, socket: Option<&SocketFile>) -> Result<About, DaemonError> {
    const INSTANCE: &str = "instanceId";
    let instance_id = match base.store.meta_value(INSTANCE).await.map_err(store_fault)? {
        Some(id) => id,
        None => {
            let id = base.clock.fresh_id().simple().to_string();
            base.store.set_meta_value(INSTANCE, &id).await.map_err(store_fault)?;
            id
        }
    };
    Ok(About {
        version: env!("CARGO_PKG_VERSION").into(),
        socket: socket.map(|socket| socket.path().to_owned()).unwrap_or_default(),
        boot_id: sys::boot_id().map_err(DaemonError::BootId)?,
        instance_id,
        ..About::default()
    })
}

fn store_fault(error: StoreError) -> DaemonError {
    DaemonError::Store { fault: Box::new(error.fault()) }
}

fn remedy(fault: &Fault) -> String {
    fault.remedy.as_ref().map(|remedy| format!("\n  mend: {remedy}")).unwrap_or_default()
}

/// Without a service manager this does nothing.
fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    match sd_notify::notify(state) {
        // dvbctl, which started us on demand, listens until we are ready and no longer.
        Err(error) if is_not_heard(error.kind()) => debug!(%error, "nobody listens at NOTIFY_SOCKET any more"),
        Err(error) => warn!(%error, "the service manager could not be told"),
        Ok(()) => {}
    }
}

fn is_not_heard(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// systemd wants to know when a reload began, to tell its READY=1 from an earlier one.
fn monotonic_now() -> sd_notify::NotifyState<'static> {
    sd_notify::NotifyState::monotonic_usec_now().unwrap_or(sd_notify::NotifyState::Status("executes itself anew"))
}
