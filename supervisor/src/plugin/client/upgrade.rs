//! The calls about upgrades.

use super::{Client, replies, requests};
use crate::{
    model::PlacedNode,
    plugin::{
        BlockHeight, DevnetContext, JobOutcome, PluginError, Reply,
        upgrade::{Handler, Schedule, UpgradePlan, UpgradePlugin, UpgradeState},
    },
};
use async_trait::async_trait;
use dvb_proto::plugin::v1 as pb;
use std::path::PathBuf;

#[async_trait]
impl UpgradePlugin for Client {
    async fn plan_upgrade(
        &self,
        devnet: &DevnetContext,
        name: &str,
        height: u64,
        work_dir: PathBuf,
        outcomes: &[JobOutcome],
    ) -> Result<Reply<UpgradePlan>, PluginError> {
        let call = "PlanUpgrade";
        let request = pb::PlanUpgradeRequest {
            devnet: Some(requests::devnet(devnet)),
            name: name.to_owned(),
            height,
            job_results: outcomes.iter().map(requests::outcome).collect(),
            work_dir: requests::path(&work_dir),
        };
        let limit = self.slot.shared.settings.genesis_limit; // it may read a large binary to its end
        let (reply, _) = self.call_within(call, limit, |mut client| async move { client.plan_upgrade(request).await }).await?;
        if !reply.jobs.is_empty() {
            return replies::jobs(reply.jobs).map(Reply::Jobs).map_err(|reason| self.bad(call, reason));
        }
        let handler = match reply.handler.as_str() {
            "declared" => Handler::Declared,
            "missing" => Handler::Missing,
            "unknown" | "" => Handler::Unknown,
            other => return Err(self.bad(call, format!("`{other}` is neither declared, missing nor unknown"))),
        };
        let pb::PlanUpgradeResponse { handler_message, messages, skip_args, .. } = reply;
        Ok(Reply::Done(UpgradePlan { handler, handler_message, messages, skip_args }))
    }

    async fn schedule_upgrade(&self, devnet: &DevnetContext, node: &PlacedNode, name: &str, order: Schedule) -> Result<(), PluginError> {
        let (height, late) = match order {
            Schedule::HaltAt(height) => (height, false),
            Schedule::LateHaltAt(height) => (height, true),
            Schedule::Never => (0, false),
        };
        let request = pb::ScheduleUpgradeRequest {
            devnet: Some(requests::devnet(devnet)),
            node: Some(requests::placed(node)),
            name: name.to_owned(),
            height,
            late,
        };
        self.call("ScheduleUpgrade", |mut client| async move { client.schedule_upgrade(request).await }).await.map(drop)
    }

    async fn upgrade_state(&self, devnet: &DevnetContext, node: &PlacedNode) -> Result<UpgradeState, PluginError> {
        let request = requests::node_ref(devnet, node);
        let pb::UpgradeState { halted, name, height, evidence } =
            self.call("GetUpgradeState", |mut client| async move { client.get_upgrade_state(request).await }).await?;
        Ok(UpgradeState { halted, name, height, evidence })
    }

    async fn block(&self, devnet: &DevnetContext, node: &PlacedNode, height: u64) -> Result<Option<BlockHeight>, PluginError> {
        let request = pb::GetBlockRequest { devnet: Some(requests::devnet(devnet)), node: Some(requests::placed(node)), height };
        match self.call("GetBlock", |mut client| async move { client.get_block(request).await }).await {
            Ok(block) => Ok(Some(replies::height(block))),
            Err(PluginError::Rejected { code, .. }) if code == "FailedPrecondition" => Ok(None),
            Err(error) => Err(error),
        }
    }
}
