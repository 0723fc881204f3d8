//! What only the SQLite store promises: files, failures of the disk, groups, old and strange databases.

use super::{
    Blame, Job, Mirror, SqliteStore, open as file, prepare,
    writer::{Durability, Writer},
};
use crate::{
    model::{Devnet, DevnetPhase, Key, Kind, LaunchPhase, LaunchStatus, RawJson, Timestamp},
    store::{
        EventFilter, Expect, Limits, Selector, Store, StoreError, Write,
        fixtures::{devnet, event, launch, lease, plan, validator},
    },
    sys::ManualClock,
};
use futures::StreamExt;
use rusqlite::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

impl SqliteStore {
    /// Lets the file grow to this many pages and no further: a full disk.
    async fn limit_pages(&self, pages: i64) {
        self.ask(|answer| Job::LimitPages { pages, answer }).await.unwrap();
    }
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, Arc::new(ManualClock::at(Timestamp::from_millis(1_767_225_600_000))), Limits::default())
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    (folder, path)
}

fn refusal(path: &Path) -> StoreError {
    open(path).err().expect("it is refused")
}

/// One object of each kind and an event.
fn household() -> Vec<Write> {
    vec![
        Write::create(devnet("default", "net")),
        Write::create(validator("default", "net", 0)),
        Write::create(launch("default", "net/validator-0", "l1")),
        Write::create(lease("default", "net", "subnet/127.64.1")),
        Write::create(plan("default", "net")),
        Write::Event(Box::new(event("e1", "Devnet", "default", "net"))),
    ]
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_numbers_go_on() {
    let (_folder, path) = place();
    let store = open(&path).unwrap();
    store.commit(household()).await.unwrap();
    store.set_meta_value("instance", "i").await.unwrap();
    let before = store.list(&Selector::default()).await.unwrap();
    drop(store);
    assert!(!path.with_extension("db-wal").exists(), "the log is folded in when the store is closed");

    let store = open(&path).unwrap();
    assert_eq!(store.list(&Selector::default()).await.unwrap(), before);
    assert_eq!(store.meta_value("instance").await.unwrap().as_deref(), Some("i"));
    let seen: Vec<_> = store.watch(Selector::default(), 2).take(3).map(|change| change.unwrap().revision).collect().await;
    assert_eq!(seen, [3, 4, 5], "a watch goes on over the restart");
    assert_eq!(store.commit(vec![Write::create(devnet("default", "b")), Write::Event(Box::new(event("e2", "Devnet", "", "")))]).await, Ok(6));
    let events: Vec<_> = store.watch_events(EventFilter::default()).take(2).map(|event| event.unwrap().seq).collect().await;
    assert_eq!(events, [1, 2]);
}

#[tokio::test]
async fn a_store_that_was_never_closed_is_there_too() {
    let (_folder, path) = place();
    let store = open(&path).unwrap();
    store.commit(household()).await.unwrap();
    // As after SIGKILL: nobody closed the file, the commit is in the log only.
    let (_other, copy) = place();
    for ending in ["", "-wal"] {
        fs::copy(format!("{}{ending}", path.display()), format!("{}{ending}", copy.display())).unwrap();
    }
    let copy = open(&copy).unwrap();
    assert_eq!(copy.list(&Selector::default()).await.unwrap(), store.list(&Selector::default()).await.unwrap());
}

#[tokio::test]
async fn the_log_of_a_store_that_is_never_closed_does_not_grow_from_crash_to_crash() {
    let mut sizes = Vec::new();
    let (mut folder, mut path) = place();
    for round in 0..8 {
        let store = open(&path).unwrap();
        for index in 0..20 {
            store.commit(vec![Write::create(devnet("default", &format!("net-{round}-{index}")))]).await.unwrap();
        }
        // As after SIGKILL.
        let (other, copy) = place();
        for ending in ["", "-wal"] {
            fs::copy(format!("{}{ending}", path.display()), format!("{}{ending}", copy.display())).unwrap();
        }
        sizes.push(fs::metadata(format!("{}-wal", copy.display())).unwrap().len());
        (folder, path) = (other, copy);
    }
    drop(folder);
    assert!(sizes[7] < 2 * sizes[1], "{sizes:?}");
}

#[tokio::test]
async fn numbers_go_on_when_all_of_the_past_is_compacted_away() {
    let (_folder, path) = place();
    let clock = Arc::new(ManualClock::default());
    let limits = Limits { changes: 0, events: 0 };
    let store = SqliteStore::open(&path, clock.clone(), limits).unwrap();
    store.commit(household()).await.unwrap();
    store.compact().await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path, clock, limits).unwrap();
    assert_eq!(store.list(&Selector::default()).await.unwrap().1, 5);
    let lost = store.watch(Selector::default(), 4).next().await;
    assert!(matches!(lost, Some(Err(StoreError::Compacted { asked: 4, oldest: 6 }))), "{lost:?}");
    assert_eq!(store.commit(vec![Write::create(devnet("default", "b"))]).await, Ok(6));
}

#[tokio::test]
async fn a_reader_far_behind_is_served_from_the_file() {
    let (_folder, path) = place();
    let store = open(&path).unwrap();
    let early = store.watch(Selector::kind(Kind::Devnet), 0);
    for batch in 0..30 {
        let writes = (0..50).map(|i| Write::create(devnet("default", &format!("n{batch}-{i}")))).collect();
        store.commit(writes).await.unwrap();
    }
    let seen: Vec<_> = early.take(1500).map(|change| change.unwrap().revision).collect().await;
    assert_eq!(seen, (1..=1500).collect::<Vec<_>>(), "over the seam between file and memory");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let (_folder, path) = place();
    drop(open(&path).unwrap());
    let good = fs::read(&path).unwrap();
    let mut torn = good.clone();
    // A page in the middle, not only the header.
    torn[4096 * 2..4096 * 2 + 64].fill(0xAA);
    for bytes in [b"this is no database, but it is long enough to be read as one ".repeat(20), torn, good[..5000].to_vec(), vec![]] {
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        let text = error.to_string();
        for part in [path.to_str().unwrap(), "nothing was changed", "move it aside"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "not a byte is changed");
    }
}

#[tokio::test]
async fn a_log_without_its_file_is_refused() {
    let (_folder, path) = place();
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    fs::write(&wal, b"frames").unwrap();
    let error = refusal(&path);
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("write-ahead log")), "{error}");
    assert!(!path.exists() && wal.exists());
}

#[tokio::test]
async fn a_half_made_store_of_a_crash_does_not_hinder_the_next_start() {
    let (_folder, path) = place();
    fs::write(path.with_extension("db.new"), b"half").unwrap();
    drop(open(&path).unwrap());
    assert!(!path.with_extension("db.new").exists());
}

#[tokio::test]
async fn somebody_elses_database_is_refused() {
    let (_folder, path) = place();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE books (title TEXT)").unwrap();
    let error = refusal(&path);
    assert!(matches!(&error, StoreError::Corrupt { detail, .. } if detail.contains("not a store of devnetd's")), "{error}");
}

#[tokio::test]
async fn a_store_of_a_newer_devnetd_is_refused_and_left_as_it_is() {
    let (_folder, path) = place();
    drop(open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(refusal(&path), StoreError::TooNew { path: path.display().to_string(), found: 99, known: crate::store::migrations::KNOWN });
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing_that_was_acknowledged() {
    let (_folder, path) = place();
    let store = open(&path).unwrap();
    store.commit(household()).await.unwrap();
    let before = store.list(&Selector::default()).await.unwrap();
    store.limit_pages(1).await; // It cannot shrink below what is there: no page more.
    let mut big = devnet("default", "big");
    big.metadata.annotations.insert("text".into(), "x".repeat(200_000));
    for _ in 0..3 {
        let refused = store.commit(vec![Write::create(big.clone())]).await;
        assert_eq!(refused, Err(StoreError::DiskFull { path: path.display().to_string() }));
    }
    assert_eq!(store.list(&Selector::default()).await.unwrap(), before);
    store.limit_pages(1 << 30).await;
    assert_eq!(store.commit(vec![Write::create(big)]).await, Ok(before.1 + 1), "it goes on when there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_tells_every_commit_of_its_group_the_truth() {
    let (_folder, path) = place();
    let store = Arc::new(open(&path).unwrap());
    store.limit_pages(60).await;
    let writers = (0..64).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut object = devnet("default", &format!("n{i}"));
            object.metadata.annotations.insert("text".into(), "x".repeat(5_000));
            (object.metadata.name.clone(), store.commit(vec![Write::create(object)]).await)
        })
    });
    let mut accepted = 0;
    for result in futures::future::join_all(writers).await {
        let (name, result) = result.unwrap();
        let there = store.get(&Key::devnet("default", &name)).await.unwrap();
        assert_eq!(there.map(|object| object.revision()), result.clone().ok(), "{name}: {result:?}");
        accepted += u64::from(result.is_ok());
    }
    assert!(accepted < 64, "the disk was too big for the test");
    assert_eq!(store.list(&Selector::default()).await.unwrap().1, accepted, "revisions have no gaps");
}

#[test]
fn a_read_only_store_is_named() {
    let (folder, path) = place();
    drop(open(&path).unwrap());
    for (file_mode, folder_mode) in [(0o444, 0o755), (0o644, 0o555)] {
        set_mode(&path, file_mode);
        set_mode(folder.path(), folder_mode);
        let error = as_nobody(folder.path(), || refusal(&path));
        set_mode(folder.path(), 0o755);
        assert_eq!(error, StoreError::ReadOnly { path: path.display().to_string() }, "{file_mode:o} in {folder_mode:o}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// Root may write whatever the mode says, so root runs it on a thread with another user's rights in the file system.
fn as_nobody<T: Send>(folder: &Path, run: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65534;
    if !nix::unistd::geteuid().is_root() {
        return run();
    }
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.to_owned()]) {
        std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
    }
    let lowered = || {
        nix::unistd::setfsuid(NOBODY.into());
        run()
    };
    thread::scope(|scope| scope.spawn(lowered).join().unwrap())
}

#[tokio::test]
async fn a_missing_folder_is_said_to_be_missing() {
    let (folder, _) = place();
    let error = refusal(&folder.path().join("no/store.db"));
    assert!(error.to_string().contains("is its folder there?"), "{error}");
}

#[tokio::test]
async fn the_database_itself_keeps_children_with_their_parents() {
    let (_folder, path) = place();
    open(&path).unwrap().commit(household()).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "foreign_keys", true).unwrap();
    let phase: String = raw.query_row("SELECT phase FROM nodes WHERE name = 'net/validator-0'", [], |row| row.get(0)).unwrap();
    assert_eq!(phase, "Pending", "readable with sqlite3");
    raw.execute("DELETE FROM devnets", []).unwrap();
    for table in ["nodes", "launches", "leases", "plans"] {
        let left: i64 = raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn only_groups_about_processes_alone_go_without_an_fsync() {
    let (_folder, path) = place();
    let mut sum = devnet("default", "net");
    sum.status.phase = DevnetPhase::Running;
    let mut begun = household();
    begun[0] = Write::create(sum);
    open(&path).unwrap().commit(begun).await.unwrap();
    let blame = Blame::new(&path);
    let connection = file::writer(&path, &blame).unwrap();
    let mirror = Arc::new(Mirror::load(&connection).ok().unwrap());
    let stored: Arc<Devnet> = mirror.get(&Key::devnet("default", "net")).unwrap().try_into().unwrap();
    let mut sum = Devnet::clone(&stored);
    sum.status.phase = DevnetPhase::Degraded;
    let writer = Writer::new(connection, blame, Arc::new(ManualClock::default()), Limits::default(), mirror).unwrap();
    let job = |writes: Vec<Write>| Job::Commit {
        writes: writes.into_iter().map(|write| prepare(write).unwrap()).collect(),
        answer: tokio::sync::oneshot::channel().0,
    };
    let needed = |group: Vec<Vec<Write>>| writer.needed(&group.into_iter().map(job).collect::<Vec<_>>());
    let told = || Write::Event(Box::new(event("e9", "Node", "default", "net/validator-0")));
    let run = || Write::create(launch("default", "net/validator-0", "l2"));
    let mut node = validator("default", "net", 0);
    node.status.pid = Some(7);
    let seen = Write::update(node.clone());
    node.spec.restart_request = 1;
    let asked = Write::update(node.clone());
    node.spec.restart_request = 0;
    node.metadata.deleted_at = Some(Timestamp::from_millis(1));
    let doomed = Write::update(node);

    assert_eq!(needed(vec![vec![told(), run(), seen.clone()], vec![run(), Write::update(sum)]]), Durability::Kill);
    for heavy in
        [asked, doomed, Write::create(validator("default", "net", 1)), Write::create(devnet("default", "net")), Write::create(lease("", "", ""))]
    {
        assert_eq!(needed(vec![vec![run()], vec![seen.clone(), heavy]]), Durability::PowerCut);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_queue_up_share_their_fsync_and_all_arrive() {
    let (_folder, path) = place();
    let store = Arc::new(open(&path).unwrap());
    let writes = (0..8).map(|index| Write::create(validator("default", "net", index)));
    let mut revision = store.commit([Write::create(devnet("default", "net"))].into_iter().chain(writes).collect()).await.unwrap();
    for writers in [1, 8] {
        for what in ["status", "spec"] {
            let begin = Instant::now();
            let tasks = (0..writers).map(|writer| tokio::spawn(write_often(store.clone(), writers, writer, what == "spec")));
            for task in futures::future::join_all(tasks).await {
                task.unwrap();
            }
            let commits = EACH * u64::from(writers);
            revision += commits;
            assert_eq!(store.list(&Selector::default()).await.unwrap().1, revision);
            println!(
                "MEASURED: {writers} writers: {:.0} commits/s (a node's {what} and an event each)",
                commits as f64 / begin.elapsed().as_secs_f64()
            );
        }
    }
    let begin = Instant::now();
    for _ in 0..200 {
        store.get(&Key::node("default", "net/validator-0")).await.unwrap().unwrap();
    }
    let each = begin.elapsed() / 200;
    println!("MEASURED: get: {each:?}");
    assert!(each < Duration::from_millis(5), "a get takes {each:?}");
}

const EACH: u64 = 100;

/// Commits of one node and one event each.
async fn write_often(store: Arc<SqliteStore>, writers: u32, writer: u32, spec: bool) {
    for i in 0..EACH {
        let id = format!("{writers}-{writer}-{i}-{spec}");
        let mut node = validator("default", "net", writer);
        node.status.restart_count = u32::try_from(i).unwrap();
        if spec {
            node.spec.restart_request = i + 1;
        }
        let node = Write::Put { object: node.into(), expect: Expect::Any };
        store.commit(vec![node, Write::Event(Box::new(event(&id, "Node", "default", "net/x")))]).await.unwrap();
    }
}

#[tokio::test]
async fn a_launch_is_in_memory_until_it_is_let_go_also_after_a_restart() {
    let (_folder, path) = place();
    let store = open(&path).unwrap();
    let mut ended = launch("default", "net/validator-0", "l1");
    ended.status.phase = LaunchPhase::Ended;
    let mut held = launch("default", "net/validator-0", "l2");
    held.status = LaunchStatus { handle: Some(RawJson::of(&serde_json::json!({"pid": 7})).unwrap()), ..ended.status.clone() };
    let keys = [&ended, &held].map(|launch| Key::new(Kind::Launch, "default", &launch.metadata.name));
    let parents = [Write::create(devnet("default", "net")), Write::create(validator("default", "net", 0))];
    store.commit(parents.into_iter().chain([Write::create(ended), Write::create(held)]).collect()).await.unwrap();
    let in_memory = |store: &SqliteStore| keys.each_ref().map(|key| store.mirror.get(key).is_some());
    assert_eq!(in_memory(&store), [false, true]);
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(in_memory(&store), [false, true]);
    for key in &keys {
        assert!(store.get(key).await.unwrap().is_some(), "{key}");
    }
}
