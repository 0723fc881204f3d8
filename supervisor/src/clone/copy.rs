//! One file: its blocks shared where the file system can, else its bytes copied by the kernel.

use super::{CloneError, Way, failed};
use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read, Seek},
    ops::ControlFlow,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Between two words of progress.
const PIECE: u64 = 16 << 20;

/// Tries with the file `sample` whether it can be shared with a file at `probe`, which does not stay.
pub(super) fn way(sample: Option<std::path::PathBuf>, probe: &Path) -> Result<Way, CloneError> {
    let Some(source) = sample.and_then(|sample| File::open(sample).ok()) else { return Ok(Way::Copy) };
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(probe).map_err(failed("create", probe))?;
    let way = share(&source, &target).map_or(Way::Copy, |way| way);
    std::fs::remove_file(probe).map_err(failed("remove", probe))?;
    Ok(way)
}

/// Clones what the open file holds now into a new file at `to`. Answers its size, and what of it was copied.
pub(super) fn clone_file(source: &File, to: &Path, tell: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<(u64, u64), CloneError> {
    let about = source.metadata().map_err(failed("read", to))?;
    let mode = about.permissions().mode() & 0o7777;
    let target = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to).map_err(failed("create", to))?;
    let shared = share(source, &target).map_err(failed("clone into", to))?;
    let copied = match shared {
        Way::Reflink => 0,
        Way::Copy => copy(source, &target, about.len(), to, tell)?,
    };
    target.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", to))?;
    Ok((about.len(), copied))
}

/// `Copy`: these two cannot share blocks.
fn share(source: &File, target: &File) -> io::Result<Way> {
    match ioctl_ficlone(target, source) {
        Ok(()) => Ok(Way::Reflink),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM | Errno::TXTBSY) => Ok(Way::Copy),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies the data of `size` bytes and leaves the holes out.
fn copy(source: &File, target: &File, size: u64, to: &Path, tell: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<u64, CloneError> {
    target.set_len(size).map_err(failed("write", to))?;
    let (mut at, mut copied) = (0, 0);
    while let Some((from, until)) = next_data(source, at, size).map_err(failed("write", to))? {
        let piece = until.min(from.saturating_add(PIECE));
        let moved = copy_range(source, target, from, piece).map_err(failed("write", to))?;
        copied += moved;
        if tell(moved).is_break() {
            return Err(CloneError::GivenUp(to.to_owned()));
        }
        if moved < piece - from {
            break; // it became shorter: what is missing reads as zeros, as it would after a power cut
        }
        at = piece;
    }
    Ok(copied)
}

/// The next range with data, from `at` on. A file system that knows no holes says that all is data.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let from = match seek(file, SeekFrom::Data(at)) {
        Ok(from) if from < size => from,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some((from, seek(file, SeekFrom::Hole(from))?.min(size))))
}

/// By `copy_file_range` where the kernel can: `io::copy` of two files asks for it, and falls back by itself.
fn copy_range(mut source: &File, mut target: &File, from: u64, until: u64) -> io::Result<u64> {
    source.seek(io::SeekFrom::Start(from))?;
    target.seek(io::SeekFrom::Start(from))?;
    io::copy(&mut source.take(until - from), &mut target)
}
