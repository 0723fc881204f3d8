//! The daemon: flags, tracing, signals; everything else is in the library.

use anyhow::Context as _;
use clap::Parser;
use devnetd::{
    api::server,
    cgroup::{HOLD_VERB, hold},
    config::{Home, HomeLock, LockError, LogLevel, Settings, prepare_home},
    daemon::{self, Config, SocketOwner, furnish},
    sys,
};
use dvb_proto::endpoint;
use futures::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::{EnvFilter, fmt::writer::MakeWriterExt};

/// EX_TEMPFAIL: another devnetd has the home. dvbctl takes it as "somebody was quicker" and connects to that one.
const ALREADY_RUNNING: u8 = 75;

/// Runs the nodes of blockchain devnets and serves dvbctl. It stays in the foreground; `dvbctl daemon start` puts it in the background.
#[derive(Debug, Parser)]
#[command(name = "devnetd", version)]
struct Flags {
    /// Folder with the daemon's state [default: ~/.devnet-builder]
    #[arg(long, env = "DVB_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Unix socket to serve on [default: made from the home]
    #[arg(long, env = "DVB_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: the home's config.toml, else info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Taken for clarity in service files: devnetd never puts itself in the background
    #[arg(long)]
    foreground: bool,
}

fn main() -> ExitCode {
    // Before all else: a holder wants nothing of what follows.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == HOLD_VERB) {
        let held = hold(Path::new(&args.next().unwrap_or_default()));
        return if held.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let flags = Flags::parse();
    match start(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "devnetd: {error:#}"); // nobody left to tell when this fails
            match error.downcast_ref::<LockError>() {
                Some(LockError::Held { .. }) => ExitCode::from(ALREADY_RUNNING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<()> {
    let activated = sys::activated_listener().context("cannot take the socket of the service manager")?;
    let user_home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let wanted = match (flags.home, &user_home) {
        (Some(home), _) => home,
        (None, Some(user)) => endpoint::default_home(user),
        (None, None) => anyhow::bail!("HOME is not set, so there is no default home; use --home DIR"),
    };
    let home = prepare_home(&wanted)?;
    let settings = Settings::load(&home.config())?;
    trace(flags.log_level.unwrap_or(settings.log_level), &home);
    let lock = HomeLock::acquire(&home)?;
    let socket = match flags.socket {
        Some(socket) => std::path::absolute(socket).context("cannot tell the current folder")?,
        None => socket_of(&home, user_home),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let activated = activated.filter(|listener| is_at(listener, &socket));
    let socket_owner = if activated.is_some() { SocketOwner::ServiceManager } else { SocketOwner::Daemon };
    let ended = runtime.block_on(serve(Config { home, settings, socket_owner }, socket, activated));
    drop(lock);
    ended
}

/// The rule that dvbctl follows too.
fn socket_of(home: &Home, user_home: Option<PathBuf>) -> PathBuf {
    let user = user_home.unwrap_or_default();
    let user = user.canonicalize().unwrap_or(user);
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    endpoint::socket_path(home.root(), &user, runtime_dir.as_deref())
}

/// The unit's socket is that of the default home; a devnetd for another home may be started from the same unit.
fn is_at(listener: &UnixListener, socket: &Path) -> bool {
    let is_ours = listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(socket));
    if !is_ours {
        warn!(socket = %socket.display(), "the service manager passed another socket than this home's; it is not used");
    }
    is_ours
}

async fn serve(config: Config, socket: PathBuf, activated: Option<UnixListener>) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot take signals")?;
    let handle = signals.handle();
    let hearing = tokio::spawn(hear(signals, shutdown.clone()));
    let listener = match activated {
        Some(listener) => tokio::net::UnixListener::from_std(listener).context("cannot take the socket of the service manager")?,
        None => server::bind(&socket).await?,
    };
    let ended = daemon::run(config, listener, shutdown, furnish).await;
    handle.close();
    hearing.await.context("the signal task failed")?;
    Ok(ended?)
}

/// SIGTERM and SIGINT end the daemon in order, a second one at once. Either way the nodes keep running.
async fn hear(mut signals: Signals, shutdown: CancellationToken) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGHUP => info!("SIGHUP is ignored"),
            _ if shutdown.is_cancelled() => {
                warn!("a second signal: ending at once; nodes keep running");
                std::process::exit(128 + signal);
            }
            _ => {
                info!(signal, "ending; nodes keep running");
                shutdown.cancel();
            }
        }
    }
}

/// To stderr, which dvbctl directs into the daemon's log. Where stderr is the journal, also to that log, for it must be readable
/// without journal rights and for every home.
fn trace(level: LogLevel, home: &Home) {
    // The transport's own debug lines drown everything else.
    let filter = EnvFilter::new(format!("{level},h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = in_journal.then(|| OpenOptions::new().create(true).append(true).mode(0o600).open(home.daemon_log()));
    match log {
        Some(Ok(log)) => subscriber.with_writer(io::stderr.and(Arc::new(log))).with_ansi(false).init(),
        _ => {
            let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            subscriber.with_writer(io::stderr).with_ansi(color).init();
        }
    }
}
