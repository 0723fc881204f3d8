//! The gRPC server on its unix socket: bind it, serve all services on it, end in order.

use super::{
    Context, auth, daemon::Daemon, devnets::Devnets, exports::Exports, gov::Governance, nodes::Nodes, plugins::PluginList,
    transactions::Transactions, upgrades::Upgrades,
};
use dvb_proto::devnet::v1::{
    daemon_service_server::DaemonServiceServer, devnet_service_server::DevnetServiceServer, export_service_server::ExportServiceServer,
    gov_service_server::GovServiceServer, node_service_server::NodeServiceServer, plugin_service_server::PluginServiceServer,
    transaction_service_server::TransactionServiceServer, upgrade_service_server::UpgradeServiceServer,
};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{service::InterceptorLayer, transport::Server};

/// The longest path that fits into a socket address (108 bytes with the terminating zero).
const MAX_SOCKET_PATH: usize = 107;
/// After this, connections that do not end by themselves are dropped. Streams end at once; this is for clients that read nothing.
const DRAIN: Duration = Duration::from_secs(2);
/// Streams of one client at a time; more wait.
const MAX_STREAMS: u32 = 256;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the socket path {} has {} bytes, and at most {MAX_SOCKET_PATH} fit; use a shorter home or --socket PATH", path.display(), path.as_os_str().len())]
    PathTooLong { path: PathBuf },
    #[error("{} exists and is no socket; move it away or use --socket PATH", path.display())]
    NotASocket { path: PathBuf },
    #[error("{} is served by another process{}; use --socket PATH", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Taken { path: PathBuf, pid: Option<i32> },
    #[error("cannot serve on {}: {source}", path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("the server ended: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Binds `path` with mode 0600 and takes the place of a socket that nobody serves any more. The caller holds the home's lock, so no
/// other daemon of this home is doing the same.
pub async fn bind(path: &Path) -> Result<UnixListener, ServerError> {
    let owned = || path.to_owned();
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(ServerError::PathTooLong { path: owned() });
    }
    let failed = |source| ServerError::Bind { path: owned(), source };
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(ServerError::NotASocket { path: owned() }),
        Ok(_) => {
            if let Ok(peer) = UnixStream::connect(path).await {
                let pid = peer.peer_cred().ok().and_then(|cred| cred.pid());
                return Err(ServerError::Taken { path: owned(), pid });
            }
            fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Between bind and chmod a stranger could connect; the peer credentials refuse it all the same.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// What tells the bound socket from one that took its place.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// None for a listener without a path.
    pub fn of(listener: &UnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let identity = identity(&path);
        Some(Self { path, identity })
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Removes the file if it is still ours.
    pub fn remove(&self) -> io::Result<()> {
        if identity(&self.path) == self.identity { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Serves until `cx.shutdown` fires; then accepts no more, lets running calls end (streams end by themselves) and returns.
pub async fn serve(cx: Context, listener: UnixListener) -> Result<(), ServerError> {
    let own = nix::unistd::geteuid().as_raw();
    let home = cx.home.root().to_string_lossy().into_owned();
    let shutdown = cx.shutdown.clone();
    let serving = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .layer(InterceptorLayer::new(move |request| auth::admit(request, own, &home)))
        .add_service(DevnetServiceServer::new(Devnets(cx.clone())))
        .add_service(NodeServiceServer::new(Nodes(cx.clone())))
        .add_service(UpgradeServiceServer::new(Upgrades(cx.clone())))
        .add_service(TransactionServiceServer::new(Transactions(cx.clone())))
        .add_service(GovServiceServer::new(Governance(cx.clone())))
        .add_service(ExportServiceServer::new(Exports(cx.clone())))
        .add_service(PluginServiceServer::new(PluginList(cx.clone())))
        .add_service(DaemonServiceServer::new(Daemon(cx)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = overdue => {
            tracing::warn!("some client did not end its calls within {DRAIN:?}; its connection is dropped");
            Ok(())
        }
    }
}
