//! The daemon: flags, tracing, signals; everything else is in the library.

use anyhow::Context as _;
use clap::Parser;
use devnetd::{
    api::server,
    config::{Home, HomeLock, LockError, LogLevel, Settings, prepare_home},
    daemon::{
        self, Config, End, SocketOwner, furnish,
        reload::{self, INHERITED_VAR, Inherited, Reload},
    },
    keeper,
    sys::{self, Clock, Kernel, SystemClock},
};
use dvb_proto::endpoint;
use futures::StreamExt;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, net},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::{EnvFilter, fmt::writer::MakeWriterExt};

/// EX_TEMPFAIL: another devnetd has the home. dvbctl takes it as "somebody was quicker" and connects to that one.
const ALREADY_RUNNING: u8 = 75;
/// EX_UNAVAILABLE: one that lives holds the home, which was taken away under it. To try again is of no use.
const HOME_TAKEN_AWAY: u8 = 69;
/// With any value: as if the kernel had none of the newer features that devnetd uses. To try the ways around.
const OLD_KERNEL_VAR: &str = "DVB_OLD_KERNEL";
/// With any value: as on a machine where devnetd may make no cgroup.
const NO_CGROUPS_VAR: &str = "DVB_NO_CGROUPS";
/// How long work on files may take that a daemon at its end still has under way.
const LAST_WORK: Duration = Duration::from_secs(5);

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
    // Before all else: a keeper wants nothing of what follows, least of all its memory.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == keeper::KEEPER_VERB) {
        return said(keeper::main(&args.collect::<Vec<_>>()).map_err(Into::into));
    }
    sys::share_few_heaps();
    // Until there is somebody to hear them; a reload that comes on the heels of another must not end the daemon.
    let _ = heard().thread_block();
    let flags = Flags::parse();
    said(start(flags))
}

fn said(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "devnetd: {error:#}"); // nobody left to tell when this fails
            match error.downcast_ref::<LockError>() {
                Some(LockError::Held { .. }) => ExitCode::from(ALREADY_RUNNING),
                Some(LockError::FileRemoved { .. }) => ExitCode::from(HOME_TAKEN_AWAY),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<()> {
    let passed = Passed::take()?;
    let user_home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let wanted = match (flags.home, &user_home) {
        (Some(home), _) => home,
        (None, Some(user)) => endpoint::default_home(user),
        (None, None) => anyhow::bail!("HOME is not set, so there is no default home; use --home DIR"),
    };
    let home = prepare_home(&wanted)?;
    let settings = Settings::load(&home.config())?;
    trace(flags.log_level.unwrap_or(settings.log_level), &home);
    if let Err(error) = sys::raise_open_files() {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
    let lock = match passed.lock {
        Some(lock) => HomeLock::inherit(&home, lock).map_or_else(|| HomeLock::acquire(&home), Ok)?,
        None => HomeLock::acquire(&home)?,
    };
    let socket = match flags.socket {
        Some(socket) => std::path::absolute(socket).context("cannot tell the current folder")?,
        None => socket_of(&home, user_home),
    };
    if let Err(error) = lock.announce(&home, &socket) {
        warn!(%error, "a dvbctl with another XDG_RUNTIME_DIR will not find this devnetd");
    }
    let kernel = kernel();
    let mut listener = passed.listener.filter(|listener| is_at(listener, &socket));
    let socket_owner = if listener.is_some() && sys::is_activated() { SocketOwner::ServiceManager } else { SocketOwner::Daemon };
    let config = Config { home, settings, kernel, socket_owner, started_at: SystemClock.now() };
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
        let ended = runtime.block_on(serve(config.clone(), &socket, listener.take()));
        runtime.shutdown_timeout(LAST_WORK);
        let End::Reload(kept) = ended? else { return Ok(()) };
        let error = reload::execute(&lock, &kept);
        error!(%error, "cannot be executed anew; this devnetd serves on");
        listener = Some(net::UnixListener::from(kept));
    }
}

fn kernel() -> Kernel {
    let is_set = |name| std::env::var_os(name).is_some();
    let kernel = if is_set(OLD_KERNEL_VAR) { Kernel::old() } else { Kernel::as_it_is() };
    Kernel { cgroups: kernel.cgroups && !is_set(NO_CGROUPS_VAR), ..kernel }
}

/// What this process was executed with: by itself before a reload, or by a service manager.
#[derive(Default)]
struct Passed {
    lock: Option<OwnedFd>,
    /// Clients wait at it already.
    listener: Option<net::UnixListener>,
}

impl Passed {
    /// Before anything else opens descriptors.
    fn take() -> anyhow::Result<Self> {
        if let Some(Inherited { lock, listener }) = Inherited::take(std::env::var_os(INHERITED_VAR).as_deref()) {
            return Ok(Self { lock: Some(lock), listener: Some(listener.into()) });
        }
        let listener = sys::activated_listener().context("cannot take the socket of the service manager")?;
        Ok(Self { lock: None, listener })
    }
}

/// The unit's socket is that of the default home; a devnetd for another home may be started from the same unit.
fn is_at(listener: &net::UnixListener, socket: &Path) -> bool {
    let is_ours = listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(socket));
    if !is_ours {
        warn!(socket = %socket.display(), "another socket than this home's was passed; it is not used");
    }
    is_ours
}

/// The rule that dvbctl follows too.
fn socket_of(home: &Home, user_home: Option<PathBuf>) -> PathBuf {
    let user = user_home.unwrap_or_default();
    let user = user.canonicalize().unwrap_or(user);
    let runtime_dir = endpoint::runtime_dir(std::env::var_os("XDG_RUNTIME_DIR"), nix::unistd::geteuid().as_raw());
    endpoint::socket_path(home.root(), &user, runtime_dir.as_deref())
}

async fn serve(config: Config, socket: &Path, listener: Option<net::UnixListener>) -> anyhow::Result<End> {
    let (shutdown, reload) = (CancellationToken::new(), Reload::default());
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot take signals")?;
    let _ = heard().thread_unblock();
    let handle = signals.handle();
    let hearing = tokio::spawn(hear(signals, shutdown.clone(), reload.clone()));
    let listener = match listener {
        Some(passed) => UnixListener::from_std(passed).context("cannot listen on the socket that was passed")?,
        None => server::bind(socket).await?,
    };
    let ended = daemon::run(config, listener, shutdown, reload, furnish).await;
    // From here to the next program nobody hears them: they wait.
    let _ = heard().thread_block();
    handle.close();
    hearing.await.context("the signal task failed")?;
    Ok(ended?)
}

fn heard() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// SIGTERM and SIGINT end the daemon in order, a second one at once; SIGHUP has it execute itself anew. The nodes keep running.
async fn hear(mut signals: Signals, shutdown: CancellationToken, reload: Reload) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGHUP if shutdown.is_cancelled() => {}
            SIGHUP => match reload.prepare().await {
                Ok(program) => {
                    info!(program, "SIGHUP: executing it; nodes keep running");
                    shutdown.cancel();
                }
                Err(fault) => error!(%fault, "SIGHUP: no reload"),
            },
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
