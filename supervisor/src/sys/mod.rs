//! The machine, where the rest of the daemon may not touch it itself: clock and fresh ids, commands, processes, signal names, boot id,
//! the sockets that a service manager passes.

mod activation;
mod clock;
mod command;
mod process;
mod signals;
mod spawn;

pub use activation::{activated_listener, is_activated};
pub use clock::{Clock, ManualClock, SystemClock};
pub use command::{boot_id, command};
pub use process::{Pidfd, ProcessStat, all_pids, has_environment, process_env, process_stat};
pub use signals::{signal_from_name, signal_name};
pub use spawn::{Spawn, SpawnFailure, SpawnStep, Spawned, spawn};
