//! dvbctl as users run it, against an in-process daemon that knows only the protocol.

mod bad_input;
#[allow(unreachable_pub, reason = "all of it is for the tests beside")]
mod common;
mod on_demand;
mod up;
mod verbs;
