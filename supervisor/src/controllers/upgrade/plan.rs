//! What an upgrade needs next, decided from values alone.

use super::super::node::class_reason;
use crate::{
    model::{Desired, Devnet, ExitClass, HaltProof, Node, NodePhase, Timestamp, Upgrade, UpgradePhase, VerifiedBlock},
    plugin::upgrade::UpgradeState,
};
use std::{collections::BTreeMap, sync::Arc};

/// A node that died so often since the switch will not heal.
const CRASH_LOOP: u32 = 2;

/// What the devnet and its chain are like.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub(super) devnet: &'a Devnet,
    /// Those of the chain; services take no part.
    pub(super) nodes: &'a [Arc<Node>],
    /// Name of an upgrade that comes first.
    pub(super) before_it: Option<&'a str>,
    /// The highest block that any node is known to have.
    pub(super) height: u64,
    /// By short name: what nodes say of their halt. Asked only near the height.
    pub(super) halts: BTreeMap<String, UpgradeState>,
    pub(super) vote: Vote,
    /// Blocks since the switch, compared. Looked at only while verifying.
    pub(super) verdict: Verdict,
    pub(super) now: Timestamp,
}

/// How far the chain's governance is with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Vote {
    /// Nothing was looked at, or nothing is known.
    #[default]
    Unknown,
    /// No transaction proposes it yet.
    NotProposed,
    /// It is on its way into a block.
    Underway(String),
    Proposed(u64),
    /// The chain takes no such proposal, in its words.
    Refused(String),
    /// Open, and so many validators have not voted as they should.
    Open {
        missing: usize,
        ends: String,
    },
    Passed,
    /// It came to nothing, and why.
    Lost(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Verdict {
    /// Not enough blocks yet; in words.
    #[default]
    Early,
    Waiting(String),
    Equal(VerifiedBlock),
    Differs(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Say what it waits for. `look`: nothing announces its end, so look again soon.
    Wait {
        message: String,
        look: bool,
    },
    /// Take up a request to try again.
    Begin,
    /// Get the new binary and make sure that it fits.
    Check,
    /// Choose the height and draft the proposal.
    Draft,
    Propose,
    NoteProposal(u64),
    CastVotes,
    /// On to a phase.
    Advance {
        to: UpgradePhase,
        message: String,
        halts: Vec<HaltProof>,
    },
    /// Tell these nodes of the height.
    Tell(Vec<String>),
    /// Start nodes that their user stopped: they must come to the height with the old binary.
    Lend(Vec<String>),
    /// Try nodes once more that have failed: they too must come to the height.
    Revive(Vec<String>),
    /// Take the height back from all nodes that were told.
    Untell,
    /// Let the old binary pass the height.
    Skip {
        why: String,
    },
    /// Hold all nodes down.
    Hold,
    Save,
    /// Give one node the new binary, ahead of the others.
    Roll(String),
    Switch,
    /// Let the nodes run with the new binary.
    Release,
    Complete(VerifiedBlock),
    RollBack {
        why: String,
    },
    /// Put the saved homes back.
    PutBack,
    SwitchBack,
    /// Let the nodes run with the old binary.
    ReleaseBack,
    End {
        phase: UpgradePhase,
        why: String,
    },
    /// The saved homes are not needed any more.
    Free,
}

pub(super) fn plan(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    let status = &upgrade.status;
    if facts.devnet.metadata.deleted_at.is_some() {
        return Step::Nothing; // all of it goes with its devnet
    }
    if upgrade.is_asked_anew() && status.saved.is_none() {
        return Step::Begin;
    }
    if status.phase.is_final() {
        return if status.saved.is_some() { Step::Free } else { Step::Nothing };
    }
    if facts.devnet.spec.operations.reset != status.chain_epoch {
        return end(UpgradePhase::Failed, "its devnet was reset: the chain that it was meant for is gone");
    }
    match status.phase {
        UpgradePhase::Pending => pending(upgrade, facts),
        UpgradePhase::Proposing => proposing(upgrade, facts),
        UpgradePhase::Voting => voting(upgrade, facts),
        UpgradePhase::Waiting => waiting(upgrade, facts),
        UpgradePhase::Switching => switching(upgrade, facts),
        UpgradePhase::Verifying => verifying(upgrade, facts),
        UpgradePhase::RollingBack => rolling_back(upgrade, facts),
        UpgradePhase::Completed | UpgradePhase::RolledBack | UpgradePhase::Failed => Step::Nothing,
    }
}

fn pending(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if upgrade.spec.cancel {
        return end(UpgradePhase::Failed, "cancelled before anything was changed");
    }
    if let Some(other) = facts.before_it {
        return wait(format!("waits until upgrade {other} has ended"));
    }
    if let Some(step) = is_down(facts) {
        return step;
    }
    match passed(upgrade, facts) {
        Some(step) => step,
        None => Step::Check,
    }
}

fn proposing(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if let Some(step) = is_down(facts) {
        return step;
    }
    if upgrade.status.notes.messages.is_empty() {
        return if upgrade.spec.cancel { end(UpgradePhase::Failed, "cancelled before it was proposed") } else { Step::Draft };
    }
    match &facts.vote {
        Vote::NotProposed if upgrade.spec.cancel => end(UpgradePhase::Failed, "cancelled before it was proposed"),
        Vote::NotProposed => passed(upgrade, facts).unwrap_or(Step::Propose),
        Vote::Proposed(id) => Step::NoteProposal(*id),
        Vote::Refused(words) => end(UpgradePhase::Failed, &format!("the chain refuses the proposal: {words}")),
        Vote::Underway(what) => wait(what.clone()),
        _ => look("asks the chain for the proposal"),
    }
}

fn voting(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if let Some(step) = is_down(facts) {
        return step;
    }
    let id = upgrade.status.proposal_id.unwrap_or_default();
    match &facts.vote {
        Vote::Open { missing, .. } if *missing > 0 => Step::CastVotes,
        Vote::Open { ends, .. } => look(format!("proposal {id} is voted on until {ends}")),
        Vote::Passed => Step::Advance {
            to: UpgradePhase::Waiting,
            message: format!("proposal {id} has passed; the chain halts at height {}", upgrade.height().unwrap_or_default()),
            halts: Vec::new(),
        },
        Vote::Lost(words) if upgrade.spec.cancel => {
            end(UpgradePhase::Failed, &format!("cancelled: all validators voted no on proposal {id}, {words}"))
        }
        Vote::Lost(words) => end(UpgradePhase::Failed, &format!("proposal {id} {words}")),
        Vote::Refused(words) => end(UpgradePhase::Failed, &format!("the chain refuses the votes: {words}")),
        _ => look(format!("asks the chain for proposal {id}")),
    }
}

fn waiting(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    let (status, height) = (&upgrade.status, upgrade.height().unwrap_or_default());
    let told_by_us = status.notes.messages.is_empty();
    let (halted, others) = halted(upgrade, facts);
    if upgrade.spec.cancel {
        return match (status.notes.halts, told_by_us && halted.is_empty()) {
            (false, _) => end(UpgradePhase::Failed, "cancelled before the switch: nothing was changed"),
            (true, true) if status.notes.told.is_empty() => end(UpgradePhase::Failed, "cancelled before the height: nothing was changed"),
            (true, true) => Step::Untell,
            (true, false) => Step::Skip { why: format!("cancelled: the chain goes on past height {height} with the binary that it has") },
        };
    }
    if !status.notes.halts {
        let message = format!("height {height} is reached");
        return match facts.height >= height {
            true => Step::Advance { to: UpgradePhase::Switching, message, halts: Vec::new() },
            false => is_down(facts).unwrap_or_else(|| wait(format!("waits for height {height}"))),
        };
    }
    if halted.is_empty() && facts.height > height {
        return end(UpgradePhase::Failed, &format!("the chain is at {} and did not halt at {height}", facts.height));
    }
    if let Some(step) = is_down(facts) {
        return step;
    }
    if others.is_empty() {
        let message = format!("all {} nodes have halted at height {height}", halted.len());
        return Step::Advance { to: UpgradePhase::Switching, message, halts: halted };
    }
    let untold: Vec<String> = others
        .iter()
        .filter(|node| can_be_told(node, !halted.is_empty()) && !status.notes.told.contains(&short(node)))
        .map(|node| short(node))
        .collect();
    if told_by_us && !untold.is_empty() {
        return Step::Tell(untold);
    }
    if halted.is_empty() {
        let message = format!("waits for height {height}");
        return if facts.height + 1 >= height { look(message) } else { wait(message) };
    }
    let stopped: Vec<String> = others.iter().filter(|node| node.spec.desired == Desired::Stopped).map(|node| short(node)).collect();
    if !stopped.is_empty() {
        return Step::Lend(stopped);
    }
    let failed: Vec<&Arc<Node>> = others.iter().copied().filter(|node| node.status.phase == NodePhase::Failed && !node.is_asked_anew()).collect();
    if let Some(node) = failed.iter().find(|node| status.notes.revived.contains(&short(node))) {
        return Step::RollBack { why: format!("{} cannot come to height {height} with the old binary: {}", short(node), last_words(node)) };
    }
    if !failed.is_empty() {
        return Step::Revive(failed.into_iter().map(|node| short(node)).collect());
    }
    let named: Vec<String> = others.iter().map(|node| plight(node, facts)).collect();
    look(format!("{} of {} nodes have halted at height {height}; not yet: {}", halted.len(), facts.nodes.len(), named.join(", ")))
}

fn switching(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if upgrade.spec.cancel {
        return Step::RollBack { why: "cancelled".into() };
    }
    if upgrade.spec.rolling {
        return rolling(upgrade, facts);
    }
    if let Some(step) = hold(upgrade, facts) {
        return step;
    }
    if upgrade.status.saved.is_none() {
        return Step::Save;
    }
    change_over(upgrade, facts)
}

/// Each node is up with the new binary before the next one goes down; the devnet's own binary comes last, and restarts nothing.
fn rolling(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if let Some(step) = is_down(facts) {
        return step;
    }
    let rolled = &upgrade.status.notes.rolled;
    let mut done = facts.nodes.iter().filter(|node| rolled.contains(&short(node)));
    if let Some(why) = done.clone().filter(|node| node.is_wanted()).find_map(|node| broken(upgrade, node)) {
        return Step::RollBack { why };
    }
    if let Some(node) = done.find(|node| !runs_the_new(upgrade, node)) {
        return match taken_up(facts.devnet.metadata.generation, facts) {
            Taken::Refused(why) => Step::RollBack { why: format!("the devnet cannot take the new binary: {why}") },
            _ if overdue(upgrade, facts) => Step::RollBack { why: format!("not ready with the new binary in time: {}", plight(node, facts)) },
            _ => wait(format!("waits until {} is ready with the new binary; {} of {} nodes have it", short(node), rolled.len(), facts.nodes.len())),
        };
    }
    match facts.nodes.iter().find(|node| !rolled.contains(&short(node)) && follows_its_devnet(upgrade, node, facts)) {
        Some(next) => Step::Roll(short(next)),
        None => change_over(upgrade, facts),
    }
}

/// Its spec names no other binary than its devnet does.
fn follows_its_devnet(upgrade: &Upgrade, node: &Node, facts: &Facts<'_>) -> bool {
    let old = upgrade.status.notes.before.as_ref().map_or(&facts.devnet.spec.binary, |before| &before.binary);
    facts.devnet.spec.node(&short(node)).and_then(|over| over.binary.as_ref()).is_none_or(|own| Some(own) == old.as_ref())
}

/// One that its user stopped has it, and runs it when it is started.
fn runs_the_new(upgrade: &Upgrade, node: &Node) -> bool {
    let has_it = upgrade.status.binary.as_ref().is_some_and(|binary| binary.sha256 == node.spec.binary_hash);
    let runs = node.status.phase == NodePhase::Running && !node.is_asked_anew() && node.status.conditions.is_true("Ready");
    has_it && (!node.is_wanted() || runs)
}

fn change_over(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    match upgrade.status.notes.switched {
        None => Step::Switch,
        Some(generation) => match taken_up(generation, facts) {
            Taken::Yes => Step::Release,
            Taken::Refused(why) => Step::RollBack { why: format!("the devnet cannot take the new binary: {why}") },
            Taken::NotYet if overdue(upgrade, facts) => Step::RollBack { why: "the devnet did not take up the new binary in time".into() },
            Taken::NotYet => wait("the devnet takes up the new binary"),
        },
    }
}

fn verifying(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    if upgrade.spec.cancel {
        return Step::RollBack { why: "cancelled".into() };
    }
    if let Some(why) = facts.nodes.iter().filter(|node| node.is_wanted()).find_map(|node| broken(upgrade, node)) {
        return Step::RollBack { why };
    }
    match &facts.verdict {
        Verdict::Equal(block) => Step::Complete(block.clone()),
        Verdict::Differs(why) => Step::RollBack { why: why.clone() },
        Verdict::Early | Verdict::Waiting(_) if facts.devnet.spec.desired() == Desired::Stopped => {
            wait("its devnet is stopped; it is verified when that runs")
        }
        Verdict::Early | Verdict::Waiting(_) if overdue(upgrade, facts) => {
            let unready: Vec<String> = facts.nodes.iter().filter(|node| node.is_wanted()).map(|node| plight(node, facts)).collect();
            Step::RollBack { why: format!("no {} blocks with the new binary in time; {}", upgrade.blocks_to_verify(), unready.join(", ")) }
        }
        Verdict::Early => look(format!("waits for {} blocks with the new binary", upgrade.blocks_to_verify())),
        Verdict::Waiting(what) => look(what.clone()),
    }
}

fn rolling_back(upgrade: &Upgrade, facts: &Facts<'_>) -> Step {
    let (status, notes) = (&upgrade.status, &upgrade.status.notes);
    let why = status.why.clone().unwrap_or_default();
    let Some(generation) = notes.restored else {
        if let Some(step) = hold(upgrade, facts) {
            return step;
        }
        return if status.saved.is_some() && !notes.put_back { Step::PutBack } else { Step::SwitchBack };
    };
    if is_held(upgrade, facts) {
        return match taken_up(generation, facts) {
            Taken::NotYet if !overdue(upgrade, facts) => wait("the devnet takes up the old binary"),
            _ => Step::ReleaseBack,
        };
    }
    let unready: Vec<&Arc<Node>> = facts.nodes.iter().filter(|node| node.is_wanted() && !node.status.conditions.is_true("Ready")).collect();
    match unready.first() {
        Some(node) if overdue(upgrade, facts) => {
            end(UpgradePhase::RolledBack, &format!("{why}; the old binary and state are back, but {}", plight(node, facts)))
        }
        Some(_) => wait("waits until the nodes are ready with the old binary"),
        None => end(UpgradePhase::RolledBack, &why),
    }
}

/// A devnet that does not run, or is not there yet, moves no chain.
fn is_down(facts: &Facts<'_>) -> Option<Step> {
    let devnet = facts.devnet;
    if devnet.spec.desired() == Desired::Stopped {
        return Some(wait(format!("its devnet is stopped; dvbctl start {}", devnet.metadata.name)));
    }
    (!devnet.status.conditions.is_true("Provisioned")).then(|| wait("its devnet is not provisioned"))
}

/// The chain is where it should halt, or past it, before anything told it to.
fn passed(upgrade: &Upgrade, facts: &Facts<'_>) -> Option<Step> {
    let height = upgrade.height().filter(|height| *height <= facts.height)?;
    Some(end(UpgradePhase::Failed, &format!("height {height} is past: the chain is at {}", facts.height)))
}

/// All nodes of the devnet are held down, or the step towards that.
fn hold(upgrade: &Upgrade, facts: &Facts<'_>) -> Option<Step> {
    if !is_held(upgrade, facts) {
        return Some(Step::Hold);
    }
    let up = facts.nodes.iter().find(|node| node.status.phase != NodePhase::Stopped || node.status.pid.is_some() || !node.spec.suspended);
    up.map(|node| wait(format!("waits until {} is down", short(node))))
}

fn is_held(upgrade: &Upgrade, facts: &Facts<'_>) -> bool {
    facts.devnet.status.held.as_ref() == Some(&upgrade.metadata.name)
}

enum Taken {
    NotYet,
    Yes,
    Refused(String),
}

/// Whether the devnet's controller has made its nodes match the spec of this generation.
fn taken_up(generation: u64, facts: &Facts<'_>) -> Taken {
    let status = &facts.devnet.status;
    if status.observed_generation < generation {
        return Taken::NotYet;
    }
    match status.conditions.get("Provisioned") {
        Some(condition) if status.conditions.is_false("Provisioned") => Taken::Refused(condition.message.clone()),
        _ => Taken::Yes,
    }
}

/// Nodes that have halted for this upgrade, each with its proof, and those that have not.
fn halted<'a>(upgrade: &Upgrade, facts: &'a Facts<'_>) -> (Vec<HaltProof>, Vec<&'a Arc<Node>>) {
    let (mut proofs, mut others) = (Vec::new(), Vec::new());
    for node in facts.nodes {
        let state = facts
            .halts
            .get(&short(node))
            .filter(|state| state.halted && state.name == upgrade.spec.upgrade_name && Some(state.height) == upgrade.height());
        match state {
            Some(state) => proofs.push(HaltProof { node: short(node), evidence: state.evidence.clone() }),
            None => others.push(node),
        }
    }
    (proofs, others)
}

/// Where others have halted, a node that starts never becomes ready: it waits for a block.
fn can_be_told(node: &Node, others_halted: bool) -> bool {
    node.status.phase == NodePhase::Running || (others_halted && node.status.phase == NodePhase::Starting)
}

/// Why a node with the new binary will not come to anything, if so.
fn broken(upgrade: &Upgrade, node: &Node) -> Option<String> {
    let (name, status) = (short(node), &node.status);
    let words = last_words(node);
    if status.phase == NodePhase::Failed && !node.is_asked_anew() {
        return Some(format!("{name} failed with the new binary: {words}"));
    }
    let before = upgrade.status.notes.restarts.get(&name).copied().unwrap_or(0);
    if status.restart_count.saturating_sub(before) >= CRASH_LOOP {
        return Some(format!("{name} dies again and again with the new binary: {words}"));
    }
    let sick = status.conditions.get("Progressing").filter(|_| status.conditions.is_false("Progressing"))?;
    let hopeless = [ExitClass::AppHash, ExitClass::ConsensusFailure, ExitClass::UpgradeNeeded, ExitClass::Panic].map(class_reason);
    hopeless.contains(&sick.reason.as_str()).then(|| format!("{name} cannot go on with the new binary: {}", sick.message))
}

/// How its last process ended.
fn last_words(node: &Node) -> String {
    node.status.last_exit.as_ref().map(|exit| exit.message.clone()).unwrap_or_default()
}

fn overdue(upgrade: &Upgrade, facts: &Facts<'_>) -> bool {
    upgrade.status.notes.deadline.is_some_and(|deadline| deadline <= facts.now)
}

/// `validator-1 (Crashed: exit code 1)`
fn plight(node: &Node, facts: &Facts<'_>) -> String {
    let name = short(node);
    let said = facts.halts.get(&name).map(|state| state.evidence.clone()).filter(|said| !said.is_empty());
    let ready = || node.status.conditions.get("Ready").map(|ready| ready.message.clone());
    match said.or_else(ready).filter(|words| !words.is_empty()) {
        Some(words) => format!("{name} ({:?}: {words})", node.status.phase),
        None => format!("{name} ({:?})", node.status.phase),
    }
}

pub(super) fn short(node: &Node) -> String {
    node.node_name().short
}

fn wait(message: impl Into<String>) -> Step {
    Step::Wait { message: message.into(), look: false }
}

fn look(message: impl Into<String>) -> Step {
    Step::Wait { message: message.into(), look: true }
}

fn end(phase: UpgradePhase, why: &str) -> Step {
    Step::End { phase, why: why.to_owned() }
}

#[cfg(test)]
mod tests;
