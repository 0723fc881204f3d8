//! GovService over a real socket.

use super::super::testing::{Served, fault, next, node, serve, wanted};
use super::*;
use crate::{
    model::{Condition, ConditionStatus, Meta, Plan, PlanBody, Timestamp},
    plugin::gov::ProposalStatus,
    store::Write,
};
use dvb_proto::devnet::v1::gov_service_client::GovServiceClient;
use tonic::{Code, transport::Channel};

fn client(served: &Served) -> GovServiceClient<Channel> {
    GovServiceClient::new(served.channel.clone())
}

fn proposal(id: u64) -> v1::ProposalRef {
    v1::ProposalRef { namespace: String::new(), devnet: "net".into(), id }
}

fn list() -> v1::ListProposalsRequest {
    v1::ListProposalsRequest { namespace: String::new(), devnet: "net".into() }
}

/// A provisioned devnet with a node that is ready.
async fn ready_net() -> Served {
    let served = serve().await;
    served.apply(wanted("net")).await.unwrap();
    let metadata = Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() };
    let plan = Plan { metadata, spec: PlanBody { devnet_ref: "net".into(), ..PlanBody::default() } };
    let mut node = node("net", 0);
    node.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Probed", "it answers"), Timestamp::default());
    served.cx.store.commit(vec![Write::create(plan), Write::create(node)]).await.unwrap();
    served
}

#[tokio::test]
async fn proposals_are_those_of_the_chain_and_an_unknown_one_is_not_found() {
    let served = ready_net().await;
    served.plugin.put_proposal(1, ProposalStatus::Passed);
    served.plugin.put_proposal(2, ProposalStatus::Voting);
    let listed = client(&served).list(list()).await.unwrap().into_inner();
    let found: Vec<_> = listed.items.iter().map(|item| (item.id, item.status.as_str())).collect();
    assert_eq!((found, listed.params.unwrap().min_deposit.as_str()), (vec![(1, "passed"), (2, "voting")], "10fake"));
    assert_eq!(client(&served).get(proposal(2)).await.unwrap().into_inner().title, "proposal 2");
    let refused = fault(&client(&served).get(proposal(3)).await.unwrap_err());
    assert_eq!((refused.code, refused.message.as_str()), (FaultCode::NotFound, "the chain of net has no proposal 3"));
}

#[tokio::test]
async fn a_watch_tells_each_change_once_and_ends_with_the_decision() {
    let served = ready_net().await;
    served.plugin.put_proposal(1, ProposalStatus::Deposit);
    let mut watch = client(&served).watch(proposal(1)).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.unwrap().unwrap().status, "deposit");
    served.plugin.announce("validator-0", 5); // a block without news
    for (height, status, word) in [(6, ProposalStatus::Voting, "voting"), (7, ProposalStatus::Rejected, "rejected")] {
        served.plugin.put_proposal(1, status);
        served.plugin.announce("validator-0", height);
        assert_eq!(next(&mut watch).await.unwrap().unwrap().status, word);
    }
    assert!(next(&mut watch).await.is_none());
}

#[tokio::test]
async fn a_watch_goes_on_when_its_node_came_back_and_says_when_the_chain_dropped_the_proposal() {
    let served = ready_net().await;
    served.plugin.put_proposal(1, ProposalStatus::Deposit);
    let mut watch = client(&served).watch(proposal(1)).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.unwrap().unwrap().status, "deposit");
    served.plugin.vanish("validator-0");
    served.plugin.put_proposal(1, ProposalStatus::Voting);
    assert_eq!(next(&mut watch).await.unwrap().unwrap().status, "voting");
    served.plugin.drop_proposal(1);
    served.plugin.announce("validator-0", 9);
    let ended = next(&mut watch).await.unwrap().unwrap_err();
    assert!(ended.message().contains("has dropped proposal 1"), "{ended:?}");
}

#[tokio::test]
async fn without_a_ready_node_a_list_says_so_and_a_watch_waits_for_one() {
    let served = serve().await;
    served.apply(wanted("net")).await.unwrap();
    served.plugin.put_proposal(1, ProposalStatus::Passed);
    let refused = client(&served).list(list()).await.unwrap_err();
    assert_eq!((refused.code(), fault(&refused).code), (Code::FailedPrecondition, FaultCode::NotReady));
    assert_eq!(fault(&client(&served).list(v1::ListProposalsRequest::default()).await.unwrap_err()).code, FaultCode::NotFound);
    let mut watch = client(&served).watch(proposal(1)).await.unwrap().into_inner();
    let metadata = Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() };
    let plan = Plan { metadata, spec: PlanBody { devnet_ref: "net".into(), ..PlanBody::default() } };
    let mut node = node("net", 0);
    node.status.conditions.set(Condition::new("Ready", ConditionStatus::True, "Probed", "it answers"), Timestamp::default());
    served.cx.store.commit(vec![Write::create(plan), Write::create(node)]).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().unwrap().status, "passed");
}

#[tokio::test]
async fn what_the_devnets_binary_lacks_is_refused_and_named() {
    let served = serve().await;
    served.plugin.add_capability("upgrade");
    served.apply(wanted("net")).await.unwrap();
    let metadata = Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() };
    let lacks = ["gov", "export"].map(str::to_owned).to_vec();
    let plan = Plan { metadata, spec: PlanBody { devnet_ref: "net".into(), lacks, ..PlanBody::default() } };
    served.cx.store.commit(vec![Write::create(plan)]).await.unwrap();
    let refused = fault(&client(&served).list(list()).await.unwrap_err());
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (FaultCode::Unimplemented, "the chain of net has no governance: its binary has no module gov")
    );

    let named = |name: &str| Some(v1::Metadata { name: name.into(), namespace: "default".into(), ..v1::Metadata::default() });
    let binary = Some(v1::BinarySource { path: Some("/bin/cat".into()), ..v1::BinarySource::default() });
    let spec = v1::UpgradeSpec { devnet_ref: "net".into(), binary, ..v1::UpgradeSpec::default() };
    let upgrade =
        |skip_vote| v1::Upgrade { metadata: named("v2"), spec: Some(v1::UpgradeSpec { skip_vote, ..spec.clone() }), ..v1::Upgrade::default() };
    let ask = async |skip_vote| {
        let request = v1::ApplyUpgradeRequest { upgrade: Some(upgrade(skip_vote)), dry_run: true, beside: None };
        v1::upgrade_service_client::UpgradeServiceClient::new(served.channel.clone()).apply(request).await
    };
    let refused = fault(&ask(false).await.unwrap_err());
    assert!(refused.message.contains("its binary has no module gov") && refused.remedy.unwrap().contains("--skip-vote"), "{}", refused.message);
    ask(true).await.unwrap();

    let spec = v1::ExportSpec { devnet_ref: "net".into(), ..v1::ExportSpec::default() };
    let export = v1::Export { metadata: named("snap"), spec: Some(spec), ..v1::Export::default() };
    let refused = v1::export_service_client::ExportServiceClient::new(served.channel.clone()).create(export).await.unwrap_err();
    assert_eq!(fault(&refused).message, "the binary of net has no command `export`");
}
