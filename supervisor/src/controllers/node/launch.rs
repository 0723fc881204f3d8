//! Makes the launch plan of a node: from its plugin, or from the spec for a service.

use super::super::placing::{SERVICE, placed_chain, stored_context};
use super::super::{Context, ReconcileError};
use super::kept;
use crate::{
    binaries::Binaries,
    model::{Devnet, LaunchId, Node, NodeName, PlanBody, ReadinessSpec, Resources, ServiceSpec},
    plugin::{FileSource, Job, LaunchPlan, NodeRequest, PlannedFile, Readiness},
    runtime::{Grants, JobSpec, LaunchSpec},
};
use dvb_proto::variables::{Neighbour, Surroundings};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const JOB_TIMEOUT: Duration = Duration::from_secs(120);

/// What a plugin or the spec says about starting `node`, with its files written and its jobs run.
pub(super) async fn prepared_plan(devnet: &Devnet, node: &Node, cx: &Context) -> Result<LaunchPlan, ReconcileError> {
    let name = node.node_name();
    if node.spec.role == SERVICE {
        let service = devnet.spec.services.iter().find(|service| service.name == name.short);
        let service = service.ok_or_else(|| ReconcileError::Unfit(format!("{name} is no longer in spec.services")))?;
        let plan = service_plan(service, node)?;
        make_dir(Path::new(&node.spec.home_dir))?;
        return Ok(plan);
    }
    let made = cx.plan(&node.metadata.namespace, &name.devnet).await?;
    let made = made.ok_or_else(|| ReconcileError::Unfit(format!("{} has no plan yet", name.devnet)))?;
    let origin = kept::origin(&made.spec, devnet, node);
    if let Some(plan) = kept::read(node, &origin, cx) {
        return Ok(plan);
    }
    let plan = ask(devnet, node, &made.spec, cx).await?;
    prepare(&plan, node, cx).await?;
    kept::keep(node, &origin, &plan, cx);
    Ok(plan)
}

/// Whether the launch plan follows from the spec, or was kept, so that nobody is asked and nothing is written.
pub(super) async fn is_planned(devnet: &Devnet, node: &Node, cx: &Context) -> Result<bool, ReconcileError> {
    if node.spec.role == SERVICE {
        return Ok(true);
    }
    let made = cx.plan(&node.metadata.namespace, &node.spec.devnet_ref).await?;
    Ok(made.is_some_and(|made| kept::read(node, &kept::origin(&made.spec, devnet, node), cx).is_some()))
}

/// The plugin's plan, with the environment that the spec adds.
async fn ask(devnet: &Devnet, node: &Node, made: &PlanBody, cx: &Context) -> Result<LaunchPlan, ReconcileError> {
    let (namespace, name) = (&node.metadata.namespace, node.node_name());
    let nodes = cx.nodes(namespace, &name.devnet).await?;
    let plugin = cx.plugins.get(&devnet.spec.plugin).await?;
    let request = NodeRequest {
        devnet: stored_context(devnet, made, &nodes),
        nodes: placed_chain(&nodes),
        node: name.short.clone(),
        shared_dir: cx.home.shared(namespace, &name.devnet),
    };
    let mut plan = plugin.launch(&request).await?;
    if let Some(over) = devnet.spec.node(&name.short) {
        plan.env.extend(over.env.clone());
    }
    plan.env.extend(Binaries::environment(Path::new(&node.spec.binary_path)));
    Ok(plan)
}

/// The devnet as its services see it, by the names of `dvbctl env`.
pub(super) fn surroundings(devnet: &Devnet, nodes: &[Arc<Node>]) -> Vec<(String, String)> {
    let status = &devnet.status;
    let surroundings = Surroundings {
        devnet: &devnet.metadata.name,
        namespace: &devnet.metadata.namespace,
        chain_id: status.chain_id.as_deref().unwrap_or_default(),
        mnemonic_file: status.mnemonic_path.as_deref().unwrap_or_default(),
        binary: status.binary.as_ref().map(|binary| binary.path.as_str()).unwrap_or_default(),
        accounts: status.accounts.iter().map(|account| account.address.as_str()).collect(),
        nodes: nodes.iter().map(|node| neighbour(node)).collect(),
    };
    surroundings.variables()
}

fn neighbour(Node { metadata, spec, status }: &Node) -> Neighbour<'_> {
    let short = metadata.name.split_once('/').map_or(metadata.name.as_str(), |(_, short)| short);
    Neighbour { short, role: &spec.role, index: spec.index, home: &spec.home_dir, endpoints: &status.endpoints }
}

/// Its environment lacks the `surroundings` yet.
fn service_plan(service: &ServiceSpec, node: &Node) -> Result<LaunchPlan, ReconcileError> {
    let program = program(&node.spec.binary_path, service.cwd.as_deref())?;
    let ReadinessSpec { tcp, http, log } = service.readiness.clone().unwrap_or_default();
    let readiness = match (tcp, http, log) {
        (Some(port), _, _) => Readiness::Tcp(port),
        (_, Some(target), _) => {
            let (port, path) = target.split_once('/').unwrap_or((&target, ""));
            Readiness::Http { port: port.to_owned(), path: format!("/{path}") }
        }
        (_, _, Some(text)) => Readiness::LogText(text),
        (None, None, None) => Readiness::Process,
    };
    let mut argv = service.command.clone();
    argv[0] = program;
    let mut env = BTreeMap::from([("DVB_ADDRESS".to_owned(), node.spec.address.clone())]);
    for (port, number) in &node.spec.ports {
        env.insert(format!("DVB_PORT_{}", port.to_ascii_uppercase().replace('-', "_")), number.to_string());
    }
    env.extend(service.env.clone());
    Ok(LaunchPlan {
        argv,
        env,
        cwd: service.cwd.as_deref().map_or_else(|| PathBuf::from(&node.spec.home_dir), PathBuf::from),
        readiness,
        stop_signal: service.stop_signal.clone().unwrap_or_default(),
        grace: service.grace.map_or(Duration::ZERO, |grace| grace.0),
        ..LaunchPlan::default()
    })
}

/// A service's program: a path as it is (relative to its cwd), a bare name by PATH.
pub(in super::super) fn program(name: &str, cwd: Option<&str>) -> Result<String, ReconcileError> {
    let path = Path::new(name);
    if path.is_absolute() {
        return Ok(name.to_owned());
    }
    if name.contains('/') {
        return Ok(Path::new(cwd.unwrap_or("/")).join(path).display().to_string());
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|file| file.is_file());
    found
        .map(|file| file.display().to_string())
        .ok_or_else(|| ReconcileError::Unfit(format!("there is no program `{name}` in the daemon's PATH; write its path in spec.services")))
}

/// Of what a job printed, so many last lines are looked at: help texts come behind the error.
const JOB_LINES: usize = 60;

/// Writes the plan's files and runs its jobs, in that order; each job must succeed.
async fn prepare(plan: &LaunchPlan, node: &Node, cx: &Context) -> Result<(), ReconcileError> {
    make_dir(Path::new(&node.spec.home_dir))?;
    let files = plan.files.clone();
    let write = move || files.iter().try_for_each(write_whole);
    tokio::task::spawn_blocking(write).await.map_err(|error| ReconcileError::Unfit(format!("the work broke off: {error}")))??;
    let name = node.node_name();
    let out_dir = cx.home.node(&node.metadata.namespace, &name.devnet, &name.short).join("jobs");
    for job in &plan.jobs {
        run_job(job, &[&node.metadata.namespace, &name.devnet, &name.short], &out_dir, cx).await?;
    }
    Ok(())
}

/// Runs one job; an exit code that is not in its list is an error with what it called its error, or printed last.
pub(in super::super) async fn run_job(job: &Job, path: &[&str], out_dir: &Path, cx: &Context) -> Result<crate::runtime::JobResult, ReconcileError> {
    make_dir(out_dir)?;
    let result = cx.runtime.run(&job_spec(job, path, out_dir)).await?;
    let good = if job.ok_codes.is_empty() { result.exit.code == Some(0) } else { result.exit.code.is_some_and(|code| job.ok_codes.contains(&code)) };
    if good {
        return Ok(result);
    }
    let words = crate::logs::LastWords::read(&result.stderr, JOB_LINES).error().unwrap_or_default();
    let how = result.exit.code.map_or_else(|| "was killed".into(), |code| format!("exit code {code}"));
    Err(ReconcileError::Job { name: job.name.clone(), reason: format!("{how}: {words}") })
}

/// A plugin's job as the runtime takes it; it has the memory of the machine.
pub(in super::super) fn job_spec(job: &Job, path: &[&str], out_dir: &Path) -> JobSpec {
    let mut env = job.env.clone();
    if let Some(program) = job.argv.first() {
        env.extend(Binaries::environment(Path::new(program)));
    }
    JobSpec {
        name: job.name.clone(),
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        argv: job.argv.clone(),
        env,
        cwd: if job.cwd.as_os_str().is_empty() { out_dir.to_path_buf() } else { job.cwd.clone() },
        out_dir: out_dir.to_path_buf(),
        timeout: if job.timeout.is_zero() { JOB_TIMEOUT } else { job.timeout },
        limits: Resources::default(),
    }
}

/// The runtime's launch and the descriptors that go with it.
pub(super) fn launch_spec(
    plan: LaunchPlan,
    devnet_limits: Resources,
    node: &Node,
    id: LaunchId,
    log: PathBuf,
) -> Result<(LaunchSpec, Grants), ReconcileError> {
    let NodeName { devnet, short } = node.node_name();
    let cwd = cwd(&plan, node);
    let in_place = |text: String| if text.contains("{secret:") { text.replace("{secret:", "{fd:") } else { text };
    let mut grants = Grants::default();
    for (name, content) in &plan.secrets {
        grants.fds.push((name.clone(), secret_fd(name, content)?));
    }
    let spec = LaunchSpec {
        id,
        path: vec![node.metadata.namespace.clone(), devnet, short],
        argv: plan.argv.into_iter().map(in_place).collect(),
        env: plan.env.into_iter().map(|(key, value)| (key, in_place(value))).collect(),
        cwd,
        log,
        limits: node.spec.resources.unwrap_or_default(),
        group_limits: devnet_limits,
    };
    Ok((spec, grants))
}

pub(super) fn cwd(plan: &LaunchPlan, node: &Node) -> PathBuf {
    if plan.cwd.as_os_str().is_empty() { PathBuf::from(&node.spec.home_dir) } else { plan.cwd.clone() }
}

/// A sealed memory file: read as often as the process likes, on no disk.
fn secret_fd(name: &str, content: &[u8]) -> Result<OwnedFd, ReconcileError> {
    let io = |source: io::Error| ReconcileError::Io { path: PathBuf::from(format!("secret {name}")), source };
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map_err(|error| io(error.into()))?;
    let mut file = fs::File::from(fd);
    file.write_all(content).map_err(io)?;
    Ok(file.into())
}

/// Whole, and renamed into place.
fn write_whole(file: &PlannedFile) -> Result<(), ReconcileError> {
    let io = |source| ReconcileError::Io { path: file.path.clone(), source };
    if let Some(dir) = file.path.parent() {
        make_dir(dir)?;
    }
    let draft = file.path.with_extension("dvb-new");
    // Of a start that was cut off: it may be a link, and what is written to one is written to the shared file.
    let _ = fs::remove_file(&draft);
    let made = match &file.source {
        FileSource::Given { content, mode } => write_draft(&draft, content, if *mode == 0 { 0o600 } else { *mode }),
        FileSource::Shared(from) => link_draft(from, &draft),
    };
    let placed = made.and_then(|()| fs::rename(&draft, &file.path));
    // Also after a rename: of two links to one file it does nothing, and says nothing.
    let _ = fs::remove_file(&draft);
    placed.map_err(io)
}

fn write_draft(draft: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    out.set_permissions(fs::Permissions::from_mode(mode))?;
    out.write_all(content)
}

/// Where links are not possible, a copy.
fn link_draft(from: &Path, draft: &Path) -> io::Result<()> {
    fs::hard_link(from, draft).or_else(|_| fs::copy(from, draft).map(drop))
}

pub(in super::super) fn make_dir(dir: &Path) -> Result<(), ReconcileError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|source| ReconcileError::Io { path: dir.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_planned_file_is_whole_and_a_shared_one_is_the_shared_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, path) = (dir.path().join("shared.json"), dir.path().join("home/config/genesis.json"));
        fs::write(&shared, "state").unwrap();
        let given = |text: &str| FileSource::Given { content: text.into(), mode: 0o640 };
        let write = |source| write_whole(&PlannedFile { path: path.clone(), source });
        let alone = || fs::read_dir(path.parent().unwrap()).unwrap().count() == 1;
        for _ in 0..2 {
            write(FileSource::Shared(shared.clone())).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino(), fs::metadata(&shared).unwrap().ino());
            assert!(alone(), "no draft is left");
        }
        fs::hard_link(&shared, path.with_extension("dvb-new")).unwrap(); // a daemon died before the rename
        write(given("own")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fs::read_to_string(&shared).unwrap().as_str()), ("own", "state"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(write(FileSource::Shared(dir.path().join("none"))).unwrap_err().to_string().contains("config/genesis.json"));
        assert!(alone());
    }
}
