//! Status, height and stream of heights of a running node, over its JSON-RPC.

use dvb_plugin_sdk::{HeightStream, PluginFault, Result, pb};
use futures::StreamExt as _;

use super::launch::address;
use crate::chain::client::{Client, ClientError, HeadLine, Status};

pub(super) async fn status(node: &pb::PlacedNode) -> Result<pb::NodeStatus> {
    Ok(health(client(node)?.status().await.map_err(fault)?))
}

pub(super) async fn height(node: &pb::PlacedNode) -> Result<pb::BlockHeight> {
    let status = client(node)?.status().await.map_err(fault)?;
    Ok(pb::BlockHeight { height: status.height, hash: status.hash, app_hash: status.state_root, time: block_time(status.timestamp) })
}

pub(super) async fn stream(node: &pb::PlacedNode) -> Result<HeightStream> {
    let heads = client(node)?.heights().await.map_err(fault)?;
    let height =
        |head: HeadLine| pb::BlockHeight { height: head.height, hash: head.hash, app_hash: head.state_root, time: block_time(head.timestamp) };
    Ok(heads.map(move |head| head.map(height).map_err(fault)).boxed())
}

/// A node is ready when it has what the network has, which it knows only after the network finalized a block in its presence.
fn health(status: Status) -> pb::NodeStatus {
    let message = match (status.catching_up, status.height < status.tip) {
        (false, _) => String::new(),
        (true, true) => format!("catching up: at height {} of {}", status.height, status.tip),
        (true, false) => format!("waits for the network's next block after height {}; {} peers connected", status.height, status.peers),
    };
    let details = [
        ("role", status.role),
        ("version", status.version),
        ("chainId", status.chain_id),
        ("genesisHash", status.genesis_hash),
        ("blockHash", status.hash),
        ("stateRoot", status.state_root),
        ("mempool", status.mempool.to_string()),
    ];
    let needed = status.upgrade.filter(|plan| status.halted && plan.height == status.height + 1);
    let message =
        needed.as_ref().map_or(message, |plan| format!("UPGRADE {} NEEDED at height {}: this binary has no handler for it", plan.name, plan.height));
    pb::NodeStatus {
        ready: needed.is_none() && !status.catching_up,
        sick: needed.is_some(),
        sick_class: needed.map(|_| "upgrade-needed".to_owned()).unwrap_or_default(),
        height: status.height,
        peers: status.peers,
        catching_up: status.catching_up,
        message,
        details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

pub(super) fn client(node: &pb::PlacedNode) -> Result<Client> {
    Ok(Client::new(&address(node, "rpc")?.to_string()))
}

pub(super) fn fault(error: ClientError) -> PluginFault {
    match error {
        ClientError::Unreachable { .. } => PluginFault::Unavailable(error.to_string()),
        ClientError::Rpc { .. } | ClientError::Nonsense { .. } => PluginFault::Internal(error.to_string()),
    }
}

pub(super) fn block_time(millis: u64) -> String {
    i64::try_from(millis).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(height: u64, tip: u64, catching_up: bool) -> pb::NodeStatus {
        let text = String::new;
        health(Status {
            version: text(),
            moniker: text(),
            role: text(),
            chain_id: text(),
            genesis_hash: text(),
            validators: 4,
            height,
            hash: text(),
            state_root: text(),
            timestamp: 0,
            tip,
            catching_up,
            peers: 3,
            mempool: 0,
            upgrade: None,
            halted: false,
        })
    }

    #[test]
    fn a_node_is_ready_when_it_has_caught_up_and_else_says_why_not() {
        assert!(seen(7, 7, false).ready);
        assert_eq!(seen(3, 9, true).message, "catching up: at height 3 of 9");
        let waiting = seen(7, 7, true);
        assert!(!waiting.ready && waiting.message.contains("next block after height 7"), "{waiting:?}");
    }

    #[test]
    fn block_times_are_rfc_3339() {
        assert_eq!(block_time(1_767_225_600_250), "2026-01-01T00:00:00.25Z");
    }
}
