//! The mock chain: which nodes, which files, which command lines. Pure but for the staged files.

use dvb_plugin_sdk::{Derivation, PluginFault, Result, derive, merge, pb, sha256_hex, write_staged};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

pub(crate) const GRACE_MS: u32 = 5_000;
const DEFAULT_BLOCK_MS: u64 = 500;
const MAX_VALIDATORS: u32 = 100;
const SIGN_STATE: &str = "data/sign_state.json";
const KEY_FILE: &str = "config/key.json";

fn violation(field: &str, message: String) -> pb::Violation {
    pb::Violation { field: field.into(), message, suggestion: String::new() }
}

pub(crate) fn violations(devnet: &pb::DevnetContext) -> Vec<pb::Violation> {
    let mut found = Vec::new();
    if !(1..=MAX_VALIDATORS).contains(&devnet.validators) {
        found.push(violation("spec.validators", format!("must be 1 to {MAX_VALIDATORS} and is {}", devnet.validators)));
    }
    if !["", "jobs"].contains(&devnet.network.as_str()) {
        found.push(violation("spec.network", format!("there is no network `{}`; the only one is `jobs`", devnet.network)));
    }
    if !devnet.genesis_patch.is_empty() && !matches!(serde_json::from_str(&devnet.genesis_patch), Ok(Value::Object(_))) {
        found.push(violation("spec.genesis.patch", "must be a JSON object".into()));
    }
    found
}

/// Asks the binary for its version first.
pub(crate) fn initialize(devnet: &pb::DevnetContext, results: &[pb::JobResult]) -> Result<pb::InitializeResponse> {
    let Some(result) = results.iter().find(|result| result.name == "version") else {
        let job =
            pb::Job { name: "version".into(), argv: vec![devnet.binary_path.clone(), "--version".into()], timeout_ms: 10_000, ..Default::default() };
        return Ok(pb::InitializeResponse { jobs: vec![job], ..Default::default() });
    };
    let text = std::fs::read_to_string(&result.stdout_path).unwrap_or_default();
    let Some(version) = text.trim().strip_prefix("mock-node ") else {
        return Err(PluginFault::InvalidArgument(format!("{} is no mock-node: it says {:?}", devnet.binary_path, text.trim())));
    };
    let state = json!({"version": version}).to_string().into_bytes();
    Ok(pb::InitializeResponse { sdk_version: "mock".into(), binary_version: version.into(), state, ..Default::default() })
}

fn secret(devnet: &pb::DevnetContext, role: &str, index: u32) -> [u8; 32] {
    derive(&devnet.seed, &devnet.chain_id, Derivation { purpose: "consensus-key", role, index })
}

/// There is no signature scheme: a digest of the secret plays the public key, and the secret is kept in full.
fn public(devnet: &pb::DevnetContext, role: &str, index: u32) -> String {
    sha256_hex(&secret(devnet, role, index))
}

pub(crate) fn nodes(devnet: &pb::DevnetContext) -> Vec<pb::PlannedNode> {
    let port = |name: &str, port, scheme: &str| pb::PortSpec { name: name.into(), port, park: true, scheme: scheme.into(), ..Default::default() };
    let node = |role: &str, index| pb::PlannedNode {
        name: format!("{role}-{index}"),
        role: role.into(),
        index,
        ports: vec![port("rpc", 36_657, "http"), port("p2p", 36_656, "tcp")],
        ..Default::default()
    };
    let validator = |index| pb::PlannedNode {
        consensus_key: public(devnet, "validator", index),
        sign_state: SIGN_STATE.into(),
        key_file: KEY_FILE.into(),
        ..node("validator", index)
    };
    (0..devnet.validators).map(validator).chain((0..devnet.full_nodes).map(|index| node("fullnode", index))).collect()
}

/// Network `jobs` has its genesis stamped by a job of the node binary; otherwise one round does all.
pub(crate) fn genesis(request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
    let devnet = request.devnet.unwrap_or_default();
    let staging = Path::new(&request.staging_dir);
    let stamp = match (devnet.network.as_str(), request.job_results.first()) {
        ("jobs", None) => {
            let argv = vec![devnet.binary_path.clone(), "--digest".into(), devnet.seed.clone()];
            let job = pb::Job { name: "stamp".into(), argv, cwd: request.staging_dir.clone(), ..Default::default() };
            return Ok(pb::GenerateGenesisResponse { jobs: vec![job], ..Default::default() });
        }
        ("jobs", Some(result)) => {
            std::fs::read_to_string(&result.stdout_path).map_err(|error| PluginFault::Internal(format!("{}: {error}", result.stdout_path)))?
        }
        _ => String::new(),
    };
    let accounts: Vec<_> = (0..devnet.accounts).map(|index| account(&devnet, index)).collect();
    let document = document(&devnet, &accounts, stamp.trim())?;
    let genesis = write_staged(staging, "shared/genesis.json", pretty(&document).as_bytes(), 0o644)?;
    let mnemonic = write_staged(staging, "shared/mnemonic.txt", format!("mock {}\n", public(&devnet, "mnemonic", 0)).as_bytes(), 0o600)?;
    let mut files = vec![genesis.clone(), mnemonic.clone()];
    for node in &request.nodes {
        let body = json!({"secret": secret(&devnet, &node.role, node.index), "public": public(&devnet, &node.role, node.index)});
        files.push(write_staged(staging, &format!("nodes/{}/{KEY_FILE}", node.name), pretty(&body).as_bytes(), 0o600)?);
        files.push(write_staged(staging, &format!("nodes/{}/{SIGN_STATE}", node.name), b"{\"height\":0}", 0o600)?);
    }
    Ok(pb::GenerateGenesisResponse {
        genesis_path: genesis.path,
        genesis_sha256: genesis.sha256,
        mnemonic_path: mnemonic.path,
        files,
        accounts,
        ..Default::default()
    })
}

fn account(devnet: &pb::DevnetContext, index: u32) -> pb::Account {
    let digest = public(devnet, "account", index);
    pb::Account { name: format!("account:{index}"), address: format!("mock1{}", &digest[..32]), balance: "1000000mock".into() }
}

fn document(devnet: &pb::DevnetContext, accounts: &[pb::Account], stamp: &str) -> Result<Value> {
    let balances: BTreeMap<_, _> = accounts.iter().map(|account| (&account.address, &account.balance)).collect();
    let validators: Vec<_> = (0..devnet.validators).map(|index| public(devnet, "validator", index)).collect();
    let mut document = json!({
        "chain_id": devnet.chain_id,
        "genesis_time": devnet.genesis_time,
        "validators": validators,
        "balances": balances,
        "stamp": stamp,
    });
    if !devnet.genesis_patch.is_empty() {
        let patch =
            serde_json::from_str(&devnet.genesis_patch).map_err(|error| PluginFault::InvalidArgument(format!("spec.genesis.patch: {error}")))?;
        merge(&mut document, &patch);
    }
    Ok(document)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(crate) fn launch(request: pb::StartNodeRequest) -> Result<pb::LaunchPlan> {
    let devnet = request.devnet.unwrap_or_default();
    let Some(node) = request.nodes.iter().find(|node| node.name == request.node) else {
        return Err(PluginFault::InvalidArgument(format!("the devnet has no node `{}`", request.node)));
    };
    let own = devnet.overrides.get(&node.name).cloned().unwrap_or_default();
    let binary = if own.binary_path.is_empty() { &devnet.binary_path } else { &own.binary_path };
    let at = |node: &pb::PlacedNode, port: &str| format!("{}:{}", node.address, node.ports.get(port).copied().unwrap_or_default());
    let block_ms = if devnet.block_time_ms == 0 { DEFAULT_BLOCK_MS } else { devnet.block_time_ms };
    let mut argv = vec![binary.clone()];
    let mut flag = |name: &str, value: String| argv.extend([format!("--{name}"), value]);
    flag("home", node.home_dir.clone());
    flag("genesis", format!("{}/genesis.json", request.shared_dir));
    flag("rpc", at(node, "rpc"));
    flag("p2p", at(node, "p2p"));
    flag("block-time-ms", block_ms.to_string());
    for peer in request.nodes.iter().filter(|peer| peer.name != node.name) {
        flag("peer", at(peer, "p2p"));
    }
    argv.extend(own.args);
    let mut config = json!({"moniker": node.name, "chainId": devnet.chain_id});
    if !own.config.is_empty() {
        let patch = serde_json::from_str(&own.config).map_err(|error| PluginFault::InvalidArgument(format!("{}: config: {error}", node.name)))?;
        merge(&mut config, &patch);
    }
    let file = pb::PlannedFile {
        path: format!("{}/config/mock.json", node.home_dir),
        content: pretty(&config).into_bytes(),
        mode: 0o644,
        shared: String::new(),
    };
    Ok(pb::LaunchPlan {
        argv,
        env: own.env,
        cwd: node.home_dir.clone(),
        files: vec![file],
        readiness: Some(pb::Readiness { kind: Some(pb::readiness::Kind::Plugin(pb::PluginProbe {})) }),
        stop_signal: "SIGTERM".into(),
        grace_ms: GRACE_MS,
        ..Default::default()
    })
}

/// Log text to class, in the order of how much it tells.
const MARKS: [(&str, &str); 8] = [
    ("address already in use", "port-busy"),
    ("database is locked", "db-locked"),
    ("app hash mismatch", "app-hash"),
    ("upgrade needed", "upgrade-needed"),
    ("unexpected argument", "bad-flag"),
    ("genesis mismatch", "genesis-mismatch"),
    ("key refused", "key-refused"),
    ("panicked at", "panic"),
];

pub(crate) fn classify(request: &pb::ClassifyExitRequest) -> pb::ExitClass {
    let class = |class: &str, message: &str| pb::ExitClass { class: class.into(), message: message.into(), remedy: String::new() };
    if request.oom_killed {
        return class("oom", "the kernel killed it for its memory");
    }
    let lines: Vec<_> = request.log_tail.iter().rev().map(|line| String::from_utf8_lossy(line)).collect();
    for line in &lines {
        let lower = line.to_ascii_lowercase();
        if let Some((_, kind)) = MARKS.iter().find(|(mark, _)| lower.contains(mark)) {
            return class(kind, line.trim());
        }
    }
    match request.signal {
        Some(9 | 15) => class("killed-by-user", "somebody killed it"),
        _ => class("unknown", lines.first().map_or("", |line| line.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_classed_by_their_decisive_line() {
        let check = |log: &str, signal, expect: &str| {
            let request =
                pb::ClassifyExitRequest { log_tail: log.lines().map(|line| line.as_bytes().to_vec()).collect(), signal, ..Default::default() };
            assert_eq!(classify(&request).class, expect, "{log}");
        };
        check("start\nError: Address already in use (os error 98)\nbye", None, "port-busy");
        check("thread main panicked at x.rs:1", Some(6), "panic");
        check("all is well", Some(9), "killed-by-user");
        check("all is well", None, "unknown");
    }

    #[test]
    fn the_patch_reaches_the_genesis() {
        let devnet = pb::DevnetContext { genesis_patch: r#"{"chain_id":"other","stamp":null}"#.into(), validators: 1, ..Default::default() };
        let document = document(&devnet, &[], "x").unwrap();
        assert_eq!(document["chain_id"], "other");
        assert_eq!(document.get("stamp"), None);
    }
}
