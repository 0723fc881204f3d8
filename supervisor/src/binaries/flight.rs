//! One piece of work for many waiters: it goes on while anyone waits, and is dropped with the last of them.

use super::BinaryError;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Progress lines that a waiter may lag behind; older ones are dropped for it.
const LINES: usize = 256;

type Outcome<T> = Result<T, BinaryError>;
type Work<T> = Shared<BoxFuture<'static, Outcome<T>>>;

struct Flight<T: Clone> {
    work: WeakShared<BoxFuture<'static, Outcome<T>>>,
    lines: broadcast::Sender<String>,
}

/// Where the work says what it is doing.
#[derive(Clone)]
pub(super) struct Lines(broadcast::Sender<String>);

impl Lines {
    /// For work that nobody follows.
    pub(super) fn unheard() -> Self {
        Self(broadcast::channel(1).0)
    }
    pub(super) fn say(&self, line: impl Into<String>) {
        // Nobody listening is no fault.
        let _ = self.0.send(line.into());
    }
}

pub(super) struct Flights<T: Clone>(Mutex<HashMap<String, Flight<T>>>);

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Joins the work under `key`, or begins it. `progress` hears its lines from now on.
    pub(super) async fn join(
        &self,
        key: &str,
        progress: &(dyn Fn(String) + Send + Sync),
        begin: impl FnOnce(Lines) -> BoxFuture<'static, Outcome<T>>,
    ) -> Outcome<T> {
        let (mut work, mut lines) = self.enter(key, begin);
        loop {
            tokio::select! {
                biased;
                line = lines.recv() => match line {
                    Ok(line) => progress(line),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return work.await,
                },
                outcome = &mut work => {
                    while let Ok(line) = lines.try_recv() {
                        progress(line);
                    }
                    return outcome;
                }
            }
        }
    }

    fn enter(&self, key: &str, begin: impl FnOnce(Lines) -> BoxFuture<'static, Outcome<T>>) -> (Work<T>, broadcast::Receiver<String>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.work.upgrade().is_some_and(|work| work.peek().is_none()));
        if let Some(flight) = flights.get(key)
            && let Some(work) = flight.work.upgrade()
        {
            return (work, flight.lines.subscribe());
        }
        let (sender, lines) = broadcast::channel(LINES);
        let work = begin(Lines(sender.clone())).shared();
        if let Some(weak) = work.downgrade() {
            flights.insert(key.to_owned(), Flight { work: weak, lines: sender });
        }
        (work, lines)
    }
}

impl<T: Clone> std::fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::sync::Notify;

    #[tokio::test]
    async fn many_waiters_share_one_piece_of_work_and_its_lines() {
        let flights = Arc::new(Flights::<u32>::default());
        let (begun, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let wait = || {
            let (flights, begun, go) = (flights.clone(), begun.clone(), go.clone());
            tokio::spawn(async move {
                let heard = Mutex::new(Vec::new());
                let progress = |line| heard.lock().unwrap().push(line);
                let begin = |lines: Lines| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    async move {
                        go.notified().await;
                        lines.say("nearly");
                        Ok(7)
                    }
                    .boxed()
                };
                let outcome = flights.join("k", &progress, begin).await.unwrap();
                (outcome, heard.into_inner().unwrap())
            })
        };
        let waiters: Vec<_> = (0..5).map(|_| wait()).collect();
        tokio::task::yield_now().await;
        waiters[0].abort();
        go.notify_one();
        for waiter in waiters.into_iter().skip(1) {
            assert_eq!(waiter.await.unwrap(), (7, vec!["nearly".to_owned()]));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_dropped_and_begun_anew() {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let flights = Flights::<u32>::default();
        let dropped = Arc::new(AtomicUsize::new(0));
        let guard = Dropped(dropped.clone());
        let never = |_| {
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(0)
            }
            .boxed()
        };
        let quiet = |_| {};
        let waiting = flights.join("k", &quiet, never);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), waiting).await.is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert_eq!(flights.join("k", &quiet, |_| async { Ok(3) }.boxed()).await.unwrap(), 3);
    }
}
