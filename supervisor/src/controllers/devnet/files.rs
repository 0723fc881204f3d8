//! The files of a devnet: staging folders, renames into place, removal.

use super::super::ReconcileError;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// An empty folder that goes away with this value.
pub(in super::super) struct FreshDir(PathBuf);

impl FreshDir {
    /// Empties what an earlier try may have left there.
    pub(in super::super) fn make(path: PathBuf) -> Result<Self, ReconcileError> {
        remove_tree(&path)?;
        fs::create_dir_all(&path).map_err(|source| ReconcileError::Io { path: path.clone(), source })?;
        Ok(Self(path))
    }
    pub(in super::super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for FreshDir {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(%error, "a staging folder is left behind; the next try empties it");
        }
    }
}

/// No such folder is as good as removed.
pub(super) fn remove_tree(path: &Path) -> Result<(), ReconcileError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ReconcileError::Io { path: path.to_path_buf(), source }),
        _ => Ok(()),
    }
}

/// Renames `from` to `to`, in place of what is there.
pub(super) fn put_in_place(from: &Path, to: &Path) -> Result<(), ReconcileError> {
    let io = |source| ReconcileError::Io { path: to.to_path_buf(), source };
    remove_tree(to)?;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    fs::rename(from, to).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_folder_is_empty_and_does_not_outlive_its_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("staging");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "x").unwrap();
        let fresh = FreshDir::make(path.clone()).unwrap();
        assert_eq!(fs::read_dir(fresh.path()).unwrap().count(), 0);
        drop(fresh);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_put_in_place_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("deep/b"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("new"), "x").unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("old"), "x").unwrap();
        put_in_place(&from, &to).unwrap();
        assert!(to.join("new").exists() && !to.join("old").exists() && !from.exists());
    }
}
