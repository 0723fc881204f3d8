//! devnetd plugin `cosmos`: a stock Cosmos SDK binary becomes a devnet.
//!
//! ```text
//! binary    what the chain is (versions, prefixes)          plan      nodes and ports, what a spec may say
//! keys ──► gentx ──► genesis ──► homes ◄── config           launch    argv, changed files
//! rpc ──► signing ──► status, heights                       classify  why a node ended
//! network   named profiles of chains                      stream    edits documents of any size
//! template  what `init` made, for later devnets           tx        transactions: messages, signatures, sending
//! upgrade   what governance upgrades take, how a halt shows gov       proposals, changes of parameters
//! export    the state of a chain at a height                fork      a genesis from it, under other validators
//! ```
//! [`plugin`] joins them. The library exists for the tests; devnetd starts the executable.

pub mod binary;
pub mod classify;
pub mod config;
pub mod export;
pub mod fork;
pub mod genesis;
pub mod gentx;
pub mod gov;
pub mod heights;
pub mod homes;
pub mod keys;
pub mod launch;
pub mod network;
pub mod plan;
pub mod plugin;
pub mod rpc;
pub mod signing;
pub mod status;
pub mod stream;
mod template;
pub mod tx;
pub mod upgrade;
