//! Time and randomness enter here and are passed down.

use crate::model::Timestamp;
use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// Where the daemon takes the time and new identifiers from.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Never the same twice; ordered by time.
    fn fresh_id(&self) -> Uuid;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(shift_millis()))
    }
    fn fresh_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Debug builds: `DVB_CLOCK_SHIFT` has the machine's clock set forth, or back, by so many seconds. To try what a daemon makes of it.
#[cfg(debug_assertions)]
fn shift_millis() -> i64 {
    static SHIFT: std::sync::LazyLock<i64> =
        std::sync::LazyLock::new(|| std::env::var("DVB_CLOCK_SHIFT").ok().and_then(|secs| secs.parse().ok()).unwrap_or(0));
    SHIFT.saturating_mul(1_000)
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn shift_millis() -> i64 {
    0
}

/// A clock for tests: it stands still until told, and counts its ids.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicI64,
    ids: AtomicU64,
}

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self { millis: AtomicI64::new(now.as_millis()), ids: AtomicU64::new(0) }
    }
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }
    fn fresh_id(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.ids.fetch_add(1, Ordering::SeqCst) + 1))
    }
}
