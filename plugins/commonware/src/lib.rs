//! The embedded devchain and the plugin that teaches devnetd to run it.
//!
//! ```text
//! cli      the command line of `devchain`, in each of its versions
//! keys     every key of a devnet from its seed (used by the plugin and by `devchain keys`)
//! chain    the chain: transactions, ledger, mempool, consensus wiring, JSON-RPC; what the binary `devchain` runs
//! plugin   the gRPC plugin `dvb-plugin-commonware`: plans, genesis, launch plans, health
//! ```

pub mod chain;
pub mod cli;
pub mod keys;
pub mod plugin;
