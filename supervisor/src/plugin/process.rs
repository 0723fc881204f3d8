//! One run of a plugin's process: spawned, listened to, ended.
//!
//! ```text
//!          exits by itself, or is killed with a reason
//! Alive ───────────────────────────────────────────────► Ended { asked: false }
//!   │ stop, or the last owner is gone: stdin ends
//!   ▼
//! Stopping ── exits, or after 2 s is killed ───────────► Ended { asked: true }
//! ```

use super::{
    PluginError,
    stdio::{self, Line},
};
use crate::sys;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

/// Between the end of its stdin and the kill.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a plugin whose connection broke may take to be gone by itself.
const BREAK_GRACE: Duration = Duration::from_millis(500);
/// For what it said last; a descendant may hold its stderr open for longer.
const LAST_WORDS: Duration = Duration::from_millis(200);
const BUSY_TRIES: usize = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);
const TAIL_LINES: usize = 20;
/// Bytes of a stderr line; the rest of it is dropped.
const MAX_LINE: usize = 4 << 10;

#[derive(Clone, Debug)]
struct Ending {
    status: String,
    asked: bool,
}

enum Order {
    Stop,
    Kill(String),
}

type Tail = Arc<Mutex<VecDeque<String>>>;

pub(super) struct Process {
    name: String,
    pub(super) channel: Channel,
    line: Arc<Line>,
    tail: Tail,
    orders: mpsc::UnboundedSender<Order>,
    ended: watch::Receiver<Option<Ending>>,
}

impl Process {
    /// Starts `path` in a process group of its own, so that Ctrl-C at a terminal does not reach it, with no environment but `env`.
    /// One that hangs cannot see the end of its stdin, so the kernel ends it with us, however we end.
    pub(super) async fn spawn(name: &str, path: &Path, env: &BTreeMap<String, String>) -> Result<Self, PluginError> {
        let failed = |reason: String| PluginError::Spawn { name: name.to_owned(), reason };
        let mut command = sys::command(path);
        command.envs(env).current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_us(&mut command);
        let mut command = Command::from(command);
        let mut child = spawn(command.kill_on_drop(true)).await.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(failed("it has no pipes".into()));
        };
        let line = Line::new(stdin);
        let tail = Tail::default();
        let words = tokio::spawn(listen(name.to_owned(), stderr, tail.clone()));
        let (orders, inbox) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(supervise(child, line.clone(), words, inbox, end));
        let channel = match stdio::connect(stdout, line.clone()).await {
            Ok(channel) => channel,
            Err(error) => {
                // Most likely it has ended before it spoke: then its status and last words tell more.
                let mut ended = ended;
                let ending = timeout(BREAK_GRACE, ended.wait_for(Option::is_some)).await.ok().and_then(Result::ok).and_then(|ending| ending.clone());
                return Err(match ending {
                    Some(Ending { status, .. }) => {
                        PluginError::Exited { name: name.to_owned(), call: "its start".into(), status, stderr_tail: tail_text(&tail) }
                    }
                    None => failed(format!("no connection: {error}")),
                });
            }
        };
        Ok(Self { name: name.to_owned(), channel, line, tail, orders, ended })
    }

    pub(super) fn is_cut(&self) -> bool {
        self.line.is_cut()
    }

    /// Ends it and all of its process group now. Calls in flight fail with `reason` as the status.
    pub(super) fn kill(&self, reason: String) {
        // No receiver: it has ended already.
        let _ = self.orders.send(Order::Kill(reason));
    }

    /// Ends its stdin and waits until it is gone.
    pub(super) async fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
        self.ended().await;
    }

    /// Why a call on a connection that is cut cannot end well. Waits until the process is gone, and sees to it.
    pub(super) async fn failure(&self, call: &str) -> PluginError {
        if timeout(BREAK_GRACE, self.ended()).await.is_err() {
            self.kill("killed, because its connection broke".into());
        }
        let ending = self.ended().await;
        if let Some(text) = self.line.pollution() {
            return PluginError::Polluted { name: self.name.clone(), text };
        }
        PluginError::Exited { name: self.name.clone(), call: call.to_owned(), status: ending.status, stderr_tail: self.tail() }
    }

    /// Resolves when it is gone, and keeps nothing of it alive. True: it was asked to go.
    pub(super) fn gone(&self) -> impl Future<Output = bool> + use<> {
        let ended = self.ended();
        async move { ended.await.asked }
    }

    fn ended(&self) -> impl Future<Output = Ending> + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await.map(|ending| ending.clone()) {
                Ok(Some(ending)) => ending,
                _ => Ending { status: "given up with the daemon".into(), asked: true },
            }
        }
    }

    fn tail(&self) -> String {
        tail_text(&self.tail)
    }
}

fn tail_text(tail: &Tail) -> String {
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    if tail.is_empty() { "none".into() } else { tail.iter().cloned().collect::<Vec<_>>().join("\n") }
}

/// An executable that somebody still writes is tried again for a moment: a build that is just ending, or a fork elsewhere in this
/// process that holds the writer's descriptor until its exec. The kernel announces the end of neither.
async fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match sys::with_a_child_in_between(|| command.spawn()) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => tokio::time::sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
    sys::with_a_child_in_between(|| command.spawn())
}

/// Owns the child. Ends when the child has.
async fn supervise(
    mut child: Child,
    line: Arc<Line>,
    words: JoinHandle<()>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    end: watch::Sender<Option<Ending>>,
) {
    let mut asked = false;
    let mut reason = None;
    let status = tokio::select! {
        status = child.wait() => status,
        order = orders.recv() => {
            match order {
                Some(Order::Kill(why)) => reason = Some(why),
                Some(Order::Stop) | None => {
                    asked = true;
                    line.hang_up();
                    if timeout(STOP_GRACE, child.wait()).await.is_err() {
                        reason = Some(format!("killed, because it stayed {STOP_GRACE:?} after the end of its stdin"));
                    }
                }
            }
            if reason.is_some() {
                kill_group(&child);
            }
            // Once more is harmless: it repeats the status.
            child.wait().await
        }
    };
    let _ = timeout(LAST_WORDS, words).await;
    end.send_replace(Some(Ending { status: reason.unwrap_or_else(|| describe(status)), asked }));
}

/// The child is not yet waited for, so its id and group are still its own.
fn kill_group(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It fails only when nobody is left in the group.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => sys::signal_name(signal),
            (None, None) => "status unknown".into(),
        },
        Err(error) => format!("status unknown: {error}"),
    }
}

/// stderr into the daemon's log, line by line, at the level with which the line begins.
async fn listen(name: String, stderr: ChildStderr, tail: Tail) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut reader, &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        let (level, rest) = text.trim_start().split_once(' ').unwrap_or((text, text));
        match level {
            "ERROR" => tracing::error!(plugin = name, "{rest}"),
            "WARN" => tracing::warn!(plugin = name, "{rest}"),
            "DEBUG" => tracing::debug!(plugin = name, "{rest}"),
            "TRACE" => tracing::trace!(plugin = name, "{rest}"),
            "INFO" => tracing::info!(plugin = name, "{rest}"),
            _ => tracing::info!(plugin = name, "{text}"),
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.to_owned());
    }
}

/// Reads one line, of which it keeps MAX_LINE bytes. False: there is no more.
async fn next_line(reader: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let piece = reader.fill_buf().await?;
        if piece.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let text = &piece[..end.unwrap_or(piece.len())];
        line.extend_from_slice(&text[..text.len().min(MAX_LINE - line.len())]);
        let used = end.map_or(piece.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_cut_and_the_next_one_is_whole() {
        let text = [&[b'x'; 3 * MAX_LINE], b"\nnext\nlast".as_slice()].concat();
        let mut reader = BufReader::new(text.as_slice());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while next_line(&mut reader, &mut line).await.unwrap() {
            lines.push(line.clone());
        }
        assert_eq!(lines, [vec![b'x'; MAX_LINE], b"next".to_vec(), b"last".to_vec()]);
    }
}
