//! Proposals as the chain has them.

use super::{authority, invalid, params, refused};
use crate::{
    binary::Chain,
    config,
    tx::{
        any,
        described::{self, Described},
        wire::Wire,
    },
};
use cosmos_sdk_proto::{
    cosmos::{
        base::{query::v1beta1::PageRequest, v1beta1::Coin},
        gov::v1::{
            Params, Proposal, ProposalStatus, QueryParamsRequest, QueryParamsResponse, QueryProposalRequest, QueryProposalResponse,
            QueryProposalsRequest, QueryProposalsResponse, QueryTallyResultRequest, QueryTallyResultResponse, QueryVotesRequest, QueryVotesResponse,
            TallyResult, Vote, VoteOption,
        },
    },
    traits::Message,
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use serde::Serialize;
use serde_json::Value;

/// No such proposal.
const NOT_FOUND: i64 = 22;
/// Of one page of an answer.
const PAGE: u64 = 100;

pub async fn list(request: &pb::ListProposalsRequest) -> Result<pb::ListProposalsResponse> {
    let chain = Chain::from_state(&request.devnet.clone().unwrap_or_default().initialized)?;
    let address = config::address(&request.node.clone().unwrap_or_default(), "rpc").map_err(|error| invalid(error.to_string()))?;
    let mut wire = Wire::open(&address).await?;
    // `tally` and the like: any kind is answered with all parameters.
    let query = QueryParamsRequest { params_type: "tallying".into() };
    let (found, height) = ask::<QueryParamsResponse>(&mut wire, "Params", &query).await?;
    let rules = found.and_then(|answer| answer.params).unwrap_or_default();
    let found = if request.ids.is_empty() { all(&mut wire).await? } else { some(&mut wire, &request.ids).await? };
    let mut proposals = Vec::with_capacity(found.len());
    let strange = found.iter().flat_map(|proposal| &proposal.messages).any(|message| !any::is_known(&message.type_url));
    let binary = request.devnet.as_ref().map(|devnet| devnet.binary_sha256.as_str()).unwrap_or_default();
    let described = if strange { described::ask(binary, &mut wire).await } else { Ok(None) };
    let described = described.unwrap_or_else(|error| {
        tracing::warn!(%error, "the chain's descriptors cannot be had: what only they tell of is base64");
        None
    });
    for proposal in found {
        let mut told = told(&proposal, described.as_deref());
        if proposal.status() == ProposalStatus::VotingPeriod {
            let query = QueryTallyResultRequest { proposal_id: proposal.id };
            let (answer, _) = ask::<QueryTallyResultResponse>(&mut wire, "TallyResult", &query).await?;
            told.tally = answer.and_then(|answer| answer.tally).map(tally);
        }
        if !request.ids.is_empty() {
            told.votes = votes(&mut wire, proposal.id).await?;
            told.changes = params::changes(&proposal.messages, described.as_deref(), &mut wire).await?;
        }
        proposals.push(told);
    }
    Ok(pb::ListProposalsResponse { proposals, params: Some(terms(&rules, authority(&chain)?)), height })
}

async fn all(wire: &mut Wire) -> Result<Vec<Proposal>> {
    let (mut found, mut key) = (Vec::new(), Vec::new());
    loop {
        let query = QueryProposalsRequest { pagination: Some(page(key)), ..QueryProposalsRequest::default() };
        let (answer, _) = ask::<QueryProposalsResponse>(wire, "Proposals", &query).await?;
        let answer = answer.unwrap_or_default();
        found.extend(answer.proposals);
        key = answer.pagination.unwrap_or_default().next_key;
        if key.is_empty() {
            return Ok(found);
        }
    }
}

async fn some(wire: &mut Wire, ids: &[u64]) -> Result<Vec<Proposal>> {
    let mut found = Vec::new();
    for id in ids {
        let (answer, _) = ask::<QueryProposalResponse>(wire, "Proposal", &QueryProposalRequest { proposal_id: *id }).await?;
        found.extend(answer.and_then(|answer| answer.proposal));
    }
    found.sort_by_key(|proposal| proposal.id);
    Ok(found)
}

async fn votes(wire: &mut Wire, proposal_id: u64) -> Result<Vec<pb::Vote>> {
    let (mut found, mut key) = (Vec::new(), Vec::new());
    loop {
        let query = QueryVotesRequest { proposal_id, pagination: Some(page(key)) };
        let (answer, _) = ask::<QueryVotesResponse>(wire, "Votes", &query).await?;
        let answer = answer.unwrap_or_default();
        found.extend(answer.votes.iter().map(vote));
        key = answer.pagination.unwrap_or_default().next_key;
        if key.is_empty() {
            return Ok(found);
        }
    }
}

fn page(key: Vec<u8>) -> PageRequest {
    PageRequest { key, limit: PAGE, ..PageRequest::default() }
}

/// None where the chain has no such thing; with the height at which it answered.
async fn ask<A: Message + Default>(wire: &mut Wire, method: &str, query: &impl Message) -> Result<(Option<A>, u64)> {
    let answer = wire.query(&format!("/cosmos.gov.v1.Query/{method}"), &query.encode_to_vec()).await?;
    let height = answer.height;
    match answer.code {
        0 => {
            let answer = A::decode(answer.value.as_slice()).map_err(|error| PluginFault::Internal(format!("gov {method}: {error}")))?;
            Ok((Some(answer), height))
        }
        NOT_FOUND => Ok((None, height)),
        _ => Err(refused(&format!("gov {method}"), &answer)),
    }
}

fn told(proposal: &Proposal, described: Option<&Described>) -> pb::Proposal {
    let messages: Vec<Value> = proposal.messages.iter().map(|message| any::unpack(message, described)).collect();
    let Proposal { id, title, summary, proposer, metadata, expedited, failed_reason, .. } = proposal.clone();
    pb::Proposal {
        id,
        title,
        summary,
        proposer,
        metadata,
        expedited,
        failed_reason,
        status: status(proposal.status()).into(),
        submit_time: text(&proposal.submit_time),
        deposit_end_time: text(&proposal.deposit_end_time),
        voting_start_time: text(&proposal.voting_start_time),
        voting_end_time: text(&proposal.voting_end_time),
        total_deposit: coins(&proposal.total_deposit),
        messages: Value::from(messages).to_string(),
        tally: proposal.final_tally_result.clone().map(tally),
        votes: Vec::new(),
        changes: Vec::new(),
    }
}

fn status(status: ProposalStatus) -> &'static str {
    match status {
        ProposalStatus::DepositPeriod => "deposit",
        ProposalStatus::VotingPeriod => "voting",
        ProposalStatus::Passed => "passed",
        ProposalStatus::Rejected => "rejected",
        ProposalStatus::Failed => "failed",
        ProposalStatus::Unspecified => "unknown",
    }
}

fn tally(tally: TallyResult) -> pb::Tally {
    pb::Tally { yes: tally.yes_count, no: tally.no_count, abstain: tally.abstain_count, no_with_veto: tally.no_with_veto_count }
}

fn vote(vote: &Vote) -> pb::Vote {
    let name = |option| match option {
        VoteOption::Yes => "yes",
        VoteOption::No => "no",
        VoteOption::Abstain => "abstain",
        VoteOption::NoWithVeto => "noWithVeto",
        VoteOption::Unspecified => "unknown",
    };
    let option = match vote.options.as_slice() {
        [one] => name(one.option()).to_owned(),
        many => many.iter().map(|one| format!("{}={}", name(one.option()), one.weight)).collect::<Vec<_>>().join(","),
    };
    pb::Vote { voter: vote.voter.clone(), option }
}

fn terms(params: &Params, authority: String) -> pb::GovParams {
    pb::GovParams {
        min_deposit: coins(&params.min_deposit),
        expedited_min_deposit: coins(&params.expedited_min_deposit),
        max_deposit_period_ms: params.max_deposit_period.map_or(0, |span| millis(span.seconds, span.nanos)),
        voting_period_ms: params.voting_period.map_or(0, |span| millis(span.seconds, span.nanos)),
        expedited_voting_period_ms: params.expedited_voting_period.map_or(0, |span| millis(span.seconds, span.nanos)),
        authority,
    }
}

fn millis(seconds: i64, nanos: i32) -> u64 {
    let whole = u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000);
    whole.saturating_add(u64::try_from(nanos).unwrap_or_default() / 1_000_000)
}

fn coins(coins: &[Coin]) -> String {
    coins.iter().map(|coin| format!("{}{}", coin.amount, coin.denom)).collect::<Vec<_>>().join(",")
}

/// A time in RFC 3339; empty where there is none.
fn text(time: &impl Serialize) -> String {
    serde_json::to_value(time).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
