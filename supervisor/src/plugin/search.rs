//! Finding plugin executables, and knowing their digests without reading them twice.

use super::PluginError;
use crate::sys::sha256_file;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const PREFIX: &str = "dvb-plugin-";
/// A name that is less alike than this (0 to 1) is no suggestion.
const ALIKE: f64 = 0.7;

/// What tells one build of an executable from the next, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Executable {
    pub(super) path: PathBuf,
    pub(super) identity: FileIdentity,
    /// Found by its file name, which must then be the family's; else the settings named it.
    pub(super) by_name: bool,
}

/// Where plugins are looked for: first what the settings name, then the folders in order.
pub(super) struct Search {
    dirs: Vec<PathBuf>,
    extra: BTreeMap<String, PathBuf>,
    digests: Mutex<BTreeMap<PathBuf, (FileIdentity, String)>>,
}

impl Search {
    pub(super) fn new(dirs: Vec<PathBuf>, extra: BTreeMap<String, PathBuf>) -> Self {
        Self { dirs, extra, digests: Mutex::default() }
    }

    /// None: there is none now.
    pub(super) fn find(&self, name: &str) -> Option<Executable> {
        if let Some(path) = self.extra.get(name) {
            return executable(path, false);
        }
        if name.is_empty() || name.contains(['/', '\0']) {
            return None;
        }
        self.dirs.iter().find_map(|dir| executable(&dir.join(format!("{PREFIX}{name}")), true))
    }

    /// All that are there, by name.
    pub(super) fn all(&self) -> BTreeMap<String, Executable> {
        let names_in = |dir: &PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        let files = self.dirs.iter().flat_map(names_in);
        let names = files.filter_map(|file| file.to_str()?.strip_prefix(PREFIX).map(str::to_owned)).chain(self.extra.keys().cloned());
        names.filter_map(|name| self.find(&name).map(|exe| (name, exe))).collect()
    }

    pub(super) fn missing(&self, name: &str) -> PluginError {
        let all = self.all();
        let nearest = nearest(name, all.keys().map(String::as_str));
        let mut looked_in: Vec<_> = self.extra.get(name).map(|path| path.display().to_string()).into_iter().collect();
        if looked_in.is_empty() {
            looked_in = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        }
        PluginError::Missing { name: name.to_owned(), looked_in, nearest }
    }

    /// SHA-256 in hex. Reads the file when it is another one than at the last call: blocks then.
    pub(super) fn digest(&self, exe: &Executable) -> io::Result<String> {
        if let Some(digest) = self.known_digest(exe) {
            return Ok(digest);
        }
        let digest = sha256_file(&exe.path)?;
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(exe.path.clone(), (exe.identity, digest.clone()));
        Ok(digest)
    }

    /// As `digest`, of a file that was read already. Never blocks for long.
    pub(super) fn known_digest(&self, exe: &Executable) -> Option<String> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(&exe.path).filter(|(identity, _)| *identity == exe.identity).map(|(_, digest)| digest.clone())
    }
}

fn executable(path: &Path, by_name: bool) -> Option<Executable> {
    let meta = fs::metadata(path).ok()?;
    let identity = FileIdentity { device: meta.dev(), inode: meta.ino(), size: meta.size(), mtime: (meta.mtime(), meta.mtime_nsec()) };
    (meta.is_file() && meta.mode() & 0o111 != 0).then(|| Executable { path: path.to_owned(), identity, by_name })
}

fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = among.map(|other| (strsim::jaro_winkler(name, other), other)).filter(|(score, _)| *score >= ALIKE);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn put(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_folder_wins_and_what_cannot_be_run_is_no_plugin() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wanted = put(first.path(), "dvb-plugin-cosmos", "1", 0o755);
        put(second.path(), "dvb-plugin-cosmos", "2", 0o755);
        put(second.path(), "dvb-plugin-evm", "3", 0o644);
        let own = put(second.path(), "anything", "4", 0o755);
        let search = Search::new(vec![first.path().into(), second.path().into()], BTreeMap::from([("mine".into(), own.clone())]));
        assert_eq!(search.find("cosmos").unwrap().path, wanted);
        assert_eq!(search.find("mine").unwrap().path, own);
        assert_eq!(search.find("evm"), None);
        assert_eq!(search.find("../cosmos"), None);
        assert_eq!(search.all().into_keys().collect::<Vec<_>>(), ["cosmos", "mine"]);
    }

    #[test]
    fn a_missing_plugin_names_the_nearest_and_where_was_looked() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "dvb-plugin-cosmos", "", 0o755);
        put(dir.path(), "dvb-plugin-evm", "", 0o755);
        let search = Search::new(vec![dir.path().into()], BTreeMap::new());
        let check = |name: &str, expect: Option<&str>| match search.missing(name) {
            PluginError::Missing { looked_in, nearest, .. } => {
                assert_eq!(nearest.as_deref(), expect, "{name}");
                assert_eq!(looked_in, [dir.path().display().to_string()]);
            }
            other => panic!("{other}"),
        };
        check("cosmo", Some("cosmos"));
        check("comsos", Some("cosmos"));
        check("zzz", None);
    }

    #[test]
    fn a_digest_is_read_anew_when_the_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "dvb-plugin-a", "abc", 0o755);
        let search = Search::new(vec![dir.path().into()], BTreeMap::new());
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(search.digest(&search.find("a").unwrap()).unwrap(), abc);
        put(dir.path(), "dvb-plugin-a", "abcd", 0o755);
        assert_ne!(search.digest(&search.find("a").unwrap()).unwrap(), abc);
    }
}
