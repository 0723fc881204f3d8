//! What SQLite says, as a `StoreError` that names the file and the mend.

use crate::store::StoreError;
use nix::unistd::{AccessFlags, access};
use rusqlite::{Error, ErrorCode, ffi};
use std::path::{Path, PathBuf};

/// Turns the errors of one database file.
#[derive(Clone, Debug)]
pub(super) struct Blame {
    path: PathBuf,
}

impl Blame {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn of(&self, error: &Error) -> StoreError {
        let path = self.path.display().to_string();
        let Error::SqliteFailure(failure, _) = error else { return StoreError::Other(format!("{path}: {error}")) };
        match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => self.damaged(error),
            ErrorCode::DiskFull => StoreError::DiskFull { path },
            ErrorCode::ReadOnly => StoreError::ReadOnly { path },
            // SQLite grows its shared-memory file by hand and calls that an I/O error.
            ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::DiskFull { path },
            ErrorCode::CannotOpen if !is_writable(&self.folder()) => StoreError::ReadOnly { path },
            ErrorCode::CannotOpen => StoreError::Other(format!("cannot open {path}: {error}; is its folder there?")),
            ErrorCode::DatabaseBusy => StoreError::Other(format!("{path} is locked by another program for too long; end it (fuser {path} names it)")),
            _ => StoreError::Other(format!("{path}: {error}")),
        }
    }

    /// Nothing is ever put in place of a damaged store: a person decides.
    pub(super) fn damaged(&self, detail: impl std::fmt::Display) -> StoreError {
        let path = self.path.display().to_string();
        let mend = format!("restore a copy of it, or move it aside (mv {path} {path}.damaged, its -wal too) to begin with an empty store");
        StoreError::Corrupt { detail: format!("{detail}; nothing was changed: {mend}"), path }
    }

    pub(super) fn io(&self, action: &str, error: &std::io::Error) -> StoreError {
        let path = self.path.display().to_string();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => StoreError::ReadOnly { path },
            _ => StoreError::Other(format!("cannot {action} {path}: {error}")),
        }
    }

    fn folder(&self) -> PathBuf {
        self.path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
    }
}

fn is_writable(folder: &Path) -> bool {
    access(folder, AccessFlags::W_OK).is_ok() || !folder.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_sqlite_becomes_the_error_that_tells_what_to_do() {
        let blame = Blame::new(Path::new("/home/x/store.db"));
        let check = |code, expect: &str| {
            let error = blame.of(&Error::SqliteFailure(ffi::Error::new(code), None));
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(ffi::SQLITE_CORRUPT, "nothing was changed: restore a copy of it, or move it aside (mv /home/x/store.db /home/x/store.db.damaged");
        check(ffi::SQLITE_NOTADB, "the store at /home/x/store.db is damaged");
        check(ffi::SQLITE_FULL, "the disk with /home/x/store.db is full");
        check(ffi::SQLITE_IOERR_SHMSIZE, "is full");
        check(ffi::SQLITE_READONLY, "read-only");
        check(ffi::SQLITE_READONLY_DIRECTORY, "read-only");
        check(ffi::SQLITE_CANTOPEN, "is its folder there?");
        check(ffi::SQLITE_BUSY, "locked by another program");
        check(ffi::SQLITE_IOERR_READ, "/home/x/store.db");
    }

    #[test]
    fn failures_of_the_file_system_are_told_apart() {
        let blame = Blame::new(Path::new("/x"));
        let check = |errno: nix::errno::Errno| blame.io("create", &std::io::Error::from_raw_os_error(errno as i32));
        assert_eq!(check(nix::errno::Errno::ENOSPC), StoreError::DiskFull { path: "/x".into() });
        assert_eq!(check(nix::errno::Errno::EDQUOT), StoreError::DiskFull { path: "/x".into() });
        assert_eq!(check(nix::errno::Errno::EROFS), StoreError::ReadOnly { path: "/x".into() });
        assert!(matches!(check(nix::errno::Errno::EIO), StoreError::Other(_)));
    }
}
