//! JSON-RPC calls with parameters, one after the other over one connection.

use crate::rpc::connect;
use base64::{Engine, engine::general_purpose::STANDARD};
use dvb_plugin_sdk::PluginFault;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);
/// A block with thousands of transactions and their events.
const LARGEST_REPLY: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{address} does not answer: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("{address} sent no usable reply to {method}: {reason}")]
    BadReply { address: String, method: String, reason: String },
    /// The node's own no; `data` has the words that matter.
    #[error("{method}: {message}: {data}")]
    Rpc { method: String, message: String, data: String },
}

impl From<WireError> for PluginFault {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Unreachable { .. } => Self::Unavailable(error.to_string()),
            WireError::BadReply { .. } | WireError::Rpc { .. } => Self::Internal(error.to_string()),
        }
    }
}

pub(crate) struct Wire {
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

/// What `abci_query` answers.
pub(crate) struct Queried {
    pub(crate) code: i64,
    pub(crate) codespace: String,
    pub(crate) log: String,
    pub(crate) value: Vec<u8>,
    pub(crate) height: u64,
}

impl Wire {
    /// `address` is host:port.
    pub(crate) async fn open(address: &str) -> Result<Self, WireError> {
        let unreachable = |reason: String| WireError::Unreachable { address: address.into(), reason };
        let stream = connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // Ends when the sender is dropped.
        tokio::spawn(connection);
        Ok(Self { address: address.into(), sender })
    }

    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, WireError> {
        let bad = |address: &str, reason: String| WireError::BadReply { address: address.into(), method: method.into(), reason };
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let unreachable = |reason: String| WireError::Unreachable { address: self.address.clone(), reason };
        let exchanged = timeout(PATIENCE, exchange(&mut self.sender, &self.address, body)).await;
        let bytes = exchanged.map_err(|_| unreachable(format!("silent for {} s", PATIENCE.as_secs())))?.map_err(unreachable)?;
        let mut reply: Value = serde_json::from_slice(&bytes).map_err(|error| bad(&self.address, error.to_string()))?;
        if let Some(error) = reply.get("error").filter(|error| !error.is_null()) {
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            return Err(WireError::Rpc { method: method.into(), message: text("message"), data: text("data") });
        }
        match reply.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(bad(&self.address, "neither result nor error".into())),
        }
    }

    /// A query of the chain's state as of its last block.
    pub(crate) async fn query(&mut self, path: &str, data: &[u8]) -> Result<Queried, WireError> {
        let reply = self.call("abci_query", json!({"path": path, "data": hex::encode(data)})).await?;
        let response = &reply["response"];
        let value = response["value"].as_str().unwrap_or_default();
        let value = STANDARD.decode(value).map_err(|error| WireError::BadReply {
            address: self.address.clone(),
            method: path.into(),
            reason: error.to_string(),
        })?;
        Ok(Queried {
            code: response["code"].as_i64().unwrap_or_default(),
            codespace: response["codespace"].as_str().unwrap_or_default().into(),
            log: response["log"].as_str().unwrap_or_default().into(),
            value,
            height: number(&response["height"]),
        })
    }
}

/// CometBFT writes 64-bit numbers as text.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, address: &str, body: String) -> Result<Bytes, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let request = Request::post("/").header("host", address).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let body = Limited::new(response.into_body(), LARGEST_REPLY).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}
