//! Carries out what the plan decided.

use super::super::{Context, Edit, ReconcileError, Story, placing::KEEP_DATA};
use super::{
    files::remove_tree,
    plan::Step,
    provision::{devnet_key, provision},
    sum::{PASSING, Sum},
};
use crate::{
    model::{Condition, ConditionStatus, Desired, Devnet, DevnetPhase, Fault, Key, Kind, Launch, LaunchPhase, Node, NodePhase, NodeStatus},
    runtime::Handle,
    store::{Expect, Selector, Write},
    sys::failpoint,
};
use futures::StreamExt;
use std::{path::Path, sync::Arc};

pub(super) async fn apply(devnet: &Devnet, nodes: &[Arc<Node>], step: Step, cx: &Context) -> Result<(), ReconcileError> {
    match step {
        Step::Nothing => Ok(()),
        Step::Provision { refresh_binary } => attempt(devnet, nodes, refresh_binary, cx).await.map(drop),
        Step::Acknowledge => {
            let generation = devnet.metadata.generation;
            let see = |current: &mut Devnet| {
                current.status.observed_generation = generation;
                Edit::Quiet
            };
            Ok(cx.edit_devnet(&devnet_key(devnet), vec![], see).await?)
        }
        Step::Suspend { on, why } => suspend(devnet, nodes, on, why, cx).await,
        Step::Freeze { on } => freeze(devnet, nodes, on, cx).await,
        Step::RestartNodes => restart_nodes(devnet, nodes, cx).await,
        Step::Wipe => wipe(devnet, nodes, cx).await,
        Step::RemoveNodes(names) => remove_nodes(devnet, nodes, &names, cx).await,
        Step::MarkDeleting => {
            let mark = |current: &mut Devnet| {
                current.status.phase = DevnetPhase::Deleting;
                current.status.message = Some("stopping nodes".into());
                Edit::Tell(Story::new("devnet", "Deleting", "stops all nodes, then removes everything").desired("gone").action("delete"))
            };
            Ok(cx.edit_devnet(&devnet_key(devnet), vec![], mark).await?)
        }
        Step::Destroy => destroy(devnet, nodes, cx).await,
        Step::Report(sum) => report(devnet, &sum, cx).await,
    }
}

/// What became of an attempt to provision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It worked, was cut short, or failed for good.
    Over,
    /// It failed in a way that may pass.
    Again,
}

/// Provisions; a request to delete cuts it short, and an error becomes the devnet's condition.
pub(super) async fn attempt(devnet: &Devnet, nodes: &[Arc<Node>], refresh_binary: bool, cx: &Context) -> Result<Attempt, ReconcileError> {
    let result = tokio::select! {
        result = provision(devnet, nodes, refresh_binary, cx) => result,
        () = deletion(devnet, cx) => return Ok(Attempt::Over),
    };
    let Err(error) = result else { return Ok(Attempt::Over) };
    if matches!(error, ReconcileError::Store(_)) {
        return Err(error);
    }
    let fault = error.fault();
    let again = fault.retriable;
    let accepted = cx.plan(&devnet.metadata.namespace, &devnet.metadata.name).await?.is_some();
    let now = cx.clock.now();
    let reason = format!("{:?}", fault.code);
    cx.edit_devnet(&devnet_key(devnet), vec![], |current| {
        let condition = Condition { remedy: fault.remedy.clone(), ..Condition::new("Provisioned", ConditionStatus::False, &reason, text(&fault)) };
        let changed = current.status.conditions.set(condition, now);
        let status = &mut current.status;
        let generation = devnet.metadata.generation;
        if again {
            // A plan that is made again for a new plugin fails at a generation that was observed already; now it is not met any more.
            let unmet = status.observed_generation.min(generation.saturating_sub(1));
            if !changed && status.observed_generation == unmet {
                return Edit::Skip;
            }
            status.observed_generation = unmet;
        } else {
            status.observed_generation = generation;
            status.operations.refresh_binary = devnet.spec.operations.refresh_binary;
            if !accepted {
                status.phase = DevnetPhase::Failed; // else the nodes go on as the accepted spec wants them, and decide the phase
                status.operations.restart = devnet.spec.operations.restart;
            }
        }
        status.message = Some(text(&fault));
        Edit::Tell(Story::new("devnet", &reason, text(&fault)).warn().desired("provisioned").action("provision").result(if again {
            "is tried again"
        } else {
            "failed"
        }))
    })
    .await?;
    if !again {
        return Ok(Attempt::Over);
    }
    tracing::warn!(devnet = %devnet_key(devnet), %error, "provisioning failed and is tried again");
    Ok(Attempt::Again)
}

fn text(fault: &Fault) -> String {
    let mut text = fault.message.clone();
    for violation in fault.violations.iter().skip(1) {
        text.push_str(&format!("; {}: {}", violation.field, violation.message));
    }
    text
}

/// Resolves when somebody asks to delete the devnet.
async fn deletion(devnet: &Devnet, cx: &Context) {
    let meta = &devnet.metadata;
    let selector =
        Selector { kinds: vec![Kind::Devnet], namespace: Some(meta.namespace.clone()), name: Some(meta.name.clone()), ..Selector::default() };
    let mut changes = cx.store.watch(selector, meta.resource_version);
    while let Some(Ok(change)) = changes.next().await {
        if change.deleted || change.object.meta().deleted_at.is_some() {
            return;
        }
    }
    std::future::pending().await
}

async fn suspend(devnet: &Devnet, nodes: &[Arc<Node>], on: bool, why: &str, cx: &Context) -> Result<(), ReconcileError> {
    let mut writes = Vec::new();
    for node in nodes.iter().filter(|node| node.spec.suspended != on) {
        let mut next = Node::clone(node);
        next.spec.suspended = on;
        next.spec.frozen &= !on; // a stop ends a freeze
        next.metadata.generation += 1;
        if next.status.phase == NodePhase::Failed && !on {
            next.status.phase = NodePhase::Stopped; // `start` tries a failed node again
        }
        let story = match on {
            true => Story::new("devnet", "HeldDown", format!("its devnet is to {why}")).desired("stopped").action("stop"),
            false => Story::new("devnet", "LetRun", "its devnet is to run").desired("running").action("start"),
        };
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        next.status.cause = Some(cx.tell_into(&mut writes, &key, devnet.status.cause.clone(), story));
        writes.push(Write::update(next));
    }
    cx.store.commit(writes).await?;
    Ok(())
}

async fn freeze(devnet: &Devnet, nodes: &[Arc<Node>], on: bool, cx: &Context) -> Result<(), ReconcileError> {
    let mut writes = Vec::new();
    for node in nodes.iter().filter(|node| node.spec.frozen_with_devnet != on) {
        let mut next = Node::clone(node);
        next.spec.frozen_with_devnet = on;
        next.metadata.generation += 1;
        let story = match on {
            true => Story::new("devnet", "FreezeRequested", "its devnet is to stand still").desired("frozen").action("freeze"),
            false => Story::new("devnet", "ThawRequested", "its devnet is to go on").desired("running").action("thaw"),
        };
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        next.status.cause = Some(cx.tell_into(&mut writes, &key, devnet.status.cause.clone(), story));
        writes.push(Write::update(next));
    }
    cx.store.commit(writes).await?;
    Ok(())
}

async fn restart_nodes(devnet: &Devnet, nodes: &[Arc<Node>], cx: &Context) -> Result<(), ReconcileError> {
    let mut writes = Vec::new();
    for node in nodes.iter().filter(|node| node.spec.desired == Desired::Running) {
        let mut next = Node::clone(node);
        next.spec.restart_request += 1;
        next.spec.frozen = false;
        next.metadata.generation += 1;
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        let story = Story::new("devnet", "RestartRequested", "its devnet is to restart").desired("restarted").action("restart");
        next.status.cause = Some(cx.tell_into(&mut writes, &key, devnet.status.cause.clone(), story));
        writes.push(Write::update(next));
    }
    let asked = devnet.spec.operations.restart;
    let done = |current: &mut Devnet| {
        current.status.operations.restart = asked;
        if current.status.phase == DevnetPhase::Running {
            current.status.phase = DevnetPhase::Degraded; // in the same commit: who waits must not take the old Running for the new
        }
        Edit::Tell(Story::new("devnet", "Restarting", "asked every node to restart").action("restart"))
    };
    Ok(cx.edit_devnet(&devnet_key(devnet), writes, done).await?)
}

/// Back to height 0: homes and genesis go, keys and addresses come back the same from seed and leases.
async fn wipe(devnet: &Devnet, nodes: &[Arc<Node>], cx: &Context) -> Result<(), ReconcileError> {
    let (namespace, name) = (&devnet.metadata.namespace, &devnet.metadata.name);
    for node in nodes {
        destroy_launches(node, cx).await?;
        failpoint("reset/stopped");
        remove_tree(Path::new(&node.spec.home_dir))?;
    }
    remove_tree(&cx.home.shared(namespace, name))?;
    failpoint("reset/wiped");
    let mut writes = Vec::new();
    for node in nodes {
        let mut next = Node::clone(node);
        next.status = NodeStatus {
            phase: NodePhase::Stopped,
            endpoints: node.status.endpoints.clone(),
            observed_generation: node.status.observed_generation,
            observed_restart: node.spec.restart_request,
            ..NodeStatus::default()
        };
        let key = Key::node(namespace, &node.metadata.name);
        next.status.cause =
            Some(cx.tell_into(&mut writes, &key, devnet.status.cause.clone(), Story::new("devnet", "Reset", "its data is wiped").action("wipe")));
        cx.observations.forget(&key);
        writes.extend(cx.keys().forget(node).await?); // all validators begin anew together
        writes.push(Write::update(next));
    }
    // What was accepted had its genesis: if the spec is refused now, nothing may be launched.
    let plan = Key::new(Kind::Plan, namespace, name);
    writes.push(Write::Delete { key: plan, expect: Expect::Any });
    let reset = devnet.spec.operations.reset;
    let done = |current: &mut Devnet| {
        current.status.operations.reset = reset;
        current.status.genesis_hash = None;
        current.status.observed_generation = 0;
        current.status.phase = DevnetPhase::Provisioning;
        Edit::Tell(Story::new("devnet", "Reset", "all nodes were stopped and their data wiped; it starts again at height 0").action("reset"))
    };
    Ok(cx.edit_devnet(&devnet_key(devnet), writes, done).await?)
}

async fn remove_nodes(devnet: &Devnet, nodes: &[Arc<Node>], names: &[String], cx: &Context) -> Result<(), ReconcileError> {
    for node in nodes.iter().filter(|node| names.contains(&node.metadata.name)) {
        destroy_launches(node, cx).await?;
        failpoint("remove/stopped");
        remove_tree(&cx.home.node(&node.metadata.namespace, &devnet.metadata.name, &node.node_name().short))?;
        failpoint("remove/files");
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        let mut writes = cx.ports.leases_back(&node.metadata.namespace, &devnet.metadata.name, &node.metadata.name).await?;
        writes.push(Write::Delete { key: key.clone(), expect: Expect::Any });
        writes.extend(cx.keys().forget(node).await?);
        cx.tell_into(&mut writes, &key, node.status.cause.clone(), Story::new("devnet", "Gone", "was removed with its files"));
        cx.store.commit(writes).await?;
        failpoint("lease/returned");
    }
    Ok(cx.ports.settle(&devnet.metadata.namespace, &devnet.metadata.name).await?)
}

async fn destroy(devnet: &Devnet, nodes: &[Arc<Node>], cx: &Context) -> Result<(), ReconcileError> {
    let (namespace, name) = (&devnet.metadata.namespace, &devnet.metadata.name);
    for node in nodes {
        destroy_launches(node, cx).await?;
    }
    failpoint("delete/stopped");
    if !devnet.metadata.annotations.contains_key(KEEP_DATA) {
        remove_tree(&cx.home.devnet(namespace, name))?;
    }
    failpoint("delete/files");
    cx.ports.release(namespace, name).await?;
    failpoint("lease/released");
    let key = devnet_key(devnet);
    let mut writes = vec![Write::Delete { key: key.clone(), expect: Expect::Any }];
    cx.tell_into(
        &mut writes,
        &key,
        devnet.status.cause.clone(),
        Story::new("devnet", "Gone", "no process, port, lease or file is left").action("delete"),
    );
    cx.store.commit(writes).await?;
    Ok(())
}

/// Lets the runtime forget what it still holds of the node's launches: cgroups, pidfds.
async fn destroy_launches(node: &Node, cx: &Context) -> Result<(), ReconcileError> {
    let selector = Selector::in_devnet(Kind::Launch, &node.metadata.namespace, &node.spec.devnet_ref);
    let (objects, _) = cx.store.list(&selector).await?;
    for launch in objects.into_iter().filter_map(|object| Arc::<Launch>::try_from(object).ok()) {
        if launch.spec.node_ref == node.metadata.name && (launch.status.phase != LaunchPhase::Ended || launch.status.handle.is_some()) {
            let unrecorded = || Handle::unrecorded(launch.spec.launch_id.clone());
            cx.runtime.destroy(&super::super::node::handle_of(&launch).unwrap_or_else(unrecorded)).await?;
        }
    }
    Ok(())
}

async fn report(devnet: &Devnet, sum: &Sum, cx: &Context) -> Result<(), ReconcileError> {
    let now = cx.clock.now();
    let edit = |current: &mut Devnet| {
        let before = current.status.phase;
        current.status.phase = sum.phase;
        current.status.nodes = sum.nodes;
        current.status.ready_nodes = sum.ready;
        current.status.message = Some(sum.message.clone());
        for condition in &sum.conditions {
            current.status.conditions.set(condition.clone(), now);
        }
        for passing in PASSING.iter().filter(|passing| !sum.says(passing)) {
            current.status.conditions.remove(passing);
        }
        let halted = sum.conditions.iter().find(|condition| condition.reason == "Halted");
        let message = halted.map_or_else(|| sum.message.clone(), |halted| format!("{}; {}", halted.message, sum.message));
        let story = Story::new("devnet", &format!("{:?}", sum.phase), message).observed(format!("{} of {} ready", sum.ready, sum.nodes));
        match sum.phase {
            phase if phase == before && halted.is_none() => Edit::Quiet,
            DevnetPhase::Degraded | DevnetPhase::Failed => Edit::Tell(story.warn()),
            _ => Edit::Tell(story),
        }
    };
    Ok(cx.edit_devnet(&devnet_key(devnet), vec![], edit).await?)
}
