//! The spec of a devnet: what a user writes in YAML, typed. Field names and defaults are the contract's.

use super::{ByteSize, Cpu, Desired, RestartPolicy, Span, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DevnetSpec {
    /// Chain family: the plugin's name.
    pub plugin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Filled in at admission from the name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    /// Filled in at admission: 4, or 0 for plugin exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validators: Option<u32>,
    pub full_nodes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<u32>,
    /// All keys and all randomness come from it. Filled in at admission from name and uid when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinarySource>,
    pub genesis: GenesisSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_time: Option<Span>,
    pub mode: Mode,
    pub addresses: Addresses,
    /// validator-0 gets 127.0.0.1 when its ports are free there at first allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localhost: Option<bool>,
    /// The TCP ports of the chain's nodes are held while they do not run. Services say it port by port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub park: Option<bool>,
    pub restart: RestartSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Keeps its value when a file that lacks it is applied again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
    /// All processes are to stand still. Keeps its value like `desired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Limits of all nodes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devnet_resources: Option<ResourcesSpec>,
    /// Restarts after deaths, of all nodes together, within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeOverride>,
    /// Shared: hundreds of them are in each version of the devnet, and in its plan; as they are `Eq`, two that are the same are not compared.
    #[serde(skip_serializing_if = "has_none")]
    pub services: Arc<[ServiceSpec]>,
    pub operations: Operations,
}

fn has_none(services: &Arc<[ServiceSpec]>) -> bool {
    services.is_empty()
}

impl DevnetSpec {
    pub fn desired(&self) -> Desired {
        self.desired.unwrap_or_default()
    }
    /// False: a devnet of services alone.
    pub fn has_chain(&self) -> bool {
        self.plugin != "exec"
    }
    pub fn validators(&self) -> u32 {
        self.validators.unwrap_or(if self.has_chain() { 4 } else { 0 })
    }
    pub fn accounts(&self) -> u32 {
        self.accounts.unwrap_or(10)
    }
    pub fn localhost(&self) -> bool {
        self.localhost.unwrap_or(true)
    }
    pub fn parks(&self) -> bool {
        self.park.unwrap_or_default()
    }
    pub fn frozen(&self) -> bool {
        self.frozen.unwrap_or_default()
    }
    /// SHA-256 (hex) of all that plan, genesis and nodes are made of: everything but `desired`, `frozen`, `operations` and `logs`.
    pub fn digest(&self) -> String {
        let mut made_of = Self { desired: None, frozen: None, operations: Operations::default(), logs: None, ..self.clone() };
        Arc::make_mut(&mut made_of.services).iter_mut().for_each(|service| service.logs = None);
        made_of.nodes.retain(|node| !node.is_of_logs_alone());
        made_of.nodes.iter_mut().for_each(|node| node.logs = None);
        let json = serde_json::to_vec(&made_of).expect("a spec has only string keys, so it is always JSON");
        Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect()
    }
    /// What is said of the logs of the node or service with this short name, and else of all.
    pub fn logs(&self, short: &str) -> LogsSpec {
        let of_service = || self.services.iter().find(|service| service.name == short).and_then(|service| service.logs.clone());
        let own = self.node(short).and_then(|node| node.logs.clone()).or_else(of_service).unwrap_or_default();
        let all = self.logs.clone().unwrap_or_default();
        LogsSpec { rotate: own.rotate.or(all.rotate), node: own.node.or(all.node), devnet: all.devnet, age: own.age.or(all.age) }
    }
    /// The override of the node with this short name.
    pub fn node(&self, short: &str) -> Option<&NodeOverride> {
        self.nodes.iter().find(|node| node.name == short)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    #[default]
    Native,
    Docker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Addresses {
    /// Each node its own 127.x.y.z with the chain's standard ports.
    #[default]
    Loopback,
    /// One address, leased ports.
    Ports,
}

/// Counters behind the verbs restart, reset and `restart --refresh-binary`: each request adds one, the controllers catch up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operations {
    pub restart: u64,
    pub reset: u64,
    pub refresh_binary: u64,
}

/// Where a node binary comes from: exactly one of the fields (`sha256` goes with `url`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BinarySource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_module: Option<GoModule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cargo: Option<CargoSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npm: Option<NpmSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GoModule {
    pub module: String,
    pub version: String,
    /// The main package; default: the module itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldflags: Option<String>,
    /// Toolchain, as in `go1.23.1`; default: what the module's go.mod names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_version: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CargoSource {
    #[serde(rename = "crate")]
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NpmSource {
    pub package: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    pub url: String,
    pub rev: String,
    pub build: String,
    pub bin: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GenesisSpec {
    /// Filled in at admission with now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// JSON merge patch over the chain's genesis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<serde_json::Value>,
    /// `DEVNET/EXPORT` of the same namespace: the state to begin with. At most one of the three sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_export: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_url: Option<String>,
    /// Of that state's file. Filled in at admission for an export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl GenesisSpec {
    /// Whether the chain begins with a state that another one left.
    pub fn is_fork(&self) -> bool {
        self.from_export.is_some() || self.from_file.is_some() || self.from_url.is_some()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestartSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResourcesSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// How much of logs is kept. What is absent is as the devnet says, else as the daemon's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogsSpec {
    /// A running node's file above this is rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<ByteSize>,
    /// Of each node, all its launches together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<ByteSize>,
    /// Of all nodes together; only a devnet has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devnet: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
}

/// What one node has otherwise than its devnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeOverride {
    /// Short name: `validator-1`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<BinarySource>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Config file name to settings that are merged into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsSpec>,
}

impl NodeOverride {
    /// Whether it is none for all but the caretaker of logs.
    pub fn is_of_logs_alone(&self) -> bool {
        self.logs.is_some() && *self == Self { name: self.name.clone(), logs: self.logs.clone(), ..Self::default() }
    }
}

/// A further supervised command of the devnet: relayer, faucet, indexer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceSpec {
    pub name: String,
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Short names of nodes that must be ready first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// Names of ports that devnetd holds while the service does not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub park: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ReadinessSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsSpec>,
}

/// At most one of the fields; none: ready when the process exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReadinessSpec {
    /// A port's name: it accepts connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// `port-name/path`: GET answers below 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A text that a log line holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}
