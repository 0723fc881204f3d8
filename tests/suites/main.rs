//! One test binary for all suites: real programs, a home of its own for each test.

mod bad_input;
mod binary;
mod daemon;
mod devchain;
mod exec;
mod wasmd;
