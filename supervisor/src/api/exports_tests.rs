//! ExportService over a real socket, and devnets that begin with an export.

use super::super::testing::{Served, fault, object_ref, serve, wanted};
use crate::{
    model::{Export, ExportPhase, FaultCode, Key, Node, Object},
    store::Write,
};
use dvb_proto::devnet::v1::{self, export_service_client::ExportServiceClient};
use tonic::transport::Channel;

const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn client(served: &Served) -> ExportServiceClient<Channel> {
    ExportServiceClient::new(served.channel.clone())
}

fn export(name: &str, height: Option<u64>) -> v1::Export {
    let spec = v1::ExportSpec { devnet_ref: "mynet".into(), height, ..v1::ExportSpec::default() };
    v1::Export { metadata: Some(v1::Metadata { name: name.into(), ..v1::Metadata::default() }), spec: Some(spec), ..v1::Export::default() }
}

async fn served() -> Served {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served
}

async fn finish(served: &Served, name: &str) {
    let Some(Object::Export(stored)) = served.cx.store.get(&Key::export("default", name)).await.unwrap() else { panic!("{name} is stored") };
    let mut done = Export::clone(&stored);
    done.status.phase = ExportPhase::Completed;
    done.status.sha256 = Some(DIGEST.into());
    served.cx.store.commit(vec![Write::update(done)]).await.unwrap();
}

fn fork(genesis: v1::GenesisSpec) -> v1::Devnet {
    let mut devnet = wanted("fork");
    devnet.spec.as_mut().unwrap().genesis = Some(genesis);
    devnet
}

#[tokio::test]
async fn exports_are_named_in_order_and_a_taken_name_is_refused() {
    let served = served().await;
    let name = |export: &v1::Export| export.metadata.as_ref().unwrap().name.clone();
    let first = client(&served).create(export("", None)).await.unwrap().into_inner();
    assert_eq!((name(&first).as_str(), first.status.unwrap().phase.as_str()), ("mynet/export-1", "Pending"));
    assert_eq!(name(&client(&served).create(export("", Some(7))).await.unwrap().into_inner()), "mynet/export-2");
    assert_eq!(name(&client(&served).create(export("mynet/before", None)).await.unwrap().into_inner()), "mynet/before");
    let taken = fault(&client(&served).create(export("before", None)).await.unwrap_err());
    assert_eq!(taken.code, FaultCode::AlreadyExists);
    let deleted = client(&served).delete(v1::DeleteRequest { name: "mynet/before".into(), ..v1::DeleteRequest::default() }).await.unwrap();
    assert!(deleted.into_inner().metadata.unwrap().deleted_at.is_some());
}

#[tokio::test]
async fn what_is_wrong_without_asking_the_chain_is_refused() {
    let served = served().await;
    for (wrong, field) in [(export("a/b/c", None), "metadata.name"), (export("", Some(0)), "spec.height")] {
        let fault = fault(&client(&served).create(wrong).await.unwrap_err());
        assert_eq!((fault.code, fault.violations[0].field.as_str()), (FaultCode::InvalidSpec, field));
    }
    let mut nowhere = export("", None);
    nowhere.spec.as_mut().unwrap().devnet_ref = "nonet".into();
    assert_eq!(fault(&client(&served).create(nowhere).await.unwrap_err()).code, FaultCode::NotFound);
}

#[tokio::test]
async fn a_fork_takes_the_digest_of_its_export_and_keeps_it() {
    let served = served().await;
    let from = || v1::GenesisSpec { from_export: Some("mynet/export-1".into()), ..v1::GenesisSpec::default() };
    let missing = served.apply(fork(from())).await.unwrap_err();
    assert_eq!((missing.code, missing.violations[0].field.as_str()), (FaultCode::InvalidSpec, "spec.genesis.fromExport"));
    client(&served).create(export("", None)).await.unwrap();
    let early = served.apply(fork(from())).await.unwrap_err();
    assert!(early.code == FaultCode::Conflict && early.retriable, "{early:?}");
    finish(&served, "mynet/export-1").await;
    let made = served.apply(fork(from())).await.unwrap();
    let digest = |applied: &v1::ApplyResponse| applied.devnet.clone().unwrap().spec.unwrap().genesis.unwrap().sha256;
    assert_eq!(digest(&made).as_deref(), Some(DIGEST));
    served.cx.store.commit(vec![Write::Delete { key: Key::export("default", "mynet/export-1"), expect: crate::store::Expect::Any }]).await.unwrap();
    let again = served.apply(fork(from())).await.unwrap();
    assert_eq!((digest(&again).as_deref(), again.action.as_str()), (Some(DIGEST), "unchanged"), "the export may be gone by now");
    assert!(client(&served).get(object_ref("mynet/export-1")).await.is_err());
}

#[tokio::test]
async fn a_state_from_elsewhere_needs_its_digest_and_only_one_source_is_taken() {
    let served = served().await;
    let some = |text: &str| Some(text.to_owned());
    let plain = v1::GenesisSpec::default;
    for (genesis, field) in [
        (v1::GenesisSpec { from_file: some("/x/genesis.json"), ..plain() }, "spec.genesis.sha256"),
        (v1::GenesisSpec { from_file: some("genesis.json"), sha256: some(DIGEST), ..plain() }, "spec.genesis.fromFile"),
        (v1::GenesisSpec { from_url: some("ftp://x/genesis.json"), sha256: some(DIGEST), ..plain() }, "spec.genesis.fromUrl"),
        (v1::GenesisSpec { from_url: some("https://x/genesis.json"), sha256: some("12"), ..plain() }, "spec.genesis.sha256"),
        (v1::GenesisSpec { from_url: some("https://x/g"), from_file: some("/x/g"), sha256: some(DIGEST), ..plain() }, "spec.genesis"),
        (v1::GenesisSpec { from_export: some("export-1"), ..plain() }, "spec.genesis.fromExport"),
        (v1::GenesisSpec { sha256: some(DIGEST), ..plain() }, "spec.genesis.sha256"),
    ] {
        let refused = served.apply(fork(genesis.clone())).await.unwrap_err();
        assert_eq!((refused.code, refused.violations[0].field.as_str()), (FaultCode::InvalidSpec, field), "{genesis:?}");
    }
}

#[tokio::test]
async fn a_node_may_be_called_as_an_export_is() {
    let served = served().await;
    served.add_nodes("mynet", 1).await;
    let Some(Object::Node(node)) = served.cx.store.get(&Key::node("default", "mynet/validator-0")).await.unwrap() else { panic!("it was added") };
    let mut service = Node::clone(&node);
    service.metadata.name = "mynet/export-7".into();
    service.metadata.resource_version = 0;
    served.cx.store.commit(vec![Write::create(service)]).await.unwrap();
    let headline = async |name: &str| {
        let request = v1::ExplainRequest { name: name.into(), ..v1::ExplainRequest::default() };
        served.devnets().explain(request).await.unwrap().into_inner().headline
    };
    assert!(headline("mynet/export-7").await.starts_with("Node "));
    client(&served).create(export("", None)).await.unwrap();
    assert!(headline("mynet/export-1").await.starts_with("Export "));
}
