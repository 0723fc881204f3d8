//! The content-addressed cache: `<root>/<sha256>/<program>` with the libraries that it brings in `lib/`. All calls block.
//!
//! A folder's name is the digest of its program, followed by one of its libraries when it has any. Folders appear by rename and are
//! read-only; each file is hashed again before it is used whenever its stat differs from when it was last hashed.

use super::{BinaryError, digest::Digests, program};
use crate::{model::Timestamp, sys};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const INDEX: &str = "index.json";
const DIGESTS: &str = "digests.json";
/// Folder of the libraries that came with a program.
pub(super) const LIBRARIES: &str = "lib";
/// Names of folders that are not entries begin so.
const STAGING: &str = ".staging-";
/// A source that is written to while it is copied is tried so often.
const COPY_ATTEMPTS: usize = 3;
/// Resolving writes the index only when the last use is older than this.
const USED_AT_STEP: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// Of the program.
    pub(super) sha256: String,
    /// Bytes, libraries included.
    pub(super) size: u64,
    /// The program's file name.
    pub(super) name: String,
    /// File name to sha256.
    #[serde(default)]
    pub(super) libraries: BTreeMap<String, String>,
    /// In words, as in BinaryStatus.
    pub(super) source: String,
    /// What its source calls it, `v0.54.0`; empty where no source does.
    #[serde(default)]
    pub(super) version: String,
    pub(super) added_at: Timestamp,
    pub(super) used_at: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Index {
    entries: BTreeMap<String, Entry>,
    /// Source key to folder.
    sources: BTreeMap<String, String>,
}

/// An entry that was just verified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cached {
    pub(super) folder: String,
    pub(super) path: PathBuf,
    pub(super) entry: Entry,
}

/// Where a program comes from, for the index.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// None: found by content alone.
    pub(super) key: Option<String>,
    pub(super) words: String,
    /// Empty: unknown.
    pub(super) version: String,
}

pub(super) struct Cache {
    root: PathBuf,
    index: Mutex<Option<Index>>,
    digests: Digests,
    /// One addition at a time: the second of two alike finds the first.
    adding: Mutex<()>,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Self {
        let digests = Digests::new(root.join(DIGESTS), sys::boot_id().unwrap_or_default());
        Self { root, index: Mutex::default(), digests, adding: Mutex::default() }
    }
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes a program in, with the libraries that it brings, unless it is there and whole already. `id` is fresh.
    pub(super) fn add(&self, program: &Path, origin: &Origin, id: &str, now: Timestamp) -> Result<Cached, BinaryError> {
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..COPY_ATTEMPTS {
            if let Some(cached) = self.present(program)? {
                return self.record(cached, origin, now);
            }
            if let Some((entry, staging)) = self.copy(program, id)? {
                let (source, version) = (origin.words.clone(), origin.version.clone());
                let cached = self.place(Entry { source, version, added_at: now, used_at: now, ..entry }, staging)?;
                return self.record(cached, origin, now);
            }
        }
        Err(BinaryError::Changing { path: program.to_owned() })
    }

    /// The entry that a source key led to last time, if it is still whole.
    pub(super) fn find(&self, key: &str, now: Timestamp) -> Result<Option<Cached>, BinaryError> {
        let folder = self.index()?.get_or_insert_default().sources.get(key).cloned();
        self.find_folder(folder, now)
    }
    /// The entry whose program has this digest, if it is still whole.
    pub(super) fn find_digest(&self, sha256: &str, now: Timestamp) -> Result<Option<Cached>, BinaryError> {
        let folder = self.index()?.get_or_insert_default().entries.iter().find(|(_, entry)| entry.sha256 == sha256).map(|(folder, _)| folder.clone());
        self.find_folder(folder, now)
    }
    fn find_folder(&self, folder: Option<String>, now: Timestamp) -> Result<Option<Cached>, BinaryError> {
        let Some(folder) = folder else { return Ok(None) };
        let Some(cached) = self.intact(&folder)? else {
            tracing::warn!(%folder, "a cached binary is missing or was altered; it is made anew");
            return Ok(None);
        };
        self.record(cached, &Origin::default(), now).map(Some)
    }

    /// A path that an earlier call returned: verified, or an error that says what became of it.
    pub(super) fn open(&self, path: &Path) -> Result<Cached, BinaryError> {
        let gone = || BinaryError::Gone { path: path.to_owned() };
        let folder = path.parent().and_then(|folder| folder.strip_prefix(&self.root).ok()).and_then(Path::to_str).ok_or_else(gone)?.to_owned();
        if let Some(cached) = self.entry(&folder)?.filter(|cached| cached.path == path) {
            return self.fault_of(&cached).map(|()| cached);
        }
        if !path.is_file() {
            return Err(gone());
        }
        // The index may be lost; the folder's name is the digest of the program and its libraries all the same.
        let mut entry = Entry { sha256: self.digests.of(path)?, name: file_name(path), ..Entry::default() };
        for (name, library) in libraries_in(&self.root.join(&folder))? {
            entry.libraries.insert(name, self.digests.of(&library)?);
        }
        if folder_name(&entry) != folder {
            return Err(BinaryError::Altered { path: path.to_owned(), found: entry.sha256 });
        }
        program::check(path)?;
        Ok(Cached { folder, path: path.to_owned(), entry })
    }

    pub(super) fn list(&self) -> Result<Vec<Cached>, BinaryError> {
        let index = self.index()?.get_or_insert_default().entries.clone();
        Ok(index.into_iter().map(|(folder, entry)| Cached { path: self.root.join(&folder).join(&entry.name), folder, entry }).collect())
    }

    /// Hashes all files of the entry whose program has this path anew.
    pub(super) fn verify(&self, path: &Path) -> Result<(), BinaryError> {
        let cached = self.list()?.into_iter().find(|cached| cached.path == path);
        let cached = cached.ok_or_else(|| BinaryError::Gone { path: path.to_owned() })?;
        self.files_of(&cached).iter().for_each(|(file, _)| self.digests.forget(file));
        self.fault_of(&cached)
    }

    /// Takes entries out of the cache, files and all.
    pub(super) fn remove(&self, folders: &BTreeSet<String>) -> Result<(), BinaryError> {
        let mut guard = self.index()?;
        let index = guard.get_or_insert_default();
        index.entries.retain(|folder, _| !folders.contains(folder));
        index.sources.retain(|_, folder| !folders.contains(folder));
        save(&self.root, index)?;
        for folder in folders {
            let path = self.root.join(folder);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(BinaryError::io("remove", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what an earlier daemon left half-done.
    pub(super) fn sweep(&self) {
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING)) {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove an old staging folder");
            }
        }
    }

    fn index(&self) -> Result<MutexGuard<'_, Option<Index>>, BinaryError> {
        let mut guard = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(load(&self.root)?);
        }
        Ok(guard)
    }

    /// The entry of a program that lies elsewhere. Reads the program only when its digest is not known and something of its size is
    /// cached: else copying it tells the digest.
    fn present(&self, program: &Path) -> Result<Option<Cached>, BinaryError> {
        let libraries = program::own_libraries(program)?;
        let mut size = size_of(program)?;
        let mut entry = Entry::default();
        for (name, path) in libraries {
            size += size_of(&path)?;
            entry.libraries.insert(name, self.digests.of(&path)?);
        }
        let alike = self.index()?.get_or_insert_default().entries.values().any(|known| known.size == size);
        entry.sha256 = match self.digests.recall(program)? {
            Some(digest) => digest,
            None if alike => self.digests.of(program)?,
            None => return Ok(None),
        };
        self.intact(&folder_name(&entry))
    }

    fn intact(&self, folder: &str) -> Result<Option<Cached>, BinaryError> {
        Ok(self.entry(folder)?.filter(|cached| self.fault_of(cached).is_ok()))
    }

    fn entry(&self, folder: &str) -> Result<Option<Cached>, BinaryError> {
        let Some(entry) = self.index()?.get_or_insert_default().entries.get(folder).cloned() else { return Ok(None) };
        Ok(Some(Cached { path: self.root.join(folder).join(&entry.name), folder: folder.to_owned(), entry }))
    }

    /// Program and libraries, with the digests that they must have.
    fn files_of<'a>(&self, cached: &'a Cached) -> Vec<(PathBuf, &'a String)> {
        let folder = self.root.join(&cached.folder).join(LIBRARIES);
        let libraries = cached.entry.libraries.iter().map(|(name, sha256)| (folder.join(name), sha256));
        std::iter::once((cached.path.clone(), &cached.entry.sha256)).chain(libraries).collect()
    }

    fn fault_of(&self, cached: &Cached) -> Result<(), BinaryError> {
        for (path, sha256) in self.files_of(cached) {
            if !path.is_file() {
                return Err(BinaryError::Gone { path });
            }
            let found = self.digests.of(&path)?;
            if found != *sha256 {
                return Err(BinaryError::Altered { path, found });
            }
        }
        // The dynamic linker takes whatever lies there.
        let present = libraries_in(&self.root.join(&cached.folder))?;
        if let Some((_, path)) = present.into_iter().find(|(name, _)| !cached.entry.libraries.contains_key(name)) {
            return Err(BinaryError::Stray { path });
        }
        // Somebody may have taken the mode away.
        program::check(&cached.path)
    }

    /// Program and libraries in a staging folder, with what they are; none when one of them changed under the copy.
    fn copy(&self, program: &Path, id: &str) -> Result<Option<(Entry, Staging)>, BinaryError> {
        let staging = Staging(self.root.join(format!("{STAGING}{id}")));
        fs::create_dir_all(&staging.0).map_err(BinaryError::io("create", &staging.0))?;
        let mut entry = Entry { name: file_name(program), ..Entry::default() };
        let Some(sha256) = self.copy_file(program, &staging.0.join(&entry.name), 0o555)? else { return Ok(None) };
        entry.size = size_of(&staging.0.join(&entry.name))?;
        entry.sha256 = sha256;
        let libraries = program::own_libraries(program)?;
        if !libraries.is_empty() {
            let into = staging.0.join(LIBRARIES);
            fs::create_dir_all(&into).map_err(BinaryError::io("create", &into))?;
        }
        for (name, path) in libraries {
            let to = staging.0.join(LIBRARIES).join(&name);
            let Some(sha256) = self.copy_file(&path, &to, 0o444)? else { return Ok(None) };
            entry.size += size_of(&to)?;
            entry.libraries.insert(name, sha256);
        }
        Ok(Some((entry, staging)))
    }

    /// Not forced to the disk: digests are not believed after another boot, so a copy that was lost then is noticed.
    fn copy_file(&self, from: &Path, to: &Path, mode: u32) -> Result<Option<String>, BinaryError> {
        let digest = self.digests.copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(mode)).map_err(BinaryError::io("set the mode of", to))?;
        Ok(digest)
    }

    /// Renames a copy to where its content belongs, unless it is there already.
    fn place(&self, entry: Entry, staging: Staging) -> Result<Cached, BinaryError> {
        let folder = folder_name(&entry);
        if let Some(cached) = self.intact(&folder)? {
            return Ok(cached);
        }
        // Nodes may run what lies there under the name that it had first.
        let known = self.index()?.get_or_insert_default().entries.get(&folder).map(|entry| entry.name.clone());
        let name = known.unwrap_or_else(|| entry.name.clone());
        if name != entry.name {
            fs::rename(staging.0.join(&entry.name), staging.0.join(&name)).map_err(BinaryError::io("rename", staging.0.join(&name)))?;
        }
        let into = self.root.join(&folder);
        if into.exists() {
            // A damaged entry: each file is replaced in one step, under whoever still runs the old one.
            if !entry.libraries.is_empty() {
                fs::create_dir_all(into.join(LIBRARIES)).map_err(BinaryError::io("create", &into))?;
            }
            let libraries = entry.libraries.keys().map(|name| Path::new(LIBRARIES).join(name));
            for file in libraries.chain([PathBuf::from(&name)]) {
                fs::rename(staging.0.join(&file), into.join(&file)).map_err(BinaryError::io("replace", into.join(file)))?;
            }
        } else {
            fs::rename(&staging.0, &into).map_err(BinaryError::io("create", &into))?;
        }
        sync_folder(&self.root)?;
        let cached = Cached { path: into.join(&name), folder, entry: Entry { name, ..entry } };
        self.remove_strays(&cached)?;
        for (path, sha256) in self.files_of(&cached) {
            self.digests.vouch(&path, sha256)?;
        }
        Ok(cached)
    }

    /// What lay among the libraries of an entry that was damaged.
    fn remove_strays(&self, cached: &Cached) -> Result<(), BinaryError> {
        let present = libraries_in(&self.root.join(&cached.folder))?;
        for (_, path) in present.into_iter().filter(|(name, _)| !cached.entry.libraries.contains_key(name)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(BinaryError::io("remove", path))?;
        }
        Ok(())
    }

    /// Writes the index when the entry is new, its source is, or its last use lies back.
    fn record(&self, mut cached: Cached, origin: &Origin, now: Timestamp) -> Result<Cached, BinaryError> {
        let mut guard = self.index()?;
        let index = guard.get_or_insert_default();
        let known = index.entries.get(&cached.folder);
        let same = known
            .is_some_and(|known| known.sha256 == cached.entry.sha256 && now.since(known.used_at) < USED_AT_STEP && known.size == cached.entry.size);
        let source_known = origin.key.as_ref().is_none_or(|key| index.sources.get(key) == Some(&cached.folder));
        if same && source_known {
            return Ok(cached);
        }
        cached.entry.used_at = now;
        // How it was built says more than the path where its like was found once.
        if origin.key.is_some() {
            cached.entry.source.clone_from(&origin.words);
            cached.entry.version.clone_from(&origin.version);
        }
        index.entries.insert(cached.folder.clone(), cached.entry.clone());
        if let Some(key) = &origin.key {
            index.sources.insert(key.clone(), cached.folder.clone());
        }
        save(&self.root, index)?;
        Ok(cached)
    }
}

/// A folder that goes with this value, unless it was renamed away.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a staging folder");
        }
    }
}

/// What a cached program needs in its environment.
pub(super) fn environment(program: &Path) -> BTreeMap<String, String> {
    let libraries = program.parent().unwrap_or(Path::new("/")).join(LIBRARIES);
    if libraries.is_dir() { BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), libraries.to_string_lossy().into_owned())]) } else { BTreeMap::new() }
}

/// What lies among the libraries in an entry's folder, by name.
fn libraries_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>, BinaryError> {
    let folder = folder.join(LIBRARIES);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(BinaryError::io("read", folder)(error)),
    };
    let named = entries.map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())));
    named.collect::<io::Result<_>>().map_err(BinaryError::io("read", folder))
}

fn folder_name(entry: &Entry) -> String {
    if entry.libraries.is_empty() {
        return entry.sha256.clone();
    }
    let mut hasher = Sha256::new();
    for (name, sha256) in &entry.libraries {
        hasher.update(format!("{name}\0{sha256}\0"));
    }
    let libraries = super::digest::hex(&hasher.finalize());
    format!("{}-{}", entry.sha256, &libraries[..12])
}

fn size_of(path: &Path) -> Result<u64, BinaryError> {
    fs::metadata(path).map(|meta| meta.len()).map_err(BinaryError::io("look at", path))
}

fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).filter(|name| *name != LIBRARIES).unwrap_or("program").to_owned()
}

/// An index that cannot be read is set aside: it only saves work.
fn load(root: &Path) -> Result<Index, BinaryError> {
    let path = root.join(INDEX);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(error) => return Err(BinaryError::io("read", path)(error)),
    };
    match serde_json::from_slice(&text) {
        Ok(index) => Ok(index),
        Err(error) => {
            let aside = root.join("index.json.damaged");
            tracing::warn!(path = %path.display(), %error, aside = %aside.display(), "the index of cached binaries is damaged; a new one is begun");
            fs::rename(&path, &aside).map_err(BinaryError::io("set aside", &path))?;
            Ok(Index::default())
        }
    }
}

fn save(root: &Path, index: &Index) -> Result<(), BinaryError> {
    let (path, part) = (root.join(INDEX), root.join(format!("{INDEX}.part")));
    let text = serde_json::to_vec_pretty(index).map_err(io::Error::other).map_err(BinaryError::io("encode", &path))?;
    let write = || -> io::Result<()> {
        fs::create_dir_all(root)?;
        let mut file = File::create(&part)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&part, &path)
    };
    write().map_err(BinaryError::io("write", &path))
}

fn sync_folder(folder: &Path) -> Result<(), BinaryError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(BinaryError::io("write", folder))
}
