//! Log files of launches: written by the nodes themselves, read here from the end, from an offset, or as they grow.
//!
//! A cursor is (launch, offset in its file). Lines are bytes: nodes write what they like. A line longer than `MAX_LINE` comes
//! in pieces, so that memory stays bounded whatever a node writes.

mod fault;
mod follow;
mod growth;
mod reader;
mod since;
mod tail;

pub use follow::follow;
pub use growth::Growth;
pub use reader::{Item, LogReader};
pub use since::since_offset;
pub use tail::{tail, tail_offset};

use std::{io, path::PathBuf};

/// Longest line, or piece of a line, that is handed out: 64 KiB.
pub const MAX_LINE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read the log {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot follow the log {path}: {source}")]
    Watch { path: PathBuf, source: notify::Error },
}
