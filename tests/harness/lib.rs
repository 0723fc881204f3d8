//! Drives the real devnetd and dvbctl in a home of their own, and leaves nothing behind, also when a test fails.

mod binaries;
mod home;
mod output;

pub use binaries::{binary, program, wasmd};
pub use home::TestHome;
pub use output::Output;
