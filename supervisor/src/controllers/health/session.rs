//! One node's health session: probes until it is ready, then listens to its blocks.

use super::{
    super::{Context, Edit, Story, node::class_reason, placing::placed},
    http::http_ok,
    meter::Meter,
};
use crate::{
    holders::{Holder, has_socket, holder_of, is_in_a_container, listeners_at},
    logs::{self, LastWords},
    model::{Condition, ConditionStatus, Devnet, ExitClass, HealthCheck, Key, Kind, Launch, LaunchId, Node, PlacedNode, Readiness, Timestamp},
    plugin::{BlockHeight, ChainPlugin, Classified, DevnetContext, Health, PluginError},
    store::StoreError,
};
use futures::StreamExt;
use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

/// There is no event for "a server began to listen": the first probes come fast, later ones slower, up to once a second.
const FIRST_PROBE: Duration = Duration::from_millis(25);
const SLOWEST_PROBE: Duration = Duration::from_secs(1);
/// Peers and usage are looked at with a block, at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A ready node whose probe fails this long is not ready any more.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// Blocks that may be missing before a node counts as stalled.
const MISSING_BLOCKS: u32 = 5;
const STALL_FLOOR: Duration = Duration::from_secs(10);
/// So many of its last lines are looked through for why a node makes no blocks: one that lives goes on to speak of other things.
const LAST_WORDS: usize = 200;
/// So many blocks in a row, each when it is made, and a node counts as stable, however short the time: fast chains need not wait a minute.
const STABLE_BLOCKS: u32 = 30;
/// A process without any other sign of readiness is ready when it has lived for so long: most that cannot run end sooner.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// The reason of a node whose port somebody else answers at.
const STRANGER: &str = "PortBusy";
/// Programs that listen on the host for a container, by the names that the kernel has: they are no children of who asked for it.
const FORWARDERS: [&str; 6] = ["docker-proxy", "rootlessport", "rootlesskit", "slirp4netns", "pasta", "pasta.avx2"];
/// When the spec names no block time.
const STALL_UNKNOWN: Duration = Duration::from_secs(30);

pub(super) struct Session {
    cx: Context,
    meter: Meter,
    key: Key,
    launch: LaunchId,
    started: Timestamp,
    node: PlacedNode,
    readiness: Readiness,
    log: PathBuf,
    family: String,
    /// What its plugin is told of the devnet. None: it has no chain to ask about.
    devnet: Option<DevnetContext>,
    stall_after: Duration,
}

/// Why a session ends by itself: the store is gone, or the plugin cannot be had.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Session {
    pub(super) fn new(node: &Node, launch: &Launch, devnet: &Devnet, context: Option<DevnetContext>, cx: &Context) -> Self {
        let stall_after = devnet.spec.block_time.map_or(STALL_UNKNOWN, |time| (time.0 * MISSING_BLOCKS).max(STALL_FLOOR));
        let key = Key::node(&node.metadata.namespace, &node.metadata.name);
        Self {
            cx: cx.clone(),
            meter: Meter { cx: cx.clone(), node: key.clone(), launch: Key::new(Kind::Launch, &launch.metadata.namespace, &launch.metadata.name) },
            key,
            launch: launch.spec.launch_id.clone(),
            started: launch.status.started_at.unwrap_or_default(),
            node: placed(node),
            readiness: launch.spec.readiness.clone(),
            log: PathBuf::from(&launch.spec.log_path),
            family: devnet.spec.plugin.clone(),
            devnet: context,
            stall_after,
        }
    }

    /// A service's runs until that is ready, a chain's node's until it is dropped or the store is gone.
    pub(super) async fn run(self: Box<Self>, frozen: bool) {
        if !frozen && let Err(error) = Box::pin(self.lead()).await {
            tracing::warn!(node = %self.key, %error, "health session ended");
            return;
        }
        self.meter.sample().await; // what it used so far; later, when somebody reads nodes
    }

    async fn lead(&self) -> Result<(), Stop> {
        match &self.devnet {
            Some(devnet) => self.chain(devnet).await,
            None => self.service().await,
        }
    }

    /// A node without a chain: ready once, then only its usage is of interest.
    async fn service(&self) -> Result<(), Stop> {
        let what = match &self.readiness {
            Readiness::Tcp(port) => self.until(|| self.tcp(port)).await?,
            Readiness::Http { port, path } => self.until(|| self.http(port, path)).await?,
            Readiness::LogText(text) => self.until_logged(text).await?,
            Readiness::Process | Readiness::Plugin => self.until_settled().await,
        };
        self.set_ready(true, "Ready", &what).await
    }

    async fn chain(&self, devnet: &DevnetContext) -> Result<(), Stop> {
        let mut begun = Instant::now();
        let mut unreachable_since: Option<Instant> = None;
        let mut still = Still::default();
        loop {
            let found = self.probe(devnet).await;
            match found {
                Ok(health) if health.ready => {
                    self.see(&health);
                    unreachable_since = None;
                    self.set_ready(true, "Ready", &format!("its RPC answers at height {}", health.height)).await?;
                    self.follow(devnet, health.height).await?;
                    begun = Instant::now();
                }
                Ok(health) => {
                    self.see(&health);
                    if let Some(class) = health.sick {
                        self.set_progressing(false, class_reason(class), &health.message).await?;
                    } else if still.stands(health.height, self.stall_after)
                        && let Some(said) = self.last_words(devnet).await
                    {
                        self.set_progressing(false, class_reason(said.class), &said.message).await?;
                    }
                    self.set_ready(false, "NotReady", &health.message).await?;
                    // It answers: its next block is a reason to ask again, before the next probe is due.
                    self.next_block(devnet, pause(begun.elapsed())).await;
                    continue;
                }
                Err(error) => {
                    let since = *unreachable_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNREACHABLE_AFTER {
                        self.set_ready(false, "Unreachable", &error.to_string()).await?;
                    }
                }
            }
            tokio::time::sleep(pause(begun.elapsed())).await;
        }
    }

    /// Returns with the node's next block, after `longest` at the latest.
    async fn next_block(&self, devnet: &DevnetContext, longest: Duration) {
        let due = Instant::now() + longest;
        let block = async { self.plugin().await?.heights(devnet, &self.node).await?.next().await.transpose() };
        if !matches!(tokio::time::timeout_at(due, block).await, Ok(Ok(Some(_)))) {
            tokio::time::sleep_until(due).await; // it announces no blocks
        }
    }

    /// Listens to blocks until the stream ends.
    async fn follow(&self, devnet: &DevnetContext, mut height: u64) -> Result<(), Stop> {
        let Ok(plugin) = self.plugin().await else { return Ok(()) };
        let Ok(mut heights) = plugin.heights(devnet, &self.node).await else { return Ok(()) };
        let mut looked = Instant::now();
        let mut reads = self.cx.observations.reads();
        let mut stall = Instant::now() + self.stall_after;
        let mut stalled = false;
        let mut blocks = 0;
        loop {
            tokio::select! {
                block = heights.next() => {
                    let Some(Ok(block)) = block else { return Ok(()) };
                    if block.height > height || self.cx.observations.get(&self.key).is_none_or(|seen| seen.height.is_none_or(|height| height == 0)) {
                        height = block.height;
                        self.see_block(&block);
                        self.set_progressing(true, "NewBlocks", "makes or follows blocks").await?;
                        stall = Instant::now() + self.stall_after;
                        stalled = false;
                        blocks = self.count(blocks);
                    }
                    if looked.elapsed() >= LOOK_EVERY {
                        looked = Instant::now();
                        self.look(devnet).await;
                    }
                }
                changed = reads.changed(), if looked.elapsed() >= SLOWEST_PROBE => {
                    if changed.is_err() { return Ok(()) }
                    looked = Instant::now();
                    self.look(devnet).await;
                }
                () = tokio::time::sleep_until(stall), if !stalled => {
                    (stalled, blocks) = (true, 0);
                    self.stalled(devnet, height).await?;
                }
            }
        }
    }

    /// One block more; while it catches up, blocks are those of others.
    fn count(&self, blocks: u32) -> u32 {
        if self.cx.observations.get(&self.key).is_none_or(|seen| seen.catching_up) {
            return 0;
        }
        if blocks + 1 == STABLE_BLOCKS {
            self.cx.observations.update(&self.key, |seen| seen.steady = true);
            self.cx.wake.node(&self.key);
        }
        blocks + 1
    }

    /// No block for long: ask the node whether it knows why, then its log.
    async fn stalled(&self, devnet: &DevnetContext, height: u64) -> Result<(), Stop> {
        let sick = self.probe(devnet).await.ok().and_then(|health| Some((health.sick?, health.message)));
        let sick = match sick {
            None => self.last_words(devnet).await.map(|said| (said.class, said.message)),
            known => known,
        };
        match sick {
            Some((class, message)) => self.set_progressing(false, class_reason(class), &message).await,
            None => self.set_progressing(false, "NoNewBlock", &format!("no block for {:?}; the height stays at {height}", self.stall_after)).await,
        }
    }

    /// What the log of a node that lives says of why it makes no blocks; none where its plugin reads nothing of the kind in it.
    async fn last_words(&self, devnet: &DevnetContext) -> Option<Classified> {
        let log = self.log.clone();
        let tail = on_blocking_thread(move || Some(LastWords::read(&log, LAST_WORDS).telling_lines())).await?;
        let said = self.plugin().await.ok()?.classify(devnet, &self.node, None, &tail).await.ok()?;
        Some(said).filter(|said| halts(said.class))
    }

    async fn plugin(&self) -> Result<Arc<dyn ChainPlugin>, PluginError> {
        self.cx.plugins.get(&self.family).await
    }

    async fn probe(&self, devnet: &DevnetContext) -> Result<Health, PluginError> {
        self.plugin().await?.probe(devnet, &self.node).await
    }

    /// Peers, catching-up and usage, beside a block or because somebody reads.
    async fn look(&self, devnet: &DevnetContext) {
        if let Ok(health) = self.probe(devnet).await {
            self.see(&health);
        }
        self.meter.sample().await;
    }

    fn see(&self, health: &Health) {
        let now = self.cx.clock.now();
        self.cx.observations.update(&self.key, |seen| {
            if seen.height.is_none_or(|height| health.height > height) {
                seen.advanced_at = now;
            }
            seen.height = seen.height.max(Some(health.height));
            seen.peers = Some(health.peers);
            seen.catching_up = health.catching_up;
            seen.details.clone_from(&health.details);
        });
    }

    fn see_block(&self, block: &BlockHeight) {
        let now = self.cx.clock.now();
        self.cx.observations.update(&self.key, |seen| {
            seen.height = Some(block.height);
            seen.advanced_at = now;
        });
    }

    async fn set_ready(&self, ready: bool, reason: &str, message: &str) -> Result<(), Stop> {
        self.set("Ready", ready, reason, message).await
    }

    async fn set_progressing(&self, progressing: bool, reason: &str, message: &str) -> Result<(), Stop> {
        self.set("Progressing", progressing, reason, message).await
    }

    /// Writes when the condition turns, and only while the node still runs this launch. A warning is what was good and is not any more;
    /// a node that is starting is none.
    async fn set(&self, kind: &str, value: bool, reason: &str, message: &str) -> Result<(), Stop> {
        let now = self.cx.clock.now();
        let status = if value { ConditionStatus::True } else { ConditionStatus::False };
        self.cx
            .edit_node(&self.key, vec![], |node| {
                let same = node.status.conditions.get(kind).is_some_and(|old| old.status == status && (value || old.reason == reason));
                if same || super::watched(node).is_none_or(|watched| watched.frozen || watched.launch != self.launch) {
                    return Edit::Skip;
                }
                let lost = !value && (kind != "Ready" || node.status.conditions.is_true(kind));
                node.status.conditions.set(Condition::new(kind, status, reason, message), now);
                note_check(node, kind, value, message, now);
                let story = Story::new("health", reason, message).observed(format!("{kind}={status:?}")).launch(self.launch.clone());
                Edit::Tell(if lost { story.warn() } else { story })
            })
            .await?;
        Ok(())
    }

    /// Its end within this time ends the session.
    async fn until_settled(&self) -> String {
        let up = self.cx.clock.now().since(self.started);
        tokio::time::sleep(SETTLED_AFTER.saturating_sub(up)).await;
        "its process runs".to_owned()
    }

    /// Repeats a probe until it answers, fast at first. Why it does not is told: a stranger at once, all else when it takes long.
    async fn until<F: Future<Output = Result<String, Unready>>>(&self, probe: impl Fn() -> F) -> Result<String, Stop> {
        let begun = Instant::now();
        let mut told = None;
        loop {
            match probe().await {
                Ok(what) => return Ok(what),
                Err(Unready { reason, message }) if told != Some(reason) && (reason == STRANGER || begun.elapsed() >= UNREACHABLE_AFTER) => {
                    self.set_ready(false, reason, &message).await?;
                    told = Some(reason);
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause(begun.elapsed())).await;
        }
    }

    async fn tcp(&self, port: &str) -> Result<String, Unready> {
        let target = self.target(port);
        TcpStream::connect(&target).await.map_err(|error| Unready::new(format!("tcp {target}: {error}")))?;
        self.is_ours(&target).await?;
        Ok(format!("{target} accepts connections"))
    }

    async fn http(&self, port: &str, path: &str) -> Result<String, Unready> {
        let target = self.target(port);
        http_ok(&target, path).await.map_err(|why| Unready::new(format!("http://{target}{path}: {why}")))?;
        self.is_ours(&target).await?;
        Ok(format!("http://{target}{path} answers"))
    }

    /// That `target` answers says nothing of this launch when a stranger has taken its port. Who cannot be told is taken at his word.
    async fn is_ours(&self, target: &str) -> Result<(), Unready> {
        match Box::pin(self.stranger_at(target)).await {
            None => Ok(()),
            Some(stranger) => {
                Err(Unready { reason: STRANGER, message: format!("{target} is answered by {stranger}, which is no process of this launch") })
            }
        }
    }

    async fn stranger_at(&self, target: &str) -> Option<Holder> {
        let (handle, at) = (self.meter.handle().await?, target.parse().ok()?);
        let main = handle.pid?;
        let inodes = on_blocking_thread(move || Some(listeners_at(at)).filter(|inodes| !has_socket(main, inodes))).await?;
        let ours = self.cx.runtime.processes(&handle).await.ok()??;
        let stranger = move || (!ours.iter().any(|pid| has_socket(*pid, &inodes))).then(|| holder_of(&inodes));
        on_blocking_thread(stranger).await.filter(may_be_told)
    }

    fn target(&self, port: &str) -> String {
        format!("{}:{}", self.node.address, self.node.ports.get(port).copied().unwrap_or_default())
    }

    async fn until_logged(&self, text: &str) -> Result<String, Stop> {
        let mut said = pin!(self.logged(text));
        match tokio::time::timeout(UNREACHABLE_AFTER, &mut said).await {
            Ok(what) => Ok(what),
            Err(_) => {
                self.set_ready(false, "NotReady", &format!("its log does not say `{text}` yet")).await?;
                Ok(said.await)
            }
        }
    }

    /// By inotify: the log is read as the process writes it.
    async fn logged(&self, text: &str) -> String {
        // The probe is dropped with the launch, so nothing needs to end the reading.
        let mut items = pin!(logs::follow(self.log.clone(), 0, CancellationToken::new()));
        while let Some(item) = items.next().await {
            if let Ok(logs::Item::Line { bytes, .. }) = item
                && String::from_utf8_lossy(&bytes).contains(text)
            {
                return format!("its log says `{text}`");
            }
        }
        std::future::pending().await // the log was taken away: it never becomes ready by this
    }
}

/// Causes with which a chain stands still while its process lives. Of anything else, a panic too, one that lives has recovered.
fn halts(class: ExitClass) -> bool {
    matches!(class, ExitClass::AppHash | ExitClass::ConsensusFailure | ExitClass::UpgradeNeeded)
}

/// How long a node that answers has been at one height.
#[derive(Default)]
struct Still {
    height: u64,
    since: Option<Instant>,
}

impl Still {
    /// True once each time that the height has not moved for so long.
    fn stands(&mut self, height: u64, long: Duration) -> bool {
        let moved = self.height != height;
        let since = *self.since.get_or_insert_with(Instant::now);
        if moved || since.elapsed() >= long {
            (self.height, self.since) = (height, Some(Instant::now()));
            return !moved;
        }
        false
    }
}

/// Why a probe did not find the node ready.
struct Unready {
    reason: &'static str,
    message: String,
}

impl Unready {
    fn new(message: String) -> Self {
        Self { reason: "NotReady", message }
    }
}

/// Not one whom we cannot see, nor a container, or who listens for one: it may well be of this launch.
fn may_be_told(holder: &Holder) -> bool {
    matches!(holder, Holder::Process { pid, program } if !FORWARDERS.contains(&program.as_str()) && !is_in_a_container(*pid))
}

/// None when the daemon is about to end.
async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok().flatten()
}

/// Between two probes of a node that was waited for this long: what it needed to listen, it is noticed an eighth later at most.
fn pause(waited: Duration) -> Duration {
    (waited / 8).clamp(FIRST_PROBE, SLOWEST_PROBE)
}

fn note_check(node: &mut Node, kind: &str, value: bool, message: &str, now: Timestamp) {
    let check = HealthCheck { name: kind.to_owned(), status: if value { "Passing" } else { "Failing" }.into(), message: message.to_owned(), at: now };
    match node.status.health_checks.iter_mut().find(|old| old.name == kind) {
        Some(old) => *old = check,
        None => node.status.health_checks.push(check),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_a_node_lived_through_is_not_why_it_stands_still() {
        assert!(halts(ExitClass::AppHash) && halts(ExitClass::ConsensusFailure) && halts(ExitClass::UpgradeNeeded));
        assert!(![ExitClass::Panic, ExitClass::Unknown, ExitClass::DbLocked, ExitClass::PortBusy].into_iter().any(halts));
    }

    #[test]
    fn a_session_keeps_no_room_for_what_it_does_only_at_first() {
        fn size<F>(_: impl Fn(Box<Session>) -> F) -> usize {
            size_of::<F>()
        }
        let (future, session) = (size(|session| session.run(false)), size_of::<Session>());
        assert!(future < 2 * session, "{future} bytes for a session of {session}");
    }

    #[test]
    fn probes_follow_the_time_that_a_node_takes_and_never_stop_or_crowd() {
        let check = |waited: u64, want: u64| assert_eq!(pause(Duration::from_millis(waited)), Duration::from_millis(want), "{waited} ms");
        check(0, 25);
        check(1_600, 200);
        check(60_000, 1_000);
    }
}
