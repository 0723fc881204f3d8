//! The daemon's side: starts the keeper when there is first something to hold, and another when it dies.

#![allow(unsafe_code, reason = "registering a descriptor with tokio has no safe form")]

use super::{
    server::KEEPER_VERB,
    wire::{self, Received, Word},
};
use crate::sys::{Kernel, Pidfd, Spawn, failpoint, spawn, with_no_child_in_between};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{Shutdown, shutdown},
    process::{WaitId, WaitIdOptions, waitid},
};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("cannot start the keeper {program}: {source}", program = program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("user {uid} holds the name of this home's keeper; descriptors are not kept over a crash of devnetd")]
    Stranger { uid: u32 },
    #[error("the keeper cannot be spoken to: {0}")]
    Line(#[from] io::Error),
}

/// Makes a keeper of a listening socket.
type Start = Box<dyn Fn(OwnedFd) -> Result<Option<Pidfd>, KeeperError> + Send + Sync>;

/// Clones are the same. Its calls block, mostly for microseconds. Within a tokio runtime it also sees the keeper die.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    home_hash: String,
    start: Start,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Option<OwnedFd>,
    /// Counts lines, so that the end of an old one is not taken for that of the present one.
    lines: u64,
    /// Our own copies, to give them to the next keeper.
    held: BTreeMap<String, OwnedFd>,
    /// The keeper's process, if it is our child, to reap it.
    child: Option<Pidfd>,
    closed: bool,
    started: Option<Instant>,
    early_deaths: u32,
}

/// One may have been about to end when we called, another daemon's may have come between.
const TRIES: u32 = 4;
/// A keeper that dies sooner is not simply started again and again.
const EARLY: Duration = Duration::from_secs(10);
const EARLY_DEATHS: u32 = 3;
/// How long an empty keeper may take to end.
const END_PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

impl Keeper {
    /// Speaks to nobody yet. `program` is devnetd itself; the keeper's complaints go to `log`.
    pub fn new(home: &Path, home_hash: String, program: PathBuf, log: PathBuf) -> Self {
        let home = home.to_owned();
        Self::with_start(home_hash, Box::new(move |listener| launch(&program, &home, &log, &listener).map(Some)))
    }

    /// Its keeper is a thread of the test.
    #[cfg(test)]
    pub(crate) fn in_a_thread(home_hash: String) -> Self {
        let start = |listener| {
            std::thread::spawn(move || super::server::serve(listener));
            Ok(None)
        };
        Self::with_start(home_hash, Box::new(start))
    }

    fn with_start(home_hash: String, start: Start) -> Self {
        Self(Arc::new(Shared { home_hash, start, state: Mutex::default() }))
    }

    /// Holds a copy of `fd` from now on, over any death of the daemon.
    pub fn put(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), KeeperError> {
        let mut state = self.state();
        if state.closed {
            return Ok(());
        }
        state.held.insert(name.to_owned(), fd.try_clone_to_owned()?);
        failpoint("keeper/put");
        if let Some(line) = &state.line
            && wire::send(line, Word::Put, name, Some(fd)).is_ok()
        {
            return Ok(());
        }
        self.connect(&mut state, true).map(drop)
    }

    /// Closes what has this name; harmless when nothing has.
    pub fn release(&self, name: &str) {
        let mut state = self.state();
        state.held.remove(name);
        failpoint("keeper/release");
        // A line that breaks here is noticed by its watch, and the next keeper does not get this name.
        let _ = state.line.as_ref().map(|line| wire::send(line, Word::Drop, name, None));
    }

    /// As `release`; when this returns the keeper has closed them too, unless it hangs, and no child of ours has a copy.
    pub fn release_all(&self, names: &[String]) {
        let mut state = self.state();
        let ours: Vec<OwnedFd> = names.iter().filter_map(|name| state.held.remove(name)).collect();
        // A line that was given up says nothing of the keeper: it may live, and hold them.
        let lives = state.line.is_some() || self.connect(&mut state, false).unwrap_or(true);
        // `state` before the forks, never the other way round: `connect` may fork, and has `state` then.
        let told = with_no_child_in_between(|| {
            drop(ours);
            let Some(line) = &state.line else { return Ok(!lives) };
            names.iter().try_for_each(|name| wire::send(line, Word::Drop, name, None))?;
            greet(line).map(|pid| pid.is_some())
        });
        if !matches!(told, Ok(true)) {
            give_up(&mut state);
            tracing::warn!(error = ?told.err(), "the keeper may hold on to what it was told to let go");
        }
    }

    /// What an earlier daemon has put in: names with this prefix and their descriptors. Starts no keeper to ask it.
    pub fn recall(&self, prefix: &str) -> Result<Vec<(String, OwnedFd)>, KeeperError> {
        let mut state = self.state();
        if state.line.is_none() && !self.connect(&mut state, false)? {
            return Ok(Vec::new());
        }
        let found = items(&mut state, Word::Get, prefix)?;
        let found: Vec<_> = found.into_iter().filter_map(|(name, fd)| Some((name, fd?))).collect();
        for (name, fd) in &found {
            state.held.insert(name.clone(), fd.try_clone()?);
        }
        Ok(found)
    }

    /// The names that the keeper holds; none when there is no keeper.
    pub fn names(&self) -> Result<Vec<String>, KeeperError> {
        let mut state = self.state();
        if state.line.is_none() && !self.connect(&mut state, false)? {
            return Ok(Vec::new());
        }
        Ok(items(&mut state, Word::List, "")?.into_iter().map(|(name, _)| name).collect())
    }

    /// Its process, if there is one.
    pub fn pid_if_any(&self) -> Result<Option<u32>, KeeperError> {
        let mut state = self.state();
        if state.line.is_none() && !self.connect(&mut state, false)? {
            return Ok(None);
        }
        ask(&mut state)
    }

    /// Its process, which is started if there is none.
    pub fn pid(&self) -> Result<u32, KeeperError> {
        let mut state = self.state();
        for _ in 0..TRIES {
            if state.line.is_none() {
                self.connect(&mut state, true)?;
            }
            if let Some(pid) = ask(&mut state)? {
                return Ok(pid); // else it has died, and its watch has not told yet
            }
        }
        Err(KeeperError::Line(io::ErrorKind::BrokenPipe.into()))
    }

    /// The daemon ends or is replaced: hangs up. A keeper that holds nothing has ended when this returns, and is no zombie of ours.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        give_up(&mut state);
        if state.held.is_empty()
            && let Some(child) = state.child.take()
        {
            let _ = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&END_PATIENCE));
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    /// Each step leaves the state whole, so a panic elsewhere is no reason to stop.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line to a keeper that has all that we hold. False: there is none, and `start` says that there need not be.
    fn connect(&self, state: &mut State, start: bool) -> Result<bool, KeeperError> {
        give_up(state);
        let address = wire::address(&self.0.home_hash)?;
        for _ in 0..TRIES {
            if let Some(line) = wire::call(&address)? {
                let uid = wire::peer_uid(&line)?;
                if uid != nix::unistd::geteuid().as_raw() {
                    return Err(KeeperError::Stranger { uid });
                }
                // It may be about to end, having nothing to hold: then it does not answer any more.
                let Some(pid) = greet(&line)? else { continue };
                state.child = Pidfd::open(pid).ok();
                self.take(state, line)?;
                return Ok(true);
            }
            bury(state);
            if !start {
                return Ok(false);
            }
            let listener = match wire::listen_on(&address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                listener => listener?,
            };
            // Our call waits in its queue before it is there: it cannot find itself alone and end.
            let Some(line) = wire::call(&address)? else { continue };
            state.child = (self.0.start)(listener)?;
            state.started = Some(Instant::now());
            self.take(state, line)?;
            return Ok(true);
        }
        Err(KeeperError::Line(io::ErrorKind::ConnectionRefused.into()))
    }

    /// Puts in all that we hold, and keeps an ear on the line.
    fn take(&self, state: &mut State, line: OwnedFd) -> Result<(), KeeperError> {
        for (name, fd) in &state.held {
            wire::send(&line, Word::Put, name, Some(fd.as_fd()))?;
        }
        state.lines += 1;
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            let _inside = tokio.enter();
            tokio.spawn(watch(Arc::downgrade(&self.0), state.lines, line.try_clone()?));
        }
        state.line = Some(line);
        Ok(())
    }

    /// The keeper at the end of this line is gone.
    fn mourn(&self, of: u64) {
        let mut state = self.state();
        if state.closed || state.lines != of {
            return;
        }
        state.line = None;
        if state.held.is_empty() {
            return bury(&mut state);
        }
        let early = state.started.is_some_and(|started| started.elapsed() < EARLY);
        state.early_deaths = if early { state.early_deaths + 1 } else { 0 };
        if state.early_deaths > EARLY_DEATHS {
            tracing::error!("the keeper dies each time at once; the next launch tries again. Exits are not kept over a crash of devnetd");
            return;
        }
        let held = state.held.len();
        match self.connect(&mut state, true) {
            Ok(_) => tracing::warn!(held, "the keeper was gone; another one holds the same now"),
            Err(error) => tracing::error!(%error, "the keeper is gone; the next launch tries again"),
        }
    }
}

/// Waits without waking for the other side to hang up.
async fn watch(shared: Weak<Shared>, of: u64, line: OwnedFd) {
    // SAFETY: an OwnedFd is one descriptor for good; AsyncFd owns it.
    let Ok(line) = (unsafe { AsyncFd::register_with_interest(line, Interest::READABLE) }) else { return };
    while let Ok(mut ready) = line.readable().await {
        let mut fds = [PollFd::new(line.get_ref(), PollFlags::empty())];
        if poll(&mut fds, Some(&Timespec::default())).is_err() || fds[0].revents().contains(PollFlags::HUP) {
            break;
        }
        ready.clear_ready();
    }
    drop(line);
    let Some(shared) = shared.upgrade() else { return };
    let _ = tokio::task::spawn_blocking(move || Keeper(shared).mourn(of)).await;
}

/// The keeper's pid; None when it has hung up. One that says nothing is an error: to ask again would only take as long again.
fn greet(line: &OwnedFd) -> io::Result<Option<u32>> {
    if wire::send(line, Word::Hello, "", None).is_err() {
        return Ok(None);
    }
    match wire::receive(line) {
        Ok(Received::Message(message)) if message.word == Word::Welcome => Ok(message.name.parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
        _ => Ok(None),
    }
}

/// The keeper's pid. None, or no answer: the line is given up.
fn ask(state: &mut State) -> Result<Option<u32>, KeeperError> {
    let answer = state.line.as_ref().map(greet).transpose();
    if !matches!(answer, Ok(Some(Some(_)))) {
        give_up(state);
    }
    Ok(answer?.flatten())
}

/// A line that answers late or out of turn is of no use any more: nobody could tell the answers apart. Its watch has a copy of it, so
/// closing ours would not tell the keeper.
fn give_up(state: &mut State) {
    if let Some(line) = state.line.take() {
        let _ = shutdown(&line, Shutdown::Both);
    }
}

/// When it fails, the line is given up.
fn items(state: &mut State, word: Word, prefix: &str) -> Result<Vec<(String, Option<OwnedFd>)>, KeeperError> {
    let found = state.line.as_ref().map(|line| told(line, word, prefix)).transpose();
    if found.is_err() {
        give_up(state);
    }
    Ok(found?.unwrap_or_default())
}

fn told(line: &OwnedFd, word: Word, prefix: &str) -> Result<Vec<(String, Option<OwnedFd>)>, KeeperError> {
    wire::send(line, word, prefix, None)?;
    let mut found = Vec::new();
    loop {
        match wire::receive(line)? {
            Received::Message(message) if message.word == Word::Item => found.push((message.name, message.fd)),
            Received::Message(message) if message.word == Word::End => return Ok(found),
            // One that lost its descriptor on the way: we are out of descriptors. The others are worth having.
            Received::Damaged => {}
            Received::Message(_) | Received::Closed => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// Nobody listens any more, so the keeper has ended or is about to.
fn bury(state: &mut State) {
    if let Some(child) = state.child.take() {
        // ECHILD: an earlier daemon's.
        let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
    }
}

/// In a session of its own, with nothing of ours but the socket: what befalls the daemon does not befall it.
fn launch(program: &Path, home: &Path, log: &Path, listener: &OwnedFd) -> Result<Pidfd, KeeperError> {
    let failed = |source: io::Error| KeeperError::Start { program: program.to_owned(), source };
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| failed(error.into()));
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log).map_err(failed)?;
    let number = listener.as_raw_fd();
    let argv = [
        text(program.as_os_str().as_bytes())?,
        text(KEEPER_VERB.as_bytes())?,
        text(home.as_os_str().as_bytes())?,
        text(number.to_string().as_bytes())?,
    ];
    let (stdout, stderr) = (log.as_fd(), log.as_fd());
    let what = Spawn { argv: &argv, env: &[], cwd: c"/", stdout, stderr, inherit: &[number], cgroup: None, brand: None, kernel: Kernel::default() };
    let spawned = spawn(&what).map_err(|failure| failed(failure.source))?;
    Ok(spawned.pidfd.into())
}

#[cfg(test)]
mod tests;
