//! Makes a home ready: the folder is there, is ours alone, and can be written to. Each way in which it is not has its own words.

use super::Home;
use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("{} is not a folder; move it away or use another home: --home DIR or DVB_HOME=DIR", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{} belongs to user {owner}, and devnetd runs as user {own}; use a home of your own: --home DIR or DVB_HOME=DIR", path.display())]
    NotOurs { path: PathBuf, owner: u32, own: u32 },
    #[error("the home {} is read-only ({source}); make it writable or use another: --home DIR or DVB_HOME=DIR", path.display())]
    ReadOnly { path: PathBuf, source: io::Error },
    #[error("the disk of the home {} is full; free some space or use another: --home DIR or DVB_HOME=DIR", path.display())]
    DiskFull { path: PathBuf },
    #[error("cannot prepare the home {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Creates `path` (mode 0700) where it is missing, makes it canonical and proves that it can be written to. Blocking.
pub fn prepare_home(path: &Path) -> Result<Home, HomeError> {
    let mine = |error| explain(path, error);
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => return Err(HomeError::NotAFolder { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => create(path).map_err(mine)?,
        Err(error) => return Err(mine(error)),
    }
    let root = path.canonicalize().map_err(mine)?;
    let (owner, own) = (fs::metadata(&root).map_err(mine)?.uid(), nix::unistd::geteuid().as_raw());
    if owner != own && own != 0 {
        return Err(HomeError::NotOurs { path: root, owner, own });
    }
    try_to_write(&root).map_err(|error| explain(&root, error))?;
    Ok(Home::new(root))
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A full disk may still take a new name, so the file gets content; and the log folder is needed before anything else.
fn try_to_write(root: &Path) -> io::Result<()> {
    let probe = root.join(format!(".write-probe-{}", std::process::id()));
    let written = fs::File::create(&probe).and_then(|mut file| file.write_all(&[b'x'; 4096]).and_then(|()| file.sync_data()));
    let removed = fs::remove_file(&probe);
    written.and(removed)?;
    create(&root.join("logs"))
}

fn explain(path: &Path, source: io::Error) -> HomeError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => HomeError::NotAFolder { path },
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => HomeError::ReadOnly { path, source },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => HomeError::DiskFull { path },
        _ => HomeError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_missing_home_is_made_for_its_owner_alone_and_is_canonical() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let home = prepare_home(&dir.path().join("link/a/b")).unwrap();
        assert_eq!(home.root(), dir.path().canonicalize().unwrap().join("a/b"));
        assert_eq!(fs::metadata(home.root()).unwrap().permissions().mode() & 0o777, 0o700);
        let left: Vec<_> = fs::read_dir(home.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["logs"]);
        assert_eq!(prepare_home(home.root()).unwrap(), home, "a second time is fine");
    }

    #[test]
    fn a_file_where_the_home_should_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = prepare_home(&path).unwrap_err();
            assert!(matches!(error, HomeError::NotAFolder { .. }), "{error}");
            assert!(error.to_string().contains("--home"));
        }
    }

    #[test]
    fn read_only_and_full_disks_have_their_own_words() {
        let check = |kind: ErrorKind, expect: &str| {
            let text = explain(Path::new("/h"), kind.into()).to_string();
            assert!(text.contains(expect) && text.contains("/h") && text.contains("--home DIR"), "{text}");
        };
        check(ErrorKind::ReadOnlyFilesystem, "read-only");
        check(ErrorKind::PermissionDenied, "read-only");
        check(ErrorKind::StorageFull, "full");
        check(ErrorKind::QuotaExceeded, "full");
    }

    #[test]
    fn a_home_that_cannot_be_written_to_is_refused() {
        // /proc is a folder that takes no files from anybody, root included.
        let error = prepare_home(Path::new("/proc/dvb-home")).unwrap_err();
        assert!(matches!(error, HomeError::ReadOnly { .. } | HomeError::Io { .. }), "{error}");
    }
}
