//! The caretaker on real files: what it makes of logs that grow, and what it costs.

use super::*;
use crate::{
    logs::{
        RealDisk,
        index::offset_at,
        parts::{Layout, PartKind},
        testing::{TestDisk, lost_of},
    },
    sys::{ManualClock, SystemClock},
};
use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::Ordering,
    time::Instant as Started,
};
use tokio::task::JoinHandle;

const KIB: u64 = 1 << 10;

struct Bench {
    dir: tempfile::TempDir,
    limits: Limits,
    orders: mpsc::UnboundedSender<Order>,
    reports: mpsc::UnboundedReceiver<Report>,
    stop: CancellationToken,
    caretaker: JoinHandle<std::io::Result<()>>,
}

fn limits(rotate: u64, node_bytes: u64) -> Limits {
    let caps = Caps { node_bytes, devnet_bytes: u64::MAX, age: Duration::from_secs(86_400) };
    Limits { rotate, caps }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self::on(limits, Arc::new(RealDisk))
    }

    fn on(limits: Limits, disk: Arc<dyn Disk>) -> Self {
        Self::at(limits, disk, Arc::new(SystemClock))
    }

    fn at(limits: Limits, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        let ((orders, ordered), (reporter, reports)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let stop = CancellationToken::new();
        let caretaker = Caretaker::new(Some(1), clock, disk, reporter).unwrap();
        let caretaker = tokio::spawn(caretaker.run(ordered, stop.clone()));
        Self { dir: tempfile::tempdir().unwrap(), limits, orders, reports, stop, caretaker }
    }

    fn log(&self, launch: &str, running: bool) -> KeptLog {
        self.log_of("net/a", launch, running)
    }

    fn log_of(&self, node: &str, launch: &str, running: bool) -> KeptLog {
        let path = self.dir.path().join(format!("{launch}.log")).into();
        KeptLog { path, node: Key::node("default", node), launch: LaunchId(launch.into()), running, forked: false, limits: self.limits }
    }

    fn open(&self, log: &KeptLog) -> File {
        File::options().append(true).create(true).open(&log.path).unwrap()
    }

    fn keep(&self, log: &KeptLog) {
        self.orders.send(Order::Keep(Arc::new(log.clone()))).unwrap();
    }

    /// A log of these bytes, the last of them so old, that is kept from now on.
    fn grown(&self, log: &KeptLog, text: &[u8], age: Duration) {
        let mut file = self.open(log);
        file.write_all(text).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        self.keep(log);
    }

    async fn report(&mut self) -> Finding {
        tokio::time::timeout(Duration::from_secs(10), self.reports.recv()).await.expect("a report comes").unwrap().finding
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.caretaker.await.unwrap().unwrap();
        self.dir
    }
}

/// What compresses has the lowest priority: a loaded machine lets it wait for long.
const AT_LAST: Duration = Duration::from_secs(300);

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Started::now();
    while !is_so() {
        assert!(started.elapsed() < AT_LAST, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn layout(log: &KeptLog) -> Layout {
    Layout::read(&log.path).unwrap()
}

fn all_packed(log: &KeptLog) -> bool {
    let layout = layout(log);
    layout.segments().count() > 0 && layout.segments().all(|part| part.kind == PartKind::Packed)
}

fn on_disk(log: &Path) -> u64 {
    let of = |path: &Path| fs::metadata(path).map(|about| about.blocks() * 512).unwrap_or(0);
    let parts = fs::read_dir(crate::logs::parts::folder(log)).into_iter().flatten().flatten();
    of(log) + parts.map(|entry| of(&entry.path())).sum::<u64>()
}

/// Hard to compress: blocks stay in number what they are in bytes.
fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|at| if at % 100 == 99 { b'\n' } else { next() }).collect()
}

/// After it is asked for the time a line is written.
struct Overtaken(Arc<Path>);

impl Clock for Overtaken {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        File::options().append(true).open(&self.0).unwrap().write_all(b"late\n").unwrap();
        now
    }
    fn fresh_id(&self) -> uuid::Uuid {
        SystemClock.fresh_id()
    }
}

#[test]
fn what_is_written_while_a_log_is_looked_at_counts_as_later() {
    let dir = tempfile::tempdir().unwrap();
    let path: Arc<Path> = dir.path().join("l1.log").into();
    fs::write(&path, "early\n").unwrap();
    let node = Key::node("default", "net/a");
    let kept = KeptLog { path: path.clone(), node, launch: LaunchId("l1".into()), running: true, forked: true, limits: limits(u64::MAX, u64::MAX) };
    Tracked::new(kept.into()).look(None, &RealDisk, &Overtaken(path.clone()));
    let later = Timestamp::from_millis(SystemClock.now().as_millis() + 1_000);
    assert_eq!(offset_at(&path, later).unwrap(), 6, "`late` was not written before that moment");
}

#[tokio::test]
async fn a_log_that_comes_after_its_launch_was_told_is_kept_all_the_same() {
    let bench = Bench::new(limits(64 * KIB, u64::MAX));
    let (first, log) = (bench.log("first", true), bench.log("late", true));
    bench.open(&first).write_all(&noise(200 * KIB, 3)).unwrap();
    bench.keep(&log); // its launch is only intended
    bench.keep(&first);
    until("the keeper has looked", || layout(&first).segments().count() > 0).await;
    bench.open(&log).write_all(&noise(200 * KIB, 1)).unwrap();
    bench.keep(&log); // now it runs
    until("the log is rotated", || layout(&log).segments().count() > 0).await;
    bench.end().await;
}

#[tokio::test]
async fn a_growing_log_is_rotated_and_compressed_again_and_again() {
    let bench = Bench::new(limits(64 * KIB, u64::MAX));
    let log = bench.log("l1", true);
    let mut node = bench.open(&log);
    bench.keep(&log);
    let mut written = Vec::new();
    for round in 0..3 {
        let text: Vec<u8> = (0..10_000).flat_map(|line| format!("round {round} line {line}\n").into_bytes()).collect();
        node.write_all(&text).unwrap();
        written.extend(text);
        let size = written.len() as u64;
        until("it is rotated and compressed", || layout(&log).floor() + 64 * KIB >= size && all_packed(&log)).await;
    }
    assert_eq!(lost_of(&log.path, &written), []);
    assert!(on_disk(&log.path) < 200 * KIB, "{} bytes", on_disk(&log.path));
    bench.end().await;
}

#[tokio::test]
async fn beyond_its_cap_a_node_loses_its_oldest_lines_those_of_ended_launches_first() {
    let bench = Bench::new(limits(64 * KIB, 400 * KIB));
    let (old, new) = (bench.log("l1", false), bench.log("l2", true));
    let first = noise(300 * KIB, 1);
    bench.open(&old).write_all(&first).unwrap();
    bench.keep(&old);
    let mut node = bench.open(&new);
    bench.keep(&new);
    let mut written = Vec::new();
    for round in 2..8 {
        let text = noise(150 * KIB, round);
        node.write_all(&text).unwrap();
        written.extend(text);
        until("it fits", || {
            layout(&new).floor() + 64 * KIB >= written.len() as u64 && on_disk(&old.path) + on_disk(&new.path) <= 400 * KIB + 80 * KIB
        })
        .await;
    }
    assert_eq!(lost_of(&old.path, &first), std::slice::from_ref(&(0..300 * KIB)));
    until("it fits for good", || on_disk(&new.path) <= 400 * KIB).await;
    let lost = lost_of(&new.path, &written);
    assert!(lost.len() == 1 && lost[0].start == 0 && lost[0].end > 400 * KIB, "{lost:?}");
    bench.end().await;
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_age_cap_goes_when_its_time_has_come_and_what_is_in_use_stays() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let caps = Caps { node_bytes: u64::MAX, devnet_bytes: u64::MAX, age: 60 * MINUTE };
    let bench = Bench::at(Limits { rotate: 64 * KIB, caps }, Arc::new(RealDisk), clock.clone());
    let (old, young, running) = (bench.log("l1", false), bench.log("l2", false), bench.log("l3", true));
    let text = noise(8 * KIB, 1); // too little to be compressed
    for (log, minutes) in [(&old, 50), (&young, 20), (&running, 90)] {
        bench.grown(log, &text, minutes * MINUTE);
    }
    let is_lost = |log: &KeptLog| lost_of(&log.path, &text).first() == Some(&(0..8 * KIB));
    until("all are known", || [&old, &young, &running].iter().all(|log| crate::logs::parts::folder(&log.path).exists())).await;
    tokio::time::sleep(5 * MINUTE).await; // by its timer, not by its clock: it looks, and nothing is due
    assert!([&old, &young, &running].iter().all(|log| lost_of(&log.path, &text).is_empty()));
    clock.advance(11 * MINUTE);
    tokio::time::sleep(6 * MINUTE).await; // nothing grows: only that timer can tell
    until("the old one goes", || is_lost(&old)).await;
    assert!(!is_lost(&young) && !is_lost(&running));
    bench.keep(&KeptLog { running: false, ..running.clone() });
    until("what was in use goes when it is not any more", || is_lost(&running)).await;
    clock.advance(30 * MINUTE);
    until("and the young one in its turn", || is_lost(&young)).await;
    bench.end().await;
}

#[tokio::test]
async fn beyond_the_cap_of_a_devnet_the_oldest_lines_of_any_of_its_nodes_go_and_none_of_another() {
    let caps = Caps { node_bytes: u64::MAX, devnet_bytes: 450 * KIB, age: Duration::from_secs(86_400) };
    let bench = Bench::new(Limits { rotate: 64 * KIB, caps });
    let (first, second) = (bench.log_of("net/a", "l1", false), bench.log_of("net/b", "l2", false));
    let (other, running) = (bench.log_of("other/a", "l3", false), bench.log_of("net/c", "l4", true));
    let texts = [noise(200 * KIB, 1), noise(200 * KIB, 2), noise(300 * KIB, 3)];
    for (log, text, minutes) in [(&first, &texts[0], 180), (&second, &texts[1], 120), (&other, &texts[2], 240)] {
        bench.grown(log, text, minutes * MINUTE);
    }
    let mut node = bench.open(&running);
    bench.keep(&running);
    let mut written = Vec::new();
    let sum = || [&first, &second, &running].iter().map(|log| on_disk(&log.path)).sum::<u64>();
    for (round, kib, expect) in [(4, 100, [true, false]), (5, 200, [true, true])] {
        let text = noise(kib * KIB, round);
        node.write_all(&text).unwrap();
        written.extend(text);
        until("it fits", || layout(&running).floor() + 64 * KIB >= written.len() as u64 && sum() <= 450 * KIB).await;
        let lost = [(&first, 0), (&second, 1)].map(|(log, at)| lost_of(&log.path, &texts[at]).first() == Some(&(0..200 * KIB)));
        assert_eq!(lost, expect, "after {} bytes", written.len());
    }
    assert_eq!(lost_of(&running.path, &written), []);
    assert_eq!(lost_of(&other.path, &texts[2]), [], "another devnet has a cap of its own");
    bench.end().await;
}

#[tokio::test]
async fn what_ended_launches_left_is_compressed_but_not_of_the_newest() {
    let bench = Bench::new(limits(10 << 20, u64::MAX));
    let logs = ["l1", "l2", "l3"].map(|launch| bench.log(launch, true));
    let text: Vec<u8> = (0..10_000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    for log in &logs {
        bench.open(log).write_all(&text).unwrap();
        bench.keep(log);
    }
    // A running one never is, whatever came later.
    bench.keep(&KeptLog { running: false, ..logs[1].clone() });
    until("the ended one is compressed", || all_packed(&logs[1])).await;
    assert_eq!((layout(&logs[0]), layout(&logs[2])), (Layout::default(), Layout::default()));
    bench.keep(&KeptLog { running: false, ..logs[2].clone() });
    bench.keep(&KeptLog { running: false, ..logs[0].clone() });
    until("the next is compressed", || all_packed(&logs[0])).await;
    assert_eq!(layout(&logs[2]), Layout::default(), "people look into it");
    for log in &logs {
        assert_eq!(lost_of(&log.path, &text), []);
    }
    until("the hole is there", || on_disk(&logs[0].path) * 4 < text.len() as u64).await;
    bench.end().await;
}

#[tokio::test]
async fn of_orders_that_come_together_the_last_of_each_log_counts() {
    let (reporter, mut reports) = mpsc::unbounded_channel();
    let mut caretaker = Caretaker::new(Some(1), Arc::new(SystemClock), Arc::new(RealDisk), reporter).unwrap();
    let bench = Bench::new(limits(10 << 20, u64::MAX));
    let (newest, ghost, twice) = (bench.log("l1", false), bench.log("l2", false), bench.log("l0", true));
    bench.open(&newest).write_all(&noise(200 * KIB, 1)).unwrap();
    let (orders, mut ordered) = mpsc::unbounded_channel();
    let (newest, ghost, twice) = (Arc::new(newest), Arc::new(ghost), Arc::new(KeptLog { forked: true, ..twice }));
    for order in [Order::Keep(ghost.clone()), Order::Keep(twice.clone()), Order::Forget(Arc::clone(&ghost.path)), Order::Keep(twice.clone())] {
        orders.send(order).unwrap();
    }
    caretaker.obey(Order::Keep(newest.clone()), &mut ordered).await;
    let known: BTreeSet<Arc<Path>> = caretaker.logs.keys().cloned().collect();
    assert_eq!(known, BTreeSet::from([Arc::clone(&newest.path), Arc::clone(&twice.path)]), "what was forgotten stays forgotten");
    assert!(caretaker.to_pack.is_empty(), "the newest launch is not compressed: {:?}", caretaker.to_pack.front().map(|(path, _)| path));
    assert!(matches!(reports.try_recv().unwrap().finding, Finding::Deleted));
    assert!(reports.try_recv().is_err(), "it is looked at once");
    bench.end().await;
}

#[tokio::test]
async fn a_log_that_is_missing_or_another_file_beside_its_running_process_is_told() {
    let mut bench = Bench::new(limits(64 * KIB, u64::MAX));
    let (intended, gone, other) = (bench.log("l1", true), bench.log("l2", true), bench.log("l3", true));
    bench.keep(&intended);
    bench.keep(&KeptLog { forked: true, ..gone });
    assert!(matches!(bench.report().await, Finding::Deleted), "it was deleted while no daemon ran");
    let _node = bench.open(&other);
    bench.keep(&other);
    until("it is known", || crate::logs::parts::folder(&other.path).exists()).await;
    let aside = other.path.with_extension("new");
    fs::write(&aside, noise(200 * KIB, 1)).unwrap();
    fs::rename(&aside, &other.path).unwrap();
    assert!(matches!(bench.report().await, Finding::Deleted));
    bench.keep(&KeptLog { running: false, ..other.clone() });
    assert_eq!(layout(&other), Layout::default(), "a stranger's file is not rotated");
    bench.end().await;
}

#[tokio::test]
async fn the_next_caretaker_finishes_what_the_last_one_left() {
    let bench = Bench::new(limits(64 * KIB, u64::MAX));
    let log = bench.log("l1", true);
    let text = noise(300 * KIB, 1);
    bench.open(&log).write_all(&text).unwrap();
    // Killed after the copy was renamed, before the hole.
    let ending = TestDisk::ending_after(3);
    assert!(Rotation::of(&log.path, &ending).rotate(64 * KIB, |_| 0).is_err());
    assert!(fs::metadata(&log.path).unwrap().blocks() * 512 >= 300 * KIB);
    bench.keep(&log);
    until("it is rotated to its end", || layout(&log).floor() >= 236 * KIB && all_packed(&log)).await;
    assert!(fs::metadata(&log.path).unwrap().blocks() * 512 <= 72 * KIB);
    assert_eq!(lost_of(&log.path, &text), []);
    bench.end().await;
}

#[tokio::test]
async fn losses_to_a_full_disk_are_told_at_once_and_then_together() {
    let disk = Arc::new(TestDisk::endless());
    disk.full.store(true, Ordering::SeqCst);
    let mut bench = Bench::on(limits(64 * KIB, u64::MAX), disk);
    let log = bench.log("l1", true);
    let mut node = bench.open(&log);
    bench.keep(&log);
    node.write_all(&noise(200 * KIB, 1)).unwrap();
    let Finding::Lost { from: 0, to, cause: LossCause::Disk } = bench.report().await else { panic!("a loss is told") };
    for round in 2..4 {
        node.write_all(&noise(200 * KIB, round)).unwrap();
        until("it is dropped", || layout(&log).floor() >= (round * 200 - 64) * KIB).await;
    }
    assert!(bench.reports.try_recv().is_err(), "the next minute's losses come together");
    // At the end of the launch what is pending is told.
    bench.keep(&KeptLog { running: false, ..log.clone() });
    let Finding::Lost { from, to: end, cause: LossCause::Disk } = bench.report().await else { panic!("the rest is told") };
    assert_eq!((from, end), (to, layout(&log).floor()));
    bench.end().await;
}

#[tokio::test]
async fn a_log_that_somebody_deletes_or_truncates_is_told_once() {
    let mut bench = Bench::new(limits(64 * KIB, u64::MAX));
    let log = bench.log("l1", true);
    let mut node = bench.open(&log);
    node.write_all(b"0123456789\n").unwrap();
    bench.keep(&log);
    until("it is known", || crate::logs::parts::folder(&log.path).exists()).await;
    node.set_len(0).unwrap();
    assert!(matches!(bench.report().await, Finding::Lost { from: 0, to: 11, cause: LossCause::Truncated }));
    node.write_all(b"more\n").unwrap();
    fs::remove_file(&log.path).unwrap();
    assert!(matches!(bench.report().await, Finding::Deleted));
    bench.keep(&KeptLog { running: false, ..log });
    let mut bench = bench;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(bench.reports.try_recv().is_err());
    bench.end().await;
}

/// Voluntary context switches of a thread: how often it was woken.
fn wakeups(thread: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn quiet_logs_cost_no_wake_up() {
    let (tell, told) = std::sync::mpsc::channel();
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new(limits(64 * KIB, u64::MAX));
            for number in 0..50 {
                let log = bench.log(&format!("l{number}"), true);
                bench.open(&log).write_all(b"line\n").unwrap();
                bench.keep(&log);
            }
            tell.send((nix::unistd::gettid().as_raw(), bench.dir.path().to_owned())).unwrap();
            ended.cancelled().await;
            bench.end().await;
        });
    });
    let (tid, dir) = told.recv().unwrap();
    std::thread::sleep(Duration::from_millis(1_000));
    let before = wakeups(tid);
    std::thread::sleep(Duration::from_millis(1_000));
    let quiet = wakeups(tid) - before;
    // And it does hear the next line.
    File::options().append(true).open(dir.join("l7.log")).unwrap().write_all(b"line\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let heard = wakeups(tid) - before - quiet;
    stop.cancel();
    thread.join().unwrap();
    assert!(quiet == 0 && heard > 0, "{quiet} wake-ups while all was quiet, {heard} for one line");
}

fn write_lines(node: &mut File, lines: u64) -> Duration {
    let started = Started::now();
    for number in 0..lines {
        let line = format!("{number:08} {:190}\n", "I[2026-01-01|10:00:00.000] executed block module=state");
        node.write_all(line.as_bytes()).unwrap();
    }
    started.elapsed()
}

fn cpu(clock: ClockId) -> Duration {
    Duration::from(clock_gettime(clock).unwrap())
}

/// 64 MiB in the suite; `DVB_TEST_LOG_MIB=200` gives the figure of the bench.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_writer_is_not_slowed_down_and_every_line_is_kept() {
    let mib: u64 = std::env::var("DVB_TEST_LOG_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(64);
    let lines = (mib << 20) / 200;
    let bench = Bench::new(limits(10 << 20, u64::MAX));
    let mut direct = File::options().append(true).create(true).open(bench.dir.path().join("direct")).unwrap();
    let floor = tokio::task::spawn_blocking(move || write_lines(&mut direct, lines)).await.unwrap();
    let log = bench.log("l1", true);
    let mut node = bench.open(&log);
    bench.keep(&log);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let (took, own) = tokio::task::spawn_blocking(move || {
        let own = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
        (write_lines(&mut node, lines), cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - own)
    })
    .await
    .unwrap();
    let size = lines * 200;
    until("it is rotated", || layout(&log).floor() + (10 << 20) >= size).await;
    let rotated = Started::now();
    until("it is compressed", || all_packed(&log)).await;
    let after = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let sum = |usage: &nix::sys::resource::Usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
    };
    println!(
        "{mib} MiB in {lines} lines: directly {floor:.2?}, with rotation {took:.2?}; copying and compression took {:.2} CPU s, the last {:.2?} after the last line; {} KiB on the disk",
        sum(&after) - sum(&before) - own.as_secs_f64(),
        rotated.elapsed(),
        on_disk(&log.path) >> 10,
    );
    let mut reader = crate::logs::LogReader::open(&log.path, 0).unwrap();
    for number in 0..lines {
        let Some(crate::logs::Item::Line { bytes, partial: false, .. }) = reader.next_whole().unwrap() else { panic!("line {number}") };
        assert!(bytes.starts_with(format!("{number:08} ").as_bytes()), "line {number}");
    }
    bench.end().await;
}
