//! State exports: `devchain export` on a clone of a node's home.

use std::path::Path;

use dvb_plugin_sdk::{PluginFault, Result, pb};

use crate::chain::state::State;

const EXPORT: &str = "export";
const SKIP_UPGRADE: &str = "--skip-upgrade";
/// Blocks and votes: the accounts lie beside them.
const BLOCKS: &str = "data/chain";

/// First the job, then what it wrote.
pub(super) fn plan(request: &pb::ExportRequest, binary: &str) -> Result<pb::ExportPlan> {
    if request.job_results.iter().any(|result| result.name == EXPORT) {
        let state = read(Path::new(&request.output_path)).map_err(PluginFault::Internal)?;
        return Ok(pb::ExportPlan { height: state.height, ..pb::ExportPlan::default() });
    }
    let mut argv: Vec<String> = [binary, "export", "--home", &request.home_dir, "--output", &request.output_path].map(str::to_owned).into();
    if let Some(height) = request.height {
        argv.extend(["--height".to_owned(), height.to_string()]);
    }
    argv.extend(skipped(request));
    let job = pb::Job { name: EXPORT.into(), argv, timeout_ms: 60_000, ..pb::Job::default() };
    Ok(pb::ExportPlan { jobs: vec![job], skip: vec![BLOCKS.into()], ..pb::ExportPlan::default() })
}

pub(super) fn read(path: &Path) -> std::result::Result<State, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{} is no state of a devchain: {error}", path.display()))
}

/// Upgrades that the node passes over are none of its state.
fn skipped(request: &pb::ExportRequest) -> Vec<String> {
    let name = request.node.as_ref().map_or("", |node| node.name.as_str());
    let args = request.devnet.as_ref().and_then(|devnet| devnet.overrides.get(name)).map_or(&[][..], |overrides| &overrides.args);
    args.windows(2).filter(|pair| pair[0] == SKIP_UPGRADE).flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(height: Option<u64>) -> pb::ExportRequest {
        let overrides = pb::NodeOverrides { args: ["--x", "--skip-upgrade", "30"].map(String::from).into(), ..pb::NodeOverrides::default() };
        pb::ExportRequest {
            devnet: Some(pb::DevnetContext { overrides: [("validator-0".into(), overrides)].into(), ..pb::DevnetContext::default() }),
            node: Some(pb::PlacedNode { name: "validator-0".into(), ..pb::PlacedNode::default() }),
            home_dir: "/clone".into(),
            output_path: "/out.json".into(),
            height,
            ..pb::ExportRequest::default()
        }
    }

    #[test]
    fn the_binary_reads_the_clone_without_its_blocks() {
        let plan = plan(&request(Some(7)), "/bin/devchain").unwrap();
        let argv = "/bin/devchain export --home /clone --output /out.json --height 7 --skip-upgrade 30";
        assert_eq!((plan.jobs[0].argv.join(" ").as_str(), plan.skip), (argv, vec!["data/chain".to_owned()]));
    }

    #[test]
    fn the_height_is_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("state.json");
        let text = r#"{"chainId": "n", "genesisHash": "aa", "height": 12, "blockHash": "bb", "stateRoot": "cc", "accounts": []}"#;
        let ended = pb::JobResult { name: EXPORT.into(), exit_code: Some(0), ..pb::JobResult::default() };
        let request = pb::ExportRequest { output_path: output.display().to_string(), job_results: vec![ended], ..request(None) };
        std::fs::write(&output, text).unwrap();
        assert_eq!(plan(&request, "/bin/devchain").unwrap().height, 12);
        std::fs::write(&output, "{}").unwrap();
        assert!(plan(&request, "/bin/devchain").unwrap_err().to_string().contains("is no state of a devchain"));
    }
}
