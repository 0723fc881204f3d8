//! One devnet's upgrades under one task.

use super::super::{
    Context, ReconcileError,
    sessions::{in_a_row, pause},
};
use super::{
    apply,
    facts::{self, Seen},
    plan::{Step, plan},
};
use crate::{
    model::{Key, Kind, Object, Revision, Upgrade},
    store::{Change, Selector, StoreError},
};
use futures::{FutureExt, StreamExt};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::broadcast, time::Instant};

/// Nothing announces that a chain has halted, or that a proposal has passed: it is looked at so often, while it can be.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Until the devnet is gone. A store that fails, or a write that somebody else outran, begins the session anew.
pub(super) async fn run(key: Key, cx: Arc<Context>) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        match Session::new(key.clone(), cx.clone()).follow().await {
            Ok(()) => return,
            Err(ReconcileError::Store(StoreError::Conflict { .. })) => {}
            Err(error) => tracing::warn!(devnet = %key, %error, "the upgrades of this devnet begin anew"),
        }
        failures = in_a_row(failures, begun.elapsed());
        tokio::time::sleep(pause(failures)).await;
        failures += 1;
    }
}

struct Session {
    key: Key,
    cx: Arc<Context>,
    /// By name.
    upgrades: BTreeMap<String, Arc<Upgrade>>,
    failures: u32,
}

impl Session {
    fn new(key: Key, cx: Arc<Context>) -> Self {
        Self { key, cx, upgrades: BTreeMap::new(), failures: 0 }
    }

    async fn follow(&mut self) -> Result<(), ReconcileError> {
        let selector = Selector::in_devnet(Kind::Upgrade, &self.key.namespace, &self.key.name);
        let (objects, from) = self.cx.store.list(&selector).await?;
        objects.into_iter().for_each(|object| self.take(object, false));
        let kinds = vec![Kind::Devnet, Kind::Node, Kind::Transaction, Kind::Upgrade];
        let mut feed = self.cx.store.watch(Selector { kinds, ..selector }, from);
        let mut seen = self.cx.observations.subscribe();
        loop {
            let rest = self.work().await?;
            let is_idle = rest == Rest::Idle;
            tokio::select! {
                change = feed.next() => {
                    let mut next = Some(change);
                    while let Some(change) = next {
                        let Some(change) = change else { return Ok(()) }; // the store is closed
                        self.hear(change?);
                        next = feed.next().now_or_never();
                    }
                }
                () = self.is_seen(&mut seen), if !is_idle => {}
                () = pause_until(rest) => {}
            }
        }
    }

    /// Resolves when a node of this devnet was seen at another height.
    async fn is_seen(&self, seen: &mut broadcast::Receiver<Key>) {
        loop {
            match seen.recv().await {
                Ok(key) if key.namespace != self.key.namespace || key.name.split('/').next() != Some(self.key.name.as_str()) => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn hear(&mut self, change: Change) {
        self.take(change.object, change.deleted);
    }

    fn take(&mut self, object: Object, deleted: bool) {
        let Object::Upgrade(upgrade) = object else { return };
        match deleted {
            true => drop(self.upgrades.remove(&upgrade.metadata.name)),
            false => drop(self.upgrades.insert(upgrade.metadata.name.clone(), upgrade)),
        }
    }

    /// One step of the first upgrade that has something left to do, and a word from those behind it.
    async fn work(&mut self) -> Result<Rest, ReconcileError> {
        let open = in_order(&self.upgrades);
        let Some(first) = open.first() else { return Ok(Rest::Idle) };
        for (upgrade, before) in open.iter().skip(1).zip(&open) {
            self.step(upgrade, Some(&before.metadata.name)).await?;
        }
        match self.step(first, None).await {
            Err(error @ ReconcileError::Store(_)) => Err(error),
            Err(error) => {
                let pause = pause(self.failures);
                self.failures += 1;
                tracing::warn!(upgrade = first.metadata.name, %error, again_in = ?pause, "an upgrade cannot go on");
                apply::complain(first, &error, &self.cx).await?;
                Ok(Rest::For(pause))
            }
            Ok(rest) => {
                self.failures = 0;
                Ok(rest)
            }
        }
    }

    async fn step(&self, upgrade: &Arc<Upgrade>, before_it: Option<&str>) -> Result<Rest, ReconcileError> {
        let Some(seen) = Seen::gather(upgrade, before_it, &self.key, &self.cx).await? else { return Ok(Rest::Idle) };
        let step = plan(upgrade, &facts::of(&seen));
        let rest = match &step {
            Step::Wait { look: true, .. } => Rest::For(LOOK_EVERY),
            _ => Rest::UntilChange(seen.until_deadline(upgrade)),
        };
        apply::apply(upgrade, &seen, step, &self.cx).await?;
        Ok(rest)
    }
}

/// What a session does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// There is nothing to drive.
    Idle,
    /// A change wakes it; or this, at which something is overdue.
    UntilChange(Option<Duration>),
    For(Duration),
}

/// Open ones as they were asked for; those that already hold the chain come first.
fn in_order(upgrades: &BTreeMap<String, Arc<Upgrade>>) -> Vec<Arc<Upgrade>> {
    let mut open: Vec<Arc<Upgrade>> = upgrades.values().filter(|upgrade| upgrade.is_open()).cloned().collect();
    let rank = |upgrade: &Arc<Upgrade>| -> (bool, crate::model::Timestamp, Revision) {
        (!upgrade.status.phase.is_past_the_switch(), upgrade.metadata.created_at, upgrade.metadata.resource_version)
    };
    open.sort_by_key(rank);
    open
}

async fn pause_until(rest: Rest) {
    match rest {
        Rest::For(pause) | Rest::UntilChange(Some(pause)) => tokio::time::sleep(pause).await,
        Rest::Idle | Rest::UntilChange(None) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Timestamp, UpgradePhase},
        store::fixtures,
    };

    #[test]
    fn upgrades_are_driven_in_the_order_in_which_they_were_asked_for_and_one_that_has_switched_first() {
        let mut upgrades = BTreeMap::new();
        let mut add = |name: &str, at: i64, phase| {
            let mut upgrade = fixtures::upgrade("default", "net", name);
            upgrade.metadata.created_at = Timestamp::from_millis(at);
            upgrade.status.phase = phase;
            upgrades.insert(name.to_owned(), Arc::new(upgrade));
        };
        add("a", 3, UpgradePhase::Pending);
        add("b", 2, UpgradePhase::Waiting);
        add("c", 1, UpgradePhase::Completed);
        add("d", 9, UpgradePhase::RollingBack);
        let names: Vec<_> = in_order(&upgrades).iter().map(|upgrade| upgrade.spec.upgrade_name.clone()).collect();
        assert_eq!(names, ["d", "b", "a"]);
    }
}
