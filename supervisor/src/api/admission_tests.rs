//! Tables of what admission makes of requests.

use super::*;
use crate::model::{Desired, NodeOverride, Operations};

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_789);

fn fresh() -> Fresh {
    Fresh { now: NOW, uid: Uid("u1".into()) }
}

fn wanted(edit: impl FnOnce(&mut Devnet)) -> Devnet {
    let metadata = Meta { name: "mynet".into(), ..Meta::default() };
    let spec = DevnetSpec { plugin: "cosmos".into(), ..DevnetSpec::default() };
    let mut devnet = Devnet { metadata, spec, status: DevnetStatus::default() };
    edit(&mut devnet);
    devnet
}

/// As stored after a create, at revision 5.
fn stored(edit: impl FnOnce(&mut Devnet)) -> Devnet {
    let mut devnet = admit(Verb::Create, None, wanted(|_| {}), &fresh()).unwrap().devnet;
    devnet.metadata.resource_version = 5;
    edit(&mut devnet);
    devnet
}

fn later() -> Fresh {
    Fresh { now: NOW.plus(std::time::Duration::from_secs(99)), uid: Uid("u2".into()) }
}

fn apply(present: &Devnet, edit: impl FnOnce(&mut Devnet)) -> Result<Admitted, Fault> {
    admit(Verb::Apply, Some(present), wanted(edit), &later())
}

#[test]
fn a_new_devnet_gets_its_defaults_written_down() {
    let admitted = admit(Verb::Apply, None, wanted(|d| d.metadata.resource_version = 77), &fresh()).unwrap();
    let Devnet { metadata, spec, .. } = &admitted.devnet;
    assert_eq!((metadata.namespace.as_str(), metadata.generation, metadata.resource_version), ("default", 1, 0));
    assert_eq!((metadata.uid.as_str(), metadata.created_at), ("u1", NOW));
    assert_eq!((spec.chain_id.as_deref(), spec.seed.as_deref()), (Some("mynet-1"), Some("mynet-u1")));
    assert_eq!((spec.validators, spec.accounts), (Some(4), Some(10)));
    assert_eq!(spec.genesis.time, Some(Timestamp::from_millis(1_767_225_600_000)));
    assert_eq!(admitted.action, Action::Created);
    assert!(admitted.changes.iter().any(|change| change.field == "spec.plugin" && change.before.is_none()));
}

#[test]
fn a_devnet_of_commands_has_no_validators_and_no_accounts() {
    let service = crate::model::ServiceSpec { name: "web".into(), command: vec!["/bin/true".into()], ..Default::default() };
    let admitted = admit(
        Verb::Create,
        None,
        wanted(|d| {
            d.spec.plugin = "exec".into();
            d.spec.services = vec![service].into();
        }),
        &fresh(),
    );
    let spec = admitted.unwrap().devnet.spec;
    assert_eq!((spec.validators, spec.accounts), (Some(0), Some(0)));
    assert_eq!((spec.chain_id, spec.genesis.time), (None, None), "nor a chain");
}

#[test]
fn the_same_file_again_changes_nothing() {
    let present = stored(|_| {});
    let again = apply(&present, |_| {}).unwrap();
    assert_eq!((again.action, again.changes), (Action::Unchanged, vec![]));
    assert_eq!(again.devnet, present);
}

#[test]
fn a_file_applied_again_keeps_what_verbs_set_and_resets_the_rest() {
    let present = stored(|d| {
        d.spec.desired = Some(Desired::Stopped);
        d.spec.operations = Operations { restart: 3, reset: 1, refresh_binary: 0 };
        d.spec.full_nodes = 2;
        d.status.nodes = 6;
        d.metadata.annotations.insert("devnet.builder/mark".into(), "x".into());
        d.metadata.labels.insert("old".into(), "x".into());
    });
    let admitted = apply(&present, |d| {
        d.spec.operations = Operations { restart: 99, reset: 99, refresh_binary: 99 };
        d.metadata.annotations.insert("devnet.builder/keep-data".into(), "true".into());
    })
    .unwrap();
    assert_eq!(admitted.devnet.spec.desired, Some(Desired::Stopped));
    assert_eq!(admitted.devnet.spec.operations, present.spec.operations);
    assert_eq!(admitted.devnet.spec.full_nodes, 0);
    assert_eq!(admitted.devnet.status, present.status);
    assert_eq!(admitted.devnet.metadata.annotations, present.metadata.annotations);
    let fields: Vec<_> = admitted.changes.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["metadata.labels.old", "spec.fullNodes"]);
    assert_eq!(apply(&present, |d| d.spec.desired = Some(Desired::Running)).unwrap().devnet.spec.desired, Some(Desired::Running));
}

#[test]
fn the_generation_counts_changes_of_the_spec_only() {
    let check = |edit: fn(&mut Devnet), generation, action| {
        let admitted = apply(&stored(|_| {}), edit).unwrap();
        assert_eq!((admitted.devnet.metadata.generation, admitted.action), (generation, action));
    };
    check(|_| {}, 1, Action::Unchanged);
    check(|d| drop(d.metadata.labels.insert("a".into(), "b".into())), 1, Action::Configured);
    check(|d| d.spec.full_nodes = 1, 2, Action::Configured);
    check(|d| d.spec.validators = Some(4), 1, Action::Unchanged);
}

#[test]
fn what_the_genesis_fixed_cannot_change_once_it_is_there() {
    let before = stored(|_| {});
    let after = stored(|d| d.status.genesis_hash = Some("ab".into()));
    let check = |edit: fn(&mut Devnet), field: Option<&str>| {
        assert!(apply(&before, edit).is_ok(), "free before the genesis");
        let Some(field) = field else {
            assert!(apply(&after, edit).is_ok());
            return;
        };
        let fault = apply(&after, edit).unwrap_err();
        assert_eq!((fault.code, fault.violations[0].field.as_str()), (FaultCode::Immutable, field));
        let remedy = fault.remedy.unwrap();
        assert!(fault.message.contains(field) && remedy.contains("dvbctl delete mynet") && remedy.contains("dvbctl reset mynet"));
    };
    check(|d| d.spec.plugin = "evm".into(), Some("spec.plugin"));
    check(|d| d.spec.chain_id = Some("other-1".into()), Some("spec.chainId"));
    check(|d| d.spec.seed = Some("other".into()), Some("spec.seed"));
    check(|d| d.spec.accounts = Some(11), Some("spec.accounts"));
    check(|d| d.spec.genesis.patch = Some(json!({"a": null})), Some("spec.genesis.patch.a"));
    check(|d| d.spec.genesis.time = Some(Timestamp::from_millis(0)), Some("spec.genesis.time"));
    check(|d| d.spec.chain_id = Some("mynet-1".into()), None);
    check(|d| d.spec.full_nodes = 3, None);
}

#[test]
fn each_verb_wants_to_find_something_else() {
    let present = stored(|_| {});
    let leaving = stored(|d| d.metadata.deleted_at = Some(NOW));
    let at = |revision| wanted(|d| d.metadata.resource_version = revision);
    let check = |verb, present: Option<&Devnet>, sent: Devnet, expect: Option<FaultCode>| {
        assert_eq!(admit(verb, present, sent, &later()).err().map(|fault| fault.code), expect);
    };
    check(Verb::Create, Some(&present), at(0), Some(FaultCode::AlreadyExists));
    check(Verb::Create, None, at(0), None);
    check(Verb::Update, None, at(0), Some(FaultCode::NotFound));
    check(Verb::Update, Some(&present), at(0), None);
    check(Verb::Update, Some(&present), at(5), None);
    check(Verb::Update, Some(&present), at(4), Some(FaultCode::Conflict));
    check(Verb::Apply, Some(&present), at(4), None);
    check(Verb::Apply, Some(&leaving), at(0), Some(FaultCode::Conflict));
    check(Verb::Create, Some(&leaving), at(0), Some(FaultCode::Conflict));
}

#[test]
fn bad_input_names_its_field() {
    let check = |edit: fn(&mut Devnet), field: &str, suggestion: Option<&str>| {
        let fault = admit(Verb::Apply, None, wanted(edit), &fresh()).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidSpec);
        let found = &fault.violations[0];
        assert_eq!((found.field.as_str(), found.suggestion.as_deref()), (field, suggestion));
        assert!(fault.message.len() < 400, "{}", fault.message);
    };
    check(|d| d.spec.validators = Some(10_000), "spec.validators", None);
    check(|d| d.spec.validators = Some(u32::MAX), "spec.validators", None);
    check(|d| d.spec.validators = Some(0), "spec.validators", None);
    check(|d| d.metadata.name = "../x".into(), "metadata.name", None);
    check(|d| d.metadata.name = "x".repeat(300), "metadata.name", None);
    check(|d| d.metadata.namespace = "a/b".into(), "metadata.namespace", None);
    check(|d| d.spec.nodes = vec![NodeOverride { name: "validator-9".into(), ..Default::default() }], "spec.nodes[0].name", Some("validator-0"));
    check(|d| drop(d.metadata.labels.insert("k".repeat(254), String::new())), "metadata.labels", None);
}
