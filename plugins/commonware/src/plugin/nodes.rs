//! Which nodes a devnet has, what its spec may say, and what its binary is.

use commonware_cryptography::Signer as _;
use commonware_cryptography::ed25519::PrivateKey;
use dvb_plugin_sdk::{PluginFault, Result, pb};

use super::{P2P_PORT, RPC_PORT};
use crate::chain::config::{CONFIG_FILE, KEY_FILE, SIGN_STATE};
use crate::chain::genesis::MAX_VALIDATORS;
use crate::chain::tx::Address;
use crate::keys;

const MAX_FULL_NODES: u32 = 100;
const MAX_ACCOUNTS: u32 = 10_000;

/// Asks for `devchain --version`, then reads what it printed.
pub(super) fn initialize(binary: &str, results: &[pb::JobResult]) -> Result<pb::InitializeResponse> {
    let Some(result) = results.iter().find(|result| result.name == "version") else {
        let version = pb::Job { name: "version".into(), argv: vec![binary.into(), "--version".into()], timeout_ms: 10_000, ..pb::Job::default() };
        return Ok(pb::InitializeResponse { jobs: vec![version], ..pb::InitializeResponse::default() });
    };
    let printed =
        std::fs::read_to_string(&result.stdout_path).map_err(|error| PluginFault::Internal(format!("read {}: {error}", result.stdout_path)))?;
    let version = printed.trim().strip_prefix("devchain ").ok_or_else(|| {
        let printed: String = printed.chars().take(80).collect();
        PluginFault::InvalidArgument(format!("{binary} is no devchain: `--version` printed {printed:?}"))
    })?;
    // `0.1.0 (protocol 2)`; the first said nothing of protocols.
    let (version, protocol) = version.split_once(" (protocol ").map_or((version, "1"), |(version, rest)| (version, rest.trim_end_matches(')')));
    Ok(pb::InitializeResponse { binary_version: version.into(), sdk_version: format!("protocol-{protocol}"), ..pb::InitializeResponse::default() })
}

pub(super) fn violations(devnet: &pb::DevnetContext) -> Vec<pb::Violation> {
    let mut found = Vec::new();
    let mut refuse = |field: &str, message: String, suggestion: &str| {
        found.push(pb::Violation { field: field.into(), message, suggestion: suggestion.into() });
    };
    if devnet.validators == 0 || devnet.validators as usize > MAX_VALIDATORS {
        refuse("spec.validators", format!("is {}, want 1 to {MAX_VALIDATORS}", devnet.validators), "4 validators survive the loss of one");
    }
    if devnet.full_nodes > MAX_FULL_NODES {
        refuse("spec.fullNodes", format!("is {}, want at most {MAX_FULL_NODES}", devnet.full_nodes), "");
    }
    if devnet.accounts > MAX_ACCOUNTS {
        refuse("spec.accounts", format!("is {}, want at most {MAX_ACCOUNTS}", devnet.accounts), "");
    }
    if devnet.block_time_ms != 0 && !(20..=3_600_000).contains(&devnet.block_time_ms) {
        refuse("spec.blockTime", format!("is {} ms, want 20ms to 1h", devnet.block_time_ms), "1s");
    }
    if !devnet.network.is_empty() {
        refuse("spec.network", format!("plugin commonware has no network named {:?}", devnet.network), "remove the field");
    }
    for (node, overrides) in &devnet.overrides {
        if let Err(fault) = super::launch::settings(overrides) {
            refuse(&format!("spec.nodes[{node}].config"), fault.to_string(), &format!("only {CONFIG_FILE} can be set"));
        }
    }
    // The map has no order of its own, and the same spec must get the same answer.
    found.sort_by(|a, b| a.field.cmp(&b.field));
    found
}

pub(super) fn plan(devnet: &pb::DevnetContext) -> Result<Vec<pb::PlannedNode>> {
    if let Some(first) = violations(devnet).into_iter().next() {
        return Err(PluginFault::InvalidArgument(format!("{}: {}", first.field, first.message)));
    }
    let validators = (0..devnet.validators).map(|index| ("validator", index));
    let full_nodes = (0..devnet.full_nodes).map(|index| ("fullnode", index));
    Ok(validators.chain(full_nodes).map(|(role, index)| planned(devnet, role, index)).collect())
}

fn planned(devnet: &pb::DevnetContext, role: &str, index: u32) -> pb::PlannedNode {
    let port = |name: &str, port, scheme: &str| pb::PortSpec { name: name.into(), port, scheme: scheme.into(), ..pb::PortSpec::default() };
    let signs = role == "validator";
    pb::PlannedNode {
        name: format!("{role}-{index}"),
        role: role.into(),
        index,
        ports: vec![port("p2p", P2P_PORT, "tcp"), port("rpc", RPC_PORT, "http")],
        consensus_key: if signs { address(devnet, role, index).to_string() } else { String::new() },
        sign_state: if signs { SIGN_STATE.into() } else { String::new() },
        key_file: if signs { KEY_FILE.into() } else { String::new() },
        after: Vec::new(),
    }
}

pub(super) fn key(devnet: &pb::DevnetContext, role: &str, index: u32) -> PrivateKey {
    keys::node_key(&devnet.seed, &devnet.chain_id, role, index)
}

/// A node's public key, which names it among its peers.
pub(super) fn address(devnet: &pb::DevnetContext, role: &str, index: u32) -> Address {
    Address::from_key(&key(devnet, role, index).public_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devnet() -> pb::DevnetContext {
        pb::DevnetContext { validators: 4, full_nodes: 1, accounts: 3, seed: "s".into(), chain_id: "c".into(), ..pb::DevnetContext::default() }
    }

    #[test]
    fn four_validators_and_a_full_node_are_planned_with_keys_of_their_own() {
        let nodes = plan(&devnet()).unwrap();
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["validator-0", "validator-1", "validator-2", "validator-3", "fullnode-0"]);
        assert_eq!((nodes[0].sign_state.as_str(), nodes[0].key_file.as_str()), ("data/chain/consensus", "node.key"));
        assert_eq!((nodes[4].consensus_key.as_str(), nodes[4].sign_state.as_str()), ("", ""));
    }

    #[test]
    fn a_spec_that_cannot_be_is_refused_field_by_field() {
        let check = |edit: fn(&mut pb::DevnetContext), field: &str| {
            let mut devnet = devnet();
            edit(&mut devnet);
            let found = violations(&devnet);
            assert_eq!(found.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), [field]);
        };
        check(|devnet| devnet.validators = 0, "spec.validators");
        check(|devnet| devnet.validators = 101, "spec.validators");
        check(|devnet| devnet.block_time_ms = 1, "spec.blockTime");
        check(|devnet| devnet.network = "wasmd".into(), "spec.network");
        check(
            |devnet| {
                let overrides = pb::NodeOverrides { config: r#"{"app.toml": {}}"#.into(), ..pb::NodeOverrides::default() };
                devnet.overrides.insert("validator-1".into(), overrides);
            },
            "spec.nodes[validator-1].config",
        );
        assert_eq!(violations(&devnet()), []);
    }

    #[test]
    fn the_version_is_asked_for_and_read() {
        let first = initialize("/bin/devchain", &[]).unwrap();
        assert_eq!(first.jobs[0].argv, ["/bin/devchain", "--version"]);
        let printed = tempfile::NamedTempFile::new().unwrap();
        let answer = |text: &str| {
            std::fs::write(printed.path(), text).unwrap();
            let result = pb::JobResult {
                name: "version".into(),
                exit_code: Some(0),
                stdout_path: printed.path().to_string_lossy().into(),
                ..Default::default()
            };
            initialize("/bin/devchain", &[result])
        };
        let of = |printed| answer(printed).map(|answer| (answer.binary_version, answer.sdk_version)).unwrap();
        assert_eq!(of("devchain 0.1.0\n"), ("0.1.0".into(), "protocol-1".into()));
        assert_eq!(of("devchain 0.1.0 (protocol 2)\n"), ("0.1.0".into(), "protocol-2".into()));
        assert!(answer("true (GNU coreutils) 9.1").unwrap_err().to_string().contains("no devchain"));
    }
}
