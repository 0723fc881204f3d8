//! Limits: of one launch, and of all launches below a common folder.

use super::{CgroupError, Cgroups, Leaf, safe_name};
use crate::model::Resources;
use std::{fs, path::Path};

/// The period of cpu.max, in microseconds.
const CPU_PERIOD: u64 = 100_000;
const NO_LIMIT: &str = "max";

impl Cgroups {
    /// Holds all launches below `path` together to `limits`, from now on; a limit that is not asked for is lifted. Does nothing where
    /// limits cannot be set, or before the first launch below `path`.
    pub fn limit_group(&self, path: &[String], limits: &Resources) -> Result<(), CgroupError> {
        let Some(root) = self.root.as_ref().filter(|_| self.support.limits) else { return Ok(()) };
        let folder = path.iter().fold(root.clone(), |folder, name| folder.join(safe_name(name)));
        if !folder.is_dir() {
            return Ok(());
        }
        settings(limits).into_iter().try_for_each(|(file, value)| write(&folder, file, value.as_deref().unwrap_or(NO_LIMIT)))
    }
}

impl Leaf {
    /// Sets those limits that are asked for. Call it only where `Support::limits` holds. `group` is what it has with others.
    pub fn limit(&self, limits: &Resources, group: &Resources) -> Result<(), CgroupError> {
        for (file, value) in settings(limits) {
            if let Some(value) = value {
                write(&self.path, file, &value)?;
            }
        }
        let has_memory_limit = |limits: &Resources| limits.memory_bytes.or(limits.memory_high_bytes).is_some();
        // A node dies whole or not at all.
        if has_memory_limit(limits) || has_memory_limit(group) { write(&self.path, "memory.oom.group", "1") } else { Ok(()) }
    }
}

fn settings(limits: &Resources) -> [(&'static str, Option<String>); 4] {
    let quota = |millis: u32| (u64::from(millis) * CPU_PERIOD / 1_000).max(1_000);
    [
        ("memory.high", limits.memory_high_bytes.map(|bytes| bytes.to_string())),
        ("memory.max", limits.memory_bytes.map(|bytes| bytes.to_string())),
        ("cpu.max", limits.cpu_millis.map(|millis| format!("{} {CPU_PERIOD}", quota(millis)))),
        ("pids.max", limits.tasks.map(|tasks| tasks.to_string())),
    ]
}

fn write(folder: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    fs::write(folder.join(file), value).map_err(|source| CgroupError::Io { path: folder.join(file), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Support;

    const ALL: Resources = Resources { memory_bytes: Some(4096), memory_high_bytes: Some(2048), cpu_millis: Some(1500), tasks: Some(7) };
    const NONE: Resources = Resources { memory_bytes: None, memory_high_bytes: None, cpu_millis: None, tasks: None };

    // A plain folder: where controllers are missing there is nothing else to write to.
    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap_or_default()
    }

    #[test]
    fn limits_use_the_files_of_their_controllers() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = Leaf::new(dir.path().to_owned(), true, true, dir.path().to_owned());
        leaf.limit(&NONE, &NONE).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no limit asked, none written");
        leaf.limit(&NONE, &Resources { tasks: Some(9), ..NONE }).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the group's limits are not the leaf's");
        leaf.limit(&NONE, &ALL).unwrap();
        assert_eq!([read(dir.path(), "memory.oom.group"), read(dir.path(), "memory.max")], ["1", ""]);
        leaf.limit(&ALL, &NONE).unwrap();
        let seen = ["memory.max", "memory.high", "memory.oom.group", "cpu.max", "pids.max"].map(|file| read(dir.path(), file));
        assert_eq!(seen, ["4096", "2048", "1", "150000 100000", "7"]);
    }

    #[test]
    fn a_groups_limits_are_set_on_its_folder_and_lifted_again() {
        let dir = tempfile::tempdir().unwrap();
        let support = Support { limits: true, ..Support::default() };
        let cgroups = Cgroups { root: Some(dir.path().to_owned()), support, scope: None };
        let path = ["ns", "net"].map(String::from);
        cgroups.limit_group(&path, &ALL).unwrap();
        assert!(!dir.path().join("ns").exists(), "there is no launch yet");
        let folder = dir.path().join("ns/net");
        fs::create_dir_all(&folder).unwrap();
        cgroups.limit_group(&path, &ALL).unwrap();
        assert_eq!([read(&folder, "memory.max"), read(&folder, "pids.max"), read(&folder, "memory.oom.group")], ["4096", "7", ""]);
        cgroups.limit_group(&path, &Resources { tasks: Some(3), ..NONE }).unwrap();
        assert_eq!([read(&folder, "memory.max"), read(&folder, "cpu.max"), read(&folder, "pids.max")], ["max", "max", "3"]);
    }
}
