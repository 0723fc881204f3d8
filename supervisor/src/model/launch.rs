//! Launches: one run of a node each. The row is committed before the fork (Intended), after it (Running) and at the end (Ended).

use super::{LastExit, LaunchId, Meta, RawJson, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchPhase {
    #[default]
    Intended,
    Running,
    Ended,
}

/// `metadata.name` is `<node>@<launch id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    pub metadata: Meta,
    /// Shared by all versions of the row: the environment is most of it.
    pub spec: Arc<LaunchRecord>,
    #[serde(default)]
    pub status: LaunchStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaunchRecord {
    /// Full node name.
    pub node_ref: String,
    pub launch_id: LaunchId,
    pub generation: u64,
    pub argv: Vec<String>,
    pub binary_hash: String,
    pub log_path: String,
    /// How to stop it: signal name and grace.
    pub stop_signal: String,
    pub grace_ms: u64,
    pub readiness: Readiness,
    /// A core file lies there, if anywhere.
    pub cwd: String,
    /// How many restarts the nodes of its devnet had in the last minute, this one included, by the second of Unix time: the next daemon
    /// counts on from there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<(i64, u32)>,
}

/// When a launched node counts as ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// The plugin's node status says so.
    Plugin,
    /// The port of this name accepts.
    Tcp(String),
    Http {
        port: String,
        path: String,
    },
    /// A log line holds this text.
    LogText(String),
    /// It exists, and has for a second.
    #[default]
    Process,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaunchStatus {
    pub phase: LaunchPhase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<LastExit>,
    /// The runtime's opaque handle; not part of the client API. It goes when the runtime has let go of the launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<RawJson>,
}

/// How a process ended, as the runtime saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// Exit code of a process that exited by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Number of the signal that killed it. Neither code nor signal: the status could not be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub at: Timestamp,
    pub oom_killed: bool,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Cpu time of all its processes, in milliseconds; without a cgroup of the main process and of those that it has waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// Whose memory ran out, where it was killed for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<OomKill>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub core_dumped: bool,
    /// We sent the stop signal or the kill.
    pub requested: bool,
    /// It had ended before anybody of us looked: `at` is when it was found.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// It ran before the machine was booted: it ended with the machine, of nothing of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rebooted: bool,
}

/// Which limit the kernel killed for, as far as its counters tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OomKill {
    pub limit_of: LimitOf,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most that was ever used below that limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitOf {
    Node,
    /// Of all nodes of the devnet together.
    Devnet,
    /// No limit of ours: the machine, or something around the daemon, had no more.
    #[default]
    Machine,
}

/// Why a node died; decides whether it is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitClass {
    Oom,
    PortBusy,
    DbLocked,
    AppHash,
    /// A block could not be applied: the process may live on, its chain does not.
    ConsensusFailure,
    UpgradeNeeded,
    BadFlag,
    /// The program is missing or cannot be executed here.
    NoProgram,
    /// The machine had no process, descriptor or room on a disk left to start it with: no fault of the node's.
    NoResources,
    GenesisMismatch,
    KeyRefused,
    Panic,
    KilledByUser,
    #[default]
    Unknown,
}

impl ExitClass {
    /// A restart cannot heal these.
    pub fn is_final(self) -> bool {
        matches!(self, Self::AppHash | Self::UpgradeNeeded | Self::BadFlag | Self::NoProgram | Self::GenesisMismatch | Self::KeyRefused)
    }
}
