//! How a node is: what its RPC says, read into the protocol's words. The reading is pure; `of` fetches.
//!
//! ```text
//! no answer (an error) ──RPC answers──► catching up ──in step with its peers──► applied a block ──► ready   (no new one needed)
//!                                              any of them, upgrade's height stored, not applied ──► sick
//! ```
//!
//! Before its first block the application answers no question about accounts: nobody can use such a node yet.

use crate::{classify, rpc, signing};
use dvb_plugin_sdk::pb;
use serde_json::Value;
use std::collections::BTreeMap;

const WAITS: &str = "waiting for the chain's first block";

/// Fetches and reads. `expected_id` is the node's p2p id, `address` its RPC, `signer` a validator's consensus address.
pub async fn of(node: &pb::NodeRef, address: &str, expected_id: &str, signer: Option<&str>) -> Result<pb::NodeStatus, rpc::RpcError> {
    let (status, net, signing) = tokio::join!(rpc::call(address, "status"), rpc::call(address, "net_info"), signing::details(address, signer));
    let status = status?;
    let chain_id = node.devnet.as_ref().map(|d| d.chain_id.as_str()).unwrap_or_default();
    let mut read = read_status(&status, net.as_ref().unwrap_or(&Value::Null), chain_id, expected_id);
    if !read.details.is_empty() {
        read.details.extend(signing);
    }
    if read.ready && is_first(&status) {
        let abci = rpc::call(address, "abci_info").await?;
        read = applied_or_waiting(read, &abci);
    }
    let home = node.node.as_ref().map(|n| n.home_dir.as_str()).unwrap_or_default();
    if let Some(plan) = read_upgrade_info(home).filter(|plan| plan.height == read.height)
        && let Ok(abci) = rpc::call(address, "abci_info").await
        && is_halted(&plan, &abci)
    {
        read = halted(read, &plan);
    }
    Ok(read)
}

/// The newest block that the node has stored.
pub async fn height(address: &str) -> Result<pb::BlockHeight, rpc::RpcError> {
    Ok(read_height(&rpc::call(address, "status").await?))
}

fn read_height(status: &Value) -> pb::BlockHeight {
    let sync = |key: &str| text(status, &["sync_info", key]);
    pb::BlockHeight {
        height: number(status, &["sync_info", "latest_block_height"]),
        hash: sync("latest_block_hash"),
        app_hash: sync("latest_app_hash"),
        time: sync("latest_block_time"),
    }
}

fn read_status(status: &Value, net: &Value, chain_id: &str, expected_id: &str) -> pb::NodeStatus {
    let (network, id) = (text(status, &["node_info", "network"]), text(status, &["node_info", "id"]));
    if network != chain_id || id != expected_id {
        let message = format!("another node answers at this address: {id} of chain {network}, where {expected_id} of {chain_id} belongs");
        return pb::NodeStatus { message, ..pb::NodeStatus::default() };
    }
    let height = number(status, &["sync_info", "latest_block_height"]);
    let catching_up = status["sync_info"]["catching_up"].as_bool().unwrap_or(true);
    let peers = number(net, &["n_peers"]);
    let message = match (catching_up, peers) {
        (false, _) if height == 0 => WAITS.into(),
        (false, _) => String::new(),
        (true, 0) => format!("at height {height}, waiting for a peer"),
        (true, _) => format!("catching up, at height {height}"),
    };
    let details = [
        ("votingPower", text(status, &["validator_info", "voting_power"])),
        ("cometbft", text(status, &["node_info", "version"])),
        ("nodeId", id),
        ("appHash", text(status, &["sync_info", "latest_app_hash"])),
        ("blockTime", text(status, &["sync_info", "latest_block_time"])),
    ];
    pb::NodeStatus {
        ready: !catching_up && height > 0,
        height,
        peers: u32::try_from(peers).unwrap_or(u32::MAX),
        catching_up,
        message,
        details: BTreeMap::from(details.map(|(key, value)| (key.to_owned(), value))),
        ..pb::NodeStatus::default()
    }
}

/// The node's store holds one block, which it may not have applied yet.
fn is_first(status: &Value) -> bool {
    let height = |which: &str| number(status, &["sync_info", which]);
    height("latest_block_height") == height("earliest_block_height")
}

fn applied_or_waiting(status: pb::NodeStatus, abci: &Value) -> pb::NodeStatus {
    match number(abci, &["response", "last_block_height"]) {
        0 => pb::NodeStatus { ready: false, message: WAITS.into(), ..status },
        _ => status,
    }
}

/// What the chain leaves in data/upgrade-info.json when it halts.
pub(crate) struct UpgradePlan {
    pub(crate) name: String,
    pub(crate) height: u64,
}

/// The file stays after the upgrade, so it proves nothing alone.
pub(crate) fn read_upgrade_info(home: &str) -> Option<UpgradePlan> {
    let bytes = std::fs::read(std::path::Path::new(home).join("data/upgrade-info.json")).ok()?;
    let plan: Value = serde_json::from_slice(&bytes).ok()?;
    Some(UpgradePlan { name: plan["name"].as_str()?.to_owned(), height: plan["height"].as_u64()? })
}

/// The block of the upgrade's height is stored and the application stands one before it.
fn is_halted(plan: &UpgradePlan, abci: &Value) -> bool {
    number(abci, &["response", "last_block_height"]) + 1 == plan.height
}

fn halted(status: pb::NodeStatus, plan: &UpgradePlan) -> pb::NodeStatus {
    let message = format!("UPGRADE \"{}\" NEEDED at height: {}; {}", plan.name, plan.height, classify::upgrade_remedy(&plan.name));
    pb::NodeStatus { ready: false, sick: true, sick_class: "upgrade-needed".into(), message, ..status }
}

fn text(value: &Value, path: &[&str]) -> String {
    path.iter().fold(value, |at, key| &at[*key]).as_str().unwrap_or_default().to_owned()
}

/// CometBFT writes 64-bit numbers as text and leaves zeros out.
pub(crate) fn number(value: &Value, path: &[&str]) -> u64 {
    let at = path.iter().fold(value, |at, key| &at[*key]);
    at.as_u64().or_else(|| at.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(height: &str, catching_up: bool) -> Value {
        json!({
            "node_info": {"id": "ab", "network": "mynet-1", "version": "0.38.15"},
            "sync_info": {"latest_block_hash": "B1", "latest_app_hash": "A1", "latest_block_height": height, "catching_up": catching_up,
                "latest_block_time": "2026-01-01T00:00:00Z"},
            "validator_info": {"voting_power": "1000"},
        })
    }

    #[test]
    fn a_node_in_step_that_has_a_block_is_ready_without_a_new_one() {
        let net = json!({"n_peers": "4"});
        let check = |height, catching_up, ready| {
            let read = read_status(&status(height, catching_up), &net, "mynet-1", "ab");
            assert_eq!((read.ready, read.peers, read.catching_up), (ready, 4, catching_up));
        };
        check("0", false, false);
        check("7", false, true);
        check("7", true, false);
        assert_eq!(read_status(&status("0", false), &net, "mynet-1", "ab").message, WAITS);
    }

    #[test]
    fn a_first_block_that_is_stored_and_not_applied_makes_nobody_ready() {
        let mut first = status("1", false);
        first["sync_info"]["earliest_block_height"] = json!("1");
        assert!(is_first(&first) && !is_first(&status("7", false)));
        let read = || read_status(&first, &Value::Null, "mynet-1", "ab");
        assert!(!applied_or_waiting(read(), &json!({"response": {"data": "WasmApp"}})).ready);
        assert!(applied_or_waiting(read(), &json!({"response": {"last_block_height": "1"}})).ready);
    }

    #[test]
    fn a_lone_node_says_what_it_waits_for() {
        let read = read_status(&status("5", true), &json!({"n_peers": "0"}), "mynet-1", "ab");
        assert_eq!(read.message, "at height 5, waiting for a peer");
    }

    #[test]
    fn a_stranger_at_the_nodes_address_is_never_taken_for_it() {
        for (chain, id) in [("other-1", "ab"), ("mynet-1", "cd")] {
            let read = read_status(&status("5", false), &Value::Null, chain, id);
            assert!(!read.ready && read.height == 0 && read.message.contains("another node answers"));
        }
    }

    #[test]
    fn only_a_stored_block_that_is_not_applied_proves_the_halt() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let info = r#"{"name":"v0.50","time":"0001-01-01T00:00:00Z","height":38,"info":"{}"}"#;
        std::fs::write(dir.path().join("data/upgrade-info.json"), info).unwrap();
        let plan = read_upgrade_info(dir.path().to_str().unwrap()).unwrap();
        assert!(is_halted(&plan, &json!({"response": {"last_block_height": "37"}})));
        assert!(!is_halted(&plan, &json!({"response": {"last_block_height": "38"}})));
        let sick = halted(pb::NodeStatus { ready: true, height: 38, ..pb::NodeStatus::default() }, &plan);
        assert!(sick.sick && !sick.ready && sick.sick_class == "upgrade-needed" && sick.message.contains("v0.50"));
    }

    #[test]
    fn heights_come_with_hashes_and_time() {
        let read = read_height(&status("12", false));
        assert_eq!((read.height, read.hash.as_str(), read.app_hash.as_str()), (12, "B1", "A1"));
    }
}
