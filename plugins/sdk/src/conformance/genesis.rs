//! GenerateGenesis: two runs in two folders give the same bytes, and the digests are true.

use super::{
    Checked, Finding, ensure, fail, jobs,
    session::{GENESIS_LIMIT, Session, answer},
};
use crate::{pb, sha256_file};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// More than any chain needs; a plugin that goes on asking is broken.
const MAX_ROUNDS: u32 = 50;

pub(super) async fn check(session: &mut Session) -> Checked {
    let (a, first) = generate(session, "a").await?;
    let (b, second) = generate(session, "b").await?;
    ensure(first == second, || format!("two runs answer differently: {first:?} and {second:?}"))?;
    let (tree_a, tree_b) = (tree(&a)?, tree(&b)?);
    let same = |path: &PathBuf| tree_a.get(path) == tree_b.get(path);
    let differing: Vec<_> = tree_a.keys().chain(tree_b.keys()).filter(|path| !same(path)).collect();
    ensure(differing.is_empty(), || format!("two runs leave different files: {differing:?}"))?;
    if session.planned.is_empty() {
        return Ok(());
    }
    digests(&first, &a)?;
    // From here on the nodes' homes are where the requests say.
    install(&a, &session.root.path().join("home"))
}

/// All rounds of one run, in a staging folder of its own.
async fn generate(session: &mut Session, name: &str) -> Checked<(PathBuf, pb::GenerateGenesisResponse)> {
    let staging = session.root.path().join(name).join("staging");
    fs::create_dir_all(&staging).map_err(failed("create", &staging))?;
    let mut request = pb::GenerateGenesisRequest {
        devnet: Some(session.devnet.clone()),
        nodes: session.nodes.clone(),
        staging_dir: staging.to_string_lossy().into_owned(),
        shared_dir: session.root.path().join("home/shared").to_string_lossy().into_owned(),
        ..Default::default()
    };
    loop {
        let reply = answer("GenerateGenesis", GENESIS_LIMIT, session.client.generate_genesis(request.clone())).await?;
        if reply.jobs.is_empty() {
            let beside: Vec<_> = tree(&session.root.path().join(name))?.into_keys().filter(|path| !path.starts_with("staging")).collect();
            ensure(beside.is_empty(), || format!("written outside the staging folder: {beside:?}"))?;
            return Ok((staging, reply));
        }
        let out = session.root.path().join("jobs").join(format!("{name}-{}", request.round));
        request.job_results = jobs::run_all(&reply.jobs, &session.job_env, &out).await?;
        request.round += 1;
        ensure(request.round <= MAX_ROUNDS, || format!("it still asks for jobs after {MAX_ROUNDS} rounds"))?;
    }
}

fn digests(reply: &pb::GenerateGenesisResponse, staging: &Path) -> Checked {
    ensure(!reply.genesis_path.is_empty(), || "there are nodes, but no genesis_path".into())?;
    let mut claims: Vec<_> = reply.files.iter().map(|file| (&file.path, &file.sha256)).collect();
    claims.push((&reply.genesis_path, &reply.genesis_sha256));
    for (path, claimed) in claims {
        let below = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        ensure(below, || format!("{path} is no path below the staging folder"))?;
        let real = sha256_file(&staging.join(path)).map_err(failed("read", Path::new(path)))?;
        ensure(real == *claimed, || format!("{path}: it claims the SHA-256 {claimed}, the file has {real}"))?;
    }
    if !reply.mnemonic_path.is_empty() {
        let path = staging.join(&reply.mnemonic_path);
        let mode = fs::metadata(&path).map_err(failed("read", &path))?.permissions().mode() & 0o777;
        ensure(mode == 0o600, || format!("the mnemonic's file has mode {mode:o}; wanted 600"))?;
    }
    Ok(())
}

fn install(staging: &Path, home: &Path) -> Checked {
    fs::create_dir_all(home).map_err(failed("create", home))?;
    for part in ["nodes", "shared"] {
        let (from, to) = (staging.join(part), home.join(part));
        if from.exists() {
            fs::rename(&from, &to).map_err(failed("move", &from))?;
        }
    }
    Ok(())
}

/// Each file below `root` (without `work/`, which goes away) with its mode and SHA-256; a link with its target.
pub(super) fn tree(root: &Path) -> Checked<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("list", &folder))?.flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            let meta = fs::symlink_metadata(&path).map_err(failed("read", &path))?;
            if meta.is_dir() {
                if relative != Path::new("work") {
                    folders.push(path);
                }
            } else if meta.is_file() {
                let digest = sha256_file(&path).map_err(failed("read", &path))?;
                found.insert(relative, format!("{:o} {digest}", meta.permissions().mode()));
            } else if meta.is_symlink() {
                found.insert(relative, format!("link {:?}", fs::read_link(&path).ok()));
            } else {
                return fail(format!("{} is neither file, folder nor link", path.display()));
            }
        }
    }
    Ok(found)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Finding {
    let path = path.display().to_string();
    move |error| Finding::Fail(format!("cannot {action} {path}: {error}"))
}
