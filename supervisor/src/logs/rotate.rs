//! Rotation of one log: old bytes are copied out of the file that its node writes, and a hole is punched where they were.
//!
//! ```text
//! copy to <segment>.tmp ─► sync ─► rename to <segment> ─► punch the live file
//!        (again at will)             the floor is here        (recover does it)
//! ```
//! A crash at any instruction leaves either no segment, or one whose hole is missing; `recover` removes or punches. Dropping goes the
//! other way round: first the gap is marked, then the bytes go. The node is never stopped, and no offset changes its meaning.

#[cfg(test)]
mod tests;

use super::{
    Disk, LogError, LossCause, MAX_LINE,
    disk::{copy_range, next_data},
    parts::{Layout, Part, PartKind, UNFINISHED, folder, names},
};
use crate::sys::failpoint;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Fast, and small enough: the text of logs shrinks to a tenth.
pub(super) const LEVEL: i32 = 3;
/// Largest segment: small enough to be held in memory by a reader of a compressed one.
pub(super) const SEGMENT: u64 = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) cause: LossCause,
}

/// What became of a rotation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rotated {
    pub(super) segments: Vec<Part>,
    pub(super) losses: Vec<Loss>,
    /// The file system cannot punch holes: nothing was done, for the disk would hold everything twice.
    pub(super) unsupported: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    log: &'a Path,
    disk: &'a dyn Disk,
}

impl<'a> Rotation<'a> {
    pub(super) fn of(log: &'a Path, disk: &'a dyn Disk) -> Self {
        Self { log, disk }
    }

    /// Copies the oldest lines out until the live file holds at most `keep` bytes (as of now). With less than `reserve` bytes left on
    /// the disk they are dropped instead, and so they are when a copy finds the disk full.
    pub(super) fn rotate(&self, keep: u64, reserve: impl Fn(u64) -> u64) -> Result<Rotated, LogError> {
        let mut rotated = Rotated::default();
        let file = self.open()?;
        let size = self.size(&file)?;
        let mut floor = self.layout()?.floor();
        if size.saturating_sub(floor) <= keep {
            return Ok(rotated);
        }
        let full = self.is_full(reserve)?;
        if !self.can_punch(&file, size)? {
            if full {
                rotated.losses.push(self.empty(&file, size, LossCause::Disk)?);
            }
            return Ok(Rotated { unsupported: true, ..rotated });
        }
        fs::create_dir_all(folder(self.log)).map_err(self.rotating("create the folder of", self.log))?;
        while size - floor > keep {
            let to = line_end(&file, floor, floor + (keep / 2).clamp(1, SEGMENT)).map_err(self.reading())?;
            let segment = Part { from: floor, to, kind: PartKind::Plain };
            if full || !self.write_segment(&segment, |target| copy_range(&file, floor, to, target))? {
                self.mark(floor, to, LossCause::Disk)?;
                rotated.losses.push(Loss { from: floor, to, cause: LossCause::Disk });
            } else {
                rotated.segments.push(segment);
            }
            self.punch(&file, floor, to)?;
            failpoint("rotate/punched");
            floor = to;
        }
        Ok(rotated)
    }

    /// Everything before `to` goes, in segments and in the live file. `over`: its launch has ended.
    pub(super) fn discard(&self, to: u64, cause: LossCause, over: bool) -> Result<(), LogError> {
        let floor = self.layout()?.floor();
        self.mark(0, to, cause)?;
        if to <= floor {
            return Ok(());
        }
        let file = self.open()?;
        // Nobody writes behind the end any more, so the last block may go whole.
        let behind = if over && to == self.size(&file)? { to.next_multiple_of(self.block(&file)?) } else { to };
        match self.disk.punch(&file, 0, behind) {
            // Cutting and stretching makes the same hole.
            Err(error) if error.kind() == ErrorKind::Unsupported && over => self.empty(&file, self.size(&file)?, cause).map(drop),
            punched => punched.map_err(self.rotating("punch a hole into", self.log)),
        }
    }

    /// All that the file of an ended launch still holds becomes compressed segments, with the time at which it was written. Where no holes can
    /// be punched, or there is no room for it, it stays as it is.
    pub(super) fn pack_rest(&self) -> Result<(), LogError> {
        let file = match self.open() {
            Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        // Before anything that the file system takes for a change of it, as asking for a hole.
        let written = file.metadata().and_then(|about| about.modified()).map_err(self.reading())?;
        let (size, mut floor) = (self.size(&file)?, self.layout()?.floor());
        if floor >= size || !self.can_punch(&file, size)? {
            return Ok(());
        }
        // Not with the folders above it: they may be gone, and their devnet with them.
        match fs::create_dir(folder(self.log)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(self.rotating("create the folder of", self.log)(error)),
            _ => {}
        }
        while floor < size {
            let to = if floor + SEGMENT < size { line_end(&file, floor, floor + SEGMENT).map_err(self.reading())? } else { size };
            let compress = |target: &mut File| {
                let mut packer = zstd::Encoder::new(&mut *target, LEVEL)?;
                copy_range(&file, floor, to, &mut packer)?;
                packer.finish()?.set_modified(written)
            };
            if !self.write_segment(&Part { from: floor, to, kind: PartKind::Packed }, compress)? {
                return Ok(());
            }
            // Nobody writes behind the end any more, so the last block may go whole.
            let behind = if to == size { to.next_multiple_of(self.block(&file)?) } else { to };
            self.punch(&file, floor, behind)?;
            file.set_modified(written).map_err(self.rotating("set the time of", self.log))?;
            failpoint("rotate/packed");
            floor = to;
        }
        Ok(())
    }

    /// Finishes what a crash has interrupted. Only while nothing else rotates or compresses this log.
    pub(super) fn recover(&self) -> Result<Option<Loss>, LogError> {
        for name in names(self.log).map_err(self.reading())?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            self.remove(&folder(self.log).join(name))?;
        }
        let layout = self.layout()?;
        for part in layout.segments() {
            let packed = Part { kind: PartKind::Packed, ..*part };
            let twice = part.kind == PartKind::Plain && layout.parts.contains(&packed);
            let marked = |gap: &Part| !gap.is_segment() && gap.from <= part.from && part.to <= gap.to;
            if twice || layout.parts.iter().any(marked) {
                self.remove(&part.path(self.log))?;
            }
        }
        let floor = layout.floor();
        let file = match self.open() {
            Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if self.size(&file)? < floor {
            return self.mend(floor);
        }
        let block = self.block(&file)?;
        let data = next_data(&file, 0).map_err(self.reading())?;
        if data.is_some_and(|data| data < floor / block * block) {
            match self.disk.punch(&file, 0, floor) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                punched => punched.map_err(self.rotating("punch a hole into", self.log))?,
            }
        }
        Ok(None)
    }

    /// Somebody truncated a rotated log that had `known` bytes: stretches it again, so that new lines go behind all known offsets, and
    /// what was written at its beginning meanwhile is appended.
    pub(super) fn mend(&self, known: u64) -> Result<Option<Loss>, LogError> {
        let mending = || self.rotating("mend the truncated", self.log);
        let file = self.open()?;
        let floor = self.layout()?.floor();
        let loss = (known > floor).then_some(Loss { from: floor, to: known, cause: LossCause::Truncated });
        // First, or a follower would take the zeros of the stretched file for what the node wrote.
        if let Some(loss) = loss {
            self.mark(loss.from, loss.to, loss.cause)?;
        }
        self.disk.resize(&file, known.max(floor)).map_err(mending())?;
        self.append_strays(&file, known.max(floor)).map_err(mending())?;
        self.punch(&file, 0, known.max(floor))?;
        Ok(loss)
    }

    fn append_strays(&self, file: &File, below: u64) -> io::Result<()> {
        let mut end = File::options().append(true).open(self.log)?;
        let mut buffer = vec![0; MAX_LINE];
        let mut at = 0;
        while let Some(data) = next_data(file, at)?.filter(|data| *data < below) {
            let wanted = usize::try_from(below - data).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read_at(&mut buffer[..wanted], data)?;
            // A block's rest behind the last stray byte is zeros.
            let text = buffer[..read].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            end.write_all(&buffer[..text])?;
            at = data + read.max(1) as u64;
        }
        Ok(())
    }

    /// False: the disk is full, and nothing is left of the attempt.
    fn write_segment(&self, segment: &Part, mut content: impl FnMut(&mut File) -> io::Result<()>) -> Result<bool, LogError> {
        let path = segment.path(self.log);
        let unfinished = unfinished(&path);
        match self.disk.write(&unfinished, &mut content) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                self.remove(&unfinished)?;
                return Ok(false);
            }
            Err(error) => return Err(self.rotating("write", &unfinished)(error)),
        }
        failpoint("rotate/copied");
        self.disk.rename(&unfinished, &path).map_err(self.rotating("rename", &unfinished))?;
        failpoint("rotate/renamed");
        Ok(true)
    }

    /// Marks a gap, in one with the gap of the same cause before it; from 0 on, in one with all that lies below. Then the segments in
    /// it go.
    fn mark(&self, from: u64, to: u64, cause: LossCause) -> Result<(), LogError> {
        let layout = self.layout()?;
        let kind = PartKind::Lost(cause);
        let before = layout.parts.iter().find(|part| part.kind == kind && part.to == from);
        let gap = Part { from: before.map_or(from, |part| part.from), to, kind };
        let path = gap.path(self.log);
        let unfinished = unfinished(&path);
        fs::create_dir_all(folder(self.log)).map_err(self.rotating("create the folder of", self.log))?;
        self.disk.write(&unfinished, &mut |_| Ok(())).map_err(self.rotating("write", &unfinished))?;
        self.disk.rename(&unfinished, &path).map_err(self.rotating("rename", &unfinished))?;
        for part in layout.parts.iter().filter(|part| **part != gap && gap.from <= part.from && part.to <= gap.to) {
            self.remove(&part.path(self.log))?;
        }
        Ok(())
    }

    /// The way without holes: the file is cut to nothing and stretched again. What is written in between is lost with the rest.
    fn empty(&self, file: &File, size: u64, cause: LossCause) -> Result<Loss, LogError> {
        let from = self.layout()?.floor().min(size);
        self.mark(from, size, cause)?;
        let resized = self.disk.resize(file, 0).and_then(|()| self.disk.resize(file, size));
        resized.map_err(self.rotating("cut", self.log))?;
        Ok(Loss { from, to: size, cause })
    }

    fn punch(&self, file: &File, from: u64, to: u64) -> Result<(), LogError> {
        // The block that the last hole ended in was kept, for it held newer lines then.
        let block = self.block(file)?;
        self.disk.punch(file, from / block * block, to).map_err(self.rotating("punch a hole into", self.log))
    }

    /// Asks by a hole behind the end of the file, which changes nothing.
    fn can_punch(&self, file: &File, size: u64) -> Result<bool, LogError> {
        let block = self.block(file)?;
        let behind = (size / block + 1024) * block;
        match self.disk.punch(file, behind, behind + block) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            punched => punched.map(|()| true).map_err(self.rotating("punch a hole into", self.log)),
        }
    }

    fn is_full(&self, reserve: impl Fn(u64) -> u64) -> Result<bool, LogError> {
        let (free, total) = self.disk.space(self.log).map_err(self.reading())?;
        Ok(free < reserve(total))
    }

    fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove(path).map_err(self.rotating("remove", path))
    }

    fn open(&self) -> Result<File, LogError> {
        File::options().read(true).write(true).open(self.log).map_err(self.reading())
    }

    fn size(&self, file: &File) -> Result<u64, LogError> {
        Ok(file.metadata().map_err(self.reading())?.len())
    }

    fn block(&self, file: &File) -> Result<u64, LogError> {
        Ok(file.metadata().map_err(self.reading())?.blksize().max(1))
    }

    fn layout(&self) -> Result<Layout, LogError> {
        Layout::read(self.log).map_err(self.reading())
    }

    fn reading(&self) -> impl FnOnce(io::Error) -> LogError + use<> {
        let path = self.log.to_owned();
        move |source| LogError::Io { path, source }
    }

    fn rotating(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
        let path = path.to_owned();
        move |source| LogError::Rotate { action, path, source }
    }
}

pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Behind the last newline before `to`; `to` itself when the line there is longer than anybody reads in one piece.
fn line_end(file: &File, from: u64, to: u64) -> io::Result<u64> {
    let start = from.max(to.saturating_sub(MAX_LINE as u64));
    let mut buffer = vec![0; usize::try_from(to - start).unwrap_or(MAX_LINE)];
    file.read_exact_at(&mut buffer, start)?;
    Ok(buffer.iter().rposition(|byte| *byte == b'\n').map_or(to, |at| start + at as u64 + 1))
}
