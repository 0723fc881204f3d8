//! Against restart storms: how many restarts all nodes of a devnet have together in a minute, and a little disorder in their back-off.

use super::{
    super::{Context, ReconcileError},
    launch_of,
    plan::{BackoffReason, Decision, Step},
};
use crate::model::{DevnetSpec, LaunchId, Node, Timestamp};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const WINDOW: Duration = Duration::from_secs(60);
/// The back-off of two nodes that died together differs by up to twice this part of it.
const JITTER: f64 = 0.1;
/// When the spec names no budget: far beyond what one ill node can use, as its own back-off holds it.
const RESTARTS_PER_NODE: u32 = 20;
const LEAST: u32 = 200;

/// Restarts of the last minute by namespace and devnet. Each launch has them on record, so that a new daemon counts on: a storm that kills
/// daemons too must not go on for ever.
#[derive(Default)]
pub(super) struct Budgets(Mutex<HashMap<(String, String), VecDeque<Timestamp>>>);

impl Budgets {
    /// Counts a restart that the plan has decided on, or puts it off when there were too many.
    pub(super) async fn hold(&self, node: &Node, decision: Decision, cx: &Context) -> Result<Decision, ReconcileError> {
        if decision.step != (Step::Launch { counted: true }) {
            return Ok(decision);
        }
        let of = devnet_of(node);
        let Some(devnet) = cx.accepted_devnet(&of.0, &of.1).await? else { return Ok(decision) };
        let budget = budget(&devnet.spec);
        let known = self.all().contains_key(&of);
        let recorded = if known { VecDeque::new() } else { recorded(&of.0, &of.1, cx).await? };
        let mut all = self.all();
        Ok(match take(all.entry(of).or_insert(recorded), budget, cx.clock.now()) {
            Ok(()) => decision,
            Err(until) => Step::Backoff { until, why: BackoffReason::Storm { budget } }.into(),
        })
    }

    /// One that was held and came to nothing.
    pub(super) fn give_back(&self, node: &Node) {
        if let Some(restarts) = self.all().get_mut(&devnet_of(node)) {
            restarts.pop_back();
        }
    }

    /// What is known of the node's devnet, for the record of a launch.
    pub(super) fn of(&self, node: &Node) -> Vec<(i64, u32)> {
        self.all().get(&devnet_of(node)).map(by_second).unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), VecDeque<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn devnet_of(node: &Node) -> (String, String) {
    (node.metadata.namespace.clone(), node.spec.devnet_ref.clone())
}

/// What an earlier daemon has counted, as the last launches of all nodes have it.
async fn recorded(namespace: &str, devnet: &str, cx: &Context) -> Result<VecDeque<Timestamp>, ReconcileError> {
    let mut records = Vec::new();
    for node in cx.nodes(namespace, devnet).await? {
        records.extend(launch_of(&node, cx).await?.map(|launch| launch.spec.restarts.clone()));
    }
    Ok(together(&records))
}

fn by_second(restarts: &VecDeque<Timestamp>) -> Vec<(i64, u32)> {
    let mut seconds = BTreeMap::<i64, u32>::new();
    restarts.iter().for_each(|at| *seconds.entry(at.as_millis().div_euclid(1_000)).or_default() += 1);
    seconds.into_iter().collect()
}

/// Each record tells of all nodes, so the one that knows most of a second is right about it.
fn together(records: &[Vec<(i64, u32)>]) -> VecDeque<Timestamp> {
    let mut seconds = BTreeMap::<i64, u32>::new();
    for (second, count) in records.iter().flatten() {
        let most = seconds.entry(*second).or_default();
        *most = (*most).max(*count);
    }
    let times = |(second, count): (i64, u32)| (0..count).map(move |_| Timestamp::from_millis(second.saturating_mul(1_000)));
    seconds.into_iter().flat_map(times).collect()
}

/// Between 0.9 and 1.1, the same for the same launch.
pub(super) fn jitter(launch: Option<&LaunchId>) -> f64 {
    let Some(launch) = launch else { return 1.0 };
    let digest = Sha256::digest(launch.0.as_bytes());
    let part = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    1.0 - JITTER + 2.0 * JITTER * part
}

fn budget(spec: &DevnetSpec) -> u32 {
    let nodes = spec.validators().saturating_add(spec.full_nodes).saturating_add(u32::try_from(spec.services.len()).unwrap_or(u32::MAX));
    spec.restart_budget.unwrap_or(nodes.saturating_mul(RESTARTS_PER_NODE).max(LEAST))
}

/// One more now, or the time at which the oldest that is in the way is a minute old.
fn take(restarts: &mut VecDeque<Timestamp>, budget: u32, now: Timestamp) -> Result<(), Timestamp> {
    // What lies in the future was counted before the clock was set back: how long ago, nothing tells.
    restarts.retain(|at| *at <= now && at.plus(WINDOW) > now);
    let budget = usize::try_from(budget).unwrap_or(usize::MAX);
    if restarts.len() < budget {
        restarts.push_back(now);
        return Ok(());
    }
    let in_the_way = restarts.len() - budget;
    Err(restarts.get(in_the_way).copied().unwrap_or(now).plus(WINDOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    #[test]
    fn a_budget_is_free_again_when_its_restarts_are_a_minute_old() {
        let mut restarts = VecDeque::new();
        assert_eq!([0, 10].map(|secs| take(&mut restarts, 2, at(secs))), [Ok(()), Ok(())]);
        assert_eq!(take(&mut restarts, 2, at(20)), Err(at(60)));
        assert_eq!(take(&mut restarts, 2, at(60)), Ok(()));
        assert_eq!(take(&mut restarts, 2, at(61)), Err(at(70)));
        assert_eq!(take(&mut restarts, 1, at(62)), Err(at(120)), "a smaller budget than was used");
        assert_eq!(take(&mut VecDeque::new(), 0, at(5)), Err(at(65)), "no restart at all");
    }

    #[test]
    fn a_clock_set_back_a_day_leaves_nobody_waiting_for_tomorrow() {
        const DAY: i64 = 86_400;
        let mut restarts = VecDeque::from([at(DAY), at(DAY + 1)]);
        assert_eq!(take(&mut restarts, 2, at(3)), Ok(()));
        assert_eq!(take(&mut restarts, 2, at(4)), Ok(()));
        assert_eq!(take(&mut restarts, 2, at(5)), Err(at(63)), "the budget holds as before");
    }

    #[test]
    fn what_launches_have_on_record_is_counted_once_and_lets_go_as_it_would_have() {
        let mut restarts = VecDeque::from([at(1), Timestamp::from_millis(1_900), at(50)]);
        let record = by_second(&restarts);
        assert_eq!(record, [(1, 2), (50, 1)]);
        restarts.push_back(at(50));
        // The last launches of two nodes: the older one does not know of the newer.
        let mut next = together(&[record, vec![], by_second(&restarts)]);
        assert_eq!(next, [at(1), at(1), at(50), at(50)]);
        assert_eq!([take(&mut next, 4, at(60)), take(&mut next, 4, at(61))], [Err(at(61)), Ok(())]);
        assert_eq!(by_second(&next), [(50, 2), (61, 1)]);
    }

    #[test]
    fn the_default_grows_with_the_devnet() {
        let spec = |full_nodes, restart_budget| DevnetSpec { plugin: "mock".into(), full_nodes, restart_budget, ..DevnetSpec::default() };
        assert_eq!([budget(&spec(0, None)), budget(&spec(16, None)), budget(&spec(16, Some(3)))], [200, 400, 3]);
    }

    #[test]
    fn jitter_stays_within_a_tenth_and_differs_between_launches() {
        let of = |name: &str| jitter(Some(&LaunchId(name.into())));
        assert_eq!((of("a"), jitter(None)), (of("a"), 1.0));
        let all: Vec<f64> = (0..100).map(|index| of(&index.to_string())).collect();
        assert!(all.iter().all(|one| (0.9..=1.1).contains(one)), "{all:?}");
        let (least, most) = (all.iter().copied().fold(2.0, f64::min), all.iter().copied().fold(0.0, f64::max));
        assert!(most - least > 0.15, "{least} to {most}");
    }
}
