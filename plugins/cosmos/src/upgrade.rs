//! Upgrades by governance: the proposal's message, whether a binary knows a plan's name, and how a halt shows.
//!
//! x/upgrade halts every node at the plan's height: the block is stored, the application stands one before it, and
//! data/upgrade-info.json names the plan. The process lives on.

use crate::{
    binary::Chain,
    keys, rpc,
    status::{self, UpgradePlan},
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use regex::bytes::Regex;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// A piece of a binary that is looked through at a time.
const PIECE: usize = 4 << 20;

/// Blocks: it reads all of the new binary.
pub fn plan(request: &pb::PlanUpgradeRequest) -> Result<pb::PlanUpgradeResponse> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized)?;
    let authority = keys::module_address("gov", &chain.prefixes.account).map_err(|error| PluginFault::Internal(error.to_string()))?;
    let (handler, handler_message) = match names(Path::new(&devnet.binary_path), &request.name) {
        Ok(Some(true)) => ("unknown", format!("the binary holds the text {}; only the chain's code can tell whether as a handler", request.name)),
        Ok(Some(false)) => ("missing", format!("the text {} stands nowhere in the binary", request.name)),
        Ok(None) => ("unknown", "it is no ELF file".to_owned()),
        Err(error) => ("unknown", format!("{}: {error}", devnet.binary_path)),
    };
    Ok(pb::PlanUpgradeResponse {
        handler: handler.into(),
        handler_message,
        messages: json!([message(&authority, &request.name, request.height)]).to_string(),
        skip_args: vec!["--unsafe-skip-upgrades".into(), request.height.to_string()],
        ..pb::PlanUpgradeResponse::default()
    })
}

pub async fn state(home: &str, address: &str) -> pb::UpgradeState {
    let Some(plan) = status::read_upgrade_info(home) else { return pb::UpgradeState::default() };
    let (stored, abci) = tokio::join!(rpc::call(address, "status"), rpc::call(address, "abci_info"));
    match (stored, abci) {
        (Ok(stored), Ok(abci)) => of_answers(plan, &stored, &abci),
        _ => pb::UpgradeState { halted: false, evidence: "does not answer".into(), name: plan.name, height: plan.height },
    }
}

fn of_answers(plan: UpgradePlan, stored: &Value, abci: &Value) -> pb::UpgradeState {
    let stored = status::number(stored, &["sync_info", "latest_block_height"]);
    let applied = status::number(abci, &["response", "last_block_height"]);
    let halted = stored == plan.height && applied + 1 == plan.height;
    let evidence = format!("runs, has stored block {stored} and applied {applied}; its upgrade-info.json names {} at {}", plan.name, plan.height);
    pb::UpgradeState { halted, evidence, name: plan.name, height: plan.height }
}

/// The header of a block that the node has stored. Its app hash is the state before it, which the node came to itself before it took
/// the block.
pub async fn block(address: &str, height: u64) -> Result<pb::BlockHeight> {
    let applied = status::number(&rpc::call(address, "abci_info").await?, &["response", "last_block_height"]);
    if applied < height {
        return Err(PluginFault::FailedPrecondition(format!("block {height} is not applied yet: the node is at {applied}")));
    }
    let found = rpc::block(address, height).await?;
    let header = &found["block"]["header"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(pb::BlockHeight { height, hash: text(&found["block_id"]["hash"]), app_hash: text(&header["app_hash"]), time: text(&header["time"]) })
}

fn message(authority: &str, name: &str, height: u64) -> Value {
    json!({
        "@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade",
        "authority": authority,
        "plan": {"name": name, "time": "0001-01-01T00:00:00Z", "height": height.to_string(), "info": "", "upgraded_client_state": null},
    })
}

/// Whether the text stands in an ELF file. A Go binary holds its constants so; one that it puts together as it runs is not found.
fn names(binary: &Path, text: &str) -> std::io::Result<Option<bool>> {
    let mut file = File::open(binary)?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(0))?;
    let pattern = Regex::new(&regex::escape(text)).map_err(std::io::Error::other)?;
    let (mut piece, mut kept) = (vec![0; PIECE + text.len()], 0);
    loop {
        let read = file.read(&mut piece[kept..])?;
        if read == 0 {
            return Ok(Some(false));
        }
        let filled = kept + read;
        if pattern.is_match(&piece[..filled]) {
            return Ok(Some(true));
        }
        // A name may lie across two pieces.
        kept = filled.min(text.len().saturating_sub(1));
        piece.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_across_pieces_and_only_in_programs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bin");
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(PIECE + "v0.60".len() - 2, b'x');
        bytes.extend_from_slice(b"v0.60 and more");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!((names(&path, "v0.60").unwrap(), names(&path, "v0.61").unwrap()), (Some(true), Some(false)));
        std::fs::write(&path, "#!/bin/sh\n# v0.60\n").unwrap();
        assert_eq!(names(&path, "v0.60").unwrap(), None);
    }

    #[test]
    fn a_halt_needs_the_block_stored_and_not_applied() {
        let plan = || UpgradePlan { name: "v0.50".into(), height: 38 };
        let answers = |stored: &str, applied: &str| {
            of_answers(plan(), &json!({"sync_info": {"latest_block_height": stored}}), &json!({"response": {"last_block_height": applied}}))
        };
        assert!(answers("38", "37").halted);
        assert!(!answers("37", "37").halted && !answers("40", "40").halted);
    }

    #[test]
    fn the_message_is_the_chains_own() {
        let text = message("wasm1gov", "v0.50", 38).to_string();
        assert!(text.contains(r#""height":"38""#) && text.contains("MsgSoftwareUpgrade"), "{text}");
    }
}
