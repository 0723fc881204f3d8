//! What a launch uses: from its cgroup where there is one, else from its main process alone.

use super::running::Running;
use crate::{
    cgroup::Leaf,
    model::{Timestamp, Usage},
};
use procfs::{
    WithCurrentSystemInfo,
    process::{Process, Stat},
};
use std::{sync::PoisonError, time::Duration};

/// One look at the cpu clock of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    at: Timestamp,
    cpu_micros: u64,
    /// What was answered.
    cores: f64,
}

/// Two looks closer together than this say nothing: the earlier answer stands.
const SHORTEST: Duration = Duration::from_millis(200);

impl Running {
    /// cpu: cores between this call and the one before, at first since the start. Zero when it has ended.
    pub(super) fn usage(&self, now: Timestamp) -> Usage {
        let main = (!self.has_ended()).then(|| Process::new(self.identity.pid.cast_signed()).ok()).flatten();
        let stat = main.as_ref().and_then(|main| main.stat().ok()).filter(|stat| stat.starttime == self.identity.start_time);
        let (Some(main), Some(stat)) = (main, stat) else { return Usage::default() };
        let leaf = self.leaf.as_ref();
        let memory = leaf.and_then(|leaf| leaf.memory().or_else(|| Some(leaf.pids().into_iter().filter_map(resident).sum())));
        let io = leaf.and_then(|leaf| leaf.io().or_else(|| sum_of(leaf.pids().into_iter().filter_map(disk_traffic))));
        let io = io.or_else(|| disk_traffic(self.identity.pid));
        let cpu_micros = self.leaf.as_ref().and_then(|leaf| leaf.cpu_micros()).unwrap_or_else(|| cpu_of(&stat));
        Usage {
            cpu: self.cores(now, cpu_micros),
            memory: memory.unwrap_or_else(|| stat.rss_bytes().get()),
            fds: main.fd_count().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
            memory_pressure: leaf.and_then(Leaf::memory_pressure),
            io_read: io.map(|(read, _)| read),
            io_written: io.map(|(_, written)| written),
        }
    }

    /// Cpu time of the main process and of those that it has waited for, in microseconds. None when it was reaped.
    pub(super) fn cpu_micros_of_main(&self) -> Option<u64> {
        let stat = Process::new(self.identity.pid.cast_signed()).ok()?.stat().ok()?;
        (stat.starttime == self.identity.start_time).then(|| cpu_of(&stat) + micros(ticks_of_children(&stat)))
    }

    fn cores(&self, now: Timestamp, cpu_micros: u64) -> f64 {
        let mut last = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = last.map_or((self.started_at, 0), |sample| (sample.at, sample.cpu_micros));
        match *last {
            Some(sample) if now.since(sample.at) < SHORTEST => sample.cores,
            _ => {
                let cores = cores_between(before, cpu_micros, now.since(since));
                *last = Some(Sample { at: now, cpu_micros, cores });
                cores
            }
        }
    }
}

fn cores_between(before: u64, after: u64, span: Duration) -> f64 {
    let micros = span.as_micros() as f64;
    if micros > 0.0 { after.saturating_sub(before) as f64 / micros } else { 0.0 }
}

fn resident(pid: u32) -> Option<u64> {
    Some(Process::new(pid.cast_signed()).ok()?.stat().ok()?.rss_bytes().get())
}

/// Bytes from and to disks; of live processes only, so it falls when one ends.
fn disk_traffic(pid: u32) -> Option<(u64, u64)> {
    let io = Process::new(pid.cast_signed()).ok()?.io().ok()?;
    Some((io.read_bytes, io.write_bytes))
}

fn sum_of(traffic: impl Iterator<Item = (u64, u64)>) -> Option<(u64, u64)> {
    traffic.reduce(|sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn cpu_of(stat: &Stat) -> u64 {
    micros(stat.utime + stat.stime)
}

/// Of those that it has waited for.
fn ticks_of_children(stat: &Stat) -> u64 {
    [stat.cutime, stat.cstime].into_iter().filter_map(|ticks| u64::try_from(ticks).ok()).sum()
}

fn micros(ticks: u64) -> u64 {
    ticks * 1_000_000 / procfs::ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_cpu_time_over_wall_time() {
        assert_eq!(cores_between(1_000_000, 2_500_000, Duration::from_secs(1)), 1.5);
        assert_eq!(cores_between(5, 3, Duration::from_secs(1)), 0.0);
        assert_eq!(cores_between(0, 100, Duration::ZERO), 0.0);
    }
}
