//! The keeper's own process: one thread, one poll without a timeout, a map of names to descriptors.

use super::wire::{self, Message, Received, Word};
use nix::unistd::geteuid;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SocketFlags, accept_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

/// The first argument of a devnetd that is a keeper; then come the home, for people to read, and the number of its listening socket.
pub const KEEPER_VERB: &str = "keeper";

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("devnetd keeper is started by devnetd, which hands it a listening socket; there is nothing in it for you")]
    NotForPeople,
    #[error("the keeper cannot go on: {0}")]
    Io(#[from] io::Error),
}

/// What the keeper does in its whole life. `args` are those behind the verb.
pub fn main(args: &[OsString]) -> Result<(), ServeError> {
    let listener = inherited(args.get(1)).ok_or(ServeError::NotForPeople)?;
    let _ = rustix::thread::set_name(c"devnetd-keeper");
    raise_limit();
    Ok(serve(listener)?)
}

/// The daemon has left exactly this descriptor open for us, besides stdio.
#[allow(unsafe_code, reason = "a descriptor that comes by number")]
fn inherited(number: Option<&OsString>) -> Option<OwnedFd> {
    let number: i32 = number?.to_str()?.parse().ok().filter(|number| *number > 2)?;
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
    // SAFETY: it is open, as /proc says, and nothing else in this process, which has just begun, knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::net::sockopt::socket_acceptconn(&fd).ok().filter(|listens| *listens)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// One descriptor per launch: as many as we are allowed.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Until nothing is held and nobody is connected.
pub(super) fn serve(listener: OwnedFd) -> io::Result<()> {
    let mut state = State { listener, lines: Vec::new(), held: BTreeMap::new(), spare: File::open("/dev/null").ok() };
    loop {
        state.accept_all()?;
        if state.lines.is_empty() && state.held.is_empty() {
            return Ok(());
        }
        let lines = state.lines.iter().map(|line| &line.fd);
        let mut fds: Vec<PollFd<'_>> = std::iter::once(&state.listener).chain(lines).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // All that was sent before a question is heard before it is answered, on whichever line it came: what a daemon put in before it
        // died is there when the next one asks.
        while state.hear_all() {}
        state.answer_all();
    }
}

struct State {
    listener: OwnedFd,
    lines: Vec<Line>,
    held: BTreeMap<String, OwnedFd>,
    /// Given up to turn a caller away when there are no more descriptors; else it would stand before the door for ever.
    spare: Option<File>,
}

impl State {
    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(line) if wire::peer_uid(&line).is_ok_and(|uid| uid == geteuid().as_raw()) && wire::set_patience(&line).is_ok() => {
                    self.lines.push(Line { fd: line, question: None });
                }
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.spare = None;
                    let refused = accept_with(&self.listener, SocketFlags::CLOEXEC);
                    drop(refused);
                    self.spare = File::open("/dev/null").ok();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whatever has come on any line; those that wait for an answer say nothing meanwhile. False when nothing had come.
    fn hear_all(&mut self) -> bool {
        let held = &mut self.held;
        let mut heard = false;
        self.lines.retain_mut(|line| {
            while line.question.is_none() && has_come(&line.fd) {
                heard = true;
                match wire::receive(&line.fd) {
                    Ok(Received::Message(message)) => line.take(message, held),
                    Ok(Received::Damaged) => {}
                    Ok(Received::Closed) | Err(_) => return false,
                }
            }
            true
        });
        heard
    }

    /// A line whose answer nobody takes is of no more use.
    fn answer_all(&mut self) {
        let held = &self.held;
        self.lines.retain_mut(|line| line.question.take().is_none_or(|(word, name)| answer(&line.fd, held, word, &name).is_ok()));
    }
}

/// One daemon.
struct Line {
    fd: OwnedFd,
    /// Heard, and not yet answered.
    question: Option<(Word, String)>,
}

impl Line {
    fn take(&mut self, message: Message, held: &mut BTreeMap<String, OwnedFd>) {
        let Message { word, name, fd } = message;
        match (word, fd) {
            (Word::Put, Some(fd)) => drop(held.insert(name, fd)),
            (Word::Drop, _) => drop(held.remove(&name)),
            (Word::Hello | Word::Get | Word::List, _) => self.question = Some((word, name)),
            // Nothing to hold, or an answer where we expect a question.
            (Word::Put | Word::Welcome | Word::Item | Word::End, _) => {}
        }
    }
}

/// A message, or that the other side has hung up.
fn has_come(line: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(line, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// An error means that the caller does not take its answer.
fn answer(line: &OwnedFd, held: &BTreeMap<String, OwnedFd>, word: Word, name: &str) -> io::Result<()> {
    if word == Word::Hello {
        return wire::send(line, Word::Welcome, &std::process::id().to_string(), None);
    }
    for (known, fd) in held.range(name.to_owned()..).take_while(|(known, _)| known.starts_with(name)) {
        wire::send(line, Word::Item, known, (word == Word::Get).then(|| fd.as_fd()))?;
    }
    wire::send(line, Word::End, "", None)
}
