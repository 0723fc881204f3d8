//! Governance in the daemon's own types: what a chain has proposed, and drafts of parameter changes.

use super::{DevnetContext, PluginError};
use crate::model::PlacedNode;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// A plugin that has it answers the calls of [`GovPlugin`], and makes transactions of the types below.
pub const GOV_CAPABILITY: &str = "gov";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposals {
    /// By id.
    pub items: Vec<Proposal>,
    pub params: GovParams,
    pub height: u64,
}

/// What the chain asks of proposals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GovParams {
    pub min_deposit: String,
    /// Empty: there are no expedited proposals.
    pub expedited_min_deposit: String,
    pub max_deposit_period_ms: u64,
    pub voting_period_ms: u64,
    pub expedited_voting_period_ms: u64,
    /// The signer that the messages of a proposal name.
    pub authority: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProposalStatus {
    #[default]
    Deposit,
    Voting,
    Passed,
    Rejected,
    /// Passed, and then a message of it failed.
    Failed,
}

impl ProposalStatus {
    /// It stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Passed | Self::Rejected | Self::Failed)
    }
    pub fn word(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Voting => "voting",
            Self::Passed => "passed",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// Times are RFC 3339, and empty where they are not known yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    pub id: u64,
    pub title: String,
    pub summary: String,
    pub metadata: String,
    pub status: ProposalStatus,
    pub proposer: String,
    pub submit_time: String,
    pub deposit_end_time: String,
    pub voting_start_time: String,
    pub voting_end_time: String,
    pub total_deposit: String,
    /// JSON array.
    pub messages: String,
    pub tally: Tally,
    /// As far as the chain still has them.
    pub votes: Vec<Vote>,
    pub expedited: bool,
    pub failed_reason: String,
    pub changes: Vec<ParamChange>,
}

/// Staked tokens, as the chain writes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub yes: String,
    pub no: String,
    pub abstain: String,
    pub no_with_veto: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vote {
    pub voter: String,
    pub option: String,
}

/// `old` and `new` are JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParamChange {
    pub path: String,
    pub old: String,
    pub new: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// JSON array.
    pub messages: String,
    pub changes: Vec<ParamChange>,
}

/// The governance of a chain family; `plugin.proto` tells what each call promises.
#[async_trait]
pub trait GovPlugin: Send + Sync + 'static {
    /// All, or those of these ids that the chain has; the latter with votes and changes.
    async fn proposals(&self, devnet: &DevnetContext, node: &PlacedNode, ids: &[u64]) -> Result<Proposals, PluginError>;
    /// The messages that set these parameters; values are JSON or text.
    async fn draft(&self, devnet: &DevnetContext, node: &PlacedNode, values: BTreeMap<String, String>) -> Result<Draft, PluginError>;
}
