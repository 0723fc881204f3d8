//! What the kernel counts of one leaf: memory, cpu, disk traffic, pressure, and whose limit killed.

use super::{Leaf, leaf::field};
use crate::model::{LimitOf, MemoryPressure, OomKill};
use std::{fs, path::Path};

/// None or false where the controllers are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub memory_peak: Option<u64>,
    pub cpu_micros: Option<u64>,
    /// A process of it was killed for lack of memory.
    pub oom: Option<OomKill>,
}

impl Leaf {
    pub fn counters(&self) -> Counters {
        let killed = count(&self.path, "memory.events", "oom_kill") > 0;
        Counters { memory_peak: number(&self.path, "memory.peak"), cpu_micros: self.cpu_micros(), oom: killed.then(|| self.oom()) }
    }

    /// Microseconds of cpu time since it was made; there also without the cpu controller.
    pub fn cpu_micros(&self) -> Option<u64> {
        field(&fs::read_to_string(self.path.join("cpu.stat")).ok()?, "usage_usec")
    }

    /// Bytes; None without the memory controller.
    pub fn memory(&self) -> Option<u64> {
        number(&self.path, "memory.current")
    }

    /// None where the kernel does not measure it.
    pub fn memory_pressure(&self) -> Option<MemoryPressure> {
        let text = fs::read_to_string(self.path.join("memory.pressure")).ok()?;
        Some(MemoryPressure { some: average(&text, "some")?, full: average(&text, "full")? })
    }

    /// Bytes read and written; None without the io controller.
    pub fn io(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(self.path.join("io.stat")).ok()?;
        Some((io_sum(&text, "rbytes="), io_sum(&text, "wbytes=")))
    }

    /// The kernel counts `oom` where a limit was reached, and `oom_kill` where it killed: the nearest level that reached its limit is the
    /// one that it killed for.
    fn oom(&self) -> OomKill {
        let levels = self.path.ancestors().take_while(|level| level.starts_with(&self.root));
        let reached = levels.enumerate().find(|(_, level)| count(level, "memory.events.local", "oom") > 0);
        let Some((height, level)) = reached else { return OomKill::default() };
        let limit_of = match height {
            0 => LimitOf::Node,
            1 => LimitOf::Devnet,
            _ => LimitOf::Machine,
        };
        OomKill { limit_of, limit: number(level, "memory.max"), peak: number(level, "memory.peak") }
    }
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

fn count(folder: &Path, file: &str, name: &str) -> u64 {
    fs::read_to_string(folder.join(file)).ok().and_then(|text| field(&text, name)).unwrap_or_default()
}

/// `some avg10=1.25 avg60=...`: the average of ten seconds.
fn average(pressure: &str, kind: &str) -> Option<f64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
}

/// `8:0 rbytes=1 wbytes=2 ...`, a line for each disk.
fn io_sum(stat: &str, name: &str) -> u64 {
    stat.split_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(root: &Path) -> Leaf {
        let path = root.join("ns/net/node@1");
        fs::create_dir_all(&path).unwrap();
        Leaf::new(path, true, true, root.to_owned())
    }

    #[test]
    fn counters_are_read_where_they_are_and_absent_where_not() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = leaf(dir.path());
        assert_eq!((leaf.counters(), leaf.memory(), leaf.cpu_micros()), (Counters::default(), None, None));
        assert_eq!((leaf.memory_pressure(), leaf.io()), (None, None));
        let write = |file: &str, text: &str| fs::write(leaf.path().join(file), text).unwrap();
        write("memory.peak", "8192\n");
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        write("memory.pressure", "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=4\n");
        write("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n");
        assert_eq!(leaf.counters(), Counters { memory_peak: Some(8192), cpu_micros: Some(1500), oom: None });
        assert_eq!(leaf.memory_pressure(), Some(MemoryPressure { some: 1.25, full: 0.5 }));
        assert_eq!(leaf.io(), Some((15, 20)));
    }

    #[test]
    fn the_nearest_level_that_reached_its_limit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = leaf(dir.path());
        let write = |place: &str, file: &str, text: &str| fs::write(dir.path().join(place).join(file), text).unwrap();
        write("ns/net/node@1", "memory.events", "oom 0\noom_kill 3\n");
        assert_eq!(leaf.counters().oom, Some(OomKill::default()), "no limit of ours: the machine's");
        write("ns/net", "memory.events.local", "oom 1\noom_kill 0\n");
        write("ns/net", "memory.max", "4096\n");
        write("ns/net", "memory.peak", "4095\n");
        assert_eq!(leaf.counters().oom, Some(OomKill { limit_of: LimitOf::Devnet, limit: Some(4096), peak: Some(4095) }));
        write("ns/net/node@1", "memory.events.local", "oom 1\noom_kill 3\n");
        write("ns/net/node@1", "memory.max", "1024\n");
        assert_eq!(leaf.counters().oom, Some(OomKill { limit_of: LimitOf::Node, limit: Some(1024), peak: None }));
    }
}
