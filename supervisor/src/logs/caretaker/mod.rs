//! Keeps the logs of all launches within their limits: one task that owns what is known of them.
//!
//! ```text
//!            alarm rings                          grown: again, later when it is slow
//!   quiet ───────────────► look by a timer ──┐◄──────────────────────────────────────┐
//!     ▲                    (no alarm is set) └── rotate, note the time, report ───────┘
//!     └──────────────────────── not grown: set the alarm ◄────┘
//! ```
//! A quiet log costs no wake-up. A busy one costs a look each `FIRST_LOOK` to `LAST_LOOK`, on a grid, so that all slow ones share one
//! wake-up; its writer pays nothing. Compression runs aside, one segment at a time, and takes all of a log whose node has a later launch.

#[cfg(test)]
mod tests;
mod tracked;

use super::{
    Caps, Disk, LogError, LossCause,
    caps::{devnet_cap, excess},
    pack::{Load, pack_aside},
    rotate::Rotation,
};
use crate::{
    model::{Key, LaunchId, Timestamp},
    sys::{Alarm, Clock},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracked::{Look, Tracked};

const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(5);
/// Less in the file of an ended launch is not worth a segment.
const WORTH_PACKING: u64 = 16 << 10;
/// Age is looked at when the oldest part is due, and so often at most.
const EXPIRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 3_600));

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptLog {
    pub path: Arc<Path>,
    pub node: Key,
    pub launch: LaunchId,
    /// Its process may write to it.
    pub running: bool,
    /// It was there before its process, which is forked.
    pub forked: bool,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// A live file above this is rotated.
    pub rotate: u64,
    pub caps: Caps,
}

/// How many bytes are left free on a disk of `total`.
fn reserve(disk_floor: Option<u64>, total: u64) -> u64 {
    disk_floor.unwrap_or_else(|| (total / 50).max((1 << 30).min(total / 10)))
}

#[derive(Clone, Debug)]
pub enum Order {
    /// From now on; again when it changed.
    Keep(Arc<KeptLog>),
    /// It is gone, or will be.
    Forget(Arc<Path>),
}

/// Something that the owner of a node should know.
#[derive(Debug)]
pub struct Report {
    pub log: Arc<KeptLog>,
    pub finding: Finding,
}

#[derive(Debug)]
pub enum Finding {
    Lost {
        from: u64,
        to: u64,
        cause: LossCause,
    },
    /// The process writes on into a file that has lost its name, or has given it to another file.
    Deleted,
    /// The file system punches no holes: the log of a running node grows on.
    CannotRotate,
    Failed(LogError),
}

pub struct Caretaker {
    disk_floor: Option<u64>,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    alarm: Alarm,
    logs: HashMap<Arc<Path>, Tracked>,
    /// Logs that grow, by when to look at them.
    due: BTreeSet<(Instant, Arc<Path>)>,
    looked: HashMap<Arc<Path>, Instant>,
    grid: Instant,
    to_pack: VecDeque<(Arc<Path>, Load)>,
    packing: Option<Packing>,
    /// By wall clock, which may jump: recomputed whenever it was waited for.
    expiry: Instant,
    reports: mpsc::UnboundedSender<Report>,
}

/// The log of which a part is being compressed, and what comes of it.
type Packing = (Arc<Path>, oneshot::Receiver<Result<(), LogError>>);

enum Event {
    Order(Option<Order>),
    Rung(Vec<Arc<Path>>),
    Due,
    Packed(Result<(), LogError>),
    Expired,
}

impl Caretaker {
    /// With less than `disk_floor` bytes left on the disk, lines are dropped instead of copied. None: 2 % of the disk and at least 1 GiB, or
    /// a tenth where that is less.
    pub fn new(disk_floor: Option<u64>, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>, reports: mpsc::UnboundedSender<Report>) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            disk_floor,
            clock,
            disk,
            alarm: Alarm::new()?,
            logs: HashMap::new(),
            due: BTreeSet::new(),
            looked: HashMap::new(),
            grid: now,
            to_pack: VecDeque::new(),
            packing: None,
            expiry: now + EXPIRY.0,
            reports,
        })
    }

    /// Until `stop`, or until nobody gives orders any more. What is half done is finished by the next start.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, stop: CancellationToken) -> std::io::Result<()> {
        loop {
            let next = self.due.first().map(|(at, _)| *at);
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                order = orders.recv() => Event::Order(order),
                rung = self.alarm.rung() => Event::Rung(rung?),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Event::Due,
                packed = packed(&mut self.packing) => Event::Packed(packed),
                () = sleep_until(self.expiry), if !self.logs.is_empty() => Event::Expired,
            };
            match event {
                Event::Order(None) => return Ok(()),
                Event::Order(Some(order)) => self.obey(order, &mut orders).await,
                Event::Rung(paths) => self.hear(paths),
                Event::Due => self.look_at_due().await,
                Event::Packed(result) => self.packed(result).await,
                Event::Expired => self.enforce(None).await,
            }
            self.pack_next();
        }
    }

    /// Takes further orders along: a start brings hundreds.
    async fn obey(&mut self, first: Order, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let (mut fresh, mut late, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Forget(path) => {
                    fresh.retain(|tracked: &Tracked| tracked.kept.path != path);
                    self.forget(&path);
                }
                Order::Keep(kept) => match self.logs.get_mut(&kept.path) {
                    Some(known) => {
                        if known.kept.running && !kept.running || known.kept.limits != kept.limits {
                            changed.push(kept.path.clone());
                        } else if !known.was_there() {
                            late.push(kept.path.clone());
                        }
                        known.kept = kept;
                    }
                    // Told again before the first look at it.
                    None => match fresh.iter_mut().find(|tracked| tracked.kept.path == kept.path) {
                        Some(known) => known.kept = kept,
                        None => fresh.push(Tracked::new(kept)),
                    },
                },
            }
            next = orders.try_recv().ok();
        }
        fresh.extend(late.iter().filter_map(|path| self.logs.remove(path)));
        if !fresh.is_empty() {
            self.look(fresh, Tracked::take_up).await;
        }
        let changed: Vec<Tracked> = changed.iter().filter_map(|path| self.logs.remove(path)).collect();
        if !changed.is_empty() {
            self.look(changed, Tracked::look).await;
        }
    }

    fn forget(&mut self, path: &Arc<Path>) {
        self.logs.remove(path);
        self.looked.remove(path);
        self.due.retain(|(_, other)| other != path);
        self.to_pack.retain(|(other, _)| other != path);
        self.alarm.unset(path);
    }

    fn hear(&mut self, paths: Vec<Arc<Path>>) {
        let now = self.clock.now();
        for path in paths {
            if let Some(tracked) = self.logs.get_mut(&path) {
                tracked.grows(now);
                self.schedule(path, FIRST_LOOK);
            }
        }
    }

    async fn look_at_due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some((at, path)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, path));
                break;
            }
            due.extend(self.logs.remove(&path));
        }
        self.look(due, Tracked::look).await;
    }

    /// Looks at logs on a thread for blocking work, then decides about each when to look again.
    async fn look(&mut self, logs: Vec<Tracked>, how: fn(&mut Tracked, Option<u64>, &dyn Disk, &dyn Clock) -> Look) {
        let (disk_floor, disk, clock) = (self.disk_floor, self.disk.clone(), self.clock.clone());
        let look = move |mut tracked: Tracked| {
            let look = how(&mut tracked, disk_floor, disk.as_ref(), clock.as_ref());
            (tracked, look)
        };
        let Ok(looked) = tokio::task::spawn_blocking(move || logs.into_iter().map(look).collect::<Vec<_>>()).await else { return };
        let (mut devnets, mut nodes) = (BTreeSet::new(), BTreeSet::new());
        for (tracked, look) in looked {
            for report in look.reports {
                let _ = self.reports.send(report); // nobody listens: the daemon goes down
            }
            let path = tracked.kept.path.clone();
            self.to_pack.extend(look.to_pack.into_iter().map(|part| (path.clone(), Load::Segment(part))));
            nodes.insert(tracked.kept.node.clone());
            let (namespace, devnet) = devnet_of(&tracked.kept.node);
            devnets.insert((namespace.to_owned(), devnet.to_owned()));
            self.logs.insert(path.clone(), tracked);
            self.look_again(path, look.grown);
        }
        nodes.iter().for_each(|node| self.pack_ended(node));
        self.enforce(Some(devnets)).await;
    }

    /// What a node's launches before the newest have left is read less often; people look into the newest with tools of their own.
    fn pack_ended(&mut self, node: &Key) {
        let mut launches: Vec<&mut Tracked> = self.logs.values_mut().filter(|log| log.kept.node == *node).collect();
        launches.sort_by(|one, other| one.kept.launch.cmp(&other.kept.launch));
        launches.pop();
        for log in launches {
            if !log.kept.running && log.live >= WORTH_PACKING && !std::mem::replace(&mut log.packs_rest, true) {
                self.to_pack.push_back((log.kept.path.clone(), Load::Rest));
            }
        }
    }

    fn look_again(&mut self, path: Arc<Path>, grown: u64) {
        let Some(tracked) = self.logs.get(&path) else { return };
        self.due.retain(|(_, other)| *other != path);
        let before = self.looked.insert(path.clone(), Instant::now());
        if !tracked.kept.running {
            self.alarm.unset(&path);
            self.looked.remove(&path);
            return;
        }
        if grown > 0 {
            let elapsed = before.map_or(FIRST_LOOK, |before| before.elapsed());
            let room = tracked.kept.limits.rotate.saturating_sub(tracked.live);
            self.schedule(path, next_look(grown, elapsed, room));
            return;
        }
        let size = tracked.size;
        // A file that is not there yet comes with the launch's next change.
        if self.alarm.set(&path).is_ok() && std::fs::metadata(&path).is_ok_and(|about| about.len() != size) {
            self.alarm.unset(&path);
            self.hear(vec![path]);
        }
    }

    fn schedule(&mut self, path: Arc<Path>, after: Duration) {
        let wanted = Instant::now() + after;
        // Upwards to the next multiple of the pause: the slow ones all fall together.
        let since = wanted.duration_since(self.grid).as_millis();
        let step = after.as_millis().max(1);
        let at = self.grid + Duration::from_millis(u64::try_from(since.div_ceil(step) * step).unwrap_or(u64::MAX));
        self.looked.insert(path.clone(), Instant::now());
        self.due.insert((at, path));
    }

    async fn packed(&mut self, result: Result<(), LogError>) {
        let Some((path, _)) = self.packing.take() else { return };
        if let Err(error) = result {
            tracing::warn!(%error, "a log stays uncompressed");
        }
        if let Some(tracked) = self.logs.get_mut(&path) {
            tracked.recount();
            let (namespace, devnet) = devnet_of(&tracked.kept.node);
            let devnet = (namespace.to_owned(), devnet.to_owned());
            self.enforce(Some(BTreeSet::from([devnet]))).await;
        }
    }

    fn pack_next(&mut self) {
        if self.packing.is_some() {
            return;
        }
        if let Some((path, load)) = self.to_pack.pop_front() {
            match pack_aside(Arc::clone(&path), load, self.disk.clone()) {
                Ok(done) => self.packing = Some((path, done)),
                Err(error) => tracing::warn!(%error, log = %path.display(), "a log stays uncompressed"),
            }
        }
    }

    /// Holds these devnets, or all, to the caps; also finds out when the next part is too old.
    async fn enforce(&mut self, devnets: Option<BTreeSet<(String, String)>>) {
        let now = self.clock.now();
        let mut groups: BTreeMap<(&str, &str), Vec<&Tracked>> = BTreeMap::new();
        let mut expires: Option<Timestamp> = None;
        for tracked in self.logs.values() {
            let expiry = tracked.oldest.map(|oldest| oldest.plus(tracked.kept.limits.caps.age));
            expires = [expires, expiry].into_iter().flatten().min();
            let devnet = devnet_of(&tracked.kept.node);
            if devnets.as_ref().is_none_or(|devnets| devnets.iter().any(|(namespace, name)| (namespace.as_str(), name.as_str()) == devnet)) {
                groups.entry(devnet).or_default().push(tracked);
            }
        }
        let over = groups.into_values().filter(|logs| is_over(logs, now));
        let over: Vec<Vec<Arc<Path>>> = over.map(|logs| logs.into_iter().map(|log| log.kept.path.clone()).collect()).collect();
        for paths in over {
            self.trim(paths, now).await;
        }
        let expires = expires.map_or(EXPIRY.1, |expires| expires.since(now));
        self.expiry = Instant::now() + expires.clamp(EXPIRY.0, EXPIRY.1);
    }

    async fn trim(&mut self, paths: Vec<Arc<Path>>, now: Timestamp) {
        // A log with a segment in the packer's hands waits for it.
        let busy = self.packing.as_ref().map(|(path, _)| path.clone());
        let logs: Vec<Tracked> = paths.iter().filter_map(|path| self.logs.remove(path)).collect();
        let disk = self.disk.clone();
        let trimmed = tokio::task::spawn_blocking(move || trim(logs, busy.as_ref(), now, disk.as_ref())).await;
        let Ok((logs, failures)) = trimmed else { return };
        self.logs.extend(logs.into_iter().map(|tracked| (tracked.kept.path.clone(), tracked)));
        failures.into_iter().for_each(|error| tracing::warn!(%error, "a log stays above its cap"));
    }
}

/// By what is known without looking.
fn is_over(logs: &[&Tracked], now: Timestamp) -> bool {
    let mut nodes: BTreeMap<&Key, (Caps, u64)> = BTreeMap::new();
    logs.iter().for_each(|log| nodes.entry(&log.kept.node).or_insert((log.kept.limits.caps, 0)).1 += log.bytes);
    let caps: Vec<Caps> = nodes.values().map(|(caps, _)| *caps).collect();
    nodes.values().map(|(_, bytes)| bytes).sum::<u64>() > devnet_cap(&caps)
        || nodes.values().any(|(caps, bytes)| *bytes > caps.node_bytes)
        || logs.iter().any(|log| log.oldest.is_some_and(|oldest| now.since(oldest) > log.kept.limits.caps.age))
}

/// Blocking.
fn trim(mut logs: Vec<Tracked>, busy: Option<&Arc<Path>>, now: Timestamp, disk: &dyn Disk) -> (Vec<Tracked>, Vec<LogError>) {
    let mut nodes: BTreeMap<&Key, usize> = BTreeMap::new();
    let (mut held, mut caps) = (Vec::new(), Vec::new());
    for log in &logs {
        let node = *nodes.entry(&log.kept.node).or_insert(caps.len());
        if node == caps.len() {
            caps.push(log.kept.limits.caps);
        }
        held.extend(log.held(node));
    }
    let drops: Vec<(Arc<KeptLog>, u64)> = excess(&held, &caps, now).into_iter().map(|(log, to)| (log.clone(), to)).collect();
    let mut failures = Vec::new();
    for (log, to) in drops.into_iter().filter(|(log, _)| busy != Some(&log.path)) {
        let dropped = Rotation::of(&log.path, disk).discard(to, LossCause::Cap, !log.running);
        failures.extend(dropped.err());
    }
    logs.iter_mut().for_each(Tracked::recount);
    (logs, failures)
}

async fn packed(packing: &mut Option<Packing>) -> Result<(), LogError> {
    match packing {
        // Its thread panicked: then the segment stays as it is.
        Some((_, done)) => done.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

/// A fast log sooner: before it has filled half of the room that is left.
fn next_look(grown: u64, elapsed: Duration, room: u64) -> Duration {
    let fills_half = elapsed.as_secs_f64() * room as f64 / grown.max(1) as f64 / 2.0;
    Duration::from_secs_f64(fills_half.clamp(FIRST_LOOK.as_secs_f64(), LAST_LOOK.as_secs_f64()))
}

fn devnet_of(node: &Key) -> (&str, &str) {
    (&node.namespace, node.name.split('/').next().unwrap_or_default())
}
