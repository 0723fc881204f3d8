//! What tells of a process that it belongs to a launch of this home: the variables in its environment, the log that it writes to, or the
//! brand that it was forked with.

use crate::{
    reaper::{HOME_ID_VAR, LAUNCH_ID_VAR},
    sys::{process_brand, process_env, process_stat},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is told of one home's processes by.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) home: PathBuf,
    pub(super) home_id: String,
}

impl Marks {
    /// The id of the launch that a live process belongs to: by its environment, or, for one that cleared that, by the log that it writes to.
    pub(super) fn launch_of(&self, pid: u32) -> Option<String> {
        process_stat(pid).filter(|stat| !stat.is_zombie())?;
        match process_env(pid, HOME_ID_VAR) {
            Some(home) if home != self.home_id => None,
            Some(_) => process_env(pid, LAUNCH_ID_VAR),
            None => self.log_of(pid).map(|log| log.launch),
        }
    }

    /// Whether a live process belongs to this launch: by what names it, or by its brand, for one that has nothing else any more.
    pub(super) fn are_on(&self, pid: u32, launch: &str) -> bool {
        match self.launch_of(pid) {
            Some(named) => named == launch,
            None => process_stat(pid).is_some_and(|stat| !stat.is_zombie()) && process_brand(pid) == Some(self.brand_of(launch)),
        }
    }

    /// No other launch, of any home, has the same; below what a limit can be, and above what anybody would set one to.
    pub(super) fn brand_of(&self, launch: &str) -> u64 {
        let digest = Sha256::new().chain_update(&self.home_id).chain_update("/").chain_update(launch).finalize();
        let number = u64::from_be_bytes(digest.as_slice().first_chunk().copied().unwrap_or_default());
        number >> 2 | 1 << 61
    }

    /// What its stdout or stderr says.
    pub(super) fn log_of(&self, pid: u32) -> Option<LogName> {
        [1, 2].into_iter().find_map(|fd| named_by_log(&self.home, &fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?))
    }
}

/// What the path of a log tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogName {
    pub(super) namespace: String,
    pub(super) node: String,
    pub(super) launch: String,
}

/// `<home>/devnets/<namespace>/<devnet>/nodes/<node>/logs/<launch id>.log`, also when that was deleted.
fn named_by_log(home: &Path, log: &Path) -> Option<LogName> {
    let below = log.strip_prefix(home.join("devnets")).ok()?;
    let parts: Vec<&str> = below.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [namespace, devnet, "nodes", node, "logs", file] => Some(LogName {
            namespace: (*namespace).to_owned(),
            node: format!("{devnet}/{node}"),
            launch: file.strip_suffix(" (deleted)").unwrap_or(file).strip_suffix(".log")?.to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_launch_of_each_home_has_a_brand_of_its_own() {
        let marks = |home_id: &str| Marks { home: "/h".into(), home_id: home_id.into() };
        let brands = [marks("a").brand_of("1"), marks("a").brand_of("2"), marks("b").brand_of("1")];
        assert_eq!(brands[0], marks("a").brand_of("1"));
        assert!(brands[0] != brands[1] && brands[0] != brands[2]);
        assert!(brands.iter().all(|brand| (1 << 61..1 << 62).contains(brand)), "{brands:?}");
    }

    #[test]
    fn a_log_names_its_launch_and_other_files_of_the_home_do_not() {
        let check = |log: &str, expect: Option<&str>| {
            let expect = expect.map(|id| LogName { namespace: "default".into(), node: "net/a".into(), launch: id.into() });
            assert_eq!(named_by_log(Path::new("/h"), Path::new(log)), expect, "{log}");
        };
        check("/h/devnets/default/net/nodes/a/logs/01ab.log", Some("01ab"));
        check("/h/devnets/default/net/nodes/a/logs/01ab.log (deleted)", Some("01ab"));
        check("/h/devnets/default/net/nodes/a/home/01ab.log", None);
        check("/h/logs/devnetd.log", None);
        check("/other/devnets/default/net/nodes/a/logs/01ab.log", None);
    }
}
