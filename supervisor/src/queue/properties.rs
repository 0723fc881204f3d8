//! What the queue promises, tried on random histories in virtual time.

use super::{Full, Outcome, Queue, QueueConfig, QueueKey};
use proptest::{collection::vec, prelude::*};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Kind and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work(usize, u8);

impl QueueKey for Work {
    fn kind(&self) -> usize {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(Work),
    AddIn(Work, u64),
    Pop,
    /// Ends the n-th of those in work.
    Done(usize, Outcome),
    Pass(u64),
}

const CONFIG: QueueConfig =
    QueueConfig { capacity: 6, backoff_base: Duration::from_millis(10), backoff_max: Duration::from_millis(70), jitter: 0.5, seed: 7 };

fn work() -> impl Strategy<Value = Work> {
    (0..3_usize, 0..4_u8).prop_map(|(kind, number)| Work(kind, number))
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        Just(Outcome::AwaitChange),
        (0..50_u64).prop_map(|delay| Outcome::RequeueAfter(Duration::from_millis(delay))),
        Just(Outcome::Failed)
    ];
    prop_oneof![
        3 => work().prop_map(Step::Add),
        2 => (work(), 0..50_u64).prop_map(|(key, delay)| Step::AddIn(key, delay)),
        4 => Just(Step::Pop),
        3 => (0..4_usize, outcome).prop_map(|(which, outcome)| Step::Done(which, outcome)),
        2 => (0..30_u64).prop_map(Step::Pass),
    ]
}

/// A watcher beside the queue: it knows from the outside what is owed to each key.
struct Watched {
    queue: Queue<Work>,
    now: Instant,
    in_work: Vec<Work>,
    /// The latest moment from which each key must be on offer. Absent: nothing is owed.
    owed: HashMap<Work, Instant>,
    /// The earliest moment at which it may come.
    not_before: HashMap<Work, Instant>,
    failures: HashMap<Work, u32>,
}

impl Watched {
    fn new() -> Self {
        let maps = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { queue: Queue::new(CONFIG), now: Instant::now(), in_work: vec![], owed: maps.0, not_before: maps.1, failures: maps.2 }
    }

    fn known(&self) -> usize {
        self.in_work.iter().chain(self.owed.keys()).collect::<HashSet<_>>().len()
    }

    fn owe(&mut self, key: Work, latest: Instant, earliest: Instant) {
        let owed = self.owed.entry(key).or_insert(latest);
        *owed = latest.min(*owed);
        let not_before = self.not_before.entry(key).or_insert(earliest);
        *not_before = earliest.min(*not_before);
    }

    fn take(&mut self, step: Step) {
        let (now, known) = (self.now, self.known());
        match step {
            Step::Add(key) => {
                let result = self.queue.add(key, now);
                self.added(key, now, known, result);
            }
            Step::AddIn(key, delay) => {
                let at = now + Duration::from_millis(delay);
                let result = self.queue.add_at(key, at);
                self.added(key, at, known, result);
            }
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Pop => self.pop(),
            Step::Done(which, outcome) => self.done(which, outcome),
        }
        assert_eq!(self.queue.len(), self.known(), "each key is known once");
        assert!(self.queue.len() <= CONFIG.capacity);
        for key in self.in_work.iter().chain(self.owed.keys()) {
            assert_eq!(self.queue.attempt(key), self.failures.get(key).copied().unwrap_or(0));
        }
        let queued = self.owed.iter().filter(|(key, _)| !self.in_work.contains(key));
        let (latest, deadline) = (queued.map(|(_, at)| *at).min(), self.queue.next_deadline());
        assert_eq!(latest.is_some(), deadline.is_some());
        assert!(deadline <= latest || latest.is_none(), "the next deadline is no later than the first thing owed");
    }

    fn added(&mut self, key: Work, at: Instant, known: usize, result: Result<(), Full>) {
        let is_new = !self.in_work.contains(&key) && !self.owed.contains_key(&key);
        assert_eq!(result.is_err(), is_new && known == CONFIG.capacity, "exactly a new key beyond the capacity is refused");
        if result.is_ok() {
            self.owe(key, at, at);
        }
    }

    fn pop(&mut self) {
        let due = |key: &Work, at: &Instant| *at <= self.now && !self.in_work.contains(key);
        let Some(key) = self.queue.pop(self.now) else {
            assert!(!self.owed.iter().any(|(key, at)| due(key, at)), "nothing that is due is held back");
            return;
        };
        assert!(!self.in_work.contains(&key), "{key:?} is handed out while it is processed");
        self.owed.remove(&key).expect("only what is owed is handed out");
        let earliest = self.not_before.remove(&key).expect("noted together with what is owed");
        assert!(earliest <= self.now, "{key:?} is handed out too early");
        self.in_work.push(key);
    }

    fn done(&mut self, which: usize, outcome: Outcome) {
        if self.in_work.is_empty() {
            return;
        }
        let key = self.in_work.remove(which % self.in_work.len());
        self.queue.done(&key, outcome, self.now);
        match outcome {
            Outcome::AwaitChange => drop(self.failures.remove(&key)),
            Outcome::RequeueAfter(delay) => {
                self.failures.remove(&key);
                self.owe(key, self.now + delay, self.now + delay);
            }
            Outcome::Failed => {
                let failures = self.failures.entry(key).or_default();
                *failures += 1;
                let full = Duration::from_millis((10 << (*failures - 1).min(10)).min(70));
                self.owe(key, self.now + full, self.now + full / 2);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_any_history_keys_come_once_in_time_never_twice_at_once_and_never_get_lost(steps in vec(step(), 1..120)) {
        let mut watched = Watched::new();
        for step in steps {
            watched.take(step);
        }
        // Work everything off: each key that is owed comes.
        watched.now += Duration::from_secs(1);
        while !watched.in_work.is_empty() {
            watched.take(Step::Done(0, Outcome::AwaitChange));
        }
        while watched.queue.next_deadline().is_some() {
            watched.take(Step::Pop);
            watched.take(Step::Done(0, Outcome::AwaitChange));
        }
        prop_assert!(watched.owed.is_empty(), "lost: {:?}", watched.owed);
        prop_assert!(watched.queue.is_empty());
    }

    #[test]
    fn within_a_kind_keys_come_in_the_order_of_deadline_and_adding(delays in vec((0..2_usize, 0..6_u64), 1..40)) {
        let now = Instant::now();
        let mut queue = Queue::new(QueueConfig { capacity: 100, ..CONFIG });
        let mut expected: BTreeMap<usize, Vec<(u64, u8)>> = BTreeMap::new();
        for (number, (kind, delay)) in (0..).zip(delays) {
            queue.add_at(Work(kind, number), now + Duration::from_millis(delay)).unwrap();
            expected.entry(kind).or_default().push((delay, number));
        }
        let mut got: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        while let Some(Work(kind, number)) = queue.pop(now + Duration::from_secs(1)) {
            got.entry(kind).or_default().push(number);
        }
        for (kind, mut line) in expected {
            line.sort();
            prop_assert_eq!(&got[&kind], &line.into_iter().map(|(_, number)| number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn kinds_with_something_due_take_turns(counts in vec(0..12_u8, 1..5)) {
        let now = Instant::now();
        let mut queue = Queue::new(QueueConfig { capacity: 100, ..CONFIG });
        for (kind, count) in counts.iter().enumerate() {
            for number in 0..*count {
                queue.add(Work(kind, number), now).unwrap();
            }
        }
        let mut left: Vec<u8> = counts;
        let mut waited = vec![0; left.len()];
        let hungry = left.iter().filter(|left| **left > 0).count();
        while let Some(Work(kind, _)) = queue.pop(now) {
            left[kind] -= 1;
            waited[kind] = 0;
            for other in (0..left.len()).filter(|other| *other != kind && left[*other] > 0) {
                waited[other] += 1;
                prop_assert!(waited[other] < hungry, "kind {other} waits while others go twice");
            }
        }
        prop_assert!(left.iter().all(|left| *left == 0));
    }

    #[test]
    fn the_back_off_doubles_to_its_bound_and_chance_only_shortens_it(failures in 1..40_u32, jitter in 0.0..=1.0_f64, seed: u64) {
        let config = QueueConfig { jitter, seed, ..QueueConfig::default() };
        let mut now = Instant::now();
        let mut queue = Queue::new(config);
        queue.add(Work(0, 0), now).unwrap();
        for failure in 1..=failures {
            prop_assert_eq!(queue.pop(now), Some(Work(0, 0)));
            queue.done(&Work(0, 0), Outcome::Failed, now);
            prop_assert_eq!(queue.attempt(&Work(0, 0)), failure);
            let delay = queue.next_deadline().unwrap() - now;
            let full = config.backoff_base.as_secs_f64() * 2_f64.powi(i32::try_from(failure).unwrap() - 1);
            let full = full.min(config.backoff_max.as_secs_f64());
            prop_assert!(delay.as_secs_f64() <= full + 1e-6, "{delay:?} of {full}");
            prop_assert!(delay.as_secs_f64() >= full * (1.0 - jitter) - 1e-6, "{delay:?} of {full}");
            now += delay;
        }
    }
}

fn queue() -> (Queue<Work>, Instant) {
    (Queue::new(QueueConfig { jitter: 0.0, ..CONFIG }), Instant::now())
}

const KEY: Work = Work(0, 0);

#[test]
fn a_key_added_while_it_is_processed_runs_again_afterwards() {
    let (mut queue, now) = queue();
    queue.add(KEY, now).unwrap();
    assert_eq!(queue.pop(now), Some(KEY));
    queue.add(KEY, now).unwrap();
    assert_eq!(queue.pop(now), None, "not while it is processed");
    queue.done(&KEY, Outcome::AwaitChange, now);
    assert_eq!(queue.pop(now), Some(KEY));
    queue.done(&KEY, Outcome::AwaitChange, now);
    assert_eq!(queue.pop(now), None, "once is enough");
    assert!(queue.is_empty());
}

#[test]
fn a_change_cuts_a_back_off_short_and_leaves_the_count_of_failures() {
    let (mut queue, now) = queue();
    queue.add(KEY, now).unwrap();
    queue.pop(now);
    queue.done(&KEY, Outcome::Failed, now);
    assert_eq!(queue.pop(now), None);
    queue.add(KEY, now).unwrap();
    assert_eq!(queue.pop(now), Some(KEY));
    assert_eq!(queue.attempt(&KEY), 1);
    queue.done(&KEY, Outcome::RequeueAfter(Duration::ZERO), now);
    assert_eq!(queue.attempt(&KEY), 0, "a run that did not fail ends the count");
}

#[test]
fn the_earliest_deadline_wins_whichever_came_first() {
    let (mut queue, now) = queue();
    let at = |millis| now + Duration::from_millis(millis);
    queue.add_at(KEY, at(20)).unwrap();
    queue.add_at(KEY, at(10)).unwrap();
    queue.add_at(KEY, at(30)).unwrap();
    assert_eq!(queue.next_deadline(), Some(at(10)));
    assert_eq!((queue.pop(at(9)), queue.pop(at(10))), (None, Some(KEY)));
    queue.done(&KEY, Outcome::AwaitChange, at(10));
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn a_full_queue_refuses_only_what_it_does_not_know() {
    let (mut queue, now) = queue();
    for number in 0..6 {
        queue.add(Work(0, number), now).unwrap();
    }
    assert_eq!(queue.add(Work(1, 0), now), Err(Full { capacity: 6 }));
    assert_eq!(queue.add(Work(0, 3), now), Ok(()));
    let taken = queue.pop(now).unwrap();
    assert_eq!(queue.add(taken, now), Ok(()), "one in work is known too");
    assert_eq!(queue.add(Work(1, 0), now), Err(Full { capacity: 6 }), "its place is not given away");
    queue.done(&taken, Outcome::AwaitChange, now);
    assert_eq!(queue.len(), 6, "it waits for its second run");
}

#[test]
fn a_delay_beyond_the_clock_is_merely_far_away() {
    let (mut queue, now) = queue();
    queue.add(KEY, now).unwrap();
    queue.pop(now);
    queue.done(&KEY, Outcome::RequeueAfter(Duration::MAX), now);
    assert!(queue.next_deadline().unwrap() > now + Duration::from_secs(3600 * 24 * 365));
}

#[test]
fn ending_what_is_not_in_work_changes_nothing() {
    let (mut queue, now) = queue();
    queue.done(&KEY, Outcome::Failed, now);
    assert!(queue.is_empty());
    queue.add(KEY, now).unwrap();
    queue.done(&KEY, Outcome::AwaitChange, now);
    assert_eq!(queue.pop(now), Some(KEY));
}
