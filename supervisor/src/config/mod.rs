//! Where things lie in a home, and the daemon's settings.

mod lock;
mod prepare;
mod settings;

pub use lock::{HomeLock, LockError};
pub use prepare::{HomeError, prepare_home};
pub use settings::{Keep, LogLevel, LogSettings, Settings, SettingsError};

use std::path::{Path, PathBuf};

/// The folder tree of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// `root` must be canonical: it names sockets and cgroups.
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }
    pub fn root(&self) -> &Path {
        &self.0
    }
    pub fn database(&self) -> PathBuf {
        self.0.join("devnetd.db")
    }
    /// Optional; see `Settings`.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }
    pub fn lock(&self) -> PathBuf {
        dvb_proto::endpoint::lock_path(&self.0)
    }
    pub fn daemon_log(&self) -> PathBuf {
        self.0.join("logs/devnetd.log")
    }
    pub fn plugins(&self) -> PathBuf {
        self.0.join("plugins")
    }
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }
    /// What plugins said of binaries: `<plugin digest>-<binary digest>.json`, and files of theirs beside it.
    pub fn identities(&self) -> PathBuf {
        self.cache().join("identities")
    }
    /// Everything of one devnet.
    pub fn devnet(&self, namespace: &str, devnet: &str) -> PathBuf {
        self.0.join("devnets").join(namespace).join(devnet)
    }
    /// Genesis, mnemonic and other common files of a devnet.
    pub fn shared(&self, namespace: &str, devnet: &str) -> PathBuf {
        self.devnet(namespace, devnet).join("shared")
    }
    /// The state that a devnet began with, where it is a fork.
    pub fn origin(&self, namespace: &str, devnet: &str) -> PathBuf {
        self.devnet(namespace, devnet).join("origin")
    }
    /// Everything of one export.
    pub fn export(&self, namespace: &str, devnet: &str, short: &str) -> PathBuf {
        self.devnet(namespace, devnet).join("exports").join(short)
    }
    /// Where a plugin writes before the result is renamed into place.
    pub fn staging(&self, namespace: &str, devnet: &str) -> PathBuf {
        self.devnet(namespace, devnet).join("staging")
    }
    pub fn node(&self, namespace: &str, devnet: &str, short: &str) -> PathBuf {
        self.devnet(namespace, devnet).join("nodes").join(short)
    }
    pub fn node_home(&self, namespace: &str, devnet: &str, short: &str) -> PathBuf {
        self.node(namespace, devnet, short).join("home")
    }
    /// One file per launch: `<launch id>.log`.
    pub fn node_logs(&self, namespace: &str, devnet: &str, short: &str) -> PathBuf {
        self.node(namespace, devnet, short).join("logs")
    }
}
