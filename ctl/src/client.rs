//! The connection to devnetd: one channel over the unix socket, and the handshake.

use crate::{
    context::Context,
    error::{Error, Exit},
    launch, service,
};
use dvb_proto::devnet::v1::{
    DaemonStatus, HandshakeRequest, daemon_service_client::DaemonServiceClient, devnet_service_client::DevnetServiceClient,
    export_service_client::ExportServiceClient, node_service_client::NodeServiceClient, plugin_service_client::PluginServiceClient,
    transaction_service_client::TransactionServiceClient, upgrade_service_client::UpgradeServiceClient,
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Objects with a long event list or log tail stay far below this.
const MAX_MESSAGE: usize = 64 << 20;

/// A daemon that runs answers a handshake in milliseconds; one that is this late is stuck.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// For an answer, or for the head of a stream. Verbs that wait do so on streams, which may take as long as they like.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    /// What the handshake told.
    pub(crate) status: DaemonStatus,
}

macro_rules! services {
    ($($method:ident $client:ident),* $(,)?) => {$(
        pub(crate) fn $method(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
        }
    )*};
}

impl Client {
    services! {
        devnets DevnetServiceClient,
        nodes NodeServiceClient,
        upgrades UpgradeServiceClient,
        transactions TransactionServiceClient,
        exports ExportServiceClient,
        plugins PluginServiceClient,
        daemon DaemonServiceClient,
    }

    /// Connects and starts devnetd first when none runs.
    pub(crate) async fn connect(ctx: &Context) -> Result<Self, Error> {
        let running = match Self::connect_running(ctx).await {
            Err(_) if service::has_started_meanwhile(ctx).await => Self::connect_running(ctx).await?,
            running => running?,
        };
        match running {
            Some(client) => Ok(client),
            None => {
                launch::start(ctx).await?;
                let absent = || Error::unreachable(format!("devnetd said that it is ready, but {} refuses", ctx.settings.socket.display()));
                Self::connect_running(ctx).await?.ok_or_else(absent)
            }
        }
    }

    /// Connects to a daemon that runs; None when none does.
    pub(crate) async fn connect_running(ctx: &Context) -> Result<Option<Self>, Error> {
        let socket = &ctx.settings.socket;
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(cannot_reach(socket, &error)),
        };
        let asked = ctx.settings.timeout.filter(|limit| !limit.is_zero());
        let limit = asked.map_or(HANDSHAKE_LIMIT, |asked| asked.min(HANDSHAKE_LIMIT));
        let client = timeout(limit, Self::shake_hands(ctx, stream, asked.unwrap_or(ANSWER_LIMIT)));
        let stuck = || {
            let message = format!("devnetd at {} takes connections but does not answer", socket.display());
            Error::unreachable(message).with_remedy("dvbctl daemon logs")
        };
        match client.await {
            Ok(Ok(client)) => Ok(Some(client)),
            Ok(Err(error)) if error.exit != Exit::TimedOut => Err(error),
            // Ours or the channel's clock, whichever was first.
            Ok(Err(_)) | Err(_) => Err(stuck()),
        }
    }

    async fn shake_hands(ctx: &Context, stream: UnixStream, answer_limit: Duration) -> Result<Self, Error> {
        let socket = &ctx.settings.socket;
        let channel = channel(stream, socket, answer_limit).await?;
        let request = HandshakeRequest { client_version: env!("CARGO_PKG_VERSION").to_owned(), home: ctx.settings.expected_home.clone() };
        let mut service = DaemonServiceClient::new(channel.clone());
        let status = service.handshake(request).await?.into_inner();
        let expected = &ctx.settings.expected_home;
        if !expected.is_empty() && !status.home.is_empty() && *expected != status.home {
            let message = format!("the devnetd behind {} serves the home {}, not {expected}", socket.display(), status.home);
            return Err(Error::new(Exit::Unreachable, "HomeMismatch", message).with_remedy(format!("dvbctl --home {}", status.home)));
        }
        ctx.debug(format!("devnetd {} pid {} at {}", status.version, status.pid, socket.display()));
        Ok(Self { channel, status })
    }
}

/// The first connection is the one that we have; later ones, after the daemon restarted, are made anew.
async fn channel(stream: UnixStream, socket: &Path, answer_limit: Duration) -> Result<Channel, Error> {
    let first = Arc::new(Mutex::new(Some(stream)));
    let path = Arc::new(socket.to_owned());
    let connector = service_fn(move |_: Uri| {
        let ready = first.lock().ok().and_then(|mut first| first.take());
        let path = path.clone();
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => UnixStream::connect(path.as_path()).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The URI is only a name: the connector decides where to go.
    let endpoint = Endpoint::from_static("http://devnetd").user_agent(concat!("dvbctl/", env!("CARGO_PKG_VERSION")));
    let channel = match endpoint {
        Ok(endpoint) => endpoint.timeout(answer_limit).connect_with_connector(connector).await,
        Err(error) => Err(error),
    };
    channel.map_err(|error| Error::unreachable(format!("{} does not speak the protocol of devnetd: {error}", socket.display())))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused)
}

fn cannot_reach(socket: &Path, error: &io::Error) -> Error {
    let refused = Error::unreachable(format!("cannot connect to {}: {error}", socket.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => refused.with_remedy("run dvbctl as the user that runs devnetd"),
        _ => refused,
    }
}
