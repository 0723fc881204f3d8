//! The calls about governance.

use super::{Client, requests};
use crate::{
    model::PlacedNode,
    plugin::{
        DevnetContext, PluginError,
        gov::{Draft, GovParams, GovPlugin, ParamChange, Proposal, ProposalStatus, Proposals, Tally, Vote},
    },
};
use async_trait::async_trait;
use dvb_proto::plugin::v1 as pb;
use std::collections::BTreeMap;

#[async_trait]
impl GovPlugin for Client {
    async fn proposals(&self, devnet: &DevnetContext, node: &PlacedNode, ids: &[u64]) -> Result<Proposals, PluginError> {
        let call = "ListProposals";
        let request = pb::ListProposalsRequest { devnet: Some(requests::devnet(devnet)), node: Some(requests::placed(node)), ids: ids.to_vec() };
        let reply = self.call(call, |mut client| async move { client.list_proposals(request).await }).await?;
        let items: Result<Vec<Proposal>, String> = reply.proposals.into_iter().map(proposal).collect();
        Ok(Proposals {
            items: items.map_err(|reason| self.bad(call, reason))?,
            params: params(reply.params.unwrap_or_default()),
            height: reply.height,
        })
    }

    async fn draft(&self, devnet: &DevnetContext, node: &PlacedNode, values: BTreeMap<String, String>) -> Result<Draft, PluginError> {
        let call = "DraftParamChange";
        let request = pb::DraftParamChangeRequest { devnet: Some(requests::devnet(devnet)), node: Some(requests::placed(node)), values };
        let reply = self.call(call, |mut client| async move { client.draft_param_change(request).await }).await?;
        let read = || Ok(Draft { messages: json(reply.messages)?, changes: changes(reply.changes)? });
        read().map_err(|reason| self.bad(call, reason))
    }
}

fn params(params: pb::GovParams) -> GovParams {
    let pb::GovParams { min_deposit, expedited_min_deposit, max_deposit_period_ms, voting_period_ms, expedited_voting_period_ms, authority } = params;
    GovParams { min_deposit, expedited_min_deposit, max_deposit_period_ms, voting_period_ms, expedited_voting_period_ms, authority }
}

fn proposal(proposal: pb::Proposal) -> Result<Proposal, String> {
    let status = match proposal.status.as_str() {
        "deposit" => ProposalStatus::Deposit,
        "voting" => ProposalStatus::Voting,
        "passed" => ProposalStatus::Passed,
        "rejected" => ProposalStatus::Rejected,
        "failed" => ProposalStatus::Failed,
        other => return Err(format!("proposal {} of unknown status `{other}`", proposal.id)),
    };
    let tally = proposal.tally.unwrap_or_default();
    Ok(Proposal {
        id: proposal.id,
        title: proposal.title,
        summary: proposal.summary,
        metadata: proposal.metadata,
        status,
        proposer: proposal.proposer,
        submit_time: proposal.submit_time,
        deposit_end_time: proposal.deposit_end_time,
        voting_start_time: proposal.voting_start_time,
        voting_end_time: proposal.voting_end_time,
        total_deposit: proposal.total_deposit,
        messages: json(proposal.messages)?,
        tally: Tally { yes: tally.yes, no: tally.no, abstain: tally.abstain, no_with_veto: tally.no_with_veto },
        votes: proposal.votes.into_iter().map(|vote| Vote { voter: vote.voter, option: vote.option }).collect(),
        expedited: proposal.expedited,
        failed_reason: proposal.failed_reason,
        changes: changes(proposal.changes)?,
    })
}

fn changes(changes: Vec<pb::ParamChange>) -> Result<Vec<ParamChange>, String> {
    let change = |change: pb::ParamChange| Ok(ParamChange { old: json(change.old)?, new: json(change.new)?, path: change.path });
    changes.into_iter().map(change).collect()
}

fn json(text: String) -> Result<String, String> {
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("`{text}` is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_that_cannot_be_read_is_the_plugins_fault() {
        let good = pb::Proposal { id: 3, status: "voting".into(), messages: "[]".into(), ..pb::Proposal::default() };
        assert_eq!(proposal(good.clone()).unwrap().status, ProposalStatus::Voting);
        let status = pb::Proposal { status: "lost".into(), ..good.clone() };
        assert!(proposal(status).unwrap_err().contains("proposal 3 of unknown status `lost`"));
        assert!(proposal(pb::Proposal { messages: "[".into(), ..good }).unwrap_err().contains("no JSON"));
    }
}
