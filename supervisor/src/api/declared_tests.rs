//! Apply of transactions, upgrades and exports over a real socket.

use super::super::testing::{Served, fault, object_ref, serve, wanted};
use crate::model::{BinarySource, BinaryStatus, FaultCode, Key, Object, PastUpgrade, Upgrade, UpgradePhase};
use crate::store::{Selector, Write};
use dvb_proto::devnet::v1::{
    self, export_service_client::ExportServiceClient, transaction_service_client::TransactionServiceClient,
    upgrade_service_client::UpgradeServiceClient,
};
use tonic::Status;

async fn served() -> Served {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served
}

fn named(name: &str) -> Option<v1::Metadata> {
    Some(v1::Metadata { name: name.into(), ..v1::Metadata::default() })
}

fn tx(name: &str, to: &str) -> v1::Transaction {
    let spec = v1::TransactionSpec {
        devnet_ref: "mynet".into(),
        tx_type: "transfer".into(),
        signer: "account:0".into(),
        payload: format!(r#"{{"to":"{to}","amount":1}}"#),
        ..v1::TransactionSpec::default()
    };
    v1::Transaction { metadata: named(name), spec: Some(spec), ..v1::Transaction::default() }
}

async fn apply_tx(served: &Served, transaction: v1::Transaction, dry_run: bool) -> Result<v1::ApplyTransactionResponse, Status> {
    let request = v1::ApplyTransactionRequest { transaction: Some(transaction), dry_run, beside: None };
    TransactionServiceClient::new(served.channel.clone()).apply(request).await.map(tonic::Response::into_inner)
}

fn upgrade(name: &str, edit: impl FnOnce(&mut v1::UpgradeSpec)) -> v1::Upgrade {
    let binary = Some(v1::BinarySource { path: Some("/bin/cat".into()), ..v1::BinarySource::default() });
    let mut spec = v1::UpgradeSpec { devnet_ref: "mynet".into(), height: 99, binary, skip_vote: true, ..v1::UpgradeSpec::default() };
    edit(&mut spec);
    v1::Upgrade { metadata: named(name), spec: Some(spec), ..v1::Upgrade::default() }
}

async fn apply_upgrade(served: &Served, upgrade: v1::Upgrade, dry_run: bool) -> Result<v1::ApplyUpgradeResponse, Status> {
    let request = v1::ApplyUpgradeRequest { upgrade: Some(upgrade), dry_run, beside: None };
    UpgradeServiceClient::new(served.channel.clone()).apply(request).await.map(tonic::Response::into_inner)
}

async fn stored(served: &Served, kind: crate::model::Kind) -> usize {
    served.cx.store.list(&Selector::kind(kind)).await.unwrap().0.len()
}

#[tokio::test]
async fn a_transactions_name_is_its_request_id_and_applied_twice_it_is_one() {
    let served = served().await;
    let looked = apply_tx(&served, tx("rent", "account:1"), true).await.unwrap();
    assert_eq!((looked.action.as_str(), stored(&served, crate::model::Kind::Transaction).await), ("created", 0));
    let made = apply_tx(&served, tx("rent", "account:1"), false).await.unwrap();
    assert!(made.action == "created" && made.changes.iter().any(|change| change.field == "spec.payload.to"), "{made:?}");
    let again = apply_tx(&served, tx("mynet/rent", "account:1"), false).await.unwrap();
    assert_eq!((again.action.as_str(), &again.transaction), ("unchanged", &made.transaction));
    // As it was read back.
    let exported = v1::Transaction { status: None, ..made.transaction.clone().unwrap() };
    assert_eq!(apply_tx(&served, exported, false).await.unwrap().action, "unchanged");
    let other = fault(&apply_tx(&served, tx("rent", "account:2"), false).await.unwrap_err());
    assert_eq!((other.code, other.violations[0].field.as_str()), (FaultCode::Immutable, "spec.payload.to"));
    let mut torn = tx("rent", "account:1");
    torn.spec.as_mut().unwrap().request_id = "food".into();
    assert_eq!(fault(&apply_tx(&served, torn, false).await.unwrap_err()).violations[0].field, "metadata.name");
    assert_eq!(stored(&served, crate::model::Kind::Transaction).await, 1);
    let mut transactions = TransactionServiceClient::new(served.channel.clone());
    let found = transactions.get(object_ref("mynet/rent")).await.unwrap().into_inner();
    assert_eq!(Some(found), made.transaction);
    transactions.delete(v1::DeleteRequest { name: "mynet/rent".into(), ..v1::DeleteRequest::default() }).await.unwrap();
    assert_eq!(stored(&served, crate::model::Kind::Transaction).await, 0);
}

#[tokio::test]
async fn an_upgrade_of_before_a_reset_is_told_as_of_the_former_chain() {
    let served = served().await;
    apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap();
    let former = async || {
        let applied = apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap().upgrade.unwrap();
        let mut client = UpgradeServiceClient::new(served.channel.clone());
        let listed = client.list(v1::ListRequest::default()).await.unwrap().into_inner().items.remove(0);
        let got = client.get(object_ref("mynet/v2")).await.unwrap().into_inner();
        let mut changes = client.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
        let seen = changes.message().await.unwrap().unwrap().object.unwrap();
        let told = [applied, listed, got, seen].map(|upgrade| upgrade.status.unwrap().former_chain);
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        told[0]
    };
    assert!(!former().await);
    served.devnets().reset(object_ref("mynet")).await.unwrap();
    assert!(former().await);
}

#[tokio::test]
async fn an_upgrade_is_begun_once_and_what_verbs_set_is_no_change() {
    let served = served().await;
    let made = apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap();
    let name = made.upgrade.clone().unwrap().metadata.unwrap().name;
    assert_eq!((made.action.as_str(), name.as_str()), ("created", "mynet/v2"));
    assert_eq!(made.upgrade.unwrap().spec.unwrap().upgrade_name, "v2");
    let cancel = UpgradeServiceClient::new(served.channel.clone()).cancel(object_ref("mynet/v2")).await.unwrap().into_inner();
    assert!(cancel.spec.unwrap().cancel);
    assert_eq!(apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap().action, "unchanged");
    let other = fault(&apply_upgrade(&served, upgrade("v2", |spec| spec.height = 100), false).await.unwrap_err());
    assert_eq!((other.code, other.violations[0].field.as_str()), (FaultCode::Immutable, "spec.height"));
    assert!(other.remedy.unwrap().contains("dvbctl upgrade cancel mynet/v2"));
    let Some(Object::Upgrade(present)) = served.cx.store.get(&Key::upgrade("default", "mynet/v2")).await.unwrap() else { panic!("it is there") };
    let mut done = Upgrade::clone(&present);
    done.status.phase = UpgradePhase::Failed;
    served.cx.store.commit(vec![Write::update(done)]).await.unwrap();
    let mut labelled = upgrade("v2", |_| {});
    labelled.metadata.as_mut().unwrap().labels.insert("team".into(), "core".into());
    assert_eq!(apply_upgrade(&served, labelled, false).await.unwrap().action, "configured");
    let begun = fault(&apply_upgrade(&served, upgrade("v3", |spec| spec.cancel = true), false).await.unwrap_err());
    assert_eq!(begun.violations[0].field, "spec.cancel");
    let torn = fault(&apply_upgrade(&served, upgrade("v3", |spec| spec.upgrade_name = "v4".into()), true).await.unwrap_err());
    assert_eq!(torn.violations[0].suggestion.as_deref(), Some("v4"));
    let elsewhere = fault(&apply_upgrade(&served, upgrade("other/v3", |_| {}), true).await.unwrap_err());
    assert_eq!(elsewhere.violations[0].field, "metadata.name");
    assert_eq!(stored(&served, crate::model::Kind::Upgrade).await, 1);
}

#[tokio::test]
async fn an_export_is_made_once_and_needs_a_name() {
    let served = served().await;
    let apply = async |name: &str, height: Option<u64>, dry_run: bool| {
        let spec = v1::ExportSpec { devnet_ref: "mynet".into(), height, ..v1::ExportSpec::default() };
        let export = Some(v1::Export { metadata: named(name), spec: Some(spec), ..v1::Export::default() });
        let answer = ExportServiceClient::new(served.channel.clone()).apply(v1::ApplyExportRequest { export, dry_run, beside: None }).await;
        answer.map(|response| response.into_inner().action).map_err(|status| fault(&status))
    };
    assert_eq!(apply("snap", Some(7), true).await.unwrap(), "created");
    assert_eq!(stored(&served, crate::model::Kind::Export).await, 0);
    assert_eq!(apply("snap", Some(7), false).await.unwrap(), "created");
    assert_eq!(apply("mynet/snap", Some(7), false).await.unwrap(), "unchanged");
    assert_eq!(apply("snap", None, false).await.unwrap_err().violations[0].field, "spec.height");
    assert_eq!(apply("", None, false).await.unwrap_err().violations[0].field, "metadata.name");
}

#[tokio::test]
async fn the_binary_of_before_an_upgrade_is_refused_until_the_chain_begins_anew() {
    let served = serve().await;
    let with_binary = |path: Option<&str>| {
        let mut devnet = wanted("mynet");
        let binary = path.map(|path| v1::BinarySource { path: Some(path.into()), ..v1::BinarySource::default() });
        devnet.spec.as_mut().unwrap().binary = binary;
        devnet
    };
    served.apply(with_binary(None)).await.unwrap();
    apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap();
    let Some(Object::Upgrade(present)) = served.cx.store.get(&Key::upgrade("default", "mynet/v2")).await.unwrap() else { panic!("it is there") };
    let mut done = Upgrade::clone(&present);
    done.status.phase = UpgradePhase::Completed;
    done.status.notes.before = Some(crate::model::Before::default());
    let binary = done.spec.binary.clone();
    served.cx.store.commit(vec![Write::update(done)]).await.unwrap();
    served.edit_devnet("mynet", |devnet| devnet.spec.binary = Some(binary)).await;
    for dry_run in [false, true] {
        let sent = if dry_run { served.dry_run(with_binary(None)).await } else { served.apply(with_binary(None)).await };
        let refused = sent.unwrap_err();
        assert_eq!((refused.code, refused.violations[0].field.as_str()), (FaultCode::Immutable, "spec.binary"));
        assert!(refused.message.contains("upgrade mynet/v2") && refused.remedy.unwrap().contains(r#"{"path":"/bin/cat"}"#), "{}", refused.message);
    }
    assert_eq!(served.apply(with_binary(Some("/bin/cat"))).await.unwrap().action, "unchanged");
    let beside = async |upgrades: &[&str]| {
        let upgrades = upgrades.iter().map(|name| (*name).to_owned()).collect();
        let request = v1::ApplyRequest { devnet: Some(with_binary(None)), dry_run: false, upgrades };
        served.devnets().apply(request).await.map(tonic::Response::into_inner).map_err(|status| fault(&status))
    };
    let fulfilled = beside(&["v2"]).await.unwrap();
    assert_eq!(fulfilled.action, "unchanged");
    assert!(fulfilled.note.unwrap().contains("by upgrade mynet/v2, which the file declares"));
    assert_eq!(beside(&["v3"]).await.unwrap_err().code, FaultCode::Immutable, "another upgrade did not bring it there");
    served
        .edit_devnet("mynet", |devnet| {
            let source = |path: &str| BinarySource { path: Some(path.into()), ..BinarySource::default() };
            let past = |name: &str, before: Option<&str>, after: &str| PastUpgrade {
                name: name.into(),
                before: before.map(source),
                after: source(after),
                ..PastUpgrade::default()
            };
            devnet.status.upgrades = vec![past("v2", None, "/bin/cat"), past("v3", Some("/bin/cat"), "/bin/third")];
            devnet.spec.binary = Some(source("/bin/third"));
        })
        .await;
    let delete = v1::DeleteRequest { name: "mynet/v2".into(), ..v1::DeleteRequest::default() };
    UpgradeServiceClient::new(served.channel.clone()).delete(delete).await.unwrap();
    for old in [None, Some("/bin/cat")] {
        assert_eq!(served.apply(with_binary(old)).await.unwrap_err().code, FaultCode::Immutable, "the record is the devnet's own");
    }
    assert_eq!(beside(&["v2"]).await.unwrap_err().code, FaultCode::Immutable, "v3 is not in the file");
    let fulfilled = beside(&["v2", "v3"]).await.unwrap();
    assert_eq!(fulfilled.action, "unchanged");
    assert!(fulfilled.note.unwrap().contains("mynet/v2, mynet/v3"));
    served.apply(with_binary(Some("/bin/fourth"))).await.unwrap();
    served.devnets().reset(object_ref("mynet")).await.unwrap();
    served.apply(with_binary(None)).await.unwrap();
}

#[tokio::test]
async fn a_file_of_before_a_rolling_upgrade_takes_the_new_binary_from_no_node_while_it_goes_on() {
    let served = serve().await;
    let source = |path: &str| v1::BinarySource { path: Some(path.into()), ..v1::BinarySource::default() };
    // As its user wrote it: validator-1 has an argument and the old binary, of its own.
    let file = |path: &str| {
        let mut devnet = wanted("mynet");
        let own =
            v1::NodeOverride { name: "validator-1".into(), args: vec!["--x".into()], binary: Some(source(path)), ..v1::NodeOverride::default() };
        devnet.spec.as_mut().unwrap().nodes = vec![own];
        devnet
    };
    let first = served.apply(file("/bin/old")).await.unwrap().devnet.unwrap();
    assert!(first.spec.unwrap().validators.unwrap() >= 2);
    apply_upgrade(&served, upgrade("v2", |spec| (spec.rolling, spec.skip_vote, spec.height) = (true, true, 0)), false).await.unwrap();
    let key = Key::upgrade("default", "mynet/v2");
    let edit = async |edit: &dyn Fn(&mut Upgrade)| {
        let Some(Object::Upgrade(present)) = served.cx.store.get(&key).await.unwrap() else { panic!("it is there") };
        let mut next = Upgrade::clone(&present);
        edit(&mut next);
        served.cx.store.commit(vec![Write::update(next.clone())]).await.unwrap();
        next
    };
    let Some(Object::Devnet(devnet)) = served.cx.store.get(&Key::devnet("default", "mynet")).await.unwrap() else { panic!("it is there") };
    let before = devnet.spec.nodes.clone();
    let rolled = edit(&|upgrade| {
        upgrade.status.phase = UpgradePhase::Switching;
        upgrade.status.notes.before = Some(crate::model::Before { nodes: before.clone(), ..crate::model::Before::default() });
        upgrade.status.notes.rolled = ["validator-0", "validator-1", "fullnode-99"].map(str::to_owned).into();
    })
    .await;
    served
        .edit_devnet("mynet", |devnet| {
            let given = crate::model::NodeOverride { name: "validator-0".into(), ..crate::model::NodeOverride::default() };
            devnet.spec.nodes.push(given);
            devnet.spec.nodes.iter_mut().for_each(|node| node.binary = Some(rolled.spec.binary.clone()));
        })
        .await;
    let apply = async |path: &str| {
        let applied = served.apply(file(path)).await.unwrap();
        let nodes = applied.devnet.unwrap().spec.unwrap().nodes;
        let binaries: Vec<String> = nodes.into_iter().map(|node| format!("{} {}", node.name, node.binary.unwrap().path.unwrap())).collect();
        (applied.action, binaries.join(", "))
    };
    let told = |action: &str, nodes: &str| (action.to_owned(), nodes.to_owned());
    assert_eq!(apply("/bin/old").await, told("unchanged", "validator-1 /bin/cat, validator-0 /bin/cat"));
    assert_eq!(apply("/bin/third").await, told("configured", "validator-1 /bin/third, validator-0 /bin/cat"));
    edit(&|upgrade| upgrade.status.phase = UpgradePhase::RolledBack).await;
    assert_eq!(apply("/bin/old").await, told("configured", "validator-1 /bin/old"));
}

#[tokio::test]
async fn an_upgrade_or_an_export_without_hope_is_refused_when_it_is_asked_for() {
    let served = served().await;
    let upgrade_with = |edit: &dyn Fn(&mut v1::UpgradeSpec)| upgrade("v2", |spec| edit(spec));
    let path = |path: &str| Some(v1::BinarySource { path: Some(path.into()), ..v1::BinarySource::default() });
    let refused = async |edit: &dyn Fn(&mut v1::UpgradeSpec)| {
        let looked = fault(&apply_upgrade(&served, upgrade_with(edit), true).await.unwrap_err());
        let made = fault(&apply_upgrade(&served, upgrade_with(edit), false).await.unwrap_err());
        assert_eq!(looked.message, made.message);
        assert!(made.remedy.is_some(), "{}", made.message);
        (made.violations[0].field.clone(), made.message)
    };
    let (field, message) = refused(&|spec| spec.binary = path("/no/such/binary")).await;
    assert_eq!((field.as_str(), message.as_str()), ("spec.binary", "binary /no/such/binary does not exist"));
    assert!(refused(&|spec| spec.binary = path("/etc/passwd")).await.1.contains("is not executable"));
    let url = || Some(v1::BinarySource { url: Some("http://127.0.0.1/x".into()), ..v1::BinarySource::default() });
    assert!(refused(&|spec| spec.binary = url()).await.1.contains("url without sha256"));
    let (field, message) = refused(&|spec| spec.skip_vote = false).await;
    assert!(field == "spec.skipVote" && message.contains("has no governance"), "{message}");
    served
        .edit_devnet("mynet", |devnet| {
            let sha256 = binaries_sha256("/bin/cat");
            devnet.status.binary = Some(BinaryStatus { path: "/bin/cat".into(), sha256, ..BinaryStatus::default() });
        })
        .await;
    let same = fault(&apply_upgrade(&served, upgrade("v2", |_| {}), false).await.unwrap_err());
    assert_eq!((same.violations[0].field.as_str(), same.message.contains("runs already")), ("spec.binary", true), "{}", same.message);
    assert_eq!(stored(&served, crate::model::Kind::Upgrade).await, 0);

    let export = |node: &str| {
        let spec = v1::ExportSpec { devnet_ref: "mynet".into(), node: Some(node.into()), ..v1::ExportSpec::default() };
        v1::Export { metadata: named("snap"), spec: Some(spec), ..v1::Export::default() }
    };
    let unknown = ExportServiceClient::new(served.channel.clone()).create(export("validator-77")).await.unwrap_err();
    assert_eq!(fault(&unknown).violations[0].field, "spec.node");
    ExportServiceClient::new(served.channel.clone()).create(export("validator-0")).await.unwrap();
}

fn binaries_sha256(path: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_dry_run_knows_the_devnet_that_the_same_file_makes() {
    let served = serve().await;
    let looked = async |kind: &str, beside: Option<v1::Devnet>| {
        let mut wanted = tx("rent", "account:1");
        wanted.spec.as_mut().unwrap().tx_type = kind.to_owned();
        let request = v1::ApplyTransactionRequest { transaction: Some(wanted), dry_run: true, beside };
        TransactionServiceClient::new(served.channel.clone()).apply(request).await.map(|answer| answer.into_inner().action)
    };
    assert_eq!(fault(&looked("transfer", None).await.unwrap_err()).code, FaultCode::NotFound);
    assert_eq!(looked("transfer", Some(wanted("mynet"))).await.unwrap(), "created");
    assert_eq!(fault(&looked("trasnfer", Some(wanted("mynet"))).await.unwrap_err()).violations[0].field, "spec.txType");
    assert_eq!(stored(&served, crate::model::Kind::Devnet).await, 0);
}
