//! Each RPC over a real socket: what it does, and what it refuses.

use super::testing::{connect, fault, next, object_ref, serve, start_request, wanted};
use crate::model::{FaultCode, Key, Launch, LaunchRecord, LaunchStatus, Meta, Node, NodePhase, Violation};
use crate::plugin::PluginError;
use crate::store::Write;
use dvb_proto::{devnet::v1, endpoint::HOME_KEY};
use futures::StreamExt;
use std::sync::{Arc, atomic::Ordering};
use tonic::metadata::MetadataValue;

fn spec(devnet: &v1::Devnet) -> &v1::DevnetSpec {
    devnet.spec.as_ref().unwrap()
}
fn meta(devnet: &v1::Devnet) -> &v1::Metadata {
    devnet.metadata.as_ref().unwrap()
}

#[tokio::test]
async fn create_get_list_update_and_delete_a_devnet() {
    let served = serve().await;
    let created = served.devnets().create(v1::CreateDevnetRequest { devnet: Some(wanted("mynet")) }).await.unwrap().into_inner();
    assert_eq!((created.api_version.as_str(), created.kind.as_str(), meta(&created).namespace.as_str()), ("devnet.builder/v1", "Devnet", "default"));
    assert_eq!((spec(&created).validators, spec(&created).chain_id.as_deref()), (Some(4), Some("mynet-1")));
    assert!(meta(&created).resource_version > 0 && !meta(&created).uid.is_empty());

    let got = served.devnets().get(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!(got, created);
    let listed = served.devnets().list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.items, std::slice::from_ref(&created));

    let mut edited = created.clone();
    edited.spec.as_mut().unwrap().full_nodes = Some(2);
    let updated = served.devnets().update(v1::UpdateDevnetRequest { devnet: Some(edited.clone()) }).await.unwrap().into_inner();
    assert_eq!((meta(&updated).generation, spec(&updated).full_nodes), (2, Some(2)));
    let stale = served.devnets().update(v1::UpdateDevnetRequest { devnet: Some(edited) }).await.unwrap_err();
    assert_eq!((stale.code(), fault(&stale).code), (tonic::Code::Aborted, FaultCode::Conflict));

    let request = v1::DeleteRequest { name: "mynet".into(), keep_data: true, ..v1::DeleteRequest::default() };
    let deleted = served.devnets().delete(request.clone()).await.unwrap().into_inner();
    assert!(meta(&deleted).deleted_at.is_some());
    assert_eq!(meta(&deleted).annotations["devnet.builder/keep-data"], "true");
    let again = served.devnets().delete(request).await.unwrap().into_inner();
    assert_eq!(again, deleted, "a second delete changes nothing");
    let refused = served.devnets().start(object_ref("mynet")).await.unwrap_err();
    assert_eq!(fault(&refused).code, FaultCode::Conflict);
}

#[tokio::test]
async fn apply_says_what_it_did_and_a_dry_run_does_nothing() {
    let served = serve().await;
    let dry = v1::ApplyRequest { devnet: Some(wanted("mynet")), dry_run: true, ..Default::default() };
    assert_eq!(served.devnets().apply(dry).await.unwrap().into_inner().action, "created");
    assert_eq!(fault(&served.devnets().get(object_ref("mynet")).await.unwrap_err()).code, FaultCode::NotFound);

    assert_eq!(served.apply(wanted("mynet")).await.unwrap().action, "created");
    let unchanged = served.apply(wanted("mynet")).await.unwrap();
    assert_eq!((unchanged.action.as_str(), unchanged.changes.len()), ("unchanged", 0));
    let mut more = wanted("mynet");
    more.spec.as_mut().unwrap().full_nodes = Some(1);
    let dry = v1::ApplyRequest { devnet: Some(more.clone()), dry_run: true, ..Default::default() };
    let dry = served.devnets().apply(dry).await.unwrap().into_inner();
    let change = v1::FieldChange { field: "spec.fullNodes".into(), before: Some("0".into()), after: Some("1".into()) };
    assert_eq!((dry.action.as_str(), dry.changes), ("configured", vec![change]));
    assert_eq!(served.apply(more).await.unwrap().action, "configured");
}

#[tokio::test]
async fn what_the_plugin_refuses_at_once_is_refused_by_apply_and_by_a_dry_run_alike() {
    let served = serve().await;
    served.plugin.set_violations(vec![Violation::new("spec.network", "there is no such network")]);
    let refused = served.apply(wanted("mynet")).await.unwrap_err();
    assert_eq!((refused.code, refused.violations[0].field.as_str()), (FaultCode::InvalidSpec, "spec.network"));
    assert_eq!(served.dry_run(wanted("mynet")).await.unwrap_err(), refused);
    assert_eq!(fault(&served.devnets().get(object_ref("mynet")).await.unwrap_err()).code, FaultCode::NotFound);
    served.plugin.set_violations(vec![]);
    served.apply(wanted("mynet")).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_hangs_or_is_ill_keeps_nobody_from_applying_but_a_dry_run_tells() {
    let served = serve().await;
    let ill = || PluginError::Spawn { name: "cosmos".into(), reason: "no memory".into() };
    served.plugin.fail_next("validate", ill());
    assert_eq!(served.apply(wanted("ill")).await.unwrap().action, "created");
    served.plugin.fail_next("validate", ill());
    assert_eq!(served.dry_run(wanted("other")).await.unwrap_err(), ill().fault());
    served.plugin.hold("validate");
    let began = std::time::Instant::now();
    assert_eq!(served.apply(wanted("hangs")).await.unwrap().action, "created");
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_dry_run_tells_that_a_full_node_comes_too_late_for_a_family_that_takes_none_after_genesis() {
    let served = serve().await;
    let with = |full_nodes: u32| {
        let mut devnet = wanted("mynet");
        devnet.spec.as_mut().unwrap().full_nodes = Some(full_nodes);
        devnet
    };
    served.apply(with(0)).await.unwrap();
    served.dry_run(with(1)).await.unwrap();
    served.edit_devnet("mynet", |devnet| devnet.status.genesis_hash = Some("aa".into())).await;
    let refused = served.dry_run(with(1)).await.unwrap_err();
    assert_eq!(refused.code, FaultCode::InvalidSpec);
    assert!(refused.message.starts_with("fullnode-0 cannot join: plugin fake adds no node"), "{}", refused.message);
    served.dry_run(with(0)).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_looks_at_binaries_by_path_and_not_at_those_in_the_cache_already() {
    let served = serve().await;
    let with = |path: &str| {
        let mut devnet = wanted("mynet");
        devnet.spec.as_mut().unwrap().binary = Some(v1::BinarySource { path: Some(path.into()), ..v1::BinarySource::default() });
        devnet
    };
    assert_eq!(served.dry_run(with("/nowhere/wasmd")).await.unwrap_err().code, FaultCode::BinaryMissing);
    assert_eq!(served.dry_run(with("/etc/passwd")).await.unwrap_err().code, FaultCode::BinaryUnusable);
    served.dry_run(with("/bin/sh")).await.unwrap();
    served.apply(with("/nowhere/wasmd")).await.unwrap();
    let cached = crate::model::BinaryStatus { source: "path /nowhere/wasmd".into(), ..Default::default() };
    served.edit_devnet("mynet", |devnet| devnet.status.binary = Some(cached)).await;
    served.dry_run(with("/nowhere/wasmd")).await.unwrap();
    let mut own = with("/nowhere/wasmd");
    let binary = Some(v1::BinarySource { path: Some("/nowhere/own".into()), ..v1::BinarySource::default() });
    own.spec.as_mut().unwrap().nodes = vec![v1::NodeOverride { name: "validator-0".into(), binary, ..v1::NodeOverride::default() }];
    assert!(served.dry_run(own).await.unwrap_err().message.contains("/nowhere/own"));
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_stores_nothing() {
    let served = serve().await;
    let check = async |edit: fn(&mut v1::Devnet), code: FaultCode, field: Option<&str>| {
        let mut devnet = wanted("mynet");
        edit(&mut devnet);
        let fault = served.apply(devnet).await.unwrap_err();
        assert_eq!(fault.code, code, "{fault:?}");
        assert_eq!(fault.violations.first().map(|violation| violation.field.as_str()), field);
    };
    let invalid = FaultCode::InvalidSpec;
    check(|d| d.spec.as_mut().unwrap().validators = Some(10_000), invalid, Some("spec.validators")).await;
    check(|d| d.spec.as_mut().unwrap().validators = Some(0), invalid, Some("spec.validators")).await;
    check(|d| d.metadata.as_mut().unwrap().name = "../x".into(), invalid, Some("metadata.name")).await;
    check(|d| d.metadata.as_mut().unwrap().name = "x".repeat(300), invalid, Some("metadata.name")).await;
    check(|d| d.metadata = None, invalid, Some("metadata.name")).await;
    check(|d| d.spec = None, invalid, Some("spec.plugin")).await;
    check(|d| d.spec.as_mut().unwrap().mode = Some("dcker".into()), invalid, Some("spec.mode")).await;
    check(|d| d.spec.as_mut().unwrap().plugin = "cosmso".into(), FaultCode::PluginMissing, None).await;
    let missing = served.apply(v1::Devnet { spec: Some(v1::DevnetSpec { plugin: "cosmso".into(), ..Default::default() }), ..wanted("mynet") }).await;
    assert!(missing.unwrap_err().remedy.unwrap().contains("`cosmos`"));
    assert_eq!(served.devnets().list(v1::ListRequest::default()).await.unwrap().into_inner().items, []);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_the_nearest_is_named() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    let status = served.devnets().get(object_ref("mynt")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(fault(&status).remedy.unwrap().contains("`mynet`"));
    for status in [
        served.devnets().start(object_ref("nope")).await.unwrap_err(),
        served.devnets().reset(object_ref("nope")).await.unwrap_err(),
        served.nodes().get(object_ref("mynet/validator-0")).await.unwrap_err(),
        served.nodes().restart(start_request("mynet/validator-0")).await.unwrap_err(),
        served.devnets().delete(v1::DeleteRequest { name: "nope".into(), ..Default::default() }).await.unwrap_err(),
        served.devnets().explain(v1::ExplainRequest { name: "nope".into(), ..Default::default() }).await.unwrap_err(),
        served.devnets().update(v1::UpdateDevnetRequest { devnet: Some(wanted("nope")) }).await.unwrap_err(),
    ] {
        assert_eq!(fault(&status).code, FaultCode::NotFound);
    }
    let twice = served.devnets().create(v1::CreateDevnetRequest { devnet: Some(wanted("mynet")) }).await.unwrap_err();
    assert_eq!(fault(&twice).code, FaultCode::AlreadyExists);
}

#[tokio::test]
async fn verbs_are_desired_state_and_each_names_its_event_as_the_cause() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    let reasons = async || {
        let request = v1::ExplainRequest { kind: "Devnet".into(), name: "mynet".into(), ..Default::default() };
        let story = served.devnets().explain(request).await.unwrap().into_inner();
        story.chain.into_iter().map(|event| (event.reason, event.actor)).collect::<Vec<_>>()
    };
    let me = format!("user:{}", nix::unistd::geteuid());
    let told = |reason: &str| vec![(reason.to_owned(), me.clone())];
    assert_eq!(reasons().await, told("Created"));

    let stopped = served.devnets().stop(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!((spec(&stopped).desired.as_deref(), meta(&stopped).generation), (Some("stopped"), 2));
    assert_eq!(reasons().await, told("StopRequested"));
    let again = served.devnets().stop(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!(again, stopped, "stopping what is stopped writes nothing");

    let restarted = v1::RestartDevnetRequest { name: "mynet".into(), refresh_binary: true, ..Default::default() };
    let restarted = served.devnets().restart(restarted).await.unwrap().into_inner();
    assert_eq!(spec(&restarted).operations, Some(v1::Operations { restart: 1, reset: 0, refresh_binary: 1 }));
    assert_eq!((spec(&restarted).desired.as_deref(), meta(&restarted).generation), (Some("running"), 3));
    let reset = served.devnets().reset(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!(spec(&reset).operations, Some(v1::Operations { restart: 1, reset: 1, refresh_binary: 1 }));
    assert_eq!(reasons().await, told("ResetRequested"));

    let applied = served.apply(wanted("mynet")).await.unwrap();
    assert_eq!(applied.action, "unchanged", "counters and desired are not the file's");
    let started = served.devnets().start(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!(started, reset, "starting what runs writes nothing");
}

#[tokio::test]
async fn events_are_listed_oldest_first_and_followed() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.apply(wanted("other")).await.unwrap();
    served.devnets().stop(object_ref("mynet")).await.unwrap();
    let list = async |request: v1::ListEventsRequest| {
        let stream = served.devnets().list_events(request).await.unwrap().into_inner();
        stream.map(|event| event.unwrap()).map(|event| (event.name, event.reason)).collect::<Vec<_>>().await
    };
    let pair = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    let of_mynet = v1::ListEventsRequest { name: "mynet".into(), ..Default::default() };
    assert_eq!(list(of_mynet.clone()).await, [pair("mynet", "Created"), pair("mynet", "StopRequested")]);
    assert_eq!(list(v1::ListEventsRequest { limit: 1, ..of_mynet.clone() }).await, [pair("mynet", "StopRequested")]);
    assert_eq!(list(v1::ListEventsRequest::default()).await.len(), 3);
    let of_devnet = |devnet: &str| {
        let selector = Some(v1::ListRequest { devnet: devnet.into(), ..Default::default() });
        v1::ListEventsRequest { selector, ..Default::default() }
    };
    assert_eq!(list(of_devnet("mynet")).await.len(), 2);
    for absent in [of_devnet("mynit"), v1::ListEventsRequest { name: "mynet/validator-9".into(), follow: true, ..Default::default() }] {
        let refused = served.devnets().list_events(absent).await.unwrap_err();
        assert_eq!(fault(&refused).code, FaultCode::NotFound);
    }

    let mut follow = served.devnets().list_events(v1::ListEventsRequest { follow: true, ..of_mynet }).await.unwrap().into_inner();
    assert_eq!(next(&mut follow).await.unwrap().unwrap().reason, "Created");
    assert_eq!(next(&mut follow).await.unwrap().unwrap().reason, "StopRequested");
    served.devnets().start(object_ref("other")).await.unwrap();
    served.devnets().start(object_ref("mynet")).await.unwrap();
    assert_eq!(next(&mut follow).await.unwrap().unwrap().reason, "StartRequested");
}

#[tokio::test]
async fn nodes_are_read_with_their_observations_and_set_by_verbs() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 2).await;
    served.cx.observations.update(&Key::node("default", "mynet/validator-1"), |seen| seen.height = Some(12));
    let nodes = served.nodes().list(v1::ListRequest { devnet: "mynet".into(), ..Default::default() }).await.unwrap().into_inner();
    let heights: Vec<Option<u64>> = nodes.items.iter().map(|node| node.status.as_ref().unwrap().block_height).collect();
    assert_eq!(heights, [None, Some(12)], "of a node that nobody has asked yet no height is known");
    let devnet = served.devnets().get(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!(devnet.status.unwrap().current_height, Some(12));

    let of = |node: v1::Node| (node.spec.clone().unwrap().desired, node.spec.unwrap().restart_request, node.metadata.unwrap().generation);
    let name = "mynet/validator-0";
    assert_eq!(of(served.nodes().stop(object_ref(name)).await.unwrap().into_inner()), ("stopped".into(), 0, 2));
    assert_eq!(of(served.nodes().stop(object_ref(name)).await.unwrap().into_inner()), ("stopped".into(), 0, 2));
    assert_eq!(of(served.nodes().restart(start_request(name)).await.unwrap().into_inner()), ("running".into(), 1, 3));
    assert_eq!(of(served.nodes().start(start_request(name)).await.unwrap().into_inner()), ("running".into(), 1, 3));
    let story = v1::ExplainRequest { name: name.into(), ..Default::default() };
    let story = served.devnets().explain(story).await.unwrap().into_inner();
    let headline = format!("Node mynet/validator-0 is Running, pid {}", std::process::id());
    assert_eq!((story.headline, story.chain[0].reason.as_str()), (headline, "RestartRequested"));
}

/// Higher than any that the kernel gives.
const NO_PID: u32 = 1 << 22;

#[tokio::test]
async fn a_node_whose_process_has_just_gone_is_told_so_by_get_list_and_why() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 2).await;
    let key = Key::node("default", "mynet/validator-0");
    let mut node = Arc::unwrap_or_clone(Arc::<Node>::try_from(served.cx.store.get(&key).await.unwrap().unwrap()).unwrap());
    node.status.pid = Some(NO_PID);
    served.cx.store.commit(vec![Write::update(node)]).await.unwrap();
    let told = |node: &v1::Node| node.status.as_ref().map(|status| (status.phase.clone(), status.pid)).unwrap();
    let gone = ("Crashed".to_owned(), None);
    assert_eq!(told(&served.nodes().get(object_ref("mynet/validator-0")).await.unwrap().into_inner()), gone);
    let listed = served.nodes().list(v1::ListRequest { devnet: "mynet".into(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(listed.items.iter().map(told).collect::<Vec<_>>(), [gone, ("Running".into(), Some(std::process::id()))]);
    let story = v1::ExplainRequest { name: "mynet/validator-0".into(), ..Default::default() };
    let headline = served.devnets().explain(story).await.unwrap().into_inner().headline;
    assert!(headline.ends_with("its process has ended since, and how is being put on record"), "{headline}");
}

#[tokio::test]
async fn a_double_signature_is_allowed_to_a_validator_that_is_down_and_is_put_on_record_with_who_asked() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 2).await;
    let anyhow = |name: &str| v1::StartRequest { allow_double_sign: true, ..start_request(name) };
    let refused = served.nodes().start(anyhow("mynet/validator-0")).await.unwrap_err();
    assert!(refused.message().contains("signs nothing"), "{refused}");

    let edit = async |name: &str, phase: NodePhase| {
        let object = served.cx.store.get(&Key::node("default", name)).await.unwrap().unwrap();
        let mut node = crate::model::Node::clone(&std::sync::Arc::try_from(object).unwrap());
        node.spec.consensus_key = Some("ab".into());
        node.status.phase = phase;
        served.cx.store.commit(vec![Write::update(node)]).await.unwrap();
    };
    edit("mynet/validator-0", NodePhase::Failed).await;
    edit("mynet/validator-1", NodePhase::Running).await;
    let asked = |node: v1::Node| (node.spec.as_ref().unwrap().double_sign_request, node.spec.unwrap().restart_request);
    assert_eq!(asked(served.nodes().start(anyhow("mynet/validator-0")).await.unwrap().into_inner()), (1, 0));
    assert_eq!(asked(served.nodes().start(anyhow("mynet/validator-1")).await.unwrap().into_inner()), (0, 0));
    assert_eq!(asked(served.nodes().restart(anyhow("mynet/validator-1")).await.unwrap().into_inner()), (1, 1));

    let events = v1::ListEventsRequest { name: "mynet/validator-0".into(), ..Default::default() };
    let events: Vec<_> = served.devnets().list_events(events).await.unwrap().into_inner().map(|event| event.unwrap()).collect().await;
    let last = events.last().unwrap();
    assert_eq!((last.reason.as_str(), last.observed.as_deref()), ("DoubleSignAllowed", Some("Failed")));
    assert!(last.actor.starts_with("user:"), "{last:?}");
}

#[tokio::test]
async fn launches_and_ports_are_listed() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 1).await;
    let metadata = Meta { name: "mynet/validator-0@l1".into(), namespace: "default".into(), ..Meta::default() };
    let spec = LaunchRecord { node_ref: "mynet/validator-0".into(), ..LaunchRecord::default() };
    served.cx.store.commit(vec![Write::create(Launch { metadata, spec: spec.into(), status: LaunchStatus::default() })]).await.unwrap();
    let launches = served.nodes().list_launches(v1::ListRequest { devnet: "mynet".into(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(launches.items[0].spec.as_ref().unwrap().node_ref, "mynet/validator-0");

    let ports = async |request| served.nodes().list_ports(request).await.unwrap().into_inner().items.remove(0);
    let lease = ports(v1::ListRequest { devnet: "mynet".into(), ..Default::default() }).await;
    assert_eq!((lease.name.as_str(), lease.port, lease.holder.as_deref()), ("default mynet", 26_657, Some("pid 42 (geth)")));
    assert_eq!(ports(v1::ListRequest { all_namespaces: true, ..Default::default() }).await.name, "* *");
}

#[tokio::test]
async fn the_daemon_says_who_it_is_and_refuses_a_client_that_means_another_home() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 3).await;
    let home = served.cx.home.root().to_string_lossy().into_owned();
    let status = served.daemon().handshake(v1::HandshakeRequest { home: home.clone(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!((status.home, status.pid, status.devnets, status.nodes_running), (home, std::process::id(), 1, 3));
    assert!(status.memory > 1_000_000);
    let refused = served.daemon().handshake(v1::HandshakeRequest { home: "/other".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(fault(&refused).code, FaultCode::HomeMismatch);
}

#[tokio::test]
async fn a_call_that_names_another_home_does_nothing() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    let before = served.devnets().get(object_ref("mynet")).await.unwrap().into_inner();
    let stop = |home: &str| {
        let mut request = tonic::Request::new(object_ref("mynet"));
        request.metadata_mut().insert_bin(HOME_KEY, MetadataValue::from_bytes(home.as_bytes()));
        request
    };
    let refused = served.devnets().stop(stop("/other")).await.unwrap_err();
    let refused = fault(&refused);
    assert_eq!(refused.code, FaultCode::HomeMismatch);
    assert!(refused.message.ends_with("not /other"), "{}", refused.message);
    assert_eq!(served.devnets().get(object_ref("mynet")).await.unwrap().into_inner(), before);
    let home = served.cx.home.root().to_string_lossy().into_owned();
    let stopped = served.devnets().stop(stop(&home)).await.unwrap().into_inner();
    assert_eq!(spec(&stopped).desired.as_deref(), Some("stopped"));
}

#[tokio::test]
async fn binaries_and_plugins_are_passed_on() {
    let served = serve().await;
    let list = served.daemon().list_binaries(v1::Empty {}).await.unwrap().into_inner().items;
    assert_eq!((list[0].digest.as_str(), list[0].size, list[0].used_by.as_slice()), ("ab", 7, ["mynet".to_owned()].as_slice()));
    let verify = v1::VerifyBinariesRequest { digests: vec!["ab".into()] };
    let verdict = next(&mut served.daemon().verify_binaries(verify).await.unwrap().into_inner()).await.unwrap().unwrap();
    assert_eq!((verdict.state.as_str(), verdict.message.as_deref(), verdict.remedy.as_deref()), ("altered", Some("was altered"), Some("evict it")));
    let source = v1::BinarySource { path: Some("/x".into()), ..Default::default() };
    let steps = served.daemon().add_binary(v1::AddBinaryRequest { source: Some(source) }).await.unwrap().into_inner();
    let steps: Vec<_> = steps.map(|step| step.unwrap().done.is_some()).collect().await;
    assert_eq!(steps, [false, true]);
    let mut steps = served.daemon().add_binary(v1::AddBinaryRequest::default()).await.unwrap().into_inner();
    assert_eq!(fault(&next(&mut steps).await.unwrap().unwrap_err()).code, FaultCode::BinaryMissing);
    let evict = v1::EvictBinariesRequest { digests: vec!["ab".into()], older_than: Some("soon".into()) };
    assert_eq!(fault(&served.daemon().evict_binaries(evict).await.unwrap_err()).code, FaultCode::InvalidSpec);
    let evict = v1::EvictBinariesRequest { digests: vec!["ab".into()], older_than: Some("24h".into()) };
    assert_eq!(served.daemon().evict_binaries(evict).await.unwrap().into_inner().items[0].digest, "ab");

    assert_eq!(served.plugins().list(v1::Empty {}).await.unwrap().into_inner().items.len(), 3);
    assert_eq!(served.plugins().get(v1::PluginRef { name: "cosmos".into() }).await.unwrap().into_inner().state, "Idle");
    assert_eq!(fault(&served.plugins().get(v1::PluginRef { name: "cosmso".into() }).await.unwrap_err()).code, FaultCode::NotFound);
}

#[tokio::test]
async fn shutdown_tells_its_steps_ends_streams_and_the_server() {
    let mut served = serve().await;
    let mut watch = served.devnets().watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.unwrap().unwrap().r#type, "BOOKMARK");
    let steps = served.daemon().shutdown(v1::ShutdownRequest { with_nodes: true }).await.unwrap().into_inner();
    let steps: Vec<_> = steps.map(|step| step.unwrap()).map(|step| (step.message, step.done)).collect().await;
    assert_eq!(steps, [("stopping 4 nodes".to_owned(), false), ("devnetd ends".to_owned(), true)]);
    assert!(served.stopped_nodes.load(Ordering::SeqCst));
    assert_eq!(fault(&next(&mut watch).await.unwrap().unwrap_err()).code, FaultCode::ShuttingDown);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), &mut served.server).await;
    ended.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_without_nodes_leaves_them_alone() {
    let served = serve().await;
    let steps = served.daemon().shutdown(v1::ShutdownRequest { with_nodes: false }).await.unwrap().into_inner();
    assert_eq!(steps.count().await, 2);
    assert!(!served.stopped_nodes.load(Ordering::SeqCst));
    assert!(served.cx.shutdown.is_cancelled());
}

#[tokio::test]
async fn a_reload_names_the_program_and_ends_the_server() {
    let served = serve().await;
    let steps = served.daemon().reload(v1::Empty {}).await.unwrap().into_inner();
    let steps: Vec<_> = steps.map(|step| step.unwrap().message).collect().await;
    assert_eq!(steps, ["nodes keep running", "devnetd executes /usr/bin/devnetd (devnetd 9.9.9)"]);
    assert!(served.cx.shutdown.is_cancelled() && !served.stopped_nodes.load(Ordering::SeqCst));
}

#[tokio::test]
async fn many_clients_that_write_one_devnet_lose_no_request() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    let restarts = (0..8).map(|_| {
        let socket = served.socket.clone();
        async move {
            let mut client = v1::devnet_service_client::DevnetServiceClient::new(connect(socket).await);
            client.restart(v1::RestartDevnetRequest { name: "mynet".into(), ..Default::default() }).await.unwrap();
        }
    });
    futures::future::join_all(restarts).await;
    let devnet = served.devnets().get(object_ref("mynet")).await.unwrap().into_inner();
    assert_eq!((spec(&devnet).operations.unwrap().restart, meta(&devnet).generation), (8, 9));
}

#[tokio::test]
async fn reading_five_nodes_takes_little() {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served.add_nodes("mynet", 5).await;
    let (mut nodes, mut devnets) = (served.nodes(), served.devnets());
    let (mut lists, mut gets) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let began = std::time::Instant::now();
        assert_eq!(nodes.list(v1::ListRequest::default()).await.unwrap().into_inner().items.len(), 5);
        lists.push(began.elapsed());
        let began = std::time::Instant::now();
        devnets.get(object_ref("mynet")).await.unwrap();
        gets.push(began.elapsed());
    }
    lists.sort();
    gets.sort();
    eprintln!("round trip at the median, client in the same thread: list of 5 nodes {:?}, get of a devnet {:?}", lists[100], gets[100]);
    // An unoptimized build on a busy machine; with optimization it is a small part of this.
    assert!(lists[100] < std::time::Duration::from_millis(20) && gets[100] < std::time::Duration::from_millis(20));
}
