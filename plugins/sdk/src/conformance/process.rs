//! A plugin's process as the suite sees it: pipes with a frame watch on stdout, stderr kept, killed when dropped.

use super::{Checked, Finding, fail};
use dvb_proto::frames::FrameWatch;
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    io,
    path::Path,
    pin::Pin,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};
use tonic::transport::{Channel, Endpoint};

const STDERR_LINES: usize = 20;

/// Shared between the pipe, which reads, and the suite, which asks.
#[derive(Default)]
struct Shared {
    stdin: Option<ChildStdin>,
    pollution: Option<String>,
    stderr: VecDeque<String>,
}

pub(super) struct Process {
    child: Child,
    shared: Arc<Mutex<Shared>>,
    pub(super) pid: u32,
}

impl Process {
    /// Starts `exe` in `cwd` with nothing but PATH, HOME, TMPDIR (both `cwd`) and `env`, and connects to it.
    pub(super) async fn start(exe: &Path, cwd: &Path, env: &[(String, String)]) -> Checked<(Self, Channel)> {
        #[expect(clippy::disallowed_methods, reason = "the suite runs outside of devnetd; the environment is cleared here too")]
        let mut command = Command::from(std::process::Command::new(exe));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", cwd).env("TMPDIR", cwd).current_dir(cwd);
        command.envs(env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Finding::Fail(format!("{}: {error}", exe.display())))?;
        let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) = (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return fail("the process has no pipes");
        };
        let shared = Arc::new(Mutex::new(Shared { stdin: Some(stdin), ..Shared::default() }));
        tokio::spawn(keep_stderr(stderr, shared.clone()));
        let channel = connect(Pipe { stdout, watch: FrameWatch::default(), shared: shared.clone() }).await?;
        Ok((Self { child, shared, pid }, channel))
    }

    /// What stood on stdout that is no HTTP/2.
    pub(super) fn pollution(&self) -> Option<String> {
        lock(&self.shared).pollution.clone()
    }

    pub(super) fn stderr(&self) -> String {
        lock(&self.shared).stderr.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Process ids of its children, from all its threads.
    pub(super) fn children(&self) -> String {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return String::new() };
        let read = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        tasks.flatten().map(read).collect::<String>().trim().to_owned()
    }

    /// Ends its stdin and waits. None: it was still there after `limit`, and is killed.
    pub(super) async fn end(mut self, limit: Duration) -> Option<ExitStatus> {
        drop(lock(&self.shared).stdin.take());
        let status = tokio::time::timeout(limit, self.child.wait()).await.ok().and_then(Result::ok);
        if status.is_none() {
            // Killing waits for the end too; an error means that it is gone already.
            let _ = self.child.kill().await;
        }
        status
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn connect(pipe: Pipe) -> Checked<Channel> {
    let mut once = Some(pipe);
    let connector = tower::service_fn(move |_| {
        let pipe = once.take().ok_or_else(|| io::Error::other("a plugin has one connection only"));
        async move { pipe.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://plugin.invalid");
    let connected = tokio::time::timeout(Duration::from_secs(10), endpoint.connect_with_connector(connector)).await;
    match connected {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => fail(format!("no HTTP/2 on its stdout: {error}")),
        Err(_) => fail("no HTTP/2 on its stdout within 10 s"),
    }
}

async fn keep_stderr(stderr: ChildStderr, shared: Arc<Mutex<Shared>>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let mut shared = lock(&shared);
        if shared.stderr.len() == STDERR_LINES {
            shared.stderr.pop_front();
        }
        shared.stderr.push_back(String::from_utf8_lossy(&line).into_owned());
    }
}

struct Pipe {
    stdout: ChildStdout,
    watch: FrameWatch,
    shared: Arc<Mutex<Shared>>,
}

impl Pipe {
    fn with_stdin<T>(&self, work: impl FnOnce(Pin<&mut ChildStdin>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match lock(&self.shared).stdin.as_mut() {
            Some(stdin) => work(Pin::new(stdin)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if let Err(pollution) = self.watch.feed(&buf.filled()[before..]) {
            lock(&self.shared).pollution.get_or_insert_with(|| pollution.to_string());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, pollution)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with_stdin(|stdin| stdin.poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stdin(|stdin| stdin.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stdin(|stdin| stdin.poll_shutdown(cx))
    }
}
