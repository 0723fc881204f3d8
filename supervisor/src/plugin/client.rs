//! A chain plugin over gRPC. This and the files below `client/` are all that know the generated types of `plugin.v1`.

mod gov;
mod replies;
mod requests;
mod tx;
mod upgrade;

use super::{
    BlockHeight, ChainPlugin, Classified, DevnetContext, ExportPlan, ExportRequest, Genesis, GenesisRequest, Health, Initialized, JobOutcome,
    LaunchPlan, NodeRequest, PluginError, PluginInfo, Reply,
    process::Process,
    slot::{Lease, Slot},
};
use crate::model::{Exit, PlacedNode, PlannedNode, Violation};
use async_trait::async_trait;
use dvb_proto::plugin::v1::{self as pb, plugin_client::PluginClient};
use futures::{StreamExt, stream::BoxStream};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

/// The largest message in either direction, in bytes; the same in the plugin SDK.
const MAX_MESSAGE: usize = 16 << 20;

pub(super) struct Client {
    slot: Arc<Slot>,
}

impl Client {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self { slot }
    }

    fn bad(&self, call: &str, reason: String) -> PluginError {
        PluginError::BadReply { name: self.slot.name.clone(), call: call.to_owned(), reason }
    }

    /// One call with the usual limit.
    async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        call: &'static str,
        work: impl FnOnce(PluginClient<Channel>) -> F,
    ) -> Result<T, PluginError> {
        self.call_within(call, self.slot.shared.settings.call_limit, work).await.map(|(reply, _)| reply)
    }

    /// A plugin that does not answer within `limit` is hung: it is killed, and its other calls fail with it.
    async fn call_within<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        call: &'static str,
        limit: Duration,
        work: impl FnOnce(PluginClient<Channel>) -> F,
    ) -> Result<(T, Lease), PluginError> {
        let lease = self.slot.lease().await?;
        match timeout(limit, work(client(&lease.running.process))).await {
            Ok(Ok(reply)) => Ok((reply.into_inner(), lease)),
            Ok(Err(status)) => Err(refused(&self.slot.name, call, &lease, status).await),
            Err(_) => {
                let error = PluginError::TimedOut { name: self.slot.name.clone(), call: call.to_owned(), after: limit };
                lease.lost(&error);
                lease.running.process.kill(format!("killed, because it did not answer {call} within {limit:?}"));
                Err(error)
            }
        }
    }
}

fn client(process: &Process) -> PluginClient<Channel> {
    PluginClient::new(process.channel.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

/// What an error status means: the end of the process, a reply that cannot be read, or the plugin's own no.
async fn refused(name: &str, call: &str, lease: &Lease, status: Status) -> PluginError {
    if lease.running.process.is_cut() {
        let error = lease.running.process.failure(call).await;
        lease.lost(&error);
        return error;
    }
    read_status(name, call, status)
}

fn read_status(name: &str, call: &str, status: Status) -> PluginError {
    let message = status.message().to_owned();
    // tonic tells a message that it cannot decode from a plugin's INTERNAL by the text alone.
    if status.code() == Code::Internal && message.starts_with("failed to decode Protobuf message") {
        return PluginError::BadReply { name: name.to_owned(), call: call.to_owned(), reason: message };
    }
    let message = if message.is_empty() { format!("plugin {name} refuses {call} with {:?} and gives no reason", status.code()) } else { message };
    PluginError::Rejected { name: name.to_owned(), code: format!("{:?}", status.code()), message }
}

/// The first call on a new process: who it is, and whether we can speak. `named`: the file's name is the family's.
pub(super) async fn handshake(name: &str, named: bool, process: &Process, limit: Duration) -> Result<PluginInfo, PluginError> {
    let call = "GetInfo";
    let ask = |min, max| {
        let request = pb::GetInfoRequest { api_version_min: min, api_version_max: max, host_version: env!("CARGO_PKG_VERSION").into() };
        let mut client = client(process);
        async move { timeout(limit, client.get_info(request)).await }
    };
    let incompatible = |plugin| PluginError::Incompatible { name: name.to_owned(), host: pb::API_VERSION, plugin };
    match ask(pb::API_VERSION, pb::API_VERSION).await {
        Ok(Ok(info)) => {
            let info = replies::info(info.into_inner(), named.then_some(name)).map_err(|reason| PluginError::BadReply {
                name: name.to_owned(),
                call: call.into(),
                reason,
            })?;
            if info.api_version == pb::API_VERSION { Ok(info) } else { Err(incompatible(info.api_version)) }
        }
        // It refuses our version. Asked by a host that speaks all of them, it tells its own.
        Ok(Err(status)) if status.code() == Code::FailedPrecondition && !process.is_cut() => match ask(0, u32::MAX).await {
            Ok(Ok(info)) => Err(incompatible(info.get_ref().api_version)),
            _ => Err(incompatible(0)),
        },
        Ok(Err(_)) if process.is_cut() => Err(process.failure(call).await),
        Ok(Err(status)) => Err(read_status(name, call, status)),
        Err(_) => {
            process.kill(format!("killed, because it did not answer {call} within {limit:?}"));
            Err(PluginError::TimedOut { name: name.to_owned(), call: call.into(), after: limit })
        }
    }
}

#[async_trait]
impl ChainPlugin for Client {
    async fn info(&self) -> Result<PluginInfo, PluginError> {
        Ok(self.slot.lease().await?.running.info.clone())
    }

    async fn initialize(&self, devnet: &DevnetContext, work_dir: PathBuf, outcomes: &[JobOutcome]) -> Result<Reply<Initialized>, PluginError> {
        let request = pb::InitializeRequest {
            devnet: Some(requests::devnet(devnet)),
            job_results: outcomes.iter().map(requests::outcome).collect(),
            work_dir: requests::path(&work_dir),
        };
        let reply = self.call("Initialize", |mut client| async move { client.initialize(request).await }).await?;
        replies::initialized(reply).map_err(|reason| self.bad("Initialize", reason))
    }

    async fn validate(&self, devnet: &DevnetContext) -> Result<Vec<Violation>, PluginError> {
        let request = pb::ValidateSpecRequest { devnet: Some(requests::devnet(devnet)) };
        let reply = self.call("ValidateSpec", |mut client| async move { client.validate_spec(request).await }).await?;
        replies::violations(reply).map_err(|reason| self.bad("ValidateSpec", reason))
    }

    async fn plan_nodes(&self, devnet: &DevnetContext) -> Result<Vec<PlannedNode>, PluginError> {
        let request = pb::PlanNodesRequest { devnet: Some(requests::devnet(devnet)) };
        let reply = self.call("PlanNodes", |mut client| async move { client.plan_nodes(request).await }).await?;
        replies::nodes(reply).map_err(|reason| self.bad("PlanNodes", reason))
    }

    async fn genesis(&self, request: &GenesisRequest) -> Result<Reply<Genesis>, PluginError> {
        let message = requests::genesis(request);
        let limit = self.slot.shared.settings.genesis_limit;
        let (reply, _) = self.call_within("GenerateGenesis", limit, |mut client| async move { client.generate_genesis(message).await }).await?;
        replies::genesis(reply).map_err(|reason| self.bad("GenerateGenesis", reason))
    }

    async fn launch(&self, request: &NodeRequest) -> Result<LaunchPlan, PluginError> {
        let message = requests::launch(request);
        let reply = self.call("StartNode", |mut client| async move { client.start_node(message).await }).await?;
        replies::launch(reply, request).map_err(|reason| self.bad("StartNode", reason))
    }

    async fn export(&self, request: &ExportRequest) -> Result<ExportPlan, PluginError> {
        let message = requests::export(request);
        let limit = self.slot.shared.settings.genesis_limit; // it may read a large file to its end
        let (reply, _) = self.call_within("Export", limit, |mut client| async move { client.export(message).await }).await?;
        replies::export(reply).map_err(|reason| self.bad("Export", reason))
    }

    async fn probe(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<Health, PluginError> {
        let request = requests::node_ref(devnet, node);
        let reply = self.call("GetNodeStatus", |mut client| async move { client.get_node_status(request).await }).await?;
        replies::health(reply).map_err(|reason| self.bad("GetNodeStatus", reason))
    }

    async fn heights(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<BoxStream<'static, Result<BlockHeight, PluginError>>, PluginError> {
        let call = "StreamBlockHeights";
        let request = requests::node_ref(devnet, node);
        let limit = self.slot.shared.settings.call_limit;
        let (stream, lease) = self.call_within(call, limit, |mut client| async move { client.stream_block_heights(request).await }).await?;
        let name = self.slot.name.clone();
        // The lease goes with the stream: a plugin that announces heights is in use. An error is the last item.
        let items = futures::stream::unfold(Some((stream, lease)), move |state| {
            let name = name.clone();
            async move {
                let (mut stream, lease) = state?;
                match stream.next().await? {
                    Ok(height) => Some((Ok(replies::height(height)), Some((stream, lease)))),
                    Err(status) => Some((Err(refused(&name, call, &lease, status).await), None)),
                }
            }
        });
        Ok(items.boxed())
    }

    async fn classify(
        &self,
        devnet: &DevnetContext,
        node: &PlacedNode,
        exit: Option<&Exit>,
        log_tail: &[Vec<u8>],
    ) -> Result<Classified, PluginError> {
        let call = "ClassifyExit";
        let request = requests::exit(devnet, node, exit, log_tail);
        let lease = self.slot.lease().await?;
        let limit = self.slot.shared.settings.classify_limit;
        // Late is not hung: the answer is given up, the plugin lives on.
        match timeout(limit, client(&lease.running.process).classify_exit(request)).await {
            Ok(Ok(reply)) => replies::classified(reply.into_inner()).map_err(|reason| self.bad(call, reason)),
            Ok(Err(status)) => Err(refused(&self.slot.name, call, &lease, status).await),
            Err(_) => Err(PluginError::TimedOut { name: self.slot.name.clone(), call: call.into(), after: limit }),
        }
    }
}
