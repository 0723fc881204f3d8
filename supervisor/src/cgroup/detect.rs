//! Finds out where on this machine we may make cgroups, and what they can do there.

use super::{CONTROLLERS, Cgroups, ScopeHolder, Support, pass_controllers_on, systemd};
use nix::unistd::{AccessFlags, access};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why there are no cgroups for us, and what would change that.
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) remedy: String,
}

/// The user manager's gift where systemd keeps the tree (it allows one writer only), else a place that we take ourselves.
pub(super) fn auto(home_hash: &str, name: &str, holder: Option<ScopeHolder>) -> Result<Cgroups, Refusal> {
    let refusal = match systemd(home_hash, holder) {
        Ok(cgroups) => return Ok(cgroups),
        Err(refusal) => refusal,
    };
    if Path::new("/run/systemd/system").exists() {
        return Err(Refusal { why: format!("systemd keeps this machine's cgroups, and gives devnetd none: {}", refusal.why), ..refusal });
    }
    cgroupfs(name)
}

/// A scope of the user manager.
pub(super) fn systemd(home_hash: &str, holder: Option<ScopeHolder>) -> Result<Cgroups, Refusal> {
    let Some(holder) = holder else {
        return Err(Refusal { why: "no process would hold a scope open".into(), remedy: "run the nodes under devnetd".into() });
    };
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    systemd::detect(home_hash, runtime_dir.as_deref(), holder)
}

/// Takes the highest place at or above our own cgroup that we may write, so that nodes lie outside the daemon's cgroup.
pub(super) fn cgroupfs(name: &str) -> Result<Cgroups, Refusal> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let places = candidates(&mountinfo, &own);
    let Some(mount) = places.first().cloned() else {
        return Err(Refusal {
            why: "no cgroup version 2 file system is mounted".into(),
            remedy: "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified".into(),
        });
    };
    let mut refusals = Vec::new();
    for place in &places {
        match try_place(place, name) {
            Ok(support) => return Ok(Cgroups { root: Some(place.join(name)), support, scope: None }),
            Err(error) => refusals.push(format!("{}: {error}", place.display())),
        }
    }
    Err(Refusal {
        why: format!("no cgroup here is writable ({})", refusals.join("; ")),
        remedy: format!(
            "run devnetd where {} is writable: as root, with a delegated subtree, or in a container with a writable cgroup mount",
            mount.display()
        ),
    })
}

/// The version 2 mount and each folder from it down to our own cgroup, from the top.
fn candidates(mountinfo: &str, own: &str) -> Vec<PathBuf> {
    let mount = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
    });
    let Some(mount) = mount else { return Vec::new() };
    let mut place = PathBuf::from(mount);
    let mut places = vec![place.clone()];
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // With `..` in it our cgroup lies outside what this mount shows.
    if !own.split('/').any(|part| part == "..") {
        for part in own.split('/').filter(|part| !part.is_empty()) {
            place.push(part);
            places.push(place.clone());
        }
    }
    places
}

fn try_place(place: &Path, name: &str) -> io::Result<Support> {
    let root = place.join(name);
    let fresh = match fs::create_dir(&root) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let support = examine(place, &root);
    if fresh {
        // Made again with the first leaf: a daemon without nodes leaves nothing behind.
        let _ = fs::remove_dir(&root);
    }
    support
}

fn examine(place: &Path, root: &Path) -> io::Result<Support> {
    let kind = fs::read_to_string(root.join("cgroup.type"))?;
    if kind.trim() != "domain" {
        return Err(io::Error::other(format!("cgroups in it are of type {}", kind.trim())));
    }
    // To move a process the kernel asks for write access here and in the common ancestor of old and new place.
    fs::OpenOptions::new().write(true).open(root.join("cgroup.procs"))?;
    access(&place.join("cgroup.procs"), AccessFlags::W_OK)?;
    let passed = pass_controllers_on(place);
    let have = fs::read_to_string(root.join("cgroup.controllers"))?;
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !have.split_whitespace().any(|word| word == *name)).collect();
    let mut support = Support {
        message: format!("cgroups below {}", place.display()),
        remedy: None,
        limits: missing.is_empty(),
        freeze: root.join("cgroup.freeze").exists(),
        kill_file: root.join("cgroup.kill").exists(),
    };
    if !missing.is_empty() {
        let because =
            passed.err().map_or_else(|| "they are not in this tree, most likely bound to cgroup version 1".to_owned(), |error| error.to_string());
        support.message = format!("{}, without the controllers {} ({because}): limits are not enforced", support.message, missing.join(", "));
        support.remedy = Some("boot with cgroup_no_v1=all, or under systemd with systemd.unified_cgroup_hierarchy=1, to have limits".into());
    }
    Ok(support)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn check(mountinfo: &str, own: &str, expect: &[&str]) {
        assert_eq!(candidates(mountinfo, own), expect.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn places_go_from_the_mount_down_to_our_own_cgroup() {
        check(UNIFIED, "9:name=systemd:/\n0::/\n", &["/sys/fs/cgroup/unified"]);
        check(UNIFIED, "0::/a/b\n", &["/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a", "/sys/fs/cgroup/unified/a/b"]);
        check(UNIFIED, "0::/../other\n", &["/sys/fs/cgroup/unified"]);
        check("24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "0::/\n", &[]);
    }
}
