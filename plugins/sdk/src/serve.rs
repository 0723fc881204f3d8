//! Runs a plugin on the process's own stdin and stdout until stdin ends.

use crate::{
    Plugin, pb,
    service::Service,
    stdio::{Ended, Stdio},
};
use futures::StreamExt;
use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tonic::transport::Server;
use tracing_subscriber::EnvFilter;

/// How long calls in flight may go on after stdin ended. Nobody reads their answers.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// The largest message in either direction, in bytes. What is larger belongs into a file.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// Why a plugin could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A person started it.
    #[error("this is a plugin for devnetd and speaks gRPC on stdin and stdout; put it where devnetd looks for plugins, and devnetd starts it")]
    Terminal,
    #[error("cannot take stdin and stdout for the protocol")]
    Stdio(#[source] io::Error),
    #[error("the connection to devnetd failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves on stdin and stdout; returns when stdin has ended. Call it once per process, in a tokio runtime with I/O and time.
/// Afterwards fd 1 is stderr. Logging is the caller's affair; [`run`] sees to that too.
pub async fn serve(plugin: impl Plugin) -> Result<(), ServeError> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(ServeError::Terminal);
    }
    let ended = Arc::new(Ended::default());
    let connection = Stdio::take().and_then(|stdio| stdio.open(ended.clone())).map_err(ServeError::Stdio)?;
    let service = Service::new(plugin);
    let grpc = pb::plugin_server::PluginServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    // One connection and no second: the stream of connections stays open, because the server ends with it.
    let incoming = futures::stream::iter([Ok::<_, io::Error>(connection)]).chain(futures::stream::pending());
    let server = Server::builder().add_service(grpc).serve_with_incoming(incoming);
    let result = tokio::select! {
        result = server => result.map_err(ServeError::Transport),
        () = finished(&ended) => Ok(()),
    };
    service.close().await;
    result
}

/// All of a plugin's `main`: logs to stderr at the level of DVB_LOG (default info), a small runtime, [`serve`].
/// Exit code 0 when stdin ended, 2 when a person started it, 1 for other failures.
pub fn run(plugin: impl Plugin) -> ExitCode {
    let filter = EnvFilter::try_from_env("DVB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The host stamps and colours the lines itself.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).without_time().with_target(false).init();
    // Two threads: a call that computes for a while must not hold up ClassifyExit.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(serve(plugin));
    // A call that blocks must not hold the process after stdin's end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::Terminal) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!("{error}: {source}");
            ExitCode::FAILURE
        }
    }
}

async fn finished(ended: &Ended) {
    tokio::select! {
        () = ended.dropped.notified() => {}
        () = ended.input.notified() => {
            // A grace for the server to wind up; an answer that nobody reads is not worth more.
            let _ = tokio::time::timeout(LAST_CALLS, ended.dropped.notified()).await;
        }
    }
}
