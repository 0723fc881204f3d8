//! The machine, where the rest of the daemon may not touch it itself: clock and fresh ids, commands, processes, signal names, boot id,
//! digests of files, inotify alarms, unused memory, failpoints, what the kernel may be asked, the limit of descriptors, the sockets that a service manager passes.

mod activation;
mod alarm;
mod background;
mod brand;
mod clock;
mod clone;
mod command;
mod digest;
mod failpoint;
mod kernel;
mod memory;
mod open_files;
mod process;
mod signals;
mod spawn;

pub use activation::{activated_listener, is_activated};
pub use alarm::Alarm;
pub use background::yield_to_all_others;
pub use brand::process_brand;
pub use clock::{Clock, ManualClock, SystemClock};
pub use command::{boot_id, command, die_with_us, own_program};
pub use digest::sha256_file;
pub use failpoint::failpoint;
pub use kernel::Kernel;
pub use memory::{give_memory_back, share_few_heaps};
pub use open_files::{OpenFiles, is_out_of_descriptors, is_out_of_space, raise_open_files, restore_open_files};
pub use process::{
    Pidfd, ProcessStat, age, all_pids, executable, has_ended, has_environment, is_ending, last_pid, process_env, process_name, process_stat,
    process_words,
};
pub use signals::{signal_from_name, signal_name};
pub use spawn::{Spawn, SpawnFailure, SpawnStep, Spawned, spawn, with_a_child_in_between, with_no_child_in_between};
