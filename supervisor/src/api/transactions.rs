//! TransactionService: stores what is wanted, once for each request id. The controller does the rest.

use super::{
    Context, admission,
    auth::Caller,
    change::key_of,
    convert,
    devnets::reply,
    status,
    watch::{self, Item},
};
use crate::{
    events::Recorder,
    model::{Devnet, Fault, FaultCode, Key, Kind, Meta, Object, Transaction, TransactionPhase, TransactionStatus, Uid, Violation},
    observe::Observations,
    plugin::tx::TX_CAPABILITY,
    store::{Expect, StoreError, Write},
};
use dvb_proto::devnet::v1::{self, transaction_service_server::TransactionService};
use futures::{StreamExt, stream, stream::BoxStream};
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
            Ok(wanted) => self.submit_one(caller, wanted).await,
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
        let found = self.0.find(&key_of(Kind::Transaction, &wanted.namespace, &wanted.name)).await;
        reply(found.and_then(|object| message(&object)))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListTransactionsResponse> {
        let selector = watch::selector(Kind::Transaction, request.get_ref(), "");
        let listed = self.0.store.list(&selector).await.map_err(|error| error.fault());
        reply(listed.and_then(|(objects, resource_version)| {
            Ok(v1::ListTransactionsResponse { items: objects.iter().map(message).collect::<Result<_, _>>()?, resource_version })
        }))
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
        let selector = watch::selector(Kind::Transaction, &request.selector.unwrap_or_default(), &request.name);
        let watch = watch::watch(&self.0, selector, request.resource_version).await;
        reply(watch.map(|watch| Box::pin(watch.into_stream(event)) as Self::WatchStream))
    }
}

impl Transactions {
    /// As it is stored, with the store's own times.
    async fn submit_one(&self, caller: Caller, wanted: Transaction) -> Result<v1::Transaction, Fault> {
        let stored = self.submit(caller, vec![wanted]).await?;
        let tx = stored.first().ok_or_else(|| Fault::new(FaultCode::Internal, "nothing was stored"))?;
        message(&self.0.find(&Key::transaction(&tx.metadata.namespace, &tx.metadata.name)).await?)
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
        let stored = if wanted.is_empty() { Ok(Vec::new()) } else { self.submit(caller, wanted).await };
        match stored {
            Ok(stored) => stored.iter().map(|tx| convert::to_message(tx.as_ref()).map_err(|fault| status::status(&fault))).chain(refused).collect(),
            Err(fault) => vec![Err(status::status(&fault))],
        }
    }

    /// Stores those that are not there, in one commit, and answers with all of them in their order.
    async fn submit(&self, caller: Caller, wanted: Vec<Transaction>) -> Result<Vec<Arc<Transaction>>, Fault> {
        let mut wanted: Vec<Transaction> = wanted.into_iter().map(|tx| self.identify(tx)).collect();
        let mut devnets: BTreeMap<Key, Arc<Devnet>> = BTreeMap::new();
        for tx in &mut wanted {
            let key = Key::devnet(&tx.metadata.namespace, &tx.spec.devnet_ref);
            if !devnets.contains_key(&key) {
                devnets.insert(key.clone(), self.devnet(&key).await?);
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
            let fresh = order.into_iter().map(|at| wanted[at].clone()).collect();
            match self.store(caller, fresh).await {
                Ok(stored) => {
                    present.extend(stored.into_iter().map(|tx| (tx.metadata.name.clone(), tx)));
                    return wanted.iter().map(|tx| same(tx, &present)).collect();
                }
                Err(StoreError::Exists(_)) => {} // somebody sent the same request id at the same time
                Err(error) => return Err(error.fault()),
            }
        }
        Err(Fault::new(FaultCode::Overloaded, "others store the same request ids at the same time").retriable())
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

    async fn devnet(&self, key: &Key) -> Result<Arc<Devnet>, Fault> {
        match self.0.find(key).await? {
            Object::Devnet(devnet) if devnet.metadata.deleted_at.is_some() => Err(admission::being_deleted(&key.name)),
            Object::Devnet(devnet) => Ok(devnet),
            other => Err(Fault::new(FaultCode::Internal, format!("{} is no devnet", other.key()))),
        }
    }

    async fn remove(&self, request: &v1::DeleteRequest) -> Result<v1::Transaction, Fault> {
        let key = key_of(Kind::Transaction, &request.namespace, &request.name);
        let object = self.0.find(&key).await?;
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
        let devnet = self.devnet(&key_of(Kind::Devnet, &request.namespace, &request.devnet)).await?;
        let plugin = self.0.plugins.get(&devnet.spec.plugin).await.map_err(|error| error.fault())?;
        let info = plugin.info().await.map_err(|error| error.fault())?;
        if !info.capabilities.iter().any(|capability| capability == TX_CAPABILITY) {
            return Err(Fault::new(FaultCode::Unimplemented, format!("plugin {} makes no transactions", devnet.spec.plugin)));
        }
        let support = plugin.tx_support(&crate::plugin::DevnetContext::of(&devnet)).await.map_err(|error| error.fault())?;
        let item = |kind: crate::plugin::tx::TxType| v1::TxType { name: kind.name, description: kind.description, template: kind.template };
        Ok(v1::TxTypesResponse { items: support.types.into_iter().map(item).collect() })
    }
}

/// What can be said of it without the chain.
fn check(tx: Transaction) -> Result<Transaction, Fault> {
    let spec = &tx.spec;
    let mut violations = Vec::new();
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
