//! Who a process is: more than its pid, so that a reused pid is never taken for it.

use crate::sys::{Pidfd, executable, has_environment, process_env, process_stat};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// In the environment of every process that we start.
pub const LAUNCH_ID_VAR: &str = "DVB_LAUNCH_ID";
/// Beside it: whose daemon started the process. The store of a copied home names launches of the first home, which are not its own.
pub const HOME_ID_VAR: &str = "DVB_HOME_ID";

/// Enough to find a process again after the daemon has died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks since boot (/proc/PID/stat, field 22).
    pub start_time: u64,
    pub boot_id: String,
    pub launch_id: String,
    /// Device and inode of the program that it was started as. Evidence where it still fits, no objection where it does not: some
    /// programs execute their next version by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<(u64, u64)>,
}

#[derive(Debug)]
pub enum Found {
    /// It is there (or its zombie is), and this descriptor holds it.
    Process(Pidfd),
    /// No such process, another boot, a stranger with its pid, or a launch of another home.
    Gone,
}

/// A process in the midst of exec has no environment for some microseconds; nothing tells when it has, so we look again.
const EXEC_LOOKS: u32 = 20;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// Looks for the process that `identity` names, of the home `home_id`. `boot_id` is that of the running kernel; `vouched` says of a pid
/// whether other evidence (its cgroup) makes it ours, for one that has overwritten its environment.
pub fn find(identity: &Identity, boot_id: &str, home_id: &str, vouched: impl Fn(u32) -> bool) -> Found {
    if identity.boot_id != boot_id {
        return Found::Gone;
    }
    // First the descriptor, then the checks: what they say then holds for what the descriptor holds.
    let Ok(pidfd) = Pidfd::open(identity.pid) else { return Found::Gone };
    let Some(stat) = process_stat(identity.pid).filter(|stat| stat.start_time == identity.start_time) else { return Found::Gone };
    for _ in 0..EXEC_LOOKS {
        if stat.is_zombie() || has_environment(identity.pid) || vouched(identity.pid) {
            break;
        }
        std::thread::sleep(EXEC_PAUSE);
    }
    if is_of_another_home(identity.pid, home_id) {
        return Found::Gone;
    }
    let carries_id = || carries(identity.pid, &identity.launch_id, home_id);
    let same_program = || identity.executable.is_some() && executable(identity.pid) == identity.executable;
    // A zombie has no environment and no cgroup of ours any more; boot and start time must do, and no signal can hurt it.
    let ours = stat.is_zombie() || carries_id() || vouched(identity.pid) || same_program();
    if ours { Found::Process(pidfd) } else { Found::Gone }
}

/// Whether `pid` was started as this launch of this home, or descends from one that was.
pub fn carries(pid: u32, launch_id: &str, home_id: &str) -> bool {
    process_env(pid, LAUNCH_ID_VAR).is_some_and(|id| id == launch_id) && process_env(pid, HOME_ID_VAR).is_some_and(|id| id == home_id)
}

/// False also when `pid` does not tell.
pub fn is_of_another_home(pid: u32, home_id: &str) -> bool {
    process_env(pid, HOME_ID_VAR).is_some_and(|id| id != home_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::boot_id;

    fn me() -> Identity {
        let pid = std::process::id();
        let start_time = process_stat(pid).unwrap().start_time;
        Identity { pid, start_time, boot_id: boot_id().unwrap(), launch_id: "none of ours".into(), executable: None }
    }

    fn check(identity: &Identity, vouched: bool, found: bool) {
        let answer = find(identity, &boot_id().unwrap(), "a home", |_| vouched);
        assert_eq!(matches!(answer, Found::Process(_)), found, "{identity:?}");
    }

    #[test]
    fn a_process_is_found_only_when_everything_fits() {
        check(&me(), true, true);
        check(&me(), false, false);
        check(&Identity { start_time: me().start_time + 1, ..me() }, true, false);
        check(&Identity { boot_id: "another".into(), ..me() }, true, false);
        check(&Identity { pid: 0, ..me() }, true, false);
    }

    #[test]
    fn the_program_speaks_for_a_process_without_its_launch_id_and_never_against_one_with_it() {
        let program = executable(std::process::id());
        check(&Identity { executable: program, ..me() }, false, true);
        check(&Identity { executable: program, start_time: me().start_time + 1, ..me() }, false, false);
        check(&Identity { executable: Some((0, 0)), ..me() }, false, false);
        check(&Identity { executable: Some((0, 0)), ..me() }, true, true);
    }
}
