//! Ends of launches: the certificate, and its record; where there is nothing to wait for, in one commit with the next intent.

use super::super::{Context, ReconcileError, Story};
use super::{
    apply::turned,
    budget::Budgets,
    certificate, handle_of, launching,
    plan::{self, Decision, Process, Seen, Step, class_reason},
    recovery, signing,
};
use crate::{
    model::{Condition, ConditionStatus, Exit, ExitClass, FROZEN, Key, Kind, LastExit, Launch, LaunchPhase, Node, NodePhase, Object, RestartPolicy},
    runtime::Handle,
    store::{Expect, Write},
    sys::failpoint,
};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Puts an end on record. A restart for which all is at hand goes with it: then both are one commit, and the step is that launch.
pub(super) async fn end(
    node: &Node,
    launch: &Launch,
    exit: Option<&Exit>,
    seen: &Seen,
    budgets: &Budgets,
    cx: &Context,
) -> Result<Decision, ReconcileError> {
    let dying = certify(node, launch, exit, cx).await?;
    let record = Decision::from(Step::RecordExit(exit.cloned()));
    let after = Seen { process: Process::None, now: cx.clock.now(), ..seen.clone() };
    let next = plan::plan(&dying.ended.node, &after);
    let (Step::Launch { counted }, Some(handle), None) = (&next.step, &dying.handle, &dying.late) else {
        return dying.record(cx).await.map(|()| record);
    };
    // What may be left of it must not meet the next launch. How it ended can still be asked for, should this daemon die now.
    if let Err(error) = cx.runtime.clear(handle).await {
        dying.record(cx).await?;
        return Err(error.into());
    }
    failpoint("exit/cleared");
    let Some(ready) = launching::ready_at_once(&dying.ended.node, cx).await else {
        return dying.record(cx).await.map(|()| record);
    };
    let next = budgets.hold(&dying.ended.node, next.clone(), cx).await?;
    if !matches!(next.step, Step::Launch { .. }) {
        return dying.record(cx).await.map(|()| record);
    }
    let Ended { node, writes } = dying.ended.clone().let_go();
    let launched = launching::launch(&node, *counted, ready, writes, budgets, cx).await;
    if launched.is_err() && !is_on_record(launch, cx).await? {
        budgets.give_back(&node);
        dying.record(cx).await?;
    } else if let Err(error) = cx.runtime.destroy(handle).await {
        tracing::warn!(launch = %handle.id, %error, "the runtime keeps a launch that has ended in mind until the next start of devnetd");
    }
    launched.map(|()| next)
}

async fn is_on_record(launch: &Launch, cx: &Context) -> Result<bool, ReconcileError> {
    let key = Key::new(Kind::Launch, &launch.metadata.namespace, &launch.metadata.name);
    let stored = cx.store.get(&key).await?.and_then(|object| Arc::<Launch>::try_from(object).ok());
    Ok(stored.is_none_or(|stored| stored.status.phase == LaunchPhase::Ended))
}

/// An end before it is on record, with what there is to do then.
struct Dying {
    ended: Ended,
    handle: Option<Handle>,
    late: Option<Late>,
}

/// The status that may come after the record.
struct Late {
    launch: Launch,
    recorded: LastExit,
    exit: BoxFuture<'static, Exit>,
}

/// A node whose launch has ended, and what is to be committed with it.
#[derive(Clone)]
struct Ended {
    node: Node,
    writes: Vec<Write>,
}

async fn certify(node: &Node, launch: &Launch, exit: Option<&Exit>, cx: &Context) -> Result<Dying, ReconcileError> {
    let handle = handle_of(launch);
    let mut exit = exit.cloned();
    let mut late = handle.as_ref().and_then(|handle| cx.runtime.late_exit(handle));
    if node.spec.restart.policy != RestartPolicy::Always
        && let Some(whole) = late.take()
    {
        exit = Some(whole.await); // code 0 or not: that decides whether it is started again
    }
    let requested = exit.as_ref().is_some_and(|exit| exit.requested || exit.rebooted); // no fault of its own: no back-off
    let last = certificate::certificate(node, launch, exit.as_ref(), cx).await;
    signing::record(node, cx).await?;
    failpoint("exit/certified");
    let late = late.map(|exit| Late { launch: launch.clone(), recorded: last.clone(), exit });
    Ok(Dying { ended: ended(node.clone(), Some(launch.clone()), last, requested, None, cx), handle, late })
}

impl Dying {
    async fn record(self, cx: &Context) -> Result<(), ReconcileError> {
        let node = self.ended.node.clone();
        self.ended.commit(cx).await?;
        failpoint("exit/recorded");
        if let Some(Late { launch, recorded, exit }) = self.late {
            recovery::amend_later(&node, &launch, recorded, exit, cx);
        }
        Ok(())
    }
}

impl Ended {
    async fn commit(self, cx: &Context) -> Result<(), ReconcileError> {
        let Self { node, mut writes } = self;
        writes.push(Write::update(node));
        cx.store.commit(writes).await?;
        Ok(())
    }

    /// The runtime holds nothing of the launch any more that the next daemon would have to let go of.
    fn let_go(mut self) -> Self {
        for write in &mut self.writes {
            if let Write::Put { object: Object::Launch(launch), .. } = write {
                Arc::make_mut(launch).status.handle = None;
            }
        }
        self
    }
}

/// Lets the runtime forget a launch whose end is on record; returns its row without the handle. Until that is committed, a daemon that
/// comes after a crash lets go of it once more.
pub(super) async fn release(launch: &Launch, cx: &Context) -> Result<Option<Write>, ReconcileError> {
    let Some(handle) = handle_of(launch).filter(|_| launch.status.phase == LaunchPhase::Ended) else { return Ok(None) };
    failpoint("exit/release");
    cx.runtime.destroy(&handle).await?;
    failpoint("exit/destroyed");
    let mut released = launch.clone();
    released.status.handle = None;
    Ok(Some(Write::update(released)))
}

/// Closes a launch. `remedy` is what mends it, where more than waiting does.
pub(super) async fn finish(
    node: Node,
    launch: Option<Launch>,
    last: LastExit,
    requested: bool,
    remedy: Option<String>,
    cx: &Context,
) -> Result<(), ReconcileError> {
    ended(node, launch, last, requested, remedy, cx).commit(cx).await
}

/// Row Ended, node Crashed, or Stopped when the end was asked for.
fn ended(mut node: Node, launch: Option<Launch>, last: LastExit, requested: bool, remedy: Option<String>, cx: &Context) -> Ended {
    let now = cx.clock.now();
    let wanted = node.is_wanted();
    let mut writes = Vec::new();
    if let Some(mut launch) = launch {
        launch.status.phase = LaunchPhase::Ended;
        launch.status.ended_at = Some(last.at);
        launch.status.exit = Some(last.clone());
        let object = Object::from(launch);
        writes.push(match last.class {
            // There was no process, and there may be many such tries: they must not push launches with a log out of the history.
            ExitClass::NoResources => Write::Delete { key: object.key(), expect: Expect::Any },
            _ => Write::Put { object, expect: Expect::Any },
        });
    }
    node.status.pid = None;
    if !requested {
        node.status.observed_generation = node.metadata.generation; // only what is asked after this death overrules the back-off
    }
    let reason = if requested { "Stopped" } else { class_reason(last.class) };
    let ready = Condition::new("Ready", ConditionStatus::False, reason, last.message.clone());
    let ready = match remedy {
        Some(remedy) => ready.with_remedy(remedy),
        None => ready,
    };
    node.status.conditions.set(ready, now);
    for gone in ["Progressing", "KeyLease", FROZEN] {
        node.status.conditions.remove(gone);
    }
    let phase = match (requested, wanted) {
        (true, true) => NodePhase::Pending, // a restart: it is launched next
        (true, false) => NodePhase::Stopped,
        (false, _) => NodePhase::Crashed,
    };
    let story = Story::new("node", if requested { "Stopped" } else { "Died" }, last.message.clone());
    let story = if requested { story } else { story.warn().desired("running") };
    let story = match &node.status.launch_id {
        Some(id) => story.launch(id.clone()),
        None => story,
    };
    cx.observations.forget(&Key::node(&node.metadata.namespace, &node.metadata.name));
    node.status.last_exit = Some(last);
    let node = turned(node, phase, story, &mut writes, cx);
    Ended { node, writes }
}
