//! That the status says what is: specs that are refused, starts that need no plugin, services that end, what is given back when.

use super::testing::{NET, NS, Rig, node_key, service};
use crate::{
    model::{
        Addresses, Desired, Devnet, DevnetPhase, EventType, Exit, ExitClass, Kind, Node, NodeOverride, NodePhase, Object, RestartPolicy, RestartSpec,
        ServiceSpec, Span, Violation,
    },
    plugin::{Classified, Health, PluginError},
    runtime::RuntimeError,
    store::Selector,
};
use futures::StreamExt;
use std::time::{Duration, Instant};

fn code(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

fn set_level(devnet: &mut Devnet) {
    let env = [("LEVEL".to_owned(), "debug".to_owned())].into();
    devnet.spec.nodes = vec![NodeOverride { name: "validator-1".into(), env, ..NodeOverride::default() }];
}

#[tokio::test]
async fn a_node_that_ended_with_the_machine_starts_at_once_and_is_not_counted() {
    let rig = Rig::running(|spec| spec.restart.backoff = Some(Span::millis(3_600_000))).await;
    let before = rig.node("validator-0").await.unwrap().status.clone().launch_id;
    rig.kill("validator-0", Exit { unseen: true, rebooted: true, ..Exit::default() }).await;
    let again = |node: &Node| node.status.launch_id != before && node.status.phase == NodePhase::Running;
    let node = rig.node_until("validator-0", "it runs again", again).await;
    assert_eq!((node.status.restart_count, node.status.next_restart), (0, None));
    assert_eq!(node.status.last_exit.as_ref().unwrap().message, "ended with the machine, which was booted since");
}

impl Rig {
    fn refuse(&self) {
        self.plugin.set_violations(vec![Violation::new("spec.fullNodes", "cannot be")]);
    }
    async fn refused(&self) -> std::sync::Arc<Devnet> {
        let refused =
            |devnet: &Devnet| devnet.status.conditions.is_false("Provisioned") && devnet.status.observed_generation == devnet.metadata.generation;
        self.devnet_until("the change is refused", refused).await
    }
    fn launch_calls(&self, short: &str) -> usize {
        self.plugin.calls().iter().filter(|call| **call == format!("launch {short}")).count()
    }
    async fn restarted(&self, short: &str, count: u32) {
        self.node_until(short, "it runs again", |node| node.status.restart_count == count && node.status.phase == NodePhase::Running).await;
    }
    async fn leases_of(&self, short: &str) -> usize {
        let (leases, _) = self.store.list(&Selector::in_devnet(Kind::Lease, NS, NET)).await.unwrap();
        let name = node_key(short).name;
        leases.iter().filter(|lease| matches!(lease, Object::Lease(lease) if lease.spec.node_ref.as_ref() == Some(&name))).count()
    }
}

#[tokio::test]
async fn a_running_devnet_whose_change_is_refused_runs_on_says_so_and_never_flips() {
    let rig = Rig::running(|_| {}).await;
    let from = rig.devnet().await.unwrap().metadata.resource_version;
    let mut changes = rig.store.watch(Selector { name: Some(NET.into()), ..Selector::kind(Kind::Devnet) }, from);
    rig.refuse();
    rig.change(|devnet| devnet.spec.full_nodes = 1).await;
    let message = "the new spec was refused, the one before stays: spec.fullNodes: cannot be; all 2 nodes that should run are ready";
    rig.devnet_until("it says what runs", |devnet| devnet.status.message.as_deref() == Some(message)).await;
    rig.plugin.set_violations(vec![]);
    rig.change(|devnet| devnet.spec.full_nodes = 0).await;
    let mended = |devnet: &Devnet| {
        devnet.status.conditions.is_true("Provisioned") && devnet.status.message.as_deref() == Some("all 2 nodes that should run are ready")
    };
    let last = rig.devnet_until("it is as before", mended).await.metadata.resource_version;
    loop {
        let change = changes.next().await.unwrap().unwrap();
        let Object::Devnet(devnet) = &change.object else { panic!("only devnets were asked for") };
        assert_eq!(devnet.status.phase, DevnetPhase::Running, "{:?}", devnet.status.message);
        if change.revision >= last {
            break;
        }
    }
    assert_eq!(rig.runtime.started().len(), 2);
}

#[tokio::test]
async fn a_node_that_restarts_while_a_change_stands_refused_runs_what_was_accepted() {
    let rig = Rig::running(|_| {}).await;
    rig.refuse();
    rig.change(set_level).await;
    rig.refused().await;
    rig.change(|devnet| devnet.spec.operations.restart += 1).await;
    for short in ["validator-0", "validator-1"] {
        rig.node_until(short, "it was restarted", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Running).await;
    }
    assert!(rig.runtime.started().iter().all(|launch| !launch.env.contains_key("LEVEL")));
    rig.plugin.set_violations(vec![]);
    rig.change(|devnet| devnet.spec.accounts = Some(3)).await;
    rig.node_until("validator-1", "it takes over the change", |node| node.status.observed_restart == 2 && node.status.phase == NodePhase::Running)
        .await;
    assert_eq!(rig.runtime.started().last().unwrap().env["LEVEL"], "debug");
}

#[tokio::test]
async fn a_service_that_restarts_while_a_change_stands_refused_keeps_its_command() {
    let rig = Rig::running(|spec| spec.services = vec![service("web")].into()).await;
    rig.refuse();
    rig.change(|devnet| std::sync::Arc::make_mut(&mut devnet.spec.services)[0].command = vec!["/bin/false".into()]).await;
    rig.refused().await;
    rig.kill("web", code(1)).await;
    rig.restarted("web", 1).await;
    assert_eq!(rig.runtime.started().last().unwrap().argv, ["/bin/true"]);
}

#[tokio::test]
async fn a_reset_to_a_refused_spec_fails_and_launches_nothing_in_the_wiped_homes() {
    let rig = Rig::running(|_| {}).await;
    rig.refuse();
    rig.change(|devnet| devnet.spec.operations.reset += 1).await;
    rig.phase(DevnetPhase::Failed).await;
    // What still had to be done would have been done by the next change at the latest.
    rig.change_node("validator-0", |node| drop(node.metadata.labels.insert("x".into(), "y".into()))).await;
    rig.plugin.set_violations(vec![]);
    rig.change(|devnet| devnet.spec.operations.restart += 1).await;
    rig.phase(DevnetPhase::Running).await;
    assert_eq!(rig.runtime.started().len(), 4, "two before the reset, two after it was accepted");
}

#[tokio::test]
async fn a_node_that_died_is_started_again_without_its_plugin() {
    let rig = Rig::running(|_| {}).await;
    rig.plugin.hold("launch");
    rig.kill("validator-0", code(1)).await;
    rig.restarted("validator-0", 1).await;
    assert_eq!(rig.launch_calls("validator-0"), 1);
    let (first, second) = (rig.launches("validator-0").await.remove(0), rig.launches("validator-0").await.remove(1));
    let same = |launch: &crate::model::Launch| (launch.spec.argv.clone(), launch.spec.stop_signal.clone(), launch.spec.grace_ms);
    assert_eq!(same(&first), same(&second));
    assert_eq!(first.spec.readiness, second.spec.readiness);
    rig.plugin.release("launch");
    rig.change_node("validator-0", |node| node.spec.restart_request += 1).await;
    rig.node_until("validator-0", "it was restarted", |node| node.status.observed_restart == 1 && node.status.phase == NodePhase::Running).await;
    assert_eq!(rig.launch_calls("validator-0"), 2, "who asks for a restart has its files made anew");
}

#[tokio::test]
async fn a_plan_with_secrets_is_on_no_disk_and_asked_for_at_each_start() {
    let rig = Rig::new();
    rig.plugin.set_secrets(vec![("key".into(), b"hush".to_vec())]);
    rig.create(|spec| spec.validators = Some(1)).await;
    rig.phase(DevnetPhase::Running).await;
    rig.kill("validator-0", code(1)).await;
    rig.restarted("validator-0", 1).await;
    assert_eq!(rig.launch_calls("validator-0"), 2);
    let folder = std::fs::read_dir(rig.home.node(NS, NET, "validator-0")).unwrap();
    let names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("launch-plan")), "{names:?}");
}

#[tokio::test]
async fn a_plugin_that_was_replaced_plans_again_and_touches_no_running_node() {
    let rig = Rig::running(|_| {}).await;
    let before = rig.runtime.live();
    rig.plugins.set_digest("fake", "another");
    rig.change_node("validator-0", |node| drop(node.metadata.labels.insert("x".into(), "y".into()))).await;
    rig.plan_until("another").await;
    assert_eq!(rig.runtime.live(), before);
    assert_eq!(rig.plugin.calls().iter().filter(|call| *call == "genesis").count(), 1);
    rig.kill("validator-0", code(1)).await;
    rig.restarted("validator-0", 1).await;
    assert_eq!((rig.launch_calls("validator-0"), rig.launch_calls("validator-1")), (2, 1), "the new plugin is asked how to launch");
    assert_eq!(rig.phase(DevnetPhase::Running).await.metadata.generation, 1);
}

#[tokio::test]
async fn a_broken_plugin_holds_up_neither_a_stop_nor_the_status_and_is_tried_again() {
    let rig = Rig::running(|_| {}).await;
    for _ in 0..4 {
        rig.plugin.fail_next("plan_nodes", PluginError::TimedOut { name: "fake".into(), call: "PlanNodes".into(), after: Duration::from_secs(1) });
    }
    rig.plugins.set_digest("fake", "another");
    rig.change_node("validator-1", |node| node.spec.desired = Desired::Stopped).await;
    let one_ready = |devnet: &Devnet| devnet.status.ready_nodes == 1 && devnet.status.conditions.is_false("Provisioned");
    let devnet = rig.devnet_until("the status follows the nodes", one_ready).await;
    assert!(devnet.status.observed_generation < devnet.metadata.generation, "nobody may take it for refused: it is tried again");
    rig.change(|devnet| devnet.spec.desired = Some(Desired::Stopped)).await;
    rig.node_phase("validator-0", NodePhase::Stopped).await;
    rig.plan_until("another").await;
    rig.phase(DevnetPhase::Stopped).await;
}

impl Rig {
    /// The stored plan was made with the plugin of this digest.
    async fn plan_until(&self, digest: &str) {
        let selector = Selector::in_devnet(Kind::Plan, NS, NET);
        let (objects, from) = self.store.list(&selector).await.unwrap();
        let good = |object: &Object| matches!(object, Object::Plan(plan) if plan.spec.plugin_digest == digest);
        if objects.iter().any(good) {
            return;
        }
        let mut changes = self.store.watch(selector, from);
        let made = async { while !good(&changes.next().await.unwrap().unwrap().object) {} };
        tokio::time::timeout(Duration::from_secs(20), made).await.expect("it is planned again");
    }
}

fn once(name: &str, policy: RestartPolicy) -> ServiceSpec {
    let restart = Some(RestartSpec { policy: Some(policy), ..RestartSpec::default() });
    ServiceSpec { restart, ..service(name) }
}

#[tokio::test]
async fn a_bare_process_is_ready_when_it_has_lived_for_a_second() {
    let rig = Rig::new();
    let began = Instant::now();
    rig.create(|spec| (spec.validators, spec.services) = (Some(0), vec![service("web")].into())).await;
    rig.phase(DevnetPhase::Running).await;
    assert!(began.elapsed() >= Duration::from_millis(990), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_service_that_ends_at_once_is_never_taken_for_running() {
    let rig = Rig::new();
    rig.create(|spec| (spec.validators, spec.services) = (Some(0), vec![once("web", RestartPolicy::Never)].into())).await;
    rig.node_until("web", "it has a process", |node| node.status.pid.is_some()).await;
    rig.kill("web", code(1)).await;
    rig.phase(DevnetPhase::Failed).await;
    assert!(!rig.events().await.iter().any(|event| event.reason == "Running"), "{:#?}", rig.events().await);
}

#[tokio::test]
async fn a_service_that_completes_within_its_first_second_satisfies_its_devnet() {
    for policy in [RestartPolicy::Never, RestartPolicy::OnFailure] {
        let rig = Rig::new();
        rig.create(|spec| (spec.validators, spec.services) = (Some(0), vec![once("setup", policy)].into())).await;
        rig.node_until("setup", "it has a process", |node| node.status.pid.is_some()).await;
        rig.kill("setup", code(0)).await;
        rig.phase(DevnetPhase::Running).await;
        assert!(rig.node("setup").await.unwrap().status.conditions.is_true("Completed"));
    }
}

#[tokio::test]
async fn a_missing_program_fails_its_own_service_and_the_others_run() {
    let rig = Rig::new();
    let missing = ServiceSpec { name: "lost".into(), command: vec!["no-such-program-anywhere".into()], ..ServiceSpec::default() };
    rig.create(|spec| (spec.validators, spec.services) = (Some(1), vec![service("web"), missing.clone()].into())).await;
    let lost = rig.node_phase("lost", NodePhase::Failed).await;
    let message = "there is no program `no-such-program-anywhere` in the daemon's PATH; write its path in spec.services";
    assert_eq!(lost.status.conditions.get("Ready").unwrap().message, message);
    rig.node_phase("web", NodePhase::Running).await;
    rig.node_phase("validator-0", NodePhase::Running).await;
    let devnet = rig.devnet_until("all others are ready", |devnet| devnet.status.ready_nodes == 2).await;
    assert_eq!(devnet.status.phase, DevnetPhase::Failed);
    assert!(devnet.status.message.as_ref().unwrap().contains(message), "{:?}", devnet.status.message);
}

#[tokio::test]
async fn a_service_that_leaves_keeps_its_address_until_its_process_is_gone() {
    let rig = Rig::running(|spec| spec.services = vec![service("old")].into()).await;
    let address = rig.node("old").await.unwrap().spec.address.clone();
    rig.runtime.freeze_stops();
    rig.change(|devnet| devnet.spec.services = vec![service("new")].into()).await;
    let new = rig.node_phase("new", NodePhase::Running).await;
    rig.node_phase("old", NodePhase::Stopping).await;
    assert_ne!(new.spec.address, address);
    assert_eq!(rig.leases_of("old").await, 1, "its process still runs");
    rig.runtime.thaw_stops();
    rig.gone(&node_key("old")).await;
    assert_eq!((rig.leases_of("old").await, rig.leases_of("new").await), (0, 1));
}

#[tokio::test]
async fn a_service_that_takes_over_the_port_of_one_that_leaves_waits_for_its_end() {
    let rig = Rig::running(|spec| (spec.addresses, spec.validators, spec.services) = (Addresses::Ports, Some(0), vec![listener("old")].into())).await;
    rig.runtime.freeze_stops();
    rig.change(|devnet| devnet.spec.services = vec![listener("new")].into()).await;
    rig.node_phase("old", NodePhase::Stopping).await;
    let says = |devnet: &Devnet| devnet.status.conditions.get("Provisioned").is_some_and(|provisioned| provisioned.message.contains("net/old"));
    rig.devnet_until("it names who has the port", says).await;
    assert!(rig.node("new").await.is_none());
    rig.runtime.thaw_stops();
    rig.node_phase("new", NodePhase::Running).await;
    rig.phase(DevnetPhase::Running).await;
    assert!(rig.node("old").await.is_none());
}

/// On a number that nothing else of these tests claims machine-wide.
fn listener(name: &str) -> ServiceSpec {
    ServiceSpec { ports: [("web".to_owned(), 18_437)].into(), ..service(name) }
}

#[tokio::test]
async fn a_launch_that_could_not_be_let_go_is_let_go_later_and_before_the_next() {
    let rig = Rig::running(|spec| spec.validators = Some(1)).await;
    let first = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    rig.runtime.fail_next_destroy(RuntimeError::NotGone { id: first.clone(), pids: vec![7] });
    rig.kill("validator-0", code(1)).await;
    rig.restarted("validator-0", 1).await;
    assert_eq!(rig.runtime.destroyed(), [first]);
    assert_eq!(rig.launches("validator-0").await[0].status.handle, None);
}

#[tokio::test]
async fn a_launch_without_a_pid_is_watched_all_the_same() {
    let rig = Rig::new();
    rig.runtime.hide_pids();
    rig.create(|spec| spec.services = vec![service("web")].into()).await;
    rig.phase(DevnetPhase::Running).await;
    assert_eq!(rig.node("validator-0").await.unwrap().status.pid, None);
}

#[tokio::test]
async fn a_node_that_starts_is_no_warning_and_one_that_ceases_to_be_ready_is() {
    let rig = Rig::new();
    let unready = |message: &str| Health { ready: false, message: message.into(), ..Health::default() };
    rig.plugin.set_health("validator-0", unready("waits for peers"));
    rig.create(|spec| spec.validators = Some(1)).await;
    let not_ready = |node: &crate::model::Node| node.status.conditions.get("Ready").is_some_and(|ready| ready.reason == "NotReady");
    rig.node_until("validator-0", "it says that it is not ready", not_ready).await;
    rig.plugin.set_health("validator-0", Health { ready: true, height: 1, ..Health::default() });
    rig.phase(DevnetPhase::Running).await;
    let warnings = |events: &[crate::model::Event]| events.iter().filter(|event| event.event_type == EventType::Warning).count();
    assert_eq!(warnings(&rig.events().await), 0, "{:#?}", rig.events().await);
    rig.plugin.until_called("heights validator-0").await;
    rig.plugin.vanish("validator-0");
    rig.plugin.set_health("validator-0", unready("lost its peers"));
    rig.node_until("validator-0", "it is not ready any more", not_ready).await;
    assert_eq!(rig.events().await.iter().filter(|event| event.reason == "NotReady" && event.event_type == EventType::Warning).count(), 1);
}

#[tokio::test]
async fn blocks_in_a_row_forget_a_restart_before_its_minute_is_over() {
    let rig = Rig::running(|spec| spec.restart.reset_after = Some(Span::millis(3_600_000))).await;
    let streams = || rig.plugin.calls().iter().filter(|call| *call == "heights validator-0").count();
    let listens = async |streams_before: usize| {
        let begun = Instant::now();
        while streams() == streams_before || rig.plugin.listeners("validator-0") != 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody listens to its blocks");
            tokio::time::sleep(Duration::from_millis(1)).await; // the fake has no event for a listener
        }
    };
    listens(0).await;
    let before = streams();
    rig.kill("validator-0", code(1)).await;
    rig.node_until("validator-0", "it runs again", |node| node.status.recent_restarts == 1 && node.status.phase == NodePhase::Running).await;
    listens(before).await;
    (2..=31).for_each(|height| rig.plugin.announce("validator-0", height));
    let node = rig.node_until("validator-0", "it is stable", |node| node.status.recent_restarts == 0).await;
    assert_eq!(node.status.restart_count, 1);
}

/// Its process lives on, so only its log tells.
#[tokio::test]
async fn a_node_that_lives_and_makes_no_blocks_is_asked_for_its_last_words() {
    let rig = Rig::running(|spec| spec.block_time = Some(Span::millis(100))).await;
    rig.plugin.announce("validator-0", 5);
    rig.node_until("validator-0", "it makes blocks", |node| node.status.conditions.is_true("Progressing")).await;
    rig.plugin.set_class(Classified { class: ExitClass::ConsensusFailure, message: "CONSENSUS FAILURE!!! a nil map".into(), remedy: None });
    let node = rig.node_until("validator-0", "it is told to stand still", |node| node.status.conditions.is_false("Progressing")).await;
    let still = node.status.conditions.get("Progressing").unwrap();
    assert_eq!((still.reason.as_str(), still.message.as_str()), ("ConsensusFailure", "CONSENSUS FAILURE!!! a nil map"));
    assert_eq!(node.status.phase, NodePhase::Running);
}
