//! What follows a death: a restart by its cause, in order, told as it was.

use super::testing::{NET, NS, Rig, node_key, service};
use crate::{
    model::{DevnetPhase, Event, Exit, ExitClass, Kind, LaunchPhase, Node, NodePhase, Span},
    plugin::Classified,
    store::Selector,
};
use futures::StreamExt;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn code(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

#[tokio::test]
async fn a_node_that_dies_is_restarted_after_a_backoff_and_counted() {
    let rig = Rig::running(|_| {}).await;
    let began = Instant::now();
    rig.kill("validator-0", code(1)).await;
    let node = rig.node_until("validator-0", "it runs again", |node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running).await;
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert_eq!(node.status.last_exit.as_ref().unwrap().code, Some(1));
    assert_eq!(rig.runtime.started().len(), 3);
    let launches = rig.launches("validator-0").await;
    assert_eq!((launches[0].status.phase, launches[1].status.phase), (LaunchPhase::Ended, LaunchPhase::Running));
}

#[tokio::test]
async fn a_restart_without_back_off_takes_two_commits_and_the_death_is_told_all_the_same() {
    let rig = Rig::running(|spec| spec.restart.backoff = Some(Span::millis(0))).await;
    let before = rig.node("validator-0").await.unwrap();
    let selector = Selector { name: Some(before.metadata.name.clone()), ..Selector::kind(Kind::Node) };
    let mut changes = rig.store.watch(selector, before.metadata.resource_version);
    rig.kill("validator-0", code(1)).await;
    let mut reasons = Vec::new();
    while reasons.last().is_none_or(|reason| reason != "Started") {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await.expect("it starts again").unwrap().unwrap();
        let node = Arc::<Node>::try_from(change.object).unwrap();
        let cause = rig.store.event(node.status.cause.as_ref().unwrap()).await.unwrap().unwrap();
        if node.status.last_exit.is_none() {
            continue; // from before the death
        }
        if cause.reason == "Restarting" {
            let death = rig.store.event(cause.parent.as_ref().unwrap()).await.unwrap().unwrap();
            assert_eq!((death.reason.as_str(), node.status.last_exit.as_ref().unwrap().code), ("Died", Some(1)));
        }
        reasons.push(cause.reason);
    }
    assert_eq!(reasons, ["Restarting", "Started"]);
    let launches = rig.launches("validator-0").await;
    assert_eq!((launches[0].status.phase, &launches[0].status.handle), (LaunchPhase::Ended, &None), "the runtime has let go of it");
    assert_eq!((launches[1].status.phase, launches.len()), (LaunchPhase::Running, 2));
}

#[tokio::test]
async fn a_death_is_seen_while_its_restart_waits_for_the_plugin() {
    let rig = Rig::running(|spec| spec.restart.backoff = Some(Span::millis(0))).await;
    std::fs::remove_file(rig.home.node(NS, NET, "validator-0").join("launch-plan.json")).unwrap();
    rig.plugin.hold("launch");
    rig.kill("validator-0", code(1)).await;
    let node = rig.node_phase("validator-0", NodePhase::Crashed).await;
    assert_eq!(node.status.last_exit.as_ref().unwrap().code, Some(1));
    rig.plugin.release("launch");
    rig.node_until("validator-0", "it runs again", |node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running).await;
}

#[tokio::test]
async fn a_hopeless_cause_fails_the_node_and_it_is_not_restarted() {
    for (class, reason) in [(ExitClass::BadFlag, "BadFlag"), (ExitClass::GenesisMismatch, "GenesisMismatch")] {
        let rig = Rig::running(|_| {}).await;
        rig.plugin.set_class(Classified { class, message: "unknown flag".into(), remedy: None });
        rig.kill("validator-0", code(2)).await;
        let node = rig.node_phase("validator-0", NodePhase::Failed).await;
        assert_eq!(node.status.conditions.get("Ready").unwrap().reason, reason);
        rig.phase(DevnetPhase::Degraded).await;
        assert_eq!(rig.runtime.started().len(), 2);
    }
}

#[tokio::test]
async fn a_node_that_keeps_dying_is_given_up_until_somebody_restarts_it() {
    let rig = Rig::running(|spec| spec.restart.max_restarts = Some(1)).await;
    rig.kill("validator-0", code(1)).await;
    rig.node_until("validator-0", "it runs again", |node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running).await;
    rig.kill("validator-0", code(1)).await;
    let node = rig.node_phase("validator-0", NodePhase::Failed).await;
    assert_eq!(node.status.conditions.get("Ready").unwrap().reason, "RestartBudgetUsed");
    rig.change_node("validator-0", |node| node.spec.restart_request += 1).await;
    let node = rig.node_phase("validator-0", NodePhase::Running).await;
    assert_eq!((node.status.restart_count, node.status.recent_restarts), (1, 0));
}

/// As after a reboot: the next daemon finds all dead at once, and on record as ready.
#[tokio::test]
async fn those_that_died_together_unseen_come_back_in_the_order_of_the_spec() {
    let mut rig = Rig::running(|spec| {
        let (first, mut second) = (service("z-first"), service("a-second"));
        second.after = vec!["z-first".into()];
        second.ports.clear();
        (spec.validators, spec.services) = (Some(0), vec![first, second].into());
    })
    .await;
    rig.stop_daemon().await;
    for short in ["z-first", "a-second"] {
        rig.kill(short, Exit { unseen: true, rebooted: true, ..Exit::default() }).await;
    }
    let before = rig.events().await.last().unwrap().seq;
    rig.start_daemon();
    for short in ["z-first", "a-second"] {
        let again = |node: &Node| node.status.phase == NodePhase::Running && node.status.last_exit.is_some();
        rig.node_until(short, "it runs again", again).await;
    }
    let events = rig.events().await;
    let first = |short: &str, reason: &str| {
        let of = |event: &&Event| event.seq > before && event.name == node_key(short).name && event.reason == reason;
        events.iter().find(of).unwrap_or_else(|| panic!("{short} {reason}: {events:#?}")).seq
    };
    assert!(first("a-second", "Starting") > first("z-first", "Ready"), "{events:#?}");
}

#[tokio::test]
async fn a_neighbour_that_cannot_be_looked_at_keeps_no_other_end_from_the_record() {
    let rig = Rig::running(|spec| {
        let (first, mut second) = (service("db"), service("web"));
        second.after = vec!["db".into()];
        second.ports.clear();
        (spec.validators, spec.services) = (Some(0), vec![first, second].into());
    })
    .await;
    let db = rig.node("db").await.unwrap();
    rig.runtime.estrange(db.status.launch_id.as_ref().unwrap());
    rig.kill("web", Exit { code: Some(3), ..Exit::default() }).await;
    let web = rig.node_until("web", "its end is on record", |node| node.status.last_exit.is_some()).await;
    assert_eq!(web.status.last_exit.as_ref().unwrap().code, Some(3));
}
