//! Where the kernel put the core of a process that died with one.

use crate::model::{CoreDump, Timestamp};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

/// What a core's name is made of, as far as it is known after the death.
#[derive(Clone, Debug)]
pub(super) struct Dead<'a> {
    pub(super) pid: u32,
    pub(super) signal: Option<i32>,
    pub(super) program: &'a str,
    pub(super) cwd: &'a Path,
    /// Not later than its fork.
    pub(super) started_at: Timestamp,
}

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const USES_PID: &str = "/proc/sys/kernel/core_uses_pid";
/// The kernel keeps so much of a program's name.
const COMM_LENGTH: usize = 15;
/// A file's times are those of the kernel's last tick, so a core can look older than the process that it is of.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// Call it only for a process that is known to have dumped one.
pub(super) fn locate(dead: &Dead<'_>) -> CoreDump {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim_end().to_owned();
    by_pattern(&read(PATTERN), read(USES_PID) == "1", dead)
}

fn by_pattern(pattern: &str, uses_pid: bool, dead: &Dead<'_>) -> CoreDump {
    if let Some(collector) = pattern.strip_prefix('|') {
        let program = collector.split_whitespace().next().unwrap_or_default();
        let hint = match program.rsplit('/').next() {
            Some("systemd-coredump") => format!("coredumpctl info {}", dead.pid),
            _ => format!("given to {program}, which keeps it in its own place"),
        };
        return CoreDump { path: None, hint };
    }
    let mut name = glob_of(pattern, dead);
    if uses_pid && !pattern.contains("%p") {
        name.push_str(&format!(".{}", dead.pid));
    }
    let wanted = dead.cwd.join(name);
    match newest(&wanted, dead.started_at) {
        Some(path) => CoreDump { hint: format!("gdb {} {}", dead.program, path.display()), path: Some(path.display().to_string()) },
        None => CoreDump { path: None, hint: format!("there should be a file {}, and is none", wanted.display()) },
    }
}

/// The pattern filled in; what is not known any more becomes `*`.
fn glob_of(pattern: &str, dead: &Dead<'_>) -> String {
    let comm: String = dead.program.rsplit('/').next().unwrap_or_default().chars().take(COMM_LENGTH).collect();
    let mut name = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('%')) => name.push('%'),
            ('%', Some('p' | 'i' | 'P' | 'I')) => name.push_str(&dead.pid.to_string()),
            ('%', Some('s')) if let Some(signal) = dead.signal => name.push_str(&signal.to_string()),
            ('%', Some('e')) => name.push_str(&comm),
            ('%', Some('E')) => name.push_str(&dead.program.replace('/', "!")),
            ('%', Some(_)) => name.push('*'),
            ('%', None) => {}
            (c, _) => name.push(c),
        }
    }
    name
}

/// The newest file of that name (with `*` in its last part) that is not older than the process.
fn newest(wanted: &Path, since: Timestamp) -> Option<PathBuf> {
    let glob = wanted.file_name()?.to_str()?;
    let since = UNIX_EPOCH + Duration::from_millis(u64::try_from(since.minus(CLOCK_TICK).as_millis()).unwrap_or_default());
    let files = fs::read_dir(wanted.parent()?).ok()?.flatten();
    let cores = files.filter(|file| file.file_name().to_str().is_some_and(|name| matches(glob, name)));
    let dated = cores.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())));
    dated.filter(|(at, _)| *at >= since).max().map(|(_, path)| path)
}

/// `*` stands for any text.
fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => {
            name.strip_prefix(head).is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| matches(tail, rest))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(cwd: &Path) -> Dead<'_> {
        Dead { pid: 42, signal: Some(6), program: "/bin/a-rather-long-name", cwd, started_at: Timestamp::default() }
    }

    #[test]
    fn a_file_is_found_by_the_pattern_and_only_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let check = |pattern: &str, uses_pid: bool, file: &str| {
            assert_eq!(by_pattern(pattern, uses_pid, &dead(dir.path())).path, None, "{pattern}: not yet there");
            let path = dir.path().join(file);
            fs::write(&path, "core").unwrap();
            let found = by_pattern(pattern, uses_pid, &dead(dir.path()));
            assert_eq!(found.path, Some(path.display().to_string()), "{pattern}");
            assert!(found.hint.starts_with("gdb /bin/a-rather-long-name "), "{}", found.hint);
            fs::remove_file(path).unwrap();
        };
        check("core", false, "core");
        check("core", true, "core.42");
        check("core.%p", true, "core.42");
        check("%e-%s-%h.core", false, "a-rather-long-n-6-myhost.core");
        check("core.%t.%p", false, "core.1760000000.42");
        check(&format!("{}/c%%%p", dir.path().display()), false, "c%42");
    }

    #[test]
    fn a_core_of_an_earlier_launch_is_not_taken_for_this_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("core"), "old").unwrap();
        let later = Timestamp::from_millis(4_000_000_000_000);
        let core = by_pattern("core", false, &Dead { started_at: later, ..dead(dir.path()) });
        assert!(core.path.is_none() && core.hint.contains("and is none"), "{core:?}");
    }

    #[test]
    fn a_core_that_is_dated_a_tick_before_the_start_is_of_this_launch() {
        let dir = tempfile::tempdir().unwrap();
        let started_at = Timestamp::from_millis(1_800_000_000_000);
        let core = fs::File::create(dir.path().join("core")).unwrap();
        let found = |millis_before: u64| {
            core.set_modified(UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 - millis_before)).unwrap();
            by_pattern("core", false, &Dead { started_at, ..dead(dir.path()) }).path.is_some()
        };
        assert_eq!([found(0), found(10), found(100)], [true, true, false]);
    }

    #[test]
    fn a_collector_is_named_and_systemds_by_its_command() {
        let here = Path::new("/");
        let of = |pattern: &str| by_pattern(pattern, false, &dead(here));
        assert_eq!(of("|/usr/lib/systemd/systemd-coredump %P %u").hint, "coredumpctl info 42");
        assert!(of("|/usr/share/apport/apport -p%p").hint.contains("/usr/share/apport/apport"));
    }
}
