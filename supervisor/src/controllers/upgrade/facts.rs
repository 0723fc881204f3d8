//! Gathers what the plan decides from: the store's objects, what nodes are seen at, and what the plugin is asked.

use super::super::{
    Context, ReconcileError,
    placing::{SERVICE, placed, stored_context},
};
use super::{
    plan::{Facts, Verdict, Vote, short},
    vote,
};
use crate::{
    model::{Devnet, ExitClass, Key, Kind, Node, Timestamp, Upgrade, UpgradePhase, VerifiedBlock},
    plugin::{
        ChainPlugin, DevnetContext,
        upgrade::{UPGRADE_CAPABILITY, UpgradeState},
    },
};
use futures::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What [`Facts`] borrow, and what the steps need besides.
pub(super) struct Seen {
    pub(super) devnet: Arc<Devnet>,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) height: u64,
    before_it: Option<String>,
    halts: BTreeMap<String, UpgradeState>,
    vote: Vote,
    verdict: Verdict,
    now: Timestamp,
}

pub(super) fn of(seen: &Seen) -> Facts<'_> {
    Facts {
        devnet: &seen.devnet,
        nodes: &seen.nodes,
        before_it: seen.before_it.as_deref(),
        height: seen.height,
        halts: seen.halts.clone(),
        vote: seen.vote.clone(),
        verdict: seen.verdict.clone(),
        now: seen.now,
    }
}

/// The plugin, with all that it must be told of the devnet.
pub(super) struct Chain {
    pub(super) plugin: Arc<dyn ChainPlugin>,
    pub(super) devnet: DevnetContext,
    /// It answers the calls about upgrades.
    pub(super) can_upgrade: bool,
}

impl Seen {
    /// None: the devnet is gone.
    pub(super) async fn gather(upgrade: &Upgrade, before_it: Option<&str>, key: &Key, cx: &Context) -> Result<Option<Self>, ReconcileError> {
        let Some(devnet) = cx.devnet(&key.namespace, &key.name).await? else { return Ok(None) };
        let nodes = cx.nodes(&key.namespace, &key.name).await?;
        let nodes: Vec<_> = nodes.into_iter().filter(|node| node.spec.role != SERVICE && node.metadata.deleted_at.is_none()).collect();
        let height = nodes.iter().filter_map(|node| height_of(node, cx)).max().unwrap_or(0);
        let mut seen = Self {
            devnet,
            nodes,
            height,
            before_it: before_it.map(str::to_owned),
            halts: BTreeMap::new(),
            vote: Vote::Unknown,
            verdict: Verdict::Early,
            now: cx.clock.now(),
        };
        match upgrade.status.phase {
            UpgradePhase::Proposing | UpgradePhase::Voting => seen.vote = vote::look(upgrade, &seen, cx).await?,
            UpgradePhase::Waiting if seen.is_near(upgrade) => seen.halts = seen.ask_for_halts(cx).await?,
            UpgradePhase::Verifying => seen.verdict = seen.compare(upgrade, cx).await?,
            _ => {}
        }
        Ok(Some(seen))
    }

    /// None before the devnet was provisioned.
    pub(super) async fn chain(&self, cx: &Context) -> Result<Option<Chain>, ReconcileError> {
        let meta = &self.devnet.metadata;
        let Some(plan) = cx.plan(&meta.namespace, &meta.name).await? else { return Ok(None) };
        let accepted = cx.accepted_devnet(&meta.namespace, &meta.name).await?.unwrap_or_else(|| self.devnet.clone());
        let plugin = cx.plugins.get(&accepted.spec.plugin).await?;
        let can_upgrade = plugin.info().await?.capabilities.iter().any(|capability| capability == UPGRADE_CAPABILITY);
        Ok(Some(Chain { plugin, devnet: stored_context(&accepted, &plan.spec, &self.nodes), can_upgrade }))
    }

    pub(super) fn is_somebody_halted(&self) -> bool {
        self.halts.values().any(|state| state.halted)
    }

    /// How long until what goes on counts as overdue.
    pub(super) fn until_deadline(&self, upgrade: &Upgrade) -> Option<Duration> {
        let deadline = upgrade.status.notes.deadline.filter(|_| !upgrade.status.phase.is_final())?;
        Some(deadline.since(self.now).max(Duration::from_millis(100)))
    }

    /// A node may have halted. Heights of nodes that were not seen since a restart of the daemon are not known.
    fn is_near(&self, upgrade: &Upgrade) -> bool {
        let height = upgrade.height().unwrap_or(u64::MAX);
        upgrade.status.notes.halts && (self.height + 1 >= height || self.height == 0)
    }

    async fn ask_for_halts(&self, cx: &Context) -> Result<BTreeMap<String, UpgradeState>, ReconcileError> {
        let Some(chain) = self.chain(cx).await? else { return Ok(BTreeMap::new()) };
        let asked = self.nodes.iter().map(|node| async {
            let answer = chain.plugin.upgrade_state(&chain.devnet, &placed(node)).await;
            let state = answer.unwrap_or_else(|error| UpgradeState { evidence: error.to_string(), ..UpgradeState::default() });
            (short(node), with_its_death(node, state))
        });
        Ok(join_all(asked).await.into_iter().collect())
    }

    /// Whether all nodes came to the same state so many blocks after the switch.
    async fn compare(&self, upgrade: &Upgrade, cx: &Context) -> Result<Verdict, ReconcileError> {
        let wanted: Vec<&Arc<Node>> = self.nodes.iter().filter(|node| node.is_wanted()).collect();
        let unready = wanted.iter().find(|node| !node.status.conditions.is_true("Ready") || node.status.phase != crate::model::NodePhase::Running);
        match (wanted.is_empty(), unready) {
            (true, _) => return Ok(Verdict::Early),
            (false, Some(node)) => return Ok(Verdict::Waiting(format!("waits until {} is ready with the new binary", short(node)))),
            (false, None) => {}
        }
        let Some(chain) = self.chain(cx).await?.filter(|chain| chain.can_upgrade) else { return Ok(self.heights_alone(upgrade, &wanted, cx)) };
        let goal = upgrade.status.notes.last_height + upgrade.blocks_to_verify();
        let asked = wanted.iter().map(|node| async { (short(node), chain.plugin.block(&chain.devnet, &placed(node), goal).await) });
        let mut hashes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(Some(block)) => hashes.entry(block.app_hash).or_default().push(name),
                Ok(None) => return Ok(Verdict::Waiting(format!("waits until {name} has block {goal}"))),
                Err(error) => return Ok(Verdict::Waiting(format!("asks {name} for block {goal}: {error}"))),
            }
        }
        Ok(judge(goal, &hashes))
    }

    /// A family that tells nothing of blocks: heights must rise, where it has any.
    fn heights_alone(&self, upgrade: &Upgrade, wanted: &[&Arc<Node>], cx: &Context) -> Verdict {
        let heights: Vec<u64> = wanted.iter().filter_map(|node| height_of(node, cx)).collect();
        let lowest = heights.iter().min().copied().unwrap_or(0);
        let goal = upgrade.status.notes.last_height + upgrade.blocks_to_verify();
        if !heights.is_empty() && lowest < goal {
            return Verdict::Waiting(format!("waits for height {goal}, the lowest node is at {lowest}"));
        }
        Verdict::Equal(VerifiedBlock { height: lowest, app_hash: String::new(), nodes: count(wanted.len()) })
    }
}

fn judge(height: u64, hashes: &BTreeMap<String, Vec<String>>) -> Verdict {
    let nodes = hashes.values().map(Vec::len).sum();
    match hashes.keys().next() {
        Some(app_hash) if hashes.len() == 1 => Verdict::Equal(VerifiedBlock { height, app_hash: app_hash.clone(), nodes: count(nodes) }),
        _ => {
            let sides: Vec<String> = hashes.iter().map(|(hash, nodes)| format!("{} have {hash}", nodes.join(", "))).collect();
            Verdict::Differs(format!("nodes disagree on the state of block {height}: {}", sides.join("; ")))
        }
    }
}

/// A node that ended because it cannot go past the height has halted too: its files name the upgrade.
fn with_its_death(node: &Node, state: UpgradeState) -> UpgradeState {
    let died_of_it = node.status.pid.is_none() && node.status.last_exit.as_ref().is_some_and(|exit| exit.class == ExitClass::UpgradeNeeded);
    if state.halted || !died_of_it || state.name.is_empty() {
        return state;
    }
    let words = node.status.last_exit.as_ref().map(|exit| exit.message.clone()).unwrap_or_default();
    UpgradeState { halted: true, evidence: format!("{words}; its files name {} at height {}", state.name, state.height), ..state }
}

fn height_of(node: &Node, cx: &Context) -> Option<u64> {
    cx.observations.get(&Key::new(Kind::Node, &node.metadata.namespace, &node.metadata.name)).and_then(|seen| seen.height)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::LastExit, store::fixtures};

    #[test]
    fn equal_hashes_prove_it_and_two_sides_are_named() {
        let hashes = |list: &[(&str, &str)]| {
            let mut hashes: BTreeMap<String, Vec<String>> = BTreeMap::new();
            list.iter().for_each(|(hash, node)| hashes.entry((*hash).into()).or_default().push((*node).into()));
            hashes
        };
        let equal = judge(33, &hashes(&[("aa", "validator-0"), ("aa", "validator-1")]));
        assert_eq!(equal, Verdict::Equal(VerifiedBlock { height: 33, app_hash: "aa".into(), nodes: 2 }));
        let Verdict::Differs(why) = judge(33, &hashes(&[("aa", "validator-0"), ("bb", "validator-1")])) else { panic!("they differ") };
        assert_eq!(why, "nodes disagree on the state of block 33: validator-0 have aa; validator-1 have bb");
    }

    #[test]
    fn a_death_proves_a_halt_only_together_with_the_files() {
        let mut node = fixtures::validator("default", "net", 0);
        node.status.last_exit = Some(LastExit { class: ExitClass::UpgradeNeeded, message: "exit code 1".into(), ..LastExit::default() });
        let named = UpgradeState { name: "v2".into(), height: 30, ..UpgradeState::default() };
        assert!(with_its_death(&node, named.clone()).halted);
        assert!(!with_its_death(&node, UpgradeState::default()).halted);
        node.status.pid = Some(7);
        assert!(!with_its_death(&node, named).halted, "it runs again");
    }
}
