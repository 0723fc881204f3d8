//! Carries out what the plan decided: each step does its work, which is harmless when done again, then commits what came of it.

use super::super::{Context, Edit, ReconcileError, Story, placing::placed};
use super::{
    check,
    facts::{Chain, Seen},
    homes,
    plan::{Step, short},
    switch, vote,
};
use crate::{
    model::{
        BinaryStatus, Condition, ConditionStatus, Desired, Devnet, EventId, FaultCode, HaltProof, Key, Node, NodeSpec, PastUpgrade, Upgrade,
        UpgradePhase, UpgradeStatus, VerifiedBlock,
    },
    plugin::{PluginError, upgrade::Schedule},
    store::Write,
};
use std::{sync::Arc, time::Duration};

/// Above the highest block, for another try whose height is past.
const NOTICE: u64 = 20;

pub(super) async fn apply(upgrade: &Upgrade, seen: &Seen, step: Step, cx: &Context) -> Result<(), ReconcileError> {
    match step {
        Step::Nothing => Ok(()),
        Step::Wait { message, .. } => say(upgrade, &message, cx).await,
        Step::Begin => begin(upgrade, seen, cx).await,
        Step::Check => check::check(upgrade, seen, cx).await,
        Step::Draft => vote::draft(upgrade, seen, cx).await,
        Step::Propose => vote::propose(upgrade, seen, cx).await,
        Step::NoteProposal(id) => {
            let message = format!("proposal {id} is on the chain");
            let change = |next: &mut Upgrade| next.status.proposal_id = Some(id);
            turn(upgrade, UpgradePhase::Voting, message, change, cx).await
        }
        Step::CastVotes => vote::cast(upgrade, seen, cx).await,
        Step::Advance { to, message, halts } => {
            let proofs = proven(&halts);
            let change = |next: &mut Upgrade| next.status.halts = halts;
            let story = story(to, &message).observed(proofs);
            commit(
                upgrade,
                Some(story),
                vec![],
                |next| {
                    change(next);
                    enter(next, to, message);
                },
                cx,
            )
            .await
        }
        Step::Tell(names) => tell(upgrade, seen, &names, cx).await,
        Step::Lend(names) => lend(upgrade, seen, names, cx).await,
        Step::Revive(names) => revive(upgrade, seen, names, cx).await,
        Step::Untell => untell(upgrade, seen, cx).await,
        Step::Skip { why } => switch::skip(upgrade, seen, why, cx).await,
        Step::Hold => hold(upgrade, seen, cx).await,
        Step::Save => homes::save(upgrade, seen, cx).await,
        Step::Roll(name) => switch::roll(upgrade, seen, &name, cx).await,
        Step::Switch => switch::switch(upgrade, seen, cx).await,
        Step::Release => switch::release(upgrade, seen, cx).await,
        Step::Complete(block) => complete(upgrade, seen, block, cx).await,
        Step::RollBack { why } => {
            let message = format!("brings the devnet back to how it was: {why}");
            let story = story(UpgradePhase::RollingBack, &message).warn();
            let change = |next: &mut Upgrade| {
                next.status.why = Some(why);
                next.status.notes.deadline = None;
                enter(next, UpgradePhase::RollingBack, message);
            };
            commit(upgrade, Some(story), vec![], change, cx).await
        }
        Step::PutBack => homes::put_back(upgrade, seen, cx).await,
        Step::SwitchBack => switch::switch_back(upgrade, seen, cx).await,
        Step::ReleaseBack => switch::release_back(upgrade, seen, cx).await,
        Step::End { phase, why } => end(upgrade, seen, phase, why, cx).await,
        Step::Free => homes::free(upgrade, seen, cx).await,
    }
}

/// Writes the upgrade as `change` leaves it, with `also` and the event in one commit.
pub(super) async fn commit(
    upgrade: &Upgrade,
    story: Option<Story>,
    also: Vec<Write>,
    change: impl FnOnce(&mut Upgrade),
    cx: &Context,
) -> Result<(), ReconcileError> {
    let writes = written(upgrade, story, also, change, cx).1;
    cx.store.commit(writes).await?;
    Ok(())
}

/// As `commit`, together with a change of the devnet, whose event names the upgrade's as its cause.
pub(super) async fn commit_with_devnet(
    upgrade: &Upgrade,
    devnet: &Devnet,
    (of_upgrade, of_devnet): (Story, Story),
    also: Vec<Write>,
    change: impl FnOnce(&mut Upgrade),
    edit: impl Fn(&mut Devnet) + Send + Sync,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let (cause, writes) = written(upgrade, Some(of_upgrade), also, change, cx);
    let key = Key::devnet(&devnet.metadata.namespace, &devnet.metadata.name);
    let edit = |current: &mut Devnet| {
        edit(current);
        current.status.cause = cause.clone();
        Edit::Tell(of_devnet.clone())
    };
    Ok(cx.edit_devnet(&key, writes, edit).await?)
}

fn written(
    upgrade: &Upgrade,
    story: Option<Story>,
    mut writes: Vec<Write>,
    change: impl FnOnce(&mut Upgrade),
    cx: &Context,
) -> (Option<EventId>, Vec<Write>) {
    let mut next = upgrade.clone();
    change(&mut next);
    next.status.observed_generation = upgrade.metadata.generation;
    next.status.conditions.remove(PROGRESSING);
    if let Some(story) = story {
        next.status.cause = Some(cx.tell_into(&mut writes, &key_of(upgrade), upgrade.status.cause.clone(), story));
    }
    let cause = next.status.cause.clone();
    writes.push(Write::update(next));
    (cause, writes)
}

/// Into a phase, with what it does there in words.
pub(super) fn enter(upgrade: &mut Upgrade, phase: UpgradePhase, message: String) {
    upgrade.status.phase = phase;
    upgrade.status.message = message;
}

pub(super) fn story(phase: UpgradePhase, message: &str) -> Story {
    Story::new("upgrade", &format!("{phase:?}"), message).desired("Completed")
}

pub(super) async fn turn(
    upgrade: &Upgrade,
    phase: UpgradePhase,
    message: String,
    change: impl FnOnce(&mut Upgrade),
    cx: &Context,
) -> Result<(), ReconcileError> {
    let told = story(phase, &message).observed(format!("{:?}", upgrade.status.phase));
    let change = |next: &mut Upgrade| {
        change(next);
        enter(next, phase, message);
    };
    commit(upgrade, Some(told), vec![], change, cx).await
}

/// What it waits for, as its message; nothing is written where that is said already.
pub(super) async fn say(upgrade: &Upgrade, message: &str, cx: &Context) -> Result<(), ReconcileError> {
    let is_new = upgrade.status.message != message || upgrade.status.observed_generation != upgrade.metadata.generation;
    if !is_new && upgrade.status.conditions.get(PROGRESSING).is_none() {
        return Ok(());
    }
    commit(upgrade, None, vec![], |next| next.status.message = message.to_owned(), cx).await
}

const PROGRESSING: &str = "Progressing";

/// A step failed in a way that may pass: it is said once, and tried again.
pub(super) async fn complain(upgrade: &Upgrade, error: &ReconcileError, cx: &Context) -> Result<(), ReconcileError> {
    let (fault, now) = (error.fault(), cx.clock.now());
    let reason = format!("{:?}", fault.code);
    let mut next = upgrade.clone();
    let condition = Condition { remedy: fault.remedy.clone(), ..Condition::new(PROGRESSING, ConditionStatus::False, &reason, fault.message.clone()) };
    if !next.status.conditions.set(condition, now) {
        return Ok(());
    }
    let mut writes = Vec::new();
    let told = Story::new("upgrade", &reason, fault.message.clone()).warn().observed(format!("{:?}", upgrade.status.phase)).result("is tried again");
    next.status.cause = Some(cx.tell_into(&mut writes, &key_of(upgrade), upgrade.status.cause.clone(), told));
    writes.push(Write::update(next));
    cx.store.commit(writes).await?;
    Ok(())
}

/// Forgets the attempt before. A height that is past meanwhile is moved ahead.
async fn begin(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let asked = upgrade.spec.height;
    let height = (asked > 0 && asked <= seen.height + 1).then_some(seen.height + NOTICE);
    let message = match height {
        Some(height) => format!("tries again; height {asked} is past, it is to be {height}"),
        None => "tries again".to_owned(),
    };
    let told = Story::new("upgrade", "Retrying", message.clone()).observed(format!("{:?}", upgrade.status.phase)).desired("Completed");
    let (attempt, chain_epoch) = (upgrade.spec.retry, seen.devnet.spec.operations.reset);
    let change = |next: &mut Upgrade| {
        let status = std::mem::take(&mut next.status);
        next.status = UpgradeStatus { attempt, chain_epoch, height, message, cause: status.cause, ..UpgradeStatus::default() };
    };
    commit(upgrade, Some(told), vec![], change, cx).await
}

async fn tell(upgrade: &Upgrade, seen: &Seen, names: &[String], cx: &Context) -> Result<(), ReconcileError> {
    let Some(chain) = seen.chain(cx).await? else { return Ok(()) };
    let (name, height) = (&upgrade.spec.upgrade_name, upgrade.height().unwrap_or_default());
    let late = seen.is_somebody_halted();
    let order = if late { Schedule::LateHaltAt(height) } else { Schedule::HaltAt(height) };
    let mut told = upgrade.status.notes.told.clone();
    for node in seen.nodes.iter().filter(|node| names.contains(&short(node))) {
        match chain.plugin.schedule_upgrade(&chain.devnet, &placed(node), name, order).await {
            Ok(()) => told.push(short(node)),
            Err(PluginError::Rejected { code, message, .. }) if code == "FailedPrecondition" && !late => {
                take_back(upgrade, seen, &chain, &told).await;
                return end(upgrade, seen, UpgradePhase::Failed, format!("{} refuses: {message}", node.metadata.name), cx).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let message = format!("{} of {} nodes know that they are to halt at height {height}", told.len(), seen.nodes.len());
    let story = Story::new("upgrade", "Scheduled", message.clone()).action("tell nodes").desired("Completed");
    let change = |next: &mut Upgrade| {
        next.status.notes.told = told;
        next.status.message = message;
    };
    commit(upgrade, Some(story), vec![], change, cx).await
}

/// From those who were told before one refused. Who cannot be asked keeps it, and halts alone.
async fn take_back(upgrade: &Upgrade, seen: &Seen, chain: &Chain, told: &[String]) {
    for node in seen.nodes.iter().filter(|node| told.contains(&short(node))) {
        let taken = chain.plugin.schedule_upgrade(&chain.devnet, &placed(node), &upgrade.spec.upgrade_name, Schedule::Never).await;
        if let Err(error) = taken {
            tracing::warn!(node = node.metadata.name, %error, "still knows of the upgrade");
        }
    }
}

async fn untell(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let Some(chain) = seen.chain(cx).await? else { return Ok(()) };
    for node in seen.nodes.iter().filter(|node| upgrade.status.notes.told.contains(&short(node))) {
        chain.plugin.schedule_upgrade(&chain.devnet, &placed(node), &upgrade.spec.upgrade_name, Schedule::Never).await?;
    }
    let why = format!("cancelled: all nodes know that there is no halt at height {}", upgrade.height().unwrap_or_default());
    end(upgrade, seen, UpgradePhase::Failed, why, cx).await
}

async fn lend(upgrade: &Upgrade, seen: &Seen, names: Vec<String>, cx: &Context) -> Result<(), ReconcileError> {
    let message = format!("starts {}, which must come to the height with the old binary", names.join(", "));
    let mut also = Vec::new();
    for node in seen.nodes.iter().filter(|node| names.contains(&short(node))) {
        also.extend(wanted(node, Desired::Running, &message, cx));
    }
    let story = Story::new("upgrade", "StartsStopped", message.clone()).action("start").desired("Completed");
    let change = |next: &mut Upgrade| {
        next.status.notes.lent.extend(names);
        next.status.message = message;
    };
    commit(upgrade, Some(story), also, change, cx).await
}

async fn revive(upgrade: &Upgrade, seen: &Seen, names: Vec<String>, cx: &Context) -> Result<(), ReconcileError> {
    let message = format!("tries {} once more, failed and not at the height yet", names.join(", "));
    let mut also = Vec::new();
    for node in seen.nodes.iter().filter(|node| names.contains(&short(node))) {
        let story = Story::new("upgrade", "RestartRequested", &message).desired("running").action("restart");
        also.extend(changed(node, story, |spec| spec.restart_request += 1, cx));
    }
    let story = Story::new("upgrade", "RestartsFailed", message.clone()).action("restart").desired("Completed");
    let change = |next: &mut Upgrade| {
        next.status.notes.revived.extend(names);
        next.status.message = message;
    };
    commit(upgrade, Some(story), also, change, cx).await
}

/// The writes that start or stop one node.
pub(super) fn wanted(node: &Arc<Node>, desired: Desired, why: &str, cx: &Context) -> Vec<Write> {
    let story = Story::new("upgrade", "SpecChanged", why).desired(format!("{desired:?}").to_lowercase()).action("update");
    changed(node, story, |spec| spec.desired = desired, cx)
}

fn changed(node: &Arc<Node>, story: Story, change: impl FnOnce(&mut NodeSpec), cx: &Context) -> Vec<Write> {
    let mut next = Node::clone(node);
    change(&mut next.spec);
    next.metadata.generation += 1;
    let mut writes = Vec::new();
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    next.status.cause = Some(cx.tell_into(&mut writes, &key, node.status.cause.clone(), story));
    writes.push(Write::update(next));
    writes
}

async fn hold(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (name, message) = (upgrade.metadata.name.clone(), "stops all nodes".to_owned());
    let stories = (
        Story::new("upgrade", "HoldsNodes", message.clone()).action("stop").observed(format!("height {}", seen.height)),
        Story::new("upgrade", "HeldDown", format!("upgrade {name} holds all nodes down")).desired("stopped").action("stop"),
    );
    let last = seen.height;
    let change = |next: &mut Upgrade| {
        next.status.message = message;
        next.status.notes.last_height = next.status.notes.last_height.max(last);
    };
    let edit = |devnet: &mut Devnet| devnet.status.held = Some(name.clone());
    commit_with_devnet(upgrade, &seen.devnet, stories, vec![], change, edit, cx).await
}

async fn complete(upgrade: &Upgrade, seen: &Seen, block: VerifiedBlock, cx: &Context) -> Result<(), ReconcileError> {
    let version = upgrade.status.sdk_version.clone();
    let at = upgrade.height().unwrap_or(upgrade.status.notes.last_height);
    let message = match block.app_hash.as_str() {
        "" => format!("all {} nodes run the new binary", block.nodes),
        hash => format!("all {} nodes came to the state {} at height {} with the new binary", block.nodes, beginning(hash), block.height),
    };
    let name = &upgrade.spec.upgrade_name;
    let binary = upgrade.status.binary.as_ref().map(|binary| binary.source.clone()).unwrap_or_default();
    let stories = (
        story(UpgradePhase::Completed, &message).result("Completed"),
        Story::new("upgrade", "Upgraded", format!("{name} is done; its binary is {binary} now, which its file should say too")).action("upgrade"),
    );
    let change = |next: &mut Upgrade| {
        next.status.verified = Some(block);
        next.status.notes.deadline = None;
        enter(next, UpgradePhase::Completed, message);
    };
    let past = PastUpgrade {
        name: name.clone(),
        before: upgrade.status.notes.before.as_ref().and_then(|before| before.binary.clone()),
        after: upgrade.spec.binary.clone(),
        height: at,
        at: cx.clock.now(),
        chain_epoch: upgrade.status.chain_epoch,
    };
    let edit = |devnet: &mut Devnet| {
        date(devnet, &version, at);
        devnet.status.upgrades.retain(|former| former.chain_epoch == past.chain_epoch);
        devnet.status.upgrades.push(past.clone());
    };
    commit_with_devnet(upgrade, &seen.devnet, stories, vec![], change, edit, cx).await
}

/// Provisioning noted that the version changed; at which height, only we know.
pub(super) fn date(devnet: &mut Devnet, version: &str, height: u64) {
    if let Some(last) = devnet.status.sdk_version_history.last_mut().filter(|last| last.version == version && last.height == 0) {
        last.height = height;
    }
}

pub(super) async fn end(upgrade: &Upgrade, seen: &Seen, phase: UpgradePhase, why: String, cx: &Context) -> Result<(), ReconcileError> {
    let told = story(phase, &why).warn().observed(format!("{:?}", upgrade.status.phase)).result(format!("{phase:?}"));
    let name = upgrade.metadata.name.clone();
    let change = |next: &mut Upgrade| {
        next.status.why = Some(why.clone());
        next.status.notes.deadline = None;
        enter(next, phase, why.clone());
    };
    if seen.devnet.status.held.as_ref() != Some(&name) {
        return commit(upgrade, Some(told), vec![], change, cx).await;
    }
    let let_go = Story::new("upgrade", "LetGo", format!("upgrade {name} holds its nodes down no more")).action("start");
    commit_with_devnet(upgrade, &seen.devnet, (told, let_go), vec![], change, |devnet| devnet.status.held = None, cx).await
}

/// Refused for good, or only for now?
pub(super) async fn fail_unless_it_passes(upgrade: &Upgrade, seen: &Seen, error: ReconcileError, cx: &Context) -> Result<(), ReconcileError> {
    let fault = error.fault();
    // Who asks for a module or a file that is not there waits for nothing: he can try again when it is.
    let may_pass = fault.retriable && fault.code != FaultCode::BinaryBuildFailed;
    if may_pass || matches!(error, ReconcileError::Store(_)) || fault.code == FaultCode::DiskFull {
        return Err(error);
    }
    let why = match &fault.remedy {
        Some(remedy) => format!("{}; {remedy}", fault.message),
        None => fault.message,
    };
    end(upgrade, seen, UpgradePhase::Failed, why, cx).await
}

pub(super) fn deadline(within: Duration, cx: &Context) -> Option<crate::model::Timestamp> {
    Some(cx.clock.now().plus(within))
}

pub(super) fn key_of(upgrade: &Upgrade) -> Key {
    Key::upgrade(&upgrade.metadata.namespace, &upgrade.metadata.name)
}

pub(super) fn source_of(binary: Option<&BinaryStatus>) -> String {
    binary.map(|binary| binary.source.clone()).unwrap_or_default()
}

fn proven(halts: &[HaltProof]) -> String {
    let proofs: Vec<String> = halts.iter().map(|halt| format!("{} {}", halt.node, halt.evidence)).collect();
    proofs.join("; ")
}

fn beginning(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
