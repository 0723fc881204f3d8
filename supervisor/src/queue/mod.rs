//! The work queue of the controllers, as a value: no lock, no clock, no I/O. The manager owns one, and gives it the time.
//!
//! ```text
//!            add, add_at              pop, when due               done: AwaitChange
//!  unknown ──────────────► queued ───────────────► processing ──────────────────────► unknown
//!                          ▲ │ add: the earliest     │ │ ▲ add: remembered
//!                          └─┘ deadline wins         │ └─┘
//!                          ▲                         │
//!                          └─────────────────────────┘ done: RequeueAfter, Failed, or something was added meanwhile
//! ```
//! Guarantees:
//! - A key is queued at most once, and never handed out while it is being processed.
//! - No wake-up is lost: after an `add` that was accepted, the key is handed out at least once more. That holds during processing
//!   too; its run then comes at the earliest of all that was asked for, so a change cuts a back-off short.
//! - Within a kind keys come out in the order of their deadlines, and of their adding where these are equal. Kinds with something
//!   due take turns, so none starves another.
//! - At most `capacity` keys are known. Only a new key is refused; one that is queued or processed never is.

#[cfg(test)]
mod properties;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};
use tokio::time::Instant;

/// What a delay that overflows the clock becomes: about thirty years.
/// For so many keys there is room when nothing is queued.
const IDLE_ROOM: usize = 64;
const FAR: Duration = Duration::from_secs(1_000_000_000);

pub trait QueueKey: Clone + Eq + Hash {
    /// Kinds take turns. A small number: one list is kept per kind.
    fn kind(&self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueConfig {
    /// Keys that are queued or processed, together.
    pub capacity: usize,
    /// Delay after the first failure; it doubles with each further one.
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Part of the delay that chance takes away: 0.0 none, 1.0 up to all of it.
    pub jitter: f64,
    /// Of the random numbers for the jitter.
    pub seed: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { capacity: 4096, backoff_base: Duration::from_millis(200), backoff_max: Duration::from_secs(60), jitter: 0.2, seed: 0 }
    }
}

/// The queue knows as many keys as it may: try again when it has worked some off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work queue is full ({capacity} keys)")]
pub struct Full {
    pub capacity: usize,
}

/// How the processing of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until somebody adds it.
    AwaitChange,
    RequeueAfter(Duration),
    /// Again after a back-off that grows with each failure in a row.
    Failed,
}

#[derive(Debug)]
pub struct Queue<K> {
    config: QueueConfig,
    random: StdRng,
    entries: HashMap<K, Entry>,
    /// Per kind, what is queued in the order in which it is handed out.
    lines: BTreeMap<usize, BTreeMap<Place, K>>,
    /// Numbers the additions.
    added: u64,
    /// The kind that was served last.
    last_kind: usize,
}

/// Deadline, then the number of the addition.
type Place = (Instant, u64);

#[derive(Debug)]
struct Entry {
    /// Failures in a row.
    failures: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Queued(Place),
    /// `again`: the deadline of what was added meanwhile.
    Processing {
        again: Option<Instant>,
    },
}

impl<K: QueueKey> Queue<K> {
    pub fn new(config: QueueConfig) -> Self {
        let random = StdRng::seed_from_u64(config.seed);
        Self { config, random, entries: HashMap::new(), lines: BTreeMap::new(), added: 0, last_kind: usize::MAX }
    }

    /// Due at once.
    pub fn add(&mut self, key: K, now: Instant) -> Result<(), Full> {
        self.add_at(key, now)
    }

    /// Due at `at`, or earlier if it is queued for earlier.
    pub fn add_at(&mut self, key: K, at: Instant) -> Result<(), Full> {
        let known = self.entries.len();
        match self.entries.get_mut(&key) {
            None if known >= self.config.capacity => return Err(Full { capacity: self.config.capacity }),
            None => self.enqueue(key, 0, at),
            Some(Entry { state: State::Processing { again }, .. }) => *again = Some(again.map_or(at, |earlier| earlier.min(at))),
            Some(Entry { state: State::Queued(place), failures }) if at < place.0 => {
                let (place, failures) = (*place, *failures);
                self.unlink(key.kind(), place);
                self.enqueue(key, failures, at);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The next key that is due; it is processed until `done` is called.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let due = |line: &BTreeMap<Place, K>| line.first_key_value().filter(|((at, _), _)| *at <= now).map(|(place, key)| (*place, key.clone()));
        let after = self.lines.range(self.last_kind.saturating_add(1)..);
        let (kind, (place, key)) = after.chain(self.lines.range(..=self.last_kind)).find_map(|(kind, line)| Some((*kind, due(line)?)))?;
        self.unlink(kind, place);
        self.last_kind = kind;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Processing { again: None };
        }
        Some(key)
    }

    /// When the next queued key is due; in the past when it is due already. None: nothing is queued.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.first_key_value()).map(|((at, _), _)| *at).min()
    }

    /// Ends the processing of a key that `pop` gave. A key that is not being processed is left alone.
    pub fn done(&mut self, key: &K, outcome: Outcome, now: Instant) {
        let Some(Entry { failures, state: State::Processing { again } }) = self.entries.get(key) else { return };
        let (mut failures, again) = (*failures, *again);
        let wish = match outcome {
            Outcome::AwaitChange => None,
            Outcome::RequeueAfter(delay) => Some(delay),
            Outcome::Failed => {
                failures = failures.saturating_add(1);
                Some(self.jittered(backoff(&self.config, failures)))
            }
        };
        if outcome != Outcome::Failed {
            failures = 0;
        }
        let wish = wish.map(|delay| now.checked_add(delay).unwrap_or(now + FAR));
        match wish.into_iter().chain(again).min() {
            Some(at) => self.enqueue(key.clone(), failures, at),
            None => drop(self.entries.remove(key)),
        }
        if self.entries.is_empty() {
            self.entries.shrink_to(IDLE_ROOM);
        }
    }

    /// Failures in a row of a key; 0 for one that is not known.
    pub fn attempt(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    /// Keys that are queued or processed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn enqueue(&mut self, key: K, failures: u32, at: Instant) {
        self.added += 1;
        let place = (at, self.added);
        self.lines.entry(key.kind()).or_default().insert(place, key.clone());
        self.entries.insert(key, Entry { failures, state: State::Queued(place) });
    }

    fn unlink(&mut self, kind: usize, place: Place) {
        if let Some(line) = self.lines.get_mut(&kind) {
            line.remove(&place);
            if line.is_empty() {
                self.lines.remove(&kind);
            }
        }
    }

    fn jittered(&mut self, delay: Duration) -> Duration {
        let taken = self.config.jitter.clamp(0.0, 1.0) * self.random.random::<f64>();
        delay.mul_f64(1.0 - taken)
    }
}

/// The delay after this many failures in a row, before chance takes its part.
fn backoff(config: &QueueConfig, failures: u32) -> Duration {
    let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|factor| config.backoff_base.checked_mul(factor));
    doubled.map_or(config.backoff_max, |delay| delay.min(config.backoff_max))
}
