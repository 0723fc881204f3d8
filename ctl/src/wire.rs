//! The channel as every call uses it: each says which home is meant, and a daemon that never answered is told from a slow one.

use crate::error::{is_late, stuck};
use dvb_proto::endpoint::HOME_KEY;
use futures::future::BoxFuture;
use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};
use tower::Service;

#[derive(Clone)]
pub(crate) struct Wire {
    channel: Channel,
    /// The home, for the daemon to refuse when it serves another; empty when any is right.
    headers: HeaderMap,
    socket: Arc<PathBuf>,
    /// A daemon that runs answers its first call within this.
    patience: Duration,
    answered: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) fn new(channel: Channel, home: &str, socket: &Path, patience: Duration) -> Self {
        let mut metadata = MetadataMap::new();
        if !home.is_empty() {
            metadata.insert_bin(HOME_KEY, MetadataValue::from_bytes(home.as_bytes()));
        }
        Self { channel, headers: metadata.into_headers(), socket: Arc::new(socket.to_owned()), patience, answered: Arc::default() }
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().extend(self.headers.clone());
        let answer = self.channel.call(request);
        let Self { answered, patience, socket, .. } = self.clone();
        Box::pin(async move {
            if answered.load(Ordering::Relaxed) {
                return Ok(answer.await?);
            }
            let answer = match timeout(patience, answer).await {
                Ok(Ok(answer)) => answer,
                // Ours or the channel's clock, whichever was first.
                Ok(Err(error)) => return Err(late_is_stuck(error.into(), &socket)),
                Err(_) => return Err(stuck(&socket).into()),
            };
            answered.store(true, Ordering::Relaxed);
            Ok(answer)
        })
    }
}

/// The channel's own limit, where it ran out first, means the same as ours; any other error stays what it is.
fn late_is_stuck(error: Box<dyn Error + Send + Sync>, socket: &Path) -> Box<dyn Error + Send + Sync> {
    match Status::try_from_error(error) {
        Ok(status) if is_late(&status) => stuck(socket).into(),
        Ok(status) => status.into(),
        Err(error) => error,
    }
}
