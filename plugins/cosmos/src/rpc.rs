//! CometBFT's RPC over plain HTTP: one request, one connection, bounded in time and size.

use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

const PATIENCE: Duration = Duration::from_secs(3);
const LARGEST_REPLY: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("{address} does not answer: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("{address} sent no usable reply to /{method}: {reason}")]
    BadReply { address: String, method: &'static str, reason: String },
}

/// The `result` of a call without parameters, such as `status`. `address` is host:port.
pub async fn call(address: &str, method: &'static str) -> Result<Value, RpcError> {
    call_uri(address, method, method).await
}

async fn call_uri(address: &str, method: &'static str, uri: &str) -> Result<Value, RpcError> {
    let unreachable = |reason: String| RpcError::Unreachable { address: address.into(), reason };
    let fetched = timeout(PATIENCE, fetch(address, uri)).await.map_err(|_| unreachable(format!("silent for {} s", PATIENCE.as_secs())))?;
    let body = fetched.map_err(unreachable)?;
    let bad = |reason: String| RpcError::BadReply { address: address.into(), method, reason };
    let mut reply: Value = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    match (reply.get("error").filter(|e| !e.is_null()).map(Value::to_string), reply.get_mut("result")) {
        (Some(error), _) => Err(bad(error)),
        (None, Some(result)) => Ok(result.take()),
        (None, None) => Err(bad("neither result nor error".into())),
    }
}

/// A stored block with its header.
pub async fn block(address: &str, height: u64) -> Result<Value, RpcError> {
    call_uri(address, "block", &format!("block?height={height}")).await
}

/// The value that the application answers to a query, protobuf as the request; nothing where it knows none or refuses.
pub async fn query(address: &str, path: &str, request: &[u8]) -> Result<Option<Vec<u8>>, RpcError> {
    let uri = format!("abci_query?path=%22{path}%22&data=0x{}", hex::encode(request));
    let reply = call_uri(address, "abci_query", &uri).await?;
    let value = reply["response"]["value"].as_str().filter(|_| reply["response"]["code"].as_u64().unwrap_or(0) == 0);
    Ok(value.and_then(|value| STANDARD.decode(value).ok()))
}

/// A TCP connection within the time that a local node needs.
pub async fn connect(address: &str) -> Result<TcpStream, String> {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no connection within {} s", PATIENCE.as_secs())),
    }
}

async fn fetch(address: &str, uri: &str) -> Result<Bytes, String> {
    let stream = connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::get(format!("/{uri}")).header("host", address).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let body = Limited::new(response.into_body(), LARGEST_REPLY).collect().await.map_err(|e| e.to_string())?;
        Ok(body.to_bytes())
    };
    // The connection only moves while it is polled; it ends with the exchange.
    tokio::select! {
        got = exchange => got,
        ended = connection => Err(ended.err().map_or_else(|| "closed the connection".to_owned(), |e| e.to_string())),
    }
}
