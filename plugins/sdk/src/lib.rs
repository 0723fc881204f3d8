//! Makes a devnetd plugin a single trait plus `serve()`.
//!
//! Implement [`Plugin`], return [`run`] from `main`. The messages are those of `plugin/v1/plugin.proto`, where every field is
//! explained. A plugin owns no process: what must run it names as jobs and launch plans. stdout belongs to the protocol; log with
//! `tracing`, which goes to stderr.

pub mod conformance;
mod derive;
mod serve;
mod service;
mod staging;
mod stdio;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use derive::{Derivation, derive};
pub use dvb_proto::{plugin::v1 as pb, words::plain};
/// RFC 7396: `merge(&mut document, &patch)`; null removes a member.
pub use json_patch::merge;
pub use serve::{ServeError, run, serve};
pub use staging::{StagingError, sha256_file, sha256_hex, write_staged};

/// Why a plugin refuses a call; each becomes the gRPC code of its name.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PluginFault {
    /// What the user can mend; the message says how.
    #[error("{0}")]
    InvalidArgument(String),
    /// The chain is in the wrong state for this.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The node does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// This family has no such thing.
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Internal(String),
}

pub type Result<T> = std::result::Result<T, PluginFault>;
pub type HeightStream = BoxStream<'static, Result<pb::BlockHeight>>;

/// One chain family. Every method is a pure function of its request and of the files named in it.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    async fn get_info(&self, request: pb::GetInfoRequest) -> Result<pb::PluginInfo>;
    async fn get_supported_sdk_versions(&self, _request: pb::GetSupportedSdkVersionsRequest) -> Result<pb::SdkVersionRange> {
        Ok(pb::SdkVersionRange::default())
    }
    /// Default: there is nothing to read from the binary.
    async fn initialize(&self, _request: pb::InitializeRequest) -> Result<pb::InitializeResponse> {
        Ok(pb::InitializeResponse::default())
    }
    /// Default: everything is valid.
    async fn validate_spec(&self, _request: pb::ValidateSpecRequest) -> Result<pb::ValidateSpecResponse> {
        Ok(pb::ValidateSpecResponse::default())
    }
    async fn plan_nodes(&self, request: pb::PlanNodesRequest) -> Result<pb::PlanNodesResponse>;
    async fn generate_genesis(&self, request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse>;
    async fn start_node(&self, request: pb::StartNodeRequest) -> Result<pb::LaunchPlan>;
    /// Default: SIGTERM, ten seconds.
    async fn stop_node(&self, _request: pb::StopNodeRequest) -> Result<pb::StopPlan> {
        Ok(pb::StopPlan { signal: "SIGTERM".into(), grace_ms: 10_000 })
    }
    async fn get_node_status(&self, request: pb::NodeRef) -> Result<pb::NodeStatus>;
    async fn get_block_height(&self, request: pb::NodeRef) -> Result<pb::BlockHeight>;
    async fn stream_block_heights(&self, request: pb::NodeRef) -> Result<HeightStream>;
    /// Default: unknown.
    async fn classify_exit(&self, _request: pb::ClassifyExitRequest) -> Result<pb::ExitClass> {
        Ok(pb::ExitClass { class: "unknown".into(), ..pb::ExitClass::default() })
    }
    /// Default: none. A plugin with the capability `tx` implements this and the five calls below.
    async fn get_supported_tx_types(&self, _request: pb::GetSupportedTxTypesRequest) -> Result<pb::SupportedTxTypes> {
        Ok(pb::SupportedTxTypes::default())
    }
    async fn get_account(&self, _request: pb::GetAccountRequest) -> Result<pb::TxAccount> {
        no_transactions()
    }
    async fn build_tx(&self, _request: pb::BuildTxRequest) -> Result<pb::BuildTxResponse> {
        no_transactions()
    }
    async fn sign_tx(&self, _request: pb::SignTxRequest) -> Result<pb::SignTxResponse> {
        no_transactions()
    }
    async fn broadcast_tx(&self, _request: pb::BroadcastTxRequest) -> Result<pb::BroadcastTxResponse> {
        no_transactions()
    }
    async fn get_tx(&self, _request: pb::GetTxRequest) -> Result<pb::GetTxResponse> {
        no_transactions()
    }
    /// Default: none. A plugin with the capability `upgrade` implements this and the three calls below.
    async fn plan_upgrade(&self, _request: pb::PlanUpgradeRequest) -> Result<pb::PlanUpgradeResponse> {
        no_upgrades()
    }
    /// Default: the chain's governance tells the nodes.
    async fn schedule_upgrade(&self, _request: pb::ScheduleUpgradeRequest) -> Result<pb::ScheduleUpgradeResponse> {
        no_upgrades()
    }
    async fn get_upgrade_state(&self, _request: pb::NodeRef) -> Result<pb::UpgradeState> {
        no_upgrades()
    }
    async fn get_block(&self, _request: pb::GetBlockRequest) -> Result<pb::BlockHeight> {
        no_upgrades()
    }
    /// Default: there is no governance. A plugin with the capability `gov` implements this and the next call.
    async fn list_proposals(&self, _request: pb::ListProposalsRequest) -> Result<pb::ListProposalsResponse> {
        no_governance()
    }
    async fn draft_param_change(&self, _request: pb::DraftParamChangeRequest) -> Result<pb::DraftParamChangeResponse> {
        no_governance()
    }
    async fn export(&self, _request: pb::ExportRequest) -> Result<pb::ExportPlan> {
        Err(PluginFault::Unimplemented("this plugin exports no state".into()))
    }
    async fn close(&self) {}
}

fn no_upgrades<T>() -> Result<T> {
    Err(PluginFault::Unimplemented("this plugin upgrades no chains".into()))
}

fn no_governance<T>() -> Result<T> {
    Err(PluginFault::Unimplemented("this family has no governance".into()))
}

fn no_transactions<T>() -> Result<T> {
    Err(PluginFault::Unimplemented("this plugin makes no transactions".into()))
}
