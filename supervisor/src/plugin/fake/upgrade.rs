//! Upgrades of the fake family: halts and blocks as a test sets them.

use super::FakePlugin;
use crate::{
    model::PlacedNode,
    plugin::{
        BlockHeight, DevnetContext, JobOutcome, PluginError, Reply,
        upgrade::{Handler, Schedule, UpgradePlan, UpgradePlugin, UpgradeState},
    },
};
use async_trait::async_trait;
use std::path::PathBuf;

#[async_trait]
impl UpgradePlugin for FakePlugin {
    async fn plan_upgrade(
        &self,
        _devnet: &DevnetContext,
        _name: &str,
        height: u64,
        _work_dir: PathBuf,
        _outcomes: &[JobOutcome],
    ) -> Result<Reply<UpgradePlan>, PluginError> {
        self.begin("plan_upgrade", "").await?;
        let skip_args = vec!["--skip".into(), height.to_string()];
        Ok(Reply::Done(UpgradePlan { handler: Handler::Declared, skip_args, ..UpgradePlan::default() }))
    }

    async fn schedule_upgrade(&self, _devnet: &DevnetContext, node: &PlacedNode, _name: &str, _order: Schedule) -> Result<(), PluginError> {
        self.begin("schedule_upgrade", &node.name).await
    }

    async fn upgrade_state(&self, _devnet: &DevnetContext, node: &PlacedNode) -> Result<UpgradeState, PluginError> {
        self.begin("upgrade_state", &node.name).await?;
        Ok(UpgradeState::default())
    }

    async fn block(&self, _devnet: &DevnetContext, node: &PlacedNode, height: u64) -> Result<Option<BlockHeight>, PluginError> {
        self.begin("block", &node.name).await?;
        let reached = self.state().health.get(&node.name).map_or(0, |health| health.height);
        Ok((reached >= height).then(|| BlockHeight { height, hash: format!("{height:064x}"), app_hash: format!("{height:064x}") }))
    }
}
