//! A disk that ends the world before a chosen step, and what tests read a log with.

use super::{Disk, Item, LogReader, RealDisk};
use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// The real disk, with knobs.
#[derive(Debug)]
pub(super) struct TestDisk {
    /// Steps until the end; each one after it fails without doing anything, as nothing runs after a SIGKILL.
    left: AtomicUsize,
    pub(super) no_holes: AtomicBool,
    pub(super) full: AtomicBool,
}

impl TestDisk {
    pub(super) fn ending_after(steps: usize) -> Self {
        Self { left: AtomicUsize::new(steps), no_holes: AtomicBool::new(false), full: AtomicBool::new(false) }
    }
    pub(super) fn endless() -> Self {
        Self::ending_after(usize::MAX)
    }
    pub(super) fn has_ended(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
    fn step(&self) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| io::Error::other("killed"))
    }
}

impl Disk for TestDisk {
    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let (free, total) = RealDisk.space(path)?;
        Ok((if self.full.load(Ordering::SeqCst) { 0 } else { free }, total))
    }
    fn write(&self, to: &Path, content: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
        self.step()?;
        RealDisk.write(to, content)?;
        if self.has_ended() {
            // Killed within: half of it is there.
            let file = File::options().write(true).open(to)?;
            file.set_len(file.metadata()?.len() / 2)?;
            return Err(io::Error::other("killed"));
        }
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }
    fn punch(&self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if self.no_holes.load(Ordering::SeqCst) {
            return Err(ErrorKind::Unsupported.into());
        }
        self.step()?;
        RealDisk.punch(file, from, to)
    }
    fn resize(&self, file: &File, size: u64) -> io::Result<()> {
        self.step()?;
        RealDisk.resize(file, size)
    }
}

/// Checks that a reader from the beginning gets what was `written`, byte by byte, or hears that it is lost; returns what is lost.
pub(super) fn lost_of(log: &Path, written: &[u8]) -> Vec<Range<u64>> {
    let mut reader = LogReader::open(log, 0).unwrap();
    let (mut at, mut lost) = (0, Vec::new());
    while let Some(item) = reader.next_or_rest().unwrap() {
        match item {
            Item::Line { bytes, offset, next, .. } => {
                assert_eq!(offset, at, "no byte is left out");
                let start = usize::try_from(offset).unwrap();
                assert!(written[start..].starts_with(&bytes), "what is read at {offset} was written there");
                at = next;
            }
            Item::Lost { from, to, .. } => {
                assert_eq!(from, at);
                lost.push(from..to);
                at = to;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(at, written.len() as u64, "it is read to its end");
    lost
}
