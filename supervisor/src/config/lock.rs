//! One daemon per home: an advisory lock on `devnetd.lock` that ends with the process, however it ends.

use super::Home;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another devnetd{} serves the home {}; speak to it with dvbctl --home {1}, or use another home: --home DIR", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), home.display())]
    Held { home: PathBuf, pid: Option<u32> },
    #[error("cannot lock {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Held until dropped. The file stays; it holds the pid of its last owner, for messages only.
#[derive(Debug)]
pub struct HomeLock {
    file: Flock<File>,
}

impl HomeLock {
    /// The lock that this process held before it executed itself anew; None when `file` is something else.
    pub fn inherit(home: &Home, file: OwnedFd) -> Option<Self> {
        let file = File::from(file);
        let (ours, named) = (file.metadata().ok()?, fs::metadata(home.lock()).ok()?);
        // The lock belongs to the open file, not to the program: to take it again changes nothing.
        let same = (ours.dev(), ours.ino()) == (named.dev(), named.ino());
        let file = same.then(|| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()).flatten()?;
        Some(Self { file })
    }

    /// Does not wait. The descriptor is close-on-exec: a node never inherits the lock.
    pub fn acquire(home: &Home) -> Result<Self, LockError> {
        let path = home.lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let written = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
                written.map_err(failed)?;
                Ok(Self { file })
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                Err(LockError::Held { home: home.root().to_owned(), pid })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

impl AsFd for HomeLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_inherited_by_its_open_file_and_by_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let first = HomeLock::acquire(&home).unwrap();
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        let second = HomeLock::inherit(&home, copy).expect("the same open file");
        let other = File::open(home.lock()).unwrap();
        assert!(HomeLock::inherit(&home, other.into()).is_none(), "another opening does not hold it");
        assert!(HomeLock::inherit(&home, File::open("/dev/null").unwrap().into()).is_none());
        std::mem::forget(first); // dropping it would unlock the file for the second too, which an exec does not do
        assert!(HomeLock::acquire(&home).is_err());
        drop(second);
    }

    #[test]
    fn a_second_lock_on_one_home_names_the_holder_and_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        let first = HomeLock::acquire(&home).unwrap();
        let error = HomeLock::acquire(&home).unwrap_err();
        assert!(matches!(&error, LockError::Held { pid, .. } if *pid == Some(std::process::id())), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains(&dir.path().display().to_string()), "{text}");
        drop(first);
        HomeLock::acquire(&home).unwrap();
    }
}
