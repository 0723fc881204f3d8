//! `daemon doctor`: what this machine lacks for devnetd, with the command that mends it. It starts nothing.

mod judge;

use super::install;
use crate::{client::Client, context::Context, error::Error, service};
use dvb_proto::devnet::v1::{DaemonStatus, ListRequest, PortLease};
use dvb_units::{SERVICE, UserManager};
use judge::judge;
use nix::sys::{resource, statvfs};
use serde::Serialize;
use std::{fs, os::unix::fs::MetadataExt, path::Path, thread};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
}

/// What was seen; None where it could not be seen.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Version and controllers, or why there is no user manager.
    manager: Option<Result<Manager, String>>,
    lingers: bool,
    user: String,
    uid: u32,
    installed: bool,
    /// When one runs.
    daemon: Option<DaemonStatus>,
    /// The daemon's, with what is there now.
    ports: Vec<PortLease>,
    /// Soft and hard limit that a devnetd started from here would find.
    open_files: Option<(u64, u64)>,
    inotify_instances: Option<u64>,
    /// Of those, as far as the user's own processes have them.
    inotify_used: Option<u64>,
    inotify_watches: Option<u64>,
    /// Bytes that programs may still get, and all that there are.
    memory: Option<(u64, u64)>,
    /// Of the last minute: so many threads ran or waited to, on so many processors.
    load: Option<(f64, usize)>,
    home: String,
    free_bytes: Option<u64>,
    ephemeral: Option<(u64, u64)>,
    /// Numbers that the kernel does not give away, as the sysctl has them.
    reserved_ports: String,
    plugins: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Manager {
    version: String,
    controllers: String,
}

pub(super) async fn run(ctx: &Context) -> Result<(), Error> {
    let findings = judge(&look(ctx).await);
    if ctx.is_structured() {
        ctx.print_structured(&Report { findings: &findings })?;
    } else {
        print(ctx, &findings)?;
    }
    let failed: Vec<&str> = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).map(|finding| finding.check).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::failed("Unfit", format!("devnetd cannot do its work here: {}", failed.join(", ")))) }
}

fn print(ctx: &Context, findings: &[Finding]) -> Result<(), Error> {
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        ctx.print(format!("{verdict:<6}{}: {}", finding.check, finding.message))?;
        if let Some(remedy) = &finding.remedy {
            ctx.print(format!("      try: {remedy}"))?;
        }
    }
    Ok(())
}

async fn look(ctx: &Context) -> Facts {
    let settings = &ctx.settings;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut range = range.split_whitespace().filter_map(|word| word.parse().ok());
    let (daemon, ports) = look_at_daemon(ctx).await.map_or((None, Vec::new()), |(daemon, ports)| (Some(daemon), ports));
    let existing = settings.home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Facts {
        manager: look_at_manager(settings.runtime_dir.as_deref()).await,
        lingers: install::lingers(ctx),
        user: install::user(ctx),
        uid: nix::unistd::getuid().as_raw(),
        installed: install::folder(ctx).is_ok_and(|folder| folder.join(SERVICE).exists()),
        daemon,
        ports,
        open_files: resource::getrlimit(resource::Resource::RLIMIT_NOFILE).ok(),
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
        inotify_used: inotify_used(),
        inotify_watches: number("/proc/sys/fs/inotify/max_user_watches"),
        memory: memory(),
        load: System::load_average().ok().zip(thread::available_parallelism().ok()).map(|(load, processors)| (load.one, processors.get())),
        home: settings.home.display().to_string(),
        free_bytes: statvfs::statvfs(existing).ok().map(|disk| disk.blocks_available() * disk.fragment_size()),
        ephemeral: range.next().zip(range.next()),
        reserved_ports: fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default().trim().to_owned(),
        plugins: plugins(ctx),
    }
}

/// None where the system does not tell.
fn memory() -> Option<(u64, u64)> {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram())).ok()?;
    (system.total_memory() > 0).then(|| (system.available_memory(), system.total_memory()))
}

/// Instances that processes of our user have open; the kernel counts them per user. None without /proc.
fn inotify_used() -> Option<u64> {
    let uid = nix::unistd::getuid().as_raw();
    let ours = fs::read_dir("/proc").ok()?.flatten().filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == uid));
    let descriptors = ours.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flatten().flatten();
    let is_inotify = |path: &Path| fs::read_link(path).is_ok_and(|target| target == Path::new("anon_inode:inotify"));
    u64::try_from(descriptors.filter(|fd| is_inotify(&fd.path())).count()).ok()
}

/// None without a runtime directory: then nobody keeps one for us.
async fn look_at_manager(runtime_dir: Option<&Path>) -> Option<Result<Manager, String>> {
    let manager = match UserManager::connect(runtime_dir?).await {
        Ok(manager) => manager,
        Err(error) => return Some(Err(error.to_string())),
    };
    let asked = async { Ok::<_, dvb_units::ManagerError>((manager.version().await?, manager.control_group().await?)) };
    Some(match asked.await {
        Ok((version, cgroup)) => {
            let file = Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')).join("cgroup.controllers");
            Ok(Manager { version, controllers: fs::read_to_string(file).unwrap_or_default() })
        }
        Err(error) => Err(error.to_string()),
    })
}

/// What it says of itself and of the ports of all its devnets.
async fn look_at_daemon(ctx: &Context) -> Option<(DaemonStatus, Vec<PortLease>)> {
    if service::rests(ctx).await {
        return None;
    }
    let client = Client::connect_running(ctx).await.ok()??;
    let status = client.handshake(ctx).await.ok()?;
    let everywhere = ListRequest { all_namespaces: true, ..ListRequest::default() };
    let ports = client.nodes().list_ports(everywhere).await.ok()?.into_inner().items;
    Some((status, ports))
}

/// Beside dvbctl and in the home, where devnetd looks too.
fn plugins(ctx: &Context) -> Vec<String> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.to_owned()));
    let folders = beside.into_iter().chain([ctx.settings.home.join("plugins")]);
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("dvb-plugin-")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| !name.contains('.')).collect();
    names.sort();
    names.dedup();
    names
}
