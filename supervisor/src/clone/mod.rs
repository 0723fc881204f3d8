//! Clones folder trees: a node's home or its data, at once where the file system shares blocks, else byte by byte.
//!
//! ```text
//!  cost ──► NAME.partial ──► NAME        a crash leaves NAME.partial alone, which the next clone removes
//!   │            │ each file: FICLONE, else copy_file_range
//!   └ refused when the disk has no room for it
//! ```
//! A clone of a folder in use is as consistent as the writer allows: freeze the writer, or let it tolerate a copy of a moment. Files that
//! vanish meanwhile are counted, not missed. Everything here blocks.

mod copy;
mod fault;
#[cfg(test)]
mod tests;
mod tree;

use rustix::{
    fs::{Mode, OFlags, open, statvfs, syncfs},
    io::Errno,
};
use std::{
    ffi::OsString,
    fmt, fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// What the disk keeps after a copy: others write there too.
pub const SPARE: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("a copy of {from} needs {needed} bytes, and the disk of {to} has {free} to give")]
    NoRoom { from: PathBuf, to: PathBuf, needed: u64, free: u64 },
    #[error("{0} is there already")]
    Exists(PathBuf),
    #[error("the clone of {0} was given up")]
    GivenUp(PathBuf),
}

/// How bytes get to their second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both files share their blocks: takes no room and no time.
    Reflink,
    Copy,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        })
    }
}

/// What a clone will cost, told before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub files: u64,
    /// What all files take on the disk; holes do not count.
    pub bytes: u64,
    pub way: Way,
    /// What we may still write there.
    pub free: u64,
}

/// Whether a clone must outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is made again after a crash of the machine.
    Scratch,
    /// All of it is on the disk before it gets its name.
    Durable,
}

/// What was cloned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cloned {
    pub files: u64,
    pub bytes: u64,
    /// Of these, bytes that were copied and not shared.
    pub copied: u64,
    /// Files that the writer removed between our listing and our opening.
    pub vanished: u64,
}

/// A clone to be made.
pub struct Clone<'a> {
    pub from: &'a Path,
    /// Must not be there.
    pub to: &'a Path,
    pub keep: Keep,
    /// Paths below `from` that stay out, whole folders included. Sockets, pipes and lock files always do.
    pub skip: &'a dyn Fn(&Path) -> bool,
}

/// For `Clone::skip`: everything is cloned.
pub fn nothing(_: &Path) -> bool {
    false
}

impl Clone<'_> {
    /// Reads the tree, and tries with a file of no size whether the place shares blocks.
    pub fn cost(&self) -> Result<Cost, CloneError> {
        let beside = parent(self.to);
        fs::create_dir_all(beside).map_err(failed("create the folder", beside))?;
        let listed = tree::list(self.from, self.skip)?;
        let way = copy::way(listed.sample(self.from), &probe(self.to))?;
        Ok(Cost { files: listed.files(), bytes: listed.bytes(), way, free: free(beside)? })
    }

    /// Makes the clone under its name, or nothing. `progress` hears the bytes so far, and gives the clone up with `Break`.
    pub fn make(&self, progress: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Cloned, CloneError> {
        if fs::symlink_metadata(self.to).is_ok() {
            return Err(CloneError::Exists(self.to.to_owned()));
        }
        room(self, &self.cost()?)?;
        clear(self.to)?;
        let partial = partial(self.to);
        let made = tree::list(self.from, self.skip).and_then(|listed| listed.clone_into(self.from, &partial, progress));
        let placed = made.and_then(|cloned| self.place(&partial).map(|()| cloned));
        if placed.is_err() {
            let _ = fs::remove_dir_all(&partial); // what hinders it hinders the next clone too, and is told there
        }
        placed
    }

    fn place(&self, partial: &Path) -> Result<(), CloneError> {
        if self.keep == Keep::Durable {
            sync_disk(partial)?;
        }
        fs::rename(partial, self.to).map_err(failed("rename into place", self.to))?;
        let beside = parent(self.to);
        match self.keep {
            Keep::Scratch => Ok(()),
            Keep::Durable => fs::File::open(beside).and_then(|folder| folder.sync_all()).map_err(failed("sync", beside)),
        }
    }
}

/// What we may still write to the disk of a folder, in bytes.
pub fn free(folder: &Path) -> Result<u64, CloneError> {
    let about = statvfs(folder).map_err(|errno| failed("measure the disk of", folder)(errno.into()))?;
    Ok(about.f_bavail * about.f_frsize)
}

/// Removes what a clone to `to` that was cut off has left behind. Harmless when there is nothing.
pub fn clear(to: &Path) -> Result<(), CloneError> {
    let partial = partial(to);
    remove(&partial)?;
    match fs::remove_file(probe(to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &probe(to))(error)),
        _ => Ok(()),
    }
}

/// Removes a folder tree; what is not there is removed already.
pub fn remove(folder: &Path) -> Result<(), CloneError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn room(clone: &Clone<'_>, cost: &Cost) -> Result<(), CloneError> {
    if cost.way == Way::Reflink || cost.free >= cost.bytes.saturating_add(SPARE) {
        return Ok(());
    }
    let (from, to) = (clone.from.to_owned(), clone.to.to_owned());
    Err(CloneError::NoRoom { from, to, needed: cost.bytes, free: cost.free.saturating_sub(SPARE) })
}

/// Writes out the whole file system: one call, where a sync of each of thousands of files would wait as often.
fn sync_disk(folder: &Path) -> Result<(), CloneError> {
    let synced = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(syncfs);
    synced.map_err(|errno: Errno| failed("sync", folder)(errno.into()))
}

fn partial(to: &Path) -> PathBuf {
    with_ending(to, ".partial")
}

fn probe(to: &Path) -> PathBuf {
    with_ending(to, ".probe")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut text = OsString::from(path);
    text.push(ending);
    text.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CloneError {
    move |source| CloneError::Io { action, path: path.to_owned(), source }
}
