//! TransactionService over a real socket.

use super::super::testing::{Served, fault, next, object_ref, serve, wanted};
use crate::model::{FaultCode, Key, Kind, Object, Transaction, TransactionPhase};
use crate::store::{Selector, Write};
use dvb_proto::devnet::v1::{self, transaction_service_client::TransactionServiceClient};
use std::sync::Arc;
use tonic::transport::Channel;

/// What the fake chain can make something of.
const PAY: &str = r#"{"amount":1}"#;

fn client(served: &Served) -> TransactionServiceClient<Channel> {
    TransactionServiceClient::new(served.channel.clone())
}

fn tx(request_id: &str, payload: &str) -> v1::Transaction {
    let spec = v1::TransactionSpec {
        devnet_ref: "mynet".into(),
        tx_type: "transfer".into(),
        signer: "account:0".into(),
        payload: payload.into(),
        request_id: request_id.into(),
        ..v1::TransactionSpec::default()
    };
    v1::Transaction { spec: Some(spec), ..v1::Transaction::default() }
}

fn name(tx: &v1::Transaction) -> String {
    tx.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default()
}

async fn served() -> Served {
    let served = serve().await;
    served.apply(wanted("mynet")).await.unwrap();
    served
}

async fn stored(served: &Served) -> usize {
    served.cx.store.list(&Selector::kind(Kind::Transaction)).await.unwrap().0.len()
}

#[tokio::test]
async fn a_second_submit_with_the_request_id_is_the_same_transaction_and_another_is_refused() {
    let served = served().await;
    let first = client(&served).create(tx("rent", r#"{"to":"account:1","amount":1}"#)).await.unwrap().into_inner();
    assert_eq!(first.status.as_ref().map(|status| status.phase.as_str()), Some("Pending"));
    let again = client(&served).create(tx("rent", r#"{"to":"account:1","amount":1}"#)).await.unwrap().into_inner();
    assert_eq!(again, first);
    let other = fault(&client(&served).create(tx("rent", r#"{"to":"account:2","amount":1}"#)).await.unwrap_err());
    assert_eq!(other.code, FaultCode::AlreadyExists);
    assert_eq!(stored(&served).await, 1);
    let unnamed = client(&served).create(tx("", PAY)).await.unwrap().into_inner();
    assert_ne!(name(&unnamed), name(&first));
}

#[tokio::test]
async fn what_is_wrong_without_asking_the_chain_is_refused() {
    let served = served().await;
    for (edit, field) in [
        ((|spec| spec.payload = "[1]".into()) as fn(&mut v1::TransactionSpec), "spec.payload"),
        (|spec| spec.payload = "{".into(), "spec.payload"),
        (|spec| spec.signer.clear(), "spec.signer"),
        (|spec| spec.gas_factor = 0.5, "spec.gasFactor"),
    ] {
        let mut wrong = tx("x", PAY);
        edit(wrong.spec.as_mut().unwrap());
        let fault = fault(&client(&served).create(wrong).await.unwrap_err());
        assert_eq!((fault.code, fault.violations[0].field.as_str()), (FaultCode::InvalidSpec, field));
    }
    let mut nowhere = tx("x", PAY);
    nowhere.spec.as_mut().unwrap().devnet_ref = "nope".into();
    assert_eq!(fault(&client(&served).create(nowhere).await.unwrap_err()).code, FaultCode::NotFound);
    assert_eq!(stored(&served).await, 0);
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order_and_ends_with_the_first_that_is_refused() {
    let served = served().await;
    let batch = vec![tx("a", PAY), tx("b", PAY), tx("a", PAY), tx("c", "[]"), tx("d", PAY)];
    let mut answers = client(&served).create_batch(futures::stream::iter(batch)).await.unwrap().into_inner();
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(name(&next(&mut answers).await.unwrap().unwrap()));
    }
    assert!(names[0] == names[2] && names[0] != names[1], "{names:?}");
    let refused = next(&mut answers).await.unwrap().unwrap_err();
    assert_eq!(fault(&refused).code, FaultCode::InvalidSpec);
    assert!(next(&mut answers).await.is_none());
    assert_eq!(stored(&served).await, 2);
    let events = served.cx.store.events(&crate::store::EventFilter::default()).await.unwrap();
    let told: Vec<_> = events.iter().filter(|event| event.reason == "TransactionSubmitted").collect();
    assert!(told.len() <= 2, "one event for all that came together: {told:?}");
}

#[tokio::test]
async fn what_the_plugin_knows_to_be_impossible_is_refused_and_what_it_cannot_tell_is_not() {
    let served = served().await;
    for (edit, field, says) in [
        ((|spec| spec.tx_type = "transfers".into()) as fn(&mut v1::TransactionSpec), "spec.txType", "there is transfer"),
        (|spec| spec.signer = "bob".into(), "spec.signer", "no signer"),
        (|spec| spec.payload = r#"{"amount":"x"}"#.into(), "spec.payload", "no number"),
    ] {
        let mut wrong = tx("x", PAY);
        edit(wrong.spec.as_mut().unwrap());
        let fault = fault(&client(&served).create(wrong).await.unwrap_err());
        assert_eq!((fault.code, fault.violations[0].field.as_str()), (FaultCode::InvalidSpec, field));
        assert!(fault.message.contains(says), "{fault:?}");
    }
    assert_eq!(stored(&served).await, 0);
    let first = client(&served).create(tx("y", PAY)).await.unwrap().into_inner();
    // Those before it are stored and answered, whatever came together with it.
    let batch = vec![tx("y", PAY), tx("a", PAY), tx("b", r#"{"amount":"x"}"#), tx("c", PAY)];
    let mut answers = client(&served).create_batch(futures::stream::iter(batch)).await.unwrap().into_inner();
    assert_eq!(name(&next(&mut answers).await.unwrap().unwrap()), name(&first));
    next(&mut answers).await.unwrap().unwrap();
    assert_eq!(fault(&next(&mut answers).await.unwrap().unwrap_err()).violations[0].field, "spec.payload");
    assert_eq!(stored(&served).await, 2);
    let ill = crate::plugin::PluginError::Exited { name: "fake".into(), call: "BuildTx".into(), status: "1".into(), stderr_tail: String::new() };
    served.plugin.fail_next("build", ill);
    client(&served).create(tx("z", r#"{"amount":"x"}"#)).await.unwrap();
}

#[tokio::test]
async fn a_used_request_id_in_a_batch_is_answered_in_its_place() {
    let served = served().await;
    client(&served).create(tx("b", PAY)).await.unwrap();
    let batch = vec![tx("a", PAY), tx("b", r#"{"amount":2}"#), tx("c", PAY)];
    let mut answers = client(&served).create_batch(futures::stream::iter(batch)).await.unwrap().into_inner();
    next(&mut answers).await.unwrap().unwrap();
    assert_eq!(fault(&next(&mut answers).await.unwrap().unwrap_err()).code, FaultCode::AlreadyExists);
}

#[tokio::test]
async fn what_may_be_in_a_block_cannot_be_deleted() {
    let served = served().await;
    let made = client(&served).create(tx("a", PAY)).await.unwrap().into_inner();
    let key = Key::transaction("default", &name(&made));
    let Some(Object::Transaction(stored)) = served.cx.store.get(&key).await.unwrap() else { panic!("it is stored") };
    let mut sent = Transaction::clone(&stored);
    sent.status.phase = TransactionPhase::Submitted;
    served.cx.store.commit(vec![Write::update(sent)]).await.unwrap();
    let delete = || v1::DeleteRequest { name: name(&made), ..v1::DeleteRequest::default() };
    assert_eq!(fault(&client(&served).delete(delete()).await.unwrap_err()).code, FaultCode::Immutable);
    let Some(Object::Transaction(stored)) = served.cx.store.get(&key).await.unwrap() else { panic!("it is stored") };
    let mut done = Transaction::clone(&Arc::unwrap_or_clone(stored));
    done.status.phase = TransactionPhase::Confirmed;
    served.cx.store.commit(vec![Write::update(done)]).await.unwrap();
    client(&served).delete(delete()).await.unwrap();
    assert_eq!(fault(&client(&served).get(object_ref(&name(&made))).await.unwrap_err()).code, FaultCode::NotFound);
}

#[tokio::test]
async fn why_tells_who_submitted_a_transaction() {
    let served = served().await;
    let made = client(&served).create(tx("a", PAY)).await.unwrap().into_inner();
    for kind in ["", "Transaction"] {
        let request = v1::ExplainRequest { kind: kind.into(), name: name(&made), ..v1::ExplainRequest::default() };
        let told = served.devnets().explain(request).await.unwrap().into_inner();
        assert!(told.headline.contains("Pending"), "{}", told.headline);
        assert_eq!(told.chain.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["TransactionSubmitted"]);
    }
}

#[tokio::test]
async fn what_was_confirmed_before_a_reset_is_told_as_of_the_former_chain() {
    let served = served().await;
    let made = client(&served).create(tx("a", PAY)).await.unwrap().into_inner();
    let key = Key::transaction("default", &name(&made));
    let Some(Object::Transaction(stored)) = served.cx.store.get(&key).await.unwrap() else { panic!("it is stored") };
    let mut done = Transaction::clone(&stored);
    done.status.phase = TransactionPhase::Confirmed;
    served.cx.store.commit(vec![Write::update(done)]).await.unwrap();
    let former = async || {
        let listed = client(&served).list(v1::ListRequest::default()).await.unwrap().into_inner().items.remove(0);
        let got = client(&served).get(object_ref(&name(&made))).await.unwrap().into_inner();
        let mut changes = client(&served).watch(v1::WatchRequest::default()).await.unwrap().into_inner();
        let seen = next(&mut changes).await.unwrap().unwrap().object.unwrap();
        let told = [listed, got, seen].map(|tx| tx.status.unwrap().former_chain);
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        told[0]
    };
    assert!(!former().await);
    served.devnets().reset(object_ref("mynet")).await.unwrap();
    assert!(former().await);
}

#[tokio::test]
async fn who_waits_for_ends_is_told_of_ends_alone() {
    let served = served().await;
    let comes_to = async |request_id: &str, phase: TransactionPhase| {
        let key = Key::transaction("default", &Transaction::name_of("mynet", request_id));
        let object = served.cx.store.get(&key).await.unwrap().unwrap();
        let mut tx = Transaction::clone(&Arc::<Transaction>::try_from(object).unwrap());
        tx.status.phase = phase;
        served.cx.store.commit(vec![Write::update(tx)]).await.unwrap();
    };
    let selector = |phases: &[&str]| {
        let phases = phases.iter().map(|phase| (*phase).to_owned()).collect();
        v1::ListRequest { devnet: "mynet".into(), phases, ..v1::ListRequest::default() }
    };
    for request_id in ["old", "rent", "food"] {
        client(&served).create(tx(request_id, PAY)).await.unwrap();
    }
    comes_to("old", TransactionPhase::Confirmed).await;
    let listed = client(&served).list(selector(&["Pending", "Signing"])).await.unwrap().into_inner();
    assert_eq!(listed.items.len(), 2);

    let selected = Some(selector(&["Confirmed", "Failed"]));
    let request = v1::WatchRequest { selector: selected, resource_version: Some(listed.resource_version), ..v1::WatchRequest::default() };
    let mut ends = client(&served).watch(request).await.unwrap().into_inner();
    comes_to("rent", TransactionPhase::Submitted).await;
    comes_to("food", TransactionPhase::Failed).await;
    comes_to("rent", TransactionPhase::Confirmed).await;
    for (request_id, phase) in [("food", "Failed"), ("rent", "Confirmed")] {
        let told = next(&mut ends).await.unwrap().unwrap().object.unwrap();
        assert_eq!((name(&told), told.status.unwrap().phase.as_str()), (Transaction::name_of("mynet", request_id), phase));
    }

    let unknown = fault(&client(&served).list(selector(&["Done"])).await.unwrap_err());
    assert!(unknown.code == FaultCode::InvalidSpec && format!("{unknown:?}").contains("Submitted"), "{unknown:?}");
}
