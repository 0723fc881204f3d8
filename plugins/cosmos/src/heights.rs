//! New heights as the node announces them, over CometBFT's websocket.

use crate::rpc;
use dvb_plugin_sdk::{HeightStream, PluginFault, pb};
use futures::{SinkExt, StreamExt, stream};
use serde_json::Value;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// CometBFT pings every 27 s even when no block comes; a node that is silent for longer has hung.
const SILENCE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
/// The header's event is a few hundred bytes, where the block's holds all transactions.
const SUBSCRIBE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"query":"tm.event='NewBlockHeader'"}}"#;

type Socket = WebSocketStream<TcpStream>;

/// Returns when the node has accepted the subscription. The stream ends with `Unavailable` when the node goes away.
pub async fn stream(address: &str) -> Result<HeightStream, PluginFault> {
    let gone = |reason: String| PluginFault::Unavailable(format!("no heights from {address}: {reason}"));
    let socket = timeout(PATIENCE, subscribe(address)).await.map_err(|_| gone("it does not answer".into()))?.map_err(gone)?;
    let address = address.to_owned();
    let heights = stream::unfold(Some(socket), move |socket| {
        let address = address.clone();
        async move {
            let mut socket = socket?;
            match next_height(&mut socket).await {
                Ok(height) => Some((Ok(height), Some(socket))),
                Err(reason) => Some((Err(PluginFault::Unavailable(format!("no more heights from {address}: {reason}"))), None)),
            }
        }
    });
    Ok(heights.boxed())
}

async fn subscribe(address: &str) -> Result<Socket, String> {
    let tcp = rpc::connect(address).await?;
    let (mut socket, _) = client_async(format!("ws://{address}/websocket"), tcp).await.map_err(|e| e.to_string())?;
    socket.send(Message::text(SUBSCRIBE)).await.map_err(|e| e.to_string())?;
    // The first reply is the subscription's own; no event comes before it.
    read_reply(&next_text(&mut socket).await?)?;
    Ok(socket)
}

async fn next_height(socket: &mut Socket) -> Result<pb::BlockHeight, String> {
    loop {
        let text = next_text(socket).await?;
        if let Some(height) = read_header(&read_reply(&text)?) {
            return Ok(height);
        }
    }
}

/// The next text message. Pings are answered by the library while we read.
async fn next_text(socket: &mut Socket) -> Result<String, String> {
    loop {
        let message = timeout(SILENCE, socket.next()).await.map_err(|_| format!("silent for {} s", SILENCE.as_secs()))?;
        match message {
            Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
            Some(Ok(Message::Close(_))) | None => return Err("the node closed the connection".into()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
}

fn read_reply(text: &str) -> Result<Value, String> {
    let mut reply: Value = serde_json::from_str(text).map_err(|e| format!("unreadable message: {e}"))?;
    match reply.get("error").filter(|e| !e.is_null()) {
        Some(error) => Err(error.to_string()),
        None => Ok(reply.get_mut("result").map(Value::take).unwrap_or_default()),
    }
}

/// Nothing for messages that announce no block. The event does not carry the block's own hash.
fn read_header(result: &Value) -> Option<pb::BlockHeight> {
    let header = result.pointer("/data/value/header")?;
    let text = |key: &str| header[key].as_str().unwrap_or_default().to_owned();
    Some(pb::BlockHeight { height: text("height").parse().ok()?, hash: String::new(), app_hash: text("app_hash"), time: text("time") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_event_gives_its_height_and_other_messages_nothing() {
        let event = r#"{"jsonrpc":"2.0","id":1,"result":{"query":"tm.event='NewBlockHeader'","data":{"type":"tendermint/event/NewBlockHeader",
            "value":{"header":{"chain_id":"x","height":"42","time":"2026-01-01T00:00:00Z","app_hash":"AA"}}}}}"#;
        let height = read_header(&read_reply(event).unwrap()).unwrap();
        assert_eq!((height.height, height.app_hash.as_str()), (42, "AA"));
        assert!(read_header(&read_reply(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap()).is_none());
    }

    #[test]
    fn an_error_of_the_node_ends_the_stream_with_its_words() {
        let error = read_reply(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"subscription was canceled"}}"#).unwrap_err();
        assert!(error.contains("subscription was canceled"));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_unavailable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(stream(&free.to_string()).await, Err(PluginFault::Unavailable(_))));
    }
}
