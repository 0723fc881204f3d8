//! A genesis larger than memory should be: edited while it flows by, in a process of its own, so that its memory can be read.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy.toml allows both in tests, but sees only functions marked so")]

use dvb_plugin_cosmos::stream::{Edit, edit};
use serde_json::json;
use std::{
    io::{self, BufReader, Read, Write},
    time::Instant,
};

const MEGABYTE: u64 = 1 << 20;
/// What the process may hold at most, whatever the size of the document. The goal is 64 MiB for 500 MB; it takes far less.
const MOST_RESIDENT: u64 = 16 * MEGABYTE;

/// A genesis with accounts, balances and one contract's code, made while it is read.
struct Genesis {
    size: u64,
    made: u64,
    chunk: io::Cursor<Vec<u8>>,
    ended: bool,
}

const HEAD: &str = r#"{"chain_id": "old-1", "app_state": {"wasm": {"codes": [{"code_bytes": ""#;
const TAIL: &str = r#"]}}, "app_hash": ""}"#;

impl Genesis {
    fn new(size: u64) -> Self {
        Self { size, made: 0, chunk: io::Cursor::new(HEAD.into()), ended: false }
    }
    /// The code is one endless string, then come balances.
    fn next(&self) -> String {
        let third = self.size / 3;
        match self.made {
            made if made < third => "QUJDREVG".repeat(8192),
            made if made < third + 70_000 => r#""}]}, "bank": {"balances": [{"address": "wasm1first", "coins": []}"#.to_owned() + &" ".repeat(70_000),
            made => format!(r#", {{"address": "wasm1{made:038}", "coins": [{{"denom": "stake", "amount": "{made}"}}]}}"#).repeat(500),
        }
    }
}

impl Read for Genesis {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.position() == self.chunk.get_ref().len() as u64 && !self.ended {
            self.ended = self.made >= self.size;
            let next = if self.ended { TAIL.to_owned() } else { self.next() };
            self.made += next.len() as u64;
            self.chunk = io::Cursor::new(next.into());
        }
        self.chunk.read(buffer)
    }
}

/// Counts, and keeps the beginning and the end.
#[derive(Default)]
struct Written {
    size: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        self.head.extend(bytes.iter().take(128_usize.saturating_sub(self.head.len())));
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(256);
        self.tail.drain(..excess);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_genesis_of_half_a_gigabyte_is_edited_in_bounded_memory() {
    let size = 500 * MEGABYTE;
    let balance = json!({"address": "wasm1new", "coins": []});
    let bank = Edit::Members(vec![("balances".into(), Edit::Append(vec![balance])), ("supply".into(), Edit::Set(json!([])))]);
    let mut edits = Edit::Members(vec![
        ("chain_id".into(), Edit::Set(json!("new-1"))),
        ("app_state".into(), Edit::Members(vec![("bank".into(), bank)])),
        ("app_hash".into(), Edit::Remove),
    ]);
    let (mut written, begun) = (Written::default(), Instant::now());
    edit(BufReader::with_capacity(1 << 16, Genesis::new(size)), &mut written, &mut edits).unwrap();
    let (took, resident) = (begun.elapsed(), peak());
    println!("MEASURED: a genesis of {} MB edited in {took:.1?} with {} MiB resident at most", written.size / 1_000_000, resident / MEGABYTE);
    assert!(written.size > size / 10 * 9, "only blanks are left out: {}", written.size);
    assert!(written.head.starts_with(br#"{"chain_id":"new-1","app_state":{"wasm":{"codes":[{"code_bytes":""#));
    assert!(written.tail.ends_with(br#",{"address":"wasm1new","coins":[]}],"supply":[]}}}"#), "{}", String::from_utf8_lossy(&written.tail));
    assert!(resident < MOST_RESIDENT, "{resident}");
}

/// The most that this process has had resident so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
