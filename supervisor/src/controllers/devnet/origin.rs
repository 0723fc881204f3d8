//! The state that a fork begins with: brought into the devnet's own folder once, and verified whenever a genesis is made of it.

use super::super::{Context, ReconcileError};
use crate::{
    model::{Devnet, Export, Fault, FaultCode, Key},
    plugin::{FORK_CAPABILITY, PluginInfo},
    sys::sha256_file,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where it lies then; None for a devnet that begins with its chain's default.
pub(super) async fn bring(devnet: &Devnet, info: &PluginInfo, cx: &Context) -> Result<Option<PathBuf>, ReconcileError> {
    let genesis = &devnet.spec.genesis;
    if !genesis.is_fork() {
        return Ok(None);
    }
    if !info.capabilities.iter().any(|capability| capability == FORK_CAPABILITY) {
        return Err(ReconcileError::Unfit(format!("plugin {} makes no genesis from an exported state: take it out of spec.genesis", info.name)));
    }
    let expected = genesis.sha256.clone().ok_or_else(|| ReconcileError::Unfit("spec.genesis.sha256 is missing".into()))?.to_ascii_lowercase();
    let folder = cx.home.origin(&devnet.metadata.namespace, &devnet.metadata.name);
    let (place, wanted) = (folder.join("genesis.json"), expected.clone());
    if blocking(move || is(&place, &wanted)).await? {
        return Ok(Some(folder.join("genesis.json")));
    }
    let partial = folder.join("genesis.json.partial");
    fs::create_dir_all(&folder).map_err(|source| ReconcileError::Io { path: folder.clone(), source })?;
    super::provision::say(devnet, "fetching the state to begin with", cx).await?;
    let from = match (&genesis.from_export, &genesis.from_file, &genesis.from_url) {
        (Some(name), ..) => {
            let from = export_path(devnet, name, cx).await?;
            copy(&from, &partial).await?;
            format!("export {name}")
        }
        (_, Some(path), _) => {
            copy(Path::new(path), &partial).await?;
            path.clone()
        }
        (.., Some(url)) => {
            cx.binaries.fetch_file(url, &expected, &partial).await?;
            url.clone()
        }
        _ => return Ok(None),
    };
    blocking(move || take(&folder, &from, &expected)).await.map(Some)
}

async fn export_path(devnet: &Devnet, name: &str, cx: &Context) -> Result<PathBuf, ReconcileError> {
    let object = cx.store.get(&Key::export(&devnet.metadata.namespace, name)).await?;
    let export = object.and_then(|object| Arc::<Export>::try_from(object).ok());
    let path = export.and_then(|export| export.status.path.clone());
    path.map(PathBuf::from).ok_or_else(|| ReconcileError::Unfit(format!("export {name}, which spec.genesis names, is gone")))
}

/// A copy of our own, which shares its blocks where the disk can: an export may be deleted, and a file may be changed.
async fn copy(from: &Path, to: &Path) -> Result<(), ReconcileError> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || {
        let _ = fs::remove_file(&to); // of a try that was cut off
        File::open(&from).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReconcileError::Unfit(format!("{}, which spec.genesis names, does not exist", from.display())),
            _ => ReconcileError::Io { path: from.clone(), source },
        })?;
        fs::copy(&from, &to).map(drop).map_err(|source| ReconcileError::Io { path: to, source }) // a full disk is ours, not theirs
    })
    .await
}

/// Gives what was brought its name, if it is what was asked for.
fn take(folder: &Path, from: &str, expected: &str) -> Result<PathBuf, ReconcileError> {
    let (partial, place) = (folder.join("genesis.json.partial"), folder.join("genesis.json"));
    let found = sha256(&partial)?;
    if found != expected {
        let _ = fs::remove_file(&partial); // it is of no use to anybody
        let message = format!("{from} has the sha256 {found}, not {expected} as spec.genesis says");
        return Err(ReconcileError::Fault(
            Fault::new(FaultCode::InvalidSpec, message).remedy("find out which of the two is right, then apply again"),
        ));
    }
    fs::rename(&partial, &place).map_err(|source| ReconcileError::Io { path: place.clone(), source })?;
    Ok(place)
}

fn is(path: &Path, expected: &str) -> Result<bool, ReconcileError> {
    Ok(path.exists() && sha256(path)? == expected)
}

fn sha256(path: &Path) -> Result<String, ReconcileError> {
    sha256_file(path).map_err(|source| ReconcileError::Io { path: path.to_owned(), source })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ReconcileError> + Send + 'static) -> Result<T, ReconcileError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ReconcileError::Unfit(format!("the work broke off: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_that_were_asked_for_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let partial = dir.path().join("genesis.json.partial");
        fs::write(&partial, "abd").unwrap();
        let refused = take(dir.path(), "/x/genesis.json", digest).unwrap_err();
        assert!(refused.to_string().contains(digest) && !refused.fault().retriable, "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&partial, "abc").unwrap();
        let place = take(dir.path(), "/x/genesis.json", digest).unwrap();
        assert!(is(&place, digest).unwrap() && !is(&place, "00").unwrap() && !is(&partial, digest).unwrap());
    }
}
