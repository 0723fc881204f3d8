//! Nodes: spec, status and phases.
//!
//! ```text
//!           launch           ready                 exit          back-off over
//! Pending ────────► Starting ─────► Running ─────────► Crashed ─► Backoff ──► Starting
//!    ▲                  │ stop         │ stop             │ no restart for this cause,
//!    │                  ▼              ▼                  ▼ or budget used
//! Stopped ◄───────── Stopping ◄────────┘               Failed
//! ```

use super::{Conditions, EventId, ExitClass, LaunchId, Meta, NodeName, OomKill, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Role of a node that comes from `spec.services`.
pub const SERVICE: &str = "service";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Desired {
    #[default]
    Running,
    Stopped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodePhase {
    #[default]
    Pending,
    Starting,
    Running,
    Backoff,
    Stopping,
    Stopped,
    Crashed,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub metadata: Meta,
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

impl Node {
    /// Whether a process should exist now.
    pub fn is_wanted(&self) -> bool {
        self.spec.desired == Desired::Running && !self.spec.suspended && self.metadata.deleted_at.is_none()
    }
    /// Whether its process, while there should be one, is to stand still.
    pub fn is_to_be_frozen(&self) -> bool {
        self.is_wanted() && (self.spec.frozen || self.spec.frozen_with_devnet)
    }
    /// Whether its process stood still when that was last looked at.
    pub fn is_frozen(&self) -> bool {
        self.status.conditions.is_true(FROZEN)
    }
    /// Whether more was asked of it than what its last launch or its last refusal answered: a restart, or another spec.
    pub fn is_asked_anew(&self) -> bool {
        self.spec.restart_request > self.status.observed_restart || self.metadata.generation > self.status.observed_generation
    }
    /// `metadata.name`, split. Only the daemon names nodes, so it always has both parts.
    pub fn node_name(&self) -> NodeName {
        NodeName::parse(&self.metadata.name).unwrap_or_else(|| NodeName::new(&self.spec.devnet_ref, &self.metadata.name))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    pub devnet_ref: String,
    pub index: u32,
    /// validator, fullnode, driver, service ...
    pub role: String,
    pub binary_path: String,
    pub binary_hash: String,
    pub home_dir: String,
    pub address: String,
    pub ports: BTreeMap<String, u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    pub restart: RestartRules,
    /// What the user wants of this node.
    pub desired: Desired,
    /// The devnet's controller holds the node down: devnet stopped, resetting or going away.
    pub suspended: bool,
    /// Each request to restart adds one; `status.observedRestart` catches up.
    pub restart_request: u64,
    /// Hex of the consensus public key; none: the node does not sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consensus_key: Option<String>,
    /// The sign-state file, a path below `home_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_state: Option<String>,
    /// The file with the consensus key, a path below `home_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Short names of nodes that must be ready before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Each request to start once in spite of key and sign-state adds one; `status.observedDoubleSign` catches up.
    pub double_sign_request: u64,
    /// Its process is to stand still. A stop, a restart or a reset ends that.
    pub frozen: bool,
    /// The same, because its whole devnet is to.
    pub frozen_with_devnet: bool,
}

/// The condition of a node, or a devnet, whose processes stand still.
pub const FROZEN: &str = "Frozen";

/// Limits in numbers. None anywhere means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// When and how often a node that died is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRules {
    pub policy: RestartPolicy,
    pub backoff_ms: u64,
    pub max_backoff_ms: u64,
    pub max_restarts: u32,
    pub reset_after_ms: u64,
}

impl Default for RestartRules {
    fn default() -> Self {
        Self { policy: RestartPolicy::Always, backoff_ms: 5_000, max_backoff_ms: 300_000, max_restarts: 5, reset_after_ms: 60_000 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub phase: NodePhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_id: Option<LaunchId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Observations, merged in at read: height, peers, catching up, usage. None: nobody knows, or the node follows no chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_count: Option<u32>,
    pub catching_up: bool,
    /// Restarts since the node was created.
    pub restart_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_restart: Option<Timestamp>,
    pub health_checks: Vec<HealthCheck>,
    pub endpoints: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    pub conditions: Conditions,
    pub observed_generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// Restarts since the last stable run: drives the back-off.
    pub recent_restarts: u32,
    pub observed_restart: u64,
    pub observed_double_sign: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_path: Option<String>,
    /// Observed, like the height: what the chain tells of this node in its own words.
    pub details: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthCheck {
    pub name: String,
    pub status: String,
    pub message: String,
    pub at: Timestamp,
}

/// cpu in cores, memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    pub cpu: f64,
    pub memory: u64,
    pub fds: u32,
    /// None where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<MemoryPressure>,
    /// Bytes from disks since it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_written: Option<u64>,
}

/// Percent of the last ten seconds in which some, or all, of its processes waited for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryPressure {
    pub some: f64,
    pub full: f64,
}

/// The death certificate's short form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastExit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    pub class: ExitClass,
    pub message: String,
    pub at: Timestamp,
    pub oom_killed: bool,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    pub log_tail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<OomKill>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<CoreDump>,
}

/// The core that the kernel dumped of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CoreDump {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How to look at it, or why it cannot be found.
    pub hint: String,
}
