//! `daemon install` and `daemon uninstall`: the systemd user units.

use super::stop;
use crate::{client::Client, context::Context, error::Error, launch, service};
use dvb_units::{ManagerError, SERVICE, SOCKET, UserManager, units};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(super) async fn install(ctx: &Context, now: bool) -> Result<(), Error> {
    if !service::serves_default_home(ctx) {
        return Err(Error::usage("the units serve the default home on its default socket only")
            .with_remedy("leave out --home, --socket, DVB_HOME and DVB_SOCKET; other homes' daemons start on demand without a unit"));
    }
    let manager = manager(ctx).await?;
    let program = launch::find_program(ctx)?;
    let bin = program.parent().unwrap_or(Path::new("/"));
    let folder = folder(ctx)?;
    for (name, text) in units(bin) {
        let path = folder.join(name);
        put(&path, &text).map_err(|error| Error::file(&path.to_string_lossy(), &error))?;
        ctx.print(path.display().to_string())?;
    }
    manager.reload().await.map_err(refused)?;
    manager.enable(&[SERVICE, SOCKET]).await.map_err(refused)?;
    if now {
        take_over(ctx, &manager).await?;
    }
    ctx.print(format!(
        "{SERVICE} and {SOCKET} are enabled{}",
        if now { " and started" } else { "; they start at the next login, or by the next dvbctl" }
    ))?;
    if !lingers(ctx) {
        let remedy = dvb_units::linger_remedy(&user(ctx));
        ctx.note(format!("note: you do not linger, so systemd ends devnetd and all nodes when you log out\n  try: {remedy}"));
    }
    Ok(())
}

pub(super) async fn uninstall(ctx: &Context) -> Result<(), Error> {
    let manager = manager(ctx).await?;
    let folder = folder(ctx)?;
    let there: Vec<PathBuf> = units(Path::new("/")).iter().map(|(name, _)| folder.join(name)).filter(|path| path.exists()).collect();
    if there.is_empty() {
        return Ok(ctx.print(format!("no units of devnetd in {}", folder.display()))?);
    }
    // The socket first: else a client could start the service again in between.
    for unit in [SOCKET, SERVICE] {
        manager.stop(unit).await.map_err(refused)?;
    }
    manager.disable(&[SERVICE, SOCKET]).await.map_err(refused)?;
    for path in &there {
        fs::remove_file(path).map_err(|error| Error::file(&path.to_string_lossy(), &error))?;
        ctx.print(format!("removed {}", path.display()))?;
    }
    manager.reload().await.map_err(refused)?;
    Ok(ctx.print("devnetd is stopped; nodes go on running, and the next dvbctl starts a devnetd of its own for them")?)
}

/// Whether the user manager stays when the user logs out.
pub(super) fn lingers(ctx: &Context) -> bool {
    let user = user(ctx);
    !user.is_empty() && Path::new("/var/lib/systemd/linger").join(user).exists()
}

/// Who asks; empty when nothing tells.
pub(super) fn user(ctx: &Context) -> String {
    let known = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    known.or_else(|| ctx.settings.env.vars.get("USER").cloned()).unwrap_or_default()
}

/// Where the user manager looks for units of the user's own.
pub(super) fn folder(ctx: &Context) -> Result<PathBuf, Error> {
    let env = &ctx.settings.env;
    let config = env.vars.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(env.home.as_ref()?.join(".config")));
    config.map(|config| config.join("systemd/user")).ok_or_else(|| Error::usage("HOME is not set, so there is no place for units"))
}

async fn manager(ctx: &Context) -> Result<UserManager, Error> {
    let remedy = "log in by ssh or at a console (su and sudo start no user manager), or have root run: loginctl enable-linger USER";
    let Some(runtime_dir) = ctx.settings.runtime_dir.as_deref() else {
        return Err(Error::failed("NoUserManager", "XDG_RUNTIME_DIR names no folder, so no systemd user manager can be found").with_remedy(remedy));
    };
    UserManager::connect(runtime_dir).await.map_err(|error| Error::failed("NoUserManager", error.to_string()).with_remedy(remedy))
}

/// A daemon that dvbctl started gives way; its nodes run on, and the service adopts them.
async fn take_over(ctx: &Context, manager: &UserManager) -> Result<(), Error> {
    if !manager.state(SOCKET).await.map_err(refused)?.is_active()
        && let Some(client) = Client::connect_running(ctx).await?
    {
        stop(ctx, client, false).await?;
    }
    manager.start(SOCKET).await.map_err(refused)?;
    service::start(ctx, manager).await
}

fn refused(error: ManagerError) -> Error {
    Error::failed("UserManager", error.to_string())
}

/// Written beside and renamed: the manager never reads half a unit.
fn put(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = path.with_extension("part");
    fs::write(&part, text)?;
    fs::rename(&part, path)
}
