//! Log files of launches: written by the nodes themselves, rotated behind their backs, and read from the end, from an offset, or as
//! they grow.
//!
//! A cursor is (launch, offset in its file). Rotation copies old bytes to segments and punches a hole where they were, so the node
//! writes on undisturbed and each offset keeps its meaning; what a cap or a full disk took shows as `Item::Lost`. Lines are bytes:
//! nodes write what they like. A line longer than `MAX_LINE` comes in pieces, so that memory stays bounded whatever a node writes.

mod caps;
mod caretaker;
mod disk;
mod fault;
mod follow;
mod growth;
mod index;
mod pack;
mod parts;
mod reader;
mod rotate;
mod since;
mod source;
mod tail;
#[cfg(test)]
mod testing;
mod words;

pub use caps::Caps;
pub use caretaker::{Caretaker, Finding, KeptLog, Limits, Order, Report};
pub use disk::{Disk, RealDisk};
pub use follow::follow;
pub use growth::Growth;
pub use reader::{Item, LogReader};
pub use since::since_offset;
#[cfg(test)]
use tail::tail;
pub use tail::tail_offset;
pub use words::{LastWords, plain};

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Longest line, or piece of a line, that is handed out: 64 KiB.
pub const MAX_LINE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read the log {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot {action} {path} to rotate a log: {source}")]
    Rotate { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot follow the log {path}: {source}")]
    Watch { path: PathBuf, source: notify::Error },
}

/// Why a part of a log is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// It was the oldest when the log became too large or too old.
    Cap,
    /// The disk was almost full.
    Disk,
    /// Somebody truncated the file.
    Truncated,
    /// Somebody removed a segment.
    Taken,
}

impl LossCause {
    const ALL: [Self; 4] = [Self::Cap, Self::Disk, Self::Truncated, Self::Taken];

    /// Of the file that marks the gap.
    const fn extension(self) -> &'static str {
        match self {
            Self::Cap => "lost-cap",
            Self::Disk => "lost-disk",
            Self::Truncated => "lost-truncated",
            Self::Taken => "lost-taken",
        }
    }
}

/// Goes behind an amount: "12 MiB dropped by the log cap".
impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cap => "dropped by the log cap",
            Self::Disk => "dropped because the disk was almost full",
            Self::Truncated => "lost: somebody truncated the log",
            Self::Taken => "missing: somebody removed a rotated segment",
        })
    }
}

/// How many bytes were written to a log, as far as it can be read; None when there is nothing of it. Blocking.
pub fn size(log: &Path) -> Option<u64> {
    source::Source::open(log).and_then(|source| source.size()).ok()
}

/// Removes a log with its segments and index. What is not there is no error. Blocking.
pub fn remove(log: &Path) -> Result<(), LogError> {
    let gone = |path: &Path, removed: io::Result<()>| match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LogError::Io { path: path.to_owned(), source }),
        _ => Ok(()),
    };
    let folder = parts::folder(log);
    gone(log, fs::remove_file(log))?;
    gone(&folder, fs::remove_dir_all(&folder))
}
