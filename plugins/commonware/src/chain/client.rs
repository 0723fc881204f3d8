//! Talks to a node: JSON-RPC calls, and the stream of heights. Used by the plugin, the helper commands and the tests.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, try_unfold};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
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
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let exchange = async {
            let response = self.send("POST", "/", body).await?;
            let body = http_body_util::Limited::new(response, MAX_ANSWER).collect().await.map_err(|error| self.unreachable(error))?;
            serde_json::from_slice::<Value>(&body.to_bytes()).map_err(|error| self.nonsense(error))
        };
        let mut answer = tokio::time::timeout(CALL_TIMEOUT, exchange).await.map_err(|_| self.unreachable("no answer within 5 s"))??;
        if let Some(error) = answer.get("error") {
            return Err(ClientError::Rpc { code: error["code"].as_i64().unwrap_or_default(), message: error["message"].as_str().unwrap_or_default().into() });
        }
        Ok(answer["result"].take())
    }

    /// The head, then each block as it is finalized; ends with an error when the node goes away.
    pub async fn heights(&self) -> Result<BoxStream<'static, Result<HeadLine, ClientError>>, ClientError> {
        let body = tokio::time::timeout(CALL_TIMEOUT, self.send("GET", "/heights", String::new())).await.map_err(|_| self.unreachable("no answer within 5 s"))??;
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

    async fn send(&self, method: &str, path: &str, body: String) -> Result<Incoming, ClientError> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(error))?;
        // Ends with the exchange: hyper closes the connection when the sender and the body are dropped.
        tokio::spawn(connection);
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

    fn unreachable(&self, message: impl ToString) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), message: message.to_string() }
    }

    fn nonsense(&self, message: impl ToString) -> ClientError {
        ClientError::Nonsense { address: self.address.clone(), message: message.to_string() }
    }
}
