//! Reads a log forward from an offset, as far as it goes now.

use super::{
    LogError, LossCause, MAX_LINE,
    source::{Chunk, Source},
};
use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Line {
        /// Without its newline.
        bytes: Vec<u8>,
        /// Where it begins in the file.
        offset: u64,
        /// Where to read on.
        next: u64,
        /// It does not end here: it is longer than `MAX_LINE`, or the file ends without a newline.
        partial: bool,
    },
    /// These bytes are gone; reading goes on behind them.
    Lost { from: u64, to: u64, cause: LossCause },
    /// The file became shorter than what was read of it. Reading goes on at its beginning (`next`); that is, behind what was rotated.
    Truncated { at: u64, size: u64, next: u64 },
    /// The file was deleted. What its process writes can be read by those who have it open, and is, as long as they do.
    Deleted,
}

/// Blocking; holds at most one chunk and one line.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    source: Source,
    /// Offset of `buffer[0]`.
    offset: u64,
    /// Read, but not handed out.
    buffer: Vec<u8>,
    /// So much of `buffer` holds no newline.
    searched: usize,
    /// The file is shorter than where we are, and that was said.
    shrunk: bool,
}

const CHUNK: usize = 64 << 10;

impl LogReader {
    /// An offset beyond the end shows as a truncation at the first read.
    pub fn open(path: &Path, offset: u64) -> Result<Self, LogError> {
        let source = Source::open(path).map_err(|source| LogError::Io { path: path.to_owned(), source })?;
        Ok(Self::over(path, source, offset))
    }

    pub(super) fn over(path: &Path, source: Source, offset: u64) -> Self {
        Self { path: path.to_owned(), source, offset, buffer: Vec::new(), searched: 0, shrunk: false }
    }

    /// The next whole line, or piece of an over-long one. None: no more for now; what there is of an unfinished line waits.
    pub fn next_whole(&mut self) -> Result<Option<Item>, LogError> {
        loop {
            if let Some(line) = self.cut() {
                return Ok(Some(line));
            }
            if let Some(item) = self.fill().map_err(self.error())? {
                return Ok(Some(item));
            }
            if self.buffer.len() == self.searched {
                return Ok(None);
            }
        }
    }

    /// As `next_whole`, and at the end also the unfinished line, as partial.
    pub fn next_or_rest(&mut self) -> Result<Option<Item>, LogError> {
        match self.next_whole()? {
            None if !self.buffer.is_empty() => Ok(Some(self.take(self.buffer.len(), 0, true))),
            item => Ok(item),
        }
    }

    /// Whether the last name of the file is gone.
    pub fn is_deleted(&self) -> Result<bool, LogError> {
        self.source.is_deleted().map_err(self.error())
    }

    /// A whole line or a full piece out of the buffer.
    fn cut(&mut self) -> Option<Item> {
        let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        match newline {
            Some(at) if at <= MAX_LINE => Some(self.take(at, 1, false)),
            _ if self.buffer.len() > MAX_LINE => Some(self.take(MAX_LINE, 0, true)),
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    /// Reads one more chunk; Some when there is a gap or the file shrank.
    fn fill(&mut self) -> io::Result<Option<Item>> {
        let before = self.buffer.len();
        let read_to = self.offset + before as u64;
        self.buffer.resize(before + CHUNK, 0);
        let chunk = self.source.read_at(&mut self.buffer[before..], read_to);
        self.buffer.truncate(before + if let Ok(Chunk::Bytes(read)) = chunk { read } else { 0 });
        match chunk? {
            Chunk::Bytes(_) => self.shrunk = false,
            // First what stands before the gap; its end is gone.
            Chunk::Lost { .. } if before > 0 => return Ok(Some(self.take(before, 0, true))),
            Chunk::Lost { to, cause } => {
                self.offset = to;
                return Ok(Some(Item::Lost { from: read_to, to, cause }));
            }
            Chunk::Shrunk { .. } if self.shrunk => {}
            Chunk::Shrunk { size } => {
                self.buffer.clear();
                self.searched = 0;
                self.offset = self.source.floor();
                self.shrunk = self.offset > 0;
                return Ok(Some(Item::Truncated { at: read_to, size, next: self.offset }));
            }
        }
        Ok(None)
    }

    fn take(&mut self, length: usize, newline: usize, partial: bool) -> Item {
        let rest = self.buffer.split_off(length + newline);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.truncate(length);
        self.searched = 0;
        let offset = self.offset;
        self.offset += (length + newline) as u64;
        Item::Line { bytes, offset, next: self.offset, partial }
    }

    fn error(&self) -> impl Fn(io::Error) -> LogError + use<> {
        let path = self.path.clone();
        move |source| LogError::Io { path: path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn all(reader: &mut LogReader) -> Vec<Item> {
        std::iter::from_fn(|| reader.next_or_rest().unwrap()).collect()
    }

    fn line(text: &[u8], offset: u64, next: u64, partial: bool) -> Item {
        Item::Line { bytes: text.to_vec(), offset, next, partial }
    }

    #[test]
    fn lines_come_with_their_cursor_and_any_bytes() {
        let file = file(b"one\n\n\xff\x00two\nrest");
        let items = all(&mut LogReader::open(file.path(), 0).unwrap());
        assert_eq!(items, [line(b"one", 0, 4, false), line(b"", 4, 5, false), line(b"\xff\x00two", 5, 11, false), line(b"rest", 11, 15, true)]);
        assert_eq!(all(&mut LogReader::open(file.path(), 5).unwrap())[0], items[2]);
    }

    #[test]
    fn an_unfinished_line_waits_for_its_end() {
        let mut file = file(b"begin");
        let mut reader = LogReader::open(file.path(), 0).unwrap();
        assert_eq!(reader.next_whole().unwrap(), None);
        file.write_all(b" end\n").unwrap();
        assert_eq!(reader.next_whole().unwrap(), Some(line(b"begin end", 0, 10, false)));
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let file = file(&[vec![b'x'; MAX_LINE * 2 + 10], b"\nnext\n".to_vec()].concat());
        let sizes: Vec<(usize, bool)> = all(&mut LogReader::open(file.path(), 0).unwrap())
            .into_iter()
            .map(|item| match item {
                Item::Line { bytes, partial, .. } => (bytes.len(), partial),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [(MAX_LINE, true), (MAX_LINE, true), (10, false), (4, false)]);
    }

    #[test]
    fn a_truncated_file_says_so_and_is_read_from_its_beginning() {
        let mut file = file(b"one\ntwo\n");
        let mut reader = LogReader::open(file.path(), 0).unwrap();
        assert_eq!(all(&mut reader).len(), 2);
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(b"new\n").unwrap();
        assert_eq!(all(&mut reader), [Item::Truncated { at: 8, size: 4, next: 0 }, line(b"new", 0, 4, false)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn nothing_is_lost_and_each_cursor_leads_on(lines in prop::collection::vec((0..3_usize, 0..200_usize), 0..20), ended: bool) {
            let mut bytes = Vec::new();
            for (long, short) in &lines {
                bytes.extend(vec![b'a'; long * MAX_LINE + short]);
                bytes.push(b'\n');
            }
            if !ended {
                bytes.extend(b"tail");
            }
            let file = file(&bytes);
            let mut rebuilt = Vec::new();
            for item in all(&mut LogReader::open(file.path(), 0).unwrap()) {
                let Item::Line { bytes, offset, next, partial } = item else { panic!("{item:?}") };
                prop_assert_eq!(offset, rebuilt.len() as u64);
                prop_assert!(bytes.len() <= MAX_LINE);
                rebuilt.extend(bytes);
                if !partial {
                    rebuilt.push(b'\n');
                }
                prop_assert_eq!(next, rebuilt.len() as u64);
            }
            prop_assert_eq!(rebuilt, bytes);
        }
    }
}
