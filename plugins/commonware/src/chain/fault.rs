//! Why a devchain node ends, and the exit code that says so.
//!
//! | code | means |
//! | --- | --- |
//! | 0 | asked to stop (SIGTERM, SIGINT) |
//! | 1 | something else; a helper command failed |
//! | 2 | wrong flags |
//! | 10 | `config.toml` or another file of the home cannot be read or is wrong |
//! | 11 | the genesis file is wrong, or is not the one that the data was made with |
//! | 12 | the key is unreadable or not among the peers |
//! | 13 | a port is taken |
//! | 14 | the stored state is corrupt |
//! | 15 | another process uses this home |
//! | 16 | executing a finalized block gave another state root than the network's |
//! | 17 | consensus stopped by itself |
//! | 18 | the disk is full or fails |
//! | 19 | the state was made by an upgrade that this binary does not know |
//! | 101 | a panic (a bug, or storage that failed under Commonware's feet) |

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    #[error("bad config {path}: {message}")]
    Config { path: PathBuf, message: String },
    #[error("bad genesis {path}: {message}")]
    Genesis { path: PathBuf, message: String },
    #[error("wrong genesis: the data in {path} was made with genesis {stored}, and genesis.json is {given}")]
    WrongGenesis { path: PathBuf, stored: String, given: String },
    #[error("bad key {path}: {message}")]
    Key { path: PathBuf, message: String },
    #[error("port busy: {what} cannot listen on {address}: {source}")]
    Port { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("corrupt state in {path}: {message}")]
    Corrupt { path: PathBuf, message: String },
    #[error("disk: cannot write {path}: {message}")]
    Disk { path: PathBuf, message: String },
    #[error("home busy: another process holds {path}")]
    Busy { path: PathBuf },
    #[error("state diverged at height {height}: executing the finalized block gives state root {ours}, the network agreed on {theirs}")]
    Diverged { height: u64, ours: String, theirs: String },
    #[error("upgrade needed: the state at height {head} was made with upgrade {name}, of height {height}, which this binary has no handler for")]
    UpgradeNeeded { name: String, height: u64, head: u64 },
    #[error("consensus stopped: {0}")]
    Stopped(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

impl NodeFault {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => 1,
            Self::Config { .. } => 10,
            Self::Genesis { .. } | Self::WrongGenesis { .. } => 11,
            Self::Key { .. } => 12,
            Self::Port { .. } => 13,
            Self::Corrupt { .. } => 14,
            Self::Busy { .. } => 15,
            Self::Diverged { .. } => 16,
            Self::Stopped(_) => 17,
            Self::Disk { .. } => 18,
            Self::UpgradeNeeded { .. } => 19,
        }
    }
}
