//! A dvbctl that goes on printing, and what it has printed so far.

use crate::TestHome;
use std::{
    io::Read,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long something may take that is to come.
const SOON: Duration = Duration::from_secs(120);
/// The end of a child can be waited for without a limit, or looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Dropped, it is killed.
pub struct Follower {
    child: Child,
    pub out: Arc<Stream>,
    pub err: Arc<Stream>,
    readers: Vec<JoinHandle<()>>,
}

/// All that came of a stream since it began.
#[derive(Default)]
pub struct Stream {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Follower {
    /// `dvbctl logs -f ARGS`.
    pub fn of_logs(home: &TestHome, args: &[&str]) -> Self {
        Self::of(home, &[&["logs", "-f"], args].concat())
    }

    /// `dvbctl ARGS`, which does not end by itself.
    pub fn of(home: &TestHome, args: &[&str]) -> Self {
        let mut command = home.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dvbctl starts");
        let (out, err) = (Arc::new(Stream::default()), Arc::new(Stream::default()));
        let readers = vec![out.fill(child.stdout.take().expect("a pipe")), err.fill(child.stderr.take().expect("a pipe"))];
        Self { child, out, err, readers }
    }

    /// Whether it ends, by itself and in time, with exit code 0. One that does not is killed when it is dropped.
    pub fn ends_well(&mut self) -> bool {
        self.exit_code() == Some(0)
    }

    /// None: it does not end by itself in time.
    pub fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if begun.elapsed() < SOON => std::thread::sleep(LOOK_AGAIN),
                Ok(status) => return status.and_then(|status| status.code()),
                Err(_) => return None,
            }
        }
    }

    /// The phases that `dvbctl … watch -o json` of one object has told: one for each turn to another.
    pub fn phases(&self) -> Vec<String> {
        phases(&self.out.bytes())
    }

    /// Waits until it tells of a phase.
    #[track_caller]
    pub fn until_phase(&self, phase: &str) {
        self.out.until(phase, |bytes| phases(bytes).iter().any(|told| told == phase));
    }
}

fn phases(lines: &[u8]) -> Vec<String> {
    let whole = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let objects = whole.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let mut phases: Vec<String> = objects.filter_map(|object| object["status"]["phase"].as_str().map(str::to_owned)).collect();
    phases.dedup();
    phases
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}

impl Stream {
    fn fill(self: &Arc<Self>, mut from: impl Read + Send + 'static) -> JoinHandle<()> {
        let stream = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                stream.bytes.lock().expect("no reader panics").extend_from_slice(&buffer[..read]);
                stream.more.notify_all();
            }
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no reader panics").clone()
    }

    /// Waits for what must come; returns all that has.
    #[track_caller]
    pub fn until(&self, what: &str, done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let begun = Instant::now();
        let mut bytes = self.bytes.lock().expect("no reader panics");
        while !done(&bytes) {
            let Some(left) = SOON.checked_sub(begun.elapsed()) else {
                let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(300)..]).into_owned();
                panic!("not within {SOON:?}: {what}; the last that came: {end}");
            };
            bytes = self.more.wait_timeout(bytes, left).expect("no reader panics").0;
        }
        bytes.clone()
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        self.until(text, |bytes| String::from_utf8_lossy(bytes).contains(text));
    }
}
