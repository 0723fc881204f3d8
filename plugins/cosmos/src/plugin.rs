//! The plugin itself: each call handed to the module that knows, each error given its code.

use crate::{
    binary::{self, BinaryError, Chain, Probe},
    classify, config, export,
    fork::ForkError,
    gov, heights,
    homes::{self, HomesError},
    launch::{self, LaunchError},
    network::{self, ProfileError},
    plan,
    rpc::RpcError,
    status, tx, upgrade,
};
use async_trait::async_trait;
use dvb_plugin_sdk::{HeightStream, Plugin, PluginFault, Result, pb};

/// Any Cosmos SDK chain, by its stock binary.
pub struct Cosmos;

#[async_trait]
impl Plugin for Cosmos {
    async fn get_info(&self, _request: pb::GetInfoRequest) -> Result<pb::PluginInfo> {
        Ok(pb::PluginInfo {
            name: "cosmos".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: pb::API_VERSION,
            description: "Cosmos SDK chains by their stock binary".into(),
            default_validators: Some(4),
            needs_binary: true,
            capabilities: vec!["late-fullnodes".into(), "tx".into(), "gov".into(), "upgrade".into(), "export".into(), "fork".into()],
            networks: network::names(&network::folders()),
            ..pb::PluginInfo::default()
        })
    }

    async fn get_supported_sdk_versions(&self, _request: pb::GetSupportedSdkVersionsRequest) -> Result<pb::SdkVersionRange> {
        let tested = ["v0.47.5", "v0.50.11", "v0.53.0"].map(str::to_owned).to_vec();
        Ok(pb::SdkVersionRange { min: format!("v{}", binary::OLDEST), max: format!("v{}", binary::NEWEST), tested })
    }

    async fn initialize(&self, request: pb::InitializeRequest) -> Result<pb::InitializeResponse> {
        let devnet = request.devnet.unwrap_or_default();
        if devnet.binary_path.is_empty() {
            return Err(PluginFault::InvalidArgument("spec.binary is missing: which chain is it to be?".into()));
        }
        match binary::probe(&devnet.binary_path, &request.work_dir, &request.job_results)? {
            Probe::Jobs(jobs) => Ok(pb::InitializeResponse { jobs, ..pb::InitializeResponse::default() }),
            Probe::Known(chain) => Ok(pb::InitializeResponse {
                state: chain.to_state(),
                lacks: chain.lacks(),
                sdk_version: chain.sdk_version,
                binary_version: chain.binary_version,
                ..pb::InitializeResponse::default()
            }),
        }
    }

    async fn validate_spec(&self, request: pb::ValidateSpecRequest) -> Result<pb::ValidateSpecResponse> {
        Ok(pb::ValidateSpecResponse { violations: violations(&request.devnet.unwrap_or_default()) })
    }

    async fn plan_nodes(&self, request: pb::PlanNodesRequest) -> Result<pb::PlanNodesResponse> {
        let devnet = request.devnet.unwrap_or_default();
        refuse_violations(&devnet)?;
        let chain = if devnet.initialized.is_empty() { None } else { Some(Chain::from_state(&devnet.initialized)?) };
        Ok(pb::PlanNodesResponse { nodes: plan::nodes(&devnet, chain.as_ref()) })
    }

    async fn generate_genesis(&self, request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
        let devnet = request.devnet.as_ref().ok_or_else(|| PluginFault::InvalidArgument("the devnet is missing".into()))?;
        refuse_violations(devnet)?;
        let chain = Chain::from_state(&devnet.initialized)?;
        let profile = network::load(&devnet.network, &network::folders())?;
        let made = blocking(move || homes::generate(&request, &chain, profile)).await?;
        Ok(made?)
    }

    async fn start_node(&self, request: pb::StartNodeRequest) -> Result<pb::LaunchPlan> {
        Ok(blocking(move || launch::plan(&request)).await??)
    }

    async fn stop_node(&self, _request: pb::StopNodeRequest) -> Result<pb::StopPlan> {
        Ok(launch::stop())
    }

    async fn get_node_status(&self, request: pb::NodeRef) -> Result<pb::NodeStatus> {
        let node = placed(&request)?;
        let devnet = request.devnet.clone().unwrap_or_default();
        let id = homes::node_ids(&devnet, std::slice::from_ref(node)).concat();
        let chain = Chain::from_state(&devnet.initialized).ok();
        let signer = chain.and_then(|chain| homes::consensus_address(&devnet, node, &chain));
        Ok(status::of(&request, &rpc_address(node)?, &id, signer.as_deref()).await?)
    }

    async fn get_block_height(&self, request: pb::NodeRef) -> Result<pb::BlockHeight> {
        Ok(status::height(&rpc_address(placed(&request)?)?).await?)
    }

    async fn stream_block_heights(&self, request: pb::NodeRef) -> Result<HeightStream> {
        heights::stream(&rpc_address(placed(&request)?)?).await
    }

    async fn get_supported_tx_types(&self, request: pb::GetSupportedTxTypesRequest) -> Result<pb::SupportedTxTypes> {
        Ok(tx::supported(&request))
    }

    async fn get_account(&self, request: pb::GetAccountRequest) -> Result<pb::TxAccount> {
        tx::account(&request).await
    }

    async fn build_tx(&self, request: pb::BuildTxRequest) -> Result<pb::BuildTxResponse> {
        tx::build(&request).await
    }

    async fn sign_tx(&self, request: pb::SignTxRequest) -> Result<pb::SignTxResponse> {
        blocking(move || tx::sign(&request)).await?
    }

    async fn broadcast_tx(&self, request: pb::BroadcastTxRequest) -> Result<pb::BroadcastTxResponse> {
        tx::broadcast(&request).await
    }

    async fn get_tx(&self, request: pb::GetTxRequest) -> Result<pb::GetTxResponse> {
        tx::find(&request).await
    }

    async fn plan_upgrade(&self, request: pb::PlanUpgradeRequest) -> Result<pb::PlanUpgradeResponse> {
        blocking(move || upgrade::plan(&request)).await?
    }

    async fn get_upgrade_state(&self, request: pb::NodeRef) -> Result<pb::UpgradeState> {
        let node = placed(&request)?;
        Ok(upgrade::state(&node.home_dir, &rpc_address(node)?).await)
    }

    async fn get_block(&self, request: pb::GetBlockRequest) -> Result<pb::BlockHeight> {
        let node = request.node.as_ref().ok_or_else(|| PluginFault::InvalidArgument("the node is missing".into()))?;
        upgrade::block(&rpc_address(node)?, request.height).await
    }

    async fn list_proposals(&self, request: pb::ListProposalsRequest) -> Result<pb::ListProposalsResponse> {
        gov::list(&request).await
    }

    async fn draft_param_change(&self, request: pb::DraftParamChangeRequest) -> Result<pb::DraftParamChangeResponse> {
        gov::draft(&request).await
    }

    async fn export(&self, request: pb::ExportRequest) -> Result<pb::ExportPlan> {
        blocking(move || export::plan(&request)).await?
    }

    async fn classify_exit(&self, request: pb::ClassifyExitRequest) -> Result<pb::ExitClass> {
        Ok(classify::classify(&request))
    }
}

fn placed(request: &pb::NodeRef) -> Result<&pb::PlacedNode> {
    request.node.as_ref().ok_or_else(|| PluginFault::InvalidArgument("the node is missing".into()))
}

fn rpc_address(node: &pb::PlacedNode) -> Result<String> {
    config::address(node, "rpc").map_err(|e| PluginFault::InvalidArgument(e.to_string()))
}

fn violations(devnet: &pb::DevnetContext) -> Vec<pb::Violation> {
    let mut found = plan::violations(devnet);
    found.extend(network::violation(&devnet.network, &network::folders()));
    found
}

fn refuse_violations(devnet: &pb::DevnetContext) -> Result<()> {
    match violations(devnet).into_iter().next() {
        Some(first) => Err(PluginFault::InvalidArgument(format!("{}: {}", first.field, first.message))),
        None => Ok(()),
    }
}

/// Files and key derivation keep a thread busy for a while; other calls go on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| PluginFault::Internal(format!("the work broke off: {e}")))
}

impl From<BinaryError> for PluginFault {
    fn from(error: BinaryError) -> Self {
        match error {
            BinaryError::State(_) => Self::FailedPrecondition(error.to_string()),
            _ => Self::InvalidArgument(error.to_string()),
        }
    }
}

impl From<ProfileError> for PluginFault {
    fn from(error: ProfileError) -> Self {
        Self::InvalidArgument(error.to_string())
    }
}

impl From<HomesError> for PluginFault {
    fn from(error: HomesError) -> Self {
        match error {
            HomesError::Staging(staging) => staging.into(),
            HomesError::Link { .. } | HomesError::Keys(_) | HomesError::Fork(ForkError::Io { .. }) => Self::Internal(error.to_string()),
            _ => Self::InvalidArgument(error.to_string()),
        }
    }
}

impl From<LaunchError> for PluginFault {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Config(config::ConfigError::Read { .. }) => Self::FailedPrecondition(error.to_string()),
            _ => Self::InvalidArgument(error.to_string()),
        }
    }
}

impl From<RpcError> for PluginFault {
    fn from(error: RpcError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
