//! Wiring: the one file that names concrete types. Opens the store, furnishes the rooms above it, serves, and ends all in order.
//!
//! ```text
//! open store ─► furnish (plugins, ports, controllers ...) ─► READY=1 ─► serve ─► shutdown fires
//!                                                                                   │ no new calls, streams end, calls finish
//!                                                                                   ▼
//!                            socket file removed ◄─ store closed ◄─ controllers stop   (nodes keep running)
//! ```

mod ending;
mod furnish;
mod watchdog;

pub use furnish::furnish;

use crate::{
    api::{
        Context, PortStates,
        daemon::{About, BinaryCache, Control},
        server::{self, ServerError, SocketFile},
    },
    config::{Home, Settings},
    model::Fault,
    observe::Observations,
    plugin::Plugins,
    store::{Limits, SqliteStore, Store, StoreError},
    sys::{self, Clock, SystemClock},
};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long the controllers may take to put down what they hold. What they do not finish, the next start finds in the store.
const CONTROLLERS_GRACE: Duration = Duration::from_secs(10);

/// Resolved: nothing here is looked up again.
#[derive(Clone, Debug)]
pub struct Config {
    pub home: Home,
    pub settings: Settings,
    pub socket_owner: SocketOwner,
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
    pub cgroup_driver: String,
    pub cgroup_message: String,
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
    #[error("cannot start: {fault}{}", remedy(fault))]
    Furnish { fault: Box<Fault> },
    #[error("the controllers ended by themselves; the log tells why")]
    ControllersEnded,
}

/// Serves `config.home` on `listener` until `shutdown` fires. The caller holds the home's lock for as long as this runs.
pub async fn run<F>(config: Config, listener: UnixListener, shutdown: CancellationToken, furnish: F) -> Result<(), DaemonError>
where
    F: AsyncFnOnce(&Base) -> Result<Furniture, Fault>,
{
    let socket = SocketFile::of(&listener);
    let owner = config.socket_owner;
    let ended = live(config, listener, shutdown, furnish, socket.as_ref()).await;
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
    furnish: F,
    socket: Option<&SocketFile>,
) -> Result<(), DaemonError>
where
    F: AsyncFnOnce(&Base) -> Result<Furniture, Fault>,
{
    let base = open(config).await?;
    let about = about(&base, socket).await?;
    let furniture = furnish(&base).await.map_err(|fault| DaemonError::Furnish { fault: Box::new(fault) })?;
    let mut controllers = tokio::spawn(furniture.controllers);
    let context = Context {
        store: base.store.clone(),
        observations: base.observations.clone(),
        plugins: furniture.plugins,
        clock: base.clock.clone(),
        home: base.home.clone(),
        ports: furniture.ports,
        binaries: furniture.binaries,
        control: furniture.control,
        about: Arc::new(About { cgroup_driver: furniture.cgroup_driver, cgroup_message: furniture.cgroup_message, ..about }),
        shutdown: shutdown.clone(),
    };
    info!(home = %base.home.root().display(), pid = std::process::id(), "serving");
    tell_service_manager(sd_notify::NotifyState::Ready);
    let mut serving = std::pin::pin!(server::serve(context, listener));
    let served = tokio::select! {
        served = &mut serving => served,
        never = watchdog::pat(sd_notify::watchdog_enabled()) => match never {},
        // Shutdown with nodes ends the controllers before the server. Otherwise their end is a defect, and then the daemon ends too,
        // instead of taking orders that nobody carries out.
        ended = &mut controllers => {
            let defect = !base.stop.is_cancelled();
            if defect {
                error!(?ended, "the controllers ended by themselves");
                shutdown.cancel();
            }
            let served = serving.await;
            if defect {
                return Err(DaemonError::ControllersEnded);
            }
            served
        }
    };
    tell_service_manager(sd_notify::NotifyState::Stopping);
    base.stop.cancel();
    if !controllers.is_finished() && tokio::time::timeout(CONTROLLERS_GRACE, &mut controllers).await.is_err() {
        warn!("the controllers did not stop within {CONTROLLERS_GRACE:?}; the next start goes on from the store");
        controllers.abort();
    }
    info!("ended");
    Ok(served?)
}

async fn open(config: Config) -> Result<Base, DaemonError> {
    let Config { home, settings, .. } = config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits = Limits { changes: settings.keep.changes, events: settings.keep.events };
    let path = home.database();
    let for_store = clock.clone();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, for_store, limits)).await;
    let store = opened.map_err(|panic| store_fault(StoreError::Other(panic.to_string())))?.map_err(store_fault)?;
    let store: Arc<dyn Store> = Arc::new(store);
    let observations = Arc::new(Observations::default());
    Ok(Base { home, settings, store, observations, clock, stop: CancellationToken::new() })
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
        started_at: base.clock.now(),
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
fn tell_service_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager could not be told");
    }
}
