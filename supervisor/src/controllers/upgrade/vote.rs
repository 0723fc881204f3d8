//! The chain's governance: a proposal and the votes of all validators, as transactions whose request ids follow from the upgrade, so that
//! each is on the chain once, whatever dies when.

use super::super::{Context, ReconcileError, Story, placing::placed};
use super::{
    apply::{commit, end},
    check::ask_plugin,
    facts::Seen,
    plan::Vote,
};
use crate::{
    model::{Key, Meta, Node, PlacedNode, Transaction, TransactionPhase, TransactionSpec, TransactionStatus, Uid, Upgrade, UpgradePhase},
    plugin::{
        DevnetContext, PluginError,
        gov::{GOV_CAPABILITY, GovParams, ProposalStatus},
    },
    store::{StoreError, Write},
};
use serde_json::{Value, json};
use std::sync::Arc;

const PROPOSE: &str = "gov/submit-proposal";
const VOTE: &str = "gov/vote";
/// Between the end of the vote and the height: proposing and executing take some blocks, and a daemon may be away for a moment.
const MARGIN: u64 = 15;
const MARGIN_MS: u64 = 5_000;
/// When the spec names no block time.
const USUAL_BLOCK_MS: u64 = 1_000;

pub(super) async fn look(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<Vote, ReconcileError> {
    match upgrade.status.phase {
        UpgradePhase::Proposing if upgrade.status.notes.messages.is_empty() => Ok(Vote::Unknown),
        UpgradePhase::Proposing => Ok(match find(upgrade, &proposal_id(upgrade), cx).await? {
            None => Vote::NotProposed,
            Some(tx) => proposed(&tx),
        }),
        _ => voted(upgrade, seen, cx).await,
    }
}

/// The height is chosen, if the user left it to us, and stored before anything names it.
pub(super) async fn draft(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (Some(chain), Some(node)) = (seen.chain(cx).await?, ready(seen)) else { return Ok(()) };
    let fail = |why: String| end(upgrade, seen, UpgradePhase::Failed, why, cx);
    if !chain.plugin.info().await?.capabilities.iter().any(|capability| capability == GOV_CAPABILITY) {
        return fail(format!("plugin {} tells nothing of governance; add --skip-vote", seen.devnet.spec.plugin)).await;
    }
    // Of no proposal in particular: what the chain asks of all is wanted.
    let params = match chain.plugin.proposals(&chain.devnet, &node, &[u64::MAX]).await {
        Ok(proposals) => proposals.params,
        // The node answers, and its chain has no such thing.
        Err(PluginError::Rejected { code, message, .. }) if code == "FailedPrecondition" => {
            return fail(format!("the chain of {} has no governance to vote on it: {message}; add --skip-vote", seen.devnet.metadata.name)).await;
        }
        Err(error) => return Err(error.into()),
    };
    let block_ms = seen.devnet.spec.block_time.map_or(USUAL_BLOCK_MS, |time| time.as_millis()).max(1);
    let first = first_height(seen.height, &params, block_ms);
    let height = match upgrade.height() {
        Some(height) if height < first => {
            return fail(format!("height {height} may come before the vote has ended: the chain is at {}, want at least {first}", seen.height)).await;
        }
        Some(height) => height,
        None => first,
    };
    let binary = upgrade.status.binary.clone().unwrap_or_default();
    let context = DevnetContext { binary_path: binary.path, binary_sha256: binary.sha256, ..chain.devnet.clone() };
    let plan = ask_plugin(upgrade, &chain, &context, &seen.devnet, height, cx).await?;
    let message = format!("proposes {} at height {height}; the vote takes {} s", upgrade.spec.upgrade_name, params.voting_period_ms / 1_000);
    let told = Story::new("upgrade", "Drafted", message.clone()).observed(format!("height {}", seen.height)).desired("Completed");
    let change = |next: &mut Upgrade| {
        next.status.height = Some(height);
        next.status.notes.messages = plan.messages;
        next.status.notes.skip_args = plan.skip_args;
        next.status.notes.deposit = params.min_deposit;
        next.status.message = message;
    };
    commit(upgrade, Some(told), vec![], change, cx).await
}

pub(super) async fn propose(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (spec, notes) = (&upgrade.spec, &upgrade.status.notes);
    let messages: Value = serde_json::from_str(&notes.messages).map_err(|error| ReconcileError::Unfit(format!("the drafted messages: {error}")))?;
    let title = format!("Upgrade {}", spec.upgrade_name);
    let summary = format!("{} at height {}", spec.upgrade_name, upgrade.height().unwrap_or_default());
    let payload = json!({"title": title, "summary": summary, "deposit": notes.deposit, "messages": messages});
    let signer = if seen.devnet.spec.accounts() > 0 { "account:0" } else { "validator:0" };
    let tx = transaction(upgrade, seen, PROPOSE, signer, payload, proposal_id(upgrade), cx);
    submit(upgrade, vec![tx], format!("{signer} proposes it with a deposit of {}", notes.deposit), "Proposed", cx).await
}

pub(super) async fn cast(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let (option, id) = (option(upgrade), upgrade.status.proposal_id.unwrap_or_default());
    let mut txs = Vec::new();
    for validator in validators(seen) {
        let request_id = vote_id(upgrade, validator.spec.index, option);
        if find(upgrade, &request_id, cx).await?.is_none() {
            let signer = format!("validator:{}", validator.spec.index);
            txs.push(transaction(upgrade, seen, VOTE, &signer, json!({"proposal": id, "option": option}), request_id, cx));
        }
    }
    let message = format!("{} validators vote {option} on proposal {id}", txs.len());
    submit(upgrade, txs, message, "VotesCast", cx).await
}

async fn voted(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<Vote, ReconcileError> {
    let (Some(chain), Some(node), Some(id)) = (seen.chain(cx).await?, ready(seen), upgrade.status.proposal_id) else { return Ok(Vote::Unknown) };
    let Ok(proposals) = chain.plugin.proposals(&chain.devnet, &node, &[id]).await else { return Ok(Vote::Unknown) };
    let Some(proposal) = proposals.items.into_iter().find(|proposal| proposal.id == id) else {
        return Ok(Vote::Lost("is not on the chain any more: its deposit did not suffice".into()));
    };
    Ok(match proposal.status {
        ProposalStatus::Passed => Vote::Passed,
        ProposalStatus::Rejected => Vote::Lost("was rejected".into()),
        ProposalStatus::Failed => Vote::Lost(match (proposal.failed_reason.as_str(), upgrade.height()) {
            ("", Some(height)) if seen.height >= height => format!("passed, but the vote ended after height {height}"),
            (words, _) => format!("passed, and then failed: {words}"),
        }),
        ProposalStatus::Deposit => Vote::Open { missing: 0, ends: proposal.deposit_end_time },
        ProposalStatus::Voting => of_votes(upgrade, seen, proposal.voting_end_time, cx).await?,
    })
}

async fn of_votes(upgrade: &Upgrade, seen: &Seen, ends: String, cx: &Context) -> Result<Vote, ReconcileError> {
    let (mut missing, mut refused) = (0, Vec::new());
    let all = validators(seen).count();
    for validator in validators(seen) {
        match find(upgrade, &vote_id(upgrade, validator.spec.index, option(upgrade)), cx).await? {
            None => missing += 1,
            Some(tx) if tx.status.phase == TransactionPhase::Failed => refused.push(tx.status.error.clone().unwrap_or_default()),
            Some(_) => {}
        }
    }
    match refused.first() {
        Some(words) if refused.len() == all => Ok(Vote::Refused(words.clone())),
        _ => Ok(Vote::Open { missing, ends }),
    }
}

fn proposed(tx: &Transaction) -> Vote {
    match tx.status.phase {
        TransactionPhase::Confirmed => {
            let attributes = tx.status.events.iter().filter(|event| event.kind == "submit_proposal");
            let id = attributes.filter_map(|event| event.attributes.get("proposal_id")).find_map(|id| id.trim_matches('"').parse().ok());
            id.map_or_else(|| Vote::Refused("it is in a block, and the chain names no proposal id".into()), Vote::Proposed)
        }
        TransactionPhase::Failed => Vote::Refused(tx.status.error.clone().unwrap_or_default()),
        phase => Vote::Underway(format!("its proposal is {phase:?}: {}", tx.metadata.name)),
    }
}

/// The first height at which the vote is over for sure, if blocks come as fast as they may.
fn first_height(now: u64, params: &GovParams, block_ms: u64) -> u64 {
    now + (params.voting_period_ms + MARGIN_MS).div_ceil(block_ms) + MARGIN
}

/// Who cancels an upgrade that is voted on has all validators vote against it.
fn option(upgrade: &Upgrade) -> &'static str {
    if upgrade.spec.cancel { "no" } else { "yes" }
}

fn proposal_id(upgrade: &Upgrade) -> String {
    format!("upgrade/{}/{}/proposal", upgrade.metadata.uid, upgrade.status.attempt)
}

fn vote_id(upgrade: &Upgrade, validator: u32, option: &str) -> String {
    format!("upgrade/{}/{}/vote/{validator}/{option}", upgrade.metadata.uid, upgrade.status.attempt)
}

fn validators(seen: &Seen) -> impl Iterator<Item = &Arc<Node>> {
    seen.nodes.iter().filter(|node| node.spec.role == "validator")
}

fn ready(seen: &Seen) -> Option<PlacedNode> {
    seen.nodes.iter().find(|node| node.status.conditions.is_true("Ready")).map(|node| placed(node))
}

async fn find(upgrade: &Upgrade, request_id: &str, cx: &Context) -> Result<Option<Arc<Transaction>>, ReconcileError> {
    let name = Transaction::name_of(&upgrade.spec.devnet_ref, request_id);
    let found = cx.store.get(&Key::transaction(&upgrade.metadata.namespace, &name)).await?;
    Ok(found.and_then(|object| object.try_into().ok()))
}

fn transaction(upgrade: &Upgrade, seen: &Seen, kind: &str, signer: &str, payload: Value, request_id: String, cx: &Context) -> Transaction {
    let now = cx.clock.now();
    let devnet = &upgrade.spec.devnet_ref;
    let metadata = Meta {
        name: Transaction::name_of(devnet, &request_id),
        namespace: upgrade.metadata.namespace.clone(),
        uid: Uid::from_uuid(cx.clock.fresh_id()),
        generation: 1,
        created_at: now,
        updated_at: now,
        ..Meta::default()
    };
    let (devnet_ref, tx_type, signer) = (devnet.clone(), kind.to_owned(), signer.to_owned());
    let spec = TransactionSpec { devnet_ref, tx_type, signer, payload, request_id, ..TransactionSpec::default() };
    let status = TransactionStatus { chain_epoch: seen.devnet.spec.operations.reset, ..TransactionStatus::default() };
    Transaction { metadata, spec, status }
}

/// In one commit with the event that tells of them, which is their cause.
async fn submit(upgrade: &Upgrade, mut txs: Vec<Transaction>, message: String, reason: &str, cx: &Context) -> Result<(), ReconcileError> {
    txs.iter_mut().for_each(|tx| tx.status.cause.clone_from(&upgrade.status.cause));
    let told = Story::new("upgrade", reason, message.clone()).action("submit transactions").desired("Completed");
    let creates = txs.into_iter().map(Write::create).collect();
    match commit(upgrade, Some(told), creates, |next| next.status.message = message, cx).await {
        Err(ReconcileError::Store(StoreError::Exists(_))) => Ok(()), // they are there, and the next look sees them
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::TxEvent, store::fixtures};
    use std::collections::BTreeMap;

    #[test]
    fn the_height_lies_behind_the_longest_vote() {
        let params = GovParams { voting_period_ms: 10_500, ..GovParams::default() };
        assert_eq!(first_height(100, &params, 500), 100 + 31 + MARGIN);
    }

    #[test]
    fn a_proposal_is_known_by_the_id_that_its_block_tells() {
        let mut tx = fixtures::transaction("default", "net", "0123456789abcdef");
        assert!(matches!(proposed(&tx), Vote::Underway(_)));
        tx.status.phase = TransactionPhase::Confirmed;
        assert!(matches!(proposed(&tx), Vote::Refused(_)));
        let attributes = BTreeMap::from([("proposal_id".to_owned(), "7".to_owned())]);
        tx.status.events = vec![TxEvent { kind: "submit_proposal".into(), attributes }];
        assert_eq!(proposed(&tx), Vote::Proposed(7));
    }

    #[test]
    fn each_attempt_and_each_option_has_request_ids_of_its_own() {
        let mut upgrade = fixtures::upgrade("default", "net", "v2");
        let first = (proposal_id(&upgrade), vote_id(&upgrade, 0, "yes"));
        assert_eq!(first, (proposal_id(&upgrade), vote_id(&upgrade, 0, "yes")));
        assert_ne!(first.1, vote_id(&upgrade, 0, "no"));
        upgrade.status.attempt = 1;
        assert_ne!(first.0, proposal_id(&upgrade));
    }
}
