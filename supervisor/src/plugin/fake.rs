//! Plugins without processes, for tests of what uses them: scripted failures, health by hand, heights by channel.

use super::{
    BlockHeight, ChainPlugin, Classified, DevnetContext, ExportPlan, ExportRequest, Genesis, GenesisRequest, Health, Initialized, Job, JobOutcome,
    LaunchPlan, NodeRequest, PluginError, PluginInfo, PluginState, Plugins, Readiness, Reply,
};
use crate::model::{Account, Exit, PlacedNode, PlannedNode, PlannedPort, Violation};
use async_trait::async_trait;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
    stream::BoxStream,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

mod chain;
mod gov;
mod upgrade;

pub use chain::{FAKE_LIFE, FakeTx};

type HeightSender = UnboundedSender<Result<BlockHeight, PluginError>>;

/// A chain family with as many validators and full nodes as the spec wants, each with the ports rpc and p2p.
pub struct FakePlugin {
    name: String,
    state: Mutex<State>,
    /// Methods that do not answer for now.
    held: watch::Sender<BTreeSet<String>>,
    calls: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct State {
    failures: BTreeMap<String, VecDeque<PluginError>>,
    jobs: BTreeMap<String, Vec<Job>>,
    violations: Vec<Violation>,
    /// Beside those that it always has.
    capabilities: Vec<String>,
    health: BTreeMap<String, Health>,
    class: Classified,
    listeners: BTreeMap<String, Vec<HeightSender>>,
    secrets: Vec<(String, Vec<u8>)>,
    stop: Option<(String, Duration)>,
    chain: chain::FakeChain,
    proposals: BTreeMap<u64, super::gov::Proposal>,
}

impl FakePlugin {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), state: Mutex::default(), held: watch::Sender::default(), calls: watch::Sender::default() })
    }
    /// The next call of this method (`plan_nodes`, `launch` ...) fails so. Several queue up.
    pub fn fail_next(&self, method: &str, error: PluginError) {
        self.state().failures.entry(method.to_owned()).or_default().push_back(error);
    }
    /// `initialize` or `genesis` first asks for these, and is content with whatever came of them.
    pub fn ask_for_jobs(&self, method: &str, jobs: Vec<Job>) {
        self.state().jobs.insert(method.to_owned(), jobs);
    }
    /// What `validate` answers from now on.
    pub fn set_violations(&self, violations: Vec<Violation>) {
        self.state().violations = violations;
    }
    /// What `probe` answers for this node (short name) from now on; before it is set, the node does not answer.
    pub fn set_health(&self, node: &str, health: Health) {
        self.state().health.insert(node.to_owned(), health);
    }
    /// Signal and grace of every launch plan from now on; else none, and ten seconds.
    pub fn set_stop(&self, signal: &str, grace: Duration) {
        self.state().stop = Some((signal.to_owned(), grace));
    }
    /// What it can do beside transactions, governance, exports and forks.
    pub fn add_capability(&self, name: &str) {
        self.state().capabilities.push(name.to_owned());
    }
    /// What every launch plan from now on hands over.
    pub fn set_secrets(&self, secrets: Vec<(String, Vec<u8>)>) {
        self.state().secrets = secrets;
    }
    /// What `classify` answers from now on.
    pub fn set_class(&self, class: Classified) {
        self.state().class = class;
    }
    /// A new block of this node: to its streams, and into its health.
    pub fn announce(&self, node: &str, height: u64) {
        let mut state = self.state();
        if let Some(health) = state.health.get_mut(node) {
            health.height = height;
        }
        let block = BlockHeight { height, hash: format!("{height:064x}"), app_hash: String::new() };
        if let Some(listeners) = state.listeners.get_mut(node) {
            listeners.retain(|listener| listener.unbounded_send(Ok(block.clone())).is_ok());
        }
    }
    /// The node goes away: its streams end with an error, and probes fail.
    pub fn vanish(&self, node: &str) {
        let mut state = self.state();
        state.health.remove(node);
        for listener in state.listeners.remove(node).unwrap_or_default() {
            // A listener that is gone needs no word.
            let _ = listener.unbounded_send(Err(self.unavailable(node)));
        }
    }
    /// How many streams of this node's heights are open.
    pub fn listeners(&self, node: &str) -> usize {
        self.state().listeners.get(node).map_or(0, |listeners| listeners.iter().filter(|listener| !listener.is_closed()).count())
    }
    /// Methods that were called, in order, with the node's name where there is one: `launch validator-0`.
    pub fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }
    /// Resolves when this was called, now or before; written as in `calls`.
    pub async fn until_called(&self, call: &str) {
        let mut calls = self.calls.subscribe();
        let _ = calls.wait_for(|calls| calls.iter().any(|made| made == call)).await; // the sender lives in self
    }
    /// From now on this method does not answer, until `release`.
    pub fn hold(&self, method: &str) {
        self.held.send_modify(|held| {
            held.insert(method.to_owned());
        });
    }
    pub fn release(&self, method: &str) {
        self.held.send_modify(|held| {
            held.remove(method);
        });
    }

    async fn begin(&self, method: &str, node: &str) -> Result<(), PluginError> {
        let failure = self.state().failures.get_mut(method).and_then(VecDeque::pop_front);
        self.calls.send_modify(|calls| calls.push(if node.is_empty() { method.to_owned() } else { format!("{method} {node}") }));
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| !held.contains(method)).await; // the sender lives in self
        failure.map_or(Ok(()), Err)
    }
    fn jobs(&self, method: &str, outcomes: &[JobOutcome]) -> Option<Vec<Job>> {
        self.state().jobs.get(method).filter(|_| outcomes.is_empty()).cloned()
    }
    fn unavailable(&self, node: &str) -> PluginError {
        PluginError::Rejected { name: self.name.clone(), code: "Unavailable".into(), message: format!("node {node} does not answer") }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ChainPlugin for FakePlugin {
    async fn info(&self) -> Result<PluginInfo, PluginError> {
        self.begin("info", "").await?;
        Ok(PluginInfo {
            name: self.name.clone(),
            version: "0".into(),
            api_version: 1,
            capabilities: ["tx", "gov", "export", "fork"].map(str::to_owned).into_iter().chain(self.state().capabilities.clone()).collect(),
            ..PluginInfo::default()
        })
    }

    async fn initialize(&self, _devnet: &DevnetContext, _work_dir: PathBuf, outcomes: &[JobOutcome]) -> Result<Reply<Initialized>, PluginError> {
        self.begin("initialize", "").await?;
        Ok(match self.jobs("initialize", outcomes) {
            Some(jobs) => Reply::Jobs(jobs),
            None => Reply::Done(Initialized { sdk_version: "fake-1".into(), binary_version: "1".into(), state: b"fake".to_vec(), lacks: Vec::new() }),
        })
    }

    async fn validate(&self, _devnet: &DevnetContext) -> Result<Vec<Violation>, PluginError> {
        self.begin("validate", "").await?;
        Ok(self.state().violations.clone())
    }

    async fn plan_nodes(&self, devnet: &DevnetContext) -> Result<Vec<PlannedNode>, PluginError> {
        self.begin("plan_nodes", "").await?;
        let validators =
            (0..devnet.spec.validators()).map(|index| planned("validator", index, &digest(format!("{}/{index}", devnet.seed).as_bytes())));
        let full_nodes = (0..devnet.spec.full_nodes).map(|index| planned("fullnode", index, ""));
        Ok(validators.chain(full_nodes).collect())
    }

    /// Writes real files, so that what moves and verifies them has something to do.
    async fn genesis(&self, request: &GenesisRequest) -> Result<Reply<Genesis>, PluginError> {
        self.begin("genesis", "").await?;
        if let Some(jobs) = self.jobs("genesis", &request.job_outcomes) {
            return Ok(Reply::Jobs(jobs));
        }
        let made = write_genesis(request);
        made.map(Reply::Done).map_err(|error| PluginError::Rejected { name: self.name.clone(), code: "Internal".into(), message: error.to_string() })
    }

    async fn launch(&self, request: &NodeRequest) -> Result<LaunchPlan, PluginError> {
        self.begin("launch", &request.node).await?;
        let home = request.nodes.iter().find(|node| node.name == request.node).map(|node| PathBuf::from(&node.home_dir)).unwrap_or_default();
        let binary = if request.devnet.binary_path.is_empty() { "/bin/sleep" } else { &request.devnet.binary_path };
        let (stop_signal, grace) = self.state().stop.clone().unwrap_or((String::new(), Duration::from_secs(10)));
        Ok(LaunchPlan {
            argv: vec![binary.to_owned(), "1000000".into()],
            cwd: home,
            readiness: Readiness::Plugin,
            stop_signal,
            grace,
            secrets: self.state().secrets.clone(),
            ..LaunchPlan::default()
        })
    }

    /// Its job is what a test answers for; the state is at the wanted height, or at 1.
    async fn export(&self, request: &ExportRequest) -> Result<ExportPlan, PluginError> {
        self.begin("export", &request.node.name).await?;
        let argv = vec!["/bin/export".into(), request.output.display().to_string()];
        let jobs =
            if request.outcomes.is_empty() { vec![Job { name: "export".into(), argv, ok_codes: vec![0, 1], ..Job::default() }] } else { vec![] };
        Ok(ExportPlan { jobs, skip: vec!["data/blocks".into()], height: request.height.unwrap_or(1) })
    }

    async fn probe(&self, _devnet: &DevnetContext, node: &PlacedNode) -> Result<Health, PluginError> {
        self.begin("probe", &node.name).await?;
        self.state().health.get(&node.name).cloned().ok_or_else(|| self.unavailable(&node.name))
    }

    async fn heights(&self, _devnet: &DevnetContext, node: &PlacedNode) -> Result<BoxStream<'static, Result<BlockHeight, PluginError>>, PluginError> {
        self.begin("heights", &node.name).await?;
        let (sender, receiver) = unbounded();
        self.state().listeners.entry(node.name.clone()).or_default().push(sender);
        Ok(receiver.boxed())
    }

    async fn classify(
        &self,
        _devnet: &DevnetContext,
        node: &PlacedNode,
        _exit: Option<&Exit>,
        _log_tail: &[Vec<u8>],
    ) -> Result<Classified, PluginError> {
        self.begin("classify", &node.name).await?;
        Ok(self.state().class.clone())
    }
}

const SIGN_STATE: &str = "data/sign_state.json";

fn planned(role: &str, index: u32, consensus_key: &str) -> PlannedNode {
    let port = |name: &str, port, scheme: &str| PlannedPort { name: name.into(), port, park: true, scheme: scheme.into(), ..PlannedPort::default() };
    PlannedNode {
        name: format!("{role}-{index}"),
        role: role.into(),
        index,
        ports: vec![port("rpc", 26_657, "http"), port("p2p", 26_656, "tcp")],
        consensus_key: consensus_key.into(),
        sign_state: if consensus_key.is_empty() { String::new() } else { SIGN_STATE.into() },
        key_file: if consensus_key.is_empty() { String::new() } else { "key".into() },
        after: Vec::new(),
    }
}

fn write_genesis(request: &GenesisRequest) -> io::Result<Genesis> {
    let write = |path: String, text: String| -> io::Result<(PathBuf, String)> {
        let full = request.staging_dir.join(&path);
        fs::create_dir_all(full.parent().unwrap_or(Path::new("/")))?;
        fs::write(&full, &text)?;
        Ok((path.into(), digest(text.as_bytes())))
    };
    let (genesis_path, genesis_sha256) = write("shared/genesis.json".into(), format!("{{\"chain_id\":\"{}\"}}\n", request.devnet.chain_id))?;
    let mut files = vec![(genesis_path.clone(), genesis_sha256.clone())];
    for node in &request.nodes {
        if node.role == "validator" {
            files.push(write(format!("nodes/{}/{SIGN_STATE}", node.name), "{\"height\":0}".into())?);
        }
        files.push(write(format!("nodes/{}/key", node.name), digest(format!("{}/{}", request.devnet.seed, node.name).as_bytes()))?);
    }
    let accounts = (0..request.devnet.spec.accounts()).map(|index| Account {
        name: format!("account:{index}"),
        address: format!("fake1{index}"),
        balance: "1000fake".into(),
    });
    Ok(Genesis { genesis_path, genesis_sha256, files, accounts: accounts.collect(), mnemonic_path: None })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The plugins that a test put in.
#[derive(Default)]
pub struct FakePlugins {
    plugins: Mutex<BTreeMap<String, (Arc<FakePlugin>, String)>>,
}

impl FakePlugins {
    pub fn with(plugins: impl IntoIterator<Item = Arc<FakePlugin>>) -> Arc<Self> {
        let entry = |plugin: Arc<FakePlugin>| (plugin.name.clone(), (plugin.clone(), digest(plugin.name.as_bytes())));
        Arc::new(Self { plugins: Mutex::new(plugins.into_iter().map(entry).collect()) })
    }
    /// As if its executable had been replaced.
    pub fn set_digest(&self, name: &str, digest: &str) {
        if let Some(entry) = self.plugins.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            entry.1 = digest.to_owned();
        }
    }
    fn find(&self, name: &str) -> Result<(Arc<FakePlugin>, String), PluginError> {
        let found = self.plugins.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| PluginError::Missing { name: name.to_owned(), looked_in: vec!["a test".into()], nearest: None })
    }
}

#[async_trait]
impl Plugins for FakePlugins {
    async fn get(&self, name: &str) -> Result<Arc<dyn ChainPlugin>, PluginError> {
        Ok(self.find(name)?.0)
    }
    async fn digest(&self, name: &str) -> Result<String, PluginError> {
        Ok(self.find(name)?.1)
    }
    async fn list(&self) -> Vec<PluginState> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |(name, (_, sha256)): (&String, &(Arc<FakePlugin>, String))| PluginState {
            name: name.clone(),
            sha256: sha256.clone(),
            state: "Running".into(),
            ..PluginState::default()
        };
        plugins.iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heights_reach_the_streams_until_the_node_vanishes() {
        let plugin = FakePlugin::new("fake");
        let node = PlacedNode { name: "validator-0".into(), ..PlacedNode::default() };
        let mut heights = plugin.heights(&DevnetContext::default(), &node).await.unwrap();
        assert_eq!(plugin.listeners("validator-0"), 1);
        plugin.announce("validator-0", 7);
        plugin.vanish("validator-0");
        assert_eq!(heights.next().await.unwrap().unwrap().height, 7);
        assert!(matches!(heights.next().await, Some(Err(PluginError::Rejected { .. }))));
        assert!(heights.next().await.is_none());
    }

    #[tokio::test]
    async fn a_scripted_failure_happens_once_and_calls_are_recorded() {
        let plugin = FakePlugin::new("fake");
        plugin.fail_next("plan_nodes", PluginError::Spawn { name: "fake".into(), reason: "test".into() });
        assert!(plugin.plan_nodes(&DevnetContext::default()).await.is_err());
        assert_eq!(plugin.plan_nodes(&DevnetContext::default()).await.unwrap().len(), 4);
        assert_eq!(plugin.calls(), ["plan_nodes", "plan_nodes"]);
    }
}
