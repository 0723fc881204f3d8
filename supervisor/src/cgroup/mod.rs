//! Control groups of one home: `devnet-<home hash>/<namespace>/<devnet>/<node>@<launch id>`, one leaf per launch.
//!
//! Drivers: `systemd` asks the user manager for a scope and divides it; `cgroupfs` writes a version 2 tree itself, also the unified mount of a hybrid machine, where there are no
//! controllers but kill, freeze and populated work; `none` does without. Which one, and why, is in `Support`.

mod detect;
mod freeze;
mod group;
mod leaf;
mod meter;
mod systemd;

pub use leaf::Leaf;
pub use meter::Counters;

use leaf::collect_pids;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use systemd::Scope;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroup {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the {driver} driver cannot work here: {why}")]
    Unusable { driver: &'static str, why: String },
    #[error("the scope {scope} cannot be made: {why}")]
    Scope { scope: String, why: String },
    #[error("the process that holds the scope {scope} open cannot be started: {source}")]
    Holder { scope: String, source: io::Error },
}

/// Gives the pid of a process that lives for as long as a daemon of this home or a launch does, and starts it where none runs: when the
/// last process of a scope ends, systemd removes it with all its leaves and counters. Asked only when nothing holds the scope.
pub type ScopeHolder = Arc<dyn Fn() -> io::Result<u32> + Send + Sync>;

/// Which driver to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// The best that works here.
    #[default]
    Auto,
    Systemd,
    Cgroupfs,
    None,
}

/// What the driver can do on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    pub message: String,
    pub remedy: Option<String>,
    pub limits: bool,
    pub freeze: bool,
    /// cgroup.kill is there (Linux 5.14); without it we kill pid by pid.
    pub kill_file: bool,
}

/// The cgroups of one home, or the knowledge that there are none.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// None: driver `none`.
    root: Option<PathBuf>,
    support: Support,
    /// Driver `systemd`: what the root lies in.
    scope: Option<Arc<Scope>>,
}

/// Limits come from these; a leaf has them when each level above passes them on.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

impl Cgroups {
    /// `home_hash` names the root. `Auto` never fails: it falls back to none and says why. Without a holder there is no driver `systemd`.
    pub fn detect(choice: DriverChoice, home_hash: &str, holder: Option<ScopeHolder>) -> Result<Self, CgroupError> {
        let name = format!("devnet-{home_hash}");
        match choice {
            DriverChoice::None => Ok(Self::none("told to do without cgroups".into(), None)),
            DriverChoice::Systemd => {
                detect::systemd(home_hash, holder).map_err(|refusal| CgroupError::Unusable { driver: "systemd", why: refusal.why })
            }
            DriverChoice::Cgroupfs => detect::cgroupfs(&name).map_err(|refusal| CgroupError::Unusable { driver: "cgroupfs", why: refusal.why }),
            DriverChoice::Auto => Ok(detect::auto(home_hash, &name, holder).unwrap_or_else(|refusal| Self::none(refusal.why, Some(refusal.remedy)))),
        }
    }

    /// As on a kernel without cgroup.kill.
    #[must_use]
    pub fn without_kill_file(mut self) -> Self {
        self.support.kill_file = false;
        self
    }

    pub fn driver(&self) -> &'static str {
        match (&self.root, &self.scope) {
            (Some(_), Some(_)) => "systemd",
            (Some(_), None) => "cgroupfs",
            (None, _) => "none",
        }
    }

    pub fn support(&self) -> &Support {
        &self.support
    }

    /// Makes the leaf of a launch. None with driver `none`.
    pub fn create(&self, path: &[String], id: &str) -> Result<Option<Leaf>, CgroupError> {
        let Some(root) = &self.root else { return Ok(None) };
        self.scope.as_ref().map_or(Ok(()), |scope| scope.ensure())?;
        let (last, above) = path.split_last().map_or(("launch", path), |(last, above)| (last.as_str(), above));
        let mut folders = vec![root.clone()];
        for name in above.iter().map(|name| safe_name(name)).chain([format!("{}@{}", safe_name(last), safe_name(id))]) {
            folders.push(folders[folders.len() - 1].join(name));
        }
        let fail = |source| CgroupError::Io { path: folders[folders.len() - 1].clone(), source };
        // Mostly its parents are there; with controllers, they may not have passed these on yet.
        let known = if self.support.limits { 0 } else { folders.len() - 1 };
        let mut made = self.create_all(&folders[known..]);
        // A leaf that is removed takes its empty parents along, perhaps just now: then once more from the top.
        for _ in 0..8 {
            match &made {
                Err(error) if is_gone(error) => made = self.create_all(&folders),
                _ => break,
            }
        }
        made.map_err(fail)?;
        Ok(Some(self.leaf(folders[folders.len() - 1].clone())))
    }

    /// The leaf that an earlier daemon made at `path`; None when it lies outside this home's root or is gone.
    pub fn open(&self, path: &Path) -> Option<Leaf> {
        let inside = self.root.as_ref().is_some_and(|root| path.starts_with(root));
        (inside && path.is_dir()).then(|| self.leaf(path.to_owned()))
    }

    /// All leaves of this home with the launch ids in their names.
    pub fn leaves(&self) -> Vec<(String, Leaf)> {
        let mut found = Vec::new();
        if let Some(root) = &self.root {
            self.collect(root, &mut found);
        }
        found
    }

    fn none(message: String, remedy: Option<String>) -> Self {
        Self { root: None, support: Support { message, remedy, ..Support::default() }, scope: None }
    }

    fn leaf(&self, path: PathBuf) -> Leaf {
        Leaf::new(path, self.support.kill_file, self.support.freeze, self.root.clone().unwrap_or_default())
    }

    fn create_all(&self, folders: &[PathBuf]) -> io::Result<()> {
        for (index, folder) in folders.iter().enumerate() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            // Also of a folder that was there: the launch that made it may not have come to this yet.
            if self.support.limits && index + 1 < folders.len() {
                pass_controllers_on(folder)?;
            }
        }
        Ok(())
    }

    fn collect(&self, folder: &Path, found: &mut Vec<(String, Leaf)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            match entry.file_name().to_str().and_then(|name| name.split_once('@')) {
                Some((_, id)) => found.push((id.to_owned(), self.leaf(entry.path()))),
                None => self.collect(&entry.path(), found),
            }
        }
    }
}

/// Also of a cgroup that was removed between the opening of its file and the use of it.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Lets the children of `folder` have the controllers that it has.
fn pass_controllers_on(folder: &Path) -> io::Result<()> {
    let passed = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
    if CONTROLLERS.iter().all(|name| passed.split_whitespace().any(|word| word == *name)) {
        return Ok(());
    }
    let have = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let wanted: Vec<String> =
        CONTROLLERS.iter().filter(|name| have.split_whitespace().any(|word| word == **name)).map(|name| format!("+{name}")).collect();
    if wanted.is_empty() { Ok(()) } else { fs::write(folder.join("cgroup.subtree_control"), wanted.join(" ")) }
}

/// A cgroup's name must not look like one of the kernel's files (they all have a dot) nor hold a slash; `@` is ours.
fn safe_name(name: &str) -> String {
    let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(100).collect();
    if safe.is_empty() { "_".into() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_climb_out_or_look_like_a_control_file() {
        assert_eq!(safe_name("validator-0"), "validator-0");
        assert_eq!(safe_name("../cgroup.procs@x"), "___cgroup_procs_x");
        assert_eq!(safe_name(""), "_");
    }

    #[test]
    fn a_folder_that_another_launch_has_just_made_passes_its_controllers_on_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("nodes");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(root.join("cgroup.subtree_control"), "").unwrap();
        let support = Support { limits: true, ..Support::default() };
        let cgroups = Cgroups { root: Some(root.clone()), support, scope: None };
        cgroups.create(&["node-0".to_owned()], "abc").unwrap();
        assert_eq!(fs::read_to_string(root.join("cgroup.subtree_control")).unwrap(), "+memory +cpu +pids");
    }

    #[test]
    fn a_leaf_is_made_found_and_removed_with_its_parents() {
        let cgroups = match Cgroups::detect(DriverChoice::Cgroupfs, &format!("test-leaf-{}", std::process::id()), None) {
            Ok(cgroups) => cgroups,
            Err(error) => return println!("SKIP: {error}"),
        };
        let path = ["ns", "net", "node-0"].map(String::from);
        let leaf = cgroups.create(&path, "abc").unwrap().unwrap();
        assert!(leaf.path().ends_with("ns/net/node-0@abc"));
        assert!(!leaf.populated().unwrap());
        assert_eq!(cgroups.leaves().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["abc"]);
        assert!(cgroups.open(leaf.path()).is_some());
        assert!(cgroups.open(Path::new("/sys/fs/cgroup")).is_none());
        leaf.remove().unwrap();
        assert!(!cgroups.root.as_ref().unwrap().exists(), "the root goes with its last leaf");
        leaf.remove().unwrap();
    }
}
