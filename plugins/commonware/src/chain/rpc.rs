//! JSON-RPC 2.0 over HTTP, and the stream of heights.
//!
//! ```text
//! POST /         status [] · block [height | "latest" | hash] · account [address] · tx [hash] · submit [hex of the signed transfer]
//!                schedule_upgrade [name, height, whether others have halted for it] · cancel_upgrade [name]
//! GET  /heights  one JSON line for the head and one for each block from then on, as it is finalized (application/x-ndjson)
//! ```
//! Errors: -32700 not JSON, -32600 no request, -32601 no such method, -32602 wrong parameters, -32603 internal,
//! -32001 not found, -32010 bad signature, -32011 nonce too low, -32012 nonce too high or taken, -32013 insufficient balance,
//! -32014 zero amount, -32015 pending already, -32016 mempool full, -32017 expired,
//! -32020 an upgrade that cannot be scheduled or cancelled.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use commonware_codec::FixedSize as _;
use commonware_consensus::marshal::Identifier;
use commonware_consensus::types::Height;
use commonware_cryptography::Digestible as _;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::BroadcastStream;
use tower::limit::GlobalConcurrencyLimitLayer;

use super::app::Marshal;
use super::ledger::TxFault;
use super::mempool::Refusal;
use super::shared::Chain;
use super::store::TxIndex;
use super::tx::{Address, Transfer};
use super::upgrade::{Notice, UpgradeError, UpgradePlan};
use super::{Hash, Sealed};

const MAX_BODY: usize = 256 * 1024;
const MAX_CALLS_AT_ONCE: usize = 128;
const MAX_STREAMS: usize = 64;
const MAX_BATCH: usize = 64;

pub const NOT_FOUND: i64 = -32001;

/// What the RPC reads and where it hands transfers in.
pub struct Node {
    moniker: String,
    role: &'static str,
    chain: Arc<Chain>,
    marshal: Marshal,
    index: Mutex<TxIndex>,
    submit: mpsc::Sender<Transfer>,
    peers: Box<dyn Fn() -> usize + Send + Sync>,
    streams: Arc<Semaphore>,
}

#[derive(Debug)]
struct Fault {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

impl Node {
    pub fn new(
        moniker: String,
        role: &'static str,
        chain: Arc<Chain>,
        marshal: Marshal,
        index: TxIndex,
        submit: mpsc::Sender<Transfer>,
        peers: Box<dyn Fn() -> usize + Send + Sync>,
    ) -> Self {
        Self { moniker, role, chain, marshal, index: Mutex::new(index), submit, peers, streams: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, node: Node) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let app = Router::new()
        .route("/", post(call))
        .route("/heights", get(heights))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_CALLS_AT_ONCE))
        .with_state(Arc::new(node));
    axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await
}

async fn heights(State(node): State<Arc<Node>>) -> Response {
    let Ok(permit) = node.streams.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_STREAMS} streams of heights are open already\n")).into_response();
    };
    let (head, news) = node.chain.subscribe();
    // A reader that is too slow misses blocks in between, never the latest.
    let news = BroadcastStream::new(news).filter_map(|head| std::future::ready(head.ok()));
    let lines = stream::iter([head]).chain(news).map(move |head| {
        let _open = &permit;
        serde_json::to_string(&head).map(|line| line + "\n")
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn call(State(node): State<Arc<Node>>, body: Bytes) -> Response {
    let answer = match serde_json::from_slice::<Value>(&body) {
        Err(error) => respond(Value::Null, Err(Fault { code: -32700, message: format!("not JSON: {error}") })),
        Ok(Value::Array(calls)) if calls.is_empty() || calls.len() > MAX_BATCH => {
            respond(Value::Null, Err(Fault { code: -32600, message: format!("a batch holds 1 to {MAX_BATCH} calls") }))
        }
        Ok(Value::Array(calls)) => {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls {
                answers.push(node.answer(call).await);
            }
            Value::Array(answers)
        }
        Ok(call) => node.answer(call).await,
    };
    axum::response::Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(answer.to_string()))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn respond(id: Value, result: Result<Value, Fault>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Fault { code, message }) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    }
}

impl Node {
    async fn answer(&self, call: Value) -> Value {
        let request: Request = match serde_json::from_value(call) {
            Ok(request) => request,
            Err(error) => return respond(Value::Null, Err(Fault { code: -32600, message: format!("not a request: {error}") })),
        };
        let params = request.params.as_slice();
        let result = match request.method.as_str() {
            "status" => no_params(params).map(|()| self.status()),
            "block" => self.block(params).await,
            "account" => self.account(params),
            "tx" => self.tx(params).await,
            "submit" => self.submit(params),
            "schedule_upgrade" => self.schedule_upgrade(params),
            "cancel_upgrade" => self.cancel_upgrade(params),
            other => Err(Fault { code: -32601, message: format!("no method {other:?}; there are status, block, account, tx, submit") }),
        };
        respond(request.id, result)
    }

    fn status(&self) -> Value {
        let (head, progress) = (self.chain.head(), self.chain.progress());
        let spec = &self.chain.spec;
        json!({
            "version": env!("CARGO_PKG_VERSION"), "moniker": self.moniker, "role": self.role,
            "chainId": spec.chain_id, "genesisHash": spec.hash.to_string(), "validators": spec.validators.len(),
            "height": head.height, "hash": head.hash.to_string(), "stateRoot": head.state_root.to_string(), "timestamp": head.timestamp,
            "tip": progress.tip, "catchingUp": progress.catching_up, "peers": (self.peers)(), "mempool": self.chain.mempool_size(),
            "upgrade": self.chain.upgrades.next(head.height), "halted": self.chain.halted().is_some(),
        })
    }

    async fn block(&self, params: &[Value]) -> Result<Value, Fault> {
        let wanted = one_param(params, "block", "a height, \"latest\" or a hash")?;
        let identifier = match wanted {
            Value::Number(number) => Identifier::Height(Height::new(number.as_u64().ok_or_else(|| bad_params("a height is a whole number"))?)),
            Value::String(text) if text == "latest" => Identifier::Height(Height::new(self.chain.head().height)),
            other => Identifier::Digest(parse_hash(other)?),
        };
        let missing = || not_found(format!("no finalized block {wanted} here"));
        let block = self.marshal.get_block(identifier).await.ok_or_else(missing)?;
        // By hash, marshal also knows blocks that are not final.
        let (_, finalized) = self.marshal.get_info(block.inner().height).await.ok_or_else(missing)?;
        if finalized == block.digest() { Ok(render_block(&block)) } else { Err(missing()) }
    }

    fn account(&self, params: &[Value]) -> Result<Value, Fault> {
        let text = one_param(params, "account", "an address")?.as_str().ok_or_else(|| bad_params("an address is a string"))?;
        let address: Address = text.parse().map_err(|error| bad_params(format!("{error}")))?;
        let (account, next_nonce) = self.chain.account(&address);
        Ok(json!({"address": address, "balance": account.balance, "nonce": account.nonce, "nextNonce": next_nonce}))
    }

    async fn tx(&self, params: &[Value]) -> Result<Value, Fault> {
        let hash = parse_hash(one_param(params, "tx", "a hash")?)?;
        let internal = |message: String| Fault { code: -32603, message };
        let found = self
            .index
            .lock()
            .expect("no holder of this lock panics")
            .find(&hash)
            .map_err(|error| internal(format!("index of transactions: {error}")))?;
        if let Some((height, position)) = found {
            let block = self.marshal.get_block(height).await.ok_or_else(|| internal(format!("block {height} is not in the archive")))?;
            let tx = block.inner().txs.get(position).ok_or_else(|| internal(format!("block {height} has no transfer {position}")))?;
            let mut answer = render_tx(tx);
            answer["status"] = "finalized".into();
            answer["height"] = height.get().into();
            answer["position"] = position.into();
            return Ok(answer);
        }
        let tx = self.chain.pending(&hash).ok_or_else(|| not_found(format!("no transaction {hash}, neither finalized nor pending")))?;
        let mut answer = render_tx(&tx);
        answer["status"] = "pending".into();
        Ok(answer)
    }

    fn schedule_upgrade(&self, params: &[Value]) -> Result<Value, Fault> {
        let (wanted, late) = match params {
            [Value::String(name), height, late @ ..] if !name.is_empty() && late.len() < 2 => {
                (height.as_u64().map(|height| UpgradePlan { name: name.clone(), height }), late == [Value::Bool(true)])
            }
            _ => (None, false),
        };
        let wanted = wanted.ok_or_else(|| bad_params("schedule_upgrade takes a name, a height, and whether others have halted for it"))?;
        self.chain.upgrades.schedule(wanted, self.chain.head().height, if late { Notice::Late } else { Notice::Due })?;
        Ok(json!({}))
    }

    fn cancel_upgrade(&self, params: &[Value]) -> Result<Value, Fault> {
        let name = one_param(params, "cancel_upgrade", "a name")?.as_str().ok_or_else(|| bad_params("a name is a string"))?;
        self.chain.upgrades.cancel(name, self.chain.head().height)?;
        Ok(json!({}))
    }

    fn submit(&self, params: &[Value]) -> Result<Value, Fault> {
        let text = one_param(params, "submit", "a signed transfer in hexadecimal")?.as_str().ok_or_else(|| bad_params("a transfer is a string"))?;
        let bytes = hex::decode(text.trim_start_matches("0x")).map_err(|error| bad_params(format!("not hexadecimal: {error}")))?;
        let tx = super::decode::<Transfer>(&bytes).map_err(|error| bad_params(format!("not a transfer of {} bytes: {error}", Transfer::SIZE)))?;
        let hash = self.chain.admit(tx.clone()).map_err(Fault::from)?;
        // A full queue only delays the gossip: what waits is sent again with the next blocks.
        let _ = self.submit.try_send(tx);
        Ok(json!({"hash": hash.to_string()}))
    }
}

impl From<UpgradeError> for Fault {
    fn from(error: UpgradeError) -> Self {
        Self { code: -32020, message: error.to_string() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Tx(TxFault::BadSignature) => -32010,
            Refusal::Tx(TxFault::NonceTooLow { .. }) => -32011,
            Refusal::Tx(TxFault::NonceTooHigh { .. }) | Refusal::NonceTaken { .. } => -32012,
            Refusal::Tx(TxFault::InsufficientBalance { .. }) => -32013,
            Refusal::Tx(TxFault::ZeroAmount) => -32014,
            Refusal::Known => -32015,
            Refusal::Full => -32016,
            Refusal::Tx(TxFault::Expired { .. }) => -32017,
        };
        Self { code, message: refusal.to_string() }
    }
}

fn render_block(block: &Sealed) -> Value {
    let content = block.inner();
    json!({
        "height": content.height.get(), "hash": block.digest().to_string(), "parent": content.parent.to_string(),
        "timestamp": content.timestamp, "stateRoot": content.state_root.to_string(),
        "txs": content.txs.iter().map(render_tx).collect::<Vec<_>>(),
    })
}

fn render_tx(tx: &Transfer) -> Value {
    json!({"hash": tx.hash().to_string(), "from": tx.from, "to": tx.to, "amount": tx.amount, "nonce": tx.nonce, "expiry": tx.expiry})
}

fn parse_hash(value: &Value) -> Result<Hash, Fault> {
    let bytes = value.as_str().and_then(|text| hex::decode(text.trim_start_matches("0x")).ok());
    bytes.and_then(|bytes| super::decode::<Hash>(&bytes).ok()).ok_or_else(|| bad_params(format!("{value}: a hash is 64 hexadecimal digits")))
}

fn no_params(params: &[Value]) -> Result<(), Fault> {
    if params.is_empty() { Ok(()) } else { Err(bad_params("status takes no parameters")) }
}

fn one_param<'a>(params: &'a [Value], method: &str, what: &str) -> Result<&'a Value, Fault> {
    match params {
        [value] => Ok(value),
        _ => Err(bad_params(format!("{method} takes one parameter, {what}; got {}", params.len()))),
    }
}

fn bad_params(message: impl Into<String>) -> Fault {
    Fault { code: -32602, message: message.into() }
}

fn not_found(message: String) -> Fault {
    Fault { code: NOT_FOUND, message }
}
