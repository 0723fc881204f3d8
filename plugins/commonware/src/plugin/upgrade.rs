//! Upgrades of a devchain: nodes are told of the height over their JSON-RPC, and show by it and by their files that they halted.

use std::path::Path;

use dvb_plugin_sdk::{PluginFault, Result, pb};
use serde_json::json;

use super::health::{block_time, client, fault};
use crate::chain::client::ClientError;
use crate::chain::rpc;
use crate::chain::upgrade::{UPGRADES_FILE, UpgradePlan};

const HANDLERS: &str = "handlers";

/// Asks the new binary which upgrades it has handlers for.
pub(super) fn plan(request: &pb::PlanUpgradeRequest, binary: &str) -> Result<pb::PlanUpgradeResponse> {
    let Some(result) = request.job_results.iter().find(|result| result.name == HANDLERS) else {
        let ask = pb::Job {
            name: HANDLERS.into(),
            argv: vec![binary.into(), "handlers".into()],
            timeout_ms: 10_000,
            ok_codes: (0..256).collect(),
            ..pb::Job::default()
        };
        return Ok(pb::PlanUpgradeResponse { jobs: vec![ask], ..pb::PlanUpgradeResponse::default() });
    };
    let printed =
        std::fs::read_to_string(&result.stdout_path).map_err(|error| PluginFault::Internal(format!("read {}: {error}", result.stdout_path)))?;
    let (handler, handler_message) = match result.exit_code {
        Some(0) if printed.lines().any(|name| name == request.name) => ("declared", format!("`{binary} handlers` names {}", request.name)),
        Some(0) => {
            let names: Vec<&str> = printed.lines().collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            ("missing", format!("`{binary} handlers` names {names}"))
        }
        _ => ("unknown", format!("`{binary} handlers` failed")),
    };
    let skip_args = vec!["--skip-upgrade".into(), request.height.to_string()];
    Ok(pb::PlanUpgradeResponse { handler: handler.into(), handler_message, skip_args, ..pb::PlanUpgradeResponse::default() })
}

pub(super) async fn schedule(request: &pb::ScheduleUpgradeRequest) -> Result<pb::ScheduleUpgradeResponse> {
    let client = client(&request.node.clone().unwrap_or_default())?;
    let told = match request.height {
        0 => client.call("cancel_upgrade", json!([request.name])).await,
        height => client.call("schedule_upgrade", json!([request.name, height, request.late])).await,
    };
    match told {
        Ok(_) => Ok(pb::ScheduleUpgradeResponse {}),
        Err(ClientError::Rpc { message, .. }) => Err(PluginFault::FailedPrecondition(message)),
        Err(error) => Err(fault(error)),
    }
}

/// Halted is what says so itself: it has applied the block before the height, and has no handler for what follows.
pub(super) async fn state(node: &pb::PlacedNode) -> Result<pb::UpgradeState> {
    let status = match client(node)?.status().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { .. }) => return Ok(of_files(&node.home_dir)),
        Err(error) => return Err(fault(error)),
    };
    let Some(plan) = status.upgrade else { return Ok(pb::UpgradeState::default()) };
    let halted = status.halted && status.height + 1 == plan.height;
    let evidence = if halted {
        format!("runs, has applied block {} and no more, and says that it has no handler for {} at height {}", status.height, plan.name, plan.height)
    } else {
        format!("is at height {}", status.height)
    };
    Ok(pb::UpgradeState { halted, name: plan.name, height: plan.height, evidence })
}

/// A node that does not run proves nothing; what it was told stands in its file.
fn of_files(home: &str) -> pb::UpgradeState {
    let text = std::fs::read(Path::new(home).join("data").join(UPGRADES_FILE)).unwrap_or_default();
    let plan = serde_json::from_slice::<Vec<UpgradePlan>>(&text).ok().and_then(|plans| plans.into_iter().next_back());
    let Some(plan) = plan else { return pb::UpgradeState::default() };
    pb::UpgradeState { halted: false, name: plan.name, height: plan.height, evidence: "does not run".into() }
}

pub(super) async fn block(request: &pb::GetBlockRequest) -> Result<pb::BlockHeight> {
    let client = client(&request.node.clone().unwrap_or_default())?;
    let head = client.status().await.map_err(fault)?.height;
    let absent = || PluginFault::FailedPrecondition(format!("block {} is not applied yet: the node is at {head}", request.height));
    if head < request.height {
        return Err(absent());
    }
    match client.call("block", json!([request.height])).await {
        Ok(block) => {
            let text = |field: &str| block[field].as_str().unwrap_or_default().to_owned();
            let time = block_time(block["timestamp"].as_u64().unwrap_or_default());
            Ok(pb::BlockHeight { height: request.height, hash: text("hash"), app_hash: text("stateRoot"), time })
        }
        Err(ClientError::Rpc { code: rpc::NOT_FOUND, .. }) => Err(absent()),
        Err(error) => Err(fault(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(dir: &Path, code: i32, printed: &str) -> pb::PlanUpgradeResponse {
        let stdout_path = dir.join("out").to_string_lossy().into_owned();
        std::fs::write(&stdout_path, printed).unwrap();
        let result = pb::JobResult { name: HANDLERS.into(), exit_code: Some(code), stdout_path, ..pb::JobResult::default() };
        let request = pb::PlanUpgradeRequest { name: "v2".into(), height: 30, job_results: vec![result], ..pb::PlanUpgradeRequest::default() };
        plan(&request, "/bin/devchain").unwrap()
    }

    #[test]
    fn the_binary_itself_says_what_it_has_handlers_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = plan(&pb::PlanUpgradeRequest::default(), "/bin/devchain").unwrap();
        assert_eq!(first.jobs[0].argv, ["/bin/devchain", "handlers"]);
        let known = answer(dir.path(), 0, "v2\n");
        assert_eq!((known.handler.as_str(), known.skip_args), ("declared", vec!["--skip-upgrade".to_owned(), "30".into()]));
        let other = answer(dir.path(), 0, "v3\nv4\n");
        assert_eq!((other.handler.as_str(), other.handler_message.ends_with("names v3, v4")), ("missing", true));
        assert_eq!(answer(dir.path(), 2, "").handler, "unknown");
    }
}
