//! The plugin `commonware`: devnets of the embedded devchain.
//!
//! Homes are written in Rust, without a job: `genesis`. A launch plan is `devchain run --home HOME` with the node's `config.toml`
//! beside it, made anew for each start: `launch`. Health and heights come over the node's own JSON-RPC: `health`.

mod exits;
mod export;
mod genesis;
mod health;
mod launch;
mod nodes;
mod tx;
mod upgrade;

use std::path::PathBuf;

use async_trait::async_trait;
use dvb_plugin_sdk::{HeightStream, Plugin, PluginFault, Result, pb};

/// Port numbers of each node, outside the kernel's ephemeral range.
pub const P2P_PORT: u32 = 26100;
pub const RPC_PORT: u32 = 26101;

/// What differs between installations: where the node binary lies.
#[derive(Clone, Debug, Default)]
pub struct Commonware {
    /// Where `devchain` should be: beside the plugin. None when the plugin does not know where it lies itself.
    pub devchain: Option<PathBuf>,
}

impl Commonware {
    /// `devchain` beside this executable.
    pub fn new() -> Self {
        Self { devchain: std::env::current_exe().and_then(|exe| exe.canonicalize()).ok().map(|exe| exe.with_file_name("devchain")) }
    }

    /// The node's binary: its own, the devnet's, or ours.
    fn binary(&self, devnet: &pb::DevnetContext, node: &str) -> Result<String> {
        let own = devnet.overrides.get(node).map(|overrides| overrides.binary_path.as_str()).filter(|path| !path.is_empty());
        let chosen = own.or(Some(devnet.binary_path.as_str()).filter(|path| !path.is_empty())).map(str::to_owned);
        chosen.or_else(|| self.devchain.as_ref().map(|path| path.to_string_lossy().into_owned())).ok_or_else(|| {
            PluginFault::InvalidArgument("there is no devchain beside the plugin and spec.binary names none; set spec.binary: {path: ...}".into())
        })
    }
}

#[async_trait]
impl Plugin for Commonware {
    async fn get_info(&self, _request: pb::GetInfoRequest) -> Result<pb::PluginInfo> {
        Ok(pb::PluginInfo {
            name: "commonware".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: pb::API_VERSION,
            description: "the embedded devchain: BFT simplex on Commonware's crates, accounts and transfers".into(),
            default_binary: self.devchain.as_ref().map(|path| path.to_string_lossy().into_owned()),
            default_validators: Some(4),
            needs_binary: self.devchain.is_none(),
            capabilities: vec!["tx".into(), "upgrade".into(), "export".into(), "export-newest".into(), "fork".into()],
            ..pb::PluginInfo::default()
        })
    }

    async fn initialize(&self, request: pb::InitializeRequest) -> Result<pb::InitializeResponse> {
        let devnet = request.devnet.unwrap_or_default();
        nodes::initialize(&self.binary(&devnet, "")?, &request.job_results)
    }

    async fn validate_spec(&self, request: pb::ValidateSpecRequest) -> Result<pb::ValidateSpecResponse> {
        Ok(pb::ValidateSpecResponse { violations: nodes::violations(&request.devnet.unwrap_or_default()) })
    }

    async fn plan_nodes(&self, request: pb::PlanNodesRequest) -> Result<pb::PlanNodesResponse> {
        Ok(pb::PlanNodesResponse { nodes: nodes::plan(&request.devnet.unwrap_or_default())? })
    }

    async fn generate_genesis(&self, request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
        genesis::generate(&request)
    }

    async fn start_node(&self, request: pb::StartNodeRequest) -> Result<pb::LaunchPlan> {
        let devnet = request.devnet.unwrap_or_default();
        let binary = self.binary(&devnet, &request.node)?;
        launch::plan(&devnet, &request.nodes, &request.node, binary)
    }

    async fn get_node_status(&self, request: pb::NodeRef) -> Result<pb::NodeStatus> {
        health::status(&request.node.unwrap_or_default()).await
    }

    async fn get_block_height(&self, request: pb::NodeRef) -> Result<pb::BlockHeight> {
        health::height(&request.node.unwrap_or_default()).await
    }

    async fn stream_block_heights(&self, request: pb::NodeRef) -> Result<HeightStream> {
        health::stream(&request.node.unwrap_or_default()).await
    }

    async fn get_supported_tx_types(&self, _request: pb::GetSupportedTxTypesRequest) -> Result<pb::SupportedTxTypes> {
        Ok(tx::supported())
    }

    async fn get_account(&self, request: pb::GetAccountRequest) -> Result<pb::TxAccount> {
        tx::account(&request).await
    }

    async fn build_tx(&self, request: pb::BuildTxRequest) -> Result<pb::BuildTxResponse> {
        Ok(tx::build(&request))
    }

    async fn sign_tx(&self, request: pb::SignTxRequest) -> Result<pb::SignTxResponse> {
        tx::sign(&request)
    }

    async fn broadcast_tx(&self, request: pb::BroadcastTxRequest) -> Result<pb::BroadcastTxResponse> {
        tx::broadcast(&request).await
    }

    async fn get_tx(&self, request: pb::GetTxRequest) -> Result<pb::GetTxResponse> {
        tx::find(&request).await
    }

    async fn plan_upgrade(&self, request: pb::PlanUpgradeRequest) -> Result<pb::PlanUpgradeResponse> {
        let binary = self.binary(&request.devnet.clone().unwrap_or_default(), "")?;
        upgrade::plan(&request, &binary)
    }

    async fn schedule_upgrade(&self, request: pb::ScheduleUpgradeRequest) -> Result<pb::ScheduleUpgradeResponse> {
        upgrade::schedule(&request).await
    }

    async fn get_upgrade_state(&self, request: pb::NodeRef) -> Result<pb::UpgradeState> {
        upgrade::state(&request.node.unwrap_or_default()).await
    }

    async fn get_block(&self, request: pb::GetBlockRequest) -> Result<pb::BlockHeight> {
        upgrade::block(&request).await
    }

    async fn export(&self, request: pb::ExportRequest) -> Result<pb::ExportPlan> {
        let node = request.node.as_ref().map_or("", |node| node.name.as_str());
        let binary = self.binary(&request.devnet.clone().unwrap_or_default(), node)?;
        export::plan(&request, &binary)
    }

    async fn classify_exit(&self, request: pb::ClassifyExitRequest) -> Result<pb::ExitClass> {
        Ok(exits::classify(&request))
    }
}
