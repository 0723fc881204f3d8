//! A node's home: `config.toml`, `genesis.json`, `node.key`, `data/`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use commonware_cryptography::ed25519::PrivateKey;
use serde::{Deserialize, Serialize};

use super::fault::NodeFault;
use super::genesis::{ChainSpec, Genesis};
use super::tx::Address;

pub const CONFIG_FILE: &str = "config.toml";
pub const GENESIS_FILE: &str = "genesis.json";
pub const KEY_FILE: &str = "node.key";
/// Votes that were cast, below the home: a validator must not sign without it.
pub const SIGN_STATE: &str = "data/chain/consensus";

/// `config.toml`, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub moniker: String,
    /// The least time between a block and its parent when this node proposes, in milliseconds: 20 to 3,600,000.
    #[serde(default = "default_block_time_ms")]
    pub block_time_ms: u64,
    /// A `tracing` filter, such as `info` or `info,commonware_consensus=debug`.
    #[serde(default = "default_log")]
    pub log: String,
    pub rpc: Rpc,
    pub p2p: P2p,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rpc {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct P2p {
    pub listen: SocketAddr,
    /// Every node of the network, validators and full nodes, this one included: nobody else is let in.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub name: String,
    pub public_key: Address,
    pub address: SocketAddr,
}

/// A home, read and checked.
pub struct Home {
    pub path: PathBuf,
    pub config: Config,
    pub spec: ChainSpec,
    pub key: PrivateKey,
}

impl Home {
    pub fn load(path: &Path) -> Result<Self, NodeFault> {
        let config = Config::parse(&read(&path.join(CONFIG_FILE))?).map_err(|message| NodeFault::Config { path: path.join(CONFIG_FILE), message })?;
        let genesis_path = path.join(GENESIS_FILE);
        let spec =
            Genesis::parse(read(&genesis_path)?.as_bytes()).map_err(|fault| NodeFault::Genesis { path: genesis_path, message: fault.to_string() })?;
        let key_path = path.join(KEY_FILE);
        let key = parse_key(&read(&key_path)?)
            .ok_or(NodeFault::Key { path: key_path, message: "want 64 hexadecimal digits, an ed25519 private key".into() })?;
        Ok(Self { path: path.to_owned(), config, spec, key })
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Config {
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if !(20..=3_600_000).contains(&config.block_time_ms) {
            return Err(format!("block_time_ms = {}: want 20 to 3600000", config.block_time_ms));
        }
        let distinct: BTreeSet<_> = config.p2p.peers.iter().map(|peer| peer.public_key).collect();
        if distinct.len() < config.p2p.peers.len() {
            return Err("p2p.peers: two have the same public_key".into());
        }
        Ok(config)
    }
}

/// The text of a key file.
pub fn render_key(key: &PrivateKey) -> String {
    use commonware_codec::Encode as _;
    format!("{}\n", hex::encode(key.encode()))
}

fn parse_key(text: &str) -> Option<PrivateKey> {
    super::decode::<PrivateKey>(&hex::decode(text.trim()).ok()?).ok()
}

fn read(path: &Path) -> Result<String, NodeFault> {
    std::fs::read_to_string(path).map_err(|error| NodeFault::Config { path: path.to_owned(), message: error.to_string() })
}

fn default_block_time_ms() -> u64 {
    1000
}

fn default_log() -> String {
    "info".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "moniker = \"validator-0\"\n[rpc]\nlisten = \"127.0.0.1:26101\"\n[p2p]\nlisten = \"127.0.0.1:26100\"\n";

    #[test]
    fn defaults_fill_a_short_file() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!((config.block_time_ms, config.log.as_str(), config.p2p.peers.len()), (1000, "info", 0));
        assert_eq!(Config::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: String, expect: &str| {
            let message = Config::parse(&text).unwrap_err();
            assert!(message.contains(expect), "{message}");
        };
        check(format!("block_time_ms = 0\n{GOOD}"), "want 20 to 3600000");
        check(format!("block_tim_ms = 100\n{GOOD}"), "block_tim_ms");
        check("moniker = 1".into(), "moniker");
    }

    #[test]
    fn a_key_file_reads_back() {
        let key = crate::keys::node_key("s", "c", "validator", 0);
        assert_eq!(parse_key(&render_key(&key)).map(|read| Address::of(&read)), Some(Address::of(&key)));
        assert!(parse_key("abc").is_none());
    }
}
