//! Node binaries: found, built or fetched once, kept by content, verified before use.
//!
//! ```text
//! path ─────► checked ──────────────────────────────┐
//! goModule ─► known? ── no ─► one build for many ───┼─► cache/binaries/<sha256>/ ─► verified ─► path, digest, environment
//! url ──────► known? ── no ─► one fetch for many ───┘
//! ```

mod cache;
mod digest;
mod error;
mod fetch;
mod flight;
mod go_module;
mod program;
mod tool;

pub use error::BinaryError;

use crate::{
    config::Home,
    model::{BinarySource, GoModule, Timestamp},
    sys::Clock,
};
use cache::{Cache, Cached, Origin};
use flight::{Flights, Lines};
use futures::FutureExt;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Once},
    time::Duration,
};
use tool::Bench;

/// Shortest prefix of a digest that `evict` takes.
const SHORTEST_DIGEST: usize = 8;

/// A binary in the cache, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBinary {
    pub path: PathBuf,
    /// Of the executable, hex.
    pub sha256: String,
    /// What the spec named, in words: `path /x/wasmd`, `goModule github.com/CosmWasm/wasmd@v0.54.0`.
    pub source: String,
    /// The release, where the source names one or its tool told it: `v0.54.0`. Else empty.
    pub version: String,
    /// What it needs in its environment to find the libraries that were copied with it.
    pub env: BTreeMap<String, String>,
}

/// One binary of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedBinary {
    pub sha256: String,
    pub source: String,
    pub path: PathBuf,
    /// Bytes, libraries included.
    pub size: u64,
    pub added_at: Timestamp,
    pub used_at: Timestamp,
}

/// What to take out of the cache; a binary that either names.
#[derive(Clone, Debug, Default)]
pub struct Eviction {
    /// Digests, or beginnings of at least 8 characters.
    pub digests: Vec<String>,
    /// Not used for so long.
    pub older_than: Option<Duration>,
}

/// The binary cache of one home. Cheap to clone.
#[derive(Clone)]
pub struct Binaries(Arc<Inner>);

struct Inner {
    cache: Cache,
    builds: PathBuf,
    identities: PathBuf,
    clock: Arc<dyn Clock>,
    /// For build tools.
    env: BTreeMap<String, String>,
    flights: Flights<Cached>,
    swept: Once,
}

impl Binaries {
    /// Build tools get what concerns them of this process's environment: PATH, HOME, proxies, GO*, CGO*, compilers.
    pub fn new(home: &Home, clock: Arc<dyn Clock>) -> Self {
        let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::with_environment(home, clock, env.filter(|(name, _)| concerns_tools(name)).collect())
    }
    /// As `new`, with the whole environment of build tools given.
    pub fn with_environment(home: &Home, clock: Arc<dyn Clock>, env: BTreeMap<String, String>) -> Self {
        let cache = Cache::new(home.cache().join("binaries"));
        let (builds, identities) = (home.cache().join("builds"), home.identities());
        let inner = Inner { cache, builds, identities, clock, env, flights: Flights::default(), swept: Once::new() };
        Self(Arc::new(inner))
    }

    /// Finds, builds or fetches a binary. `progress` hears what is done, a line each. Callers who ask for the same build share it;
    /// dropping the last of them kills it, with all that it started.
    pub async fn resolve(&self, source: &BinarySource, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ResolvedBinary, BinaryError> {
        let cached = match source {
            BinarySource { path: Some(path), .. } => return self.take_path(Path::new(path)).await,
            BinarySource { go_module: Some(module), .. } => self.build(module, progress).await?,
            BinarySource { url: Some(url), sha256: Some(sha256), .. } => self.fetch(url, sha256, progress).await?,
            other => return Err(unusable(other)),
        };
        let mut resolved = resolved(cached, describe(source));
        // What was cached before versions were kept.
        if let Some(module) = source.go_module.as_ref().filter(|module| resolved.version.is_empty() && go_module::is_pinned(&module.version)) {
            resolved.version.clone_from(&module.version);
        }
        Ok(resolved)
    }

    /// Gets any file by its URL, whole and of this digest, to the path `to`.
    pub async fn fetch_file(&self, url: &str, sha256: &str, to: &Path) -> Result<(), BinaryError> {
        let sha256 = fetch::check_digest(sha256)?;
        let key = source_key(&(url, &sha256))?;
        let (bench, _scratch) = self.0.bench(&key, &format!("url {url}"), Lines::unheard()).await?;
        let file = fetch::fetch(&bench, url, &sha256).await?;
        fs::rename(&file, to).map_err(BinaryError::io("move into place", to))
    }

    /// A path that `resolve` returned once: verified again. An altered or vanished file is an error, never used.
    pub async fn reopen(&self, path: &Path) -> Result<ResolvedBinary, BinaryError> {
        let (inner, path) = (self.0.clone(), path.to_owned());
        blocking(move || inner.cache.open(&path)).await.map(|cached| {
            let source = cached.entry.source.clone();
            resolved(cached, source)
        })
    }

    /// What a cached binary needs in its environment. Looks at the disk, at one folder.
    pub fn environment(path: &Path) -> BTreeMap<String, String> {
        cache::environment(path)
    }

    /// By source.
    pub async fn list(&self) -> Result<Vec<CachedBinary>, BinaryError> {
        let inner = self.0.clone();
        let mut all: Vec<_> = blocking(move || inner.cache.list()).await?.into_iter().map(shown).collect();
        all.sort_by(|a, b| (&a.source, &a.sha256).cmp(&(&b.source, &b.sha256)));
        Ok(all)
    }

    /// Takes binaries out, but none whose digest is in `in_use`, which says who uses it; naming one of those is an error, and then
    /// nothing is taken out.
    pub async fn evict(&self, which: &Eviction, in_use: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<CachedBinary>, BinaryError> {
        let (inner, which, in_use) = (self.0.clone(), which.clone(), in_use.clone());
        let now = inner.clock.now();
        blocking(move || {
            let all = inner.cache.list()?;
            let folders = choose(&all, &which, &in_use, now)?;
            inner.cache.remove(&folders)?;
            let gone: Vec<_> = all.into_iter().filter(|cached| folders.contains(&cached.folder)).map(shown).collect();
            forget_identities(&inner.identities, &gone);
            Ok(gone)
        })
        .await
    }

    /// Hashes the program at this path of the cache and its libraries anew, whatever is known of them; an error says what is wrong.
    pub async fn verify(&self, path: &Path) -> Result<(), BinaryError> {
        let (inner, path) = (self.0.clone(), path.to_owned());
        blocking(move || inner.cache.verify(&path)).await
    }

    async fn take_path(&self, path: &Path) -> Result<ResolvedBinary, BinaryError> {
        let words = format!("path {}", path.display());
        let (inner, path, origin) = (self.0.clone(), path.to_owned(), Origin { words: words.clone(), ..Origin::default() });
        let cached = blocking(move || {
            program::check(&path)?;
            inner.add(&path, &origin)
        })
        .await?;
        Ok(resolved(cached, words))
    }

    async fn build(&self, module: &GoModule, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Cached, BinaryError> {
        go_module::check(module)?;
        let key = source_key(module)?;
        // `latest` and branches are asked for anew each time; Go's own cache makes that cheap when nothing has changed.
        let pinned = go_module::is_pinned(&module.version);
        if pinned && let Some(cached) = self.0.known(key.clone()).await? {
            return Ok(cached);
        }
        let (inner, module, build_key) = (self.0.clone(), module.clone(), key.clone());
        let begin = |lines: Lines| {
            async move {
                // A build of the same may have ended between the look above and here.
                if pinned && let Some(cached) = inner.known(build_key.clone()).await? {
                    return Ok(cached);
                }
                let words = go_module::describe(&module);
                let (bench, _scratch) = inner.bench(&build_key, &words, lines).await?;
                let (program, version) = go_module::build(&bench, &module).await?;
                inner.take_in(&bench, program, Origin { key: Some(build_key), words, version }).await
            }
            .boxed()
        };
        self.0.flights.join(&key, progress, begin).await
    }

    async fn fetch(&self, url: &str, sha256: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Cached, BinaryError> {
        let sha256 = fetch::check_digest(sha256)?;
        let (inner, wanted) = (self.0.clone(), sha256.clone());
        let now = inner.clock.now();
        if let Some(cached) = blocking(move || inner.cache.find_digest(&wanted, now)).await? {
            return Ok(cached);
        }
        let key = source_key(&(url, &sha256))?;
        let (inner, url, fetch_key) = (self.0.clone(), url.to_owned(), key.clone());
        let begin = |lines: Lines| {
            async move {
                let words = format!("url {url}");
                let (bench, _scratch) = inner.bench(&fetch_key, &words, lines).await?;
                let program = fetch::fetch(&bench, &url, &sha256).await?;
                inner.take_in(&bench, program, Origin { key: Some(fetch_key), words, ..Origin::default() }).await
            }
            .boxed()
        };
        self.0.flights.join(&key, progress, begin).await
    }
}

impl Inner {
    fn add(&self, program: &Path, origin: &Origin) -> Result<Cached, BinaryError> {
        fs::create_dir_all(self.cache.root()).map_err(BinaryError::io("create", self.cache.root()))?;
        self.swept.call_once(|| {
            self.cache.sweep();
            sweep_builds(&self.builds);
        });
        self.cache.add(program, origin, &self.clock.fresh_id().simple().to_string(), self.clock.now())
    }

    async fn known(self: &Arc<Self>, key: String) -> Result<Option<Cached>, BinaryError> {
        let inner = self.clone();
        let now = self.clock.now();
        blocking(move || inner.cache.find(&key, now)).await
    }

    /// A scratch folder that goes with the second value, and a new log.
    async fn bench(self: &Arc<Self>, key: &str, words: &str, lines: Lines) -> Result<(Bench, Scratch), BinaryError> {
        let scratch = Scratch(self.builds.join(format!("{key}.{}", self.clock.fresh_id().simple())));
        let log = self.builds.join(format!("{key}.log"));
        let (inner, cwd, path) = (self.clone(), scratch.0.clone(), log.clone());
        let heading = format!("# {words} at {}\n", self.clock.now());
        blocking(move || {
            inner.swept.call_once(|| {
                inner.cache.sweep();
                sweep_builds(&inner.builds);
            });
            fs::create_dir_all(cwd.join("out")).map_err(BinaryError::io("create", &cwd))?;
            fs::write(&path, heading).map_err(BinaryError::io("write", &path))
        })
        .await?;
        let bench = Bench { subject: words.to_owned(), env: self.env.clone(), cwd: scratch.0.clone(), log, lines };
        Ok((bench, scratch))
    }

    async fn take_in(self: &Arc<Self>, bench: &Bench, program: PathBuf, origin: Origin) -> Result<Cached, BinaryError> {
        bench.lines.say("putting it into the cache");
        let inner = self.clone();
        blocking(move || {
            program::check(&program)?;
            inner.add(&program, &origin)
        })
        .await
    }
}

/// A build's folder: it goes when the build ends, in whatever way.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_folder(&self.0);
    }
}

/// Folders that an earlier daemon left when it died; logs stay.
fn sweep_builds(builds: &Path) {
    let Ok(entries) = fs::read_dir(builds) else { return };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).for_each(|path| remove_folder(&path));
}

fn remove_folder(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a build folder");
    }
}

/// What plugins said of binaries goes with them; what stays by mistake costs only its place.
fn forget_identities(identities: &Path, gone: &[CachedBinary]) {
    let Ok(entries) = fs::read_dir(identities) else { return };
    let of_gone = |name: &str| gone.iter().any(|binary| name.contains(&format!("-{}.", binary.sha256)));
    for path in entries.flatten().filter(|entry| of_gone(&entry.file_name().to_string_lossy())).map(|entry| entry.path()) {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove what a plugin said of an evicted binary");
        }
    }
}

fn choose(all: &[Cached], which: &Eviction, in_use: &BTreeMap<String, BTreeSet<String>>, now: Timestamp) -> Result<BTreeSet<String>, BinaryError> {
    let mut folders = BTreeSet::new();
    for digest in &which.digests {
        let named: Vec<_> = all.iter().filter(|cached| digest.len() >= SHORTEST_DIGEST && cached.folder.starts_with(digest.as_str())).collect();
        if named.is_empty() {
            return Err(BinaryError::NotCached { digest: digest.clone() });
        }
        if let Some(users) = named.iter().find_map(|cached| in_use.get(&cached.entry.sha256)) {
            let by = users.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(BinaryError::InUse { digest: digest.chars().take(12).collect(), by });
        }
        folders.extend(named.into_iter().map(|cached| cached.folder.clone()));
    }
    if let Some(span) = which.older_than {
        let old = all.iter().filter(|cached| now.since(cached.entry.used_at) > span && !in_use.contains_key(&cached.entry.sha256));
        folders.extend(old.map(|cached| cached.folder.clone()));
    }
    Ok(folders)
}

/// The same source has the same key, whatever its order of fields; the architecture is part of it.
fn source_key(source: &impl serde::Serialize) -> Result<String, BinaryError> {
    let text = serde_json::to_string(source).map_err(|error| BinaryError::BadSource(error.to_string()))?;
    let digest = Sha256::digest(format!("{}\0{text}", std::env::consts::ARCH));
    Ok(digest::hex(&digest)[..32].to_owned())
}

/// Whether two files have the same bytes; `sha256` is the second one's. The first is read only when it is as long.
pub async fn has_content_of(file: &Path, other: &Path, sha256: &str) -> bool {
    let length = |path: &Path| fs::metadata(path).map(|meta| meta.len()).ok();
    length(file).is_some_and(|bytes| length(other) == Some(bytes)) && still_has(file, sha256).await
}

/// Whether a source always means the same bytes: a path may be built anew, and so may a branch.
pub fn is_fixed(source: &BinarySource) -> bool {
    source.sha256.is_some() || source.go_module.as_ref().is_some_and(|module| go_module::is_pinned(&module.version))
}

/// Whether the file that a source names by its path still is this binary. Of what is built or fetched nothing is known beforehand.
pub async fn still_has(source: &Path, sha256: &str) -> bool {
    let (source, sha256) = (source.to_owned(), sha256.to_owned());
    blocking(move || digest::hash(&source)).await.is_ok_and(|found| found == sha256)
}

/// Whether a source can be had by this release, and one by path is there and can be run here; of what is built or fetched nothing is
/// known beforehand.
pub async fn inspect(source: &BinarySource) -> Result<(), BinaryError> {
    match source {
        BinarySource { path: Some(path), .. } => {
            let path = PathBuf::from(path);
            blocking(move || program::check(&path)).await
        }
        BinarySource { go_module: Some(module), .. } => go_module::check(module),
        BinarySource { url: Some(_), sha256: Some(sha256), .. } => fetch::check_digest(sha256).map(drop),
        other => Err(unusable(other)),
    }
}

/// Why a source that names none of path, goModule and url with its sha256 leads to no binary.
fn unusable(source: &BinarySource) -> BinaryError {
    match source {
        BinarySource { url: Some(_), .. } => BinaryError::BadSource("url without sha256".into()),
        BinarySource { cargo: Some(cargo), .. } => BinaryError::Unsupported { what: format!("cargo crate {}", cargo.name) },
        BinarySource { npm: Some(npm), .. } => BinaryError::Unsupported { what: format!("npm package {}", npm.package) },
        BinarySource { git: Some(git), .. } => BinaryError::Unsupported { what: format!("git repository {}", git.url) },
        _ => BinaryError::BadSource("none".into()),
    }
}

pub fn describe(source: &BinarySource) -> String {
    match source {
        BinarySource { path: Some(path), .. } => format!("path {path}"),
        BinarySource { go_module: Some(module), .. } => go_module::describe(module),
        BinarySource { url: Some(url), .. } => format!("url {url}"),
        _ => "unknown".to_owned(),
    }
}

fn resolved(cached: Cached, source: String) -> ResolvedBinary {
    let env = cache::environment(&cached.path);
    ResolvedBinary { path: cached.path, sha256: cached.entry.sha256, source, version: cached.entry.version, env }
}

fn shown(cached: Cached) -> CachedBinary {
    let Cached { path, entry, .. } = cached;
    CachedBinary { sha256: entry.sha256, source: entry.source, path, size: entry.size, added_at: entry.added_at, used_at: entry.used_at }
}

fn concerns_tools(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "CC",
        "CXX",
        "AR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "PKG_CONFIG_PATH",
        "ALL_PROXY",
        "all_proxy",
    ];
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    NAMES.contains(&name) || name.starts_with("GO") || name.starts_with("CGO_") || proxies.contains(&name.to_ascii_lowercase().as_str())
}

/// Hashing and copying take seconds: not on a thread that others wait for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BinaryError> + Send + 'static) -> Result<T, BinaryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(BinaryError::io("use the cache in", "cache/binaries")(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests;
