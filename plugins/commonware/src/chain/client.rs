//! Talks to a node: JSON-RPC calls, and the stream of heights. Used by the plugin, the helper commands and the tests.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, try_unfold};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A call is answered within this, or the node counts as away.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer or a line of the stream is at most this long.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{address} does not answer: {message}")]
    Unreachable { address: String, message: String },
    #[error("{message} (code {code})")]
    Rpc { code: i64, message: String },
    #[error("{address} answers nonsense: {message}")]
    Nonsense { address: String, message: String },
}

/// A node's RPC, at `host:port`.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
}

/// A connection that takes one call after the other.
pub struct Connection {
    client: Client,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        Client::result(self.exchange(body).await?)
    }

    /// Several calls in one exchange, at most 64; the node answers them in this order, one after the other.
    pub async fn batch(&mut self, calls: &[(&str, Value)]) -> Result<Vec<Result<Value, ClientError>>, ClientError> {
        let body = calls.iter().map(|(method, params)| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).collect();
        match self.exchange(body).await? {
            Value::Array(answers) if answers.len() == calls.len() => Ok(answers.into_iter().map(Client::result).collect()),
            other => Err(self.client.nonsense(format!(
                "{} calls are answered with {}",
                calls.len(),
                other.to_string().chars().take(200).collect::<String>()
            ))),
        }
    }

    async fn exchange(&mut self, body: Value) -> Result<Value, ClientError> {
        let client = self.client.clone();
        let exchange = async {
            let response = client.send(&mut self.sender, "POST", "/", body.to_string()).await?;
            let body = http_body_util::Limited::new(response, MAX_ANSWER).collect().await.map_err(|error| client.unreachable(error))?;
            serde_json::from_slice::<Value>(&body.to_bytes()).map_err(|error| client.nonsense(error))
        };
        tokio::time::timeout(CALL_TIMEOUT, exchange).await.map_err(|_| client.unreachable("no answer within 5 s"))?
    }
}

/// What `status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub moniker: String,
    pub role: String,
    pub chain_id: String,
    pub genesis_hash: String,
    pub validators: u32,
    pub height: u64,
    pub hash: String,
    pub state_root: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    pub tip: u64,
    pub catching_up: bool,
    pub peers: u32,
    pub mempool: usize,
    /// The next that is scheduled.
    #[serde(default)]
    pub upgrade: Option<super::upgrade::UpgradePlan>,
    /// For that upgrade: this binary has no handler for it.
    #[serde(default)]
    pub halted: bool,
}

/// A line of `GET /heights`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadLine {
    pub height: u64,
    pub hash: String,
    pub state_root: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    pub txs: usize,
}

/// What `account` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    pub address: String,
    pub balance: u64,
    pub nonce: u64,
    /// `nonce` and the pending transfers of this account.
    pub next_nonce: u64,
}

/// A stream of `GET /heights`.
pub type Heights = BoxStream<'static, Result<HeadLine, ClientError>>;

impl Client {
    /// `http://host:port` or `host:port`.
    pub fn new(address: &str) -> Self {
        Self { address: address.trim_start_matches("http://").trim_end_matches('/').to_owned() }
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.typed("status", json!([])).await
    }

    pub async fn account(&self, address: &str) -> Result<AccountView, ClientError> {
        self.typed("account", json!([address])).await
    }

    /// Hands a signed transfer in and gives its hash.
    pub async fn submit(&self, tx: &[u8]) -> Result<String, ClientError> {
        let answer = self.call("submit", json!([hex::encode(tx)])).await?;
        answer["hash"].as_str().map(str::to_owned).ok_or_else(|| self.nonsense("submit without a hash"))
    }

    /// Any method; the result as it came.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.connect().await?.call(method, params).await
    }

    /// A connection for several calls, one after the other.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let sender = tokio::time::timeout(CALL_TIMEOUT, self.dial()).await.map_err(|_| self.unreachable("no connection within 5 s"))??;
        Ok(Connection { client: self.clone(), sender })
    }

    /// The head, then each block as it is finalized; ends with an error when the node goes away.
    pub async fn heights(&self) -> Result<Heights, ClientError> {
        let open = async {
            let mut sender = self.dial().await?;
            self.send(&mut sender, "GET", "/heights", String::new()).await
        };
        let body = tokio::time::timeout(CALL_TIMEOUT, open).await.map_err(|_| self.unreachable("no answer within 5 s"))??;
        let lines = try_unfold((self.clone(), body, Vec::new()), |(client, mut body, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let head = serde_json::from_slice(&line).map_err(|error| client.nonsense(error))?;
                    return Ok(Some((head, (client, body, buffer))));
                }
                if buffer.len() > MAX_ANSWER {
                    return Err(client.nonsense("a line without end"));
                }
                match body.frame().await {
                    Some(Ok(frame)) => buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Err(client.unreachable(error)),
                    None => return Err(client.unreachable("the stream of heights ended")),
                }
            }
        });
        Ok(lines.boxed())
    }

    async fn typed<T: serde::de::DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, ClientError> {
        serde_json::from_value(self.call(method, params).await?).map_err(|error| self.nonsense(error))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(error))?;
        // Ends with the exchange: hyper closes the connection when the sender and the body are dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(&self, sender: &mut SendRequest<Full<Bytes>>, method: &str, path: &str, body: String) -> Result<Incoming, ClientError> {
        sender.ready().await.map_err(|error| self.unreachable(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.nonsense(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
        if !response.status().is_success() {
            return Err(self.nonsense(format!("HTTP {}", response.status())));
        }
        Ok(response.into_body())
    }

    /// What a JSON-RPC answer holds.
    fn result(mut answer: Value) -> Result<Value, ClientError> {
        if let Some(error) = answer.get("error") {
            return Err(ClientError::Rpc {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().into(),
            });
        }
        Ok(answer["result"].take())
    }

    fn unreachable(&self, message: impl ToString) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), message: message.to_string() }
    }

    fn nonsense(&self, message: impl ToString) -> ClientError {
        ClientError::Nonsense { address: self.address.clone(), message: message.to_string() }
    }
}
