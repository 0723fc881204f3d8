//! Upgrades in the daemon's own types: what a plugin is asked for, and what it answers.

use super::{BlockHeight, DevnetContext, JobOutcome, PluginError, Reply};
use crate::model::PlacedNode;
use async_trait::async_trait;
use std::path::PathBuf;

/// A plugin that has it answers the calls of [`UpgradePlugin`].
pub const UPGRADE_CAPABILITY: &str = "upgrade";

/// Whether a binary has a handler of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handler {
    Declared,
    Missing,
    #[default]
    Unknown,
}

impl Handler {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// What a node is told of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    HaltAt(u64),
    /// Others have halted there already.
    LateHaltAt(u64),
    /// There is to be none of this name.
    Never,
}

/// What an upgrade takes on this chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpgradePlan {
    pub handler: Handler,
    /// How that is known.
    pub handler_message: String,
    /// JSON, an array for a proposal. Empty: nodes are told one by one.
    pub messages: String,
    /// With these the old binary goes on past the height. Empty: it cannot.
    pub skip_args: Vec<String>,
}

/// Whether a node has halted for an upgrade.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpgradeState {
    pub halted: bool,
    /// Of the upgrade that it halted for, or is to halt for.
    pub name: String,
    pub height: u64,
    /// One line for people.
    pub evidence: String,
}

/// The upgrades of a chain family. The upgrade controller is the only caller; `plugin.proto` tells what each call promises.
#[async_trait]
pub trait UpgradePlugin: Send + Sync + 'static {
    /// `devnet` names the new binary as its own.
    async fn plan_upgrade(
        &self,
        devnet: &DevnetContext,
        name: &str,
        height: u64,
        work_dir: PathBuf,
        outcomes: &[JobOutcome],
    ) -> Result<Reply<UpgradePlan>, PluginError>;
    async fn schedule_upgrade(&self, devnet: &DevnetContext, node: &PlacedNode, name: &str, order: Schedule) -> Result<(), PluginError>;
    async fn upgrade_state(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<UpgradeState, PluginError>;
    /// None while the node has not applied it.
    async fn block(&self, devnet: &DevnetContext, node: &PlacedNode, height: u64) -> Result<Option<BlockHeight>, PluginError>;
}
