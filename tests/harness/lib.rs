//! Drives the real devnetd and dvbctl in a home of their own, and leaves nothing behind, also when a test fails.

#![expect(clippy::print_stderr, reason = "what a test prints, libtest shows with its failure; SKIP lines go into the summary")]

mod binaries;
mod home;
mod output;

pub use binaries::{binary, program, wasmd};
pub use home::TestHome;
pub use output::Output;
