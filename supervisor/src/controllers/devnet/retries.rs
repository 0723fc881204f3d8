//! When a devnet whose provisioning failed may be tried again.

use crate::model::{Devnet, Key, Operations};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Delay after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row by devnet. A user's request makes its devnet due at once; a change of its status does not.
#[derive(Default)]
pub(super) struct Retries(Mutex<HashMap<Key, Retry>>);

struct Retry {
    asked: (u64, Operations),
    failures: u32,
    due: Instant,
}

impl Retries {
    /// How long it is still to wait. None: it is due.
    pub(super) fn left(&self, key: &Key, devnet: &Devnet, now: Instant) -> Option<Duration> {
        let retries = self.lock();
        let retry = retries.get(key).filter(|retry| retry.asked == asked(devnet))?;
        retry.due.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Notes a failure and returns the delay until the next attempt.
    pub(super) fn failed(&self, key: &Key, devnet: &Devnet, now: Instant) -> Duration {
        let mut retries = self.lock();
        let before = retries.get(key).filter(|retry| retry.asked == asked(devnet)).map_or(0, |retry| retry.failures);
        let delay = FIRST.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX)).min(LONGEST);
        retries.insert(key.clone(), Retry { asked: asked(devnet), failures: before.saturating_add(1), due: now + delay });
        delay
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Retry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asked(devnet: &Devnet) -> (u64, Operations) {
    (devnet.metadata.generation, devnet.spec.operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::devnet;

    #[test]
    fn the_delay_doubles_up_to_the_longest_and_a_new_request_is_due_at_once() {
        let (retries, key, now) = (Retries::default(), Key::devnet("default", "net"), Instant::now());
        let mut net = devnet("default", "net");
        assert_eq!(retries.left(&key, &net, now), None);
        let delays: Vec<u64> = (0..10).map(|_| retries.failed(&key, &net, now).as_millis().try_into().unwrap()).collect();
        assert_eq!(delays, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000]);
        (0..100).for_each(|_| assert_eq!(retries.failed(&key, &net, now), LONGEST));
        net.status.message = Some("written by the failure".into());
        assert_eq!(retries.left(&key, &net, now), Some(LONGEST));
        assert_eq!(retries.left(&key, &net, now + LONGEST), None);
        net.metadata.generation += 1;
        assert_eq!(retries.left(&key, &net, now), None);
        assert_eq!(retries.failed(&key, &net, now), FIRST);
    }
}
