//! Has the plugin write genesis, keys and homes into a staging folder, checks what it wrote, and renames it into place.

use super::super::{Context, ReconcileError};
use super::{
    files::{FreshDir, put_in_place},
    identity,
    keepsakes::Keepsakes,
    provision::{MAX_ROUNDS, run_jobs},
};
use crate::{
    model::{Account, Devnet, PlacedNode},
    plugin::{ChainPlugin, DevnetContext, Genesis, GenesisRequest, Reply},
    sys::{failpoint, sha256_file},
};
use std::path::{Component, Path, PathBuf};

/// What the devnet's status tells of its genesis.
pub(super) struct Made {
    pub(super) sha256: String,
    pub(super) accounts: Vec<Account>,
    pub(super) mnemonic_path: Option<String>,
}

pub(super) async fn make(
    plugin: &dyn ChainPlugin,
    context: &DevnetContext,
    (nodes, base): (Vec<PlacedNode>, Option<PathBuf>),
    devnet: &Devnet,
    cx: &Context,
) -> Result<Made, ReconcileError> {
    let (namespace, name) = (&devnet.metadata.namespace, &devnet.metadata.name);
    let staging = FreshDir::make(cx.home.staging(namespace, name))?;
    let shared = cx.home.shared(namespace, name);
    let keepsakes = identity::kept_answer(context, devnet, cx).await?.map(|answer| Keepsakes::beside(&answer));
    if let Some(keepsakes) = &keepsakes {
        keepsakes.lay_out(&staging.path().join("kept"));
    }
    let mut request = GenesisRequest {
        devnet: context.clone(),
        nodes,
        base,
        staging_dir: staging.path().to_path_buf(),
        shared_dir: shared.clone(),
        ..GenesisRequest::default()
    };
    let genesis = loop {
        match plugin.genesis(&request).await? {
            Reply::Done(genesis) => break genesis,
            Reply::Jobs(_) if request.round >= MAX_ROUNDS => {
                return Err(ReconcileError::Unfit(format!("plugin {} asked for jobs {MAX_ROUNDS} times without an answer", devnet.spec.plugin)));
            }
            Reply::Jobs(jobs) => {
                request.job_outcomes = run_jobs(&jobs, devnet, &staging.path().join("jobs"), cx).await?;
                request.round += 1;
            }
        }
    };
    let (root, checked) = (staging.path().to_path_buf(), genesis.clone());
    tokio::task::spawn_blocking(move || verify(&root, &checked))
        .await
        .map_err(|error| ReconcileError::Unfit(format!("checking genesis: {error}")))??;
    failpoint("provision/staged");
    if let Some(keepsakes) = keepsakes {
        keepsakes.take(&staging.path().join("keep"));
    }
    for node in &request.nodes {
        let from = staging.path().join("nodes").join(&node.name);
        if from.exists() {
            put_in_place(&from, Path::new(&node.home_dir))?;
            failpoint("provision/home");
        }
    }
    let from = staging.path().join("shared");
    if from.exists() {
        put_in_place(&from, &shared)?;
        failpoint("provision/shared");
    }
    let mnemonic_path = genesis.mnemonic_path.and_then(|path| path.strip_prefix("shared").ok().map(|path| shared.join(path).display().to_string()));
    Ok(Made { sha256: genesis.genesis_sha256, accounts: genesis.accounts, mnemonic_path })
}

/// Every announced file lies inside the staging folder and has the announced digest.
fn verify(staging: &Path, genesis: &Genesis) -> Result<(), ReconcileError> {
    let own = (genesis.genesis_path.clone(), genesis.genesis_sha256.clone());
    for (path, digest) in genesis.files.iter().chain(Some(&own).filter(|(path, _)| !path.as_os_str().is_empty())) {
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(ReconcileError::Unfit(format!("the plugin announced {}, which is not below its staging folder", path.display())));
        }
        let file = staging.join(path);
        if sha256_file(&file).map_err(|source| ReconcileError::Io { path: file.clone(), source })? != *digest {
            return Err(ReconcileError::Digest { file });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_digest_and_a_path_outside_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        std::fs::write(dir.path().join("shared/genesis.json"), "abc").unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let genesis = |path: &str, digest: &str| Genesis { genesis_path: path.into(), genesis_sha256: digest.into(), ..Genesis::default() };
        assert!(verify(dir.path(), &genesis("shared/genesis.json", digest)).is_ok());
        assert!(matches!(verify(dir.path(), &genesis("shared/genesis.json", "00")), Err(ReconcileError::Digest { .. })));
        assert!(matches!(verify(dir.path(), &genesis("../etc/passwd", digest)), Err(ReconcileError::Unfit(_))));
    }
}
