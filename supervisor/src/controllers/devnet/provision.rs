//! Makes plan, genesis and node objects match the spec.
//!
//! ```text
//!  validate ─► binary ─► initialize ─► plan nodes ─► place ─► genesis (once) ─► commit plan, nodes, status together
//! ```
//! Nothing is launched before the last step, so a crash in between leaves only a staging folder, which the next try empties.

use super::super::{
    Context, Edit, ReconcileError, Story,
    node::{program, run_job},
    placing::{
        BINARY_SOURCE, LIMITS_ENFORCED, NodeBinary, SERVICE, TEMPLATE, desired_node, devnet_context, devnet_limits, hex, limits_condition,
        planned_service,
    },
};
use super::{genesis, identity, origin};
use crate::{
    binaries::ResolvedBinary,
    model::{
        BinarySource, BinaryStatus, Condition, ConditionStatus, Devnet, DevnetPhase, Key, Meta, Node, Plan, PlanBody, PlannedNode, SdkChange,
        Timestamp, Uid,
    },
    plugin::{DevnetContext, Initialized, Job, JobOutcome, PluginInfo},
    ports::{Placement, PortError},
    store::{Expect, Write},
    sys::failpoint,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Jobs may be asked for again and again; a plugin that never has enough is broken.
pub(in super::super) const MAX_ROUNDS: u32 = 8;

/// Provisions and commits; the caller turns an error into the devnet's condition.
pub(super) async fn provision(devnet: &Devnet, nodes: &[Arc<Node>], refresh_binary: bool, cx: &Context) -> Result<(), ReconcileError> {
    let plugin = cx.plugins.get(&devnet.spec.plugin).await?;
    let info = plugin.info().await?;
    let violations = plugin.validate(&DevnetContext::of(devnet)).await?;
    if !violations.is_empty() {
        return Err(ReconcileError::Invalid(violations));
    }
    if let Some(lack) = info.lacks_binary(&devnet.spec) {
        return Err(ReconcileError::Fault(lack));
    }
    let mut binary = own_or_default_binary(devnet, &info, refresh_binary, cx).await?;
    let bare = devnet_context(devnet, (&binary.path, &binary.sha256), &[]);
    let initialized = identity::initialize(plugin.as_ref(), &bare, devnet, cx).await?;
    // A program that was built without its release flags says nothing; then what its source says counts.
    if !initialized.binary_version.is_empty() {
        binary.version.clone_from(&initialized.binary_version);
    }
    let context = DevnetContext { initialized: initialized.state.clone(), ..bare };

    let chain = plugin.plan_nodes(&context).await?;
    let own_binaries = own_binaries(devnet, &chain, nodes, refresh_binary, cx).await?;
    identity::refuse_other_sdks(plugin.as_ref(), &context, (&initialized, &binary), &own_binaries, devnet, cx).await?;
    refuse_latecomers(devnet, nodes, &chain, &info)?;
    let services = devnet.spec.services.iter().enumerate().map(|(index, service)| planned_service(index, service));
    let planned: Vec<PlannedNode> = chain.iter().cloned().chain(services).collect();
    let placement = place(devnet, nodes, &planned, cx).await?;
    failpoint("provision/placed");
    let mut made = None;
    if devnet.status.genesis_hash.is_none() && !chain.is_empty() {
        let base = origin::bring(devnet, &info, cx).await?;
        say(devnet, "making keys, genesis and configuration", cx).await?;
        let placed = placement.nodes.iter().filter(|placed| placed.role != SERVICE).cloned().collect();
        made = Some(genesis::make(plugin.as_ref(), &context, (placed, base), devnet, cx).await?);
    }
    let node_binaries = node_binaries(devnet, &planned, &binary, own_binaries);

    let now = cx.clock.now();
    let wanted = desired_nodes(devnet, &planned, &placement, &node_binaries, now, cx);
    let present = |wanted: &Node| nodes.iter().find(|node| node.metadata.name == wanted.metadata.name);
    let launches = wanted.iter().any(|wanted| present(wanted).is_none_or(|present| is_rebuilt(present, wanted)));
    let mut writes = vec![plan_write(devnet, &initialized, &binary, chain, cx, now).await?];
    writes.extend(wanted.into_iter().flat_map(|wanted| node_writes(devnet, nodes, wanted, cx)));
    writes.extend(retire_others(devnet, nodes, &planned, cx));
    let first = cx.plan(&devnet.metadata.namespace, &devnet.metadata.name).await?.is_none();
    let done = Done { first, subnet: placement.subnet, initialized, binary, made, launches, now };
    failpoint("provision/made");
    commit(devnet, writes, &done, cx).await?;
    failpoint("provision/committed");
    Ok(())
}

/// The spec's, or the plugin's own; empty for a plugin that needs none.
async fn own_or_default_binary(devnet: &Devnet, info: &PluginInfo, refresh: bool, cx: &Context) -> Result<BinaryStatus, ReconcileError> {
    let source = match (&devnet.spec.binary, &info.default_binary) {
        (Some(source), _) => source.clone(),
        (None, Some(path)) => BinarySource { path: Some(path.display().to_string()), ..BinarySource::default() },
        (None, None) => return Ok(BinaryStatus::default()),
    };
    let binary = resolve(&source, devnet.status.binary.as_ref(), refresh, devnet, cx).await?;
    say(devnet, "reading what the binary is", cx).await?;
    Ok(binary)
}

async fn place(devnet: &Devnet, nodes: &[Arc<Node>], planned: &[PlannedNode], cx: &Context) -> Result<Placement, ReconcileError> {
    match cx.ports.place(devnet, &cx.home, planned).await {
        // What is in the way must go first; it holds on to its port until then.
        Err(error @ PortError::Staying { .. }) => {
            cx.store.commit(retire_others(devnet, nodes, planned, cx)).await?;
            Err(error.into())
        }
        placed => Ok(placed?),
    }
}

fn desired_nodes(
    devnet: &Devnet,
    planned: &[PlannedNode],
    placement: &Placement,
    binaries: &BTreeMap<String, NodeBinary>,
    now: Timestamp,
    cx: &Context,
) -> Vec<Node> {
    let placed = |planned: &PlannedNode| placement.nodes.iter().find(|placed| placed.name == planned.name);
    let desired = |planned: &PlannedNode| {
        let uid = Uid::from_uuid(cx.clock.fresh_id());
        Some(desired_node(devnet, planned, placed(planned)?, &binaries[&planned.name], now, uid))
    };
    planned.iter().filter_map(desired).collect()
}

/// Plan, nodes and status together; what runs already is held to the devnet's limits from now on.
async fn commit(devnet: &Devnet, writes: Vec<Write>, done: &Done, cx: &Context) -> Result<(), ReconcileError> {
    let directory = cx.home.devnet(&devnet.metadata.namespace, &devnet.metadata.name).display().to_string();
    let limits = devnet_limits(devnet);
    let path = [devnet.metadata.namespace.clone(), devnet.metadata.name.clone()];
    cx.runtime.limit_group(&path, &limits).await?; // of what runs already; a launch sets them too
    let limits = limits_condition(Some(&limits), cx.runtime.capabilities());
    let edit = |current: &mut Devnet| {
        match &limits {
            Some(condition) => drop(current.status.conditions.set(condition.clone(), done.now)),
            None => drop(current.status.conditions.remove(LIMITS_ENFORCED)),
        }
        Edit::Tell(done.write_into(current, devnet, &directory))
    };
    Ok(cx.edit_devnet(&devnet_key(devnet), writes, edit).await?)
}

fn refuse_latecomers(devnet: &Devnet, nodes: &[Arc<Node>], chain: &[PlannedNode], info: &PluginInfo) -> Result<(), ReconcileError> {
    let late = chain.iter().find(|planned| !nodes.iter().any(|node| node.node_name().short == planned.name));
    let late = late.filter(|_| devnet.status.genesis_hash.is_some());
    let refusal = late.and_then(|late| info.refuses_latecomer(&late.name, &devnet.metadata.name));
    refusal.map_or(Ok(()), |refusal| Err(ReconcileError::Unfit(refusal)))
}

/// The binary in the cache; what was resolved before stays until somebody asks for a fresh look.
async fn resolve(
    source: &BinarySource,
    before: Option<&BinaryStatus>,
    refresh: bool,
    devnet: &Devnet,
    cx: &Context,
) -> Result<BinaryStatus, ReconcileError> {
    let named = crate::binaries::describe(source);
    if let Some(before) = before.filter(|before| before.source == named && !refresh) {
        cx.binaries.reopen(Path::new(&before.path)).await?;
        return Ok(before.clone());
    }
    say(devnet, &format!("getting the binary: {named}"), cx).await?;
    let tell = |line: String| async move { say(devnet, &line, cx).await };
    let ResolvedBinary { path, sha256, version, .. } = cx.resolve(source, tell).await?;
    Ok(BinaryStatus { source: named, path: path.display().to_string(), sha256, version })
}

/// The binaries of nodes that override their devnet's, by short name.
async fn own_binaries(
    devnet: &Devnet,
    chain: &[PlannedNode],
    nodes: &[Arc<Node>],
    refresh: bool,
    cx: &Context,
) -> Result<BTreeMap<String, NodeBinary>, ReconcileError> {
    let mut binaries = BTreeMap::new();
    for planned in chain {
        let Some(source) = devnet.spec.node(&planned.name).and_then(|over| over.binary.as_ref()) else { continue };
        let before = nodes.iter().find(|node| node.node_name().short == planned.name);
        let before = before.map(|node| BinaryStatus {
            source: node.metadata.annotations.get(BINARY_SOURCE).cloned().unwrap_or_default(),
            path: node.spec.binary_path.clone(),
            sha256: node.spec.binary_hash.clone(),
            version: String::new(),
        });
        let resolved = resolve(source, before.as_ref(), refresh, devnet, cx).await?;
        binaries.insert(planned.name.clone(), NodeBinary { path: resolved.path, sha256: resolved.sha256, source: Some(resolved.source) });
    }
    Ok(binaries)
}

/// The binary of each node by short name: an override's, a service's program, or the devnet's.
fn node_binaries(
    devnet: &Devnet,
    planned: &[PlannedNode],
    binary: &BinaryStatus,
    mut own: BTreeMap<String, NodeBinary>,
) -> BTreeMap<String, NodeBinary> {
    let mut binaries = BTreeMap::new();
    for planned in planned {
        let service = devnet.spec.services.iter().find(|service| service.name == planned.name && planned.role == SERVICE);
        let found = match (service, own.remove(&planned.name)) {
            // One that is missing is its own node's failure, told when it is launched: the others need not suffer.
            (Some(service), _) => {
                let name = &service.command[0];
                NodeBinary { path: program(name, service.cwd.as_deref()).unwrap_or_else(|_| name.clone()), ..NodeBinary::default() }
            }
            (None, Some(own)) => own,
            (None, None) => NodeBinary { path: binary.path.clone(), sha256: binary.sha256.clone(), source: None },
        };
        binaries.insert(planned.name.clone(), found);
    }
    binaries
}

/// Runs the jobs of one round, which do not depend on each other, side by side; their outcomes in the same order.
pub(in super::super) async fn run_jobs(jobs: &[Job], devnet: &Devnet, out_dir: &Path, cx: &Context) -> Result<Vec<JobOutcome>, ReconcileError> {
    let path = [devnet.metadata.namespace.as_str(), &devnet.metadata.name, "jobs"];
    let all = jobs.iter().map(|job| run_job(job, &path, out_dir, cx));
    Ok(futures::future::try_join_all(all).await?.into_iter().map(outcome).collect())
}

fn outcome(result: crate::runtime::JobResult) -> JobOutcome {
    JobOutcome { name: result.name, exit: result.exit, stdout: result.stdout, stderr: result.stderr }
}

async fn plan_write(
    devnet: &Devnet,
    initialized: &Initialized,
    binary: &BinaryStatus,
    nodes: Vec<PlannedNode>,
    cx: &Context,
    now: Timestamp,
) -> Result<Write, ReconcileError> {
    let meta = &devnet.metadata;
    let spec = PlanBody {
        devnet_ref: meta.name.clone(),
        generation: meta.generation,
        spec_digest: devnet.spec.digest(),
        devnet_spec: Some(Arc::new(devnet.spec.clone())),
        plugin_digest: cx.plugins.digest(&devnet.spec.plugin).await?,
        binary_sha256: binary.sha256.clone(),
        initialized: hex(&initialized.state),
        sdk_version: initialized.sdk_version.clone(),
        lacks: initialized.lacks.clone(),
        nodes,
    };
    let metadata = Meta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: Uid::from_uuid(cx.clock.fresh_id()),
        generation: 1,
        created_at: now,
        ..Meta::default()
    };
    Ok(Write::Put { object: Plan { metadata, spec }.into(), expect: Expect::Any })
}

/// Creates a node, or brings an existing one to what is wanted; what users and running state put there stays.
fn node_writes(devnet: &Devnet, nodes: &[Arc<Node>], mut wanted: Node, cx: &Context) -> Vec<Write> {
    let key = Key::node(&wanted.metadata.namespace, &wanted.metadata.name);
    let parent = devnet.status.cause.clone();
    let Some(present) = nodes.iter().find(|node| node.metadata.name == wanted.metadata.name) else {
        let event = cx.tell(
            &key,
            parent,
            Story::new("devnet", "Created", format!("is {} {} at {}", wanted.spec.role, wanted.spec.index, wanted.spec.address)).action("create"),
        );
        wanted.status.cause = Some(event.id.clone());
        return vec![Write::create(wanted), Write::Event(Box::new(event))];
    };
    let mut next = Node::clone(present);
    let rebuilt = is_rebuilt(present, &wanted);
    next.metadata.annotations = wanted.metadata.annotations;
    next.metadata.labels = wanted.metadata.labels;
    next.metadata.deleted_at = None; // it may be back in the spec before it was gone
    next.status.endpoints = wanted.status.endpoints;
    let keep = next.spec.clone();
    next.spec = wanted.spec;
    next.spec.suspended = keep.suspended;
    (next.spec.frozen, next.spec.frozen_with_devnet) = (keep.frozen, keep.frozen_with_devnet);
    next.spec.desired = devnet.spec.node(&next.node_name().short).and_then(|over| over.desired).unwrap_or(keep.desired);
    next.spec.restart_request = keep.restart_request + u64::from(rebuilt);
    if next.spec == keep && next.metadata == present.metadata {
        return vec![];
    }
    next.metadata.generation += u64::from(next.spec != keep || present.metadata.deleted_at.is_some());
    let what = if rebuilt { "is to restart: what it runs has changed" } else { "follows its devnet's spec" };
    let event = cx.tell(&key, parent, Story::new("devnet", "SpecChanged", what).action("update").generation(next.metadata.generation));
    next.status.cause = Some(event.id.clone());
    vec![Write::update(next), Write::Event(Box::new(event))]
}

/// What the node runs has changed, so it needs a new launch.
fn is_rebuilt(present: &Node, wanted: &Node) -> bool {
    present.metadata.annotations.get(TEMPLATE) != wanted.metadata.annotations.get(TEMPLATE)
}

/// Nodes that left the spec: they are stopped, then removed.
fn retire_others(devnet: &Devnet, nodes: &[Arc<Node>], planned: &[PlannedNode], cx: &Context) -> Vec<Write> {
    let kept = |node: &Node| planned.iter().any(|planned| planned.name == node.node_name().short);
    let leaving = nodes.iter().filter(|node| !kept(node) && node.metadata.deleted_at.is_none());
    leaving.flat_map(|node| retire(node, devnet, cx.clock.now(), cx)).collect()
}

fn retire(node: &Node, devnet: &Devnet, now: Timestamp, cx: &Context) -> Vec<Write> {
    let mut next = node.clone();
    next.metadata.deleted_at = Some(now);
    let key = Key::node(&node.metadata.namespace, &node.metadata.name);
    let event =
        cx.tell(&key, devnet.status.cause.clone(), Story::new("devnet", "Removed", "is no longer in the spec").desired("gone").action("stop"));
    next.status.cause = Some(event.id.clone());
    vec![Write::update(next), Write::Event(Box::new(event))]
}

/// What provisioning found, for the devnet's status.
struct Done {
    subnet: Option<String>,
    initialized: Initialized,
    binary: BinaryStatus,
    made: Option<genesis::Made>,
    /// No spec was accepted before, or none since a reset: nothing runs yet.
    first: bool,
    /// Some node is new or is to restart.
    launches: bool,
    now: Timestamp,
}

impl Done {
    /// `current` may have a newer spec than `from`, which this was made of: then it is provisioned again.
    fn write_into(&self, current: &mut Devnet, from: &Devnet, directory: &str) -> Story {
        let status = &mut current.status;
        status.observed_generation = from.metadata.generation;
        status.operations.refresh_binary = from.spec.operations.refresh_binary;
        if self.first {
            status.operations.restart = from.spec.operations.restart; // it was asked to try again, and did
        }
        status.chain_id = from.spec.chain_id.clone();
        status.subnet = self.subnet.clone();
        status.directory = Some(directory.to_owned());
        let version = &self.initialized.sdk_version;
        if !version.is_empty() && status.sdk_version != *version {
            status.sdk_version = version.clone();
            status.sdk_version_history.push(SdkChange { version: version.clone(), at: self.now, height: 0 });
        }
        status.binary = (!self.binary.path.is_empty()).then(|| self.binary.clone());
        if let Some(made) = &self.made {
            status.genesis_hash = Some(made.sha256.clone());
            status.accounts = made.accounts.clone();
            status.mnemonic_path = made.mnemonic_path.clone();
        }
        if !matches!(status.phase, DevnetPhase::Running | DevnetPhase::Degraded | DevnetPhase::Stopped) {
            status.phase = DevnetPhase::Provisioning;
        }
        if status.phase == DevnetPhase::Running && self.launches {
            status.phase = DevnetPhase::Degraded; // in the same commit: who waits must not take the old Running for the new
        }
        status.message = self.launches.then(|| "starting nodes".into());
        let message = if from.spec.has_chain() { "plan, genesis and nodes match the spec" } else { "plan and services match the spec" };
        status.conditions.set(Condition::new("Provisioned", ConditionStatus::True, "Provisioned", message), self.now);
        Story::new("devnet", "Provisioned", message).action("provision").generation(from.metadata.generation)
    }
}

/// Tells watchers what is being done, as the devnet's message.
pub(super) async fn say(devnet: &Devnet, text: &str, cx: &Context) -> Result<(), ReconcileError> {
    let edit = |current: &mut Devnet| {
        if current.status.message.as_deref() == Some(text) {
            return Edit::Skip;
        }
        current.status.message = Some(text.to_owned());
        if matches!(current.status.phase, DevnetPhase::Pending | DevnetPhase::Failed) {
            current.status.phase = DevnetPhase::Provisioning;
        }
        Edit::Quiet
    };
    Ok(cx.edit_devnet(&devnet_key(devnet), vec![], edit).await?)
}

pub(super) fn devnet_key(devnet: &Devnet) -> Key {
    Key::devnet(&devnet.metadata.namespace, &devnet.metadata.name)
}
