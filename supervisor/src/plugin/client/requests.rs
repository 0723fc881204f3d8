//! From the daemon's types to the messages of `plugin.v1`. Nothing here can fail.

use crate::{
    model::{Exit, NodeOverride, PlacedNode},
    plugin::{DevnetContext, ExportRequest, GenesisRequest, JobOutcome, NodeRequest},
};
use dvb_proto::plugin::v1 as pb;
use std::path::Path;

/// What a plugin gets of a dead node's log at most: lines, and bytes of each.
const TAIL_LINES: usize = 200;
const TAIL_LINE: usize = 8 << 10;

pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn devnet(context: &DevnetContext) -> pb::DevnetContext {
    let spec = &context.spec;
    let mut overrides: std::collections::BTreeMap<_, _> = spec.nodes.iter().map(|node| (node.name.clone(), node_overrides(node))).collect();
    for (name, binary) in &context.node_binaries {
        overrides.entry(name.clone()).or_default().binary_path.clone_from(binary);
    }
    pb::DevnetContext {
        name: context.name.clone(),
        namespace: context.namespace.clone(),
        uid: context.uid.clone(),
        chain_id: context.chain_id.clone(),
        network: spec.network.clone().unwrap_or_default(),
        validators: spec.validators(),
        full_nodes: spec.full_nodes,
        accounts: spec.accounts(),
        seed: context.seed.clone(),
        genesis_time: context.genesis_time.clone(),
        genesis_patch: spec.genesis.patch.as_ref().map(ToString::to_string).unwrap_or_default(),
        block_time_ms: spec.block_time.map(|span| span.as_millis()).unwrap_or_default(),
        binary_path: context.binary_path.clone(),
        binary_sha256: context.binary_sha256.clone(),
        overrides,
        initialized: context.initialized.clone(),
    }
}

fn node_overrides(node: &NodeOverride) -> pb::NodeOverrides {
    pb::NodeOverrides {
        binary_path: String::new(),
        args: node.args.clone(),
        env: node.env.clone(),
        config: node.config.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(super) fn outcome(outcome: &JobOutcome) -> pb::JobResult {
    pb::JobResult {
        name: outcome.name.clone(),
        exit_code: outcome.exit.code,
        signal: outcome.exit.signal,
        stdout_path: path(&outcome.stdout),
        stderr_path: path(&outcome.stderr),
    }
}

pub(super) fn placed(node: &PlacedNode) -> pb::PlacedNode {
    pb::PlacedNode {
        name: node.name.clone(),
        role: node.role.clone(),
        index: node.index,
        address: node.address.clone(),
        ports: node.ports.iter().map(|(name, port)| (name.clone(), u32::from(*port))).collect(),
        home_dir: node.home_dir.clone(),
    }
}

pub(super) fn genesis(request: &GenesisRequest) -> pb::GenerateGenesisRequest {
    pb::GenerateGenesisRequest {
        devnet: Some(devnet(&request.devnet)),
        nodes: request.nodes.iter().map(placed).collect(),
        staging_dir: path(&request.staging_dir),
        shared_dir: path(&request.shared_dir),
        job_results: request.job_outcomes.iter().map(outcome).collect(),
        round: request.round,
        base_genesis: request.base.as_deref().map(path).unwrap_or_default(),
    }
}

pub(super) fn export(request: &ExportRequest) -> pb::ExportRequest {
    pb::ExportRequest {
        devnet: Some(devnet(&request.devnet)),
        node: Some(placed(&request.node)),
        home_dir: path(&request.home_dir),
        height: request.height,
        for_zero_height: request.for_zero_height,
        output_path: path(&request.output),
        job_results: request.outcomes.iter().map(outcome).collect(),
    }
}

pub(super) fn launch(request: &NodeRequest) -> pb::StartNodeRequest {
    pb::StartNodeRequest {
        devnet: Some(devnet(&request.devnet)),
        nodes: request.nodes.iter().map(placed).collect(),
        node: request.node.clone(),
        shared_dir: path(&request.shared_dir),
    }
}

pub(super) fn node_ref(context: &DevnetContext, node: &PlacedNode) -> pb::NodeRef {
    pb::NodeRef { devnet: Some(devnet(context)), node: Some(placed(node)) }
}

pub(super) fn exit(context: &DevnetContext, node: &PlacedNode, exit: Option<&Exit>, log_tail: &[Vec<u8>]) -> pb::ClassifyExitRequest {
    let last = &log_tail[log_tail.len().saturating_sub(TAIL_LINES)..];
    pb::ClassifyExitRequest {
        devnet: Some(devnet(context)),
        node: Some(placed(node)),
        exit_code: exit.and_then(|exit| exit.code),
        signal: exit.and_then(|exit| exit.signal),
        oom_killed: exit.is_some_and(|exit| exit.oom_killed),
        alive: exit.is_none(),
        log_tail: last.iter().map(|line| line[..line.len().min(TAIL_LINE)].to_vec()).collect(),
    }
}
