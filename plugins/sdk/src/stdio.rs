//! Takes stdin and stdout for the protocol, and leaves harmless descriptors in their places.

use rustix::{
    fs::{Mode, OFlags},
    io::ioctl_fionbio,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::unix::pipe::{Receiver, Sender},
    sync::Notify,
};
use tonic::transport::server::Connected;

/// The two ends of the protocol. Made at most once per process.
pub(crate) struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
}

impl Stdio {
    /// Moves the protocol to private descriptors (closed on exec). Afterwards fd 0 is /dev/null and fd 1 is stderr, so that a
    /// stray `println!` of some library lands in the log and not between two frames.
    pub(crate) fn take() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
        Ok(Self { stdin, stdout })
    }

    /// Needs a tokio runtime. Fails where stdin or stdout is a file: only pipes and sockets can be waited for.
    pub(crate) fn open(self, ended: Arc<Ended>) -> io::Result<Connection> {
        ioctl_fionbio(&self.stdin, true)?;
        ioctl_fionbio(&self.stdout, true)?;
        // Unchecked: a host may hand over a socket pair, which the checks for a pipe would refuse.
        let read = Receiver::from_owned_fd_unchecked(self.stdin)?;
        let write = Sender::from_owned_fd_unchecked(self.stdout)?;
        Ok(Connection { read, write, ended })
    }
}

/// What became of the connection.
#[derive(Default)]
pub(crate) struct Ended {
    /// stdin ended, or failed.
    pub(crate) input: Notify,
    /// The server let go of the connection.
    pub(crate) dropped: Notify,
}

/// stdin and stdout as one stream of bytes.
pub(crate) struct Connection {
    read: Receiver,
    write: Sender,
    ended: Arc<Ended>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.read).poll_read(cx, buf));
        if result.is_err() || buf.filled().len() == before {
            self.ended.input.notify_one();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ended.dropped.notify_one();
    }
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}
