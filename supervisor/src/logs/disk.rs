//! What rotation does to the disk, one crash-safe step each, behind a trait: tests end the world between any two of them.

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek, statvfs};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Each step is done, and on the disk, when it returns.
pub trait Disk: Send + Sync + 'static {
    /// Bytes that we may still write, and that the disk has, where `path` is.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
    /// Writes a new file. A crash may leave part of it.
    fn write(&self, to: &Path, content: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()>;
    /// Also over a file that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// What is not there is removed already.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives back the blocks of a range; it reads as zeros. `Unsupported` where the file system cannot.
    fn punch(&self, file: &File, from: u64, to: u64) -> io::Result<()>;
    fn resize(&self, file: &File, size: u64) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let about = statvfs(path)?;
        Ok((about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize))
    }

    fn write(&self, to: &Path, content: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(to)?;
        content(&mut file)?;
        file.flush()?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        match to.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn punch(&self, file: &File, from: u64, to: u64) -> io::Result<()> {
        Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, to - from)?)
    }

    fn resize(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }
}

/// Where the first data at or after `offset` stands; None: nothing but a hole follows.
pub(super) fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies bytes `from..to`, into a file without taking them through our memory where the kernel can.
pub(super) fn copy_range(source: &File, from: u64, to: u64, target: &mut impl Write) -> io::Result<()> {
    let mut source = source;
    source.seek(io::SeekFrom::Start(from))?;
    let copied = io::copy(&mut source.take(to - from), target)?;
    if copied < to - from {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log became shorter while it was copied"));
    }
    Ok(())
}
