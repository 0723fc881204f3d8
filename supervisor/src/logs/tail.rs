//! The last lines of a log, without reading it all.

use super::{Item, LogError, LogReader, MAX_LINE, source::Source};
use std::{io, path::Path};

const CHUNK: u64 = 64 << 10;

/// The last `lines` lines, oldest first, each cut after `MAX_LINE` bytes; an unfinished last line counts. Of no more than the last `bytes`
/// bytes, where given: then the first line may lack its beginning. Blocking.
pub(super) fn tail_within(path: &Path, lines: usize, bytes: Option<u64>) -> Result<Vec<Vec<u8>>, LogError> {
    let io = |source| LogError::Io { path: path.to_owned(), source };
    let mut source = Source::open(path).map_err(io)?;
    let offset = offset_in(&mut source, lines, bytes).map_err(io)?;
    let mut reader = LogReader::over(path, source, offset);
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    while let Some(item) = reader.next_or_rest()? {
        match item {
            // The rest of a long line: its beginning is what tells.
            Item::Line { partial, .. } if goes_on => goes_on = partial,
            Item::Line { bytes, partial, .. } => {
                goes_on = partial;
                found.push(bytes);
            }
            Item::Lost { .. } => goes_on = false,
            Item::Truncated { .. } => found.clear(),
            Item::Deleted => {}
        }
    }
    // The file may have grown since we looked for the offset.
    found.drain(..found.len().saturating_sub(lines));
    Ok(found)
}

#[cfg(test)]
pub(super) fn tail(path: &Path, lines: usize) -> Result<Vec<Vec<u8>>, LogError> {
    tail_within(path, lines, None)
}

/// Where the last `lines` lines begin: to read or follow from there. Looks back at most `MAX_LINE` for each line, so with
/// longer ones it may point into a line; and back to the last gap, which is then what it points to. Blocking.
pub fn tail_offset(path: &Path, lines: usize) -> Result<u64, LogError> {
    Source::open(path).and_then(|mut source| offset_in(&mut source, lines, None)).map_err(|source| LogError::Io { path: path.to_owned(), source })
}

fn offset_in(source: &mut Source, lines: usize, bytes: Option<u64>) -> io::Result<u64> {
    let size = source.size()?;
    if lines == 0 {
        return Ok(size);
    }
    let gap = source.last_gap().filter(|(_, end)| *end <= size);
    let reach = size.saturating_sub(bytes.unwrap_or((lines as u64).saturating_mul(MAX_LINE as u64 + 1)));
    let floor = gap.map_or(reach, |(_, end)| end.max(reach));
    let mut buffer = vec![0; CHUNK as usize];
    let (mut end, mut newlines) = (size, 0);
    while end > floor {
        let start = end.saturating_sub(CHUNK).max(floor);
        let chunk = &mut buffer[..(end - start) as usize];
        let (_, None) = source.read_run(chunk, start)? else {
            // It was cut or dropped while we looked.
            return Ok(end);
        };
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + index as u64 + 1;
            // The newline at the very end closes the last line and begins none.
            if after < size {
                newlines += 1;
            }
            if newlines == lines {
                return Ok(after);
            }
        }
        end = start;
    }
    // Behind a gap a line begins.
    let enough = newlines + 1 >= lines;
    Ok(gap.filter(|(_, end)| *end == floor && !enough).map_or(floor, |(begin, _)| begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(content: &[u8], lines: usize, expect: &[&[u8]]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, content).unwrap();
        assert_eq!(tail(&path, lines).unwrap(), expect, "{lines} lines");
    }

    #[test]
    fn the_last_lines_come_whole() {
        check(b"", 3, &[]);
        check(b"a\nb\nc\n", 2, &[b"b", b"c"]);
        check(b"a\nb\nc", 2, &[b"b", b"c"]);
        check(b"a\nb\n", 9, &[b"a", b"b"]);
        check(b"a\n\n\n", 2, &[b"", b""]);
        check(b"a\nb\n", 0, &[]);
        check(b"\xff\x00\n\xfe", 2, &[b"\xff\x00", b"\xfe"]);
    }

    #[test]
    fn long_lines_are_cut_and_memory_is_bounded() {
        let long = vec![b'x'; MAX_LINE + 5];
        check(&[b"a\n", &long[..], b"\nb\n"].concat(), 2, &[&long[..MAX_LINE], b"b"]);
        let exact = &long[..MAX_LINE];
        check(&[exact, b"\n", exact, b"\n"].concat(), 2, &[exact, exact]);
        // No newline at all: as far back as one line may reach.
        let endless = vec![b'y'; MAX_LINE * 3];
        check(&endless, 1, &[&endless[..MAX_LINE]]);
    }

    #[test]
    fn a_missing_file_is_named() {
        assert!(tail(Path::new("/no/such/log"), 1).unwrap_err().to_string().contains("/no/such/log"));
    }

    proptest! {
        #[test]
        fn it_agrees_with_reading_everything(content in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300), lines in 0..10_usize) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            std::fs::write(&path, &content).unwrap();
            let body = content.strip_suffix(b"\n").unwrap_or(&content);
            let all: Vec<&[u8]> = if content.is_empty() { Vec::new() } else { body.split(|byte| *byte == b'\n').collect() };
            prop_assert_eq!(tail(&path, lines).unwrap(), &all[all.len().saturating_sub(lines)..]);
        }
    }
}
