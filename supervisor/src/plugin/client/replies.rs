//! From the messages of `plugin.v1` to the daemon's types; what the daemon could not act on is refused with a reason.

use crate::{
    model::{Account, ExitClass, PlannedNode, PlannedPort, Violation},
    plugin::{
        BlockHeight, Classified, ExportPlan, FileSource, Genesis, Health, Initialized, Job, LaunchPlan, NodeRequest, PlannedFile, PluginInfo,
        Readiness, Reply,
    },
    sys::signal_from_name,
};
use dvb_proto::plugin::v1::{self as pb, readiness::Kind};
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    time::Duration,
};

const JOB_TIMEOUT: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(10);
const FILE_MODE: u32 = 0o644;

/// The reason why a reply is unusable.
type Checked<T> = Result<T, String>;

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { Err(why()) }
}

/// A path with neither root nor dots: it stays below whatever it is joined to.
fn below(text: &str, what: &str) -> Checked<PathBuf> {
    let inside = !text.is_empty() && Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    ensure(inside, || format!("{what} `{text}` is no relative path without dots"))?;
    Ok(PathBuf::from(text))
}

fn absolute(text: &str, what: &str) -> Checked<PathBuf> {
    let path = Path::new(text);
    ensure(path.is_absolute() && !path.components().any(|part| part == Component::ParentDir), || format!("{what} `{text}` is no absolute path"))?;
    Ok(path.to_owned())
}

fn digest(text: &str, what: &str) -> Checked<String> {
    ensure(text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), || format!("{what} `{text}` is no SHA-256 in hex"))?;
    Ok(text.to_ascii_lowercase())
}

pub(super) fn info(info: pb::PluginInfo, family: Option<&str>) -> Checked<PluginInfo> {
    ensure(!info.name.is_empty(), || "it gives no name".into())?;
    ensure(family.is_none_or(|family| family == info.name), || format!("its file is named for another family than it says: {}", info.name))?;
    let default_binary = info.default_binary.map(|path| absolute(&path, "default_binary")).transpose()?;
    Ok(PluginInfo {
        name: info.name,
        version: info.version,
        api_version: info.api_version,
        description: info.description,
        capabilities: info.capabilities,
        networks: info.networks,
        default_binary,
        needs_binary: info.needs_binary,
    })
}

pub(super) fn jobs(jobs: Vec<pb::Job>) -> Checked<Vec<Job>> {
    let mut names = BTreeSet::new();
    jobs.into_iter()
        .map(|job| {
            ensure(names.insert(job.name.clone()), || format!("two jobs are named `{}`", job.name))?;
            below(&job.name, "the job name")?;
            ensure(!job.name.contains('/'), || format!("the job name `{}` has a slash", job.name))?;
            absolute(job.argv.first().map_or("", String::as_str), &format!("argv[0] of job {}", job.name))?;
            let cwd = if job.cwd.is_empty() { PathBuf::new() } else { absolute(&job.cwd, &format!("cwd of job {}", job.name))? };
            let timeout = if job.timeout_ms == 0 { JOB_TIMEOUT } else { Duration::from_millis(job.timeout_ms.into()) };
            let codes: Result<Vec<i32>, _> = job.ok_codes.iter().map(|code| i32::try_from(*code)).collect();
            let mut ok_codes = codes.map_err(|_| format!("job {} has an impossible exit code: {:?}", job.name, job.ok_codes))?;
            if ok_codes.is_empty() {
                ok_codes.push(0);
            }
            Ok(Job { name: job.name, argv: job.argv, env: job.env, cwd, timeout, ok_codes })
        })
        .collect()
}

pub(super) fn initialized(reply: pb::InitializeResponse) -> Checked<Reply<Initialized>> {
    if !reply.jobs.is_empty() {
        return jobs(reply.jobs).map(Reply::Jobs);
    }
    Ok(Reply::Done(Initialized { sdk_version: reply.sdk_version, binary_version: reply.binary_version, state: reply.state, lacks: reply.lacks }))
}

pub(super) fn export(reply: pb::ExportPlan) -> Checked<ExportPlan> {
    let skip = reply.skip.iter().map(|path| below(path, "a path to skip")).collect::<Checked<_>>()?;
    Ok(ExportPlan { jobs: jobs(reply.jobs)?, skip, height: reply.height })
}

pub(super) fn violations(reply: pb::ValidateSpecResponse) -> Checked<Vec<Violation>> {
    let one = |found: pb::Violation| {
        ensure(!found.field.is_empty() && !found.message.is_empty(), || format!("a violation lacks its field or its message: {found:?}"))?;
        let suggestion = Some(found.suggestion).filter(|text| !text.is_empty());
        Ok(Violation { field: found.field, message: found.message, suggestion })
    };
    reply.violations.into_iter().map(one).collect()
}

pub(super) fn nodes(reply: pb::PlanNodesResponse) -> Checked<Vec<PlannedNode>> {
    let names: BTreeSet<String> = reply.nodes.iter().map(|node| node.name.clone()).collect();
    ensure(names.len() == reply.nodes.len(), || "a node name stands twice".into())?;
    let mut keys = BTreeSet::new();
    let one = |node: pb::PlannedNode| {
        let name = &node.name;
        ensure(!node.role.is_empty() && *name == format!("{}-{}", node.role, node.index), || format!("node `{name}` is not named <role>-<index>"))?;
        ensure(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), || format!("`{name}` is no node name"))?;
        let key = &node.consensus_key;
        ensure(key.bytes().all(|c| c.is_ascii_hexdigit()), || format!("{name}: the consensus key is not hex"))?;
        ensure(key.is_empty() || keys.insert(key.to_ascii_lowercase()), || format!("{name}: another node has its consensus key"))?;
        if !node.sign_state.is_empty() {
            below(&node.sign_state, &format!("{name}: sign_state"))?;
        }
        if !node.key_file.is_empty() {
            below(&node.key_file, &format!("{name}: key_file"))?;
        }
        ensure(node.after.iter().all(|other| other != name && names.contains(other)), || {
            format!("{name}: after names no other node: {:?}", node.after)
        })?;
        let ports = ports(name, node.ports)?;
        Ok(PlannedNode {
            name: node.name,
            role: node.role,
            index: node.index,
            ports,
            consensus_key: node.consensus_key.to_ascii_lowercase(),
            sign_state: node.sign_state,
            key_file: node.key_file,
            after: node.after,
        })
    };
    reply.nodes.into_iter().map(one).collect()
}

fn ports(node: &str, ports: Vec<pb::PortSpec>) -> Checked<Vec<PlannedPort>> {
    let mut names = BTreeSet::new();
    let one = |port: pb::PortSpec| {
        ensure(!port.name.is_empty() && names.insert(port.name.clone()), || format!("{node}: port name `{}` is empty or stands twice", port.name))?;
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("{node}: port {} is {}", port.name, port.port))?;
        Ok(PlannedPort { name: port.name, port: number, wildcard: port.wildcard, park: port.park && !port.udp, udp: port.udp, scheme: port.scheme })
    };
    ports.into_iter().map(one).collect()
}

pub(super) fn genesis(reply: pb::GenerateGenesisResponse) -> Checked<Reply<Genesis>> {
    if !reply.jobs.is_empty() {
        return jobs(reply.jobs).map(Reply::Jobs);
    }
    // A family without a chain has no genesis.
    let (genesis_path, genesis_sha256) = match reply.genesis_path.as_str() {
        "" => (PathBuf::new(), String::new()),
        path => (below(path, "genesis_path")?, digest(&reply.genesis_sha256, "genesis_sha256")?),
    };
    let file = |file: pb::StagedFile| Ok((below(&file.path, "the staged file")?, digest(&file.sha256, &format!("the digest of {}", file.path))?));
    let files = reply.files.into_iter().map(file).collect::<Checked<Vec<_>>>()?;
    let mnemonic_path = Some(reply.mnemonic_path).filter(|path| !path.is_empty()).map(|path| below(&path, "mnemonic_path")).transpose()?;
    let account = |account: pb::Account| Account { name: account.name, address: account.address, balance: account.balance };
    let accounts = reply.accounts.into_iter().map(account).collect();
    Ok(Reply::Done(Genesis { genesis_path, genesis_sha256, files, accounts, mnemonic_path }))
}

pub(super) fn launch(plan: pb::LaunchPlan, request: &NodeRequest) -> Checked<LaunchPlan> {
    let node = request.nodes.iter().find(|node| node.name == request.node);
    let home = node.map(|node| PathBuf::from(&node.home_dir)).unwrap_or_default();
    absolute(plan.argv.first().map_or("", String::as_str), "argv[0]")?;
    let cwd = if plan.cwd.is_empty() { home.clone() } else { absolute(&plan.cwd, "cwd")? };
    let file = |file: pb::PlannedFile| {
        let path = absolute(&file.path, "the planned file")?;
        ensure(path.starts_with(&home) || path.starts_with(&request.shared_dir), || {
            format!("{} lies neither in the node's home nor in shared/", file.path)
        })?;
        let given =
            |file: pb::PlannedFile| FileSource::Given { content: file.content, mode: if file.mode == 0 { FILE_MODE } else { file.mode & 0o7777 } };
        let source = match file.shared.as_str() {
            "" => given(file),
            shared => FileSource::Shared(request.shared_dir.join(below(shared, "the shared file")?)),
        };
        Ok(PlannedFile { path, source })
    };
    let files = plan.files.into_iter().map(file).collect::<Checked<Vec<_>>>()?;
    let readiness = readiness(plan.readiness)?;
    if let Readiness::Tcp(port) | Readiness::Http { port, .. } = &readiness {
        ensure(node.is_some_and(|node| node.ports.contains_key(port)), || format!("readiness asks port `{port}`, which the node does not have"))?;
    }
    let signal = &plan.stop_signal;
    ensure(signal.is_empty() || signal_from_name(signal).is_some(), || format!("there is no signal `{signal}`"))?;
    Ok(LaunchPlan {
        jobs: jobs(plan.jobs)?,
        argv: plan.argv,
        env: plan.env,
        cwd,
        files,
        secrets: plan.secrets.into_iter().map(|secret| (secret.name, secret.content)).collect(),
        readiness,
        stop_signal: plan.stop_signal,
        grace: if plan.grace_ms == 0 { GRACE } else { Duration::from_millis(plan.grace_ms.into()) },
    })
}

fn readiness(readiness: Option<pb::Readiness>) -> Checked<Readiness> {
    Ok(match readiness.and_then(|readiness| readiness.kind) {
        None | Some(Kind::Process(_)) => Readiness::Process,
        Some(Kind::Plugin(_)) => Readiness::Plugin,
        Some(Kind::TcpPort(port)) => Readiness::Tcp(port),
        Some(Kind::Http(probe)) => Readiness::Http { port: probe.port, path: probe.path },
        Some(Kind::LogText(text)) => {
            ensure(!text.is_empty(), || "readiness looks for an empty text in the log".into())?;
            Readiness::LogText(text)
        }
    })
}

pub(super) fn health(status: pb::NodeStatus) -> Checked<Health> {
    let sick = if status.sick { Some(class(&status.sick_class)?) } else { None };
    let pb::NodeStatus { ready, height, peers, catching_up, message, details, .. } = status;
    Ok(Health { ready, height, peers, catching_up, message, sick, details: details.into_iter().collect() })
}

pub(super) fn height(height: pb::BlockHeight) -> BlockHeight {
    BlockHeight { height: height.height, hash: height.hash, app_hash: height.app_hash }
}

pub(super) fn classified(reply: pb::ExitClass) -> Checked<Classified> {
    let remedy = Some(reply.remedy).filter(|text| !text.is_empty());
    Ok(Classified { class: class(&reply.class)?, message: reply.message, remedy })
}

/// The words are those of the model's JSON form; empty means unknown.
fn class(word: &str) -> Checked<ExitClass> {
    if word.is_empty() {
        return Ok(ExitClass::Unknown);
    }
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|_| format!("there is no exit class `{word}`"))
}
