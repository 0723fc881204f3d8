//! What an export has on disk: its file, and what comes and goes beside it.

use super::super::ReconcileError;
use crate::{
    clone::{self, CloneError},
    config::Home,
    model::Export,
    sys::sha256_file,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The folder of one export.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) root: PathBuf,
}

impl Files {
    pub(super) fn of(export: &Export, home: &Home) -> Self {
        Self { root: home.export(&export.metadata.namespace, &export.spec.devnet_ref, export.short_name()) }
    }
    /// The result.
    pub(super) fn state(&self) -> PathBuf {
        self.root.join("genesis.json")
    }
    /// The result while it is written.
    pub(super) fn partial(&self) -> PathBuf {
        self.root.join("work/genesis.json")
    }
    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }
    /// A node's home, as the chain's program reads it.
    pub(super) fn clone_dir(&self) -> PathBuf {
        self.root.join("clone")
    }

    /// Whether there is hardly room for a word. Then what a program says of it finds no place either: its output lies here too.
    pub(super) fn is_disk_full(&self) -> bool {
        const A_WORD: u64 = 64 << 10;
        clone::free(&self.root).is_ok_and(|free| free < A_WORD)
    }

    /// Empties what an earlier try has left, and makes room for the next.
    pub(super) fn begin(&self) -> Result<(), ReconcileError> {
        self.clear()?;
        let work = self.work();
        fs::create_dir_all(&work).map_err(|source| ReconcileError::Io { path: work, source })
    }

    /// Everything but the result.
    pub(super) fn clear(&self) -> Result<(), CloneError> {
        clone::remove(&self.clone_dir())?;
        clone::clear(&self.clone_dir())?;
        clone::remove(&self.work())
    }

    /// Puts the result on the disk and under its name; answers its size and its digest.
    pub(super) fn finish(&self) -> Result<(u64, String), ReconcileError> {
        let (partial, state) = (self.partial(), self.state());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ReconcileError::Io { path, source }
        };
        let file = File::open(&partial).map_err(failed(&partial))?;
        let digest = sha256_file(&partial).map_err(failed(&partial))?;
        file.sync_all().map_err(failed(&partial))?;
        let bytes = file.metadata().map_err(failed(&partial))?.len();
        fs::rename(&partial, &state).map_err(failed(&state))?;
        File::open(&self.root).and_then(|folder| folder.sync_all()).map_err(failed(&self.root))?;
        Ok((bytes, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_stays_and_all_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { root: dir.path().join("export-1") };
        files.begin().unwrap();
        fs::create_dir(files.clone_dir()).unwrap();
        fs::write(files.partial(), "abc").unwrap();
        let (bytes, sha256) = files.finish().unwrap();
        assert_eq!((bytes, sha256.as_str()), (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        files.clear().unwrap();
        assert_eq!(fs::read_dir(&files.root).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(files.state()).unwrap(), "abc");
    }

    #[test]
    fn without_a_file_there_is_no_result() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { root: dir.path().join("export-1") };
        files.begin().unwrap();
        assert!(files.finish().unwrap_err().to_string().contains("work/genesis.json"));
    }
}
