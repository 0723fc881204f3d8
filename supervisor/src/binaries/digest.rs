//! SHA-256 of files, remembered as long as their stat stays the same. All calls block.
//!
//! What is remembered is kept in a file, for the next daemon of the same boot. After another boot everything is hashed again: what
//! was not yet on disk when the machine went down may have another content under the same stat.

use super::BinaryError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Remembered digests; beyond it they are forgotten and hashed again.
const MOST_REMEMBERED: usize = 1024;
/// A change within a tick of the file system's clock leaves the stat as it was: what is younger is not remembered.
const SETTLED: Duration = Duration::from_millis(100);

/// Device, inode, size, and the times of the last change: a change of content moves ctime, and nobody can set that back.
type Stat = (u64, u64, u64, (i64, i64), (i64, i64));

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    boot: String,
    files: HashMap<PathBuf, (Stat, String)>,
}

pub(super) struct Digests {
    store: PathBuf,
    /// Of this machine's current run.
    boot: String,
    /// None until the file was read.
    known: Mutex<Option<Known>>,
    /// One file at a time: nodes that start together after a reboot ask for the same one.
    hashing: Mutex<()>,
}

impl Digests {
    /// `store` is where digests are kept; `boot` names the machine's current run, and empty means unknown: then nothing is kept.
    pub(super) fn new(store: PathBuf, boot: String) -> Self {
        Self { store, boot, known: Mutex::default(), hashing: Mutex::default() }
    }

    pub(super) fn of(&self, path: &Path) -> Result<String, BinaryError> {
        if let Some(digest) = self.recall(path)? {
            return Ok(digest);
        }
        let _one = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = self.recall(path)? {
            return Ok(digest); // somebody else has just hashed it
        }
        let before = stat(path)?;
        let digest = hash(path)?;
        self.remember(path, before, &digest);
        Ok(digest)
    }

    /// What is known without reading the file.
    pub(super) fn recall(&self, path: &Path) -> Result<Option<String>, BinaryError> {
        let stat = stat(path)?;
        let known = self.known();
        Ok(known.as_ref().and_then(|known| known.files.get(path)).filter(|(seen, _)| *seen == stat).map(|(_, digest)| digest.clone()))
    }

    /// Copies a file and returns the digest of what was written; none when the source changed meanwhile.
    pub(super) fn copy(&self, from: &Path, to: &Path) -> Result<Option<String>, BinaryError> {
        let before = stat(from)?;
        let mut source = File::open(from).map_err(BinaryError::io("read", from))?;
        let mut target = File::create(to).map_err(BinaryError::io("create", to))?;
        let digest = hash_into(&mut source, &mut target).map_err(BinaryError::io("copy", from))?;
        if stat(from)? != before {
            return Ok(None);
        }
        self.remember(from, before, &digest);
        Ok(Some(digest))
    }

    /// It is hashed anew the next time that somebody asks.
    pub(super) fn forget(&self, path: &Path) {
        if let Some(known) = self.known().as_mut() {
            known.files.remove(path);
        }
    }

    /// Remembers what a file has that was just written here, and that nobody else writes to: its age does not matter.
    pub(super) fn vouch(&self, path: &Path, digest: &str) -> Result<(), BinaryError> {
        self.keep(path, stat(path)?, digest);
        Ok(())
    }

    /// What changed while it was read has another stat by now, or is too young.
    fn remember(&self, path: &Path, before: Stat, digest: &str) {
        let settled = fs::metadata(path).is_ok_and(|meta| stat_of(&meta) == before && age(&meta) > SETTLED);
        if settled {
            self.keep(path, before, digest);
        }
    }

    fn keep(&self, path: &Path, stat: Stat, digest: &str) {
        let mut guard = self.known();
        let known = guard.get_or_insert_default();
        if known.files.len() >= MOST_REMEMBERED {
            known.files.clear();
        }
        known.files.insert(path.to_owned(), (stat, digest.to_owned()));
        if let Err(error) = self.save(known) {
            tracing::warn!(path = %self.store.display(), %error, "cannot keep the digests of binaries; the next daemon hashes them again");
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| self.load());
        known
    }

    /// A file that is missing, damaged or of another boot says nothing: it only saves work.
    fn load(&self) -> Known {
        let read = fs::read(&self.store).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
        read.filter(|known| known.boot == self.boot).unwrap_or_else(|| Known { boot: self.boot.clone(), files: HashMap::new() })
    }

    fn save(&self, known: &Known) -> io::Result<()> {
        if self.boot.is_empty() {
            return Ok(());
        }
        let part = self.store.with_extension("part");
        fs::create_dir_all(self.store.parent().unwrap_or(Path::new("/")))?;
        fs::write(&part, serde_json::to_vec(known)?)?;
        fs::rename(&part, &self.store)
    }
}

/// Of a file as it is, hex.
pub(super) fn hash(path: &Path) -> Result<String, BinaryError> {
    File::open(path).and_then(|mut file| hash_into(&mut file, &mut io::sink())).map_err(BinaryError::io("read", path))
}

fn stat(path: &Path) -> Result<Stat, BinaryError> {
    fs::metadata(path).map(|meta| stat_of(&meta)).map_err(BinaryError::io("look at", path))
}

fn stat_of(meta: &Metadata) -> Stat {
    (meta.dev(), meta.ino(), meta.size(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
}

/// By the machine's own clock, which the file system's times come from too; zero for a time to come.
fn age(meta: &Metadata) -> Duration {
    let changed = Duration::new(u64::try_from(meta.ctime()).unwrap_or_default(), u32::try_from(meta.ctime_nsec()).unwrap_or_default());
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(changed)
}

fn hash_into(from: &mut File, to: &mut impl Write) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => {
                hasher.update(&chunk[..read]);
                to.write_all(&chunk[..read])?;
            }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    const TWO: &str = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

    fn digests(dir: &Path, boot: &str) -> Digests {
        Digests::new(dir.join("digests.json"), boot.into())
    }

    /// A file whose last change lies so far back that its stat can be trusted.
    fn settled(dir: &Path, content: &str) -> PathBuf {
        let path = dir.join("file");
        fs::write(&path, content).unwrap();
        while age(&fs::metadata(&path).unwrap()) <= SETTLED {
            std::thread::sleep(SETTLED / 4); // only time makes it so
        }
        path
    }

    /// Puts another digest into the file of digests, which shows whether it is believed.
    fn forge(dir: &Path) {
        let store = dir.join("digests.json");
        fs::write(&store, fs::read_to_string(&store).unwrap().replace(ONE, "forged")).unwrap();
    }

    #[test]
    fn a_digest_is_kept_for_the_next_daemon_of_the_same_boot_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = settled(dir.path(), "one");
        assert_eq!(digests(dir.path(), "a").of(&path).unwrap(), ONE);
        forge(dir.path());
        assert_eq!(digests(dir.path(), "a").of(&path).unwrap(), "forged");
        assert_eq!(digests(dir.path(), "b").of(&path).unwrap(), ONE);
        assert_eq!(digests(dir.path(), "b").recall(&path).unwrap().as_deref(), Some(ONE));
        fs::write(dir.path().join("digests.json"), "{ not json").unwrap();
        assert_eq!(digests(dir.path(), "b").of(&path).unwrap(), ONE);
    }

    #[test]
    fn a_file_that_changed_is_hashed_again_whatever_its_size_and_mtime_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = settled(dir.path(), "one");
        let (all, mtime) = (digests(dir.path(), "a"), fs::metadata(&path).unwrap().modified().unwrap());
        assert_eq!(all.of(&path).unwrap(), ONE);
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
        assert_eq!(all.of(&path).unwrap(), TWO);
    }

    #[test]
    fn what_is_too_young_to_be_trusted_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let all = digests(dir.path(), "a");
        assert_eq!(all.of(&path).unwrap(), ONE);
        assert!(all.recall(&path).unwrap().is_none() || age(&fs::metadata(&path).unwrap()) > SETTLED);
    }

    #[test]
    fn a_copy_has_the_digest_that_is_returned() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, all) = (settled(dir.path(), "one"), dir.path().join("copy"), digests(dir.path(), "a"));
        assert_eq!(all.copy(&from, &to).unwrap().as_deref(), Some(ONE));
        assert_eq!(fs::read_to_string(to).unwrap(), "one");
        assert_eq!(all.recall(&from).unwrap().as_deref(), Some(ONE), "reading it once is enough");
    }
}
