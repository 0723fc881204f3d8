//! What stands of a log where: rotated segments, gaps, and from the floor on the file that the node writes.
//!
//! ```text
//! offset 0 ──────────────────────────► floor ─────────────────► size
//!   <log>.d/<from>-<to>.log[.zst]        <log>, with a hole below the floor
//!   <log>.d/<from>-<to>.lost-<cause>
//! ```
//! The folder's names are the whole record: there is no other state. The floor is the highest end of any part; below it, what no
//! segment has is lost. Where a segment and a gap overlap, the segment counts (a crash came between marking and removing).

use super::LossCause;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PartKind {
    Plain,
    Packed,
    Lost(LossCause),
}

/// Bytes `from..to` of the log, in a file of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Part {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) kind: PartKind,
}

/// Where a byte of the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Segment(Part),
    /// Gone, up to `to`.
    Lost {
        to: u64,
        cause: LossCause,
    },
    Live,
}

/// Sorted by `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) parts: Vec<Part>,
}

/// Ends the name of a file that is not whole yet.
pub(super) const UNFINISHED: &str = ".tmp";

/// The folder of a log's parts and index.
pub(super) fn folder(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

impl Part {
    pub(super) fn path(&self, log: &Path) -> PathBuf {
        folder(log).join(self.name())
    }

    pub(super) fn name(&self) -> String {
        // Padded, so that `ls` lists them in order.
        let extension = match self.kind {
            PartKind::Plain => "log",
            PartKind::Packed => "log.zst",
            PartKind::Lost(cause) => cause.extension(),
        };
        format!("{:012}-{:012}.{extension}", self.from, self.to)
    }

    fn parse(name: &str) -> Option<Self> {
        let (range, extension) = name.split_once('.')?;
        let (from, to) = range.split_once('-')?;
        let kind = match extension {
            "log" => PartKind::Plain,
            "log.zst" => PartKind::Packed,
            lost => PartKind::Lost(LossCause::ALL.into_iter().find(|cause| cause.extension() == lost)?),
        };
        let part = Self { from: from.parse().ok()?, to: to.parse().ok()?, kind };
        (part.from < part.to).then_some(part)
    }

    pub(super) fn is_segment(&self) -> bool {
        !matches!(self.kind, PartKind::Lost(_))
    }

    fn covers(&self, offset: u64) -> bool {
        self.from <= offset && offset < self.to
    }
}

impl Layout {
    /// Nothing when the log was never rotated.
    pub(super) fn read(log: &Path) -> io::Result<Self> {
        Ok(Self::of(names(log)?.iter().filter_map(|name| Part::parse(name)).collect()))
    }

    pub(super) fn of(mut parts: Vec<Part>) -> Self {
        parts.sort_unstable();
        Self { parts }
    }

    /// From here on the live file has everything.
    pub(super) fn floor(&self) -> u64 {
        self.parts.iter().map(|part| part.to).max().unwrap_or(0)
    }

    pub(super) fn at(&self, offset: u64) -> Place {
        let floor = self.floor();
        if offset >= floor {
            return Place::Live;
        }
        if let Some(segment) = self.segments().find(|part| part.covers(offset)) {
            return Place::Segment(*segment);
        }
        let to = self.segments().map(|part| part.from).find(|from| *from > offset).unwrap_or(floor);
        let cause = |part: &Part| match part.kind {
            PartKind::Lost(cause) if part.covers(offset) => Some(cause),
            _ => None,
        };
        // A gap that no part tells of: somebody took a segment away.
        Place::Lost { to, cause: self.parts.iter().find_map(cause).unwrap_or(LossCause::Taken) }
    }

    /// The last gap: (where it begins, where it ends). Everything behind it is there.
    pub(super) fn last_gap(&self) -> Option<(u64, u64)> {
        let (mut from, mut last) = (0, None);
        while from < self.floor() {
            from = match self.at(from) {
                Place::Segment(part) => part.to,
                Place::Lost { to, .. } => {
                    last = Some((from, to));
                    to
                }
                Place::Live => break,
            };
        }
        last
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.is_segment())
    }
}

/// Names in a log's folder; none when there is no folder.
pub(super) fn names(log: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder(log)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, to: u64, kind: PartKind) -> Part {
        Part { from, to, kind }
    }

    #[test]
    fn a_parts_name_says_all_and_other_names_say_nothing() {
        let kinds = LossCause::ALL.map(PartKind::Lost);
        for kind in kinds.into_iter().chain([PartKind::Plain, PartKind::Packed]) {
            let part = part(0, 7_000_000_000_000, kind);
            assert_eq!(Part::parse(&part.name()), Some(part));
        }
        for name in ["index", "0-5.log.tmp", "5-5.log", "a-b.log", "0-5.lost-me", "0-5", ""] {
            assert_eq!(Part::parse(name), None, "{name}");
        }
    }

    #[test]
    fn each_offset_has_one_place() {
        let layout = Layout::of(vec![
            part(0, 10, PartKind::Lost(LossCause::Cap)),
            part(5, 10, PartKind::Plain),
            part(10, 20, PartKind::Packed),
            part(20, 30, PartKind::Lost(LossCause::Disk)),
        ]);
        let lost = |to, cause| Place::Lost { to, cause };
        let expect = [(0, lost(5, LossCause::Cap)), (4, lost(5, LossCause::Cap)), (5, Place::Segment(part(5, 10, PartKind::Plain)))];
        for (offset, place) in expect.into_iter().chain([(29, lost(30, LossCause::Disk)), (30, Place::Live), (99, Place::Live)]) {
            assert_eq!(layout.at(offset), place, "{offset}");
        }
        assert_eq!((layout.floor(), layout.last_gap()), (30, Some((20, 30))));
        assert_eq!(Layout::default().at(0), Place::Live);
        assert_eq!(Layout::default().last_gap(), None);
    }

    #[test]
    fn a_segment_that_somebody_took_away_shows_as_a_gap() {
        let layout = Layout::of(vec![part(0, 10, PartKind::Plain), part(20, 30, PartKind::Plain)]);
        assert_eq!(layout.at(12), Place::Lost { to: 20, cause: LossCause::Taken });
    }
}
