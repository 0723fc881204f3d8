//! Watches over a real socket: nothing missed, nothing twice, and a clear word to those who fall behind.

use super::testing::{Served, fault, next, serve, serve_with, wanted};
use crate::{
    model::{FaultCode, Key},
    store::Limits,
};
use dvb_proto::devnet::v1;
use std::time::Duration;

async fn watch(served: &Served, from: Option<u64>) -> tonic::Streaming<v1::DevnetEvent> {
    let request = v1::WatchRequest { resource_version: from, ..Default::default() };
    served.devnets().watch(request).await.unwrap().into_inner()
}

/// Type, name and message of the next event.
async fn step(stream: &mut tonic::Streaming<v1::DevnetEvent>) -> (String, String, u64) {
    let event = next(stream).await.unwrap().unwrap();
    let name = event.object.and_then(|object| object.metadata).map(|metadata| metadata.name).unwrap_or_default();
    (event.r#type, name, event.resource_version)
}

fn seen(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn short((kind, name, _): (String, String, u64)) -> (String, String) {
    (kind, name)
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_changes() {
    let served = serve().await;
    served.apply(wanted("a")).await.unwrap();
    served.apply(wanted("b")).await.unwrap();
    let mut stream = watch(&served, None).await;
    assert_eq!(short(step(&mut stream).await), seen("ADDED", "a"));
    assert_eq!(short(step(&mut stream).await), seen("ADDED", "b"));
    assert_eq!(short(step(&mut stream).await), seen("BOOKMARK", ""));
    served.apply(wanted("c")).await.unwrap();
    assert_eq!(short(step(&mut stream).await), seen("ADDED", "c"));
    served.edit_devnet("a", |devnet| devnet.status.nodes = 4).await;
    assert_eq!(short(step(&mut stream).await), seen("MODIFIED", "a"));
    served.delete_devnet("b").await;
    assert_eq!(short(step(&mut stream).await), seen("DELETED", "b"));
}

#[tokio::test]
async fn a_watch_that_resumes_misses_nothing_and_repeats_nothing() {
    let served = serve().await;
    served.apply(wanted("a")).await.unwrap();
    let mut stream = watch(&served, None).await;
    step(&mut stream).await;
    let (_, _, at) = step(&mut stream).await;
    drop(stream);
    for nodes in 1..=5 {
        served.edit_devnet("a", |devnet| devnet.status.nodes = nodes).await;
    }
    served.delete_devnet("a").await;
    let mut stream = watch(&served, Some(at)).await;
    let mut last = at;
    for nodes in 1..=5 {
        let event = next(&mut stream).await.unwrap().unwrap();
        assert_eq!(event.object.unwrap().status.unwrap().nodes, nodes);
        assert!(event.resource_version > last);
        last = event.resource_version;
    }
    let (kind, _, gone) = step(&mut stream).await;
    assert!(kind == "DELETED" && gone > last);
    served.apply(wanted("z")).await.unwrap();
    let mut stream = watch(&served, Some(gone)).await;
    assert_eq!(short(step(&mut stream).await), seen("ADDED", "z"));
}

#[tokio::test]
async fn a_change_of_what_was_there_before_the_resumed_watch_is_a_modification() {
    let served = serve().await;
    let revision = served.apply(wanted("a")).await.unwrap().devnet.unwrap().metadata.unwrap().resource_version;
    let mut stream = watch(&served, Some(revision)).await;
    served.edit_devnet("a", |devnet| devnet.status.nodes = 1).await;
    assert_eq!(short(step(&mut stream).await), seen("MODIFIED", "a"));
}

#[tokio::test]
async fn a_watch_of_one_name_or_one_label_hears_of_nothing_else() {
    let served = serve().await;
    let mut labelled = wanted("b");
    labelled.metadata.as_mut().unwrap().labels.insert("team".into(), "core".into());
    let selector = v1::ListRequest { labels: [("team".to_owned(), "core".to_owned())].into(), ..Default::default() };
    let request = v1::WatchRequest { selector: Some(selector), ..Default::default() };
    let mut by_label = served.devnets().watch(request).await.unwrap().into_inner();
    let request = v1::WatchRequest { name: "c".into(), ..Default::default() };
    let mut by_name = served.devnets().watch(request).await.unwrap().into_inner();
    for devnet in [wanted("a"), labelled, wanted("c")] {
        served.apply(devnet).await.unwrap();
    }
    for (stream, name) in [(&mut by_label, "b"), (&mut by_name, "c")] {
        assert_eq!(short(step(stream).await), seen("BOOKMARK", ""));
        assert_eq!(short(step(stream).await), seen("ADDED", name));
    }
}

#[tokio::test]
async fn observations_are_sent_without_a_new_version_and_not_too_often() {
    let served = serve().await;
    served.apply(wanted("a")).await.unwrap();
    served.add_nodes("a", 1).await;
    let mut devnets = watch(&served, None).await;
    let (_, _, version) = step(&mut devnets).await;
    step(&mut devnets).await;
    let mut nodes = served.nodes().watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    next(&mut nodes).await.unwrap().unwrap();
    next(&mut nodes).await.unwrap().unwrap();

    let key = Key::node("default", "a/validator-0");
    let began = std::time::Instant::now();
    for height in 1..=500 {
        served.cx.observations.update(&key, |seen| seen.height = Some(height));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut count: u32 = 0;
    loop {
        let event = next(&mut nodes).await.unwrap().unwrap();
        count += 1;
        assert_eq!(event.r#type, "MODIFIED");
        if event.object.unwrap().status.unwrap().block_height == Some(500) {
            break;
        }
    }
    let most = u32::try_from(began.elapsed().as_millis() / 100).unwrap() + 2;
    assert!(count <= most, "{count} events, at most {most}");
    loop {
        let event = next(&mut devnets).await.unwrap().unwrap();
        assert_eq!(event.resource_version, version);
        if event.object.unwrap().status.unwrap().current_height == Some(500) {
            break;
        }
    }
}

#[tokio::test]
async fn a_watch_from_a_compacted_version_is_told_to_list_again() {
    let served = serve_with(Limits { changes: 3, events: 100 }).await;
    let first = served.apply(wanted("a")).await.unwrap().devnet.unwrap().metadata.unwrap().resource_version;
    for nodes in 1..=20 {
        served.edit_devnet("a", |devnet| devnet.status.nodes = nodes).await;
    }
    served.cx.store.compact().await.unwrap();
    let mut stream = watch(&served, Some(first)).await;
    let status = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!((status.code(), fault(&status).code), (tonic::Code::OutOfRange, FaultCode::OutOfRange));
    assert_eq!(fault(&status).remedy.as_deref(), Some("list again"));
    assert!(next(&mut stream).await.is_none());
    let future = served.devnets().watch(v1::WatchRequest { resource_version: Some(1_000_000), ..Default::default() }).await.unwrap_err();
    assert_eq!(fault(&future).code, FaultCode::OutOfRange);
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_it_fell_behind_and_slows_nobody() {
    let served = serve_with(Limits { changes: 50, events: 100 }).await;
    served.apply(wanted("a")).await.unwrap();
    let mut slow = watch(&served, None).await;
    step(&mut slow).await;
    // Each change is large, so that the connection's window fills while the watcher does not read.
    let began = std::time::Instant::now();
    for nodes in 0..400 {
        served
            .edit_devnet("a", |devnet| {
                devnet.status.nodes = nodes;
                devnet.status.message = Some("x".repeat(8_000));
            })
            .await;
        if nodes % 20 == 0 {
            served.cx.store.compact().await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "writers waited for the watcher");
    let status = loop {
        match next(&mut slow).await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(fault(&status).code, FaultCode::OutOfRange);
}
