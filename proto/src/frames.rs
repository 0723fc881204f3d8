//! Follows the frame boundaries of one HTTP/2 direction, to tell a plugin's stray output from the protocol.
//!
//! ```text
//!            9 bytes, possible              all of the payload seen
//! Header ───────────────────────► Payload ──────────────────────────► Header
//!   │ impossible
//!   ▼
//! Polluted (final)
//! ```

const HEADER: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE as long as the receiver has not raised it. Text at a boundary always exceeds it: any first byte but
/// zero makes a length of 65,536 and more.
const MAX_PAYLOAD: u32 = 16_384;
/// Bytes that a report holds at most.
const REPORT: usize = 200;
const SETTINGS: u8 = 4;
const LAST_TYPE: u8 = 9;

/// Bytes where a frame had to begin and none does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} stands where an HTTP/2 frame had to begin", String::from_utf8_lossy(&self.0))]
pub struct Pollution(pub Vec<u8>);

/// Sees each byte that a server sends, from its first.
#[derive(Debug, Default)]
pub struct FrameWatch {
    header: [u8; HEADER],
    have: usize,
    payload: u32,
    begun: bool,
}

impl FrameWatch {
    /// Call with each piece as it arrives. After an error the watch has no more to say.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Pollution> {
        while !piece.is_empty() {
            if self.payload > 0 {
                let skip = piece.len().min(self.payload as usize);
                self.payload -= skip as u32;
                piece = &piece[skip..];
                continue;
            }
            self.header[self.have] = piece[0];
            self.have += 1;
            piece = &piece[1..];
            if !possible(&self.header[..self.have], self.begun) {
                let rest = &piece[..piece.len().min(REPORT - self.have)];
                return Err(Pollution([&self.header[..self.have], rest].concat()));
            }
            if self.have == HEADER {
                self.payload = length(&self.header);
                self.have = 0;
                self.begun = true;
            }
        }
        Ok(())
    }
}

fn length(header: &[u8]) -> u32 {
    u32::from_be_bytes([0, header[0], header[1], header[2]])
}

/// Whether these first bytes of a header can go on to be one. A server's first frame is SETTINGS, without ACK.
fn possible(seen: &[u8], begun: bool) -> bool {
    match seen.len() {
        1 => seen[0] == 0,
        2 => true,
        3 => length(seen) <= MAX_PAYLOAD,
        4 => fits(seen[3], length(seen)) && (begun || seen[3] == SETTINGS),
        5 => begun || seen[4] == 0,
        9 => stream_fits(seen[3], u32::from_be_bytes([seen[5] & 0x7f, seen[6], seen[7], seen[8]])),
        _ => true,
    }
}

/// The payload sizes that RFC 9113 fixes per type.
fn fits(kind: u8, length: u32) -> bool {
    match kind {
        2 => length == 5,
        3 | 8 => length == 4,
        SETTINGS => length.is_multiple_of(6),
        6 => length == 8,
        7 => length >= 8,
        other => other <= LAST_TYPE,
    }
}

/// Connection frames go on stream 0, stream frames on another, WINDOW_UPDATE on either.
fn stream_fits(kind: u8, stream: u32) -> bool {
    match kind {
        SETTINGS | 6 | 7 => stream == 0,
        8 => true,
        _ => stream != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS with one entry, WINDOW_UPDATE, DATA of 5 bytes on stream 1.
    const GOOD: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x10\0\0\0\0\x04\x08\0\0\0\0\0\0\0\0\x01\0\0\x05\0\0\0\0\0\x01hello";

    fn feed_in_pieces(bytes: &[u8], size: usize) -> Result<(), Pollution> {
        let mut watch = FrameWatch::default();
        bytes.chunks(size).try_for_each(|piece| watch.feed(piece))
    }

    #[test]
    fn frames_pass_however_they_are_cut() {
        for size in 1..GOOD.len() {
            assert_eq!(feed_in_pieces(GOOD, size), Ok(()), "{size}");
        }
    }

    #[test]
    fn a_line_before_between_and_after_frames_is_named() {
        let line = b"hello from a library\n".to_vec();
        assert_eq!(feed_in_pieces(&line, 64), Err(Pollution(line.clone())));
        let after = [GOOD, &line].concat();
        assert_eq!(feed_in_pieces(&after, 128), Err(Pollution(line.clone())));
        let between = [&GOOD[..15], &line, &GOOD[15..]].concat();
        let Err(Pollution(text)) = feed_in_pieces(&between, 128) else { panic!("not noticed") };
        assert!(text.starts_with(&line));
    }

    #[test]
    fn a_line_inside_a_frame_shows_at_the_next_boundary() {
        let inside = [&GOOD[..12], b"oops\n", &GOOD[12..]].concat();
        assert!(feed_in_pieces(&inside, 128).is_err());
    }

    #[test]
    fn a_report_is_bounded() {
        let Err(Pollution(text)) = feed_in_pieces(&[b'x'; 10_000], 10_000) else { panic!("not noticed") };
        assert_eq!(text.len(), REPORT);
    }
}
