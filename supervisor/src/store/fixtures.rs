//! Objects for tests.

use crate::model::{
    Devnet, DevnetSpec, DevnetStatus, Event, EventId, Export, ExportSpec, ExportStatus, Launch, LaunchId, LaunchRecord, LaunchStatus, Lease,
    LeaseSpec, Meta, Node, NodeSpec, NodeStatus, Plan, PlanBody, Transaction, TransactionSpec, TransactionStatus, Uid, Upgrade, UpgradeSpec,
    UpgradeStatus,
};

pub(crate) fn meta(namespace: &str, name: &str) -> Meta {
    Meta { name: name.into(), namespace: namespace.into(), uid: Uid(format!("uid-{namespace}-{name}")), generation: 1, ..Meta::default() }
}

pub(crate) fn devnet(namespace: &str, name: &str) -> Devnet {
    let spec = DevnetSpec { plugin: "mock".into(), ..DevnetSpec::default() };
    Devnet { metadata: meta(namespace, name), spec, status: DevnetStatus::default() }
}

pub(crate) fn node(namespace: &str, devnet: &str, short: &str, role: &str, index: u32) -> Node {
    let spec = NodeSpec { devnet_ref: devnet.into(), role: role.into(), index, ..NodeSpec::default() };
    Node { metadata: meta(namespace, &format!("{devnet}/{short}")), spec, status: NodeStatus::default() }
}

pub(crate) fn validator(namespace: &str, devnet: &str, index: u32) -> Node {
    node(namespace, devnet, &format!("validator-{index}"), "validator", index)
}

/// `of` is the node's full name.
pub(crate) fn launch(namespace: &str, of: &str, id: &str) -> Launch {
    let spec = LaunchRecord { node_ref: of.into(), launch_id: LaunchId(id.into()), ..LaunchRecord::default() };
    Launch { metadata: meta(namespace, &format!("{of}@{id}")), spec: spec.into(), status: LaunchStatus::default() }
}

pub(crate) fn lease(namespace: &str, devnet: &str, resource: &str) -> Lease {
    Lease { metadata: meta(namespace, resource), spec: LeaseSpec { devnet_ref: devnet.into(), ..LeaseSpec::default() } }
}

pub(crate) fn plan(namespace: &str, devnet: &str) -> Plan {
    Plan { metadata: meta(namespace, devnet), spec: PlanBody { devnet_ref: devnet.into(), ..PlanBody::default() } }
}

/// `id` is what its name ends with.
pub(crate) fn transaction(namespace: &str, devnet: &str, id: &str) -> Transaction {
    let payload = serde_json::json!({"to": "account:1"});
    let spec =
        TransactionSpec { devnet_ref: devnet.into(), signer: "account:0".into(), request_id: id.into(), payload, ..TransactionSpec::default() };
    Transaction { metadata: meta(namespace, &format!("{devnet}/tx-{id}")), spec, status: TransactionStatus::default() }
}

pub(crate) fn upgrade(namespace: &str, devnet: &str, name: &str) -> Upgrade {
    let spec = UpgradeSpec { devnet_ref: devnet.into(), upgrade_name: name.into(), height: 30, ..UpgradeSpec::default() };
    Upgrade { metadata: meta(namespace, &format!("{devnet}/{name}")), spec, status: UpgradeStatus::default() }
}

/// `short` is what its name ends with.
pub(crate) fn export(namespace: &str, devnet: &str, short: &str) -> Export {
    let spec = ExportSpec { devnet_ref: devnet.into(), ..ExportSpec::default() };
    Export { metadata: meta(namespace, &format!("{devnet}/{short}")), spec, status: ExportStatus::default() }
}

pub(crate) fn event(id: &str, kind: &str, namespace: &str, name: &str) -> Event {
    let (kind, namespace, name) = (kind.into(), namespace.into(), name.into());
    Event { id: EventId(id.into()), kind, namespace, name, reason: "Tested".into(), actor: "test".into(), ..Event::default() }
}
