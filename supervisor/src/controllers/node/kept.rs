//! A launch plan that is kept for the node's next start, so that a restart needs no plugin.
//!
//! Kept is what has no secrets, which belong on no disk, and no jobs, which are to run before each start. Its files lie in the home
//! already; a plan whose files are gone is asked for anew.

use super::super::{Context, placing::hex, placing::template};
use crate::{
    model::{Devnet, Node, PlanBody},
    plugin::{LaunchPlan, Readiness},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

const FILE: &str = "launch-plan.json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    origin: String,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    files: Vec<PathBuf>,
    readiness: Readiness,
    stop_signal: String,
    grace: Duration,
}

/// Digest of all that a launch plan follows from: the devnet's plan (and so its generation and its plugin) and the node's template.
/// A restart that somebody asks for is in it too: it is the way to have a node's files made anew.
pub(super) fn origin(plan: &PlanBody, devnet: &Devnet, node: &Node) -> String {
    let asked = node.spec.restart_request;
    let parts = serde_json::json!([plan.generation, plan.spec_digest, plan.plugin_digest, plan.binary_sha256, template(devnet, node), asked]);
    hex(&Sha256::digest(parts.to_string().as_bytes()))
}

/// None when there is none of this origin, or when a file of it is gone.
pub(super) fn read(node: &Node, origin: &str, cx: &Context) -> Option<LaunchPlan> {
    let kept: Kept = serde_json::from_slice(&fs::read(path(node, cx)).ok()?).ok()?;
    let in_place = Path::new(&node.spec.home_dir).is_dir() && kept.files.iter().all(|file| file.exists());
    (kept.origin == origin && in_place).then(|| LaunchPlan {
        argv: kept.argv,
        env: kept.env,
        cwd: kept.cwd,
        readiness: kept.readiness,
        stop_signal: kept.stop_signal,
        grace: kept.grace,
        ..LaunchPlan::default()
    })
}

/// Only a plan that was carried out: what it writes is written. A failure costs the next start a question, and no more.
pub(super) fn keep(node: &Node, origin: &str, plan: &LaunchPlan, cx: &Context) {
    if !plan.secrets.is_empty() || !plan.jobs.is_empty() {
        return;
    }
    let kept = Kept {
        origin: origin.to_owned(),
        argv: plan.argv.clone(),
        env: plan.env.clone(),
        cwd: plan.cwd.clone(),
        files: plan.files.iter().map(|file| file.path.clone()).collect(),
        readiness: plan.readiness.clone(),
        stop_signal: plan.stop_signal.clone(),
        grace: plan.grace,
    };
    if let Err(error) = serde_json::to_vec(&kept).map_err(io::Error::other).and_then(|json| write(&path(node, cx), &json)) {
        tracing::warn!(node = node.metadata.name, %error, "the launch plan is not kept");
    }
}

fn path(node: &Node, cx: &Context) -> PathBuf {
    let name = node.node_name();
    cx.home.node(&node.metadata.namespace, &name.devnet, &name.short).join(FILE)
}

/// For the daemon's user alone: the environment may hold what others should not see.
fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(json)?;
    fs::rename(&draft, path)
}
