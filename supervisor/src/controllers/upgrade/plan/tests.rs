//! Decisions of the upgrade plan, phase by phase.

use super::*;
use crate::{
    model::{BinaryStatus, Condition, ConditionStatus, LastExit, SavedState},
    store::fixtures,
};
use std::time::Duration;

const HEIGHT: u64 = 30;

struct World {
    upgrade: Upgrade,
    devnet: Devnet,
    nodes: Vec<Arc<Node>>,
    halts: BTreeMap<String, UpgradeState>,
    vote: Vote,
    verdict: Verdict,
    height: u64,
    before_it: Option<&'static str>,
}

impl World {
    /// A devnet of two running validators; the upgrade is in `phase`, at height 30.
    fn new(phase: UpgradePhase) -> Self {
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        upgrade.spec.skip_vote = true;
        upgrade.status.phase = phase;
        upgrade.status.notes.halts = true;
        let mut devnet = fixtures::devnet("default", "net");
        devnet.status.observed_generation = 1;
        devnet.status.conditions.set(Condition::new("Provisioned", ConditionStatus::True, "Provisioned", ""), Timestamp::default());
        let nodes = (0..2).map(|index| Arc::new(running(index))).collect();
        let (halts, vote, verdict) = (BTreeMap::new(), Vote::Unknown, Verdict::Early);
        Self { upgrade, devnet, nodes, halts, vote, verdict, height: 10, before_it: None }
    }
    fn edit(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }
    fn step(&self) -> Step {
        let facts = Facts {
            devnet: &self.devnet,
            nodes: &self.nodes,
            before_it: self.before_it,
            height: self.height,
            halts: self.halts.clone(),
            vote: self.vote.clone(),
            verdict: self.verdict.clone(),
            now: Timestamp::from_millis(1_000_000),
        };
        plan(&self.upgrade, &facts)
    }
    fn halt(&mut self, index: usize) {
        let state = UpgradeState { halted: true, name: "v2".into(), height: HEIGHT, evidence: "has applied 29".into() };
        self.halts.insert(short(&self.nodes[index]), state);
    }
    fn node(&mut self, index: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[index])
    }
    fn hold_down(&mut self) {
        self.devnet.status.held = Some("net/v2".into());
        for index in 0..self.nodes.len() {
            let node = self.node(index);
            (node.status.phase, node.status.pid, node.spec.suspended) = (NodePhase::Stopped, None, true);
        }
    }
    fn save(&mut self) {
        self.upgrade.status.saved = Some(SavedState::default());
    }
}

fn running(index: u32) -> Node {
    let mut node = fixtures::validator("default", "net", index);
    (node.status.phase, node.status.pid) = (NodePhase::Running, Some(7));
    node.status.observed_generation = node.metadata.generation;
    node.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Ready", ""), Timestamp::default());
    node
}

#[track_caller]
fn waits_for(step: Step, words: &str) {
    match step {
        Step::Wait { message, .. } => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn ends(step: Step, phase: UpgradePhase, words: &str) {
    match step {
        Step::End { phase: ended, why } => assert!(ended == phase && why.contains(words), "{ended:?}: {why}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn rolls_back(step: Step, words: &str) {
    match step {
        Step::RollBack { why } => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// The others have halted; without it the upgrade would wait for ever.
#[test]
fn a_node_that_failed_before_the_height_is_tried_once_more_and_then_all_go_back() {
    let halted = || {
        World::new(UpgradePhase::Waiting).edit(|world| {
            world.height = HEIGHT;
            world.halt(0);
            world.upgrade.status.notes.told = vec!["validator-0".into(), "validator-1".into()];
            let node = world.node(1);
            (node.status.phase, node.status.pid) = (NodePhase::Failed, None);
            node.status.last_exit = Some(LastExit { class: ExitClass::Panic, message: "exit code 2: a nil map".into(), ..LastExit::default() });
        })
    };
    assert_eq!(halted().step(), Step::Revive(vec!["validator-1".into()]));
    let tried = || halted().edit(|world| world.upgrade.status.notes.revived = vec!["validator-1".into()]);
    waits_for(tried().edit(|world| world.node(1).spec.restart_request = 1).step(), "not yet: validator-1");
    waits_for(tried().edit(|world| world.node(1).status.phase = NodePhase::Starting).step(), "not yet: validator-1");
    rolls_back(tried().step(), "validator-1 cannot come to height 30 with the old binary: exit code 2: a nil map");
}

#[test]
fn the_new_binary_is_checked_only_when_its_turn_has_come_and_the_chain_runs() {
    let pending = || World::new(UpgradePhase::Pending);
    assert_eq!(pending().step(), Step::Check);
    waits_for(pending().edit(|world| world.before_it = Some("net/v1")).step(), "net/v1");
    waits_for(pending().edit(|world| world.devnet.spec.desired = Some(Desired::Stopped)).step(), "is stopped");
    ends(pending().edit(|world| world.height = 30).step(), UpgradePhase::Failed, "is past");
    ends(pending().edit(|world| world.upgrade.spec.cancel = true).step(), UpgradePhase::Failed, "cancelled");
}

#[test]
fn a_reset_ends_an_upgrade_in_any_phase_and_a_deletion_is_left_alone() {
    use UpgradePhase::{Pending, RollingBack, Switching, Verifying, Waiting};
    for phase in [Pending, Waiting, Switching, Verifying, RollingBack] {
        ends(World::new(phase).edit(|world| world.devnet.spec.operations.reset = 1).step(), UpgradePhase::Failed, "was reset");
        assert_eq!(World::new(phase).edit(|world| world.devnet.metadata.deleted_at = Some(Timestamp::default())).step(), Step::Nothing);
    }
}

#[test]
fn the_switch_waits_for_the_proof_of_every_node() {
    let told = || {
        World::new(UpgradePhase::Waiting).edit(|world| {
            world.upgrade.status.notes.told = vec!["validator-0".into(), "validator-1".into()];
            world.height = 29;
        })
    };
    assert_eq!(World::new(UpgradePhase::Waiting).step(), Step::Tell(vec!["validator-0".into(), "validator-1".into()]));
    assert_eq!(told().edit(|world| world.height = 10).step(), Step::Wait { message: "waits for height 30".into(), look: false });
    assert_eq!(told().step(), Step::Wait { message: "waits for height 30".into(), look: true });
    waits_for(told().edit(|world| world.halt(0)).step(), "1 of 2 nodes have halted");
    let both = told().edit(|world| (0..2).for_each(|index| world.halt(index)));
    let Step::Advance { to: UpgradePhase::Switching, halts, .. } = both.step() else { panic!("{:?}", both.step()) };
    assert_eq!(halts.len(), 2);
    let other = both.edit(|world| world.halts.values_mut().for_each(|state| state.name = "v1".into()));
    waits_for(other.step(), "waits for height");
}

#[test]
fn a_node_that_its_user_stopped_is_started_once_the_others_have_halted() {
    let world = World::new(UpgradePhase::Waiting).edit(|world| {
        world.upgrade.status.notes.told = vec!["validator-0".into()];
        world.height = 29;
        let node = world.node(1);
        (node.spec.desired, node.status.phase, node.status.pid) = (Desired::Stopped, NodePhase::Stopped, None);
    });
    waits_for(world.step(), "waits for height 30");
    let lent = world.edit(|world| world.halt(0));
    assert_eq!(lent.step(), Step::Lend(vec!["validator-1".into()]));
    let started = lent.edit(|world| {
        let node = world.node(1);
        (node.spec.desired, node.status.phase, node.status.pid) = (Desired::Running, NodePhase::Starting, Some(8));
    });
    assert_eq!(started.step(), Step::Tell(vec!["validator-1".into()]), "it was not there when the others were told");
}

#[test]
fn a_chain_that_goes_past_the_height_ends_it() {
    let past = World::new(UpgradePhase::Waiting).edit(|world| world.height = 31);
    ends(past.step(), UpgradePhase::Failed, "did not halt");
}

#[test]
fn a_cancel_takes_the_height_back_from_those_who_know_it_or_has_the_chain_pass_it() {
    let cancelled = || World::new(UpgradePhase::Waiting).edit(|world| world.upgrade.spec.cancel = true);
    ends(cancelled().step(), UpgradePhase::Failed, "nothing was changed");
    assert_eq!(cancelled().edit(|world| world.upgrade.status.notes.told = vec!["validator-0".into()]).step(), Step::Untell);
    assert!(matches!(cancelled().edit(|world| world.halt(0)).step(), Step::Skip { .. }));
    assert!(matches!(cancelled().edit(|world| world.upgrade.status.notes.messages = "[{}]".into()).step(), Step::Skip { .. }));
}

#[test]
fn a_plain_swap_needs_no_halt() {
    let swap = || World::new(UpgradePhase::Waiting).edit(|world| world.upgrade.status.notes.halts = false);
    waits_for(swap().step(), "waits for height 30");
    assert!(matches!(swap().edit(|world| world.height = 30).step(), Step::Advance { to: UpgradePhase::Switching, .. }));
}

#[test]
fn all_nodes_are_down_and_saved_before_the_binary_changes_and_taken_up_before_they_go() {
    let switching = || World::new(UpgradePhase::Switching);
    assert_eq!(switching().step(), Step::Hold);
    waits_for(switching().edit(|world| world.devnet.status.held = Some("net/v2".into())).step(), "is down");
    let down = || switching().edit(World::hold_down);
    assert_eq!(down().step(), Step::Save);
    let saved = || down().edit(World::save);
    assert_eq!(saved().step(), Step::Switch);
    let switched = || saved().edit(|world| world.upgrade.status.notes.switched = Some(2));
    waits_for(switched().step(), "takes up the new binary");
    assert_eq!(switched().edit(|world| world.devnet.status.observed_generation = 2).step(), Step::Release);
    let refused = switched().edit(|world| {
        world.devnet.status.observed_generation = 2;
        world.devnet.status.conditions.set(Condition::new("Provisioned", ConditionStatus::False, "X", "two SDKs"), Timestamp::default());
    });
    rolls_back(refused.step(), "two SDKs");
    rolls_back(saved().edit(|world| world.upgrade.spec.cancel = true).step(), "cancelled");
}

#[test]
fn equal_blocks_complete_it_and_whatever_goes_wrong_rolls_it_back() {
    let verifying = || World::new(UpgradePhase::Verifying);
    waits_for(verifying().step(), "3 blocks");
    let block = VerifiedBlock { height: 33, app_hash: "aa".into(), nodes: 2 };
    assert_eq!(verifying().edit(|world| world.verdict = Verdict::Equal(block.clone())).step(), Step::Complete(block.clone()));
    rolls_back(verifying().edit(|world| world.verdict = Verdict::Differs("disagree".into())).step(), "disagree");
    let failed = verifying().edit(|world| {
        let node = world.node(1);
        node.status.phase = NodePhase::Failed;
        node.status.last_exit = Some(LastExit { message: "exit code 2: unknown flag".into(), ..LastExit::default() });
    });
    rolls_back(failed.step(), "validator-1 failed with the new binary: exit code 2");
    let dying = |times: u32| {
        verifying().edit(|world| {
            world.upgrade.status.notes.restarts = BTreeMap::from([("validator-1".into(), 4)]);
            world.node(1).status.restart_count = 4 + times;
        })
    };
    waits_for(dying(1).step(), "3 blocks");
    rolls_back(dying(2).step(), "again and again");
    let sick = verifying().edit(|world| {
        let reason = class_reason(ExitClass::AppHash);
        world.node(0).status.conditions.set(Condition::new("Progressing", ConditionStatus::False, reason, "wrong hash"), Timestamp::default());
    });
    rolls_back(sick.step(), "wrong hash");
    let late = || verifying().edit(|world| world.upgrade.status.notes.deadline = Some(Timestamp::default().plus(Duration::from_secs(1))));
    rolls_back(late().step(), "in time");
    waits_for(late().edit(|world| world.devnet.spec.desired = Some(Desired::Stopped)).step(), "is stopped");
    rolls_back(verifying().edit(|world| world.upgrade.spec.cancel = true).step(), "cancelled");
}

#[test]
fn one_node_after_the_other_gets_the_new_binary_and_their_devnet_last() {
    let rolling = || {
        World::new(UpgradePhase::Switching).edit(|world| {
            world.upgrade.spec.rolling = true;
            world.upgrade.status.binary = Some(BinaryStatus { sha256: "new".into(), ..BinaryStatus::default() });
        })
    };
    let roll = |world: &mut World, index: usize| {
        let name = short(&world.nodes[index]);
        world.upgrade.status.notes.rolled.push(name);
    };
    let has = |world: &mut World, index: usize| world.node(index).spec.binary_hash = "new".into();
    assert_eq!(rolling().step(), Step::Roll("validator-0".into()));
    let first = || rolling().edit(|world| roll(world, 0));
    waits_for(first().step(), "validator-0");
    waits_for(first().edit(|world| has(world, 0)).edit(|world| world.node(0).status.conditions.0.clear()).step(), "validator-0");
    let up = || first().edit(|world| has(world, 0));
    assert_eq!(up().step(), Step::Roll("validator-1".into()));
    let stopped = first().edit(|world| {
        has(world, 0);
        world.node(0).spec.desired = Desired::Stopped;
        world.node(0).status.phase = NodePhase::Stopped;
    });
    assert_eq!(stopped.step(), Step::Roll("validator-1".into()), "who is stopped is waited for by nobody");
    let own = up().edit(|world| {
        let binary = Some(crate::model::BinarySource { path: Some("/own".into()), ..Default::default() });
        world.devnet.spec.nodes.push(crate::model::NodeOverride { name: "validator-1".into(), binary, ..Default::default() });
    });
    assert_eq!(own.step(), Step::Switch, "a binary of its own stays");
    let all = || up().edit(|world| roll(world, 1)).edit(|world| has(world, 1));
    assert_eq!(all().step(), Step::Switch);
    assert_eq!(all().edit(|world| world.upgrade.status.notes.switched = Some(1)).step(), Step::Release);
    let dead = first().edit(|world| world.node(0).status.phase = NodePhase::Failed);
    rolls_back(dead.step(), "validator-0 failed");
    rolls_back(first().edit(|world| world.upgrade.spec.cancel = true).step(), "cancelled");
    let late = first().edit(|world| world.upgrade.status.notes.deadline = Some(Timestamp::default()));
    rolls_back(late.step(), "in time");
}

#[test]
fn a_roll_back_puts_homes_and_binary_back_while_all_nodes_are_down() {
    let back = || World::new(UpgradePhase::RollingBack).edit(|world| world.upgrade.status.why = Some("it died".into()));
    assert_eq!(back().step(), Step::Hold);
    let down = || back().edit(World::hold_down);
    assert_eq!(down().edit(World::save).step(), Step::PutBack);
    assert_eq!(down().step(), Step::SwitchBack, "nothing was saved yet");
    let restored = || down().edit(|world| world.upgrade.status.notes.restored = Some(2));
    waits_for(restored().step(), "old binary");
    assert_eq!(restored().edit(|world| world.devnet.status.observed_generation = 2).step(), Step::ReleaseBack);
    let released = || back().edit(|world| world.upgrade.status.notes.restored = Some(1));
    ends(released().step(), UpgradePhase::RolledBack, "it died");
    let unready = released().edit(|world| world.node(0).status.conditions.0.clear());
    waits_for(unready.step(), "ready with the old binary");
}

#[test]
fn what_has_ended_frees_its_saved_homes_before_it_is_tried_again() {
    let failed = World::new(UpgradePhase::RolledBack).edit(|world| {
        world.save();
        world.upgrade.spec.retry = 1;
    });
    assert_eq!(failed.step(), Step::Free);
    assert_eq!(failed.edit(|world| world.upgrade.status.saved = None).step(), Step::Begin);
    assert_eq!(World::new(UpgradePhase::Completed).step(), Step::Nothing);
}

#[test]
fn a_proposal_goes_from_its_draft_to_the_votes_of_all_and_its_end() {
    let proposing = |vote| {
        World::new(UpgradePhase::Proposing).edit(|world| {
            world.upgrade.status.notes.messages = "[{}]".into();
            world.vote = vote;
        })
    };
    assert_eq!(World::new(UpgradePhase::Proposing).step(), Step::Draft);
    assert_eq!(proposing(Vote::NotProposed).step(), Step::Propose);
    assert_eq!(proposing(Vote::Proposed(7)).step(), Step::NoteProposal(7));
    ends(proposing(Vote::Refused("no money".into())).step(), UpgradePhase::Failed, "no money");
    let voting = |vote| World::new(UpgradePhase::Voting).edit(|world| world.vote = vote);
    assert_eq!(voting(Vote::Open { missing: 1, ends: String::new() }).step(), Step::CastVotes);
    waits_for(voting(Vote::Open { missing: 0, ends: "noon".into() }).step(), "noon");
    assert!(matches!(voting(Vote::Passed).step(), Step::Advance { to: UpgradePhase::Waiting, .. }));
    ends(voting(Vote::Lost("was rejected".into())).step(), UpgradePhase::Failed, "was rejected");
}
