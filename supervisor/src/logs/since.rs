//! `--since`: where in a log a point in time lies. Best effort, since nodes write what they like.
//!
//! 1. The launch started at or after that time: the whole file. 2. The file was last written before it: nothing of it.
//! 3. The index (see `index.rs`) knows what was surely written before. 4. In the rest, lines that begin with a date and time (RFC 3339 or close to it; in JSON lines it may stand further in): the first of
//!    them that is late enough, found by halving, which takes the lines to be in order of time. A stamp without a zone is
//!    taken for local time. 5. No such stamps: all that the index leaves, which without one is the whole file.

use super::{
    LogError, index,
    source::{Chunk, Source},
};
use crate::model::Timestamp;
use jiff::{civil::DateTime, tz::TimeZone};
use std::{
    io,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

/// A file's time is that of the kernel's last tick, so it may be earlier than what was written: by 10 ms at 100 ticks a second, the fewest
/// there are.
const TICK: Duration = Duration::from_millis(10);
/// How far from one place we look for a line with a stamp, in bytes.
const WINDOW: usize = 64 << 10;
/// A stamp begins within so many bytes of a line (colours and brackets come first), or of a JSON line.
const LEAD: usize = 32;
const JSON_LEAD: usize = 512;

/// Offset of the first line at or after `since`; the file's size when there is none. Blocking.
pub fn since_offset(path: &Path, since: Timestamp, launch_started: Timestamp) -> Result<u64, LogError> {
    if launch_started >= since {
        return Ok(0);
    }
    Source::open(path)
        .and_then(|mut source| offset_in(&mut source, index::offset_at(path, since)?, since))
        .map_err(|source| LogError::Io { path: path.to_owned(), source })
}

/// What stands before `surely` was written earlier.
fn offset_in(source: &mut Source, surely: u64, since: Timestamp) -> io::Result<u64> {
    let size = source.size()?;
    let written = source.modified()?.map(|written| written.duration_since(UNIX_EPOCH).unwrap_or_default());
    let millis = written.map(|written| i64::try_from((written + TICK).as_millis()).unwrap_or(i64::MAX));
    if millis.is_some_and(|millis| Timestamp::from_millis(millis) < since) {
        return Ok(size);
    }
    // Stamps before `low` are too early; what begins at `answer` is late enough, and so is what follows.
    let (mut low, mut high, mut answer) = (line_start(source, surely.min(size))?, size, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match stamped_line(source, middle, high)? {
            Some(line) if line.stamp < since => low = line.end,
            Some(line) => (answer, high) = (Some(line.start), middle),
            None => high = middle,
        }
    }
    // Without a late stamp: what stands behind the last early one, which is everything when there is none either.
    Ok(answer.unwrap_or(low))
}

/// Where the line begins that `offset` lies in: the index knows sizes, and a node may have been within a line. A line of which not even
/// its beginning lies in the window is taken from `offset` on.
fn line_start(source: &mut Source, offset: u64) -> io::Result<u64> {
    let mut from = offset.saturating_sub(WINDOW as u64);
    let mut begins = from == 0;
    loop {
        let mut buffer = vec![0; usize::try_from(offset - from).unwrap_or(WINDOW)];
        match source.read_run(&mut buffer, from)? {
            (_, None) => {
                let newline = buffer.iter().rposition(|byte| *byte == b'\n');
                return Ok(newline.map_or(if begins { from } else { offset }, |at| from + at as u64 + 1));
            }
            // Behind a gap a line begins.
            (_, Some(Chunk::Lost { to, .. })) if to <= offset => (from, begins) = (to, true),
            // It was cut or dropped while we looked.
            _ => return Ok(offset),
        }
    }
}

struct StampedLine {
    start: u64,
    /// Where the next line begins.
    end: u64,
    stamp: Timestamp,
}

/// The first line with a stamp that begins at or after `from` and before `to`, within the window; behind the gap when there is one.
fn stamped_line(source: &mut Source, from: u64, to: u64) -> io::Result<Option<StampedLine>> {
    // One byte back: `from` is a line's beginning exactly when a newline stands before it.
    let back = u64::from(from > 0);
    let mut buffer = vec![0; WINDOW];
    let (length, stopped) = source.read_run(&mut buffer, from - back)?;
    if let Some(Chunk::Lost { to: end, .. }) = stopped
        && length as u64 <= back
    {
        return if end > from { stamped_line(source, end, to) } else { Ok(None) };
    }
    let window = &buffer[..length];
    let mut start = match back {
        0 => 0,
        _ => window.iter().position(|byte| *byte == b'\n').map_or(length, |at| at + 1),
    };
    while start < length && from - back + (start as u64) < to {
        let end = window[start..].iter().position(|byte| *byte == b'\n').map_or(length, |at| start + at + 1);
        if let Some(stamp) = stamp_of(&window[start..end], &TimeZone::system()) {
            let base = from - back;
            return Ok(Some(StampedLine { start: base + start as u64, end: base + end as u64, stamp }));
        }
        start = end;
    }
    Ok(None)
}

/// The date and time that a line begins with.
fn stamp_of(line: &[u8], zone: &TimeZone) -> Option<Timestamp> {
    let lead = if line.first() == Some(&b'{') { JSON_LEAD } else { LEAD };
    (0..lead.min(line.len())).find_map(|at| parse_stamp(&line[at..], zone))
}

/// `2026-01-01T00:00:00`, or with a space, then a fraction and a zone if they are there.
fn parse_stamp(text: &[u8], zone: &TimeZone) -> Option<Timestamp> {
    const SHAPE: &[u8] = b"dddd-dd-dd_dd:dd:dd";
    let fits = |(shape, byte): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'_' => matches!(byte, b'T' | b' '),
        other => byte == other,
    };
    if text.len() < SHAPE.len() || !SHAPE.iter().zip(text).all(fits) {
        return None;
    }
    let (clock, rest) = text.split_at(SHAPE.len());
    let fraction = match rest.first() {
        Some(b'.' | b',') => 1 + rest[1..].iter().take(9).take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let zone_text: &[u8] = match rest.get(fraction) {
        Some(b'Z') => b"Z",
        Some(b'+' | b'-') => rest.get(fraction..fraction + 6).filter(|zone| zone[3] == b':').or_else(|| rest.get(fraction..fraction + 5))?,
        _ => b"",
    };
    let clock = std::str::from_utf8(clock).ok()?.replace(' ', "T");
    let fraction = std::str::from_utf8(&rest[..fraction]).ok()?.replace(',', ".");
    let fraction = if fraction.len() > 1 { fraction } else { String::new() };
    let stamp = match std::str::from_utf8(zone_text).ok()? {
        "" => zone.to_timestamp(format!("{clock}{fraction}").parse::<DateTime>().ok()?).ok()?,
        offset => format!("{clock}{fraction}{offset}").parse::<jiff::Timestamp>().ok()?,
    };
    Some(Timestamp::from_millis(stamp.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_stamp(line: &str, expect: Option<&str>) {
        let expect = expect.map(|text| text.parse::<Timestamp>().unwrap());
        assert_eq!(stamp_of(line.as_bytes(), &TimeZone::UTC), expect, "{line}");
    }

    #[test]
    fn stamps_are_read_in_the_forms_that_nodes_write() {
        check_stamp("2026-01-01T10:00:00Z INF committed", Some("2026-01-01T10:00:00Z"));
        check_stamp("2026-01-01T10:00:00.123456789+02:00 INFO", Some("2026-01-01T08:00:00.123Z"));
        check_stamp("I[2026-01-01|10:00:00.000] x", None);
        check_stamp("\u{1b}[2m2026-01-01T10:00:00.5Z\u{1b}[0m  INFO", Some("2026-01-01T10:00:00.500Z"));
        check_stamp("2026-01-01 10:00:00,250 WARN", Some("2026-01-01T10:00:00.250Z"));
        check_stamp("2026-01-01 10:00:00 +0200 x", Some("2026-01-01T10:00:00Z"));
        check_stamp(r#"{"level":"info","module":"server","time":"2026-01-01T10:00:00Z"}"#, Some("2026-01-01T10:00:00Z"));
        check_stamp("10:04AM INF no date", None);
        check_stamp("2026-99-01T10:00:00Z", None);
        check_stamp("executed block at a height and a time of 2026-01-01T10:00:00Z", None);
    }

    fn at(second: u32) -> String {
        format!("2026-01-01T10:{:02}:{:02}Z", second / 60, second % 60)
    }

    /// Line `n` of the log is of second `n`; every fifth is followed by a line without a stamp.
    fn check(lines: u32, since: u32, expect: u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = |range: std::ops::Range<u32>| -> String {
            range.map(|n| format!("{} block {n}\n{}", at(n), if n % 5 == 0 { "  goroutine 1\n" } else { "" })).collect()
        };
        std::fs::write(&path, text(0..lines)).unwrap();
        let offset = since_offset(&path, at(since).parse().unwrap(), Timestamp::default()).unwrap();
        let rest = std::fs::read_to_string(&path).unwrap().split_off(usize::try_from(offset).unwrap());
        assert_eq!(rest.trim_start_matches("  goroutine 1\n"), text(expect..lines), "{lines} lines since {since}");
    }

    #[test]
    fn the_first_late_line_is_found() {
        for since in 0..12 {
            check(12, since, since);
        }
        check(3_000, 1_777, 1_777);
        check(3_000, 2_999, 2_999);
        check(3_000, 3_500, 3_000);
    }

    #[test]
    fn without_stamps_the_index_tells_what_was_written_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\nold\nnew\nnew\n").unwrap();
        let minute = |minute: i64| Timestamp::from_millis(minute * 60_000);
        let mut index = index::Index::open(&path).unwrap();
        for (at, size) in [(1, 0), (2, 8), (9, 16)] {
            index.note(&path, minute(at), size).unwrap();
        }
        for (since, expect) in [(0, 0), (2, 0), (3, 8), (5, 8), (10, 16)] {
            assert_eq!(since_offset(&path, minute(since), minute(-1)).unwrap(), expect, "{since}");
        }
    }

    #[test]
    fn what_was_written_within_the_tick_before_a_time_may_be_later_than_its_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\nnew\n").unwrap();
        index::Index::open(&path).unwrap().note(&path, Timestamp::from_millis(1_000), 4).unwrap();
        let check = |modified: u64, expect: u64| {
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_millis(modified)).unwrap();
            assert_eq!(since_offset(&path, Timestamp::from_millis(5_000), Timestamp::default()).unwrap(), expect, "{modified}");
        };
        check(5_000, 4);
        check(4_996, 4);
        check(4_900, 8);
    }

    #[test]
    fn a_line_of_which_a_part_was_written_before_comes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(WINDOW + 10);
        std::fs::write(&path, format!("old\nhalf old, half new\n{long}\n")).unwrap();
        for (noted, expect) in [(2, 0), (4, 4), (9, 4), (22, 4), (23, 23), (30, 23), (23 + WINDOW as u64 + 5, 23 + WINDOW as u64 + 5)] {
            let _ = std::fs::remove_dir_all(super::super::parts::folder(&path));
            index::Index::open(&path).unwrap().note(&path, Timestamp::from_millis(1_000), noted).unwrap();
            assert_eq!(since_offset(&path, Timestamp::from_millis(2_000), Timestamp::default()).unwrap(), expect, "{noted}");
        }
    }

    /// Bytes that this thread has read with read calls. None where the kernel does not count them.
    fn has_read() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
        text.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
    }

    /// A hundred lines a second, 128 MiB in all.
    fn check_cost(line: impl Fn(u64) -> String, since: u64, expect: u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let begun: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let second = |second: u64| begun.plus(std::time::Duration::from_secs(second));
        let mut index = index::Index::open(&path).unwrap();
        let mut text = String::new();
        for number in 0..(128 << 20) / 128 {
            text += &line(number);
            if number % 1_000 == 0 {
                index.note(&path, second(number / 100), number * 128).unwrap();
            }
        }
        std::fs::write(&path, text).unwrap();
        let before = has_read();
        assert_eq!(since_offset(&path, second(since), begun).unwrap(), expect * 128);
        let (Some(before), Some(after)) = (before, has_read()) else { return println!("SKIP of the count: this kernel counts no reads") };
        assert!(after - before < 4 << 20, "{} bytes were read", after - before);
    }

    #[test]
    fn little_is_read_of_a_large_log() {
        let at = |number: u64| format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 360_000, number / 6_000 % 60, number / 100 % 60);
        check_cost(|number| format!("{} {:106}\n", at(number), "executed block"), 7_777, 777_700);
        check_cost(|number| format!("{number:020} {:106}\n", "executed block"), 7_777, 777_000);
    }

    #[test]
    fn without_stamps_the_launch_counts_as_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a\nb\n").unwrap();
        let year = |year: i32| format!("{year}-01-01T00:00:00Z").parse::<Timestamp>().unwrap();
        let check = |since: i32, started: i32, expect: u64| assert_eq!(since_offset(&path, year(since), year(started)).unwrap(), expect);
        check(2020, 2021, 0);
        check(2020, 2019, 0);
        // The file was written before 2100.
        check(2100, 2019, 4);
    }
}
