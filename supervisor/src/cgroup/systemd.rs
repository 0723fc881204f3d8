//! Driver `systemd`: the user manager gives each home a scope of its own, and we divide it.
//!
//! ```text
//! devnet.slice/devnet-<home hash>.scope    made around the holder, with Delegate=yes, before the first leaf
//!   holder/                                the process that holds it open (below the root, else no controller can be passed on)
//!   nodes/<namespace>/<devnet>/...         ours
//! ```
//!
//! The scope lies outside the daemon's unit, so restart, crash and reload of the daemon or of the manager leave the nodes alone.

use super::{CONTROLLERS, CgroupError, Cgroups, ScopeHolder, Support, collect_pids, detect::Refusal, pass_controllers_on};
use dvb_units::{ManagerError, NewScope, SERVICE, SLICE, UserManager, daemon_scope, node_scope};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Where the daemon's own scope goes, as everything that a user starts in a session.
const APP_SLICE: &str = "app.slice";
/// Where cgroup version 2 alone is mounted.
const UNIFIED_MOUNT: &str = "/sys/fs/cgroup";

/// The scope of one home. It need not exist yet.
pub(super) struct Scope {
    name: String,
    runtime_dir: PathBuf,
    folder: PathBuf,
    /// At a common stop the daemon ends before the nodes, and does not bring them back.
    daemon_units: Vec<String>,
    holder: ScopeHolder,
    making: Mutex<()>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("name", &self.name).field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Asks the user manager of `runtime_dir`, and has it take in a daemon that a login session started: from there no process can be
/// moved into the manager's tree.
pub(super) fn detect(home_hash: &str, runtime_dir: Option<&Path>, holder: ScopeHolder) -> Result<Cgroups, Refusal> {
    let login =
        "log in by ssh or at a console, not by su or sudo; as a service of another kind: loginctl enable-linger USER, and set XDG_RUNTIME_DIR";
    let refuse = |why: String, remedy: &str| Refusal { why, remedy: remedy.into() };
    let Some(runtime_dir) = runtime_dir else { return Err(refuse("XDG_RUNTIME_DIR is not set, so no user manager can be asked".into(), login)) };
    if !UserManager::socket(runtime_dir).exists() {
        return Err(refuse(format!("no systemd user manager runs for {}", runtime_dir.display()), login));
    }
    if !Path::new(UNIFIED_MOUNT).join("cgroup.controllers").exists() {
        let remedy = "boot with systemd.unified_cgroup_hierarchy=1";
        return Err(refuse(format!("{UNIFIED_MOUNT} is no cgroup version 2 tree, so the user manager cannot delegate one"), remedy));
    }
    let asked = ask(home_hash, runtime_dir);
    let (version, manager_cgroup, own_scope) = asked.map_err(|error| refuse(error.to_string(), "systemctl --user status"))?;
    let below = Path::new(UNIFIED_MOUNT).join(manager_cgroup.trim_start_matches('/'));
    let name = node_scope(home_hash);
    let folder = below.join(SLICE).join(&name);
    let mut daemon_units = vec![SERVICE.to_owned()];
    daemon_units.extend(own_scope);
    let support = support(&below, &name, &version);
    let root = folder.join("nodes");
    let scope = Scope { name, runtime_dir: runtime_dir.to_owned(), folder, daemon_units, holder, making: Mutex::default() };
    Ok(Cgroups { root: Some(root), support, scope: Some(Arc::new(scope)) })
}

impl Scope {
    /// Sees to it that the scope is there and held open. Costs two reads when it is.
    pub(super) fn ensure(&self) -> Result<(), CgroupError> {
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.folder.join("holder");
        if is_populated(&place) {
            return Ok(());
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Io { path: path.clone(), source }
        };
        let pid = (self.holder)().map_err(|source| CgroupError::Holder { scope: self.name.clone(), source })?;
        if !is_populated(&self.folder) {
            self.start(pid)?;
        }
        create(&place).map_err(failed(&place))?;
        // Also a new holder of an old scope goes in this way.
        let procs = place.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(failed(&procs))?;
        pass_controllers_on(&self.folder).map_err(failed(&self.folder))
    }

    fn start(&self, pid: u32) -> Result<(), CgroupError> {
        let before: Vec<&str> = self.daemon_units.iter().map(String::as_str).collect();
        let new = NewScope { name: &self.name, description: "Nodes of one devnetd home", slice: SLICE, pid, delegate: true, before: &before };
        let made = with_manager(&self.runtime_dir, async |manager| {
            // One whose processes have all ended, and that is just being removed.
            manager.stop(new.name).await?;
            manager.start_scope(new).await?;
            manager.scope_control_group(new.name).await
        });
        let refused = |why: String| CgroupError::Scope { scope: self.name.clone(), why };
        let cgroup = made.map_err(|error| refused(error.to_string()))?;
        if !self.folder.ends_with(cgroup.trim_start_matches('/')) || !self.folder.is_dir() {
            return Err(refused(format!("its cgroup is {cgroup} instead of {}", self.folder.display())));
        }
        Ok(())
    }
}

/// Version, the manager's cgroup, and the scope that we were moved into, if we had to be.
fn ask(home_hash: &str, runtime_dir: &Path) -> Result<(String, String, Option<String>), ManagerError> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    with_manager(runtime_dir, async |manager| {
        let (version, cgroup) = (manager.version().await?, manager.control_group().await?);
        if is_below(&own, &cgroup) {
            return Ok((version, cgroup, None));
        }
        let pid = std::process::id();
        // The pid makes the name unique: plugins of a daemon that died may hold the old scope for a moment.
        let name = daemon_scope(&format!("{home_hash}-{pid}"));
        let scope = NewScope { name: &name, description: "devnetd, started by dvbctl", slice: APP_SLICE, pid, delegate: false, before: &[] };
        manager.start_scope(scope).await?;
        Ok((version, cgroup, Some(name)))
    })
}

/// On a thread with a runtime of its own, which ends with the connection: callers may be async or not, and an idle daemon holds nothing.
fn with_manager<T: Send>(runtime_dir: &Path, work: impl AsyncFnOnce(&UserManager) -> Result<T, ManagerError> + Send) -> Result<T, ManagerError> {
    let unreachable = |source| ManagerError::Unreachable { socket: UserManager::socket(runtime_dir), source };
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
        runtime.block_on(async { work(&UserManager::connect(runtime_dir).await?).await })
    };
    std::thread::scope(|threads| threads.spawn(run).join().unwrap_or_else(|_| Err(unreachable(io::Error::other("the connection's thread panicked")))))
}

fn support(manager: &Path, scope: &str, version: &str) -> Support {
    let have = fs::read_to_string(manager.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !have.split_whitespace().any(|word| word == *name)).collect();
    let mut support = Support {
        message: format!("{SLICE}/{scope} of the user manager, systemd {version}"),
        remedy: None,
        limits: missing.is_empty(),
        freeze: manager.join("cgroup.freeze").exists(),
        kill_file: manager.join("cgroup.kill").exists(),
    };
    if !missing.is_empty() {
        support.message.push_str(&format!(", which has not got the controllers {}: limits are not enforced", missing.join(", ")));
        support.remedy = Some(dvb_units::delegation_remedy(nix::unistd::getuid().as_raw()));
    }
    support
}

/// Whether our line of /proc/self/cgroup lies below the manager's cgroup.
fn is_below(own: &str, manager: &str) -> bool {
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    own.strip_prefix(manager).is_some_and(|rest| rest.starts_with('/'))
}

fn is_populated(folder: &Path) -> bool {
    let mut pids = Vec::new();
    collect_pids(folder, &mut pids);
    !pids.is_empty()
}

fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_session_is_not_below_the_user_manager() {
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        let check = |own: &str, expect: bool| assert_eq!(is_below(own, manager), expect, "{own}");
        check("0::/user.slice/user-1000.slice/session-3.scope\n", false);
        check("0::/user.slice/user-1000.slice/user@1000.service/app.slice/devnetd.service\n", true);
        check("0::/user.slice/user-1000.slice/user@1000.service.d/x\n", false);
        check("1:name=systemd:/user.slice/user-1000.slice/user@1000.service/x\n", false);
    }

    #[test]
    fn without_a_user_manager_the_refusal_says_how_to_get_one() {
        let holder: ScopeHolder = Arc::new(|| Err(io::ErrorKind::Unsupported.into()));
        let check = |runtime_dir: Option<&Path>, expect: &str| {
            let refusal = detect("0", runtime_dir, holder.clone()).expect_err("nothing is there");
            assert!(refusal.why.contains(expect) && refusal.remedy.contains("enable-linger"), "{}", refusal.why);
        };
        check(None, "XDG_RUNTIME_DIR");
        check(Some(Path::new("/nonexistent")), "/nonexistent");
    }

    #[test]
    fn missing_controllers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("cgroup.controllers", "memory pids\n");
        file("cgroup.kill", "");
        let lacking = support(dir.path(), "x.scope", "252");
        assert!(!lacking.limits && lacking.kill_file && !lacking.freeze);
        assert!(lacking.message.contains("controllers cpu:") && lacking.remedy.is_some(), "{}", lacking.message);
        file("cgroup.controllers", "cpu memory pids\n");
        assert!(support(dir.path(), "x.scope", "252").limits);
    }
}
