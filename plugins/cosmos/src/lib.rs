//! devnetd plugin `cosmos`: a stock Cosmos SDK binary becomes a devnet.
//!
//! ```text
//! binary    what the chain is (versions, prefixes)          plan      nodes and ports, what a spec may say
//! keys ──► gentx ──► genesis ──► homes ◄── config           launch    argv, changed files
//! rpc ──► status, heights                                   classify  why a node ended
//! tx        transactions: messages, signatures, sending
//! ```
//! [`plugin`] joins them. The library exists for the tests; devnetd starts the executable.

pub mod binary;
pub mod classify;
pub mod config;
pub mod genesis;
pub mod gentx;
pub mod heights;
pub mod homes;
pub mod keys;
pub mod launch;
pub mod plan;
pub mod plugin;
pub mod rpc;
pub mod status;
pub mod tx;
