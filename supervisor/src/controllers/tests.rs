//! What the controllers do together, from a request to its end.

use super::testing::{NET, NS, Rig, key, node_key, service};
use crate::{
    model::{
        BinarySource, Desired, DevnetPhase, Exit, ExitClass, GoModule, Kind, LaunchPhase, NodeOverride, NodePhase, RestartPolicy, Span, Timestamp,
        Violation,
    },
    plugin::PluginError,
    runtime::RuntimeError,
    store::Selector,
};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn code(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

#[tokio::test]
async fn a_new_devnet_is_provisioned_and_all_its_nodes_run() {
    let rig = Rig::running(|_| {}).await;
    let devnet = rig.devnet().await.unwrap();
    assert_eq!((devnet.status.nodes, devnet.status.ready_nodes), (2, 2));
    assert!(devnet.status.genesis_hash.is_some() && devnet.status.conditions.is_true("Provisioned"));
    assert!(rig.home.shared(NS, NET).join("genesis.json").exists());
    for short in ["validator-0", "validator-1"] {
        let node = rig.node_phase(short, NodePhase::Running).await;
        assert!(node.status.pid.is_some() && rig.home.node_home(NS, NET, short).join("key").exists());
    }
    assert_eq!(rig.runtime.started().len(), 2);
}

#[tokio::test]
async fn stop_ends_every_node_and_start_brings_them_back() {
    let rig = Rig::running(|_| {}).await;
    rig.change(|devnet| devnet.spec.desired = Some(Desired::Stopped)).await;
    rig.phase(DevnetPhase::Stopped).await;
    assert!(rig.runtime.live().is_empty());
    rig.change(|devnet| devnet.spec.desired = Some(Desired::Running)).await;
    rig.phase(DevnetPhase::Running).await;
    assert_eq!((rig.runtime.live().len(), rig.runtime.started().len()), (2, 4));
}

#[tokio::test]
async fn restart_of_a_devnet_gives_each_node_a_new_process() {
    let rig = Rig::running(|_| {}).await;
    let before = rig.runtime.live();
    rig.change(|devnet| devnet.spec.operations.restart += 1).await;
    for short in ["validator-0", "validator-1"] {
        rig.node_until(short, "it was restarted", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Running).await;
    }
    assert!(rig.runtime.live().iter().all(|id| !before.contains(id)));
    assert_eq!(rig.runtime.started().len(), 4);
}

#[tokio::test]
async fn reset_wipes_homes_and_heights_and_starts_again_with_the_same_addresses() {
    let rig = Rig::running(|_| {}).await;
    let before = rig.node("validator-0").await.unwrap();
    rig.observations.update(&node_key("validator-0"), |seen| seen.height = Some(1_000));
    let old = rig.home.node_home(NS, NET, "validator-0").join("old");
    std::fs::write(&old, "x").unwrap();
    rig.change(|devnet| devnet.spec.operations.reset += 1).await;
    let devnet = rig
        .devnet_until("it runs after the reset", |devnet| devnet.status.operations.reset == 1 && devnet.status.phase == DevnetPhase::Running)
        .await;
    assert!(!old.exists() && devnet.status.genesis_hash.is_some());
    let highest = rig.observations.highest(NS, NET);
    assert!(highest <= Some(1), "{highest:?}");
    let after = rig.node("validator-0").await.unwrap();
    assert_eq!((&after.spec.address, after.status.restart_count), (&before.spec.address, 0));
}

#[tokio::test]
async fn delete_leaves_nothing() {
    let rig = Rig::running(|spec| spec.services = vec![service("web")].into()).await;
    rig.delete().await;
    rig.gone(&key()).await;
    rig.assert_nothing_left().await;
}

#[tokio::test]
async fn delete_while_a_node_starts_leaves_nothing() {
    let rig = Rig::new();
    rig.plugin.hold("launch");
    rig.create(|_| {}).await;
    rig.plugin.until_called("launch validator-0").await;
    rig.delete().await;
    rig.gone(&key()).await;
    rig.assert_nothing_left().await;
    assert!(rig.runtime.started().is_empty());
}

#[tokio::test]
async fn delete_cuts_a_hanging_plugin_call_short() {
    for method in ["validate", "initialize", "plan_nodes", "genesis"] {
        let rig = Rig::new();
        rig.plugin.hold(method);
        rig.create(|_| {}).await;
        rig.plugin.until_called(method).await;
        rig.delete().await;
        rig.gone(&key()).await;
        rig.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn delete_cuts_the_build_of_a_binary_short() {
    let rig = Rig::new();
    rig.tool("go", "echo still at it >&2; exec sleep 1000");
    rig.create(|spec| {
        let module = GoModule { module: "example.org/chain".into(), version: "v1.0.0".into(), ..GoModule::default() };
        spec.binary = Some(BinarySource { go_module: Some(module), ..BinarySource::default() });
    })
    .await;
    rig.devnet_until("the build runs", |devnet| devnet.status.message.as_deref() == Some("still at it")).await;
    rig.delete().await;
    rig.gone(&key()).await;
    rig.assert_nothing_left().await;
}

#[tokio::test]
async fn an_invalid_spec_fails_with_its_violation_and_mends_with_the_next_apply() {
    let rig = Rig::new();
    rig.plugin.set_violations(vec![Violation::new("spec.network", "there is no such network")]);
    rig.create(|_| {}).await;
    let devnet = rig.phase(DevnetPhase::Failed).await;
    let condition = devnet.status.conditions.get("Provisioned").unwrap();
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("InvalidSpec", "spec.network: there is no such network"));
    rig.plugin.set_violations(vec![]);
    rig.change(|devnet| devnet.spec.network = Some("main".into())).await;
    assert!(rig.phase(DevnetPhase::Running).await.status.conditions.is_true("Provisioned"));
}

#[tokio::test]
async fn a_spec_that_cannot_be_fails_the_devnet_and_leaves_no_node() {
    let rig = Rig::new();
    rig.create(|spec| spec.binary = Some(BinarySource { path: Some("/nowhere/wasmd".into()), ..BinarySource::default() })).await;
    let devnet = rig.phase(DevnetPhase::Failed).await;
    assert!(devnet.status.conditions.get("Provisioned").unwrap().message.contains("/nowhere/wasmd"));
    assert!(rig.runtime.started().is_empty());
}

#[tokio::test]
async fn a_retriable_error_is_tried_again_with_backoff_though_each_failure_is_written() {
    let rig = Rig::new();
    for seconds in 1..=3 {
        // Each failure has another text, so each is another condition and another write of the devnet itself.
        let after = Duration::from_secs(seconds);
        rig.plugin.fail_next("plan_nodes", PluginError::TimedOut { name: "fake".into(), call: "PlanNodes".into(), after });
    }
    let began = Instant::now();
    rig.create(|_| {}).await;
    rig.phase(DevnetPhase::Running).await;
    assert!(began.elapsed() >= Duration::from_millis((200 + 400 + 800) * 8 / 10), "three attempts within {:?}", began.elapsed());
    assert_eq!(rig.plugin.calls().iter().filter(|call| *call == "plan_nodes").count(), 4);
}

#[tokio::test]
async fn a_new_apply_cuts_the_backoff_short() {
    let rig = Rig::new();
    for _ in 0..2 {
        rig.plugin.fail_next("validate", PluginError::TimedOut { name: "fake".into(), call: "Validate".into(), after: Duration::from_secs(1) });
    }
    rig.create(|_| {}).await;
    rig.devnet_until("it failed", |devnet| devnet.status.conditions.is_false("Provisioned")).await;
    rig.change(|devnet| devnet.spec.accounts = Some(3)).await;
    assert_eq!(rig.phase(DevnetPhase::Running).await.status.accounts.len(), 3);
}

#[tokio::test]
async fn a_user_stops_one_node_and_the_rest_run_on() {
    let rig = Rig::running(|_| {}).await;
    rig.change_node("validator-1", |node| node.spec.desired = Desired::Stopped).await;
    let node = rig.node_phase("validator-1", NodePhase::Stopped).await;
    assert_eq!(node.status.last_exit.as_ref().unwrap().class, ExitClass::KilledByUser);
    assert_eq!(rig.node("validator-0").await.unwrap().status.phase, NodePhase::Running);
    rig.devnet_until("one of two is ready, as wanted", |devnet| devnet.status.ready_nodes == 1 && devnet.status.phase == DevnetPhase::Running).await;
    assert_eq!(rig.runtime.live().len(), 1);
    rig.change_node("validator-1", |node| node.spec.desired = Desired::Running).await;
    rig.node_phase("validator-1", NodePhase::Running).await;
}

/// A stop was asked for: no process is left and none comes, also when all that is under way has come to its end.
async fn stays_stopped(mut rig: Rig, started: usize) {
    let node = rig.node_phase("validator-0", NodePhase::Stopped).await;
    assert_eq!((node.status.pid, node.status.next_restart), (None, None));
    rig.stop_daemon().await;
    assert_eq!((rig.runtime.live(), rig.runtime.started().len()), (vec![], started));
    assert_eq!(rig.node("validator-0").await.unwrap().status.phase, NodePhase::Stopped);
}

async fn ask_for_a_stop(rig: &Rig) {
    rig.change_node("validator-0", |node| node.spec.desired = Desired::Stopped).await;
}

#[tokio::test]
async fn a_stop_overtakes_a_restart_whose_old_process_is_still_being_stopped() {
    let rig = Rig::running(|spec| spec.validators = Some(1)).await;
    rig.runtime.freeze_stops();
    rig.change_node("validator-0", |node| node.spec.restart_request += 1).await;
    rig.node_phase("validator-0", NodePhase::Stopping).await;
    ask_for_a_stop(&rig).await;
    rig.runtime.thaw_stops();
    stays_stopped(rig, 1).await;
}

#[tokio::test]
async fn a_stop_overtakes_a_restart_that_waits_for_its_back_off() {
    for restart_too in [false, true] {
        let rig = Rig::running(|spec| {
            spec.validators = Some(1);
            spec.restart.backoff = Some(Span::secs(3_600));
            spec.restart.max_backoff = Some(Span::secs(3_600));
        })
        .await;
        rig.kill("validator-0", code(1)).await;
        rig.node_phase("validator-0", NodePhase::Backoff).await;
        rig.change_node("validator-0", |node| {
            node.spec.restart_request += u64::from(restart_too);
            node.spec.desired = Desired::Stopped;
        })
        .await;
        stays_stopped(rig, 1).await;
    }
}

#[tokio::test]
async fn a_stop_overtakes_a_launch_between_its_intent_and_its_fork() {
    let rig = Rig::running(|spec| spec.validators = Some(1)).await;
    rig.runtime.hold_forks();
    rig.kill("validator-0", code(1)).await;
    rig.node_until("validator-0", "the next launch is intended", |node| node.status.phase == NodePhase::Starting && node.status.restart_count == 1)
        .await;
    ask_for_a_stop(&rig).await;
    rig.runtime.release_forks();
    stays_stopped(rig, 2).await;
}

#[tokio::test]
async fn a_node_is_stopped_with_the_signal_and_the_grace_that_its_plugin_wants() {
    let rig = Rig::new();
    rig.plugin.set_stop("SIGINT", Duration::from_millis(123));
    rig.create(|spec| spec.validators = Some(1)).await;
    rig.phase(DevnetPhase::Running).await;
    let launch = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    ask_for_a_stop(&rig).await;
    rig.node_phase("validator-0", NodePhase::Stopped).await;
    let stops: Vec<_> = rig.runtime.stopped().into_iter().map(|(id, policy)| (id, policy.signal, policy.grace)).collect();
    assert_eq!(stops, [(launch, Signal::SIGINT, Duration::from_millis(123))]);
}

#[tokio::test]
async fn a_conflict_during_a_start_does_not_launch_twice() {
    let rig = Rig::new();
    rig.plugin.hold("launch");
    rig.create(|spec| spec.validators = Some(1)).await;
    rig.plugin.until_called("launch validator-0").await;
    rig.change_node("validator-0", |node| drop(node.metadata.labels.insert("x".into(), "y".into()))).await;
    rig.plugin.release("launch");
    rig.phase(DevnetPhase::Running).await;
    assert_eq!((rig.runtime.started().len(), rig.launches("validator-0").await.len()), (1, 1));
}

#[tokio::test]
async fn a_service_waits_for_the_node_that_it_comes_after() {
    let rig = Rig::new();
    rig.plugin.vanish("validator-0");
    rig.create(|spec| {
        let mut web = service("web");
        web.after = vec!["validator-0".into()];
        spec.services = vec![web].into();
    })
    .await;
    let waits = |node: &crate::model::Node| node.status.conditions.get("Ready").is_some_and(|ready| ready.reason == "WaitingForDependency");
    rig.node_until("web", "it waits", waits).await;
    assert!(rig.launches("web").await.is_empty());
    rig.plugin.set_health("validator-0", crate::plugin::Health { ready: true, height: 1, ..Default::default() });
    rig.node_phase("web", NodePhase::Running).await;
    rig.phase(DevnetPhase::Running).await;
}

#[tokio::test]
async fn a_service_that_completes_is_as_good_as_ready_and_lets_its_dependents_start() {
    let rig = Rig::running(|spec| {
        let (first, mut second) = (service("first"), service("second"));
        second.after = vec!["first".into()];
        second.ports.clear();
        spec.services = vec![first, second].into();
    })
    .await;
    rig.kill("first", code(0)).await;
    let node = rig.node_phase("first", NodePhase::Stopped).await;
    assert!(node.status.conditions.is_true("Completed"));
    rig.change_node("second", |node| node.spec.restart_request += 1).await;
    rig.node_until("second", "it was restarted", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Running).await;
    rig.phase(DevnetPhase::Running).await;
    assert_eq!(rig.launches("first").await.len(), 1);
}

#[tokio::test]
async fn a_change_of_one_nodes_environment_restarts_that_node_only() {
    let rig = Rig::running(|_| {}).await;
    let other = rig.node("validator-0").await.unwrap().status.launch_id.clone();
    rig.change(|devnet| {
        let env = [("LEVEL".to_owned(), "debug".to_owned())].into();
        devnet.spec.nodes = vec![NodeOverride { name: "validator-1".into(), env, ..NodeOverride::default() }];
    })
    .await;
    rig.node_until("validator-1", "it was restarted", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Running).await;
    let started = rig.runtime.started();
    assert_eq!((started.len(), started[2].env.get("LEVEL").map(String::as_str)), (3, Some("debug")));
    assert_eq!(rig.node("validator-0").await.unwrap().status.launch_id, other);
}

#[tokio::test]
async fn a_service_that_leaves_the_spec_goes_with_its_leases_and_files() {
    let rig = Rig::running(|spec| spec.services = vec![service("web")].into()).await;
    assert!(rig.home.node(NS, NET, "web").exists());
    rig.change(|devnet| devnet.spec.services = Vec::new().into()).await;
    rig.gone(&node_key("web")).await;
    let (leases, _) = rig.store.list(&Selector::in_devnet(Kind::Lease, NS, NET)).await.unwrap();
    let of_web =
        |lease: &&crate::model::Object| matches!(lease, crate::model::Object::Lease(lease) if lease.spec.node_ref.as_deref() == Some("net/web"));
    assert_eq!(leases.iter().filter(of_web).count(), 0);
    assert!(!rig.home.node(NS, NET, "web").exists() && rig.launches("web").await.is_empty());
    assert_eq!(rig.runtime.live().len(), 2);
}

#[tokio::test]
async fn a_service_that_comes_back_while_it_is_being_removed_stays() {
    let rig = Rig::running(|spec| spec.services = vec![service("web")].into()).await;
    rig.runtime.freeze_stops();
    rig.change(|devnet| devnet.spec.services = Vec::new().into()).await;
    rig.node_phase("web", NodePhase::Stopping).await;
    rig.change(|devnet| devnet.spec.services = vec![service("web")].into()).await;
    rig.devnet_until("the spec is taken in", |devnet| devnet.status.observed_generation == 3).await;
    rig.runtime.thaw_stops();
    let node = rig.node_phase("web", NodePhase::Running).await;
    assert!(node.metadata.deleted_at.is_none());
    rig.phase(DevnetPhase::Running).await;
}

#[tokio::test]
async fn a_launch_whose_fork_was_not_recorded_is_taken_up_if_it_lives_and_else_launched_again() {
    let mut rig = Rig::running(|spec| spec.validators = Some(1)).await;
    rig.stop_daemon().await;
    let launch = rig.launches("validator-0").await.remove(0);
    let mut intended = crate::model::Launch::clone(&launch);
    intended.status = Default::default();
    let mut node = crate::model::Node::clone(&rig.node("validator-0").await.unwrap());
    node.status.pid = None;
    rig.store.commit(vec![crate::store::Write::update(intended), crate::store::Write::update(node)]).await.unwrap();
    rig.start_daemon();
    let pid = launch.status.pid;
    let node =
        rig.node_until("validator-0", "its process is on record", |node| node.status.phase == NodePhase::Running && node.status.pid == pid).await;
    assert_eq!(node.status.launch_id.as_ref(), Some(&launch.spec.launch_id));
    assert_eq!((rig.runtime.started().len(), rig.runtime.destroyed().len()), (1, 0));
    assert!(rig.events().await.iter().any(|event| event.reason == "Adopted" && event.launch_id == node.status.launch_id));

    rig.stop_daemon().await;
    let mut intended = crate::model::Launch::clone(&rig.launches("validator-0").await[0]);
    intended.status = Default::default();
    rig.store.commit(vec![crate::store::Write::update(intended)]).await.unwrap();
    rig.runtime.lose(&launch.spec.launch_id);
    rig.start_daemon();
    let other = |node: &crate::model::Node| node.status.phase == NodePhase::Running && node.status.launch_id.as_ref() != Some(&launch.spec.launch_id);
    rig.node_until("validator-0", "another launch runs", other).await;
    assert!(rig.runtime.destroyed().contains(&launch.spec.launch_id));
    assert_eq!(rig.runtime.live().len(), 1);
}

#[tokio::test]
async fn a_daemon_that_starts_again_keeps_what_runs_and_restarts_what_is_gone() {
    let mut rig = Rig::running(|_| {}).await;
    rig.stop_daemon().await;
    let kept = rig.node("validator-0").await.unwrap().status.launch_id.clone();
    rig.runtime.lose(rig.node("validator-1").await.unwrap().status.launch_id.as_ref().unwrap());
    rig.start_daemon();
    let node = rig.node_until("validator-1", "it runs again", |node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running).await;
    let exit = node.status.last_exit.as_ref().unwrap();
    assert_eq!((exit.code, exit.signal.as_deref(), exit.class), (None, None, ExitClass::Unknown));
    assert_eq!(rig.node("validator-0").await.unwrap().status.launch_id, kept);
    assert_eq!(rig.runtime.started().len(), 3);
}

#[tokio::test]
async fn a_status_that_comes_late_corrects_the_record_after_the_restart() {
    let rig = Rig::running(|spec| spec.validators = Some(1)).await;
    let id = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    let late = rig.runtime.exit_before_its_status(&id).unwrap();
    let restarted = |node: &crate::model::Node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running;
    let node = rig.node_until("validator-0", "it runs again, before anything is known", restarted).await;
    assert_eq!(node.status.last_exit.as_ref().unwrap().code, None);
    late.send_replace(Some(code(7)));
    let node =
        rig.node_until("validator-0", "its exit is known", |node| node.status.last_exit.as_ref().is_some_and(|exit| exit.code == Some(7))).await;
    assert!(restarted(&node), "nothing else changes");
    let launch = rig.launches("validator-0").await.remove(0);
    assert_eq!(launch.status.exit, node.status.last_exit);
    let events = rig.events().await;
    let told = events.iter().find(|event| event.reason == "ExitKnown").expect("an event tells it");
    assert!(told.message.contains("exit code 7") && told.launch_id.as_ref() == Some(&id), "{told:?}");
}

#[tokio::test]
async fn a_late_status_is_waited_for_where_it_decides_about_the_restart() {
    let rig = Rig::running(|spec| {
        spec.validators = Some(1);
        spec.restart.policy = Some(RestartPolicy::OnFailure);
    })
    .await;
    let id = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    let late = rig.runtime.exit_before_its_status(&id).unwrap();
    late.send_replace(Some(code(0)));
    let node = rig.node_phase("validator-0", NodePhase::Stopped).await;
    assert!(node.status.conditions.is_true("Completed"));
    assert_eq!(node.status.restart_count, 0);
}

#[tokio::test]
async fn what_is_gone_is_not_restarted_when_the_policy_is_never() {
    let mut rig = Rig::running(|spec| spec.restart.policy = Some(RestartPolicy::Never)).await;
    rig.stop_daemon().await;
    rig.runtime.lose(rig.node("validator-1").await.unwrap().status.launch_id.as_ref().unwrap());
    rig.start_daemon();
    rig.node_phase("validator-1", NodePhase::Failed).await;
    assert_eq!(rig.runtime.started().len(), 2);
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_fails_its_node() {
    let rig = Rig::new();
    rig.runtime.fail_next_start(RuntimeError::NoProgram { program: "/x".into() });
    rig.create(|spec| spec.validators = Some(1)).await;
    let node = rig.node_phase("validator-0", NodePhase::Failed).await;
    let last = node.status.last_exit.as_ref().unwrap();
    assert_eq!((last.class, last.message.contains("/x")), (ExitClass::NoProgram, true));
    let ready = node.status.conditions.get("Ready").unwrap();
    assert_eq!(ready.reason, "NoProgram");
    assert!(ready.remedy.as_ref().unwrap().starts_with("install the program or correct spec.binary"), "{:?}", ready.remedy);
    assert_eq!(rig.launches("validator-0").await[0].status.phase, LaunchPhase::Ended);
}

#[tokio::test]
async fn a_change_of_restart_rules_restarts_nothing_and_holds_for_the_next_death() {
    let rig = Rig::running(|spec| spec.validators = Some(1)).await;
    rig.change(|devnet| devnet.spec.restart.policy = Some(RestartPolicy::Never)).await;
    rig.node_until("validator-0", "the new rules are seen", |node| node.spec.restart.policy == RestartPolicy::Never).await;
    rig.kill("validator-0", code(1)).await;
    let node = rig.node_phase("validator-0", NodePhase::Failed).await;
    assert_eq!(node.status.conditions.get("Ready").unwrap().reason, "RestartPolicyNever");
    assert_eq!(rig.runtime.started().len(), 1);
}

#[tokio::test]
async fn only_the_newest_launches_of_a_node_are_kept() {
    let rig = Rig::running(|spec| {
        spec.validators = Some(1);
        spec.restart.backoff = Some(Span::millis(1));
        spec.restart.max_backoff = Some(Span::millis(1));
        spec.restart.max_restarts = Some(1_000);
    })
    .await;
    let first = rig.launches("validator-0").await.remove(0);
    let log = std::path::Path::new(&first.spec.log_path);
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(log, "x").unwrap();
    for round in 1..=25 {
        rig.kill("validator-0", code(1)).await;
        rig.node_until("validator-0", "it runs again", |node| node.status.restart_count == round && node.status.phase == NodePhase::Running).await;
    }
    let launches = rig.launches("validator-0").await;
    assert_eq!((launches.len(), launches.last().unwrap().status.phase), (20, LaunchPhase::Running));
    assert!(!log.exists());
}

#[tokio::test]
async fn every_event_but_the_users_has_a_parent_that_is_stored() {
    let rig = Rig::running(|spec| spec.services = vec![service("web")].into()).await;
    rig.kill("validator-0", code(1)).await;
    rig.node_until("validator-0", "it runs again", |node| node.status.restart_count == 1 && node.status.phase == NodePhase::Running).await;
    rig.change(|devnet| devnet.spec.services = Vec::new().into()).await;
    rig.gone(&node_key("web")).await;
    rig.change(|devnet| devnet.spec.operations.reset += 1).await;
    rig.devnet_until("it runs after the reset", |devnet| devnet.status.operations.reset == 1 && devnet.status.phase == DevnetPhase::Running).await;
    rig.delete().await;
    rig.gone(&key()).await;
    let events = rig.events().await;
    assert!(events.len() > 20);
    for event in &events {
        let known = event.parent.as_ref().is_some_and(|parent| events.iter().any(|other| other.id == *parent && other.seq < event.seq));
        assert_eq!(event.actor.starts_with("user:"), !known, "{event:#?}");
        assert_ne!(event.time, Timestamp::default());
    }
}
