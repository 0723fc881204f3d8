//! Drives the real devnetd and dvbctl in a home of their own, and leaves nothing behind, also when a test fails.

#![expect(clippy::print_stderr, reason = "what a test prints, libtest shows with its failure; SKIP lines go into the summary")]

mod binaries;
mod by_hand;
mod cases;
mod census;
mod chain;
pub mod direct;
mod disk;
mod follower;
mod home;
mod limits;
mod output;
mod process;

pub use binaries::{Wasmd, binary, program, seed_cache, simd, wasmd, wasmds, with_other_bytes};
pub use by_hand::ByHand;
pub use cases::run_cases;
pub use census::{all_pids, cgroups_of, is_daemon, keys_held};
pub use chain::{NODES, quickstart};
pub use follower::{Follower, Stream};
pub use home::{TestHome, end_processes_of};
pub use limits::{ProcessLimit, allow_no_descriptor, limit_descriptors, limit_processes, open_files};
pub use output::{Output, condition};
pub use process::{cpu_time, is_alive, parent};
