//! How often a devnet's status follows its nodes while they turn one after the other.
//!
//! Each report writes the whole devnet, with all its services, and costs an fsync: for 200 nodes that start together, 200 of them cost
//! more than the starts.

use super::sum::{PASSING, Sum};
use crate::model::{Devnet, Key};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Numbers alone are written this far apart; the first after a quiet time at once.
const APART: Duration = Duration::from_millis(250);

/// When each devnet's last report was written.
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<Key, Instant>>);

impl Pace {
    /// How long `sum` can wait. None: it is written now. What people wait for, a new phase or condition, always is.
    pub(super) fn left(&self, key: &Key, devnet: &Devnet, sum: &Sum, now: Instant) -> Option<Duration> {
        let mut reports = self.lock();
        let due = reports.get(key).map(|last| *last + APART).filter(|due| *due > now);
        match due {
            Some(due) if !turns(devnet, sum) => Some(due - now),
            _ => {
                reports.insert(key.clone(), now);
                None
            }
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More changes than numbers and words.
fn turns(devnet: &Devnet, sum: &Sum) -> bool {
    let conditions = &devnet.status.conditions;
    devnet.status.phase != sum.phase
        || sum.conditions.iter().any(|new| conditions.get(&new.kind).is_none_or(|old| old.status != new.status || old.reason != new.reason))
        || PASSING.iter().any(|passing| conditions.get(passing).is_some() && !sum.says(passing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Condition, ConditionStatus, DevnetPhase, Timestamp},
        store::fixtures::devnet,
    };

    fn sum(phase: DevnetPhase, ready: u32) -> Sum {
        let condition = Condition::new("Ready", ConditionStatus::False, "NodesNotReady", format!("{ready} of 200"));
        Sum { phase, nodes: 200, ready, conditions: vec![condition], message: format!("{ready} of 200") }
    }

    #[test]
    fn numbers_wait_for_their_turn_and_a_new_phase_or_condition_does_not() {
        let (pace, key, now) = (Pace::default(), Key::devnet("default", "net"), Instant::now());
        let mut net = devnet("default", "net");
        net.status.phase = DevnetPhase::Provisioning;
        let first = sum(DevnetPhase::Provisioning, 0);
        assert_eq!(pace.left(&key, &net, &first, now), None, "nothing was written before");
        net.status.conditions.set(first.conditions[0].clone(), Timestamp::default());

        let later = now + APART / 5;
        assert_eq!(pace.left(&key, &net, &sum(DevnetPhase::Provisioning, 9), later), Some(APART - APART / 5));
        assert_eq!(pace.left(&key, &net, &sum(DevnetPhase::Running, 200), later), None, "the phase is what people wait for");
        assert_eq!(pace.left(&key, &net, &sum(DevnetPhase::Provisioning, 10), now + APART), Some(APART / 5), "counted from the last report");
        let mut halted = sum(DevnetPhase::Provisioning, 10);
        halted.conditions.push(Condition::new("Progressing", ConditionStatus::False, "Halted", "no block"));
        assert_eq!(pace.left(&key, &net, &halted, later), None);
        assert_eq!(pace.left(&key, &net, &sum(DevnetPhase::Provisioning, 11), later + APART), None);
        pace.forget(&key);
        assert_eq!(pace.left(&key, &net, &sum(DevnetPhase::Provisioning, 12), later + APART), None);
    }
}
