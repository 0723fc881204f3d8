//! Devnets of the embedded chain, from the example that users are shown.

use crate::TestHome;
use nix::unistd::Pid;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

const EXAMPLE: &str = include_str!("../../examples/quickstart.yaml");
/// What a fresh devnet of the example is.
pub const NODES: [&str; 5] = ["fullnode-0", "validator-0", "validator-1", "validator-2", "validator-3"];

/// The quickstart under another name, with fast blocks, on addresses of its own (so that tests run side by side), and with
/// `restart` as its `spec.restart`.
pub fn quickstart(name: &str, restart: &str) -> String {
    let text = EXAMPLE.replace("name: quickstart", &format!("name: {name}"));
    let text = text.replace("blockTime: 1s", &format!("blockTime: 300ms\n  localhost: false\n  restart: {restart}"));
    assert!(text.contains(name) && text.contains("300ms"), "the example has changed:\n{text}");
    text
}

impl TestHome {
    /// Brings a quickstart up; it must be Running when this returns.
    #[track_caller]
    pub fn up_quickstart(&self, name: &str, restart: &str) {
        let file = self.file(&format!("{name}.yaml"), &quickstart(name, restart));
        self.ctl(&["up", &file]).ok();
        assert_eq!(self.devnet(name)["status"]["phase"], "Running");
    }
    /// Heights by short name.
    #[track_caller]
    pub fn heights(&self, devnet: &str) -> BTreeMap<String, u64> {
        self.nodes(devnet).into_iter().map(|(name, node)| (name, node["status"]["blockHeight"].as_u64().unwrap_or(0))).collect()
    }
    #[track_caller]
    pub fn lowest(&self, devnet: &str) -> u64 {
        self.heights(devnet).into_values().min().unwrap_or(0)
    }
    #[track_caller]
    pub fn highest(&self, devnet: &str) -> u64 {
        self.heights(devnet).into_values().max().unwrap_or(0)
    }
    /// Waits until all nodes are `blocks` above the highest of now.
    #[track_caller]
    pub fn all_rise(&self, devnet: &str, blocks: u64) {
        let goal = self.highest(devnet) + blocks;
        self.eventually(&format!("{devnet} at height {goal}"), Duration::from_secs(12), |home| home.lowest(devnet) >= goal);
    }
    #[track_caller]
    pub fn pids(&self, devnet: &str) -> BTreeMap<String, Pid> {
        let of = |node: &Value| node["status"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        self.nodes(devnet).iter().filter_map(|(name, node)| Some((name.clone(), of(node)?))).collect()
    }
}
