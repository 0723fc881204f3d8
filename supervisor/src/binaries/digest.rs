//! SHA-256 of files, remembered as long as their stat stays the same. All calls block.

use super::BinaryError;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Remembered digests; beyond it they are forgotten and hashed again.
const MOST_REMEMBERED: usize = 1024;
/// A change within a tick of the file system's clock leaves the stat as it was: what is younger is not remembered.
const SETTLED: Duration = Duration::from_millis(100);

/// Device, inode, size, and the times of the last change: a change of content moves ctime, and nobody can set that back.
type Stat = (u64, u64, u64, (i64, i64), (i64, i64));

#[derive(Default)]
pub(super) struct Digests(Mutex<HashMap<PathBuf, (Stat, String)>>);

impl Digests {
    pub(super) fn of(&self, path: &Path) -> Result<String, BinaryError> {
        let meta = fs::metadata(path).map_err(BinaryError::io("look at", path))?;
        let stat = stat_of(&meta);
        if let Some((known, digest)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path)
            && *known == stat
        {
            return Ok(digest.clone());
        }
        let digest = hash(path).map_err(BinaryError::io("read", path))?;
        // What changed while it was read has another stat by now, or is too young.
        let settled = fs::metadata(path).is_ok_and(|meta| stat_of(&meta) == stat) && age(&meta) > SETTLED;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if settled {
            if known.len() >= MOST_REMEMBERED {
                known.clear();
            }
            known.insert(path.to_owned(), (stat, digest.clone()));
        }
        Ok(digest)
    }
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn stat_of(meta: &Metadata) -> Stat {
    (meta.dev(), meta.ino(), meta.size(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
}

/// By the machine's own clock, which the file system's times come from too; zero for a time to come.
fn age(meta: &Metadata) -> Duration {
    let changed = Duration::new(u64::try_from(meta.ctime()).unwrap_or_default(), u32::try_from(meta.ctime_nsec()).unwrap_or_default());
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(changed)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&chunk[..read]),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
