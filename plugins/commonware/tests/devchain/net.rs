//! A network of real devchain processes in a temporary folder, on loopback addresses of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use commonware_cryptography::ed25519::PrivateKey;
use dvb_plugin_commonware::chain::client::{Client, Status};
use dvb_plugin_commonware::keys;
use dvb_plugin_commonware::plugin::{Commonware, P2P_PORT, RPC_PORT};
use dvb_plugin_sdk::{Plugin as _, pb};
use futures::StreamExt as _;

pub(crate) const DEVCHAIN: &str = env!("CARGO_BIN_EXE_devchain");
const PATIENCE: Duration = Duration::from_secs(20);

/// One node's process; killed when dropped, by its own handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Net {
    pub(crate) nodes: Vec<pb::PlacedNode>,
    processes: Vec<Option<Process>>,
    folder: tempfile::TempDir,
    /// Keeps other tests, of this process and of others, out of the subnet.
    _claim: TcpListener,
}

impl Net {
    /// Makes the homes by the plugin's own genesis, and starts nothing.
    pub(crate) async fn new(validators: u32, full_nodes: u32, block_time_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let devnet = pb::DevnetContext {
            validators,
            full_nodes,
            accounts: 3,
            block_time_ms,
            seed: "a seed for the test".into(),
            chain_id: "test-1".into(),
            genesis_time: "2026-01-01T00:00:00Z".into(),
            ..pb::DevnetContext::default()
        };
        let plugin = Commonware { devchain: Some(DEVCHAIN.into()) };
        let planned = plugin.plan_nodes(pb::PlanNodesRequest { devnet: Some(devnet.clone()) }).await.unwrap().nodes;
        let (subnet, claim) = free_subnet(planned.len());
        let place = |(number, node): (usize, pb::PlannedNode)| pb::PlacedNode {
            home_dir: folder.path().join("nodes").join(&node.name).to_string_lossy().into_owned(),
            address: format!("{subnet}.{}", number + 2),
            ports: node.ports.iter().map(|port| (port.name.clone(), port.port)).collect(),
            name: node.name,
            role: node.role,
            index: node.index,
        };
        let nodes: Vec<_> = planned.into_iter().enumerate().map(place).collect();
        let request = pb::GenerateGenesisRequest {
            devnet: Some(devnet.clone()),
            nodes: nodes.clone(),
            staging_dir: folder.path().to_string_lossy().into_owned(),
            ..pb::GenerateGenesisRequest::default()
        };
        plugin.generate_genesis(request).await.unwrap();
        let processes = nodes.iter().map(|_| None).collect();
        Self { nodes, processes, folder, _claim: claim }
    }

    pub(crate) fn home(&self, node: usize) -> PathBuf {
        PathBuf::from(&self.nodes[node].home_dir)
    }

    pub(crate) fn mnemonic(&self) -> PathBuf {
        self.folder.path().join("shared/mnemonic.txt")
    }

    pub(crate) fn account(&self, index: u32) -> PrivateKey {
        keys::account_key(&std::fs::read_to_string(self.mnemonic()).unwrap(), index).unwrap()
    }

    pub(crate) fn start(&mut self, node: usize) {
        let log = File::options().create(true).append(true).open(self.home(node).join("log")).unwrap();
        let child = command(&self.home(node)).stderr(log).spawn().unwrap();
        self.processes[node] = Some(Process(child));
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    /// SIGKILL to all of these, and only then a wait.
    pub(crate) fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.processes[*node].as_mut().expect("is running").0.kill().unwrap();
        }
        for node in nodes {
            self.processes[*node] = None;
        }
    }

    /// SIGTERM; how it ended and how long that took.
    pub(crate) fn stop(&mut self, node: usize) -> (ExitStatus, Duration) {
        let mut process = self.processes[node].take().expect("is running");
        let begun = Instant::now();
        let pid = rustix::process::Pid::from_child(&process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        (process.0.wait().unwrap(), begun.elapsed())
    }

    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.processes[node].as_ref().expect("is running").0.id()
    }

    pub(crate) fn client(&self, node: usize) -> Client {
        Client::new(&format!("{}:{RPC_PORT}", self.nodes[node].address))
    }

    /// Waits for a node's status to be so, by its stream of heights once it answers.
    pub(crate) async fn until(&self, node: usize, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let client = self.client(node);
        let wait = async {
            // A process that starts announces nothing, so its RPC is tried until it answers.
            let mut heights = loop {
                match client.heights().await {
                    Ok(heights) => break heights,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            loop {
                let status = client.status().await.unwrap();
                if holds(&status) {
                    return status;
                }
                // Peers and progress change without a block, hence the limit.
                let _ = tokio::time::timeout(Duration::from_millis(200), heights.next()).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => panic!("{} never reached: {what}; status {:?}; log:\n{}", self.nodes[node].name, client.status().await, self.log_tail(node)),
        }
    }

    pub(crate) async fn all_reach(&self, height: u64) {
        for node in 0..self.nodes.len() {
            self.until(node, &format!("height {height}"), |status| status.height >= height).await;
        }
    }

    /// The block hash and state root at a height, which must be the same on each of these nodes.
    pub(crate) async fn agreed(&self, nodes: &[usize], height: u64) -> (String, String) {
        let mut seen = Vec::new();
        for node in nodes {
            self.until(*node, &format!("height {height}"), |status| status.height >= height).await;
            let block = self.client(*node).call("block", serde_json::json!([height])).await.unwrap();
            seen.push((block["hash"].as_str().unwrap().to_owned(), block["stateRoot"].as_str().unwrap().to_owned()));
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "nodes disagree at height {height}: {seen:?}");
        seen.remove(0)
    }

    fn log_tail(&self, node: usize) -> String {
        let log = std::fs::read_to_string(self.home(node).join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// `devchain run --home HOME`, output to nowhere.
#[expect(clippy::disallowed_methods, reason = "the test is the supervisor here")]
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(DEVCHAIN);
    command.arg("run").arg("--home").arg(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `127.x.y` in which nobody holds the nodes' ports. All of 127.0.0.0/8 is this machine on Linux.
fn free_subnet(nodes: usize) -> (String, TcpListener) {
    let seed = std::process::id().wrapping_mul(2_654_435_761);
    for attempt in 0..200 {
        let number = seed.wrapping_add(attempt * 7919);
        let subnet = format!("127.{}.{}", 128 + number % 100, (number >> 8) % 250);
        let port_is_free = |host: usize, port: u32| TcpListener::bind((format!("{subnet}.{host}"), port as u16)).is_ok();
        let Ok(claim) = TcpListener::bind((format!("{subnet}.254"), P2P_PORT as u16)) else { continue };
        if (2..nodes + 2).all(|host| port_is_free(host, P2P_PORT) && port_is_free(host, RPC_PORT)) {
            return (subnet, claim);
        }
    }
    panic!("no free loopback subnet");
}
