//! One test binary for all suites: real programs, a home of its own for each test.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is their way to fail")]

mod adoption;
mod bad_input;
mod bench;
mod binary;
mod chaos;
mod contract;
mod crash;
mod daemon;
mod declared;
mod devchain;
mod exec;
mod export;
mod fire;
mod fork;
mod freeze;
mod gov;
mod idle;
mod keys;
mod leaks;
mod lock;
mod logs;
mod machine;
mod orphans;
mod plugins;
mod ports;
mod refused;
mod scarce;
mod sick;
mod stock;
mod topology;
mod tx;
mod upgrade;
mod wasmd;
