//! What the end of a log tells of how its writer ended: the last lines, and a panic that began above them.

use super::{LogError, tail::tail_within};
use std::path::Path;

/// How far back the beginning of a stack is looked for.
const STACK_LINES: usize = 2_000;
const STACK_BYTES: u64 = 1 << 20;
/// Of a panic that began above the last lines: its text and the stack of what panicked.
const PANIC_LINES: usize = 100;

/// The end of one log.
#[derive(Clone, Debug, Default)]
pub struct LastWords {
    /// The last lines, oldest first.
    tail: Vec<Vec<u8>>,
    /// A panic from its first line on, when that stands above the last lines.
    panic: Vec<Vec<u8>>,
}

impl LastWords {
    /// The last `lines` lines; more is read only when they lie within the stack of a panic. What cannot be read says nothing. Blocking.
    pub fn read(path: &Path, lines: usize) -> Self {
        Self::try_read(path, lines).unwrap_or_default()
    }

    fn try_read(path: &Path, lines: usize) -> Result<Self, LogError> {
        let tail = tail_within(path, lines, None)?;
        let mut panic = Vec::new();
        if !tail.iter().any(|line| begins_panic(&plain(line))) && tail.iter().any(|line| is_of_stack(&plain(line))) {
            let mut long = tail_within(path, STACK_LINES, Some(STACK_BYTES))?;
            long.truncate(long.len().saturating_sub(tail.len()));
            if let Some(begin) = long.iter().rposition(|line| begins_panic(&plain(line))) {
                panic = long.into_iter().skip(begin).take(PANIC_LINES).collect();
            }
        }
        Ok(Self { tail, panic })
    }

    /// The last lines as text.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().map(|line| plain(line)).collect()
    }

    /// All that may tell why: the panic, then the last lines.
    pub fn telling_lines(&self) -> Vec<Vec<u8>> {
        [self.panic.as_slice(), &self.tail].concat()
    }

    /// The line with which a Go or Rust program names its panic; with Rust the words stand on the line below.
    pub fn panic(&self) -> Option<String> {
        let lines: Vec<String> = self.panic.iter().chain(&self.tail).map(|line| plain(line)).collect();
        let at = lines.iter().rposition(|line| begins_panic(line))?;
        let words = lines.get(at + 1).filter(|words| lines[at].ends_with(':') && !words.is_empty());
        Some(words.map_or_else(|| lines[at].clone(), |words| format!("{} {words}", lines[at])))
    }

    /// Of a program that only ran to its end: its panic, else the last line that it calls its error, else the last line.
    pub fn error(&self) -> Option<String> {
        let mut said = self.tail().into_iter().filter(|line| !line.trim().is_empty());
        let is_error = |line: &String| line.starts_with("Error:") || line.starts_with("error:");
        self.panic().or_else(|| self.tail().into_iter().rfind(is_error)).or_else(|| said.next_back())
    }
}

/// A line as a terminal would show it, without what steers the terminal; bytes that are no UTF-8 are replaced.
pub fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = anstream::adapter::strip_str(&text).to_string();
    text.replace(|character: char| character.is_control() && character != '\t', "").trim_end().to_owned()
}

fn begins_panic(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ") || (line.starts_with("thread '") && line.contains("panicked at"))
}

/// Of a Go or Rust stack, or of the registers that Go prints behind it.
fn is_of_stack(line: &str) -> bool {
    let word = line.trim_start();
    (line.starts_with("goroutine ") && line.ends_with(':'))
        || (line.starts_with('\t') && line.contains(".go:"))
        || (word.starts_with("at ") && line.contains(".rs:"))
        || (line.starts_with("gs ") && line.contains("0x"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, lines: usize) -> LastWords {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, content).unwrap();
        LastWords::read(&path, lines)
    }

    /// As Go writes it, with this many frames.
    fn go_panic(frames: usize) -> String {
        let stack: String = (0..frames).map(|index| format!("main.f{index}(0x1)\n\t/src/main.go:{index} +0x1d\n")).collect();
        format!("height 7\npanic: cannot open the store\n\ngoroutine 1 [running]:\n{stack}exit status 2\n")
    }

    #[test]
    fn a_panic_is_told_by_its_own_line_however_long_its_stack_is() {
        for frames in [1, 40, 900] {
            let words = read(&go_panic(frames), 20);
            assert_eq!(words.panic().as_deref(), Some("panic: cannot open the store"), "{frames} frames");
            let lines = words.telling_lines();
            assert!(lines.iter().any(|line| line == b"panic: cannot open the store") && lines.len() <= PANIC_LINES + 20);
            assert_eq!((words.tail().len().min(20), words.tail().last().map(String::as_str)), (words.tail().len(), Some("exit status 2")));
        }
        let rust = read("thread 'main' panicked at src/main.rs:4:5:\nno such key\nnote: run with `RUST_BACKTRACE=1`\n", 20);
        assert_eq!(rust.panic().as_deref(), Some("thread 'main' panicked at src/main.rs:4:5: no such key"));
        let registers: String = ["rax", "rbx", "gs"].iter().map(|name| format!("{name}    0x0\n")).collect();
        let fault = read(&format!("fatal error: unexpected signal\n{}{registers}", "main.f()\n".repeat(50)), 3);
        assert_eq!(fault.panic().as_deref(), Some("fatal error: unexpected signal"));
    }

    #[test]
    fn what_is_no_panic_is_told_by_its_last_words_and_an_error_before_the_usage_counts() {
        let plainly = read("panic: long ago\n1\n2\n3\nbye\n\n", 3);
        assert_eq!((plainly.panic(), plainly.error()), (None, Some("bye".into())));
        let usage = read("Error: unknown flag: --version\nUsage:\n  wasmd [command]\n", 20);
        assert_eq!((usage.panic(), usage.error()), (None, Some("Error: unknown flag: --version".into())));
        assert!(LastWords::read(Path::new("/no/such/log"), 3).error().is_none());
    }

    #[test]
    fn what_steers_a_terminal_is_no_part_of_a_message() {
        let check = |line: &[u8], expect: &str| assert_eq!(plain(line), expect);
        check(b"\x1b[1m\x1b[31merror:\x1b[0m no such \x1b]0;title\x07flag\r\n", "error: no such flag");
        check(b"a\tb\x08\x07c", "a\tbc");
        check(b"\xff\x1b[31", "\u{fffd}");
    }
}
