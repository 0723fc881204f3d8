//! State exports: `BIN export` on a clone of a node's home.
//!
//! ```text
//! Export() ──► jobs [height,] export ──► the file is there ──► its height
//! ```
//! A state for height zero does not say which height it was of; a small export of one module, from the same clone, does.

use crate::{
    binary,
    stream::{self, Edit, StreamError},
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

const EXPORT_JOB: &str = "export";
const HEIGHT_JOB: &str = "height";
/// The smallest module that every chain has.
const SMALL_MODULE: &str = "genutil";
/// What `export` does not read: blocks, indexes, snapshots, and the key, which must not lie about in a second place.
const SKIP: [&str; 7] = [
    "config/priv_validator_key.json",
    "data/blockstore.db",
    "data/cs.wal",
    "data/evidence.db",
    "data/snapshots",
    "data/state.db",
    "data/tx_index.db",
];

/// First the jobs, then what they wrote.
pub fn plan(request: &pb::ExportRequest) -> Result<pb::ExportPlan> {
    if binary::outcome(&request.job_results, EXPORT_JOB).is_none() {
        return Ok(pb::ExportPlan { jobs: jobs(request), skip: SKIP.map(str::to_owned).into(), ..pb::ExportPlan::default() });
    }
    for name in [HEIGHT_JOB, EXPORT_JOB] {
        if binary::outcome(&request.job_results, name).is_some_and(|ended| ended.exit_code != Some(0)) {
            return Err(failure(&binary::describe(&request.job_results, name), request.height));
        }
    }
    let output = Path::new(&request.output_path);
    if !output.exists() {
        let how = binary::describe(&request.job_results, EXPORT_JOB);
        return Err(PluginFault::FailedPrecondition(format!("the chain's `export` {how}, and wrote no state")));
    }
    let height = match request.height {
        Some(height) => height,
        None if request.for_zero_height => last_height(height_path(request))?,
        None => last_height(output)?,
    };
    Ok(pb::ExportPlan { height, ..pb::ExportPlan::default() })
}

fn jobs(request: &pb::ExportRequest) -> Vec<pb::Job> {
    let height = request.height.map(|height| height.to_string());
    let mut arguments = vec!["export", "--output-document", &request.output_path];
    if let Some(height) = &height {
        arguments.extend(["--height", height]);
    }
    if request.for_zero_height {
        arguments.push("--for-zero-height");
    }
    let mut jobs = Vec::new();
    if request.for_zero_height && height.is_none() {
        jobs.push(job(request, HEIGHT_JOB, &["export", "--modules-to-export", SMALL_MODULE, "--output-document", &height_path(request)]));
    }
    jobs.push(job(request, EXPORT_JOB, &arguments));
    jobs
}

/// The node's own program and environment, on the clone.
fn job(request: &pb::ExportRequest, name: &str, arguments: &[&str]) -> pb::Job {
    let devnet = request.devnet.clone().unwrap_or_default();
    let node = request.node.as_ref().map_or("", |node| node.name.as_str());
    let overrides = devnet.overrides.get(node).cloned().unwrap_or_default();
    let program = if overrides.binary_path.is_empty() { &devnet.binary_path } else { &overrides.binary_path };
    let mut job = binary::job(name, program, arguments, &request.home_dir);
    job.env.extend(overrides.env);
    job
}

fn height_path(request: &pb::ExportRequest) -> String {
    format!("{}.height", request.output_path)
}

/// The chain's words, and what they mean where that is known.
fn failure(how: &str, height: Option<u64>) -> PluginFault {
    let pruned = ["failed to load version", "version does not exist", "no commit info found"].iter().any(|words| how.contains(words));
    PluginFault::FailedPrecondition(match height {
        Some(height) if pruned => format!(
            "the node has no state of height {height}, which it has pruned or never had: take a later height, or keep old states by `pruning = \
             \"nothing\"` in app.toml (the chain's `export` {how})"
        ),
        _ => format!("the chain's `export` {how}"),
    })
}

/// The height before the one at which a chain with this genesis begins.
fn last_height(path: impl AsRef<Path>) -> Result<u64> {
    let path = path.as_ref();
    let unreadable = |reason: String| PluginFault::Internal(format!("{}, which the chain's `export` wrote, {reason}", path.display()));
    let height = initial_height(path).map_err(|error| unreadable(format!("is no genesis: {error}")))?;
    height.and_then(|height| height.checked_sub(1)).ok_or_else(|| unreadable("tells no initial_height".into()))
}

/// At which height a chain with this genesis begins; 0.47 writes it as text, later ones as a number.
fn initial_height(path: &Path) -> std::result::Result<Option<u64>, StreamError> {
    let mut height = None;
    let visit = |text: &[u8]| {
        height = serde_json::from_slice(text).ok().and_then(|value| number(&value));
        Ok(None)
    };
    let mut edits = Edit::Members(vec![("initial_height".into(), Edit::Visit(Box::new(visit)))]);
    stream::edit(BufReader::new(File::open(path)?), io::sink(), &mut edits)?;
    drop(edits);
    Ok(height)
}

/// A whole number, as JSON of any SDK has it.
pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn request(dir: &Path) -> pb::ExportRequest {
        let devnet = pb::DevnetContext { binary_path: "/bin/wasmd".into(), ..pb::DevnetContext::default() };
        let (devnet, output_path) = (Some(devnet), dir.join("out.json").display().to_string());
        pb::ExportRequest { devnet, home_dir: "/clone".into(), output_path, ..pb::ExportRequest::default() }
    }

    fn ended(dir: &Path, name: &str, code: i32, stderr: &str) -> pb::JobResult {
        let path = dir.join("stderr");
        fs::write(&path, stderr).unwrap();
        pb::JobResult { name: name.into(), exit_code: Some(code), stderr_path: path.display().to_string(), ..pb::JobResult::default() }
    }

    #[test]
    fn the_binary_reads_the_clone_and_a_state_for_height_zero_is_preceded_by_its_height() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.json").display().to_string();
        let argvs = |request: &pb::ExportRequest| -> Vec<String> { plan(request).unwrap().jobs.iter().map(|job| job.argv.join(" ")).collect() };
        let mut request = request(dir.path());
        assert_eq!(argvs(&request), [format!("/bin/wasmd export --output-document {out} --home /clone")]);
        request.for_zero_height = true;
        let height = format!("/bin/wasmd export --modules-to-export genutil --output-document {out}.height --home /clone");
        assert_eq!(argvs(&request), [height, format!("/bin/wasmd export --output-document {out} --for-zero-height --home /clone")]);
        request.height = Some(7);
        assert_eq!(argvs(&request), [format!("/bin/wasmd export --output-document {out} --height 7 --for-zero-height --home /clone")]);
        assert!(plan(&request).unwrap().skip.contains(&"config/priv_validator_key.json".to_owned()), "the key stays where it is");
    }

    #[test]
    fn the_height_is_the_one_before_the_forks_first_however_the_sdk_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut request = request(dir.path());
        request.job_results = vec![ended(dir.path(), "export", 0, "")];
        let height = |text: &str| {
            fs::write(&request.output_path, text).unwrap();
            plan(&request)
        };
        assert_eq!(height(r#"{"initial_height": "42", "app_state": {}}"#).unwrap().height, 41);
        assert_eq!(height(r#"{"app_state": {"initial_height": 3}, "initial_height": 42}"#).unwrap().height, 41);
        assert!(height("{}").unwrap_err().to_string().contains("tells no initial_height"));
        assert!(height(r#"{"initial_height": 4"#).unwrap_err().to_string().contains("is no genesis"));
        request.for_zero_height = true;
        fs::write(height_path(&request), r#"{"initial_height": 9}"#).unwrap();
        fs::write(&request.output_path, r#"{"initial_height": 0}"#).unwrap();
        assert_eq!(plan(&request).unwrap().height, 8);
    }

    #[test]
    fn failures_are_told_in_the_chains_words_and_a_pruned_height_with_its_mend() {
        let dir = tempfile::tempdir().unwrap();
        let failed = |stderr: &str, height| {
            let results = vec![ended(dir.path(), "export", 1, stderr)];
            plan(&pb::ExportRequest { height, job_results: results, ..request(dir.path()) }).unwrap_err().to_string()
        };
        let old =
            "Error: error exporting state: failed to load version 1: failed to load store: wanted to load target 1 but only found up to 0\nUsage:\n";
        let said = failed(old, Some(1));
        assert!(said.contains("no state of height 1") && said.contains("pruning = \"nothing\"") && said.contains("only found up to 0"), "{said}");
        let new =
            "\u{1b}[90m4:38PM\u{1b}[0m ERR failure when running app err=\"error exporting state: failed to load version 1: no commit info found\"\n";
        assert!(failed(new, Some(1)).contains("no state of height 1"));
        let flag = failed("Error: unknown flag: --output-document\nUsage:\n  x export\n", None);
        assert!(flag.ends_with("exited with code 1 and printed: Error: unknown flag: --output-document"), "{flag}");
        let nothing = pb::ExportRequest { job_results: vec![ended(dir.path(), "export", 0, "")], ..request(dir.path()) };
        assert!(plan(&nothing).unwrap_err().to_string().contains("wrote no state"));
    }
}
