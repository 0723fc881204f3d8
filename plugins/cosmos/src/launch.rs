//! StartNode: what to run, the configuration files that the spec has changed since they were written, and the home of a full
//! node that joined later.

use crate::{
    config::{ConfigError, Network, Templates},
    homes,
};
use dvb_plugin_sdk::pb;
use std::{collections::BTreeMap, path::Path};

/// goleveldb and the WAL want to be closed; measured: 0.01 to 0.5 s.
const GRACE_MS: u32 = 15_000;

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("there is no node `{0}` in this devnet")]
    NoSuchNode(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The plan to start one node. Reads the shared templates and the home's files, so that only what differs is written.
pub fn plan(request: &pb::StartNodeRequest) -> Result<pb::LaunchPlan, LaunchError> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let index = request.nodes.iter().position(|n| n.name == request.node).ok_or_else(|| LaunchError::NoSuchNode(request.node.clone()))?;
    let node = &request.nodes[index];
    let overrides = devnet.overrides.get(&node.name).cloned().unwrap_or_default();
    let binary = if overrides.binary_path.is_empty() { &devnet.binary_path } else { &overrides.binary_path };
    let argv = [binary.as_str(), "start", "--home", &node.home_dir].map(str::to_owned).into_iter().chain(overrides.args).collect();
    // Cosmos binaries write ~/.<app> whatever --home says: keep that out of the user's own home.
    let mut env = BTreeMap::from([("HOME".to_owned(), node.home_dir.clone())]);
    env.extend(overrides.env);
    Ok(pb::LaunchPlan {
        argv,
        env,
        cwd: node.home_dir.clone(),
        files: changed_files(&devnet, request, index, &overrides.config)?,
        readiness: Some(pb::Readiness { kind: Some(pb::readiness::Kind::Plugin(pb::PluginProbe {})) }),
        stop_signal: "SIGTERM".into(),
        grace_ms: GRACE_MS,
        ..pb::LaunchPlan::default()
    })
}

/// How a node is stopped.
pub fn stop() -> pb::StopPlan {
    pb::StopPlan { signal: "SIGTERM".into(), grace_ms: GRACE_MS }
}

fn changed_files(
    devnet: &pb::DevnetContext,
    request: &pb::StartNodeRequest,
    index: usize,
    overrides: &str,
) -> Result<Vec<pb::PlannedFile>, LaunchError> {
    let (node, shared) = (&request.nodes[index], Path::new(&request.shared_dir));
    let templates = Templates::read(&shared.join(homes::TEMPLATES))?;
    let node_ids = homes::node_ids(devnet, &request.nodes);
    let network = Network { chain_id: &devnet.chain_id, block_time_ms: devnet.block_time_ms, nodes: &request.nodes, node_ids: &node_ids };
    let home = Path::new(&node.home_dir);
    let planned = |name: &str, content| {
        let path = home.join(name).to_string_lossy().into_owned();
        pb::PlannedFile { path, content, mode: 0o644, ..pb::PlannedFile::default() }
    };
    let mut files: Vec<_> = templates
        .render(&network, index, overrides)?
        .into_iter()
        .map(|(name, text)| (format!("config/{name}"), text.into_bytes()))
        .filter(|(name, content)| homes::differs(&home.join(name), content))
        .map(|(name, content)| planned(&name, content))
        .collect();
    files.extend(homes::late_files(devnet, node));
    Ok(files)
}
