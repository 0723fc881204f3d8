//! StreamLogs over a real socket and real files, with launches as the controllers write them.

use super::super::testing::{Served, fault, next, node, serve, wanted};
use crate::{
    model::{FaultCode, Key, Kind, Launch, LaunchId, LaunchPhase, LaunchRecord, LaunchStatus, Meta, Object, Timestamp},
    store::Write,
};
use dvb_proto::devnet::v1;
use futures::StreamExt;
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

/// A devnet `mynet` with two validators and no launches.
async fn mynet() -> Served {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.cx.store.commit(vec![Write::create(node("mynet", 0)), Write::create(node("mynet", 1))]).await.unwrap();
    served
}

fn log_path(served: &Served, short: &str, id: &str) -> PathBuf {
    let dir = served.cx.home.node_logs("default", "mynet", short);
    fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{id}.log"))
}

/// Commits a launch of validator-`index`; ids are in the order of their making.
async fn launch(served: &Served, index: u32, id: &str, phase: LaunchPhase) {
    let short = format!("validator-{index}");
    let log_path = log_path(served, &short, id).to_string_lossy().into_owned();
    let node_ref = format!("mynet/{short}");
    let metadata = Meta { name: format!("{node_ref}@{id}"), namespace: "default".into(), ..Meta::default() };
    let spec = LaunchRecord { node_ref, launch_id: LaunchId(id.into()), log_path, ..LaunchRecord::default() };
    let launch = Launch {
        metadata,
        spec: spec.into(),
        status: LaunchStatus { phase, started_at: Some(Timestamp::from_millis(0)), ..LaunchStatus::default() },
    };
    served.cx.store.commit(vec![Write::create(launch)]).await.unwrap();
}

async fn set_phase(served: &Served, index: u32, id: &str, phase: LaunchPhase) {
    let key = Key::new(Kind::Launch, "default", &format!("mynet/validator-{index}@{id}"));
    let Some(Object::Launch(launch)) = served.cx.store.get(&key).await.unwrap() else { panic!("{key} is not there") };
    let mut launch = Launch::clone(&launch);
    launch.status.phase = phase;
    if phase == LaunchPhase::Ended {
        launch.status.ended_at = Some(Timestamp::from_millis(1_000));
    }
    served.cx.store.commit(vec![Write::update(launch)]).await.unwrap();
}

fn say(served: &Served, index: u32, id: &str, text: &str) {
    let path = log_path(served, &format!("validator-{index}"), id);
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

async fn open(served: &Served, request: v1::LogRequest) -> tonic::Streaming<v1::LogEntry> {
    served.devnets().stream_logs(v1::LogRequest { devnet: "mynet".into(), ..request }).await.unwrap().into_inner()
}

fn short(entry: v1::LogEntry) -> String {
    let (node, launch) = (entry.node.replace("mynet/validator-", ""), entry.launch_id);
    format!("{node} {launch} {}{}", String::from_utf8(entry.line).unwrap(), if entry.partial { "…" } else { "" })
}

async fn all(served: &Served, request: v1::LogRequest) -> Vec<String> {
    open(served, request).await.map(|entry| short(entry.unwrap())).collect().await
}

/// The next `count` lines in any order of nodes.
async fn some(stream: &mut tonic::Streaming<v1::LogEntry>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        lines.push(short(next(stream).await.unwrap().unwrap()));
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn all_launches_are_read_node_by_node_and_the_tail_reaches_back_over_restarts() {
    let served = mynet().await;
    for (index, id, text) in [(0, "l1", "a\nb\n"), (0, "l2", "c\nd\nrest"), (1, "l3", "x\ny\n")] {
        say(&served, index, id, text);
        launch(&served, index, id, LaunchPhase::Ended).await;
    }
    let request = v1::LogRequest::default;
    assert_eq!(all(&served, request()).await, ["0 l1 a", "0 l1 b", "0 l2 c", "0 l2 d", "0 l2 rest…", "1 l3 x", "1 l3 y"]);
    assert_eq!(all(&served, v1::LogRequest { tail: Some(1), ..request() }).await, ["0 l2 rest…", "1 l3 y"]);
    assert_eq!(
        all(&served, v1::LogRequest { tail: Some(4), nodes: vec!["validator-0".into()], ..request() }).await,
        ["0 l1 b", "0 l2 c", "0 l2 d", "0 l2 rest…"]
    );
    assert_eq!(all(&served, v1::LogRequest { tail: Some(0), ..request() }).await, Vec::<String>::new());
    assert_eq!(all(&served, v1::LogRequest { previous: true, ..request() }).await, ["0 l1 a", "0 l1 b"]);
    assert_eq!(all(&served, v1::LogRequest { launch_id: Some("l3".into()), ..request() }).await, ["1 l3 x", "1 l3 y"]);
}

#[tokio::test]
async fn what_was_dropped_shows_as_a_gap_with_its_reason_and_is_no_line_of_the_tail() {
    let served = mynet().await;
    let text = "dropped\nkept one\nkept two\n";
    say(&served, 0, "l1", text);
    let parts = log_path(&served, "validator-0", "l1.log.d").with_extension("");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("000000000000-000000000008.lost-cap"), "").unwrap();
    fs::write(parts.join("000000000008-000000000017.log"), &text[8..17]).unwrap();
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    let request = v1::LogRequest { nodes: vec!["validator-0".into()], ..Default::default() };
    let entries: Vec<v1::LogEntry> = open(&served, request.clone()).await.map(|entry| entry.unwrap()).collect().await;
    assert_eq!((entries[0].offset, entries[0].lost, entries[0].lost_because.as_str()), (0, 8, "dropped by the log cap"));
    assert_eq!(entries.into_iter().skip(1).map(short).collect::<Vec<_>>(), ["0 l1 kept one", "0 l1 kept two"]);
    assert_eq!(all(&served, v1::LogRequest { tail: Some(2), ..request.clone() }).await, ["0 l1 kept one", "0 l1 kept two"]);
    let told = open(&served, v1::LogRequest { tail: Some(3), ..request }).await.next().await.unwrap().unwrap();
    assert_eq!(told.lost, 8, "more was asked for than is there");
}

#[tokio::test]
async fn of_a_log_that_somebody_deleted_what_was_rotated_is_read() {
    let served = mynet().await;
    let parts = log_path(&served, "validator-0", "l1.log.d").with_extension("");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("000000000000-000000000008.log"), "one\ntwo\n").unwrap();
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    let request = v1::LogRequest { nodes: vec!["validator-0".into()], ..Default::default() };
    let entries: Vec<v1::LogEntry> = open(&served, request.clone()).await.map(|entry| entry.unwrap()).collect().await;
    assert!(entries[2].note.starts_with("somebody deleted its log"), "{entries:?}");
    assert_eq!(entries.into_iter().take(2).map(short).collect::<Vec<_>>(), ["0 l1 one", "0 l1 two"]);
    assert_eq!(all(&served, v1::LogRequest { tail: Some(1), ..request }).await, ["0 l1 two", "0 l1 "]);
}

#[tokio::test]
async fn a_log_larger_than_a_batch_comes_whole() {
    let served = mynet().await;
    let text: String = (0..5_000).map(|i| format!("line {i} {}\n", "x".repeat(100))).collect();
    say(&served, 0, "l1", &text);
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    let lines = all(&served, v1::LogRequest::default()).await;
    assert_eq!(lines.len(), 5_000);
    assert!(lines[4_999].starts_with("0 l1 line 4999 "));
}

#[tokio::test]
async fn following_goes_on_over_a_restart_and_ends_with_the_devnet() {
    let served = mynet().await;
    say(&served, 0, "l1", "a\nb\n");
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    let mut stream = open(&served, v1::LogRequest { follow: true, tail: Some(1), ..Default::default() }).await;
    assert_eq!(some(&mut stream, 1).await, ["0 l1 b"]);
    say(&served, 0, "l1", "c\nlast words");
    assert_eq!(some(&mut stream, 1).await, ["0 l1 c"]);
    set_phase(&served, 0, "l1", LaunchPhase::Ended).await;
    assert_eq!(some(&mut stream, 1).await, ["0 l1 last words…"]);
    assert_eq!(some(&mut stream, 1).await, ["0 l1 "], "it ends with its launch");

    launch(&served, 0, "l2", LaunchPhase::Intended).await;
    say(&served, 0, "l2", "again\n");
    set_phase(&served, 0, "l2", LaunchPhase::Running).await;
    assert_eq!(some(&mut stream, 1).await, ["0 l2 again"]);
    say(&served, 1, "l3", "another node\n");
    launch(&served, 1, "l3", LaunchPhase::Running).await;
    assert_eq!(some(&mut stream, 1).await, ["1 l3 another node"]);

    say(&served, 0, "l2", "the end\n");
    assert_eq!(some(&mut stream, 1).await, ["0 l2 the end"]);
    served.delete_devnet("mynet").await;
    assert!(next(&mut stream).await.is_none());
}

#[tokio::test]
async fn an_old_launch_whose_record_is_corrected_is_not_read_again() {
    let served = mynet().await;
    say(&served, 0, "l1", "old\n");
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    say(&served, 0, "l2", "a\n");
    launch(&served, 0, "l2", LaunchPhase::Running).await;
    let after = vec![v1::LogCursor { node: "mynet/validator-0".into(), launch_id: "l2".into(), offset: 0 }];
    let mut resumed = open(&served, v1::LogRequest { follow: true, after, ..Default::default() }).await;
    let mut tail = open(&served, v1::LogRequest { follow: true, tail: Some(1), ..Default::default() }).await;
    for stream in [&mut resumed, &mut tail] {
        assert_eq!(some(stream, 1).await, ["0 l2 a"]);
    }
    set_phase(&served, 0, "l1", LaunchPhase::Ended).await;
    launch(&served, 0, "l3", LaunchPhase::Intended).await;
    say(&served, 0, "l3", "b\n");
    set_phase(&served, 0, "l3", LaunchPhase::Running).await;
    for stream in [&mut resumed, &mut tail] {
        assert_eq!(some(stream, 1).await, ["0 l3 b"]);
    }
}

#[tokio::test]
async fn following_one_node_hears_nothing_of_others_and_one_launch_ends_with_it() {
    let served = mynet().await;
    say(&served, 0, "l1", "a\n");
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    let one_node = v1::LogRequest { follow: true, nodes: vec!["validator-1".into()], ..Default::default() };
    let mut one_node = open(&served, one_node).await;
    let one_launch = v1::LogRequest { follow: true, launch_id: Some("l1".into()), ..Default::default() };
    let mut one_launch = open(&served, one_launch).await;
    say(&served, 1, "l2", "x\n");
    launch(&served, 1, "l2", LaunchPhase::Running).await;
    assert_eq!(some(&mut one_node, 1).await, ["1 l2 x"]);
    assert_eq!(some(&mut one_launch, 1).await, ["0 l1 a"]);
    set_phase(&served, 0, "l1", LaunchPhase::Ended).await;
    assert!(next(&mut one_launch).await.is_none());
}

#[tokio::test]
async fn a_reader_goes_on_from_its_cursors_whatever_tail_and_since_say() {
    let served = mynet().await;
    for (index, id, text) in [(0, "l1", "a\nb\n"), (0, "l2", "c\n"), (1, "l3", "x\ny\n")] {
        say(&served, index, id, text);
        launch(&served, index, id, LaunchPhase::Ended).await;
    }
    let cursor = |index: u32, launch: &str, offset| v1::LogCursor { node: format!("mynet/validator-{index}"), launch_id: launch.into(), offset };
    let after = async |cursors: Vec<v1::LogCursor>| all(&served, v1::LogRequest { tail: Some(1), after: cursors, ..Default::default() }).await;
    assert_eq!(after(vec![]).await, ["0 l2 c", "1 l3 y"]);
    assert_eq!(after(vec![cursor(0, "l1", 2), cursor(1, "l3", 0)]).await, ["0 l1 b", "0 l2 c", "1 l3 x", "1 l3 y"]);
    assert_eq!(after(vec![cursor(0, "l1", 4), cursor(1, "l3", 4)]).await, ["0 l2 c"]);
    assert_eq!(after(vec![cursor(0, "l0", 99), cursor(1, "l4", 7)]).await, ["0 l1 a", "0 l1 b", "0 l2 c"], "launches that are gone");

    let entries: Vec<v1::LogEntry> = open(&served, v1::LogRequest::default()).await.map(|entry| entry.unwrap()).collect().await;
    assert_eq!(entries.iter().map(|entry| entry.next).collect::<Vec<_>>(), [2, 4, 2, 2, 4], "each entry says where to read on");
    // One that begins at the end says so before there is a line.
    let from_now = v1::LogRequest { follow: true, tail: Some(0), nodes: vec!["validator-1".into()], ..Default::default() };
    let first = next(&mut open(&served, from_now).await).await.unwrap().unwrap();
    assert_eq!((first.launch_id.as_str(), first.next, first.partial, first.line.len()), ("l3", 4, true, 0));
    // So does one whose log is empty, or not there yet: all that it is going to write is new.
    launch(&served, 1, "l4", LaunchPhase::Intended).await;
    let last = v1::LogRequest { follow: true, tail: Some(0), nodes: vec!["validator-1".into()], ..Default::default() };
    let first = next(&mut open(&served, last).await).await.unwrap().unwrap();
    assert_eq!((first.launch_id.as_str(), first.next, first.partial, first.line.len()), ("l4", 0, true, 0));
}

#[tokio::test]
async fn a_log_that_is_missing_beside_its_running_process_is_told_with_the_mend() {
    let served = mynet().await;
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    launch(&served, 1, "l2", LaunchPhase::Intended).await;
    for follow in [false, true] {
        let told = next(&mut open(&served, v1::LogRequest { follow, ..Default::default() }).await).await.unwrap().unwrap();
        assert!(told.node == "mynet/validator-0" && told.note.ends_with("dvbctl restart mynet/validator-0"), "{told:?}");
    }
}

#[tokio::test]
async fn a_follower_is_told_when_the_daemon_ends() {
    let served = mynet().await;
    let mut stream = open(&served, v1::LogRequest { follow: true, ..Default::default() }).await;
    served.cx.shutdown.cancel();
    assert_eq!(fault(&next(&mut stream).await.unwrap().unwrap_err()).code, FaultCode::ShuttingDown);
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_by_name() {
    let served = mynet().await;
    let refused = async |request: v1::LogRequest| fault(&served.devnets().stream_logs(request).await.unwrap_err());
    let request = || v1::LogRequest { devnet: "mynet".into(), ..Default::default() };
    assert_eq!(refused(v1::LogRequest { devnet: "nope".into(), ..request() }).await.code, FaultCode::NotFound);
    let node = refused(v1::LogRequest { nodes: vec!["validatr-1".into()], ..request() }).await;
    assert_eq!((node.code, node.remedy.unwrap().contains("`validator-1`")), (FaultCode::NotFound, true));
    assert_eq!(refused(v1::LogRequest { launch_id: Some("l9".into()), ..request() }).await.code, FaultCode::NotFound);
    let since = refused(v1::LogRequest { since: Some("yesterday".into()), ..request() }).await;
    assert_eq!((since.code, since.violations[0].field.as_str()), (FaultCode::InvalidSpec, "since"));
}

#[tokio::test]
async fn since_leaves_out_launches_that_ended_before() {
    let served = mynet().await;
    say(&served, 0, "l1", "old\n");
    launch(&served, 0, "l1", LaunchPhase::Running).await;
    set_phase(&served, 0, "l1", LaunchPhase::Ended).await;
    say(&served, 0, "l2", "2026-01-01T00:00:01Z new\n2026-01-01T00:00:09Z newer\n");
    launch(&served, 0, "l2", LaunchPhase::Running).await;
    let since = v1::LogRequest { since: Some("2026-01-01T00:00:05Z".into()), ..Default::default() };
    assert_eq!(all(&served, since).await, ["0 l2 2026-01-01T00:00:09Z newer"]);
}
