//! Proposals as a test puts them.

use super::FakePlugin;
use crate::{
    model::PlacedNode,
    plugin::{
        DevnetContext, PluginError,
        gov::{Draft, GovParams, GovPlugin, ParamChange, Proposal, ProposalStatus, Proposals, Tally},
    },
};
use async_trait::async_trait;
use std::collections::BTreeMap;

impl FakePlugin {
    /// What the chain tells from now on of a proposal of this id.
    pub fn put_proposal(&self, id: u64, status: ProposalStatus) {
        let title = format!("proposal {id}");
        let proposal = Proposal { id, title, status, messages: "[]".into(), tally: Tally::default(), ..Proposal::default() };
        self.state().proposals.insert(id, proposal);
    }
    /// As chains do with one that did not get its deposit in time.
    pub fn drop_proposal(&self, id: u64) {
        self.state().proposals.remove(&id);
    }
}

#[async_trait]
impl GovPlugin for FakePlugin {
    async fn proposals(&self, _devnet: &DevnetContext, node: &PlacedNode, ids: &[u64]) -> Result<Proposals, PluginError> {
        self.begin("proposals", &node.name).await?;
        let state = self.state();
        let wanted = |id: &u64| ids.is_empty() || ids.contains(id);
        let items = state.proposals.iter().filter(|(id, _)| wanted(id)).map(|(_, proposal)| proposal.clone()).collect();
        Ok(Proposals { items, params: GovParams { min_deposit: "10fake".into(), ..GovParams::default() }, height: state.chain.height() })
    }

    async fn draft(&self, _devnet: &DevnetContext, node: &PlacedNode, values: BTreeMap<String, String>) -> Result<Draft, PluginError> {
        self.begin("draft", &node.name).await?;
        let changes = values.into_iter().map(|(path, new)| ParamChange { path, old: "0".into(), new });
        Ok(Draft { messages: r#"[{"@type":"/fake.MsgUpdateParams"}]"#.into(), changes: changes.collect() })
    }
}
