//! dvbctl as users run it, against an in-process daemon that knows only the protocol.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod bad_input;
mod binaries;
mod common;
mod on_demand;
mod up;
mod verbs;
