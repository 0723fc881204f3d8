//! Model and messages have one JSON shape: nothing is lost either way.

use super::*;
use crate::model::{
    Account, Addresses, BinarySource, BinaryStatus, ByteSize, CargoSource, CloneReport, Condition, ConditionStatus, Conditions, CoreDump, Cpu,
    Desired, DevnetPhase, DevnetSpec, DevnetStatus, EventId, EventType, ExitClass, ExportPhase, ExportSpec, ExportStatus, GenesisSpec, GitSource,
    GoModule, HaltProof, HealthCheck, LastExit, LaunchId, LaunchPhase, LaunchRecord, LaunchStatus, LimitOf, LogsSpec, MemoryPressure, Meta, Mode,
    NodeOverride, NodePhase, NodeSpec, NodeStatus, NpmSource, OomKill, Operations, PastUpgrade, RawJson, ReadinessSpec, Resources, ResourcesSpec,
    RestartPolicy, RestartRules, RestartSpec, SavedState, SdkChange, ServiceSpec, SignedAttempt, Span, Timestamp, TransactionPhase, TransactionSpec,
    TransactionStatus, TxEvent, Uid, UpgradeNotes, UpgradePhase, UpgradeSpec, UpgradeStatus, Usage, VerifiedBlock,
};
use serde_json::json;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

fn text() -> String {
    "text".into()
}
fn some() -> Option<String> {
    Some(text())
}
fn time() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_123)
}
fn map<V>(value: V) -> BTreeMap<String, V> {
    BTreeMap::from([("key".to_owned(), value)])
}

pub(super) fn meta() -> Meta {
    Meta {
        name: "mynet".into(),
        namespace: "default".into(),
        uid: Uid(text()),
        labels: map(text()),
        annotations: map(text()),
        generation: 3,
        resource_version: u64::MAX,
        created_at: time(),
        updated_at: time(),
        deleted_at: Some(time()),
    }
}

fn binary() -> BinarySource {
    BinarySource {
        path: some(),
        go_module: Some(GoModule { module: text(), version: text(), package: some(), tags: vec![text()], ldflags: some(), go_version: some() }),
        url: some(),
        sha256: some(),
        cargo: Some(CargoSource { name: text(), version: text(), bin: some() }),
        npm: Some(NpmSource { package: text(), version: text(), bin: some() }),
        git: Some(GitSource { url: text(), rev: text(), build: text(), bin: text() }),
    }
}

fn restart() -> RestartSpec {
    RestartSpec {
        policy: Some(RestartPolicy::OnFailure),
        backoff: Some(Span::secs(5)),
        max_backoff: Some(Span::secs(300)),
        max_restarts: Some(5),
        reset_after: Some(Span::millis(500)),
    }
}

fn resources() -> ResourcesSpec {
    ResourcesSpec { memory: Some(ByteSize(2 << 30)), memory_high: Some(ByteSize(1 << 20)), cpu: Some(Cpu(1500)), tasks: Some(512) }
}

fn logs() -> LogsSpec {
    LogsSpec { rotate: Some(ByteSize(1 << 20)), node: Some(ByteSize(5 << 20)), devnet: Some(ByteSize(1 << 30)), age: Some(Span::secs(3_600)) }
}

/// Every field filled, every list and map with an entry.
pub(super) fn devnet() -> Devnet {
    let spec = DevnetSpec {
        plugin: "cosmos".into(),
        network: some(),
        chain_id: some(),
        validators: Some(4),
        full_nodes: 1,
        accounts: Some(10),
        seed: some(),
        binary: Some(binary()),
        genesis: GenesisSpec {
            time: Some(time()),
            patch: Some(json!({"app_state": {"gov": null, "n": [1, null, {"x": null}]}})),
            from_export: some(),
            from_file: some(),
            from_url: some(),
            sha256: some(),
        },
        block_time: Some(Span::secs(1)),
        mode: Mode::Docker,
        addresses: Addresses::Ports,
        localhost: Some(false),
        park: Some(true),
        restart: restart(),
        resources: Some(resources()),
        desired: Some(Desired::Stopped),
        frozen: Some(true),
        devnet_resources: Some(resources()),
        restart_budget: Some(7),
        logs: Some(logs()),
        nodes: vec![NodeOverride {
            name: "validator-1".into(),
            binary: Some(binary()),
            env: map(String::new()),
            args: vec![String::new(), text()],
            config: Some(json!({"config.toml": {"p2p": {"pex": true, "seeds": null}}})),
            resources: Some(resources()),
            restart: Some(restart()),
            desired: Some(Desired::Running),
            logs: Some(logs()),
        }],
        services: vec![ServiceSpec {
            name: "relayer".into(),
            command: vec![text()],
            env: map(text()),
            cwd: some(),
            after: vec![text()],
            ports: map(65_535),
            park: vec![text()],
            readiness: Some(ReadinessSpec { tcp: some(), http: some(), log: some() }),
            restart: Some(restart()),
            resources: Some(resources()),
            stop_signal: some(),
            grace: Some(Span::secs(10)),
            logs: Some(logs()),
        }]
        .into(),
        operations: Operations { restart: 1, reset: 2, refresh_binary: 3 },
    };
    let status = DevnetStatus {
        phase: DevnetPhase::Degraded,
        nodes: 5,
        ready_nodes: 4,
        current_height: Some(u64::MAX),
        sdk_version: text(),
        sdk_version_history: vec![SdkChange { version: text(), at: time(), height: 7 }],
        upgrades: vec![PastUpgrade { name: text(), before: Some(binary()), after: binary(), height: 7, at: time(), chain_epoch: 1 }],
        conditions: conditions(),
        observed_generation: 2,
        chain_id: some(),
        genesis_hash: some(),
        binary: Some(BinaryStatus { source: text(), path: text(), sha256: text(), version: text() }),
        subnet: some(),
        accounts: vec![Account { name: text(), address: text(), balance: text() }],
        mnemonic_path: some(),
        directory: some(),
        operations: Operations { restart: 1, reset: 2, refresh_binary: 3 },
        cause: Some(EventId(text())),
        message: some(),
        held: some(),
    };
    Devnet { metadata: meta(), spec, status }
}

fn conditions() -> Conditions {
    let condition = Condition::new("Ready", ConditionStatus::False, "Halted", "no quorum").with_remedy("start it");
    Conditions(vec![Condition { last_transition_time: time(), ..condition }])
}

pub(super) fn usage() -> Usage {
    let memory_pressure = Some(MemoryPressure { some: 1.5, full: 0.25 });
    Usage { cpu: 0.25, memory: 7, fds: 8, memory_pressure, io_read: Some(9), io_written: Some(10) }
}

pub(super) fn last_exit() -> LastExit {
    LastExit {
        code: Some(-1),
        signal: some(),
        class: ExitClass::GenesisMismatch,
        message: text(),
        at: time(),
        oom_killed: true,
        memory_peak: Some(1),
        cpu_time_ms: Some(2),
        log_tail: vec![text()],
        oom: Some(OomKill { limit_of: LimitOf::Devnet, limit: Some(1), peak: Some(2) }),
        core: Some(CoreDump { path: some(), hint: text() }),
    }
}

pub(super) fn node() -> Node {
    let spec = NodeSpec {
        devnet_ref: text(),
        index: 1,
        role: text(),
        binary_path: text(),
        binary_hash: text(),
        home_dir: text(),
        address: text(),
        ports: map(26_657),
        resources: Some(Resources { memory_bytes: Some(1), memory_high_bytes: Some(2), cpu_millis: Some(3), tasks: Some(4) }),
        restart: RestartRules::default(),
        desired: Desired::Stopped,
        suspended: true,
        restart_request: 4,
        consensus_key: some(),
        sign_state: some(),
        key_file: some(),
        after: vec![text()],
        double_sign_request: 2,
        frozen: true,
        frozen_with_devnet: true,
    };
    let status = NodeStatus {
        phase: NodePhase::Backoff,
        pid: Some(42),
        container_id: some(),
        launch_id: Some(LaunchId(text())),
        started_at: Some(time()),
        block_height: Some(9),
        peer_count: Some(3),
        catching_up: true,
        restart_count: 1,
        last_restart: Some(time()),
        next_restart: Some(time()),
        health_checks: vec![HealthCheck { name: text(), status: text(), message: text(), at: time() }],
        endpoints: map(text()),
        usage: Some(usage()),
        last_exit: Some(last_exit()),
        conditions: conditions(),
        observed_generation: 5,
        cause: Some(EventId(text())),
        recent_restarts: 2,
        observed_restart: 3,
        observed_double_sign: 1,
        log_path: some(),
        details: map(text()),
    };
    Node { metadata: meta(), spec, status }
}

fn launch() -> Launch {
    let spec = LaunchRecord {
        node_ref: text(),
        launch_id: LaunchId(text()),
        generation: 1,
        argv: vec![text()],
        binary_hash: text(),
        log_path: text(),
        ..LaunchRecord::default()
    };
    let status = LaunchStatus {
        phase: LaunchPhase::Ended,
        pid: Some(1),
        started_at: Some(time()),
        ended_at: Some(time()),
        exit: Some(last_exit()),
        handle: None,
    };
    Launch { metadata: meta(), spec: spec.into(), status }
}

fn event() -> Event {
    Event {
        id: EventId(text()),
        seq: 1,
        time: time(),
        kind: text(),
        namespace: text(),
        name: text(),
        event_type: EventType::Warning,
        reason: text(),
        message: text(),
        observed: some(),
        desired: some(),
        action: some(),
        result: some(),
        parent: Some(EventId(text())),
        generation: Some(1),
        launch_id: Some(LaunchId(text())),
        actor: text(),
    }
}

fn export() -> Export {
    let spec = ExportSpec { devnet_ref: text(), height: Some(7), for_zero_height: true, node: some(), memory: Some(ByteSize(1 << 30)) };
    let status = ExportStatus {
        phase: ExportPhase::Exporting,
        path: some(),
        sha256: some(),
        bytes: 9,
        conditions: conditions(),
        height: Some(7),
        node: some(),
        message: some(),
        cause: Some(EventId(text())),
        clone: Some(CloneReport { way: text(), bytes: 5, paused_ms: 6 }),
    };
    Export { metadata: meta(), spec, status }
}

fn transaction() -> Transaction {
    let spec = TransactionSpec {
        devnet_ref: text(),
        tx_type: text(),
        signer: text(),
        payload: json!({"to": "account:1", "nothing": null}),
        gas_limit: 1,
        memo: text(),
        request_id: text(),
        gas_factor: 1.5,
    };
    let status = TransactionStatus {
        phase: TransactionPhase::Retrying,
        tx_hash: some(),
        height: Some(7),
        gas_used: Some(5),
        error: some(),
        events: vec![TxEvent { kind: text(), attributes: map(text()) }],
        conditions: conditions(),
        signed: Some(SignedAttempt { raw: text(), hash: text(), sequence: 3, height: 6, expires_at: 66 }),
        attempts: 2,
        chain_epoch: 1,
        gas_limit: Some(9),
        fee: some(),
        meaning: some(),
        cause: Some(EventId(text())),
        code: Some(-5),
        sender: some(),
        former_chain: true,
    };
    Transaction { metadata: meta(), spec, status }
}

fn upgrade() -> Upgrade {
    let binary = BinarySource { path: some(), ..BinarySource::default() };
    let spec = UpgradeSpec {
        devnet_ref: text(),
        upgrade_name: text(),
        height: 7,
        binary,
        skip_vote: true,
        verify_blocks: 5,
        cancel: true,
        retry: 2,
        assume_handler: true,
        rolling: true,
    };
    let status = UpgradeStatus {
        phase: UpgradePhase::Verifying,
        proposal_id: Some(3),
        height: Some(7),
        conditions: conditions(),
        observed_generation: 2,
        message: text(),
        cause: Some(EventId(text())),
        attempt: 1,
        chain_epoch: 1,
        binary: Some(BinaryStatus { source: text(), path: text(), sha256: text(), version: text() }),
        sdk_version: text(),
        handler: text(),
        saved: Some(SavedState { path: text(), bytes: 9, shared: true, at: time() }),
        halts: vec![HaltProof { node: text(), evidence: text() }],
        verified: Some(VerifiedBlock { height: 9, app_hash: text(), nodes: 4 }),
        why: some(),
        former_chain: true,
        notes: UpgradeNotes::default(),
    };
    Upgrade { metadata: meta(), spec, status }
}

#[test]
fn an_upgrade_goes_there_and_back_and_the_controllers_notes_stay_inside() {
    let mut noted = upgrade();
    let message = to_message(&noted).unwrap();
    assert_eq!(from_message::<Upgrade>(&message).unwrap(), noted);
    noted.status.notes.skip_args = vec![text()];
    assert_eq!(to_message(&noted).unwrap(), message);
}

/// There and back without loss; and no field of the message is left at its default, so none was forgotten in the sample or the model.
fn check<T>(object: &T)
where
    T: Wire + DeserializeOwned + PartialEq + Debug,
    T::Message: Serialize,
{
    let message = to_message(object).expect("the model fits its message");
    let read: T = from_message(&message).expect("the message fits its model");
    assert_eq!(&read, object);
    let json = serde_json::to_value(&message).unwrap();
    no_default("", &json);
}

fn no_default(path: &str, json: &Value) {
    match json {
        Value::Object(fields) => {
            assert!(!fields.is_empty(), "{path} is empty");
            let walked = fields.iter().filter(|(key, _)| !FREE_FORM.contains(&key.as_str()));
            walked.for_each(|(key, value)| no_default(&format!("{path}.{key}"), value));
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} is empty");
            let last = items.len() - 1;
            no_default(&format!("{path}[{last}]"), &items[last]);
        }
        other => {
            let meant = path.ends_with("localhost") || path.ends_with("env.key");
            assert!(meant || ![json!(null), json!(""), json!(0), json!(false)].contains(other), "{path} is {other}");
        }
    }
}

#[test]
fn every_field_of_every_object_goes_there_and_back() {
    check(&devnet());
    check(&node());
    check(&launch());
    check(&transaction());
    check(&export());
    check(&event());
}

#[test]
fn an_empty_spec_is_an_empty_spec_on_both_sides() {
    let spec: DevnetSpec = from_message(&v1::DevnetSpec::default()).unwrap();
    assert_eq!(spec, DevnetSpec::default());
}

#[test]
fn handles_of_launches_stay_inside() {
    let mut object = launch();
    Arc::make_mut(&mut object.spec).stop_signal = "SIGTERM".into();
    object.status.handle = Some(RawJson::of(&json!({"pid": 1})).unwrap());
    assert_eq!(to_message(&object).unwrap(), to_message(&launch()).unwrap());
}

#[test]
fn a_fault_in_a_message_names_its_field_and_the_nearest_value() {
    let invalid = |edit: fn(&mut v1::DevnetSpec)| {
        let mut spec = v1::DevnetSpec { plugin: "cosmos".into(), ..v1::DevnetSpec::default() };
        edit(&mut spec);
        let fault = devnet_from_message(&v1::Devnet { spec: Some(spec), ..v1::Devnet::default() }).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidSpec);
        let violation = fault.violations.into_iter().next().unwrap();
        (violation.field, violation.suggestion)
    };
    let of = |field: &str, suggestion: Option<&str>| (field.to_owned(), suggestion.map(str::to_owned));
    assert_eq!(invalid(|s| s.mode = Some("dcker".into())), of("spec.mode", Some("docker")));
    assert_eq!(invalid(|s| s.block_time = Some("1".into())), of("spec.blockTime", None));
    assert_eq!(
        invalid(|s| s.services = vec![v1::ServiceSpec { ports: map(70_000), ..v1::ServiceSpec::default() }]),
        of("spec.services[0].ports.key", None)
    );
    assert_eq!(invalid(|s| s.genesis = Some(v1::GenesisSpec { patch: Some("{".into()), ..Default::default() })), of("spec.genesis.patch", None));
    let other = v1::Devnet { api_version: "v2".into(), ..v1::Devnet::default() };
    assert_eq!(devnet_from_message(&other).unwrap_err().violations[0].field, "apiVersion");
}
