//! One daemon per home: a lock on `devnetd.lock` and a name in the kernel. Both end with the process, however it ends.
//!
//! The file belongs to the folder: it goes along when that is moved, and holds between network namespaces. But a file can be deleted
//! and taken twice. So the home's path is bound as an abstract socket too, which nobody can take away from a daemon that runs.

use super::Home;
use dvb_proto::endpoint::home_hash;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

/// Whoever asks who holds the name waits in its socket's queue, where nobody takes it out. When it is full, the pid is not told.
const BACKLOG: i32 = 4096;
/// A holder that ends between our bind and our look is no holder: the bind is tried again.
const TRIES: usize = 3;
/// How long a holder whose file is free already may take to end: the kernel closes one after the other.
const LAST_BREATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another devnetd{} serves the home {}; speak to it with dvbctl --home {1}, or use another home: --home DIR", of(*pid), home.display())]
    Held { home: PathBuf, pid: Option<u32> },
    #[error("another devnetd{} serves the home {}, though its lock file was removed; speak to it with dvbctl --home {1}; if it does not answer there, the home was removed under it: end it{}, its nodes run on", of(*pid), home.display(), pid.map(|pid| format!(" (kill {pid})")).unwrap_or_default())]
    FileRemoved { home: PathBuf, pid: Option<u32> },
    #[error("cannot lock {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn of(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Held until dropped. The file stays; it names its last owner (`endpoint::told_socket`): its pid for messages, its socket for a
/// dvbctl whose environment leads it elsewhere.
#[derive(Debug)]
pub struct HomeLock {
    file: Flock<File>,
    _name: Option<OwnedFd>,
}

impl HomeLock {
    /// The lock that this process held before it executed itself anew; None when `file` is something else. The name is bound anew: it
    /// is close-on-exec, so a devnetd that does not know it can be executed too.
    pub fn inherit(home: &Home, file: OwnedFd) -> Option<Self> {
        let file = File::from(file);
        let (ours, named) = (file.metadata().ok()?, fs::metadata(home.lock()).ok()?);
        // The lock belongs to the open file, not to the program: to take it again changes nothing.
        let same = (ours.dev(), ours.ino()) == (named.dev(), named.ino());
        let file = same.then(|| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()).flatten()?;
        Some(Self { file, _name: take_name(home).ok()? })
    }

    /// Does not wait. The descriptors are close-on-exec: a node never inherits the lock.
    pub fn acquire(home: &Home) -> Result<Self, LockError> {
        let path = home.lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                let lock = Self { file, _name: take_name(home)? };
                lock.write(&[]).map_err(failed)?;
                Ok(lock)
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.lines().next()?.parse().ok());
                Err(LockError::Held { home: home.root().to_owned(), pid })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Tells in the file where the daemon of this home serves.
    pub fn announce(&self, home: &Home, socket: &Path) -> io::Result<()> {
        self.write(&[socket, home.root()])
    }

    fn write(&self, paths: &[&Path]) -> io::Result<()> {
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        for path in paths {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        self.file.set_len(0)?;
        self.file.write_all_at(&text, 0)
    }
}

impl AsFd for HomeLock {
    /// The file's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Per user and path. A socket that listens, since the kernel tells of those who bound them. None: another user sits on the name, which
/// anybody can bind; the file holds all the same.
fn take_name(home: &Home) -> Result<Option<OwnedFd>, LockError> {
    let failed = |errno: rustix::io::Errno| LockError::Io { path: home.root().to_owned(), source: errno.into() };
    let address = SocketAddrUnix::new_abstract_name(name_of(home).as_bytes()).map_err(failed)?;
    for _ in 0..TRIES {
        let socket = new_socket().map_err(failed)?;
        match bind(&socket, &address).and_then(|()| listen(&socket, BACKLOG)) {
            Ok(()) => return Ok(Some(socket)),
            Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let line = new_socket().map_err(failed)?;
        let holder = match connect(&line, &address) {
            Err(rustix::io::Errno::CONNREFUSED) => continue, // it has ended meanwhile
            Err(_) => None,
            Ok(()) => match getsockopt(&line, PeerCredentials) {
                Ok(holder) if holder.uid() != geteuid().as_raw() => return Ok(None),
                holder => holder.ok().and_then(|holder| u32::try_from(holder.pid()).ok()).filter(|pid| *pid > 0),
            },
        };
        drop(line);
        if holder.is_some_and(|pid| pid != std::process::id() && is_ending(pid)) {
            continue;
        }
        return Err(LockError::FileRemoved { home: home.root().to_owned(), pid: holder });
    }
    Err(LockError::FileRemoved { home: home.root().to_owned(), pid: None })
}

/// Blocks until it has ended, for a moment at most.
fn is_ending(pid: u32) -> bool {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LAST_BREATH)).is_ok_and(|ended| ended > 0),
        Err(errno) => errno == rustix::io::Errno::SRCH,
    }
}

fn name_of(home: &Home) -> String {
    format!("devnetd-home-{}-{}", geteuid(), home_hash(home.root()))
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_inherited_by_its_open_file_and_by_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let HomeLock { file, _name } = HomeLock::acquire(&home).unwrap();
        let copy = file.as_fd().try_clone_to_owned().unwrap();
        // An exec closes the name and leaves the file locked, which dropping it here would not.
        drop(_name);
        std::mem::forget(file);
        let other = File::open(home.lock()).unwrap();
        assert!(HomeLock::inherit(&home, other.into()).is_none(), "another opening does not hold it");
        assert!(HomeLock::inherit(&home, File::open("/dev/null").unwrap().into()).is_none());
        let second = HomeLock::inherit(&home, copy).expect("the same open file");
        assert!(matches!(HomeLock::acquire(&home), Err(LockError::Held { .. })));
        fs::remove_file(home.lock()).unwrap();
        assert!(matches!(HomeLock::acquire(&home), Err(LockError::FileRemoved { .. })), "it has the name as well");
        drop(second);
        HomeLock::acquire(&home).unwrap();
    }

    #[test]
    fn a_name_that_another_user_sits_on_keeps_nobody_from_his_home() {
        if !geteuid().is_root() {
            return println!("SKIP: only root can play another user");
        }
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let name = name_of(&home);
        // The identity is that of the thread alone, and of sockets that it binds.
        let stranger = std::thread::spawn(move || {
            rustix::thread::set_thread_res_uid(None, rustix::process::Uid::from_raw(65_534), None).unwrap();
            let socket = new_socket().unwrap();
            bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
            listen(&socket, BACKLOG).unwrap();
            socket
        });
        let socket = stranger.join().unwrap();
        let lock = HomeLock::acquire(&home).expect("the file holds all the same");
        assert!(matches!(HomeLock::acquire(&home), Err(LockError::Held { .. })));
        drop((lock, socket));
    }

    #[test]
    fn a_second_lock_on_one_home_names_the_holder_and_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let first = HomeLock::acquire(&home).unwrap();
        let me = std::process::id();
        let refused = || {
            let error = HomeLock::acquire(&home).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("pid {me}")) && text.contains(&dir.path().display().to_string()), "{text}");
            error
        };
        assert!(matches!(refused(), LockError::Held { pid, .. } if pid == Some(me)));
        for round in 0..2 {
            fs::remove_file(home.lock()).unwrap();
            let error = refused();
            assert!(matches!(error, LockError::FileRemoved { pid, .. } if pid == Some(me)), "round {round}: {error:?}");
        }
        drop(first);
        HomeLock::acquire(&home).unwrap();
    }
}
