//! What /proc tells of a process.

use nix::unistd::Pid;
use std::{fs, time::Duration};

/// None when there is no such process.
pub fn parent(pid: Pid) -> Option<Pid> {
    stat(pid)?.get(1)?.parse().ok().map(Pid::from_raw)
}

/// A zombie is not alive, unless threads of it still end: until then they hold its sockets.
pub fn is_alive(pid: Pid) -> bool {
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| (state != "Z" && state != "X") || threads() > 1))
}

/// What it has used of processors so far, its threads included; nothing of a process that has gone.
pub fn cpu_time(pid: Pid) -> Duration {
    const TICK: Duration = Duration::from_millis(10); // USER_HZ of every Linux machine that we build for
    let fields = stat(pid).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
    TICK * (ticks(11) + ticks(12))
}

/// The fields behind the program's name: state, parent ...
fn stat(pid: Pid) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}
