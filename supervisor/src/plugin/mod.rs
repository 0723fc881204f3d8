//! Plugins: finding them, running them, and speaking to them in the daemon's own types. It has no word of node processes.

mod client;
pub mod fake;
mod fault;
pub mod gov;
mod host;
mod process;
mod provisioned;
mod search;
mod slot;
mod stdio;
pub mod tx;
pub mod upgrade;

pub use crate::model::Readiness;
use crate::model::{Account, Devnet, DevnetSpec, Exit, ExitClass, Fault, FaultCode, PlacedNode, PlannedNode, Violation};
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

pub use provisioned::ready;

pub use host::{HostSettings, PluginHost};

#[derive(Clone, Debug, thiserror::Error)]
pub enum PluginError {
    #[error("there is no plugin `{name}`; looked in {}", looked_in.join(", "))]
    Missing { name: String, looked_in: Vec<String>, nearest: Option<String> },
    #[error("plugin {name} speaks protocol {plugin}; this devnetd speaks {host}")]
    Incompatible { name: String, host: u32, plugin: u32 },
    #[error("plugin {name} cannot be started: {reason}")]
    Spawn { name: String, reason: String },
    #[error("plugin {name} ended ({status}) during {call}; its last words: {stderr_tail}")]
    Exited { name: String, call: String, status: String, stderr_tail: String },
    #[error("plugin {name} did not answer {call} within {after:?}")]
    TimedOut { name: String, call: String, after: Duration },
    #[error("plugin {name} wrote to stdout, which belongs to the protocol: {text:?}")]
    Polluted { name: String, text: String },
    #[error("plugin {name} failed {failures} times in a row and is tried again in {retry_in:?}; last: {last}")]
    Backoff { name: String, failures: u32, retry_in: Duration, last: String },
    /// The plugin's own refusal: `code` is the gRPC code's name, as in `InvalidArgument`.
    #[error("{message}")]
    Rejected { name: String, code: String, message: String },
    #[error("plugin {name} sent an unusable reply to {call}: {reason}")]
    BadReply { name: String, call: String, reason: String },
}

/// What a plugin says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginInfo {
    pub name: String,
    pub version: String,
    pub api_version: u32,
    pub description: String,
    pub capabilities: Vec<String>,
    pub networks: Vec<String>,
    pub default_binary: Option<PathBuf>,
    pub needs_binary: bool,
}

impl PluginInfo {
    /// Why a devnet of this spec has no node binary, if it has none. Looks whether the plugin's own is where it should be.
    pub fn lacks_binary(&self, spec: &DevnetSpec) -> Option<Fault> {
        if spec.binary.is_some() {
            return None;
        }
        let name = &self.name;
        match &self.default_binary {
            Some(path) if !path.is_file() => {
                let message = format!("plugin {name} finds no node binary: there is no {}, where its own should be", path.display());
                let fault = Fault::new(FaultCode::BinaryMissing, message);
                Some(fault.remedy("cargo xtask install --prefix DIR puts all programs into one folder; or name a node binary in spec.binary"))
            }
            None if self.needs_binary => {
                Some(Fault::invalid(vec![Violation::new("spec.binary", format!("is missing, and plugin {name} ships no node binary"))]))
            }
            Some(_) | None => None,
        }
    }

    /// Why `node` cannot join the devnet, whose chain has its genesis, if it cannot.
    pub fn refuses_latecomer(&self, node: &str, devnet: &str) -> Option<String> {
        let takes_any = self.capabilities.iter().any(|capability| capability == LATE_NODES);
        (!takes_any).then(|| {
            let plugin = &self.name;
            format!("{node} cannot join: plugin {plugin} adds no node to a chain that has its genesis; begin anew with it: dvbctl reset {devnet}")
        })
    }
}

/// A plugin says with this capability that `StartNode` makes the home of a full node that joins after genesis.
const LATE_NODES: &str = "late-fullnodes";

/// Where a plugin stands, for `get plugins`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginState {
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
    /// Idle | Running | Backoff | Broken
    pub state: String,
    pub message: String,
    pub info: Option<PluginInfo>,
}

/// The resolved devnet that every call carries.
#[derive(Clone, Debug, Default)]
pub struct DevnetContext {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub chain_id: String,
    pub seed: String,
    pub genesis_time: String,
    /// Resolved binary (of the devnet) and its SHA-256, hex.
    pub binary_path: String,
    pub binary_sha256: String,
    /// Node binaries that differ, by short name.
    pub node_binaries: BTreeMap<String, String>,
    /// What Initialize returned.
    pub initialized: Vec<u8>,
    pub spec: Arc<DevnetSpec>,
}

impl DevnetContext {
    /// What the object itself says: no binary, and nothing from Initialize yet.
    pub fn of(devnet: &Devnet) -> Self {
        Self::sharing(devnet, Arc::new(devnet.spec.clone()))
    }

    /// As `of`, with the devnet's spec where it lies already: a spec may be large, and contexts many.
    pub fn sharing(devnet: &Devnet, spec: Arc<DevnetSpec>) -> Self {
        Self {
            name: devnet.metadata.name.clone(),
            namespace: devnet.metadata.namespace.clone(),
            uid: devnet.metadata.uid.to_string(),
            chain_id: spec.chain_id.clone().unwrap_or_default(),
            seed: spec.seed.clone().unwrap_or_default(),
            genesis_time: spec.genesis.time.map(|time| time.to_string()).unwrap_or_default(),
            spec,
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    pub name: String,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub timeout: Duration,
    pub ok_codes: Vec<i32>,
}

#[derive(Clone, Debug, Default)]
pub struct JobOutcome {
    pub name: String,
    pub exit: Exit,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// A call that may first ask for jobs and be made again with their outcomes.
#[derive(Clone, Debug)]
pub enum Reply<T> {
    Jobs(Vec<Job>),
    Done(T),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialized {
    pub sdk_version: String,
    pub binary_version: String,
    pub state: Vec<u8>,
    /// Capabilities of the family that this binary has not.
    #[serde(default)]
    pub lacks: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct GenesisRequest {
    pub devnet: DevnetContext,
    pub nodes: Vec<PlacedNode>,
    pub staging_dir: PathBuf,
    pub shared_dir: PathBuf,
    pub job_outcomes: Vec<JobOutcome>,
    pub round: u32,
    /// An exported state to begin with.
    pub base: Option<PathBuf>,
}

/// A plugin says with this capability that it exports state.
pub const EXPORT_CAPABILITY: &str = "export";
/// With it: the state of the newest block only.
pub const EXPORTS_NEWEST: &str = "export-newest";
/// And with this one, that it makes a genesis from such a state.
pub const FORK_CAPABILITY: &str = "fork";

#[derive(Clone, Debug, Default)]
pub struct ExportRequest {
    pub devnet: DevnetContext,
    pub node: PlacedNode,
    /// The clone of its home; not there yet when there are no outcomes.
    pub home_dir: PathBuf,
    pub height: Option<u64>,
    pub for_zero_height: bool,
    pub output: PathBuf,
    pub outcomes: Vec<JobOutcome>,
}

/// Jobs to run on the clone, or, when there are none, what came of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportPlan {
    pub jobs: Vec<Job>,
    /// Below the home: what the jobs do not need.
    pub skip: Vec<PathBuf>,
    pub height: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Genesis {
    /// Relative to the staging folder, like all paths here.
    pub genesis_path: PathBuf,
    pub genesis_sha256: String,
    pub files: Vec<(PathBuf, String)>,
    pub accounts: Vec<Account>,
    pub mnemonic_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub struct NodeRequest {
    pub devnet: DevnetContext,
    pub nodes: Vec<PlacedNode>,
    /// Short name of the node that is meant.
    pub node: String,
    pub shared_dir: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaunchPlan {
    pub jobs: Vec<Job>,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub files: Vec<PlannedFile>,
    /// Name and content; `{secret:NAME}` in argv and env stands for the descriptor's path.
    pub secrets: Vec<(String, Vec<u8>)>,
    pub readiness: Readiness,
    /// Empty: SIGTERM.
    pub stop_signal: String,
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFile {
    pub path: PathBuf,
    pub source: FileSource,
}

/// Where the bytes of a planned file come from.
#[derive(Clone, Debug, PartialEq)]
pub enum FileSource {
    Given {
        content: Vec<u8>,
        mode: u32,
    },
    /// A file of the devnet's shared folder, of any size: it is linked, so it must only be read.
    Shared(PathBuf),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub ready: bool,
    pub height: u64,
    pub peers: u32,
    pub catching_up: bool,
    pub message: String,
    /// Alive, but unable to go on.
    pub sick: Option<ExitClass>,
    pub details: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockHeight {
    pub height: u64,
    pub hash: String,
    pub app_hash: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    pub class: ExitClass,
    pub message: String,
    pub remedy: Option<String>,
}

/// One chain family. The client speaks gRPC to a process; `fake` is for tests of the controllers.
#[async_trait]
pub trait ChainPlugin: tx::TxPlugin + gov::GovPlugin + upgrade::UpgradePlugin + Send + Sync + 'static {
    async fn info(&self) -> Result<PluginInfo, PluginError>;
    async fn initialize(&self, devnet: &DevnetContext, work_dir: PathBuf, outcomes: &[JobOutcome]) -> Result<Reply<Initialized>, PluginError>;
    async fn validate(&self, devnet: &DevnetContext) -> Result<Vec<Violation>, PluginError>;
    async fn plan_nodes(&self, devnet: &DevnetContext) -> Result<Vec<PlannedNode>, PluginError>;
    async fn genesis(&self, request: &GenesisRequest) -> Result<Reply<Genesis>, PluginError>;
    async fn launch(&self, request: &NodeRequest) -> Result<LaunchPlan, PluginError>;
    async fn export(&self, request: &ExportRequest) -> Result<ExportPlan, PluginError>;
    async fn probe(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<Health, PluginError>;
    /// Heights as the node announces them; the stream ends when the node or the plugin goes away.
    async fn heights(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<BoxStream<'static, Result<BlockHeight, PluginError>>, PluginError>;
    /// Why a node ended, or, without an exit, why one that lives makes no blocks.
    async fn classify(&self, devnet: &DevnetContext, node: &PlacedNode, exit: Option<&Exit>, log_tail: &[Vec<u8>])
    -> Result<Classified, PluginError>;
}

/// All plugins that were found.
#[async_trait]
pub trait Plugins: Send + Sync + 'static {
    /// A plugin by family name; starts its process when it is first called, not here.
    async fn get(&self, name: &str) -> Result<Arc<dyn ChainPlugin>, PluginError>;
    /// SHA-256 of its executable, hex.
    async fn digest(&self, name: &str) -> Result<String, PluginError>;
    async fn list(&self) -> Vec<PluginState>;
    /// The list after each plugin has said who it is: those that never did are started for it, all at once, and stopped again.
    async fn introduce(&self) -> Vec<PluginState> {
        self.list().await
    }
}
