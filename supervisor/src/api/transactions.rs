//! TransactionService: stores what is wanted, once for each request id. The controller does the rest.

use super::{
    Context, admission,
    auth::Caller,
    change::key_of,
    convert,
    declared::{Applied, short_name},
    devnets::reply,
    impossible, status,
    watch::{self, Item},
};
use crate::{
    events::Recorder,
    model::{Devnet, Fault, FaultCode, Key, Kind, Meta, Object, Transaction, TransactionPhase, TransactionStatus, Uid, Violation},
    observe::Observations,
    plugin::tx::TX_CAPABILITY,
    store::{Expect, Selector, StoreError, Write},
};
use dvb_proto::devnet::v1::{self, transaction_service_server::TransactionService};
use futures::{StreamExt, stream, stream::BoxStream};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Request, Response, Status, Streaming};

/// Transactions of a batch that go into one commit, as far as they have come.
const CHUNK: usize = 256;
/// A payload or a memo of more bytes is refused.
const MAX_TEXT: usize = 512 << 10;
/// How often a commit is tried again when somebody else stored one of its transactions in between.
const ATTEMPTS: usize = 8;

#[derive(Clone)]
pub(super) struct Transactions(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl TransactionService for Transactions {
    async fn create(&self, request: Request<v1::Transaction>) -> Reply<v1::Transaction> {
        let caller = Caller::of(&request)?;
        let wanted = convert::transaction_from_message(request.get_ref()).and_then(check);
        reply(match wanted {
            Ok(wanted) => self.submit_one(caller, wanted).await.and_then(|object| message(&object)),
            Err(fault) => Err(fault),
        })
    }

    async fn apply(&self, request: Request<v1::ApplyTransactionRequest>) -> Reply<v1::ApplyTransactionResponse> {
        let caller = Caller::of(&request)?;
        let v1::ApplyTransactionRequest { transaction, dry_run, beside } = request.into_inner();
        let wanted = convert::transaction_from_message(&transaction.unwrap_or_default()).and_then(check);
        let applied = match wanted {
            Ok(wanted) => self.put(caller, wanted, beside.as_ref(), dry_run).await.and_then(|applied| {
                let transaction = message(&applied.object)?;
                let (action, changes) = applied.told();
                Ok((transaction, action, changes))
            }),
            Err(fault) => Err(fault),
        };
        reply(match applied {
            Ok((transaction, action, changes)) => {
                Ok(v1::ApplyTransactionResponse { transaction: Some(self.dated(transaction).await), action, changes })
            }
            Err(fault) => Err(fault),
        })
    }

    type CreateBatchStream = BoxStream<'static, Result<v1::Transaction, Status>>;
    async fn create_batch(&self, request: Request<Streaming<v1::Transaction>>) -> Reply<Self::CreateBatchStream> {
        let caller = Caller::of(&request)?;
        let service = self.clone();
        let chunks = request.into_inner().ready_chunks(CHUNK);
        let stored = chunks.then(move |chunk| {
            let service = service.clone();
            async move { stream::iter(service.store_chunk(caller, chunk).await) }
        });
        // The first refusal is the last answer.
        let answers = stored.flatten().scan(false, |ended, answer| {
            let item = (!*ended).then_some(answer);
            *ended |= item.as_ref().is_some_and(Result::is_err);
            std::future::ready(item)
        });
        Ok(Response::new(watch::until_shutdown(answers, self.0.shutdown.clone())))
    }

    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Transaction> {
        let wanted = request.into_inner();
        let found = self.find(&wanted.namespace, &wanted.name).await.and_then(|object| message(&object));
        reply(match found {
            Ok(tx) => Ok(self.dated(tx).await),
            Err(fault) => Err(fault),
        })
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListTransactionsResponse> {
        reply(match selector(request.get_ref(), "") {
            Ok(selector) => self.listed(&selector).await,
            Err(fault) => Err(fault),
        })
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Transaction> {
        reply(self.remove(&request.into_inner()).await)
    }

    async fn list_types(&self, request: Request<v1::TxTypesRequest>) -> Reply<v1::TxTypesResponse> {
        reply(self.types(request.get_ref()).await)
    }

    type WatchStream = BoxStream<'static, Result<v1::TransactionEvent, Status>>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let watch = match selector(&request.selector.unwrap_or_default(), &request.name) {
            Ok(selector) => watch::watch(&self.0, selector, request.resource_version).await,
            Err(fault) => Err(fault),
        };
        let service = self.clone();
        let dated = move |event: Result<v1::TransactionEvent, Status>| {
            let service = service.clone();
            async move {
                let v1::TransactionEvent { r#type, object, resource_version } = event?;
                let object = match object {
                    Some(tx) => Some(service.dated(tx).await),
                    None => None,
                };
                Ok::<_, Status>(v1::TransactionEvent { r#type, object, resource_version })
            }
        };
        reply(watch.map(|watch| Box::pin(watch.into_stream(event).then(dated)) as Self::WatchStream))
    }
}

impl Transactions {
    /// What is there already is compared; what is not is submitted, or only looked at.
    async fn put(&self, caller: Caller, wanted: Transaction, beside: Option<&v1::Devnet>, dry_run: bool) -> Result<Applied, Fault> {
        let tx = self.identify(wanted.clone());
        if let Some(applied) = self.0.apply_present(caller, &tx.clone().into(), dry_run).await? {
            return Ok(applied);
        }
        if dry_run {
            let devnet = self.0.devnet_or(&Key::devnet(&tx.metadata.namespace, &tx.spec.devnet_ref), beside).await?;
            let refused = impossible::first(&self.0, &devnet, &[&tx]).await;
            return refused.map_or_else(|| Ok(Applied::created(tx.into())), |(_, fault)| Err(fault));
        }
        Ok(Applied::created(self.submit_one(caller, wanted).await?))
    }

    /// As it is stored, with the store's own times.
    async fn submit_one(&self, caller: Caller, wanted: Transaction) -> Result<Object, Fault> {
        let (stored, refused) = self.submit(caller, vec![wanted]).await?;
        if let Some(fault) = refused {
            return Err(fault);
        }
        let tx = stored.first().ok_or_else(|| Fault::new(FaultCode::Internal, "nothing was stored"))?;
        self.0.find(&Key::transaction(&tx.metadata.namespace, &tx.metadata.name)).await
    }

    async fn listed(&self, selector: &Selector) -> Result<v1::ListTransactionsResponse, Fault> {
        let (objects, resource_version) = self.0.store.list(selector).await.map_err(|error| error.fault())?;
        let mut items = objects.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let mut epochs: BTreeMap<Key, Option<u64>> = BTreeMap::new();
        for tx in items.iter_mut().filter(|tx| is_confirmed(tx)) {
            let key = devnet_of(tx);
            if !epochs.contains_key(&key) {
                epochs.insert(key.clone(), self.0.epoch(&key).await);
            }
            date(tx, epochs[&key]);
        }
        Ok(v1::ListTransactionsResponse { items, resource_version })
    }

    /// With a word on whether the chain that confirmed it is the present one.
    async fn dated(&self, mut tx: v1::Transaction) -> v1::Transaction {
        if is_confirmed(&tx) {
            let epoch = self.0.epoch(&devnet_of(&tx)).await;
            date(&mut tx, epoch);
        }
        tx
    }

    /// By its name, or by `DEVNET/REQUEST-ID`.
    async fn find(&self, namespace: &str, name: &str) -> Result<Object, Fault> {
        if let Some((devnet, request_id)) = name.split_once('/') {
            let key = key_of(Kind::Transaction, namespace, &Transaction::name_of(devnet, request_id));
            if let Some(object) = self.0.store.get(&key).await.map_err(|error| error.fault())? {
                return Ok(object);
            }
        }
        self.0.find(&key_of(Kind::Transaction, namespace, name)).await
    }

    /// An answer for each of the chunk up to its first that is refused.
    async fn store_chunk(&self, caller: Caller, chunk: Vec<Result<v1::Transaction, Status>>) -> Vec<Result<v1::Transaction, Status>> {
        let (mut wanted, mut refused) = (Vec::with_capacity(chunk.len()), None);
        for item in chunk {
            let checked = item.and_then(|item| convert::transaction_from_message(&item).and_then(check).map_err(|fault| status::status(&fault)));
            match checked {
                Ok(tx) => wanted.push(tx),
                Err(status) => {
                    refused = Some(Err(status));
                    break;
                }
            }
        }
        let (stored, refusal) = match self.submit(caller, wanted).await {
            Ok(stored) => stored,
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let refused = refusal.map(|fault| Err(status::status(&fault))).or(refused);
        stored.iter().map(|tx| convert::to_message(tx.as_ref()).map_err(|fault| status::status(&fault))).chain(refused).collect()
    }

    /// Stores those that are not there, in one commit, and answers with all of them in their order, up to the first that is refused.
    async fn submit(&self, caller: Caller, wanted: Vec<Transaction>) -> Result<(Vec<Arc<Transaction>>, Option<Fault>), Fault> {
        let mut wanted: Vec<Transaction> = wanted.into_iter().map(|tx| self.identify(tx)).collect();
        let mut devnets: BTreeMap<Key, Arc<Devnet>> = BTreeMap::new();
        for tx in &mut wanted {
            let key = Key::devnet(&tx.metadata.namespace, &tx.spec.devnet_ref);
            if !devnets.contains_key(&key) {
                devnets.insert(key.clone(), self.0.devnet(&key).await?);
            }
            tx.status.chain_epoch = devnets[&key].spec.operations.reset;
        }
        for _ in 0..ATTEMPTS {
            let mut present: BTreeMap<String, Arc<Transaction>> = BTreeMap::new();
            let mut missing: BTreeMap<String, usize> = BTreeMap::new();
            for (at, tx) in wanted.iter().enumerate() {
                let key = Key::transaction(&tx.metadata.namespace, &tx.metadata.name);
                match self.0.store.get(&key).await.map_err(|error| error.fault())? {
                    Some(Object::Transaction(stored)) => drop(present.insert(key.name, stored)),
                    _ => drop(missing.entry(key.name).or_insert(at)),
                }
            }
            let mut order: Vec<usize> = missing.into_values().collect();
            order.sort_unstable();
            let refused = self.first_impossible(&devnets, &wanted, &order).await;
            let end = refused.as_ref().map_or(wanted.len(), |(at, _)| *at);
            let fresh = order.into_iter().filter(|at| *at < end).map(|at| wanted[at].clone()).collect();
            match self.store(caller, fresh).await {
                Ok(stored) => {
                    present.extend(stored.into_iter().map(|tx| (tx.metadata.name.clone(), tx)));
                    return Ok(answers(&wanted[..end], &present, refused.map(|(_, fault)| fault)));
                }
                Err(StoreError::Exists(_)) => {} // somebody sent the same request id at the same time
                Err(error) => return Err(error.fault()),
            }
        }
        Err(Fault::new(FaultCode::Overloaded, "others store the same request ids at the same time").retriable())
    }

    /// Of those in `order`, which are places in `wanted`.
    async fn first_impossible(&self, devnets: &BTreeMap<Key, Arc<Devnet>>, wanted: &[Transaction], order: &[usize]) -> Option<(usize, Fault)> {
        let mut first: Option<(usize, Fault)> = None;
        for (key, devnet) in devnets {
            let is_its = |at: &&usize| Key::devnet(&wanted[**at].metadata.namespace, &wanted[**at].spec.devnet_ref) == *key;
            let places: Vec<usize> = order.iter().filter(is_its).copied().collect();
            let txs: Vec<&Transaction> = places.iter().map(|at| &wanted[*at]).collect();
            if let Some((at, fault)) = impossible::first(&self.0, devnet, &txs).await
                && first.as_ref().is_none_or(|(before, _)| places[at] < *before)
            {
                first = Some((places[at], fault));
            }
        }
        first
    }

    /// Its name comes from the request id, so that the store itself keeps a second submit out.
    fn identify(&self, mut tx: Transaction) -> Transaction {
        if tx.spec.request_id.is_empty() {
            tx.spec.request_id = self.0.clock.fresh_id().simple().to_string();
        }
        let now = self.0.clock.now();
        tx.metadata = Meta {
            name: Transaction::name_of(&tx.spec.devnet_ref, &tx.spec.request_id),
            namespace: admission::namespace_or_default(&tx.metadata.namespace).to_owned(),
            uid: Uid::from_uuid(self.0.clock.fresh_id()),
            labels: tx.metadata.labels,
            annotations: tx.metadata.annotations,
            generation: 1,
            created_at: now,
            updated_at: now,
            ..Meta::default()
        };
        tx.status = TransactionStatus::default();
        tx
    }

    /// One event tells of all of them.
    async fn store(&self, caller: Caller, mut fresh: Vec<Transaction>) -> Result<Vec<Arc<Transaction>>, StoreError> {
        let Some(first) = fresh.first() else { return Ok(Vec::new()) };
        let (subject, message) = match fresh.as_slice() {
            [one] => (Key::transaction(&one.metadata.namespace, &one.metadata.name), format!("{} by {}", one.spec.tx_type, one.spec.signer)),
            many => (Key::devnet(&first.metadata.namespace, &first.spec.devnet_ref), format!("{} transactions in a batch", many.len())),
        };
        let recorder = Recorder::new(self.0.clock.clone()).acting_as(&caller.actor());
        let event = recorder.event(&subject, "TransactionSubmitted").message(message).desired("Confirmed");
        fresh.iter_mut().for_each(|tx| tx.status.cause = Some(event.id()));
        let creates = fresh.iter().map(|tx| Write::create(tx.clone()));
        let last = self.0.store.commit(std::iter::once(event.write()).chain(creates).collect()).await?;
        let count = fresh.len() as u64;
        for (tx, back) in fresh.iter_mut().zip((0..count).rev()) {
            tx.metadata.resource_version = last - back; // the objects are the last writes of the commit
        }
        Ok(fresh.into_iter().map(Arc::new).collect())
    }

    async fn remove(&self, request: &v1::DeleteRequest) -> Result<v1::Transaction, Fault> {
        let object = self.find(&request.namespace, &request.name).await?;
        let key = object.key();
        let Object::Transaction(tx) = &object else { return Err(Fault::new(FaultCode::Internal, format!("{key} is no transaction"))) };
        let revision = object.revision();
        if let Some(expected) = request.resource_version.filter(|expected| *expected != 0 && *expected != revision) {
            return Err(StoreError::Conflict { key, expected, actual: revision }.fault());
        }
        if !tx.status.phase.is_final() && tx.status.phase != TransactionPhase::Pending {
            let message = format!("{} is {:?}: its signed bytes may be in a block at any time", key.name, tx.status.phase);
            return Err(Fault::new(FaultCode::Immutable, message).about(key.name.as_str()).remedy(format!("dvbctl tx status {} --wait", key.name)));
        }
        self.0.store.commit(vec![Write::Delete { key, expect: Expect::At(revision) }]).await.map_err(|error| error.fault())?;
        message(&object)
    }

    async fn types(&self, request: &v1::TxTypesRequest) -> Result<v1::TxTypesResponse, Fault> {
        let devnet = self.0.devnet(&key_of(Kind::Devnet, &request.namespace, &request.devnet)).await?;
        let plugin = self.0.plugins.get(&devnet.spec.plugin).await.map_err(|error| error.fault())?;
        let info = plugin.info().await.map_err(|error| error.fault())?;
        if !info.capabilities.iter().any(|capability| capability == TX_CAPABILITY) {
            return Err(Fault::new(FaultCode::Unimplemented, format!("plugin {} makes no transactions", devnet.spec.plugin)));
        }
        let context = impossible::context(&self.0, &devnet).await.unwrap_or_else(|| crate::plugin::DevnetContext::of(&devnet));
        let support = plugin.tx_support(&context).await.map_err(|error| error.fault())?;
        let item = |kind: crate::plugin::tx::TxType| v1::TxType { name: kind.name, description: kind.description, template: kind.template };
        Ok(v1::TxTypesResponse { items: support.types.into_iter().map(item).collect() })
    }
}

fn selector(request: &v1::ListRequest, name: &str) -> Result<Selector, Fault> {
    let phase = |word: &String| {
        let phase = TransactionPhase::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word));
        phase.map_err(|error| Fault::invalid(vec![Violation::new("phases", dvb_proto::words::plain(&error.to_string()))]))
    };
    let phases = request.phases.iter().map(phase).collect::<Result<_, _>>()?;
    Ok(Selector { phases, ..watch::selector(Kind::Transaction, request, name) })
}

/// What can be said of it without the chain. A name that it comes with is its request id.
fn check(mut tx: Transaction) -> Result<Transaction, Fault> {
    let spec = &mut tx.spec;
    let short = short_name(&tx.metadata.name, &mut spec.devnet_ref)?;
    let mut violations = Vec::new();
    if spec.request_id.is_empty() {
        spec.request_id = short;
    } else if !short.is_empty() && short != spec.request_id && Transaction::name_of("", &spec.request_id) != format!("/{short}") {
        let message =
            format!("is `{short}`, and spec.requestId `{}`: leave one of the two out, either is the transaction's identity", spec.request_id);
        violations.push(Violation::new("metadata.name", message));
    }
    let spec = &tx.spec;
    for (field, text) in [("spec.devnetRef", &spec.devnet_ref), ("spec.txType", &spec.tx_type), ("spec.signer", &spec.signer)] {
        if text.is_empty() {
            violations.push(Violation::new(field, "is missing"));
        }
    }
    if !spec.payload.is_object() {
        violations.push(Violation::new("spec.payload", "must be a JSON object, as in `dvbctl tx templates DEVNET TYPE`"));
    }
    if spec.payload.to_string().len() > MAX_TEXT || spec.memo.len() > MAX_TEXT || spec.request_id.len() > 1024 {
        violations.push(Violation::new("spec", format!("payload and memo may have {MAX_TEXT} bytes each, a request id 1024")));
    }
    if !spec.gas_factor.is_finite() || spec.gas_factor < 0.0 || (spec.gas_factor > 0.0 && spec.gas_factor < 1.0) || spec.gas_factor > 100.0 {
        violations.push(Violation::new("spec.gasFactor", "must be between 1 and 100"));
    }
    if violations.is_empty() { Ok(tx) } else { Err(Fault::invalid(violations)) }
}

/// The stored transactions up to the first that is not the wanted one; `refused` comes after all of them.
fn answers(wanted: &[Transaction], stored: &BTreeMap<String, Arc<Transaction>>, refused: Option<Fault>) -> (Vec<Arc<Transaction>>, Option<Fault>) {
    let mut answers = Vec::with_capacity(wanted.len());
    for tx in wanted {
        match same(tx, stored) {
            Ok(tx) => answers.push(tx),
            Err(fault) => return (answers, Some(fault)),
        }
    }
    (answers, refused)
}

/// The stored transaction of `wanted`'s request id, if it is the same one.
fn same(wanted: &Transaction, stored: &BTreeMap<String, Arc<Transaction>>) -> Result<Arc<Transaction>, Fault> {
    let name = &wanted.metadata.name;
    let found = stored.get(name).ok_or_else(|| Fault::new(FaultCode::Internal, format!("{name} was stored and is not there")))?;
    if found.spec == wanted.spec {
        return Ok(found.clone());
    }
    let message = format!("request id `{}` was used before, for another transaction: {name}", wanted.spec.request_id);
    Err(Fault::new(FaultCode::AlreadyExists, message).about(name.as_str()).remedy("choose another request id"))
}

fn is_confirmed(tx: &v1::Transaction) -> bool {
    tx.status.as_ref().is_some_and(|status| status.phase == "Confirmed")
}

fn devnet_of(tx: &v1::Transaction) -> Key {
    let namespace = tx.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    Key::devnet(namespace, tx.spec.as_ref().map_or("", |spec| spec.devnet_ref.as_str()))
}

fn date(tx: &mut v1::Transaction, epoch: Option<u64>) {
    if let Some(status) = &mut tx.status {
        status.former_chain = epoch.is_some_and(|epoch| status.chain_epoch < epoch);
    }
}

fn message(object: &Object) -> Result<v1::Transaction, Fault> {
    match object {
        Object::Transaction(tx) => convert::to_message(tx.as_ref()),
        other => Err(Fault::new(FaultCode::Internal, format!("{} is no transaction", other.key()))),
    }
}

fn event(item: Item, _: &Observations) -> Result<v1::TransactionEvent, Fault> {
    let object = item.object().map(message).transpose()?;
    Ok(v1::TransactionEvent { r#type: item.word().into(), object, resource_version: item.revision() })
}

#[cfg(test)]
#[path = "transactions_tests.rs"]
mod tests;
