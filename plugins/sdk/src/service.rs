//! The gRPC face of a [`Plugin`]: faults become codes, and a panic costs one call, not the process.

use crate::{HeightStream, Plugin, PluginFault, pb};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tonic::{Request, Response, Status, async_trait};

pub(crate) struct Service<P>(Arc<Inner<P>>);

struct Inner<P> {
    plugin: P,
    closed: AtomicBool,
}

impl<P: Plugin> Service<P> {
    pub(crate) fn new(plugin: P) -> Self {
        Self(Arc::new(Inner { plugin, closed: AtomicBool::new(false) }))
    }
    /// Calls the plugin's `close`, the first time.
    pub(crate) async fn close(&self) {
        if !self.0.closed.swap(true, Ordering::SeqCst) {
            self.0.plugin.close().await;
        }
    }
}

impl<P> Clone for Service<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl From<PluginFault> for Status {
    fn from(fault: PluginFault) -> Self {
        match fault {
            PluginFault::InvalidArgument(message) => Self::invalid_argument(message),
            PluginFault::FailedPrecondition(message) => Self::failed_precondition(message),
            PluginFault::Unavailable(message) => Self::unavailable(message),
            PluginFault::Unimplemented(message) => Self::unimplemented(message),
            PluginFault::Internal(message) => Self::internal(message),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Awaits a plugin's answer; a panic in it is an INTERNAL error that says what it was.
async fn guarded<T>(call: &'static str, work: impl Future<Output = crate::Result<T>>) -> Answer<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(value)) => Ok(Response::new(value)),
        Ok(Err(fault)) => Err(fault.into()),
        Err(panic) => Err(Status::internal(format!("the plugin panicked in {call}: {}", panic_text(panic.as_ref())))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A method that passes its request on.
macro_rules! forward {
    ($($method:ident($request:ident) -> $reply:ident;)*) => {
        #[async_trait]
        impl<P: Plugin> pb::plugin_server::Plugin for Service<P> {
            $(async fn $method(&self, request: Request<pb::$request>) -> Answer<pb::$reply> {
                guarded(stringify!($method), self.0.plugin.$method(request.into_inner())).await
            })*

            /// The version that this SDK speaks is filled in. A host outside of it gets it all the same, and refuses by its own rule.
            async fn get_info(&self, request: Request<pb::GetInfoRequest>) -> Answer<pb::PluginInfo> {
                let mut answer = guarded("get_info", self.0.plugin.get_info(request.into_inner())).await?;
                if answer.get_ref().api_version == 0 {
                    answer.get_mut().api_version = pb::API_VERSION;
                }
                Ok(answer)
            }

            type StreamBlockHeightsStream = BoxStream<'static, Result<pb::BlockHeight, Status>>;

            async fn stream_block_heights(&self, request: Request<pb::NodeRef>) -> Answer<Self::StreamBlockHeightsStream> {
                let answer = guarded("stream_block_heights", self.0.plugin.stream_block_heights(request.into_inner())).await?;
                let heights: HeightStream = answer.into_inner();
                Ok(Response::new(heights.map(|item| item.map_err(Status::from)).boxed()))
            }

            async fn close(&self, _request: Request<pb::CloseRequest>) -> Answer<pb::CloseResponse> {
                guarded("close", async { Service::close(self).await; Ok(pb::CloseResponse {}) }).await
            }
        }
    };
}

forward! {
    get_supported_sdk_versions(GetSupportedSdkVersionsRequest) -> SdkVersionRange;
    initialize(InitializeRequest) -> InitializeResponse;
    validate_spec(ValidateSpecRequest) -> ValidateSpecResponse;
    plan_nodes(PlanNodesRequest) -> PlanNodesResponse;
    generate_genesis(GenerateGenesisRequest) -> GenerateGenesisResponse;
    start_node(StartNodeRequest) -> LaunchPlan;
    stop_node(StopNodeRequest) -> StopPlan;
    get_node_status(NodeRef) -> NodeStatus;
    get_block_height(NodeRef) -> BlockHeight;
    classify_exit(ClassifyExitRequest) -> ExitClass;
    get_supported_tx_types(GetSupportedTxTypesRequest) -> SupportedTxTypes;
    get_account(GetAccountRequest) -> TxAccount;
    build_tx(BuildTxRequest) -> BuildTxResponse;
    sign_tx(SignTxRequest) -> SignTxResponse;
    broadcast_tx(BroadcastTxRequest) -> BroadcastTxResponse;
    get_tx(GetTxRequest) -> GetTxResponse;
    plan_upgrade(PlanUpgradeRequest) -> PlanUpgradeResponse;
    schedule_upgrade(ScheduleUpgradeRequest) -> ScheduleUpgradeResponse;
    get_upgrade_state(NodeRef) -> UpgradeState;
    get_block(GetBlockRequest) -> BlockHeight;
    list_proposals(ListProposalsRequest) -> ListProposalsResponse;
    draft_param_change(DraftParamChangeRequest) -> DraftParamChangeResponse;
    export(ExportRequest) -> ExportPlan;
}
