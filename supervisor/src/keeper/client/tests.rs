//! The daemon's side against keepers that are threads of the test.

use super::*;
use crate::{
    keeper::server,
    sys::{self, Clock, SystemClock},
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread::JoinHandle,
};

/// A home whose keepers are threads of this test.
struct Bench {
    hash: String,
    keepers: Arc<Mutex<Vec<JoinHandle<io::Result<()>>>>>,
    started: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        Self { hash: format!("test-{}", SystemClock.fresh_id()), keepers: Arc::default(), started: Arc::default() }
    }

    /// A daemon's side; the first to need a keeper starts it.
    fn daemon(&self) -> Keeper {
        let (keepers, started) = (self.keepers.clone(), self.started.clone());
        let start = move |listener| {
            started.fetch_add(1, Ordering::SeqCst);
            keepers.lock().unwrap().push(std::thread::spawn(move || server::serve(listener)));
            Ok(None)
        };
        Keeper::with_start(self.hash.clone(), Box::new(start))
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// Waits until every keeper has ended.
    fn ended(&self) {
        let keepers: Vec<_> = self.keepers.lock().unwrap().drain(..).collect();
        keepers.into_iter().for_each(|keeper| keeper.join().unwrap().unwrap());
    }

    fn line(&self) -> OwnedFd {
        wire::call(&wire::address(&self.hash).unwrap()).unwrap().expect("a keeper listens")
    }
}

/// The near end of a stream whose far end the keeper gets.
fn stream(keeper: &Keeper, name: &str) -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    keeper.put(name, far.as_fd()).unwrap();
    near
}

fn says(near: &mut UnixStream, far: OwnedFd) {
    UnixStream::from(far).write_all(b"x").unwrap();
    let mut byte = [0];
    near.read_exact(&mut byte).unwrap();
}

fn closed(near: &mut UnixStream) -> bool {
    near.read(&mut [0]).unwrap() == 0
}

#[test]
fn what_was_put_in_comes_back_by_name_after_the_daemon_has_gone() {
    let bench = Bench::new();
    let first = bench.daemon();
    assert_eq!(first.recall("").unwrap().len(), 0);
    assert_eq!(bench.started(), 0, "to ask starts nobody");
    let mut nears: Vec<_> = ["launch/a", "launch/b", "port/1"].iter().map(|name| stream(&first, name)).collect();
    drop(first); // as SIGKILL does: all its descriptors are closed, and nothing said
    let second = bench.daemon();
    let found = second.recall("launch/").unwrap();
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["launch/a", "launch/b"]);
    found.into_iter().zip(&mut nears).for_each(|((_, far), near)| says(near, far));
    assert_eq!(second.names().unwrap(), ["launch/a", "launch/b", "port/1"]);
    ["launch/a", "launch/b", "port/1"].iter().for_each(|name| second.release(name));
    assert_eq!(second.names().unwrap(), Vec::<String>::new());
    assert!(nears.iter_mut().all(closed), "nobody holds what was released");
    second.close();
    bench.ended();
    assert_eq!(bench.started(), 1);
}

#[test]
fn a_keeper_with_something_in_it_outlives_every_daemon_and_a_new_value_takes_the_place_of_the_old() {
    let bench = Bench::new();
    let first = bench.daemon();
    let mut old = stream(&first, "a");
    let mut new = stream(&first, "a");
    first.release("never put in");
    first.close();
    drop(first);
    assert!(closed(&mut old));
    let second = bench.daemon();
    let (_, far) = second.recall("a").unwrap().remove(0);
    says(&mut new, far);
    second.release("a");
    second.close();
    bench.ended();
}

#[test]
fn there_is_one_keeper_however_many_ask_for_it() {
    let bench = Bench::new();
    let daemons: Vec<_> = (0..8).map(|_| bench.daemon()).collect();
    std::thread::scope(|scope| {
        for (index, daemon) in daemons.iter().enumerate() {
            scope.spawn(move || drop(stream(daemon, &index.to_string())));
        }
    });
    assert_eq!(daemons[0].names().unwrap().len(), 8);
    assert_eq!(bench.started(), 1);
    let taken = wire::listen_on(&wire::address(&bench.hash).unwrap()).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    (0..8).for_each(|index| daemons[0].release(&index.to_string()));
    daemons.iter().for_each(Keeper::close);
    bench.ended();
}

#[test]
fn what_is_released_after_a_line_was_given_up_is_let_go_all_the_same() {
    let bench = Bench::new();
    let daemon = bench.daemon();
    let mut near = stream(&daemon, "port/1");
    give_up(&mut daemon.state());
    daemon.release_all(&["port/1".to_owned()]);
    assert!(closed(&mut near), "the keeper still has it");
    daemon.close();
    bench.ended();
}

/// `connect` forks with the state in hand. Who waited for all forks first and for the state then would wait for ever.
#[test]
fn a_release_while_a_keeper_is_started_waits_for_it_and_not_for_ever() {
    let (begun, begins) = std::sync::mpsc::channel();
    let start = move |listener| {
        begun.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(100)); // for the other to come as far as it can
        sys::with_a_child_in_between(|| std::thread::spawn(move || server::serve(listener)));
        Ok(None)
    };
    let daemon = Keeper::with_start(Bench::new().hash, Box::new(start));
    let (done, ends) = std::sync::mpsc::channel();
    let (other, done_too) = (daemon.clone(), done.clone());
    std::thread::spawn(move || {
        begins.recv().unwrap();
        other.release_all(&["port/1".to_owned()]);
        done.send(()).unwrap();
    });
    let (first, put) = (daemon.clone(), done_too);
    std::thread::spawn(move || {
        drop(stream(&first, "port/2"));
        put.send(()).unwrap();
    });
    for _ in 0..2 {
        ends.recv_timeout(Duration::from_secs(30)).expect("both go on");
    }
    daemon.close();
}

#[test]
fn damaged_messages_harm_nothing() {
    let bench = Bench::new();
    let daemon = bench.daemon();
    let mut near = stream(&daemon, "a");
    let line = bench.line();
    let long = vec![1; 5_000];
    for bytes in [&b""[..], b"\x01", b"\x01\x63", b"\x09\x03a", b"\x01\x03no descriptor", b"\x01\x04\xff\xfe", &long] {
        // The empty one counts as hanging up, so each has a line of its own.
        let line = bench.line();
        let _ = rustix::net::send(&line, bytes, rustix::net::SendFlags::NOSIGNAL);
    }
    wire::send(&line, Word::End, "out of turn", None).unwrap();
    assert!(wire::send(&line, Word::Put, &"n".repeat(wire::MAX_NAME + 1), None).is_err());
    assert!(greet(&line).unwrap().is_some(), "it still answers on that line");
    assert_eq!(daemon.names().unwrap(), ["a"]);
    let (_, far) = daemon.recall("a").unwrap().remove(0);
    says(&mut near, far);
    daemon.release("a");
    daemon.close();
    drop(line);
    bench.ended();
}

#[test]
fn a_caller_that_takes_no_answers_holds_nobody_up_for_long() {
    let bench = Bench::new();
    let daemon = bench.daemon();
    let _near = stream(&daemon, &"n".repeat(200));
    let deaf = bench.line();
    // Far more answers than a socket's buffer takes.
    while wire::send(&deaf, Word::List, "", None).is_ok() {}
    assert_eq!(daemon.names().unwrap().len(), 1);
    daemon.release(&"n".repeat(200));
    daemon.close();
    bench.ended();
}

/// The first keeper only listens, and is gone when its socket is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_dies_is_followed_by_one_that_holds_the_same() {
    let hash = format!("test-{}", SystemClock.fresh_id());
    let (killed, starts) = (Arc::new(Mutex::new(None::<OwnedFd>)), Arc::new(AtomicUsize::new(0)));
    let keepers = Arc::new(Mutex::new(Vec::new()));
    let (first, count, threads) = (killed.clone(), starts.clone(), keepers.clone());
    let start = move |listener: OwnedFd| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            *first.lock().unwrap() = Some(listener);
        } else {
            threads.lock().unwrap().push(std::thread::spawn(move || server::serve(listener)));
        }
        Ok(None)
    };
    let daemon = Keeper::with_start(hash, Box::new(start));
    let mut near = stream(&daemon, "a");
    killed.lock().unwrap().take();
    let started = Instant::now();
    while starts.load(Ordering::SeqCst) < 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "no other keeper is started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, far) = daemon.recall("a").unwrap().remove(0);
    says(&mut near, far);
    daemon.release("a");
    daemon.close();
    let keepers: Vec<_> = keepers.lock().unwrap().drain(..).collect();
    keepers.into_iter().for_each(|keeper| keeper.join().unwrap().unwrap());
}

#[test]
fn a_keeper_that_hangs_is_an_error_and_takes_no_longer_than_one_answer() {
    let hash = format!("test-{}", SystemClock.fresh_id());
    let hanging = wire::listen_on(&wire::address(&hash).unwrap()).unwrap();
    let daemon = Keeper::with_start(hash, Box::new(|_| unreachable!("one listens")));
    let started = Instant::now();
    let error = daemon.put("a", hanging.as_fd()).unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(started.elapsed() < 2 * wire::PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let hash = format!("test-{}", SystemClock.fresh_id());
    let keeper = Keeper::new(dir.path(), hash, dir.path().join("missing"), dir.path().join("log"));
    let error = keeper.put("a", sys::Pidfd::open(std::process::id()).unwrap().as_fd()).unwrap_err();
    assert!(matches!(&error, KeeperError::Start { .. }) && error.to_string().contains("missing"), "{error}");
}

#[test]
fn whoever_asks_for_its_pid_has_one_started() {
    let bench = Bench::new();
    let daemon = bench.daemon();
    assert_eq!(daemon.pid().unwrap(), std::process::id(), "this one is a thread of ours");
    assert_eq!(daemon.pid().unwrap(), std::process::id());
    assert_eq!(bench.started(), 1);
    daemon.close();
    bench.ended();
}
