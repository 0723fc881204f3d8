//! devnetd as a systemd user service: whether it is installed, and starting it through the user manager.

use crate::{context::Context, error::Error};
use dvb_proto::endpoint;
use dvb_units::{SERVICE, SOCKET, UserManager};

/// The user manager, where one runs and its devnetd.service is the daemon that the settings mean: the units serve the default home on the
/// default socket.
pub(crate) async fn manager(ctx: &Context) -> Option<UserManager> {
    let runtime_dir = ctx.settings.runtime_dir.as_deref().filter(|_| serves_default_home(ctx))?;
    // One look at a file keeps everybody else from waiting for a connection.
    if !UserManager::socket(runtime_dir).exists() {
        return None;
    }
    let manager = UserManager::connect(runtime_dir).await.ok()?;
    manager.state(SERVICE).await.is_ok_and(|state| state.is_loaded()).then_some(manager)
}

pub(crate) fn serves_default_home(ctx: &Context) -> bool {
    let settings = &ctx.settings;
    let Some(user) = settings.env.home.as_deref().and_then(|home| home.canonicalize().ok()) else { return false };
    settings.home == endpoint::default_home(&user) && settings.socket == endpoint::socket_path(&settings.home, &user, settings.runtime_dir.as_deref())
}

/// True when connecting to the socket would start the daemon: asking whether it runs must not.
pub(crate) async fn rests(ctx: &Context) -> bool {
    let Some(manager) = manager(ctx).await else { return false };
    let listens = manager.state(SOCKET).await.is_ok_and(|state| state.is_active());
    let is_down = manager.state(SERVICE).await.is_ok_and(|state| matches!(state.active.as_str(), "inactive" | "failed"));
    listens && is_down
}

/// True when the service was just starting and now has: it was too slow for whoever connected to its socket.
pub(crate) async fn has_started_meanwhile(ctx: &Context) -> bool {
    let Some(manager) = manager(ctx).await else { return false };
    let is_starting = manager.state(SERVICE).await.is_ok_and(|state| matches!(state.active.as_str(), "activating" | "reloading"));
    // Joins the job that is under way.
    is_starting && manager.start(SERVICE).await.is_ok()
}

/// Returns when devnetd has said that it is ready.
pub(crate) async fn start(ctx: &Context, manager: &UserManager) -> Result<(), Error> {
    ctx.debug(format!("starting {SERVICE} through the user manager"));
    let started = manager.start(SERVICE).await;
    started.map_err(|error| Error::unreachable(error.to_string()).with_remedy("dvbctl daemon logs; journalctl --user -u devnetd"))
}
