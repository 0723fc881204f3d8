//! Writing into the staging folder of GenerateGenesis, with the digests that the host checks.

use crate::pb::StagedFile;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    #[error("`{0}` is no path below the staging folder")]
    Outside(String),
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl From<StagingError> for crate::PluginFault {
    fn from(error: StagingError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Internal(format!("{error}{source}"))
    }
}

/// Writes `bytes` to `staging/relative` with permissions `mode` (as in 0o600), whatever the umask, and makes the folders above
/// it. A file that is there is replaced. The answer goes into `GenerateGenesisResponse.files`.
pub fn write_staged(staging: &Path, relative: &str, bytes: &[u8], mode: u32) -> Result<StagedFile, StagingError> {
    let inside = !relative.is_empty() && Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(StagingError::Outside(relative.to_owned()));
    }
    let path = staging.join(relative);
    let failed = |action, source| StagingError::Io { action, path: path.clone(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("create the folder of", error))?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path).map_err(|error| failed("create", error))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(|error| failed("set the permissions of", error))?;
    file.write_all(bytes).map_err(|error| failed("write", error))?;
    Ok(StagedFile { path: relative.to_owned(), sha256: sha256_hex(bytes) })
}

/// SHA-256 of a file in hex, read in pieces.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_file_has_the_bytes_the_mode_and_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let staged = write_staged(dir.path(), "nodes/validator-0/key.json", b"abc", 0o600).unwrap();
        let path = dir.path().join(&staged.path);
        assert_eq!(staged.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_file(&path).unwrap(), staged.sha256);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_written_outside_the_staging_folder() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/tmp/x", "a/../../x", ""] {
            assert!(matches!(write_staged(dir.path(), path, b"", 0o600), Err(StagingError::Outside(_))), "{path}");
        }
    }
}
