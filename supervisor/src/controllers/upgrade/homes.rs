//! The homes of all nodes, saved before a switch and put back after one that failed.
//!
//! ```text
//!  home ──clone──► upgrades/NAME/<node>        rename, once the home is gone ──► home
//! ```
//! A crash in between leaves either the home or its saved copy whole under its name. Sign-states go back with the homes: of all
//! validators together, while none of them runs, on record.

use super::super::{Context, ReconcileError, Story};
use super::{apply::commit, facts::Seen, plan::short};
use crate::{
    clone::{self, CloneError, Keep, Way},
    model::{Node, SavedState, Upgrade},
    sys::failpoint,
};
use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(super) async fn save(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let folder = folder(upgrade, cx);
    let pairs: Vec<(PathBuf, PathBuf)> = seen.nodes.iter().map(|node| (home(node), folder.join(short(node)))).collect();
    let given_up = GivenUp::default();
    let cost = {
        let pairs = pairs.clone();
        blocking(move || cost(&pairs)).await?
    };
    let shared = cost.way == Some(Way::Reflink);
    if !shared && upgrade.status.message != cost.words() {
        // Told before it is paid; the next step saves.
        let told = Story::new("upgrade", "SavingState", cost.words()).action("copy").observed(format!("{} bytes are free", cost.free));
        let message = cost.words();
        return commit(upgrade, Some(told), vec![], |next| next.status.message = message, cx).await;
    }
    let stop = given_up.0.clone();
    let bytes = blocking(move || save_all(&pairs, &stop)).await?;
    failpoint("upgrade/saved");
    let saved = SavedState { path: folder.display().to_string(), bytes, shared, at: cx.clock.now() };
    let how = if shared { "their blocks are shared" } else { "copied" };
    let message = format!("the homes of {} nodes are saved: {bytes} bytes, {how}", seen.nodes.len());
    let told = Story::new("upgrade", "StateSaved", message.clone()).action("save").result(saved.path.clone());
    let change = |next: &mut Upgrade| {
        next.status.saved = Some(saved);
        next.status.message = message;
    };
    commit(upgrade, Some(told), vec![], change, cx).await
}

/// Homes, then marks and record in one commit.
pub(super) async fn put_back(upgrade: &Upgrade, seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let folder = folder(upgrade, cx);
    let pairs: Vec<(PathBuf, PathBuf)> = seen.nodes.iter().map(|node| (folder.join(short(node)), home(node))).collect();
    blocking(move || put_back_all(&pairs).and_then(|()| remove(&folder))).await?;
    failpoint("upgrade/put-back");
    let mut also = Vec::new();
    let mut rewound = Vec::new();
    for node in seen.nodes.iter().filter(|node| node.spec.consensus_key.is_some()) {
        let rewind = cx.keys().rewind(node).await?;
        also.extend(rewind.write);
        rewound.push(format!("{}: {} -> {}", short(node), rewind.was, rewind.is));
    }
    let message = format!("the homes of {} nodes are as they were before the switch", seen.nodes.len());
    let told = Story::new("upgrade", "StatePutBack", message.clone())
        .warn()
        .action("rewind the sign-states of all validators together")
        .result(rewound.join("; "));
    let change = |next: &mut Upgrade| {
        next.status.saved = None;
        next.status.notes.put_back = true;
        next.status.message = message;
    };
    commit(upgrade, Some(told), also, change, cx).await
}

pub(super) async fn free(upgrade: &Upgrade, _seen: &Seen, cx: &Context) -> Result<(), ReconcileError> {
    let folder = folder(upgrade, cx);
    blocking(move || remove(&folder)).await?;
    let told = Story::new("upgrade", "SavedStateFreed", "the homes from before the switch are not needed any more").action("remove");
    commit(upgrade, Some(told), vec![], |next| next.status.saved = None, cx).await
}

/// What an attempt before may have saved in part is of another moment.
pub(super) async fn clear(upgrade: &Upgrade, cx: &Context) -> Result<(), ReconcileError> {
    let folder = folder(upgrade, cx);
    blocking(move || remove(&folder)).await
}

fn folder(upgrade: &Upgrade, cx: &Context) -> PathBuf {
    cx.home.devnet(&upgrade.metadata.namespace, &upgrade.spec.devnet_ref).join("upgrades").join(&upgrade.spec.upgrade_name)
}

fn home(node: &Node) -> PathBuf {
    PathBuf::from(&node.spec.home_dir)
}

struct Total {
    bytes: u64,
    /// None: there is nothing to save.
    way: Option<Way>,
    free: u64,
}

impl Total {
    fn words(&self) -> String {
        format!("saves the homes: a copy of {} bytes, as this file system shares no blocks", self.bytes)
    }
}

/// Refused as a whole when a copy has no room: half of the homes are of no use.
fn cost(pairs: &[(PathBuf, PathBuf)]) -> Result<Total, CloneError> {
    let mut total = Total { bytes: 0, way: None, free: u64::MAX };
    for (from, to) in pairs.iter().filter(|(from, to)| !to.exists() && from.exists()) {
        let cost = clone_of(from, to).cost()?;
        total = Total { bytes: total.bytes + cost.bytes, way: Some(cost.way), free: cost.free };
        if cost.way == Way::Copy && total.bytes + clone::SPARE > cost.free {
            return Err(CloneError::NoRoom { from: from.clone(), to: to.clone(), needed: total.bytes, free: cost.free });
        }
    }
    Ok(total)
}

/// What an earlier daemon has saved is not saved again.
fn save_all(pairs: &[(PathBuf, PathBuf)], stop: &AtomicBool) -> Result<u64, CloneError> {
    let mut go_on = |_| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let mut bytes = 0;
    for (from, to) in pairs.iter().filter(|(from, _)| from.exists()) {
        bytes += match clone_of(from, to).make(&mut go_on) {
            Ok(cloned) => cloned.bytes,
            Err(CloneError::Exists(there)) => clone_of(&there, &there.with_extension("probe")).cost()?.bytes,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// A saved home that is not there was put back before.
fn put_back_all(pairs: &[(PathBuf, PathBuf)]) -> Result<(), CloneError> {
    for (saved, home) in pairs.iter().filter(|(saved, _)| saved.exists()) {
        remove(home)?;
        fs::rename(saved, home).map_err(|source| CloneError::Io { action: "put back", path: home.clone(), source })?;
    }
    Ok(())
}

fn clone_of<'a>(from: &'a Path, to: &'a Path) -> clone::Clone<'a> {
    clone::Clone { from, to, keep: Keep::Durable, skip: &clone::nothing }
}

fn remove(path: &Path) -> Result<(), CloneError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CloneError::Io { action: "remove", path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

/// Dropped with the task: the copying thread gives up.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, CloneError> + Send + 'static) -> Result<T, ReconcileError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|panic| ReconcileError::Unfit(panic.to_string()))?;
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_with(dir: &Path, name: &str, text: &str) -> PathBuf {
        let home = dir.join(name);
        fs::create_dir_all(home.join("data")).unwrap();
        fs::write(home.join("data/state"), text).unwrap();
        home
    }

    #[test]
    fn homes_come_back_as_they_were_whatever_a_crash_left_half_done() {
        let dir = tempfile::tempdir().unwrap();
        let homes = ["a", "b"].map(|name| home_with(dir.path(), name, "before"));
        let saved = ["a", "b"].map(|name| dir.path().join("upgrades/v2").join(name));
        let pairs: Vec<_> = homes.iter().cloned().zip(saved.iter().cloned()).collect();
        let going = AtomicBool::new(false);
        let bytes = save_all(&pairs, &going).unwrap();
        assert_eq!(save_all(&pairs, &going).unwrap(), bytes, "saved once, and told the same");
        homes.iter().for_each(|home| fs::write(home.join("data/state"), "after").unwrap());
        fs::write(homes[0].join("data/new"), "after").unwrap();
        let back: Vec<_> = saved.iter().cloned().zip(homes.iter().cloned()).collect();
        fs::remove_dir_all(&homes[0]).unwrap(); // a crash between the removal and the rename
        put_back_all(&back).unwrap();
        put_back_all(&back).unwrap();
        homes.iter().for_each(|home| assert_eq!(fs::read_to_string(home.join("data/state")).unwrap(), "before"));
        assert!(!homes[0].join("data/new").exists() && !saved[0].exists());
    }

    #[test]
    fn a_save_that_is_given_up_leaves_nothing_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let pair = (home_with(dir.path(), "a", "before"), dir.path().join("upgrades/a"));
        assert!(matches!(save_all(std::slice::from_ref(&pair), &AtomicBool::new(true)), Err(CloneError::GivenUp(_))));
        assert!(!pair.1.exists());
    }
}
