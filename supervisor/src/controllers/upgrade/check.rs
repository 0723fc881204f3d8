//! The new binary before anything is asked of the chain: it is had, it runs, it is another one, and it knows the upgrade.

use super::super::{
    Context, ReconcileError,
    devnet::{FreshDir, MAX_ROUNDS, initialize_in, run_jobs},
    placing::devnet_context,
};
use super::{
    apply::{commit, end, fail_unless_it_passes, key_of, say, story},
    facts::{Chain, Seen},
    homes,
};
use crate::{
    model::{BinaryStatus, Devnet, Key, Kind, Object, Upgrade, UpgradePhase},
    plugin::{
        DevnetContext, Initialized, Reply,
        upgrade::{Handler, UpgradePlan},
    },
    store::{Selector, StoreError},
};
use futures::StreamExt;

/// Folder of the devnet for what checks leave behind, emptied before and after.
const WORK: &str = "upgrade-work";

pub(super) async fn check(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    say(upgrade, &format!("gets and checks the new binary: {}", crate::binaries::describe(&upgrade.spec.binary)), cx).await?;
    let key = Key::upgrade(&upgrade.metadata.namespace, &upgrade.metadata.name);
    let examined = tokio::select! {
        examined = examine(upgrade, seen, cx) => examined,
        () = cancelled(upgrade, cx) => return Ok(()),
    };
    let Some(Object::Upgrade(current)) = cx.store.get(&key).await? else { return Ok(()) };
    match examined {
        Err(error) => fail_unless_it_passes(&current, seen, error, cx).await,
        Ok(Examined { binary, identity, plan, can_halt }) => match refusal(&current, seen, &binary, plan.as_ref()) {
            Some(why) => end(&current, seen, UpgradePhase::Failed, why, cx).await,
            None => {
                homes::clear(&current, cx).await?;
                accept(&current, binary, &identity, plan.unwrap_or_default(), can_halt, cx).await
            }
        },
    }
}

/// What an upgrade to this height takes, by the plugin's word.
pub(super) async fn ask_plugin(
    upgrade: &Upgrade,
    chain: &Chain,
    context: &DevnetContext,
    devnet: &Devnet,
    height: u64,
    cx: &Context,
) -> Result<UpgradePlan, ReconcileError> {
    let meta = &devnet.metadata;
    let work = FreshDir::make(cx.home.devnet(&meta.namespace, &meta.name).join(WORK))?;
    let mut outcomes = Vec::new();
    for _ in 0..MAX_ROUNDS {
        match chain.plugin.plan_upgrade(context, &upgrade.spec.upgrade_name, height, work.path().to_path_buf(), &outcomes).await? {
            Reply::Done(plan) => return Ok(plan),
            Reply::Jobs(jobs) => outcomes = run_jobs(&jobs, devnet, work.path(), cx).await?,
        }
    }
    Err(ReconcileError::Unfit(format!("plugin {} asked for jobs {MAX_ROUNDS} times without an answer", devnet.spec.plugin)))
}

struct Examined {
    binary: BinaryStatus,
    identity: Initialized,
    /// None for a family that only swaps binaries.
    plan: Option<UpgradePlan>,
    can_halt: bool,
}

async fn examine(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<Examined, ReconcileError> {
    let devnet = &seen.devnet;
    let resolved = cx.resolve(&upgrade.spec.binary, |line| async move { tell_progress(upgrade, &line, cx).await }).await?;
    let mut binary = BinaryStatus {
        source: crate::binaries::describe(&upgrade.spec.binary),
        path: resolved.path.display().to_string(),
        sha256: resolved.sha256,
        version: resolved.version,
    };
    let chain = seen.chain(cx).await?.ok_or_else(|| ReconcileError::Unfit(format!("{} has no plan yet", devnet.metadata.name)))?;
    let bare = devnet_context(devnet, (&binary.path, &binary.sha256), &[]);
    let identity = initialize_in(WORK, chain.plugin.as_ref(), &bare, devnet, cx).await?;
    if !identity.binary_version.is_empty() {
        binary.version.clone_from(&identity.binary_version);
    }
    let context = DevnetContext { initialized: identity.state.clone(), ..bare };
    let plan = match chain.can_upgrade {
        true => Some(ask_plugin(upgrade, &chain, &context, devnet, upgrade.height().unwrap_or(0), cx).await?),
        false => None,
    };
    // A chain that is told by a vote alone does not halt without one.
    let is_told = plan.as_ref().is_some_and(|plan| plan.messages.is_empty() || !upgrade.spec.skip_vote);
    let can_halt = is_told && (upgrade.height().is_some() || !upgrade.spec.skip_vote);
    Ok(Examined { binary, identity, plan, can_halt })
}

/// Of the upgrade as it is now: somebody may have changed it since, and each line is a write itself.
async fn tell_progress(upgrade: &Upgrade, line: &str, cx: &Context) -> Result<(), ReconcileError> {
    let Some(Object::Upgrade(current)) = cx.store.get(&key_of(upgrade)).await? else { return Ok(()) };
    match say(&current, line, cx).await {
        Err(ReconcileError::Store(StoreError::Conflict { .. })) => Ok(()), // the next line is told
        told => told,
    }
}

/// Why the devnet must not be upgraded so, if it must not.
fn refusal(upgrade: &Upgrade, seen: &Seen, binary: &BinaryStatus, plan: Option<&UpgradePlan>) -> Option<String> {
    let (spec, devnet) = (&upgrade.spec, &seen.devnet);
    if devnet.status.binary.as_ref().is_some_and(|running| running.sha256 == binary.sha256) {
        return Some(format!("{} is the binary that {} runs already", binary.source, devnet.metadata.name));
    }
    if !spec.skip_vote && plan.is_none_or(|plan| plan.messages.is_empty()) {
        return Some(format!("the chain of {} has no governance to vote on it; add --skip-vote", devnet.metadata.name));
    }
    let plan = plan.filter(|plan| plan.handler == Handler::Missing && !spec.assume_handler && (upgrade.height().is_some() || !spec.skip_vote))?;
    Some(format!(
        "{} has no handler for {}: {}; with --assume-handler it is tried all the same",
        binary.source, spec.upgrade_name, plan.handler_message
    ))
}

async fn accept(
    upgrade: &Upgrade,
    binary: BinaryStatus,
    identity: &Initialized,
    plan: UpgradePlan,
    can_halt: bool,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let height = upgrade.height();
    let (phase, next_step) = match (upgrade.spec.skip_vote, height) {
        (false, _) => (UpgradePhase::Proposing, "proposes the upgrade".to_owned()),
        (true, Some(height)) => (UpgradePhase::Waiting, format!("waits for height {height}")),
        (true, None) => (UpgradePhase::Switching, "swaps the binary".to_owned()),
    };
    let version = if identity.sdk_version.is_empty() { binary.version.clone() } else { identity.sdk_version.clone() };
    let handler = match plan.handler_message.as_str() {
        "" => plan.handler.word().to_owned(),
        how => format!("{}: {how}", plan.handler.word()),
    };
    let message = format!("the new binary ({}) is {version}; handler {handler}; {next_step}", binary.source);
    let told = story(phase, &message).observed(format!("sha256 {}", binary.sha256)).action("check");
    let change = |next: &mut Upgrade| {
        let status = &mut next.status;
        status.binary = Some(binary);
        status.sdk_version.clone_from(&identity.sdk_version);
        status.handler = plan.handler.word().to_owned();
        status.height = height;
        status.notes.halts = can_halt;
        status.notes.skip_args = plan.skip_args;
        status.phase = phase;
        status.message = message;
    };
    commit(upgrade, Some(told), vec![], change, cx).await
}

/// Resolves when somebody cancels: a long build is not waited for.
async fn cancelled(upgrade: &Upgrade, cx: &Context) {
    let meta = &upgrade.metadata;
    let selector = Selector { namespace: Some(meta.namespace.clone()), name: Some(meta.name.clone()), ..Selector::kind(Kind::Upgrade) };
    let mut changes = cx.store.watch(selector, meta.resource_version);
    while let Some(Ok(change)) = changes.next().await {
        if change.deleted || matches!(&change.object, Object::Upgrade(upgrade) if upgrade.spec.cancel) {
            return;
        }
    }
    std::future::pending().await
}
