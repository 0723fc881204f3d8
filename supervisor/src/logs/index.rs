//! A coarse index of time: at which moment a log had which size. Nodes need not date their lines for `--since` to work.
//!
//! `<log>.d/index`, one line `<unix ms> <offset>` per entry: all before the offset was written before that moment. It grows by one
//! entry at most every 5 s, or for each MiB; beyond `MOST` entries every second one goes, so the oldest times become coarsest last.

use super::parts::{UNFINISHED, folder};
use crate::model::Timestamp;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const MOST: usize = 4_096;
const APART: Duration = Duration::from_secs(5);
const APART_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: Timestamp,
    offset: u64,
}

/// The writing end: one per log, kept by who watches it grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    last: Option<Entry>,
    count: usize,
}

impl Index {
    /// Goes on with what is there. Blocking.
    pub(super) fn open(log: &Path) -> io::Result<Self> {
        let entries = read(log)?;
        Ok(Self { last: entries.last().copied(), count: entries.len() })
    }

    /// At `now` the log had this size. Written only when it tells something new. Blocking.
    pub(super) fn note(&mut self, log: &Path, now: Timestamp, size: u64) -> io::Result<()> {
        let fresh = self.last.is_none_or(|last| {
            let backwards = now < last.at || size < last.offset;
            backwards || size > last.offset && (now.since(last.at) >= APART || size - last.offset >= APART_BYTES)
        });
        if !fresh {
            return Ok(());
        }
        fs::create_dir_all(folder(log))?;
        if self.count >= MOST {
            self.thin(log)?;
        }
        // One short write: a reader sees the line whole or not at all.
        OpenOptions::new().create(true).append(true).open(file(log))?.write_all(line(Entry { at: now, offset: size }).as_bytes())?;
        self.last = Some(Entry { at: now, offset: size });
        self.count += 1;
        Ok(())
    }

    fn thin(&mut self, log: &Path) -> io::Result<()> {
        let kept: Vec<Entry> = read(log)?.into_iter().step_by(2).collect();
        let path = file(log);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        fs::write(&unfinished, kept.iter().copied().map(line).collect::<String>())?;
        fs::rename(&unfinished, &path)?;
        self.count = kept.len();
        Ok(())
    }
}

/// All before this offset was written before `since`; 0 when the index cannot tell. Blocking.
pub(super) fn offset_at(log: &Path, since: Timestamp) -> io::Result<u64> {
    // Times are whole milliseconds, so an equal one may be later. After a clock that was set back the first later entry counts: rather a
    // few lines too many.
    Ok(read(log)?.iter().take_while(|entry| entry.at < since).last().map_or(0, |entry| entry.offset))
}

fn read(log: &Path) -> io::Result<Vec<Entry>> {
    let text = match fs::read_to_string(file(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    // A crash may have left half a line.
    Ok(text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Entry> {
    let (at, offset) = line.trim_end().split_once(' ')?;
    Some(Entry { at: Timestamp::from_millis(at.parse().ok()?), offset: offset.parse().ok()? })
}

fn line(entry: Entry) -> String {
    format!("{} {}\n", entry.at.as_millis(), entry.offset)
}

fn file(log: &Path) -> PathBuf {
    folder(log).join("index")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn what_was_written_before_a_time_is_known_to_the_last_entry() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l1.log");
        assert_eq!(offset_at(&log, at(9)).unwrap(), 0);
        let mut index = Index::open(&log).unwrap();
        // (3, 200) is too soon, (4, 2 MiB) is much, (20, the same) is nothing new.
        for (second, size) in [(0, 0), (3, 200), (4, 2 << 20), (20, 2 << 20), (21, 3_000_000)] {
            index.note(&log, at(second), size).unwrap();
        }
        for (second, expect) in [(-1, 0), (4, 0), (5, 2 << 20), (21, 2 << 20), (22, 3_000_000), (99, 3_000_000)] {
            assert_eq!(offset_at(&log, at(second)).unwrap(), expect, "{second}");
        }
        let mut again = Index::open(&log).unwrap();
        again.note(&log, at(22), 3_000_001).unwrap();
        assert_eq!(read(&log).unwrap().len(), 3, "the next daemon goes on where the last one was");
    }

    #[test]
    fn it_stays_small_and_half_a_line_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l1.log");
        let mut index = Index::open(&log).unwrap();
        for round in 0..10_000 {
            index.note(&log, at(round * 5), u64::try_from(round).unwrap() * 10).unwrap();
        }
        assert!(read(&log).unwrap().len() <= MOST);
        OpenOptions::new().append(true).open(file(&log)).unwrap().write_all(b"9999999").unwrap();
        for second in [777, 25_000, 49_990] {
            let (found, exact) = (offset_at(&log, at(second)).unwrap(), u64::try_from(second).unwrap() * 2);
            assert!(found <= exact && found + 100 > exact, "{second}: {found} of {exact}");
        }
    }

    #[test]
    fn a_clock_set_back_gives_rather_more_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l1.log");
        let mut index = Index::open(&log).unwrap();
        for (second, size) in [(100, 10), (200, 20), (50, 30), (60, 40)] {
            index.note(&log, at(second), size).unwrap();
        }
        assert_eq!(offset_at(&log, at(55)).unwrap(), 0);
        assert_eq!(offset_at(&log, at(150)).unwrap(), 10);
    }
}
