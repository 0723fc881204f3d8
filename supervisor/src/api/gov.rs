//! GovService: what a devnet's chain has proposed. Nothing of it is stored; each call asks a node that is ready.

use super::{
    Context, admission,
    change::key_of,
    devnets::reply,
    hopeless, status,
    watch::{shutting_down, until_shutdown},
};
use crate::{
    model::{Devnet, Fault, FaultCode, Key, Kind, Node, Object, PlacedNode},
    plugin::{
        ChainPlugin, DevnetContext, PluginError,
        gov::{GOV_CAPABILITY, GovParams, ParamChange, Proposal},
        ready,
    },
    store::{Selector, StoreError},
};
use dvb_proto::devnet::v1::{self, gov_service_server::GovService};
use futures::{StreamExt, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// After a node that was ready did not answer: nothing tells when it does again.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(super) struct Governance(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

/// A devnet's plugin with a node to ask.
struct Chain {
    plugin: Arc<dyn ChainPlugin>,
    devnet: DevnetContext,
    node: PlacedNode,
}

#[tonic::async_trait]
impl GovService for Governance {
    async fn list(&self, request: Request<v1::ListProposalsRequest>) -> Reply<v1::ListProposalsResponse> {
        let v1::ListProposalsRequest { namespace, devnet } = request.into_inner();
        reply(self.proposals(&key_of(Kind::Devnet, &namespace, &devnet)).await)
    }

    async fn get(&self, request: Request<v1::ProposalRef>) -> Reply<v1::Proposal> {
        let v1::ProposalRef { namespace, devnet, id } = request.into_inner();
        reply(self.proposal(&key_of(Kind::Devnet, &namespace, &devnet), id).await)
    }

    type WatchStream = BoxStream<'static, Result<v1::Proposal, Status>>;
    async fn watch(&self, request: Request<v1::ProposalRef>) -> Reply<Self::WatchStream> {
        let v1::ProposalRef { namespace, devnet, id } = request.into_inner();
        let key = key_of(Kind::Devnet, &namespace, &devnet);
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        // Ends with its listener.
        tokio::spawn(async move {
            let followed = tokio::select! {
                () = sender.closed() => return,
                followed = service.follow(&key, id, &sender) => followed,
            };
            if let Err(fault) = followed {
                let _ = sender.send(Err(status::status(&fault))).await; // a listener that is gone needs no word
            }
        });
        Ok(Response::new(until_shutdown(ReceiverStream::new(receiver), self.0.shutdown.clone())))
    }

    async fn draft_param_change(&self, request: Request<v1::DraftParamChangeRequest>) -> Reply<v1::DraftParamChangeResponse> {
        reply(self.draft(request.into_inner()).await)
    }
}

impl Governance {
    async fn proposals(&self, key: &Key) -> Result<v1::ListProposalsResponse, Fault> {
        let chain = self.chain(key, 0).await?;
        let found = chain.plugin.proposals(&chain.devnet, &chain.node, &[]).await.map_err(|error| told(key, &error))?;
        let items = found.items.into_iter().map(message).collect();
        Ok(v1::ListProposalsResponse { items, params: Some(params(found.params)), height: found.height })
    }

    async fn proposal(&self, key: &Key, id: u64) -> Result<v1::Proposal, Fault> {
        let chain = self.chain(key, 0).await?;
        let found = chain.plugin.proposals(&chain.devnet, &chain.node, &[id]).await.map_err(|error| told(key, &error))?;
        found.items.into_iter().next().map(message).ok_or_else(|| absent(key, id, false))
    }

    async fn draft(&self, request: v1::DraftParamChangeRequest) -> Result<v1::DraftParamChangeResponse, Fault> {
        let key = key_of(Kind::Devnet, &request.namespace, &request.devnet);
        let chain = self.chain(&key, 0).await?;
        let draft = chain.plugin.draft(&chain.devnet, &chain.node, request.values).await.map_err(|error| told(&key, &error))?;
        Ok(v1::DraftParamChangeResponse { messages: draft.messages, changes: draft.changes.into_iter().map(change).collect() })
    }

    /// Looks at each block, over nodes that go away; until the proposal is decided.
    async fn follow(&self, key: &Key, id: u64, sender: &mpsc::Sender<Result<v1::Proposal, Status>>) -> Result<(), Fault> {
        let mut told: Option<Proposal> = None;
        for turn in 0.. {
            let chain = self.wait_for_chain(key, turn).await?;
            if self.follow_node(&chain, key, id, &mut told, sender).await? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// True: it is decided. False: this node does not answer any more.
    async fn follow_node(
        &self,
        chain: &Chain,
        key: &Key,
        id: u64,
        told: &mut Option<Proposal>,
        sender: &mpsc::Sender<Result<v1::Proposal, Status>>,
    ) -> Result<bool, Fault> {
        let Some(mut blocks) = reachable(chain.plugin.heights(&chain.devnet, &chain.node).await)? else { return Ok(false) };
        loop {
            let Some(found) = reachable(chain.plugin.proposals(&chain.devnet, &chain.node, &[id]).await)? else { return Ok(false) };
            let Some(proposal) = found.items.into_iter().next() else { return Err(absent(key, id, told.is_some())) };
            if told.as_ref() != Some(&proposal) {
                *told = Some(proposal.clone());
                if sender.send(Ok(message(proposal.clone()))).await.is_err() {
                    return Ok(true); // nobody listens
                }
            }
            if proposal.status.is_final() {
                return Ok(true);
            }
            if !matches!(blocks.next().await, Some(Ok(_))) {
                return Ok(false);
            }
        }
    }

    /// As `chain`, as soon as a node is ready.
    async fn wait_for_chain(&self, key: &Key, turn: usize) -> Result<Chain, Fault> {
        let selector = Selector { kinds: vec![Kind::Devnet, Kind::Node], ..Selector::in_devnet(Kind::Node, &key.namespace, &key.name) };
        loop {
            let (_, from) = self.0.store.list(&selector).await.map_err(|error| error.fault())?;
            match self.chain(key, turn).await {
                Err(fault) if fault.code == FaultCode::NotReady => {}
                other => return other,
            }
            match self.0.store.watch(selector.clone(), from).next().await {
                Some(Ok(_)) | Some(Err(StoreError::Compacted { .. })) => {}
                Some(Err(error)) => return Err(error.fault()),
                None => return Err(shutting_down()),
            }
        }
    }

    /// `turn` chooses among the nodes that are ready.
    async fn chain(&self, key: &Key, turn: usize) -> Result<Chain, Fault> {
        let devnet = match self.0.find(key).await? {
            Object::Devnet(devnet) if devnet.metadata.deleted_at.is_some() => return Err(admission::being_deleted(&key.name)),
            Object::Devnet(devnet) => devnet,
            other => return Err(Fault::new(FaultCode::Internal, format!("{} is no devnet", other.key()))),
        };
        let plugin = self.0.plugins.get(&devnet.spec.plugin).await.map_err(|error| error.fault())?;
        let info = plugin.info().await.map_err(|error| error.fault())?;
        if !info.capabilities.iter().any(|capability| capability == GOV_CAPABILITY) {
            return Err(Fault::new(FaultCode::Unimplemented, format!("plugin {} has no governance", devnet.spec.plugin)).about(key.name.as_str()));
        }
        if hopeless::lacks(&self.0, &devnet, GOV_CAPABILITY).await? {
            let message = format!("the chain of {} has no governance: its binary has no module gov", key.name);
            return Err(Fault::new(FaultCode::Unimplemented, message).about(key.name.as_str()));
        }
        let nodes = self.nodes(key).await?;
        let ready = ready(&nodes);
        let (Some(node), Some(context)) = (ready.get(turn % ready.len().max(1)), self.context(&devnet, &nodes).await?) else {
            let message = format!("no node of {} is ready: nobody can tell what its chain has proposed", key.name);
            let fault = Fault::new(FaultCode::NotReady, message).about(key.name.as_str()).retriable();
            return Err(fault.remedy(format!("dvbctl wait {} --for ready; dvbctl get nodes {}", key.name, key.name)));
        };
        Ok(Chain { node: PlacedNode::of(node), plugin, devnet: context })
    }

    /// None: not provisioned, or about to be reset.
    async fn context(&self, devnet: &Devnet, nodes: &[Arc<Node>]) -> Result<Option<DevnetContext>, Fault> {
        if devnet.spec.operations.reset != devnet.status.operations.reset {
            return Ok(None);
        }
        let key = Key::new(Kind::Plan, &devnet.metadata.namespace, &devnet.metadata.name);
        match self.0.store.get(&key).await.map_err(|error| error.fault())? {
            Some(Object::Plan(plan)) => Ok(Some(DevnetContext::provisioned(devnet, &plan.spec, nodes))),
            _ => Ok(None),
        }
    }

    async fn nodes(&self, key: &Key) -> Result<Vec<Arc<Node>>, Fault> {
        let selector = Selector::in_devnet(Kind::Node, &key.namespace, &key.name);
        let (objects, _) = self.0.store.list(&selector).await.map_err(|error| error.fault())?;
        Ok(objects.into_iter().filter_map(|object| object.try_into().ok()).collect())
    }
}

/// A node that cannot answer now is no refusal.
fn told(key: &Key, error: &PluginError) -> Fault {
    match error {
        PluginError::Rejected { code, message, .. } if code == "Unavailable" => {
            Fault::new(FaultCode::NotReady, message.as_str()).about(key.name.as_str()).retriable().remedy(format!("dvbctl get nodes {}", key.name))
        }
        error => error.fault(),
    }
}

/// None: the node does not answer.
fn reachable<T>(answer: Result<T, PluginError>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(PluginError::Rejected { code, .. }) if code == "Unavailable" => Ok(None),
        Err(error) => Err(error.fault()),
    }
}

fn absent(key: &Key, id: u64, was_there: bool) -> Fault {
    let message = match was_there {
        false => format!("the chain of {} has no proposal {id}", key.name),
        true => format!("the chain of {} has dropped proposal {id}: it was canceled, or its deposit did not come in time", key.name),
    };
    Fault::new(FaultCode::NotFound, message).about(key.name.as_str()).remedy(format!("dvbctl gov list {}", key.name))
}

fn params(params: GovParams) -> v1::GovParams {
    let GovParams { min_deposit, expedited_min_deposit, max_deposit_period_ms, voting_period_ms, expedited_voting_period_ms, authority } = params;
    v1::GovParams { min_deposit, expedited_min_deposit, max_deposit_period_ms, voting_period_ms, expedited_voting_period_ms, authority }
}

fn message(proposal: Proposal) -> v1::Proposal {
    let tally = proposal.tally;
    v1::Proposal {
        id: proposal.id,
        title: proposal.title,
        summary: proposal.summary,
        status: proposal.status.word().into(),
        proposer: proposal.proposer,
        submit_time: proposal.submit_time,
        deposit_end_time: proposal.deposit_end_time,
        voting_start_time: proposal.voting_start_time,
        voting_end_time: proposal.voting_end_time,
        total_deposit: proposal.total_deposit,
        messages: proposal.messages,
        tally: Some(v1::Tally { yes: tally.yes, no: tally.no, abstain: tally.abstain, no_with_veto: tally.no_with_veto }),
        votes: proposal.votes.into_iter().map(|vote| v1::Vote { voter: vote.voter, option: vote.option }).collect(),
        expedited: proposal.expedited,
        failed_reason: proposal.failed_reason,
        changes: proposal.changes.into_iter().map(change).collect(),
        metadata: proposal.metadata,
    }
}

fn change(change: ParamChange) -> v1::ParamChange {
    v1::ParamChange { path: change.path, old: change.old, new: change.new }
}

#[cfg(test)]
#[path = "gov_tests.rs"]
mod tests;
