//! Many cases of one test, side by side and within a time limit: what hangs is named and ended, not waited for.

use crate::home::end_homes_of;
use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

/// How long cases that hang may take to fail when all that they wait for is killed.
const ENDING: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// Runs `case` for all of `cases`, `at_once` at a time, and returns what each that broke said. When `limit` is over no further one begins,
/// the processes of the homes of those under way are killed, and each of these is told as one that hung.
pub fn run_cases<C: Send + Sync + 'static>(cases: Vec<(String, C)>, at_once: usize, limit: Duration, case: fn(&C)) -> Vec<String> {
    let (count, deadline) = (cases.len(), Instant::now() + limit);
    let shared = Arc::new(Shared { cases, state: Mutex::default() });
    let (tell, ended) = mpsc::channel();
    for _ in 0..at_once.min(count) {
        let (shared, tell) = (Arc::clone(&shared), tell.clone());
        thread::spawn(move || while shared.run_next(case) && tell.send(()).is_ok() {});
    }
    drop(tell);
    let in_time = (0..count).all(|_| ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok());
    if !in_time {
        shared.call_off(limit);
        let given_up = Instant::now() + ENDING;
        while !shared.state().running.is_empty() && Instant::now() < given_up {
            shared.state().running.values().for_each(|(thread, _)| end_homes_of(*thread));
            let _ = ended.recv_timeout(AGAIN); // one more has ended, or it is time to kill again
        }
        // Nobody waits for those that hang on; what they have started since is not left behind.
        shared.state().running.values().for_each(|(thread, _)| end_homes_of(*thread));
    }
    std::mem::take(&mut shared.state().failed)
}

struct Shared<C> {
    cases: Vec<(String, C)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    running: BTreeMap<usize, (ThreadId, Instant)>,
    failed: Vec<String>,
}

impl<C> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: there is none left.
    fn run_next(&self, case: fn(&C)) -> bool {
        let index = {
            let mut state = self.state();
            let index = state.next;
            state.next += 1;
            if index < self.cases.len() {
                state.running.insert(index, (thread::current().id(), Instant::now()));
            }
            index
        };
        let Some((name, what)) = self.cases.get(index) else { return false };
        let broke = catch_unwind(AssertUnwindSafe(|| case(what))).err();
        let mut state = self.state();
        state.running.remove(&index);
        state.failed.extend(broke.map(|panic| format!("{name}: {}", message(&*panic))));
        true
    }

    fn call_off(&self, limit: Duration) {
        let mut state = self.state();
        let left = self.cases.len().saturating_sub(state.next);
        state.next = self.cases.len();
        let hung = state.running.iter().map(|(index, (_, since))| format!("{} for {:.0?}", self.cases[*index].0, since.elapsed()));
        let hung = format!("the limit of {limit:.0?} is over with {left} cases not begun; under way: {}", hung.collect::<Vec<_>>().join(", "));
        state.failed.insert(0, hung);
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}
