//! The plugin host: which plugins there are, and one slot for each that was asked for.

use super::{
    ChainPlugin, PluginError, PluginState, Plugins,
    client::Client,
    search::Search,
    slot::{Shared, Slot},
};
use crate::sys::Clock;
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How plugins are found and held.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Folders with executables named `dvb-plugin-<family>`; the first that has one wins.
    pub dirs: Vec<PathBuf>,
    /// Plugins by name that lie elsewhere; they go before the folders.
    pub extra: BTreeMap<String, PathBuf>,
    /// The whole environment of plugin processes (PATH, HOME, DVB_LOG ...).
    pub env: BTreeMap<String, String>,
    /// A process that nobody used for so long is stopped. Height streams count as use.
    pub idle_after: Duration,
    /// Any call but those below. Beyond it the plugin counts as hung and is killed.
    pub call_limit: Duration,
    /// What may read a large file to its end: GenerateGenesis, Export, PlanUpgrade.
    pub genesis_limit: Duration,
    /// ClassifyExit alone; beyond it the answer is given up, and the plugin lives on.
    pub classify_limit: Duration,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            extra: BTreeMap::new(),
            env: BTreeMap::new(),
            idle_after: Duration::from_secs(10),
            call_limit: Duration::from_secs(10),
            genesis_limit: Duration::from_secs(120),
            classify_limit: Duration::from_millis(300),
        }
    }
}

/// Runs plugins as child processes. Needs a tokio runtime when called, not when made.
pub struct PluginHost {
    shared: Arc<Shared>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

impl PluginHost {
    pub fn new(settings: HostSettings, clock: Arc<dyn Clock>) -> Self {
        let search = Search::new(settings.dirs.clone(), settings.extra.clone());
        Self { shared: Arc::new(Shared { settings, search, clock }), slots: Mutex::default() }
    }

    /// Ends all plugin processes and waits for them, each two seconds at most. A later call starts them again.
    pub async fn shutdown(&self) {
        let slots: Vec<_> = self.slots.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        futures::future::join_all(slots.iter().map(|slot| slot.stop())).await;
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(name.to_owned()).or_insert_with(|| Arc::new(Slot::new(name, self.shared.clone()))).clone()
    }

    fn known_slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[async_trait]
impl Plugins for PluginHost {
    async fn get(&self, name: &str) -> Result<Arc<dyn ChainPlugin>, PluginError> {
        if self.shared.search.find(name).is_none() {
            return Err(self.shared.search.missing(name));
        }
        Ok(Arc::new(Client::new(self.slot(name))))
    }

    async fn digest(&self, name: &str) -> Result<String, PluginError> {
        // Each reconcile of a devnet asks: a thread is worth it only when there is a file to read.
        if let Some(digest) = self.shared.search.find(name).and_then(|exe| self.shared.search.known_digest(&exe)) {
            return Ok(digest);
        }
        let (shared, name) = (self.shared.clone(), name.to_owned());
        let broken = |name: &str, reason: String| PluginError::Spawn { name: name.to_owned(), reason };
        let owned = name.clone();
        let work = move || {
            let exe = shared.search.find(&owned).ok_or_else(|| shared.search.missing(&owned))?;
            shared.search.digest(&exe).map_err(|error| broken(&owned, format!("{}: {error}", exe.path.display())))
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(broken(&name, error.to_string())))
    }

    async fn list(&self) -> Vec<PluginState> {
        let shared = self.shared.clone();
        let work = move || {
            let with_digest = |(name, exe)| {
                let digest = shared.search.digest(&exe).unwrap_or_default();
                (name, exe, digest)
            };
            shared.search.all().into_iter().map(with_digest).collect::<Vec<_>>()
        };
        let found = tokio::task::spawn_blocking(work).await.unwrap_or_default();
        let state = |(name, exe, sha256): (String, super::search::Executable, String)| {
            let (word, message, info) = self.known_slot(&name).map_or(("Idle", String::new(), None), |slot| slot.describe(&exe));
            PluginState { name, path: exe.path, sha256, state: word.into(), message, info }
        };
        found.into_iter().map(state).collect()
    }

    async fn introduce(&self) -> Vec<PluginState> {
        let introduced = self.shared.search.all().into_keys().map(|name| {
            let slot = self.slot(&name);
            // A task of its own: what was started is stopped also when the caller loses patience.
            tokio::spawn(async move { slot.introduce().await })
        });
        futures::future::join_all(introduced).await;
        self.list().await
    }
}
