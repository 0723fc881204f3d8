//! What the controllers do about keys: who gets one, who is refused, and how it goes on.

use super::testing::{NET, NS, Rig, service};
use crate::{
    model::{Desired, DevnetPhase, DevnetSpec, EventType, Exit, Kind, Node, NodePhase, Object, Span},
    plugin::Health,
    store::Selector,
    sys::command,
};
use std::process::{Child, Stdio};

/// Only an event may bring a node back within the test.
fn patient(spec: &mut DevnetSpec) {
    spec.validators = Some(1);
    spec.restart.backoff = Some(Span::secs(3_600));
    spec.restart.max_backoff = Some(Span::secs(3_600));
}

fn sign(rig: &Rig, height: u64) {
    std::fs::write(rig.home.node_home(NS, NET, "validator-0").join("data/sign_state.json"), format!("{{\"height\":{height}}}")).unwrap();
}

async fn stop(rig: &Rig) {
    rig.change_node("validator-0", |node| node.spec.desired = Desired::Stopped).await;
    rig.node_phase("validator-0", NodePhase::Stopped).await;
}

async fn start(rig: &Rig) {
    rig.change_node("validator-0", |node| node.spec.desired = Desired::Running).await;
}

async fn refused(rig: &Rig, kind: &str, reason: &str) -> std::sync::Arc<Node> {
    let is_so = |node: &Node| node.status.conditions.get(kind).is_some_and(|condition| condition.reason == reason);
    rig.node_until("validator-0", &format!("it is refused: {reason}"), is_so).await
}

/// Killed when the test ends, however it ends.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes below the validator's data folder, as a node that was started by hand would.
fn stranger_in_the_home(rig: &Rig) -> Stranger {
    let data = rig.home.node_home(NS, NET, "validator-0").join("data");
    let mut shell = command("/bin/sh");
    shell.args(["-c", r#"mkdir -p "$1"; exec 5>"$1/LOCK"; echo; exec sleep 1000"#, "sh"]).arg(data);
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let stranger = Stranger(child);
    let is_asleep = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    while !is_asleep(stranger.0.id()) {
        std::thread::yield_now(); // the shell has spoken, and is just becoming what the tests look for
    }
    stranger
}

#[tokio::test]
async fn validators_hold_their_keys_and_full_nodes_and_services_take_none() {
    let rig = Rig::new();
    rig.plugin.set_health("fullnode-0", Health { ready: true, height: 1, ..Health::default() });
    rig.create(|spec| {
        spec.full_nodes = 1;
        spec.services = vec![service("web")].into();
    })
    .await;
    rig.phase(DevnetPhase::Running).await;
    for (short, signs) in [("validator-0", true), ("validator-1", true), ("fullnode-0", false), ("web", false)] {
        let node = rig.node(short).await.unwrap();
        let granted = rig.runtime.granted(node.status.launch_id.as_ref().unwrap());
        assert_eq!(granted == ["dvb-key-lease"], signs, "{short}: {granted:?}");
        assert_eq!(node.status.conditions.is_true("KeyLease"), signs, "{short}");
    }
    let (leases, _) = rig.store.list(&Selector::in_devnet(Kind::Lease, NS, NET)).await.unwrap();
    let holders = leases.iter().filter_map(|lease| match lease {
        Object::Lease(lease) if lease.metadata.name.starts_with("key/") => lease.spec.node_ref.clone(),
        _ => None,
    });
    let mut holders: Vec<String> = holders.collect();
    holders.sort();
    assert_eq!(holders, ["net/validator-0", "net/validator-1"]);
}

#[tokio::test]
async fn the_same_chain_in_another_home_is_refused_naming_the_holder_and_starts_when_the_first_is_deleted() {
    let first = Rig::running(|spec| spec.validators = Some(1)).await;
    let seed = first.devnet().await.unwrap().spec.seed.clone();
    let second = Rig::new();
    second
        .create(|spec| {
            spec.seed = seed;
            spec.validators = Some(1);
        })
        .await;
    let node = refused(&second, "KeyLease", "KeyInUse").await;
    let condition = node.status.conditions.get("KeyLease").unwrap();
    assert!(condition.message.contains(&format!("pid {}", std::process::id())), "{}", condition.message);
    assert!(second.runtime.started().is_empty());
    first.delete().await;
    first.gone(&super::testing::key()).await;
    let node = second.node_phase("validator-0", NodePhase::Running).await;
    assert_eq!((node.status.restart_count, node.status.conditions.is_true("KeyLease")), (0, true));
    second.phase(DevnetPhase::Running).await;
}

#[tokio::test]
async fn a_process_at_work_in_the_home_is_named_and_its_end_lets_the_node_start_at_once() {
    let rig = Rig::running(patient).await;
    stop(&rig).await;
    let stranger = stranger_in_the_home(&rig);
    start(&rig).await;
    let node = refused(&rig, "KeyLease", "HomeInUse").await;
    let condition = node.status.conditions.get("KeyLease").unwrap();
    assert!(condition.message.contains(&format!("pid {} (sleep)", stranger.0.id())), "{}", condition.message);
    assert!(condition.remedy.as_ref().unwrap().contains(&format!("kill {}", stranger.0.id())));
    assert_eq!(rig.node_phase("validator-0", NodePhase::Backoff).await.status.pid, None);
    drop(stranger);
    rig.node_phase("validator-0", NodePhase::Running).await;
    assert!(rig.events().await.iter().any(|event| event.reason == "HolderEnded"));
}

#[tokio::test]
async fn a_refused_node_can_be_stopped_and_says_nothing_of_keys_then() {
    let rig = Rig::running(patient).await;
    stop(&rig).await;
    let _stranger = stranger_in_the_home(&rig);
    start(&rig).await;
    refused(&rig, "KeyLease", "HomeInUse").await;
    stop(&rig).await;
    assert_eq!(rig.node("validator-0").await.unwrap().status.conditions.get("KeyLease"), None);
    rig.delete().await;
    rig.gone(&super::testing::key()).await;
    rig.assert_nothing_left().await;
}

#[tokio::test]
async fn a_sign_state_that_went_back_fails_the_node_until_a_user_allows_that_one_launch() {
    let rig = Rig::running(patient).await;
    sign(&rig, 10);
    stop(&rig).await;
    sign(&rig, 3);
    start(&rig).await;
    let node = rig.node_phase("validator-0", NodePhase::Failed).await;
    let condition = node.status.conditions.get("SignState").unwrap();
    assert!(condition.message.contains("height 10 when its process ended, now height 3"), "{}", condition.message);
    assert!(condition.remedy.as_ref().unwrap().contains("dvbctl start net/validator-0 --allow-double-sign"));
    assert_eq!((condition.reason.as_str(), rig.runtime.started().len()), ("SignStateWentBack", 1));

    rig.change_node("validator-0", |node| node.spec.restart_request += 1).await;
    rig.node_until("validator-0", "it is refused again", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Failed).await;
    rig.change_node("validator-0", |node| node.spec.double_sign_request += 1).await;
    let node = rig.node_phase("validator-0", NodePhase::Running).await;
    assert_eq!((node.status.observed_double_sign, node.status.conditions.get("SignState")), (1, None));
    stop(&rig).await;
    sign(&rig, 2);
    start(&rig).await;
    rig.node_phase("validator-0", NodePhase::Failed).await;
}

#[tokio::test]
async fn a_death_records_how_far_it_had_signed_too() {
    let rig = Rig::running(patient).await;
    sign(&rig, 10);
    rig.kill("validator-0", Exit { code: Some(1), ..Exit::default() }).await;
    rig.node_phase("validator-0", NodePhase::Backoff).await;
    sign(&rig, 9);
    rig.change_node("validator-0", |node| node.spec.restart_request += 1).await;
    rig.node_phase("validator-0", NodePhase::Failed).await;
    refused(&rig, "SignState", "SignStateWentBack").await;
}

#[tokio::test]
async fn who_signed_while_a_node_was_down_is_warned_of_and_the_node_starts() {
    let rig = Rig::running(patient).await;
    sign(&rig, 10);
    stop(&rig).await;
    sign(&rig, 20);
    start(&rig).await;
    rig.node_phase("validator-0", NodePhase::Running).await;
    refused(&rig, "SignState", "SignedElsewhere").await;
    let events = rig.events().await;
    let warned = events.iter().rfind(|event| event.reason == "SignedElsewhere").unwrap();
    assert_eq!(warned.event_type, EventType::Warning);
    assert!(warned.message.contains("height 10 when it ended, now height 20"), "{}", warned.message);
}

#[tokio::test]
async fn a_sign_state_that_moves_while_its_node_is_down_is_told_at_once_with_who_is_at_work_there() {
    let rig = Rig::running(patient).await;
    sign(&rig, 10);
    stop(&rig).await;
    let stranger = stranger_in_the_home(&rig);
    sign(&rig, 11);
    let node = refused(&rig, "SignState", "SignedElsewhere").await;
    let message = &node.status.conditions.get("SignState").unwrap().message;
    assert!(message.contains("height 10, then height 11") && message.contains(&format!("pid {} (sleep)", stranger.0.id())), "{message}");
    assert_eq!(node.status.phase, NodePhase::Stopped);
}

#[tokio::test]
async fn a_reset_lets_all_validators_begin_anew() {
    let rig = Rig::running(patient).await;
    sign(&rig, 10);
    rig.change(|devnet| devnet.spec.operations.reset += 1).await;
    rig.devnet_until("it runs after the reset", |devnet| devnet.status.operations.reset == 1 && devnet.status.phase == DevnetPhase::Running).await;
    assert_eq!(rig.node("validator-0").await.unwrap().status.conditions.get("SignState"), None);
}

#[tokio::test]
async fn a_node_that_restarts_does_not_race_itself_for_its_key() {
    let rig = Rig::running(|_| {}).await;
    for round in 1..=5 {
        rig.change(|devnet| devnet.spec.operations.restart += 1).await;
        for short in ["validator-0", "validator-1"] {
            rig.node_until(short, "it was restarted", |node| node.status.observed_restart == round && node.status.phase == NodePhase::Running).await;
        }
    }
    assert!(rig.events().await.iter().all(|event| event.reason != "KeyInUse"));
}
