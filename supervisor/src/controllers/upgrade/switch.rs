//! What a switch changes in the devnet's spec, and letting its nodes go: recorded on both, in one commit each.

use super::super::{Context, ReconcileError, Story};
use super::{
    apply::{commit_with_devnet, date, deadline, enter, source_of, story, wanted},
    facts::Seen,
    plan::short,
};
use crate::{
    model::{Before, Desired, Devnet, DevnetSpec, NodeOverride, Upgrade, UpgradePhase},
    store::Write,
    sys::failpoint,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A devnet takes a binary that is in the cache within this.
const TAKE_UP_WITHIN: Duration = Duration::from_secs(120);
/// A node is up and in step within this, before blocks count.
const START_WITHIN: Duration = Duration::from_secs(90);
/// When the spec names no block time.
const USUAL_BLOCK: Duration = Duration::from_secs(5);

/// Gives one node the new binary while the others run on with the old one.
pub(super) async fn roll(upgrade: &Upgrade, seen: &Seen, name: &str, cx: &Context) -> Result<(), ReconcileError> {
    let (before, last) = (before(upgrade, &seen.devnet), seen.height);
    let new = source_of(upgrade.status.binary.as_ref());
    let message = format!("{name} gets the new binary, {} of {} nodes have it", upgrade.status.notes.rolled.len(), seen.nodes.len());
    let stories = (
        Story::new("upgrade", "Rolling", message.clone()).action("switch one node").desired("Completed"),
        Story::new("upgrade", "BinaryChanged", format!("{name} runs {new}, by upgrade {}", upgrade.metadata.name)).desired(new),
    );
    let restarts: BTreeMap<String, u32> = seen.nodes.iter().map(|node| (short(node), node.status.restart_count)).collect();
    let change = |next: &mut Upgrade| {
        let notes = &mut next.status.notes;
        notes.before = Some(before);
        notes.rolled.push(name.to_owned());
        notes.restarts = restarts;
        notes.last_height = notes.last_height.max(last);
        notes.deadline = deadline(TAKE_UP_WITHIN + START_WITHIN, cx);
        next.status.message = message;
    };
    let edit = |current: &mut Devnet| {
        give(&mut current.spec, name, upgrade);
        current.metadata.generation += 1;
    };
    commit_with_devnet(upgrade, &seen.devnet, stories, vec![], change, edit, cx).await
}

pub(super) async fn switch(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (devnet, last) = (&seen.devnet, seen.height);
    let (before, rolled) = (before(upgrade, devnet), &upgrade.status.notes.rolled);
    let was = before.clone();
    let (new, old) = (source_of(upgrade.status.binary.as_ref()), source_of(devnet.status.binary.as_ref()));
    let message = format!("the devnet's binary is {new} from now on");
    let stories = (
        story(UpgradePhase::Switching, &message).observed(old.clone()).action("switch"),
        Story::new("upgrade", "BinaryChanged", format!("spec.binary is {new}, by upgrade {}", upgrade.metadata.name)).observed(old).desired(new),
    );
    let generation = devnet.metadata.generation + 1;
    let change = |next: &mut Upgrade| {
        next.status.notes.before = Some(before);
        next.status.notes.switched = Some(generation);
        next.status.notes.last_height = next.status.notes.last_height.max(last);
        next.status.notes.deadline = deadline(TAKE_UP_WITHIN, cx);
        next.status.message = message;
    };
    let edit = |current: &mut Devnet| {
        unroll(&mut current.spec, rolled, &was);
        use_binary(&mut current.spec, upgrade);
        current.metadata.generation += 1;
    };
    commit_with_devnet(upgrade, devnet, stories, vec![], change, edit, cx).await?;
    failpoint("upgrade/switched");
    Ok(())
}

/// Lets the nodes run with the new binary.
pub(super) async fn release(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let restarts: BTreeMap<String, u32> = seen.nodes.iter().map(|node| (short(node), node.status.restart_count)).collect();
    let blocks = seen.devnet.spec.block_time.map_or(USUAL_BLOCK, |time| time.0) * u32::try_from(upgrade.blocks_to_verify()).unwrap_or(u32::MAX) * 4;
    let message = "starts all nodes with the new binary".to_owned();
    let stories = (story(UpgradePhase::Verifying, &message).action("start"), let_go(upgrade));
    let change = |next: &mut Upgrade| {
        next.status.notes.restarts = restarts;
        next.status.notes.deadline = deadline(START_WITHIN + blocks, cx);
        enter(next, UpgradePhase::Verifying, message);
    };
    let also = back_to_their_users(upgrade, seen, cx);
    commit_with_devnet(upgrade, &seen.devnet, stories, also, change, |devnet| devnet.status.held = None, cx).await
}

/// The spec as it was before the switch; nodes of a chain that halted get what lets the old binary pass the height.
pub(super) async fn switch_back(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (devnet, notes) = (&seen.devnet, &upgrade.status.notes);
    let old = notes.before.as_ref().and_then(|before| before.binary.as_ref()).map(crate::binaries::describe);
    let message = match old {
        Some(old) => format!("the devnet's binary is {old} again"),
        None => "the devnet keeps its binary".to_owned(),
    };
    let skip = if notes.halts { notes.skip_args.clone() } else { Vec::new() };
    let message = if skip.is_empty() { message } else { format!("{message}; its nodes pass the height with {}", skip.join(" ")) };
    let stories = (
        story(UpgradePhase::RollingBack, &message).warn().action("switch back"),
        Story::new("upgrade", "BinaryChanged", format!("spec.binary is as it was before upgrade {}", upgrade.metadata.name)).warn(),
    );
    let generation = devnet.metadata.generation + 1;
    let change = |next: &mut Upgrade| {
        next.status.notes.restored = Some(generation);
        next.status.notes.deadline = deadline(TAKE_UP_WITHIN, cx);
        next.status.message = message;
    };
    let names: Vec<String> = seen.nodes.iter().map(|node| short(node)).collect();
    let edit = |current: &mut Devnet| {
        if let Some(before) = &notes.before {
            unroll(&mut current.spec, &notes.rolled, before);
            restore_binaries(&mut current.spec, before);
        }
        add_args(&mut current.spec, &names, &skip);
        current.metadata.generation += 1;
    };
    commit_with_devnet(upgrade, devnet, stories, vec![], change, edit, cx).await?;
    failpoint("upgrade/switched-back");
    Ok(())
}

pub(super) async fn release_back(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let message = "starts all nodes with the old binary".to_owned();
    let stories = (story(UpgradePhase::RollingBack, &message).warn().action("start"), let_go(upgrade));
    let version = upgrade.status.notes.before.as_ref().map(|before| before.sdk_version.clone()).unwrap_or_default();
    let (new, height) = (upgrade.status.sdk_version.clone(), upgrade.height().unwrap_or(upgrade.status.notes.last_height));
    let change = |next: &mut Upgrade| {
        next.status.notes.deadline = deadline(START_WITHIN, cx);
        next.status.message = message;
    };
    let edit = |devnet: &mut Devnet| {
        devnet.status.held = None;
        // The history keeps both turns, each with its height.
        devnet
            .status
            .sdk_version_history
            .iter_mut()
            .skip(1)
            .filter(|turn| turn.version == new && turn.height == 0)
            .for_each(|turn| turn.height = height);
        if devnet.status.sdk_version_history.len() > 1 {
            date(devnet, &version, height);
        }
    };
    let also = back_to_their_users(upgrade, seen, cx);
    commit_with_devnet(upgrade, &seen.devnet, stories, also, change, edit, cx).await
}

/// The chain passes the height with the binary that it has, and the upgrade ends with that.
pub(super) async fn skip(upgrade: &Upgrade, seen: &Seen, why: String, cx: &Context) -> Result<(), ReconcileError> {
    let args = upgrade.status.notes.skip_args.clone();
    let names: Vec<String> = seen.nodes.iter().map(|node| short(node)).collect();
    let stories = (
        story(UpgradePhase::Failed, &why).warn().action(format!("restart all nodes with {}", args.join(" "))).result("Failed"),
        Story::new("upgrade", "ArgsChanged", format!("all nodes get {}, by upgrade {}", args.join(" "), upgrade.metadata.name)).warn(),
    );
    let change = |next: &mut Upgrade| {
        next.status.why = Some(why.clone());
        enter(next, UpgradePhase::Failed, why.clone());
    };
    let edit = |current: &mut Devnet| {
        add_args(&mut current.spec, &names, &args);
        current.metadata.generation += 1;
    };
    let also = back_to_their_users(upgrade, seen, cx);
    commit_with_devnet(upgrade, &seen.devnet, stories, also, change, edit, cx).await
}

fn let_go(upgrade: &Upgrade) -> Story {
    Story::new("upgrade", "LetGo", format!("upgrade {} holds its nodes down no more", upgrade.metadata.name)).desired("running").action("start")
}

/// Nodes that were started only for the height are stopped again, as their user had them.
fn back_to_their_users(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Vec<Write> {
    let lent = seen.nodes.iter().filter(|node| upgrade.status.notes.lent.contains(&short(node)) && node.spec.desired == Desired::Running);
    lent.flat_map(|node: &Arc<_>| wanted(node, Desired::Stopped, "is stopped again, as its user had it", cx)).collect()
}

/// What the devnet's spec said before the first change.
fn before(upgrade: &Upgrade, devnet: &Devnet) -> Before {
    let now = || Before { binary: devnet.spec.binary.clone(), nodes: devnet.spec.nodes.clone(), sdk_version: devnet.status.sdk_version.clone() };
    upgrade.status.notes.before.clone().unwrap_or_else(now)
}

fn give(spec: &mut DevnetSpec, name: &str, upgrade: &Upgrade) {
    if spec.node(name).is_none() {
        spec.nodes.push(NodeOverride { name: name.to_owned(), ..NodeOverride::default() });
    }
    let given = spec.nodes.iter_mut().filter(|node| node.name == name);
    given.for_each(|node| node.binary = Some(upgrade.spec.binary.clone()));
}

/// Nodes that were given the new binary ahead of their devnet name none of their own any more.
fn unroll(spec: &mut DevnetSpec, rolled: &[String], before: &Before) {
    let was = |name: &str| before.nodes.iter().find(|was| was.name == name);
    for node in spec.nodes.iter_mut().filter(|node| rolled.contains(&node.name)) {
        node.binary = was(&node.name).and_then(|was| was.binary.clone());
    }
    let says_nothing = |node: &NodeOverride| *node == NodeOverride { name: node.name.clone(), ..NodeOverride::default() };
    spec.nodes.retain(|node| !rolled.contains(&node.name) || was(&node.name).is_some() || !says_nothing(node));
}

/// The devnet's binary, and that of each node which names the devnet's old one.
fn use_binary(spec: &mut DevnetSpec, upgrade: &Upgrade) {
    let old = spec.binary.replace(upgrade.spec.binary.clone());
    for node in spec.nodes.iter_mut().filter(|node| node.binary.is_some() && node.binary == old) {
        node.binary = Some(upgrade.spec.binary.clone());
    }
}

/// Only what a switch changes: what a user changed meanwhile stays.
fn restore_binaries(spec: &mut DevnetSpec, before: &Before) {
    spec.binary.clone_from(&before.binary);
    for node in &mut spec.nodes {
        if let Some(was) = before.nodes.iter().find(|was| was.name == node.name) {
            node.binary.clone_from(&was.binary);
        }
    }
}

fn add_args(spec: &mut DevnetSpec, nodes: &[String], args: &[String]) {
    if args.is_empty() {
        return;
    }
    for name in nodes {
        if spec.node(name).is_none() {
            spec.nodes.push(NodeOverride { name: name.clone(), ..NodeOverride::default() });
        }
        let over = spec.nodes.iter_mut().find(|over| over.name == *name);
        if let Some(over) = over.filter(|over| !over.args.windows(args.len()).any(|there| there == args)) {
            over.args.extend(args.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::BinarySource, store::fixtures};

    fn path(path: &str) -> Option<BinarySource> {
        Some(BinarySource { path: Some(path.into()), ..BinarySource::default() })
    }

    fn with_binary(name: &str, binary: Option<BinarySource>) -> NodeOverride {
        NodeOverride { name: name.into(), binary, ..NodeOverride::default() }
    }

    #[test]
    fn a_switch_changes_the_old_binary_wherever_it_stands_and_goes_back_without_a_trace() {
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        upgrade.spec.binary = path("/new").unwrap();
        let nodes = vec![with_binary("validator-0", path("/old")), with_binary("validator-1", path("/other")), with_binary("validator-2", None)];
        let mut spec = DevnetSpec { binary: path("/old"), nodes, ..DevnetSpec::default() };
        let first = spec.clone();
        let before = Before { binary: spec.binary.clone(), nodes: spec.nodes.clone(), ..Before::default() };
        use_binary(&mut spec, &upgrade);
        assert_eq!(spec.binary, path("/new"));
        assert_eq!(spec.nodes.iter().map(|node| node.binary.clone()).collect::<Vec<_>>(), [path("/new"), path("/other"), None]);
        restore_binaries(&mut spec, &before);
        assert_eq!(spec, first);
    }

    #[test]
    fn nodes_that_were_rolled_are_in_the_end_as_if_all_had_been_switched_at_once() {
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        upgrade.spec.binary = path("/new").unwrap();
        let nodes = vec![with_binary("validator-0", path("/old")), NodeOverride { args: vec!["--x".into()], ..with_binary("validator-1", None) }];
        let first = DevnetSpec { binary: path("/old"), nodes, ..DevnetSpec::default() };
        let before = Before { binary: first.binary.clone(), nodes: first.nodes.clone(), ..Before::default() };
        let rolled = ["validator-0", "validator-1", "validator-2"].map(str::to_owned);
        let mut spec = first.clone();
        rolled.iter().for_each(|name| give(&mut spec, name, &upgrade));
        assert!(spec.nodes.len() == 3 && spec.nodes.iter().all(|node| node.binary == path("/new")), "{spec:?}");
        let mut back = spec.clone();
        unroll(&mut back, &rolled, &before);
        restore_binaries(&mut back, &before);
        assert_eq!(back, first);
        unroll(&mut spec, &rolled, &before);
        use_binary(&mut spec, &upgrade);
        let mut at_once = first;
        use_binary(&mut at_once, &upgrade);
        assert_eq!(spec, at_once);
    }

    #[test]
    fn a_devnet_without_a_binary_of_its_own_leaves_nodes_without_one_alone() {
        let mut spec = DevnetSpec { nodes: vec![with_binary("validator-0", None)], ..DevnetSpec::default() };
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        upgrade.spec.binary = path("/new").unwrap();
        use_binary(&mut spec, &upgrade);
        assert_eq!((spec.binary, spec.nodes[0].binary.clone()), (path("/new"), None));
    }

    #[test]
    fn arguments_are_added_to_every_node_once() {
        let mut spec = DevnetSpec {
            nodes: vec![NodeOverride { name: "a".into(), args: vec!["--x".into()], ..NodeOverride::default() }],
            ..DevnetSpec::default()
        };
        let (names, skip) = (["a".to_owned(), "b".to_owned()], ["--skip".to_owned(), "30".to_owned()]);
        add_args(&mut spec, &names, &skip);
        add_args(&mut spec, &names, &skip);
        add_args(&mut spec, &names, &[]);
        let args: Vec<Vec<String>> = spec.nodes.iter().map(|node| node.args.clone()).collect();
        assert_eq!(args, [vec!["--x", "--skip", "30"], vec!["--skip", "30"]]);
    }
}
