//! The devchain: accounts and transfers, ordered by Commonware's simplex consensus.
//!
//! ```text
//!   rpc ──submit──► mempool ◄──gossip──► peers          store (SQLite): accounts, index of transactions
//!                     │ pick                               ▲ one transaction per block
//!   simplex ──propose/verify──► app ──speculative ledger   │
//!      │ finalization                                      │
//!   marshal ──finalized blocks, in order──► applier ───────┘──► heads (`GET /heights`)
//! ```
//!
//! | module | is |
//! | --- | --- |
//! | `tx block ledger mempool genesis config` | pure: values in, values out |
//! | `shared` | what the running parts share, under one lock: ledger, speculation, mempool, progress |
//! | `app applier gossip rpc store` | the edges: consensus, finalized blocks, peers, users, disk |
//! | `state` | the accounts of a home that stands still, for another chain to begin with |
//! | `upgrade` | which rules hold from which height on |
//! | `node` | wires them to Commonware's runtime; `client` talks to a node |
//! | `fault` | why a node ends, and with which exit code |
//!
//! **Durability.** The finalized blocks in marshal's archive are the truth: marshal syncs each before it hands it on. The ledger
//! is derived from them and kept in SQLite, one transaction per block. Should the ledger lag behind the archive (a power cut),
//! the applier reads the missing blocks from the archive, so the ledger needs no sync of its own.

pub mod app;
pub mod applier;
pub mod block;
pub mod client;
pub mod config;
pub mod fault;
pub mod genesis;
pub mod gossip;
pub mod ledger;
pub mod mempool;
pub mod node;
pub mod rpc;
pub mod shared;
pub mod state;
pub mod store;
pub mod tx;
pub mod upgrade;

/// Hash of a block, a transaction, a ledger or a genesis file.
pub type Hash = commonware_cryptography::sha256::Digest;
/// A hash together with the block that it is of, so that it is computed once.
pub type Sealed = commonware_cryptography::Digested<block::Block>;

/// Decodes a value of fixed shape from all of `bytes`.
pub fn decode<T: commonware_codec::Read<Cfg = ()>>(bytes: &[u8]) -> Result<T, commonware_codec::Error> {
    use commonware_codec::DecodeExt as _;
    T::decode(bytes::Bytes::copy_from_slice(bytes))
}
