//! Freezing and thawing a live node: what is about to be done is committed first, so that the next daemon finishes it after a crash.

use super::super::{Context, Edit, ReconcileError, Story};
use super::handle_of;
use crate::{
    model::{Condition, ConditionStatus, FROZEN, Key, Launch, Node},
    sys::failpoint,
};

pub(super) async fn freeze(node: &Node, launch: Option<&Launch>, cx: &Context) -> Result<(), ReconcileError> {
    let Some(handle) = launch.and_then(handle_of) else { return Ok(()) };
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    let now = cx.clock.now();
    if node.status.conditions.get(FROZEN).is_none() {
        let begun = Condition::new(FROZEN, ConditionStatus::Unknown, "Freezing", "its processes are being frozen");
        cx.edit_node(&key, vec![], |node| set(node, begun.clone(), now, Edit::Quiet)).await?;
    }
    cx.runtime.freeze(&handle).await?;
    failpoint("freeze/frozen");
    let thaw = if node.spec.frozen { &node.metadata.name } else { &node.spec.devnet_ref };
    let message = "its processes stand still; its health is not looked at";
    let frozen = Condition::new(FROZEN, ConditionStatus::True, FROZEN, message).with_remedy(format!("dvbctl thaw {thaw}"));
    let story = Story::new("node", FROZEN, "stands still").desired("frozen").action("freeze").launch(handle.id.clone());
    cx.edit_node(&key, vec![], |node| set(node, frozen.clone(), now, Edit::Tell(story.clone()))).await?;
    Ok(())
}

pub(super) async fn thaw(node: &Node, launch: Option<&Launch>, cx: &Context) -> Result<(), ReconcileError> {
    let Some(handle) = launch.and_then(handle_of) else { return Ok(()) };
    cx.runtime.thaw(&handle).await?;
    failpoint("freeze/thawed");
    let story = Story::new("node", "Thawed", "goes on").observed("frozen").desired("running").action("thaw").launch(handle.id.clone());
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    let generation = node.metadata.generation;
    let forget = |node: &mut Node| {
        node.status.observed_generation = node.status.observed_generation.max(generation);
        if node.status.conditions.remove(FROZEN) { Edit::Tell(story.clone()) } else { Edit::Quiet }
    };
    cx.edit_node(&key, vec![], forget).await?;
    Ok(())
}

/// The spec that asked for it counts as seen: nothing else of a live node follows from `frozen`.
fn set(node: &mut Node, condition: Condition, now: crate::model::Timestamp, changed: Edit) -> Edit {
    if node.status.conditions.set(condition, now) { changed } else { Edit::Skip }
}
