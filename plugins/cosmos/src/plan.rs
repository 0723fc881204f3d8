//! Which nodes there are, and what a spec may ask for. Pure.

use crate::{
    binary::Chain,
    config, genesis,
    keys::{self, CometKey, Purpose, Wallet},
};
use dvb_plugin_sdk::pb;

const SHORTEST_BLOCK_MS: u64 = 50;
const LONGEST_BLOCK_MS: u64 = 10 * 60 * 1000;
/// CometBFT's own limit.
const LONGEST_CHAIN_ID: usize = 50;
const MOST_NODES: u32 = 500;
const MOST_ACCOUNTS: u32 = 10_000;

/// The name of a port, its standard number and its endpoint's scheme. All are bound to the address that they are told.
const PORTS: [(&str, u32, &str); 4] = [("rpc", 26657, "http"), ("p2p", 26656, "tcp"), ("grpc", 9090, "grpc"), ("api", 1317, "http")];

/// Validators first, then full nodes. As long as nobody has looked at the binary, the usual ports.
pub fn nodes(devnet: &pb::DevnetContext, chain: Option<&Chain>) -> Vec<pb::PlannedNode> {
    let validators = (0..devnet.validators).map(|index| ("validator", index));
    let full_nodes = (0..devnet.full_nodes).map(|index| ("fullnode", index));
    validators.chain(full_nodes).map(|(role, index)| node(devnet, chain, role, index)).collect()
}

/// Everything that is wrong with the spec, each with its field.
pub fn violations(devnet: &pb::DevnetContext) -> Vec<pb::Violation> {
    let mut found = Vec::new();
    let mut refuse = |field: &str, message: String, suggestion: &str| {
        found.push(pb::Violation { field: field.into(), message, suggestion: suggestion.into() });
    };
    if let Some(message) = chain_id_fault(&devnet.chain_id) {
        refuse("spec.chainId", message, "use letters, digits, `.`, `_` and `-`, such as mynet-1");
    }
    if keys::is_meant_as_mnemonic(&devnet.seed)
        && let Err(error) = Wallet::from_mnemonic(&devnet.seed)
    {
        refuse("spec.seed", error.to_string(), "the words as your wallet shows them, or any other text");
    }
    if devnet.validators == 0 {
        refuse("spec.validators", "a chain needs at least one validator".into(), "4");
    }
    let nodes = devnet.validators.saturating_add(devnet.full_nodes);
    if nodes > MOST_NODES {
        let field = if devnet.validators > MOST_NODES { "spec.validators" } else { "spec.fullNodes" };
        refuse(field, format!("{nodes} nodes are more than the {MOST_NODES} that this plugin connects"), "");
    }
    if devnet.accounts > MOST_ACCOUNTS {
        refuse("spec.accounts", format!("{} accounts are more than {MOST_ACCOUNTS}", devnet.accounts), "fund further ones with transactions");
    }
    if devnet.block_time_ms != 0 && !(SHORTEST_BLOCK_MS..=LONGEST_BLOCK_MS).contains(&devnet.block_time_ms) {
        let message = format!("{} ms is not between {SHORTEST_BLOCK_MS} ms and {} minutes", devnet.block_time_ms, LONGEST_BLOCK_MS / 60_000);
        refuse("spec.blockTime", message, "200ms is the shortest that four validators keep on a laptop");
    }
    if let Err(message) = parse_patch(&devnet.genesis_patch) {
        refuse("spec.genesis.patch", message, "");
    }
    let mut overrides: Vec<_> = devnet.overrides.iter().collect();
    overrides.sort_by_key(|(name, _)| name.as_str());
    for (name, node) in overrides {
        if let Err(message) = config::parse_overrides(&node.config) {
            refuse(&format!("spec.nodes[{name}].config"), message, "");
        }
    }
    found
}

/// The spec's genesis patch, when there is one.
pub fn parse_patch(patch: &str) -> Result<Option<serde_json::Value>, String> {
    if patch.trim().is_empty() {
        return Ok(None);
    }
    let patch: serde_json::Value = serde_json::from_str(patch).map_err(|e| format!("is not JSON: {e}"))?;
    if !patch.is_object() {
        return Err("must be an object, to be merged into the genesis".into());
    }
    genesis::check_patch(&patch).map_err(|e| e.to_string())?;
    Ok(Some(patch))
}

fn node(devnet: &pb::DevnetContext, chain: Option<&Chain>, role: &str, index: u32) -> pb::PlannedNode {
    let name = format!("{role}-{index}");
    let signs = role == "validator";
    let key = || CometKey::derive(&devnet.seed, &devnet.chain_id, Purpose::Consensus, role, index);
    let consensus_key = if signs { hex::encode(key().public()) } else { String::new() };
    let ports = PORTS.iter().filter(|(name, ..)| *name != "api" || chain.is_none_or(Chain::serves_rest_anywhere));
    let port = |(name, port, scheme): &(&str, u32, &str)| pb::PortSpec {
        name: (*name).into(),
        port: *port,
        scheme: (*scheme).into(),
        ..pb::PortSpec::default()
    };
    pb::PlannedNode {
        name,
        role: role.into(),
        index,
        ports: ports.map(port).collect(),
        consensus_key,
        sign_state: if signs { "data/priv_validator_state.json".into() } else { String::new() },
        key_file: if signs { "config/priv_validator_key.json".into() } else { String::new() },
        after: Vec::new(),
    }
}

fn chain_id_fault(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("must not be empty".into());
    }
    if id.chars().count() > LONGEST_CHAIN_ID {
        return Some(format!("has {} characters; CometBFT allows {LONGEST_CHAIN_ID}", id.chars().count()));
    }
    let odd = id.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c))?;
    Some(format!("holds {odd:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::Prefixes;

    fn chain(sdk: &str) -> Chain {
        let prefixes = Prefixes { account: "wasm".into(), validator: "wasmvaloper".into(), consensus: String::new() };
        Chain { sdk_version: sdk.into(), prefixes, ..Chain::default() }
    }

    fn devnet() -> pb::DevnetContext {
        pb::DevnetContext {
            chain_id: "mynet-1".into(),
            validators: 4,
            full_nodes: 1,
            accounts: 10,
            block_time_ms: 1000,
            seed: "s".into(),
            ..Default::default()
        }
    }

    #[test]
    fn four_validators_and_a_full_node_have_standard_ports_and_only_validators_sign() {
        let nodes = nodes(&devnet(), Some(&chain("v0.50.11")));
        let names: Vec<_> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["validator-0", "validator-1", "validator-2", "validator-3", "fullnode-0"]);
        let ports: Vec<_> = nodes[0].ports.iter().map(|p| (p.name.as_str(), p.port, p.wildcard)).collect();
        assert_eq!(ports, [("rpc", 26657, false), ("p2p", 26656, false), ("grpc", 9090, false), ("api", 1317, false)]);
        assert!(nodes[..4].iter().all(|n| n.consensus_key.len() == 64 && n.sign_state == "data/priv_validator_state.json"));
        assert!(nodes[4].consensus_key.is_empty() && nodes[4].sign_state.is_empty());
    }

    #[test]
    fn sdk_0_47_has_no_rest_port_since_it_would_answer_503_there() {
        assert!(nodes(&devnet(), Some(&chain("v0.47.5"))).iter().all(|n| n.ports.iter().all(|p| p.name != "api")));
    }

    #[test]
    fn a_good_spec_has_no_violation() {
        assert_eq!(violations(&devnet()), []);
    }

    #[test]
    fn each_bad_field_is_named() {
        let check = |change: fn(&mut pb::DevnetContext), field: &str| {
            let mut bad = devnet();
            change(&mut bad);
            let fields: Vec<_> = violations(&bad).into_iter().map(|v| v.field).collect();
            assert_eq!(fields, [field]);
        };
        check(|d| d.chain_id = String::new(), "spec.chainId");
        check(|d| d.chain_id = "x".repeat(51), "spec.chainId");
        check(|d| d.chain_id = "../x".into(), "spec.chainId");
        check(|d| d.seed = format!("{} abuot", ["abandon"; 11].join(" ")), "spec.seed");
        check(|d| d.validators = 0, "spec.validators");
        check(|d| d.validators = 10_000, "spec.validators");
        check(|d| d.full_nodes = u32::MAX, "spec.fullNodes");
        check(|d| d.accounts = 10_001, "spec.accounts");
        check(|d| d.block_time_ms = 49, "spec.blockTime");
        check(|d| d.genesis_patch = "[1]".into(), "spec.genesis.patch");
        check(|d| d.genesis_patch = r#"{"chain_id": "x"}"#.into(), "spec.genesis.patch");
        check(
            |d| {
                let node = pb::NodeOverrides { config: r#"{"nginx.conf": {}}"#.into(), ..Default::default() };
                d.overrides.insert("validator-1".into(), node);
            },
            "spec.nodes[validator-1].config",
        );
    }
}
