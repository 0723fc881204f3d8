//! The connection to devnetd: one channel over the unix socket.

use crate::{
    context::Context,
    error::{Error, Exit},
    launch, service,
    wire::Wire,
};
use dvb_proto::devnet::v1::{
    DaemonStatus, HandshakeRequest, daemon_service_client::DaemonServiceClient, devnet_service_client::DevnetServiceClient,
    export_service_client::ExportServiceClient, gov_service_client::GovServiceClient, node_service_client::NodeServiceClient,
    plugin_service_client::PluginServiceClient, transaction_service_client::TransactionServiceClient, upgrade_service_client::UpgradeServiceClient,
};
use dvb_proto::endpoint;
use hyper_util::rt::TokioIo;
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Objects with a long event list or log tail stay far below this.
const MAX_MESSAGE: usize = 64 << 20;

/// A daemon that runs answers in milliseconds; one that is this late with its first answer is stuck.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// For an answer, or for the head of a stream. Verbs that wait do so on streams, which may take as long as they like.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Client {
    wire: Wire,
}

macro_rules! services {
    ($($method:ident $client:ident),* $(,)?) => {$(
        pub(crate) fn $method(&self) -> $client<Wire> {
            $client::new(self.wire.clone()).max_decoding_message_size(MAX_MESSAGE)
        }
    )*};
}

impl Client {
    services! {
        devnets DevnetServiceClient,
        nodes NodeServiceClient,
        upgrades UpgradeServiceClient,
        gov GovServiceClient,
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
                launch::may_begin_here(ctx)?;
                launch::start(ctx).await?;
                let absent = || Error::unreachable(format!("devnetd said that it is ready, but {} refuses", ctx.settings.socket.display()));
                Self::connect_running(ctx).await?.ok_or_else(absent)
            }
        }
    }

    /// Connects to a daemon that runs; None when none does. Whether it serves the right home, and answers at all, the first call
    /// tells: a round trip of its own for that would be half of what `get` takes.
    pub(crate) async fn connect_running(ctx: &Context) -> Result<Option<Self>, Error> {
        let settings = &ctx.settings;
        let mut socket = settings.socket.clone();
        let mut stream = dial(&socket).await?;
        if stream.is_none()
            && let Some(told) = endpoint::told_socket(&settings.home).filter(|told| settings.any_socket && *told != socket)
        {
            socket = told;
            stream = dial(&socket).await?;
        }
        let Some(stream) = stream else { return Ok(None) };
        let asked = settings.timeout.filter(|limit| !limit.is_zero());
        let channel = channel(stream, &socket, asked.unwrap_or(ANSWER_LIMIT)).await?;
        let patience = asked.map_or(FIRST_ANSWER_LIMIT, |asked| asked.min(FIRST_ANSWER_LIMIT));
        let client = Self { wire: Wire::new(channel, &settings.expected_home, &socket, patience) };
        if settings.verbose {
            client.handshake(ctx).await?;
        }
        Ok(Some(client))
    }

    /// Asks who answers, and makes sure that it serves the home that is meant.
    pub(crate) async fn handshake(&self, ctx: &Context) -> Result<DaemonStatus, Error> {
        let (socket, expected) = (&ctx.settings.socket, &ctx.settings.expected_home);
        let request = HandshakeRequest { client_version: env!("CARGO_PKG_VERSION").to_owned(), home: expected.clone() };
        let status = self.daemon().handshake(request).await?.into_inner();
        if !expected.is_empty() && !status.home.is_empty() && *expected != status.home {
            let message = format!("the devnetd behind {} serves the home {}, not {expected}", socket.display(), status.home);
            return Err(Error::new(Exit::Unreachable, "HomeMismatch", message).with_remedy(format!("dvbctl --home {}", status.home)));
        }
        ctx.debug(format!("devnetd {} pid {} at {}", status.version, status.pid, socket.display()));
        Ok(status)
    }
}

/// None when nobody listens.
async fn dial(socket: &Path) -> Result<Option<UnixStream>, Error> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(cannot_reach(socket, &error)),
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
    channel.map_err(|error| match is_torn(&error) {
        true => Error::lost(),
        false => Error::unreachable(format!("{} does not speak the protocol of devnetd: {error}", socket.display())),
    })
}

/// Whether somebody was there, and is gone.
fn is_torn(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)) {
            return true;
        }
        cause = error.source();
    }
    false
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
