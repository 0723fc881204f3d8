//! A node's TOML files: the chain's own defaults with our settings and the user's, comments kept.
//!
//! ```text
//! init's files ──prepare──► shared/templates/*.toml ──render(node)──► <home>/config/*.toml
//! ```
//! The templates stay with the devnet, so a later start writes the same files again, or others where the spec changed.

use dvb_plugin_sdk::pb;
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

/// The files that a node has and that `spec.nodes[].config` may change.
pub const FILES: [&str; 3] = ["config.toml", "app.toml", "client.toml"];

/// Up to here every node dials every other; beyond, a few each.
const FULL_MESH: usize = 32;
/// Up to here messages are passed on at once; more nodes would spend the machine on it.
const EAGER_GOSSIP: usize = 20;
const HEAD: &str = "# Made by devnetd, which writes it anew at each start. To change a setting, use spec.nodes[].config in the devnet's file.\n\n";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not TOML: {source}")]
    Toml { path: PathBuf, source: toml_edit::TomlError },
    #[error("spec.nodes[{node}].config: {reason}")]
    Override { node: String, reason: String },
    #[error("the host gave {node} no port named {port}")]
    Port { node: String, port: &'static str },
}

/// Settings as the user writes them, sections as objects.
pub type Settings = serde_json::Map<String, Json>;

/// The chain's default files.
pub struct Templates {
    documents: [DocumentMut; 3],
}

/// What all nodes of a devnet have in common.
pub struct Network<'a> {
    pub chain_id: &'a str,
    /// 0: the chain's default.
    pub block_time_ms: u64,
    pub nodes: &'a [pb::PlacedNode],
    /// P2p ids in the order of `nodes`.
    pub node_ids: &'a [String],
}

impl Templates {
    /// Reads the three files in `dir`.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let read = |name: &str| {
            let path = dir.join(name);
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            text.parse::<DocumentMut>().map_err(|source| ConfigError::Toml { path, source })
        };
        Ok(Self { documents: [read(FILES[0])?, read(FILES[1])?, read(FILES[2])?] })
    }

    /// Sets what comes from the genesis: gas is free, in the chain's token.
    pub fn prepare(&mut self, denom: &str) {
        set(&mut self.documents[1], "minimum-gas-prices", format!("0{denom}"));
    }

    /// Merges a network's settings into the defaults; JSON as in the overrides of [`Self::render`].
    pub fn merge(&mut self, settings: &str) -> Result<(), String> {
        for (file, settings) in parse_overrides(settings)? {
            merge(self.documents[file].as_table_mut(), &settings)?;
        }
        Ok(())
    }

    /// Names and contents, to keep for later starts.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        FILES.into_iter().zip(self.documents.iter().map(ToString::to_string))
    }

    /// The files of the node at `index` in `network.nodes`. `overrides`: JSON, file name -> settings.
    pub fn render(&self, network: &Network<'_>, index: usize, overrides: &str) -> Result<Vec<(&'static str, String)>, ConfigError> {
        let node = &network.nodes[index];
        let [mut config, mut app, mut client] = self.documents.clone();
        set_comet(&mut config, network, index)?;
        set_app(&mut app, node)?;
        set_client(&mut client, network.chain_id, node)?;
        let mut documents = [config, app, client];
        for (file, settings) in parse_overrides(overrides).map_err(|reason| ConfigError::Override { node: node.name.clone(), reason })? {
            merge(documents[file].as_table_mut(), &settings).map_err(|reason| ConfigError::Override { node: node.name.clone(), reason })?;
        }
        Ok(FILES.into_iter().zip(documents.iter().map(|d| format!("{HEAD}{d}"))).collect())
    }
}

/// Index into [`FILES`] and settings of each file that the overrides name; the error says what is wrong.
pub fn parse_overrides(overrides: &str) -> Result<Vec<(usize, Settings)>, String> {
    if overrides.trim().is_empty() {
        return Ok(Vec::new());
    }
    let files: HashMap<String, Json> = serde_json::from_str(overrides).map_err(|e| format!("must map files to settings: {e}"))?;
    let mut parsed = Vec::new();
    for (name, settings) in files {
        let Some(index) = FILES.iter().position(|f| *f == name) else {
            return Err(format!("there is no file `{name}`; a node has {}", FILES.join(", ")));
        };
        match settings {
            Json::Object(map) => parsed.push((index, map)),
            other => return Err(format!("`{name}` must hold settings, not {other}")),
        }
    }
    Ok(parsed)
}

/// `host:port` of one of the node's ports.
pub fn address(node: &pb::PlacedNode, port: &'static str) -> Result<String, ConfigError> {
    let number = node.ports.get(port).ok_or_else(|| ConfigError::Port { node: node.name.clone(), port })?;
    let host = if node.address.contains(':') { format!("[{}]", node.address) } else { node.address.clone() };
    Ok(format!("{host}:{number}"))
}

/// Indices of the nodes that this one dials: all others, or those 1, 2, 4, 8 ... further in a ring.
pub fn peers_of(index: usize, nodes: usize) -> Vec<usize> {
    if nodes <= FULL_MESH {
        return (0..nodes).filter(|j| *j != index).collect();
    }
    let steps = std::iter::successors(Some(1), |step| Some(step * 2)).take_while(|step| *step < nodes);
    steps.map(|step| (index + step) % nodes).collect()
}

fn set_comet(doc: &mut DocumentMut, network: &Network<'_>, index: usize) -> Result<(), ConfigError> {
    let node = &network.nodes[index];
    let count = network.nodes.len();
    let peers: Result<Vec<_>, _> =
        peers_of(index, count).into_iter().map(|j| Ok(format!("{}@{}", network.node_ids[j], address(&network.nodes[j], "p2p")?))).collect();
    set(doc, "moniker", node.name.as_str());
    set(doc, "rpc.laddr", format!("tcp://{}", address(node, "rpc")?));
    // Both would want ports that nobody leased.
    set(doc, "rpc.pprof_laddr", "");
    set(doc, "instrumentation.prometheus", false);
    set(doc, "p2p.laddr", format!("tcp://{}", address(node, "p2p")?));
    set(doc, "p2p.persistent_peers", peers?.join(","));
    // Peers are named, none is found; and CometBFT dials from 127.0.0.1 whatever address it listens on.
    set(doc, "p2p.pex", false);
    set(doc, "p2p.addr_book_strict", false);
    set(doc, "p2p.allow_duplicate_ip", true);
    raise(doc, "p2p.max_num_inbound_peers", count as i64);
    raise(doc, "p2p.max_num_outbound_peers", count as i64);
    if count <= EAGER_GOSSIP {
        set(doc, "p2p.flush_throttle_timeout", "10ms");
        set(doc, "consensus.peer_gossip_sleep_duration", "10ms");
    }
    set_block_time(doc, network.block_time_ms, count);
    Ok(())
}

fn set_block_time(doc: &mut DocumentMut, block_time_ms: u64, nodes: usize) {
    if block_time_ms == 0 {
        return;
    }
    set(doc, "consensus.timeout_commit", format!("{block_time_ms}ms"));
    if nodes <= EAGER_GOSSIP {
        // How long each turn of a validator that is down costs the others; on one machine a proposal takes milliseconds.
        set(doc, "consensus.timeout_propose", format!("{}ms", block_time_ms.clamp(1000, 3000)));
    }
}

fn set_app(doc: &mut DocumentMut, node: &pb::PlacedNode) -> Result<(), ConfigError> {
    set(doc, "grpc.enable", true);
    set(doc, "grpc.address", address(node, "grpc")?);
    let rest = node.ports.contains_key("api");
    set(doc, "api.enable", rest);
    if rest {
        set(doc, "api.address", format!("tcp://{}", address(node, "api")?));
    }
    // Where gRPC-web has a port of its own (0.47), nobody leased it.
    if find(doc, "grpc-web.address").is_some() {
        set(doc, "grpc-web.enable", false);
    }
    Ok(())
}

fn set_client(doc: &mut DocumentMut, chain_id: &str, node: &pb::PlacedNode) -> Result<(), ConfigError> {
    set(doc, "chain-id", chain_id);
    set(doc, "keyring-backend", "test");
    set(doc, "node", format!("tcp://{}", address(node, "rpc")?));
    Ok(())
}

/// Sets a setting that the file has; one that this version lacks is passed over.
fn set(doc: &mut DocumentMut, path: &str, value: impl Into<Value>) {
    if let Some(slot) = find(doc, path) {
        replace(slot, value.into());
    }
}

fn raise(doc: &mut DocumentMut, path: &str, at_least: i64) {
    if let Some(slot) = find(doc, path).filter(|slot| slot.as_integer().is_some_and(|now| now < at_least)) {
        replace(slot, at_least.into());
    }
}

fn find<'a>(doc: &'a mut DocumentMut, path: &str) -> Option<&'a mut Value> {
    let mut item = doc.as_item_mut();
    for key in path.split('.') {
        item = item.as_table_like_mut()?.get_mut(key)?;
    }
    item.as_value_mut()
}

/// The new value stands where the old one stood, with the same blanks and comments around it.
fn replace(slot: &mut Value, mut value: Value) {
    *value.decor_mut() = slot.decor().clone();
    *slot = value;
}

/// Merges settings as RFC 7396 does: objects are merged, null removes, all else replaces. New keys are added.
fn merge(table: &mut Table, settings: &Settings) -> Result<(), String> {
    for (key, setting) in settings {
        match (table.get_mut(key), setting) {
            (_, Json::Null) => {
                table.remove(key);
            }
            (Some(Item::Table(inner)), Json::Object(map)) => merge(inner, map)?,
            (Some(Item::Table(_)), other) => return Err(format!("`{key}` is a section, not {other}")),
            (None, Json::Object(map)) => {
                let mut inner = Table::new();
                merge(&mut inner, map)?;
                table.insert(key, Item::Table(inner));
            }
            (Some(Item::Value(slot)), other) => replace(slot, to_toml(other)?),
            (_, other) => {
                table.insert(key, Item::Value(to_toml(other)?));
            }
        }
    }
    Ok(())
}

fn to_toml(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => return Err("null has no place in a list".into()),
        Json::Bool(b) => (*b).into(),
        Json::String(s) => s.as_str().into(),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(fraction)) => fraction.into(),
            (None, None) => return Err(format!("{n} is no TOML number")),
        },
        Json::Array(items) => items.iter().map(to_toml).collect::<Result<Array, _>>()?.into(),
        Json::Object(map) => map.iter().map(|(k, v)| Ok((k.as_str(), to_toml(v)?))).collect::<Result<InlineTable, String>>()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = r#"# The version
version = "0.38.15"

# A custom human readable name for this node
moniker = "tpl"

[rpc]
# TCP or UNIX socket address for the RPC server to listen on
laddr = "tcp://127.0.0.1:26657" # not yet
pprof_laddr = "localhost:6060"

[p2p]
laddr = "tcp://0.0.0.0:26656"
persistent_peers = ""
addr_book_strict = true
max_num_inbound_peers = 40
flush_throttle_timeout = "100ms"
pex = true
allow_duplicate_ip = false

[consensus]
# How long we wait after committing a block
timeout_commit = "5s"
timeout_propose = "3s"
"#;
    const APP: &str =
        "minimum-gas-prices = \"\"\n[api]\nenable = false\naddress = \"tcp://localhost:1317\"\n[grpc]\nenable = true\naddress = \"localhost:9090\"\n";
    const CLIENT: &str = "chain-id = \"\"\nkeyring-backend = \"os\"\nnode = \"tcp://localhost:26657\"\n";

    fn templates() -> Templates {
        Templates { documents: [CONFIG, APP, CLIENT].map(|text| text.parse().unwrap()) }
    }

    fn node(name: &str, address: &str) -> pb::PlacedNode {
        let ports = [("rpc", 26657), ("p2p", 26656), ("grpc", 9090), ("api", 1317)].map(|(k, v)| (k.to_owned(), v)).into();
        pb::PlacedNode { name: name.into(), address: address.into(), ports, ..pb::PlacedNode::default() }
    }

    fn render(overrides: &str) -> Result<Vec<(&'static str, String)>, ConfigError> {
        let nodes = [node("validator-0", "127.70.0.1"), node("fullnode-0", "127.70.0.2")];
        let ids = ["aa".to_owned(), "bb".to_owned()];
        let network = Network { chain_id: "mynet-1", block_time_ms: 500, nodes: &nodes, node_ids: &ids };
        let mut templates = templates();
        templates.prepare("stake");
        templates.render(&network, 0, overrides)
    }

    #[test]
    fn settings_change_in_place_and_comments_stay() {
        let files: Vec<_> = render("").unwrap().into_iter().map(|(name, text)| format!("--- {name}\n{text}")).collect();
        insta::assert_snapshot!(files.join("\n"));
    }

    #[test]
    fn overrides_are_merged_last_and_may_add_settings() {
        let text =
            &render(r#"{"config.toml": {"p2p": {"pex": true, "seeds": ["a", 1]}, "consensus": {"timeout_propose": null}, "new": {"x": 1.5}}}"#)
                .unwrap()[0]
                .1;
        let document: DocumentMut = text.parse().unwrap();
        assert_eq!(document["p2p"]["pex"].as_bool(), Some(true));
        assert_eq!(document["p2p"]["seeds"].to_string().trim(), r#"["a", 1]"#);
        assert!(document["consensus"].get("timeout_propose").is_none());
        assert_eq!(document["new"]["x"].as_float(), Some(1.5));
        assert_eq!(document["p2p"]["laddr"].as_str(), Some("tcp://127.70.0.1:26656"));
    }

    #[test]
    fn overrides_that_make_no_sense_are_refused_by_name() {
        let check = |overrides: &str, expect: &str| {
            let message = render(overrides).unwrap_err().to_string();
            assert!(message.starts_with("spec.nodes[validator-0].config: ") && message.contains(expect), "{message}");
        };
        check(r#"{"confg.toml": {}}"#, "there is no file `confg.toml`; a node has config.toml, app.toml, client.toml");
        check(r#"{"app.toml": 7}"#, "`app.toml` must hold settings, not 7");
        check(r#"{"config.toml": {"p2p": 7}}"#, "`p2p` is a section, not 7");
        check("[1]", "must map files to settings");
    }

    #[test]
    fn a_node_without_a_needed_port_is_refused() {
        let mut lacking = node("validator-0", "127.70.0.1");
        lacking.ports.remove("rpc");
        assert_eq!(address(&lacking, "rpc").unwrap_err().to_string(), "the host gave validator-0 no port named rpc");
        assert_eq!(address(&node("n", "::1"), "rpc").unwrap(), "[::1]:26657");
    }

    proptest! {
        #[test]
        fn every_node_reaches_every_other_over_few_links(nodes in 1usize..300) {
            for index in 0..nodes {
                let peers = peers_of(index, nodes);
                prop_assert!(!peers.contains(&index) && peers.len() <= FULL_MESH);
                // Links work both ways, and the next in the ring is always one of them.
                prop_assert!(nodes == 1 || peers.contains(&((index + 1) % nodes)));
            }
        }
    }
}
