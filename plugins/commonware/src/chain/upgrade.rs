//! Upgrades of the chain's rules at a height, kept in `data/upgrades.json`.
//!
//! ```text
//!  scheduled on every node ─► block height-1 ─┬─ a handler of that name ─► block `height` begins with it
//!                                             └─ none ─► halted: no vote, no block, and RPC and block sync go on
//! ```
//! The chain has no governance: whoever runs the nodes tells each of them, by its RPC. The list stays: what was upgraded when is
//! needed to execute old blocks again.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::fault::NodeFault;

pub const UPGRADES_FILE: &str = "upgrades.json";
/// Blocks between the head and an upgrade: nodes may have voted for the next ones already.
const LEAST_NOTICE: u64 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePlan {
    pub name: String,
    pub height: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("upgrade {name} at height {height} is too near: the chain is at {head}, want at least {}", head + LEAST_NOTICE)]
    TooNear { name: String, height: u64, head: u64 },
    #[error("there is an upgrade {name} at height {height} already")]
    Taken { name: String, height: u64 },
    #[error("upgrade {name} at height {height} is done")]
    Done { name: String, height: u64 },
    #[error("write {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// When a node is told of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Before anybody can have voted for a block of its height.
    Due,
    /// After others have halted for it, so that there is no such block.
    Late,
}

/// What this binary can do, and what it was told.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    /// Upgrades that it has a handler for.
    pub handlers: &'static [&'static str],
    /// Heights whose upgrades are passed over.
    pub skipped: BTreeSet<u64>,
}

pub struct Upgrades {
    path: PathBuf,
    abilities: Abilities,
    /// By height.
    plans: Mutex<Vec<UpgradePlan>>,
}

impl Upgrades {
    pub fn load(path: &Path, abilities: Abilities) -> Result<Self, NodeFault> {
        let plans = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| NodeFault::Corrupt { path: path.to_owned(), message: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(NodeFault::Io { what: format!("read {}", path.display()), source }),
        };
        Ok(Self { path: path.to_owned(), abilities, plans: Mutex::new(plans) })
    }

    /// The same again changes nothing; one that was passed over is forgotten.
    pub fn schedule(&self, wanted: UpgradePlan, head: u64, notice: Notice) -> Result<(), UpgradeError> {
        let mut plans = self.lock();
        if plans.contains(&wanted) {
            return Ok(());
        }
        let counting = || plans.iter().filter(|plan| self.counts(plan));
        if let Some(other) = counting().find(|plan| plan.height == wanted.height || plan.name == wanted.name && plan.height <= head) {
            return Err(UpgradeError::Taken { name: other.name.clone(), height: other.height });
        }
        let least = if notice == Notice::Late { 1 } else { LEAST_NOTICE };
        if wanted.height < head + least {
            return Err(UpgradeError::TooNear { name: wanted.name, height: wanted.height, head });
        }
        let mut next: Vec<_> = counting().filter(|plan| plan.name != wanted.name).cloned().collect();
        next.push(wanted);
        next.sort_by_key(|plan| plan.height);
        self.write(&next)?;
        *plans = next;
        Ok(())
    }

    /// None of this name is as good as cancelled.
    pub fn cancel(&self, name: &str, head: u64) -> Result<(), UpgradeError> {
        let mut plans = self.lock();
        let Some(plan) = plans.iter().find(|plan| plan.name == name) else { return Ok(()) };
        if plan.height <= head {
            return Err(UpgradeError::Done { name: plan.name.clone(), height: plan.height });
        }
        let next: Vec<_> = plans.iter().filter(|plan| plan.name != name).cloned().collect();
        self.write(&next)?;
        *plans = next;
        Ok(())
    }

    /// With which the block of this height begins.
    pub fn at(&self, height: u64) -> Option<UpgradePlan> {
        self.lock().iter().find(|plan| plan.height == height && self.counts(plan)).cloned()
    }

    /// The first upgrade at or below `height` that this binary has no handler for: it cannot execute such a block.
    pub fn blocks(&self, height: u64) -> Option<UpgradePlan> {
        let cannot = |plan: &&UpgradePlan| plan.height <= height && self.counts(plan) && !self.abilities.handlers.contains(&plan.name.as_str());
        self.lock().iter().find(cannot).cloned()
    }

    /// The first above `head`.
    pub fn next(&self, head: u64) -> Option<UpgradePlan> {
        self.lock().iter().find(|plan| plan.height > head && self.counts(plan)).cloned()
    }

    /// Names of those that blocks up to `head` began with, in their order.
    pub fn applied(&self, head: u64) -> Vec<String> {
        self.lock().iter().filter(|plan| plan.height <= head && self.counts(plan)).map(|plan| plan.name.clone()).collect()
    }

    fn counts(&self, plan: &UpgradePlan) -> bool {
        !self.abilities.skipped.contains(&plan.height)
    }

    fn write(&self, plans: &[UpgradePlan]) -> Result<(), UpgradeError> {
        let part = self.path.with_extension("part");
        let io = |source| UpgradeError::Io { path: self.path.clone(), source };
        let mut file = std::fs::File::create(&part).map_err(io)?;
        file.write_all(&serde_json::to_vec(plans).map_err(|error| io(error.into()))?).map_err(io)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&part, &self.path).map_err(io)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<UpgradePlan>> {
        self.plans.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, height: u64) -> UpgradePlan {
        UpgradePlan { name: name.into(), height }
    }

    fn upgrades(dir: &Path, handlers: &'static [&'static str], skipped: &[u64]) -> Upgrades {
        Upgrades::load(&dir.join(UPGRADES_FILE), Abilities { handlers, skipped: skipped.iter().copied().collect() }).unwrap()
    }

    #[test]
    fn a_plan_outlives_its_process_and_blocks_a_binary_without_the_handler() {
        let dir = tempfile::tempdir().unwrap();
        let old = upgrades(dir.path(), &[], &[]);
        old.schedule(plan("v2", 30), 20, Notice::Due).unwrap();
        old.schedule(plan("v2", 30), 29, Notice::Due).unwrap();
        let again = upgrades(dir.path(), &[], &[]);
        assert_eq!((again.blocks(29), again.blocks(30)), (None, Some(plan("v2", 30))));
        assert_eq!((again.next(29), again.next(30)), (Some(plan("v2", 30)), None));
        let new = upgrades(dir.path(), &["v2"], &[]);
        assert_eq!((new.blocks(99), new.at(30), new.at(31)), (None, Some(plan("v2", 30)), None));
        assert_eq!((new.applied(29), new.applied(30)), (vec![], vec!["v2".to_owned()]));
    }

    #[test]
    fn a_skipped_height_is_as_if_nothing_had_been_scheduled() {
        let dir = tempfile::tempdir().unwrap();
        upgrades(dir.path(), &[], &[]).schedule(plan("v2", 30), 0, Notice::Due).unwrap();
        let old = upgrades(dir.path(), &[], &[30]);
        assert_eq!((old.blocks(99), old.at(30), old.next(0), old.applied(99)), (None, None, None, vec![]));
        old.schedule(plan("v2", 50), 40, Notice::Due).unwrap();
        assert_eq!(old.next(0), Some(plan("v2", 50)), "it can be tried again");
    }

    #[test]
    fn what_is_past_or_too_near_is_refused_and_what_is_ahead_can_move_or_go() {
        let dir = tempfile::tempdir().unwrap();
        let chain = upgrades(dir.path(), &[], &[]);
        assert!(matches!(chain.schedule(plan("v2", 22), 20, Notice::Due), Err(UpgradeError::TooNear { .. })));
        chain.schedule(plan("v2", 21), 20, Notice::Late).unwrap();
        chain.schedule(plan("v2", 23), 20, Notice::Due).unwrap();
        assert!(matches!(chain.schedule(plan("v3", 23), 20, Notice::Due), Err(UpgradeError::Taken { .. })));
        chain.schedule(plan("v2", 40), 20, Notice::Due).unwrap();
        assert_eq!(chain.next(0), Some(plan("v2", 40)));
        assert!(matches!(chain.cancel("v2", 40), Err(UpgradeError::Done { .. })));
        chain.cancel("v2", 39).unwrap();
        chain.cancel("v2", 39).unwrap();
        assert_eq!(upgrades(dir.path(), &[], &[]).next(0), None);
    }
}
