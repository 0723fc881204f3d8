//! Runs a build tool: in a process group of its own, its output in a log file and line by line to whoever waits.

use super::{BinaryError, flight::Lines};
use crate::sys;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::{Child, Command},
};

/// Lines of the log that an error carries.
const TAIL: usize = 20;
/// Bytes of one line, and of stdout that is kept: what is beyond goes to the log alone.
const LONGEST_LINE: usize = 4096;
const LONGEST_OUTPUT: u64 = 1 << 20;
/// After the tool's end, for what its own children still write into the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a source's tools have in common.
pub(super) struct Bench {
    /// In words: `goModule example.org/x@v1.0.0`.
    pub(super) subject: String,
    /// The whole environment of each tool.
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    pub(super) log: PathBuf,
    pub(super) lines: Lines,
}

/// One call of a tool.
pub(super) struct Step<'a> {
    /// What it does, for errors: `go build`.
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    pub(super) args: Vec<OsString>,
    pub(super) env: &'a [(&'a str, &'a str)],
    pub(super) timeout: Duration,
}

/// The tool's whole process group: killed when this is dropped before the tool has ended.
struct Group {
    child: Child,
    ended: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Until it is waited for, the leader's pid cannot be another's.
        if !self.ended
            && let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Err(error) = killpg(Pid::from_raw(pid), Signal::SIGKILL)
        {
            tracing::warn!(pid, %error, "cannot kill a build that nobody waits for");
        }
    }
}

impl Bench {
    /// Runs a tool to its end; its stdout when it succeeded. Dropping the future kills it with all it started.
    pub(super) async fn run(&self, step: Step<'_>) -> Result<String, BinaryError> {
        let (name, timeout) = (step.name.to_owned(), step.timeout);
        match tokio::time::timeout(timeout, self.run_untimed(step)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(BinaryError::TimedOut { subject: self.subject.clone(), step: name, after: timeout, log: self.log.clone() }),
        }
    }

    async fn run_untimed(&self, step: Step<'_>) -> Result<String, BinaryError> {
        let mut log = self.open_log()?;
        let words: Vec<_> = step.args.iter().map(|arg| arg.to_string_lossy()).collect();
        let heading = format!("$ {} {}\n", step.program.display(), words.join(" "));
        log.write_all(heading.as_bytes()).map_err(BinaryError::io("write", &self.log))?;
        let (mut group, stdout, stderr) = self.spawn(&step).map_err(BinaryError::io("run", step.program))?;
        let mut stdout = stdout.take(LONGEST_OUTPUT);
        let mut stderr = BufReader::new(stderr);
        let (mut output, mut tail) = (Vec::new(), VecDeque::new());
        let (status, read) = {
            let reading = async { tokio::join!(self.pass_on(&mut stderr, &mut log, &mut tail), stdout.read_to_end(&mut output)).0 };
            tokio::pin!(reading);
            let early = tokio::select! {
                status = group.child.wait() => Err(status),
                outcome = &mut reading => Ok(outcome),
            };
            match early {
                Ok(read) => (group.child.wait().await, Some(read)),
                // A helper that outlives its tool may keep the pipe open; nobody waits for it.
                Err(status) => (status, tokio::time::timeout(LAST_WORDS, &mut reading).await.ok()),
            }
        };
        group.ended = true;
        let status = status.map_err(BinaryError::io("wait for", step.program))?;
        read.unwrap_or(Ok(())).map_err(BinaryError::io("write", &self.log))?;
        let output = String::from_utf8_lossy(&output).into_owned();
        if status.success() {
            return Ok(output);
        }
        // Some tools say on stdout what went wrong.
        if tail.is_empty() {
            tail.extend(output.lines().map(str::to_owned));
            log.write_all(output.as_bytes()).map_err(BinaryError::io("write", &self.log))?;
        }
        let last: Vec<_> = tail.iter().skip(tail.len().saturating_sub(TAIL)).map(String::as_str).collect();
        let (subject, step) = (self.subject.clone(), step.name.to_owned());
        Err(BinaryError::StepFailed { subject, step, status: status.to_string(), tail: last.join("\n"), log: self.log.clone() })
    }

    fn spawn(&self, step: &Step<'_>) -> io::Result<(Group, pipe::Receiver, pipe::Receiver)> {
        let (out_reader, out_writer) = io::pipe()?;
        let (err_reader, err_writer) = io::pipe()?;
        let mut command = sys::command(step.program);
        command.args(&step.args).envs(&self.env).envs(step.env.iter().copied()).current_dir(&self.cwd);
        command.process_group(0).stdout(Stdio::from(out_writer)).stderr(Stdio::from(err_writer));
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let child = sys::with_a_child_in_between(|| command.spawn())?;
        let group = Group { child, ended: false };
        Ok((group, pipe::Receiver::from_owned_fd(out_reader.into())?, pipe::Receiver::from_owned_fd(err_reader.into())?))
    }

    async fn pass_on(&self, from: &mut BufReader<pipe::Receiver>, log: &mut File, tail: &mut VecDeque<String>) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut *from).take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            log.write_all(&line)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if text.is_empty() {
                continue;
            }
            self.lines.say(text.clone());
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    }

    fn open_log(&self) -> Result<File, BinaryError> {
        OpenOptions::new().create(true).append(true).open(&self.log).map_err(BinaryError::io("open", &self.log))
    }
}

/// The first executable of this name in a PATH.
pub(super) fn find(name: &str, path: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(runs)
}
