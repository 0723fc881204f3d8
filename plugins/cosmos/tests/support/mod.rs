//! A devnet of the real binary without devnetd: the plugin's answers carried out by hand, every process reaped.

pub(crate) mod by_shell;

use dvb_plugin_cosmos::plugin::Cosmos;
use dvb_plugin_sdk::{Plugin, pb};
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The versions that the tests know, each on the SDK that it shows. `.ci/run` builds them from `tests/binaries.yaml`.
pub(crate) const VERSIONS: [(&str, &str); 3] = [("v0.45.0", "0.47"), ("v0.54.0", "0.50"), ("v0.60.1", "0.53")];

/// One real binary.
#[derive(Clone)]
pub(crate) struct Wasmd {
    pub(crate) version: &'static str,
    /// `0.50`
    pub(crate) sdk: &'static str,
    pub(crate) path: String,
}

/// The binaries to test with; for each that is not there, the reason on the test's output.
pub(crate) fn wasmds(test: &str) -> Vec<Wasmd> {
    VERSIONS.iter().filter_map(|(version, sdk)| find(test, version, sdk)).collect()
}

/// The one on SDK 0.50, for what shows nothing more on the others.
pub(crate) fn wasmd(test: &str) -> Option<String> {
    find(test, VERSIONS[1].0, VERSIONS[1].1).map(|wasmd| wasmd.path)
}

/// From `DVB_TEST_WASMDS`, which lists `version=path` with commas between; v0.54.0 from `DVB_TEST_WASMD` as well.
fn find(test: &str, version: &'static str, sdk: &'static str) -> Option<Wasmd> {
    let listed = std::env::var("DVB_TEST_WASMDS").unwrap_or_default();
    let listed = listed.split(',').filter_map(|entry| entry.split_once('=')).find(|(name, _)| *name == version);
    let alone = std::env::var("DVB_TEST_WASMD").ok().filter(|_| version == VERSIONS[1].0);
    match listed.map(|(_, path)| path.to_owned()).or(alone) {
        Some(path) if Path::new(&path).is_absolute() => Some(Wasmd { version, sdk, path }),
        Some(path) => panic!("the path of wasmd {version} must be absolute, not {path}"),
        None => {
            println!("SKIP: {test} on SDK {sdk}: DVB_TEST_WASMDS names no wasmd {version}");
            None
        }
    }
}

/// A devnet's folders and context; the folders go away with it.
pub(crate) struct Net {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) devnet: pb::DevnetContext,
    pub(crate) nodes: Vec<pb::PlacedNode>,
    pub(crate) reply: pb::GenerateGenesisResponse,
    /// From the end of the `init` job to the last file.
    pub(crate) generation: Duration,
}

impl Net {
    /// Initialize, PlanNodes and GenerateGenesis with their jobs, then staging moved into place.
    pub(crate) async fn make(binary: &str, validators: u32, full_nodes: u32) -> Self {
        Self::make_patched(binary, validators, full_nodes, "").await
    }

    /// The same with a genesis patch.
    pub(crate) async fn make_patched(binary: &str, validators: u32, full_nodes: u32, patch: &str) -> Self {
        Self::make_from(binary, (validators, full_nodes), patch, "it-1", "").await
    }

    /// The same from an exported state.
    pub(crate) async fn fork(binary: &str, validators: u32, chain_id: &str, base: &Path) -> Self {
        Self::make_from(binary, (validators, 0), "", chain_id, &text(base)).await
    }

    async fn make_from(binary: &str, (validators, full_nodes): (u32, u32), patch: &str, chain_id: &str, base: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut devnet = pb::DevnetContext {
            name: "it".into(),
            chain_id: chain_id.into(),
            validators,
            full_nodes,
            accounts: 3,
            seed: "integration".into(),
            genesis_time: "2026-01-01T00:00:00Z".into(),
            genesis_patch: patch.into(),
            block_time_ms: 500,
            binary_path: binary.into(),
            ..pb::DevnetContext::default()
        };
        devnet.initialized = initialize(&devnet, &dir.path().join("probe")).await;
        let planned = Cosmos.plan_nodes(pb::PlanNodesRequest { devnet: Some(devnet.clone()) }).await.unwrap().nodes;
        let subnet = free_subnet();
        let home = dir.path().join("home");
        let nodes: Vec<_> = planned.iter().enumerate().map(|(i, node)| place(node, &subnet, i, &home)).collect();
        let staging = dir.path().join("staging");
        let (reply, generation) = generate_from(base, &devnet, &nodes, &staging).await;
        fs::create_dir(&home).unwrap();
        for part in ["nodes", "shared"] {
            fs::rename(staging.join(part), home.join(part)).unwrap();
        }
        Self { dir, devnet, nodes, reply, generation }
    }

    pub(crate) async fn launch_plan(&self, node: &str) -> pb::LaunchPlan {
        let shared_dir = text(&self.dir.path().join("home/shared"));
        let request = pb::StartNodeRequest { devnet: Some(self.devnet.clone()), nodes: self.nodes.clone(), node: node.into(), shared_dir };
        Cosmos.start_node(request).await.unwrap()
    }

    pub(crate) fn node_ref(&self, index: usize) -> pb::NodeRef {
        pb::NodeRef { devnet: Some(self.devnet.clone()), node: Some(self.nodes[index].clone()) }
    }

    /// Starts a node as its plan says, with further arguments; its output goes to `<log>`.
    pub(crate) async fn start(&self, node: &str, more: &[&str], log: &Path) -> Running {
        let plan = self.launch_plan(node).await;
        for file in &plan.files {
            fs::create_dir_all(Path::new(&file.path).parent().unwrap()).unwrap();
            match file.shared.as_str() {
                "" => fs::write(&file.path, &file.content).unwrap(),
                shared => fs::hard_link(self.dir.path().join("home/shared").join(shared), &file.path).unwrap(),
            }
        }
        let output = File::create(log).unwrap();
        let mut command = command(&plan.argv[0]);
        command.args(&plan.argv[1..]).args(more).envs(&plan.env).current_dir(&plan.cwd);
        Running(command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap())
    }
}

/// A child that dies with this value, whatever became of the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the end. std has no wait with a limit, so this looks every 10 ms.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "process {} did not end within {limit:?}", self.0.id());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn initialize(devnet: &pb::DevnetContext, work: &Path) -> Vec<u8> {
    fs::create_dir_all(work).unwrap();
    let mut request = pb::InitializeRequest { devnet: Some(devnet.clone()), work_dir: text(work), ..Default::default() };
    loop {
        let reply = Cosmos.initialize(request.clone()).await.unwrap();
        if reply.jobs.is_empty() {
            return reply.state;
        }
        request.job_results = reply.jobs.iter().map(|job| run(job, work)).collect();
    }
}

/// The reply and how long everything took after `init`.
pub(crate) async fn generate(devnet: &pb::DevnetContext, nodes: &[pb::PlacedNode], staging: &Path) -> (pb::GenerateGenesisResponse, Duration) {
    generate_from("", devnet, nodes, staging).await
}

async fn generate_from(base: &str, devnet: &pb::DevnetContext, nodes: &[pb::PlacedNode], staging: &Path) -> (pb::GenerateGenesisResponse, Duration) {
    fs::create_dir_all(staging).unwrap();
    let (devnet, nodes, base_genesis) = (Some(devnet.clone()), nodes.to_vec(), base.to_owned());
    let mut request = pb::GenerateGenesisRequest { devnet, nodes, staging_dir: text(staging), base_genesis, ..Default::default() };
    let jobs = Cosmos.generate_genesis(request.clone()).await.unwrap().jobs;
    request.job_results = jobs.iter().map(|job| run(job, staging)).collect();
    request.round = 1;
    let begun = Instant::now();
    let reply = Cosmos.generate_genesis(request).await.unwrap();
    assert!(reply.jobs.is_empty(), "one `init` is enough");
    (reply, begun.elapsed())
}

pub(crate) fn place(node: &pb::PlannedNode, subnet: &str, index: usize, home: &Path) -> pb::PlacedNode {
    pb::PlacedNode {
        name: node.name.clone(),
        role: node.role.clone(),
        index: node.index,
        address: format!("{subnet}.{}", index + 1),
        ports: node.ports.iter().map(|port| (port.name.clone(), port.port)).collect(),
        home_dir: text(&home.join("nodes").join(&node.name)),
    }
}

/// A /24 in 127.64.0.0/10 where nobody listens on the ports of a Cosmos node.
pub(crate) fn free_subnet() -> String {
    loop {
        let subnet = format!("127.{}.{}", rand::random_range(64..=127), rand::random_range(1..=254));
        if [26656, 26657, 9090, 1317].iter().all(|port| TcpListener::bind((format!("{subnet}.1"), *port)).is_ok()) {
            return subnet;
        }
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn run(job: &pb::Job, dir: &Path) -> pb::JobResult {
    let output = |stream: &str| -> PathBuf { dir.join(format!("job-{}.{stream}", job.name)) };
    let mut command = command(&job.argv[0]);
    command.args(&job.argv[1..]).envs(&job.env).stdin(Stdio::null());
    let status = command.stdout(File::create(output("out")).unwrap()).stderr(File::create(output("err")).unwrap()).status().unwrap();
    let (stdout_path, stderr_path) = (text(&output("out")), text(&output("err")));
    pb::JobResult { name: job.name.clone(), exit_code: status.code(), signal: None, stdout_path, stderr_path }
}

#[expect(clippy::disallowed_methods, reason = "the test stands in for devnetd's runtime; the environment is cleared here too")]
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    // As the daemon does for a binary of its cache, whose libraries lie beside it.
    command.env("LD_LIBRARY_PATH", Path::new(program).with_file_name("lib"));
    command
}
