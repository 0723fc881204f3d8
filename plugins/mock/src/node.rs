//! Asking a running mock-node: one GET over TCP, and heights as a stream of lines.

use dvb_plugin_sdk::{HeightStream, PluginFault, Result, pb};
use futures::{StreamExt, stream};
use serde::Deserialize;
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    height: u64,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    peers: u32,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    sick: String,
}

pub(crate) async fn status(node: &pb::PlacedNode) -> Result<pb::NodeStatus> {
    let mut lines = get(node, "/status").await?;
    let line = next(&mut lines, node).await?;
    Ok(pb::NodeStatus {
        ready: line.ready,
        height: line.height,
        peers: line.peers,
        message: if line.ready { String::new() } else { "waits for its first block".into() },
        sick: !line.sick.is_empty(),
        sick_class: line.sick,
        ..pb::NodeStatus::default()
    })
}

/// Ends with UNAVAILABLE when the node goes.
pub(crate) async fn heights(node: &pb::PlacedNode) -> Result<HeightStream> {
    let lines = get(node, "/heights").await?;
    let stream = stream::unfold(Some((lines, node.clone())), |state| async move {
        let (mut lines, node) = state?;
        match next(&mut lines, &node).await {
            Ok(line) => Some((Ok(pb::BlockHeight { height: line.height, hash: line.hash, ..Default::default() }), Some((lines, node)))),
            Err(fault) => Some((Err(fault), None)),
        }
    });
    Ok(stream.boxed())
}

type Body = Lines<BufReader<TcpStream>>;

fn unavailable(node: &pb::PlacedNode, why: impl std::fmt::Display) -> PluginFault {
    PluginFault::Unavailable(format!("node {} does not answer: {why}", node.name))
}

/// Sends the request and reads past the headers.
async fn get(node: &pb::PlacedNode, path: &str) -> Result<Body> {
    let port = node.ports.get("rpc").copied().unwrap_or_default();
    let address = format!("{}:{port}", node.address);
    let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&address)).await;
    let mut tcp = connected.map_err(|_| unavailable(node, "no connection in time"))?.map_err(|error| unavailable(node, error))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(|error| unavailable(node, error))?;
    let mut lines = BufReader::new(tcp).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| unavailable(node, error))? {
        if line.is_empty() {
            return Ok(lines);
        }
    }
    Err(unavailable(node, "it hung up"))
}

async fn next(lines: &mut Body, node: &pb::PlacedNode) -> Result<Status> {
    let line = lines.next_line().await.map_err(|error| unavailable(node, error))?.ok_or_else(|| unavailable(node, "it hung up"))?;
    serde_json::from_str(&line).map_err(|error| unavailable(node, error))
}
