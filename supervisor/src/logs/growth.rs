//! Tells followers that a file, or one in a folder, changed: one inotify watcher for the whole process, since the kernel gives a user few of them.

use super::LogError;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::Notify;

/// One follower's interest in a file, or in the files of a folder; ends when it is dropped.
pub struct Growth {
    path: PathBuf,
    changed: Arc<Notify>,
}

type Followers = Arc<Mutex<HashMap<PathBuf, Vec<Arc<Notify>>>>>;

#[derive(Default)]
struct Hub {
    followers: Followers,
    /// Made with the first follower. Lock this before `followers`; its thread takes only the latter.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl Growth {
    /// From now on each change of the file is told, also one between two calls of `changed`.
    pub fn watch(path: &Path) -> Result<Self, LogError> {
        let fail = |source| LogError::Watch { path: path.to_owned(), source };
        let changed = Arc::new(Notify::new());
        let mut watcher = hub().watcher();
        if watcher.is_none() {
            *watcher = Some(hub().start().map_err(fail)?);
        }
        let first = {
            let mut followers = hub().followers();
            let all = followers.entry(path.to_owned()).or_default();
            all.push(Arc::clone(&changed));
            all.len() == 1
        };
        let growth = Self { path: path.to_owned(), changed };
        let watched = match watcher.as_mut() {
            Some(watcher) if first => watcher.watch(path, RecursiveMode::NonRecursive),
            _ => Ok(()),
        };
        // Before the follower may be dropped, which takes it again.
        drop(watcher);
        watched.map_err(fail)?;
        Ok(growth)
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let mut watcher = hub().watcher();
        let last = {
            let mut followers = hub().followers();
            let all = followers.get_mut(&self.path);
            let last = all.is_some_and(|all| {
                all.retain(|other| !Arc::ptr_eq(other, &self.changed));
                all.is_empty()
            });
            if last {
                followers.remove(&self.path);
            }
            last
        };
        if let Some(watcher) = watcher.as_mut().filter(|_| last) {
            // Fails when the file is deleted: then the kernel has forgotten it already.
            let _ = watcher.unwatch(&self.path);
        }
    }
}

impl Hub {
    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let followers = Arc::clone(&self.followers);
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let followers = followers.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                // Our own opening and closing of the file is no news.
                Ok(event) if event.kind.is_access() => {}
                Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
                    let touched = event.paths.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten();
                    touched.filter_map(|path| followers.get(path)).flatten().for_each(|changed| changed.notify_one());
                }
                // Events were lost: all look.
                _ => followers.values().flatten().for_each(|changed| changed.notify_one()),
            }
        })
    }

    fn watcher(&self) -> MutexGuard<'_, Option<RecommendedWatcher>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<PathBuf, Vec<Arc<Notify>>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hub() -> &'static Hub {
    static HUB: OnceLock<Hub> = OnceLock::new();
    HUB.get_or_init(Hub::default)
}
