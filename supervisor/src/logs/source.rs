//! One log as one row of bytes, whatever of it is rotated, compressed or lost.

use super::{
    LossCause,
    parts::{Layout, Part, PartKind, Place},
};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How often parts may change under one read until it is given up.
const TRIES: usize = 8;

/// What there is at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// So many bytes of the buffer; 0 at the end.
    Bytes(usize),
    Lost {
        to: u64,
        cause: LossCause,
    },
    /// The file ends before this offset: somebody cut it.
    Shrunk {
        size: u64,
    },
}

/// Blocking. Holds the live file and at most one segment.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// None: somebody deleted it, and what was rotated is left.
    live: Option<File>,
    layout: Layout,
    open: Option<(Part, Segment)>,
}

#[derive(Debug)]
enum Segment {
    Plain(File),
    /// Segments are small: see `rotate::SEGMENT`.
    Unpacked(Vec<u8>),
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let layout = Layout::read(path)?;
        let live = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && layout.floor() > 0 => None,
            live => Some(live?),
        };
        Ok(Self { path: path.to_owned(), live, layout, open: None })
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        self.live.as_ref().map_or(Ok(self.floor()), |live| Ok(live.metadata()?.len()))
    }

    /// When it was last written; None when nobody can tell.
    pub(super) fn modified(&self) -> io::Result<Option<SystemTime>> {
        self.live.as_ref().map(|live| live.metadata()?.modified()).transpose()
    }

    pub(super) fn is_deleted(&self) -> io::Result<bool> {
        self.live.as_ref().map_or(Ok(true), |live| Ok(live.metadata()?.nlink() == 0))
    }

    pub(super) fn floor(&self) -> u64 {
        self.layout.floor()
    }

    pub(super) fn last_gap(&self) -> Option<(u64, u64)> {
        self.layout.last_gap()
    }

    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<Chunk> {
        for _ in 0..TRIES {
            let chunk = match self.layout.at(offset) {
                Place::Live => self.read_live(buffer, offset)?,
                Place::Segment(part) => self.read_segment(part, buffer, offset)?,
                Place::Lost { .. } => {
                    // One listing of a folder in which a segment is just being replaced may miss both names of it.
                    self.layout = Layout::read(&self.path)?;
                    match self.layout.at(offset) {
                        Place::Lost { to, cause } => Some(Chunk::Lost { to, cause }),
                        _ => None,
                    }
                }
            };
            match chunk {
                Some(chunk) => return Ok(chunk),
                None => self.layout = Layout::read(&self.path)?,
            }
        }
        Err(io::Error::other("its rotated parts change faster than they can be read"))
    }

    /// Fills the buffer as far as the log goes without a gap. Returns how much, and what stopped it before the buffer was full.
    pub(super) fn read_run(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<(usize, Option<Chunk>)> {
        let mut length = 0;
        while length < buffer.len() {
            match self.read_at(&mut buffer[length..], offset + length as u64)? {
                Chunk::Bytes(0) => return Ok((length, Some(Chunk::Bytes(0)))),
                Chunk::Bytes(read) => length += read,
                stop => return Ok((length, Some(stop))),
            }
        }
        Ok((length, None))
    }

    /// None: the layout that we know is outdated.
    fn read_live(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<Option<Chunk>> {
        let Some(live) = &self.live else { return Ok(Some(Chunk::Bytes(0))) };
        let size = live.metadata()?.len();
        if size < offset {
            self.layout = Layout::read(&self.path)?;
            return Ok((self.layout.at(offset) == Place::Live).then_some(Chunk::Shrunk { size }));
        }
        let read = live.read_at(buffer, offset)?;
        // A hole that was punched since we looked reads as zeros, and its segment was in place before. Logs seldom hold zeros.
        if buffer[..read].contains(&0) {
            self.layout = Layout::read(&self.path)?;
            if self.layout.at(offset) != Place::Live {
                return Ok(None);
            }
        }
        Ok(Some(Chunk::Bytes(read)))
    }

    /// None: the segment was compressed or dropped meanwhile.
    fn read_segment(&mut self, part: Part, buffer: &mut [u8], offset: u64) -> io::Result<Option<Chunk>> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != part) {
            self.open = None;
            match Segment::open(&part, &self.path) {
                Ok(segment) => self.open = Some((part, segment)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some((_, segment)) = &self.open else { return Ok(None) };
        let within = offset - part.from;
        let wanted = usize::try_from(part.to - offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = match segment {
            Segment::Plain(file) => file.read_at(&mut buffer[..wanted], within)?,
            Segment::Unpacked(bytes) => {
                let start = usize::try_from(within).unwrap_or(usize::MAX);
                let Some(bytes) = bytes.get(start..start.saturating_add(wanted)) else { return Err(damaged(&part)) };
                buffer[..wanted].copy_from_slice(bytes);
                wanted
            }
        };
        if read == 0 && wanted > 0 {
            return Err(damaged(&part));
        }
        Ok(Some(Chunk::Bytes(read)))
    }
}

impl Segment {
    fn open(part: &Part, log: &Path) -> io::Result<Self> {
        let file = File::open(part.path(log))?;
        match part.kind {
            PartKind::Packed => Ok(Self::Unpacked(zstd::decode_all(file)?)),
            _ => Ok(Self::Plain(file)),
        }
    }
}

fn damaged(part: &Part) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the segment {} is shorter than its name says", part.name()))
}
