//! The keeper: one small process per home that holds descriptors by name while no daemon lives to hold them.
//!
//! ```text
//! devnetd ──put, drop──► keeper          launch/<id>: the pidfd of a launch, so that its exit can be told afterwards
//!    │ SIGKILL             │             anything else: whoever puts it knows what it is
//!    ✗                     │ holds on
//! devnetd ◄──get───────────┘
//! ```
//!
//! It ends by itself when it holds nothing and nobody is connected; who wants it to live puts something in. There cannot be two for
//! one home: they would need the same socket address. If it dies, the daemon starts another and puts in again all that it knows.
//!
//! Under systemd it is also the process around which the home's scope is made, and so lies outside the daemon's unit.

mod client;
mod server;
mod wire;

pub use client::{Keeper, KeeperError};
pub use server::{KEEPER_VERB, ServeError, main};
