//! The connection over a plugin's pipes, with a guard that notices whatever is no HTTP/2.

use dvb_proto::frames::FrameWatch;
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    process::{ChildStdin, ChildStdout},
};
use tonic::transport::{Channel, Endpoint};

/// What one stream may have unread. Heights that nobody takes stop here, and stop nothing else: the connection's window
/// has room for each stream's.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// What the pipes tell and what can be done to them from outside.
#[derive(Default)]
pub(super) struct Line {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stdin: Option<ChildStdin>,
    cut: bool,
    pollution: Option<String>,
}

impl Line {
    pub(super) fn new(stdin: ChildStdin) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { stdin: Some(stdin), ..Inner::default() }) })
    }
    /// The plugin closed a pipe, or wrote what is no HTTP/2: no call on this connection can end well any more.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut
    }
    /// The text that stood where a frame had to begin.
    pub(super) fn pollution(&self) -> Option<String> {
        self.lock().pollution.clone()
    }
    /// Ends the plugin's stdin: the order to go.
    pub(super) fn hang_up(&self) {
        drop(self.lock().stdin.take());
    }
    fn cut(&self, pollution: Option<Vec<u8>>) {
        let mut inner = self.lock();
        inner.cut = true;
        if let Some(bytes) = pollution {
            inner.pollution.get_or_insert_with(|| String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    fn with_stdin<T>(&self, work: impl FnOnce(Pin<&mut ChildStdin>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let mut inner = self.lock();
        let result = match inner.stdin.as_mut() {
            Some(stdin) => work(Pin::new(stdin)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        inner.cut |= matches!(result, Poll::Ready(Err(_)));
        result
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gRPC channel over the two pipes. It cannot reconnect: a plugin has one connection in its life.
pub(super) async fn connect(stdout: ChildStdout, line: Arc<Line>) -> Result<Channel, tonic::transport::Error> {
    let mut once = Some(Pipe { stdout, watch: FrameWatch::default(), line });
    let connector = tower::service_fn(move |_| {
        let pipe = once.take().ok_or_else(|| io::Error::other("the plugin's only connection is over"));
        async move { pipe.map(TokioIo::new) }
    });
    // The address is never looked up.
    let endpoint = Endpoint::from_static("http://plugin.invalid");
    endpoint.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).connect_with_connector(connector).await
}

struct Pipe {
    stdout: ChildStdout,
    watch: FrameWatch,
    line: Arc<Line>,
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stdout).poll_read(cx, buf));
        let piece = &buf.filled()[before..];
        if result.is_err() || piece.is_empty() {
            self.line.cut(None);
            return Poll::Ready(result);
        }
        if let Err(pollution) = self.watch.feed(piece) {
            self.line.cut(Some(pollution.0.clone()));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, pollution)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.line.with_stdin(|stdin| stdin.poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.with_stdin(|stdin| stdin.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.with_stdin(|stdin| stdin.poll_shutdown(cx))
    }
}
