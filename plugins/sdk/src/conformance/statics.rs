//! Checks that need no files: who it is, what it refuses, what it plans.

use super::{
    Checked, Finding, ensure, fail,
    session::{CALL_LIMIT, Session, answer, refusal},
};
use crate::pb;
use std::{collections::BTreeSet, path::Path};
use tonic::{Code, codegen::http::uri::PathAndQuery};

fn versions(min: u32, max: u32) -> pb::GetInfoRequest {
    pb::GetInfoRequest { api_version_min: min, api_version_max: max, host_version: "conformance".into() }
}

/// A host of the present version is answered. A host of version 99 gets FAILED_PRECONDITION, or the plugin's version, from which
/// it sees by itself that they cannot speak.
pub(super) async fn handshake(session: &mut Session) -> Checked {
    let now = pb::API_VERSION;
    let info = answer("GetInfo", CALL_LIMIT, session.client.get_info(versions(now, now))).await?;
    ensure(info.api_version == now, || format!("asked for version {now}, it says that it speaks {}", info.api_version))?;
    session.info = info;
    match session.client.get_info(versions(99, 99)).await {
        Ok(info) => ensure(info.get_ref().api_version != 99, || "it claims to speak version 99".into()),
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        Err(status) => fail(format!("a host of version 99 gets {:?}; wanted FAILED_PRECONDITION or the plugin's own version", status.code())),
    }
}

pub(super) async fn info(session: &mut Session) -> Checked {
    let info = &session.info;
    ensure(!info.name.is_empty() && !info.version.is_empty(), || format!("name and version must be there: {info:?}"))?;
    if let Some(family) = session.exe.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("dvb-plugin-")) {
        ensure(family == info.name, || format!("the file is named for family {family}, GetInfo says {}", info.name))?;
    }
    let capabilities: BTreeSet<_> = info.capabilities.iter().collect();
    ensure(capabilities.len() == info.capabilities.len(), || format!("a capability stands twice: {:?}", info.capabilities))?;
    if let Some(binary) = &info.default_binary {
        ensure(Path::new(binary).is_absolute(), || format!("default_binary {binary} is not absolute"))?;
        if session.devnet.binary_path.is_empty() {
            session.devnet.binary_path.clone_from(binary);
        }
    }
    if info.default_validators == Some(0) {
        session.devnet.validators = 0;
        session.devnet.full_nodes = 0;
    }
    if info.needs_binary && session.devnet.binary_path.is_empty() {
        session.no_binary = Some("it needs a node binary; name one with --binary".into());
    } else if !session.devnet.binary_path.is_empty() {
        let path = &session.devnet.binary_path;
        let digest = crate::sha256_file(Path::new(path)).map_err(|error| Finding::Fail(format!("the node binary {path}: {error}")))?;
        session.devnet.binary_sha256 = digest;
    }
    Ok(())
}

/// What is lacking says so with UNIMPLEMENTED, and goes on serving.
pub(super) async fn unimplemented(session: &mut Session) -> Checked {
    let has = |name: &str| session.info.capabilities.iter().any(|capability| capability == name);
    let (tx, gov, export) = (has("tx"), has("gov"), has("export"));
    if !tx {
        let request = pb::GetAccountRequest { devnet: Some(session.devnet.clone()), signer: "account:0".into(), ..Default::default() };
        refusal("GetAccount without the capability", &[Code::Unimplemented], session.client.get_account(request)).await?;
    }
    if !gov {
        let request = pb::ListProposalsRequest { devnet: Some(session.devnet.clone()), ..Default::default() };
        refusal("ListProposals without the capability", &[Code::Unimplemented], session.client.list_proposals(request)).await?;
        let request = pb::DraftParamChangeRequest { devnet: Some(session.devnet.clone()), ..Default::default() };
        refusal("DraftParamChange without the capability", &[Code::Unimplemented], session.client.draft_param_change(request)).await?;
    }
    if !export {
        let request = pb::ExportRequest { devnet: Some(session.devnet.clone()), ..Default::default() };
        refusal("Export without the capability", &[Code::Unimplemented], session.client.export(request)).await?;
    }
    let mut raw = tonic::client::Grpc::new(session.channel.clone());
    raw.ready().await.map_err(|error| Finding::Fail(format!("the connection is gone: {error}")))?;
    let path = PathAndQuery::from_static("/plugin.v1.Plugin/NoSuchCall");
    let codec = tonic_prost::ProstCodec::<pb::CloseRequest, pb::CloseResponse>::default();
    match tokio::time::timeout(CALL_LIMIT, raw.unary(tonic::Request::new(pb::CloseRequest {}), path, codec)).await {
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
        other => fail(format!("a call that does not exist: wanted UNIMPLEMENTED, got {other:?}")),
    }
}

pub(super) async fn validate(session: &mut Session) -> Checked {
    let request = pb::ValidateSpecRequest { devnet: Some(session.devnet.clone()) };
    let first = answer("ValidateSpec", CALL_LIMIT, session.client.validate_spec(request.clone())).await?;
    let second = answer("ValidateSpec", CALL_LIMIT, session.client.validate_spec(request)).await?;
    ensure(first == second, || format!("ValidateSpec is not deterministic: {first:?} and {second:?}"))?;
    let complaints: Vec<_> = first.violations.iter().map(|v| format!("{}: {}", v.field, v.message)).collect();
    ensure(complaints.is_empty(), || format!("the suite's spec is refused: {complaints:?}"))
}

pub(super) async fn plan(session: &mut Session) -> Checked {
    let request = pb::PlanNodesRequest { devnet: Some(session.devnet.clone()) };
    let first = answer("PlanNodes", CALL_LIMIT, session.client.plan_nodes(request.clone())).await?;
    let second = answer("PlanNodes", CALL_LIMIT, session.client.plan_nodes(request)).await?;
    ensure(first == second, || format!("PlanNodes is not deterministic: {first:?} and {second:?}"))?;
    sound(&first.nodes)?;
    let validators = first.nodes.iter().filter(|node| node.role == "validator").count();
    let wanted = session.devnet.validators as usize;
    ensure(validators == wanted, || format!("{wanted} validators were asked for, {validators} are planned"))?;
    let mut other = session.devnet.clone();
    other.seed.push_str(", another one");
    let reseeded = answer("PlanNodes", CALL_LIMIT, session.client.plan_nodes(pb::PlanNodesRequest { devnet: Some(other) })).await?;
    let keys = |nodes: &[pb::PlannedNode]| nodes.iter().map(|node| node.consensus_key.clone()).filter(|key| !key.is_empty()).collect::<BTreeSet<_>>();
    ensure(keys(&first.nodes).is_disjoint(&keys(&reseeded.nodes)), || "two seeds give the same consensus key".into())?;
    session.planned = first.nodes;
    Ok(())
}

/// What the host rests on in a list of planned nodes.
fn sound(nodes: &[pb::PlannedNode]) -> Checked {
    let names: BTreeSet<_> = nodes.iter().map(|node| &node.name).collect();
    ensure(names.len() == nodes.len(), || "a node name stands twice".into())?;
    let mut keys = BTreeSet::new();
    for node in nodes {
        let named = format!("{}-{}", node.role, node.index);
        ensure(node.name == named, || format!("node {} must be named {named}", node.name))?;
        let ports: BTreeSet<_> = node.ports.iter().map(|port| &port.name).collect();
        ensure(ports.len() == node.ports.len(), || format!("{}: a port name stands twice", node.name))?;
        for port in &node.ports {
            ensure((1..=65_535).contains(&port.port), || format!("{}: port {} is {}", node.name, port.name, port.port))?;
            ensure(!port.name.is_empty(), || format!("{}: port {} has no name", node.name, port.port))?;
            ensure(!(port.park && port.udp), || format!("{}: port {} is UDP and cannot be parked", node.name, port.name))?;
        }
        let key = &node.consensus_key;
        ensure(key.bytes().all(|c| c.is_ascii_hexdigit()), || format!("{}: the consensus key is not hex", node.name))?;
        ensure(key.is_empty() || keys.insert(key), || format!("{}: its consensus key is another node's too", node.name))?;
        ensure(Path::new(&node.sign_state).is_relative(), || format!("{}: sign_state {} is not below its home", node.name, node.sign_state))?;
        for other in &node.after {
            ensure(names.contains(other) && *other != node.name, || format!("{}: it comes after {other}, which is no other node", node.name))?;
        }
    }
    Ok(())
}
