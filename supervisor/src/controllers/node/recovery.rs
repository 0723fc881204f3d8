//! What an earlier daemon left unfinished: launches forked and not recorded, and exits whose status comes late.

use super::super::{Context, Edit, ReconcileError, Story};
use super::{certificate, ending::finish, launch_name, launching::as_running, signing};
use crate::{
    model::{Condition, Exit, Key, Kind, LastExit, Launch, Node},
    runtime::Handle,
    store::{Expect, StoreError, Write},
    sys::failpoint,
};
use futures::future::BoxFuture;
use std::sync::Arc;

/// The fork of the intended launch was never recorded. What lives of it (or died under the keeper's eyes) is taken up as it is; if
/// nothing is found, nothing runs, and the node is launched next.
pub(super) async fn recover(node: &Node, launch: Option<&Launch>, cx: &Context) -> Result<(), ReconcileError> {
    let Some(launch) = launch else { return Ok(()) };
    let id = &launch.spec.launch_id;
    if let Some(handle) = cx.runtime.find(id).await? {
        failpoint("recover/found");
        return take_up(node, launch, &handle, cx).await;
    }
    cx.runtime.destroy(&Handle::unrecorded(id.clone())).await?;
    failpoint("recover/cleared");
    signing::record(node, cx).await?;
    let message = "devnetd ended before it had started the process";
    let last = LastExit { message: message.into(), at: cx.clock.now(), ..LastExit::default() };
    finish(node.clone(), Some(launch.clone()), last, true, None, cx).await
}

/// Records the start that an earlier daemon did not come to record.
async fn take_up(node: &Node, launch: &Launch, handle: &Handle, cx: &Context) -> Result<(), ReconcileError> {
    let mut launch = launch.clone();
    launch.status = as_running(handle);
    let also = vec![Write::Put { object: launch.into(), expect: Expect::Any }];
    cx.edit_node(&key_of(node), also, |node| {
        node.status.pid = handle.pid;
        node.status.started_at = Some(handle.started_at);
        let found = handle.pid.map_or_else(|| "a process that has ended".into(), |pid| format!("pid {pid}"));
        let story = Story::new("node", "Adopted", format!("found {found}, which an earlier devnetd started and did not come to record"));
        Edit::Tell(story.observed(found).desired("running").action("adopt").launch(handle.id.clone()))
    })
    .await?;
    Ok(())
}

/// Corrects the record of `launch` when its true exit comes. Another daemon that starts meanwhile leaves the record as it is.
pub(super) fn amend_later(node: &Node, launch: &Launch, recorded: LastExit, late: BoxFuture<'static, Exit>, cx: &Context) {
    let (node, launch, cx) = (node.clone(), launch.clone(), cx.clone());
    tokio::spawn(async move {
        let exit = late.await;
        if exit.code.is_none() && exit.signal.is_none() {
            return;
        }
        let known = certificate::certificate(&node, &launch, Some(&exit), &cx).await;
        if let Err(error) = amend(&node, &launch, &recorded, &known, &cx).await {
            tracing::warn!(launch = %launch.spec.launch_id, %error, "the exit is known now, but could not be recorded");
        }
    });
}

async fn amend(node: &Node, launch: &Launch, recorded: &LastExit, known: &LastExit, cx: &Context) -> Result<(), StoreError> {
    let id = &launch.spec.launch_id;
    let key = Key::new(Kind::Launch, &node.metadata.namespace, &launch_name(&node.metadata.name, id));
    let (of, now) = (key_of(node), cx.clock.now());
    // Gone with its node, or with its age.
    while let Some(current) = cx.store.get(&key).await?.and_then(|object| Arc::<Launch>::try_from(object).ok()) {
        let mut amended = Launch::clone(&current);
        amended.status.exit = Some(known.clone());
        let edited = cx.edit_node(&of, vec![Write::update(amended)], |node| {
            // A later death has its own record; then only the launch's is corrected.
            if node.status.last_exit.as_ref() != Some(recorded) {
                return Edit::Quiet;
            }
            node.status.last_exit = Some(known.clone());
            let shown = node.status.conditions.get("Ready").filter(|ready| ready.message == recorded.message);
            if let Some(ready) = shown.cloned() {
                node.status.conditions.set(Condition { message: known.message.clone(), ..ready }, now);
            }
            Edit::Tell(Story::new("node", "ExitKnown", known.message.clone()).result(known.message.clone()).launch(id.clone()))
        });
        match edited.await {
            // The runtime has let go of the launch meanwhile, and the row says so.
            Err(StoreError::Conflict { key: other, .. }) if other == key => {}
            result => return result,
        }
    }
    Ok(())
}

fn key_of(node: &Node) -> Key {
    Key::node(&node.metadata.namespace, &node.metadata.name)
}
