//! What is in a folder tree, and how it gets to its second place.

use super::{CloneError, Cloned, copy, failed};
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, Permissions},
    io,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Names that only say "in use", and would say so falsely in a clone.
const LOCKS: [&str; 2] = ["LOCK", "exclusive.lock"];

/// A tree, parents before what lies in them. Holds a path for each entry, and nothing of their content.
pub(super) struct Tree(Vec<Entry>);

struct Entry {
    /// Below the root; empty for the root itself.
    path: PathBuf,
    kind: EntryKind,
    /// On the disk.
    bytes: u64,
}

enum EntryKind {
    Folder { mode: u32 },
    File,
    Link,
}

pub(super) fn list(root: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<Tree, CloneError> {
    let about = fs::metadata(root).map_err(failed("read", root))?;
    if !about.is_dir() {
        return Err(failed("read", root)(io::ErrorKind::NotADirectory.into()));
    }
    let mut entries = vec![Entry { path: PathBuf::new(), kind: EntryKind::Folder { mode: mode(&about) }, bytes: 0 }];
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let place = root.join(&folder);
        for found in gone_is_none(fs::read_dir(&place)).map_err(failed("read", &place))?.into_iter().flatten() {
            let found = found.map_err(failed("read", &place))?;
            let path = folder.join(found.file_name());
            if skip(&path) {
                continue;
            }
            let Some(about) = gone_is_none(found.metadata()).map_err(failed("read", &found.path()))? else { continue };
            let Some(kind) = kind(&found.file_name(), &about) else { continue };
            if matches!(kind, EntryKind::Folder { .. }) {
                open.push(path.clone());
            }
            let bytes = if about.is_file() { about.len().min(about.blocks() * 512) } else { 0 };
            entries.push(Entry { path, kind, bytes });
        }
    }
    Ok(Tree(entries))
}

impl Tree {
    pub(super) fn files(&self) -> u64 {
        self.0.iter().filter(|entry| matches!(entry.kind, EntryKind::File)).count() as u64
    }
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|entry| entry.bytes).sum()
    }
    /// A file with content; one without can be "shared" anywhere.
    pub(super) fn sample(&self, root: &Path) -> Option<PathBuf> {
        self.0.iter().find(|entry| matches!(entry.kind, EntryKind::File) && entry.bytes > 0).map(|entry| root.join(&entry.path))
    }

    pub(super) fn clone_into(&self, root: &Path, to: &Path, progress: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Cloned, CloneError> {
        let mut done = Cloned::default();
        for entry in &self.0 {
            let (from, to) = (root.join(&entry.path), to.join(&entry.path));
            match entry.kind {
                EntryKind::Folder { .. } => fs::create_dir(&to).map_err(failed("create the folder", &to))?,
                EntryKind::Link => match gone_is_none(fs::read_link(&from)).map_err(failed("read", &from))? {
                    Some(target) => symlink(target, &to).map_err(failed("create the link", &to))?,
                    None => done.vanished += 1,
                },
                EntryKind::File => {
                    let Some(source) = gone_is_none(File::open(&from)).map_err(failed("read", &from))? else {
                        done.vanished += 1;
                        continue;
                    };
                    let mut so_far = done.bytes;
                    let mut tell = |moved| {
                        so_far += moved;
                        progress(so_far)
                    };
                    let (size, copied) = copy::clone_file(&source, &to, &mut tell)?;
                    (done.files, done.bytes, done.copied) = (done.files + 1, done.bytes + size, done.copied + copied);
                }
            }
            if progress(done.bytes).is_break() {
                return Err(CloneError::GivenUp(root.to_owned()));
            }
        }
        // Last, and the innermost first: a folder may be read-only.
        for entry in self.0.iter().rev() {
            if let EntryKind::Folder { mode } = entry.kind {
                let to = to.join(&entry.path);
                fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(failed("set the mode of", &to))?;
            }
        }
        Ok(done)
    }
}

/// None for what is not cloned.
fn kind(name: &OsStr, about: &Metadata) -> Option<EntryKind> {
    let file_type = about.file_type();
    if file_type.is_dir() {
        Some(EntryKind::Folder { mode: mode(about) })
    } else if file_type.is_symlink() {
        Some(EntryKind::Link)
    } else if file_type.is_file() && !LOCKS.iter().any(|lock| name == *lock) {
        Some(EntryKind::File)
    } else {
        None
    }
}

fn mode(about: &Metadata) -> u32 {
    about.permissions().mode() & 0o7777
}

/// What the owner of the tree removes while we look was not there.
fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
