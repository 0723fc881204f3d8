//! What a binary is, by its plugin's word; asked once per binary.

use super::super::{Context, ReconcileError, placing::NodeBinary};
use super::{
    files::FreshDir,
    provision::{MAX_ROUNDS, run_jobs},
};
use crate::{
    model::{BinaryStatus, Devnet},
    plugin::{ChainPlugin, DevnetContext, Initialized, Reply},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Asks the plugin, running the jobs that it wants. What it said of the same bytes before is kept in the home's cache.
pub(super) async fn initialize(
    plugin: &dyn ChainPlugin,
    context: &DevnetContext,
    devnet: &Devnet,
    cx: &Context,
) -> Result<Initialized, ReconcileError> {
    initialize_in("work", plugin, context, devnet, cx).await
}

/// With a folder of the devnet of its own, as provisioning may go on beside.
pub(in super::super) async fn initialize_in(
    folder: &str,
    plugin: &dyn ChainPlugin,
    context: &DevnetContext,
    devnet: &Devnet,
    cx: &Context,
) -> Result<Initialized, ReconcileError> {
    let kept = kept_answer(context, devnet, cx).await?;
    if let Some(answer) = kept.as_deref().and_then(recall) {
        return Ok(answer);
    }
    let meta = &devnet.metadata;
    let work = FreshDir::make(cx.home.devnet(&meta.namespace, &meta.name).join(folder))?;
    let mut outcomes = Vec::new();
    for _ in 0..MAX_ROUNDS {
        match plugin.initialize(context, work.path().to_path_buf(), &outcomes).await? {
            Reply::Done(answer) => {
                if let Some(path) = kept
                    && let Err(error) = keep(&path, &answer)
                {
                    tracing::warn!(path = %path.display(), %error, "cannot keep what a plugin said of a binary; it is asked again");
                }
                return Ok(answer);
            }
            Reply::Jobs(jobs) => outcomes = run_jobs(&jobs, devnet, work.path(), cx).await?,
        }
    }
    Err(ReconcileError::Unfit(format!("plugin {} asked for jobs {MAX_ROUNDS} times without an answer", devnet.spec.plugin)))
}

/// Nodes on another SDK compute other states from the same blocks: such a devnet would end with its first one.
pub(super) async fn refuse_other_sdks(
    plugin: &dyn ChainPlugin,
    context: &DevnetContext,
    (ours, binary): (&Initialized, &BinaryStatus),
    own: &BTreeMap<String, NodeBinary>,
    devnet: &Devnet,
    cx: &Context,
) -> Result<(), ReconcileError> {
    let mut known = BTreeMap::from([(binary.sha256.clone(), ours.sdk_version.clone())]);
    for (name, other) in own {
        if !known.contains_key(&other.sha256) {
            let bare =
                DevnetContext { binary_path: other.path.clone(), binary_sha256: other.sha256.clone(), initialized: Vec::new(), ..context.clone() };
            known.insert(other.sha256.clone(), initialize(plugin, &bare, devnet, cx).await?.sdk_version);
        }
        let theirs = &known[&other.sha256];
        if line(theirs) != line(&ours.sdk_version) {
            let (source, devnets) = (other.source.as_deref().unwrap_or(&other.path), &binary.source);
            return Err(ReconcileError::Unfit(format!(
                "spec.nodes[{name}].binary ({source}) is on SDK {theirs}, spec.binary ({devnets}) on {}: all nodes of a devnet must be on one SDK",
                ours.sdk_version
            )));
        }
    }
    Ok(())
}

/// Where the answer is kept; none for a script, which may be another program tomorrow under the same bytes.
pub(super) async fn kept_answer(context: &DevnetContext, devnet: &Devnet, cx: &Context) -> Result<Option<PathBuf>, ReconcileError> {
    if context.binary_sha256.is_empty() || is_script(Path::new(&context.binary_path)) {
        return Ok(None);
    }
    let plugin = cx.plugins.digest(&devnet.spec.plugin).await?;
    Ok(Some(cx.home.identities().join(format!("{plugin}-{}.json", context.binary_sha256))))
}

/// What cannot be read counts as a script too: its fault shows when it is run.
fn is_script(path: &Path) -> bool {
    let mut head = [0; 2];
    fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut head)).is_err() || head == *b"#!"
}

/// A file that is missing or damaged says nothing: it only saves work.
fn recall(path: &Path) -> Option<Initialized> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn keep(path: &Path, answer: &Initialized) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(&part, serde_json::to_vec(answer)?)?;
    fs::rename(part, path)
}

/// `v0.50.11` and `v0.50.12` are of one line, v0.50: their patches are meant to run side by side.
fn line(version: &str) -> &str {
    version.match_indices('.').nth(1).map_or(version, |(end, _)| &version[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_one_sdk_are_one_line_and_its_releases_are_not() {
        let check = |version: &str, want: &str| assert_eq!(line(version), want);
        check("v0.50.11", "v0.50");
        check("v0.50.12-rc.1", "v0.50");
        check("v0.53", "v0.53");
        check("mock", "mock");
    }

    #[test]
    fn an_answer_is_kept_whole_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/answer.json");
        let answer = Initialized { sdk_version: "v0.50.11".into(), binary_version: "v1".into(), state: vec![0, 255], lacks: vec!["gov".into()] };
        assert_eq!(recall(&path), None);
        keep(&path, &answer).unwrap();
        assert_eq!(recall(&path), Some(answer));
        fs::write(&path, "{").unwrap();
        assert_eq!(recall(&path), None);
    }

    #[test]
    fn a_script_is_known_by_its_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            fs::write(dir.path().join(name), content).unwrap();
            dir.path().join(name)
        };
        assert!(is_script(&file("a", "#!/bin/sh\n")) && is_script(&file("b", "#")) && is_script(&dir.path().join("none")));
        assert!(!is_script(&file("c", "\x7fELF")));
    }
}
