//! The binary cache as DaemonService tells it: what is in it, who uses it, whether it is whole, and what mends what is not.

use crate::{
    binaries::{self, Binaries, BinaryError, CachedBinary, Eviction},
    model::{BinarySource, Fault, FaultCode, Kind, Meta, Object},
    store::{Selector, Store},
};
use async_trait::async_trait;
use dvb_proto::devnet::v1;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// One binary, and who uses it: `mynet`, `upgrade mynet/v2`; `mynet -n other` in namespace other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub binary: CachedBinary,
    pub used_by: BTreeSet<String>,
}

/// A binary that was hashed anew, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub listed: Listed,
    pub fault: Option<(BinaryState, Fault)>,
}

/// In what way a binary is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryState {
    /// A file has other bytes, or is not one of the binary's.
    Altered,
    /// A file is gone, or cannot be run or read.
    Incomplete,
}

/// One step of a build or download; the last one has `done`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BinaryStep {
    pub message: String,
    pub done: Option<CachedBinary>,
    pub log_path: Option<PathBuf>,
}

/// The binary cache, as this service needs it. Relative paths were made absolute by the client.
#[async_trait]
pub trait BinaryCache: Send + Sync + 'static {
    async fn list(&self) -> Result<Vec<Listed>, Fault>;
    /// Ends after the step with `done`, or after a fault. Dropping the stream does not end a build that others wait for.
    fn add(&self, source: BinarySource) -> BoxStream<'static, Result<BinaryStep, Fault>>;
    /// Removes those that nobody uses: the named ones, and all not used for `older_than`. Returns what was removed.
    async fn evict(&self, digests: Vec<String>, older_than: Option<Duration>) -> Result<Vec<CachedBinary>, Fault>;
    /// Those whose digests begin so, or all: each hashed anew as the stream is read.
    async fn verify(&self, digests: Vec<String>) -> Result<BoxStream<'static, Verdict>, Fault>;
}

/// The cache of this home, and the store that tells which binaries are in use.
pub struct HomeBinaries {
    pub binaries: Binaries,
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl BinaryCache for HomeBinaries {
    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let mut users = self.users().await?;
        let all = self.binaries.list().await.map_err(|error| error.fault())?;
        Ok(all.into_iter().map(|binary| Listed { used_by: users.entry(binary.sha256.clone()).or_default().clone(), binary }).collect())
    }

    /// The build runs as the client listens: when it goes away and nobody else waits for the same build, the build is ended.
    fn add(&self, source: BinarySource) -> BoxStream<'static, Result<BinaryStep, Fault>> {
        let (tell, hear) = mpsc::channel::<String>(64);
        let binaries = self.binaries.clone();
        let work = async move {
            // A client that does not keep up misses lines of progress, never the result.
            let resolved = binaries.resolve(&source, &move |line| _ = tell.try_send(line)).await.map_err(|error| error.fault())?;
            let all = binaries.list().await.map_err(|error| error.fault())?;
            let entry = all.into_iter().find(|entry| entry.path == resolved.path);
            let entry =
                entry.ok_or_else(|| Fault::new(FaultCode::Internal, format!("{} left the cache at once", resolved.path.display())).retriable())?;
            Ok(BinaryStep { message: format!("{} is in the cache", resolved.source), done: Some(entry), log_path: None })
        };
        stream::unfold(Some(Adding { work: work.boxed(), hear, done: None }), Adding::next).boxed()
    }

    async fn evict(&self, digests: Vec<String>, older_than: Option<Duration>) -> Result<Vec<CachedBinary>, Fault> {
        let in_use = self.users().await?;
        self.binaries.evict(&Eviction { digests, older_than }, &in_use).await.map_err(|error| error.fault())
    }

    async fn verify(&self, digests: Vec<String>) -> Result<BoxStream<'static, Verdict>, Fault> {
        let all = self.list().await?;
        for digest in &digests {
            if !all.iter().any(|listed| listed.binary.sha256.starts_with(digest)) {
                return Err(BinaryError::NotCached { digest: digest.clone() }.fault());
            }
        }
        let is_named = move |listed: &Listed| digests.is_empty() || digests.iter().any(|digest| listed.binary.sha256.starts_with(digest));
        let binaries = self.binaries.clone();
        let verdicts = stream::iter(all.into_iter().filter(is_named)).then(move |listed| {
            let binaries = binaries.clone();
            async move {
                let fault = match binaries.verify(&listed.binary.path).await {
                    Ok(()) => None,
                    Err(error) => Some((state(&error), error.fault().remedy(mend(&listed).await))),
                };
                Verdict { listed, fault }
            }
        });
        Ok(verdicts.boxed())
    }
}

impl HomeBinaries {
    /// Who uses each binary, by its digest.
    async fn users(&self) -> Result<BTreeMap<String, BTreeSet<String>>, Fault> {
        let selector = Selector { kinds: vec![Kind::Devnet, Kind::Node, Kind::Upgrade], ..Selector::default() };
        let (objects, _) = self.store.list(&selector).await.map_err(|error| error.fault())?;
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (digest, user) in objects.iter().filter_map(binary_of) {
            users.entry(digest).or_default().insert(user);
        }
        Ok(users)
    }
}

/// Digest of the binary that an object runs or is about to run, and who it is.
fn binary_of(object: &Object) -> Option<(String, String)> {
    let named = |meta: &Meta, name: &str| match meta.namespace.as_str() {
        crate::model::DEFAULT_NAMESPACE => name.to_owned(),
        namespace => format!("{name} -n {namespace}"),
    };
    let (digest, user) = match object {
        Object::Devnet(devnet) => (devnet.status.binary.as_ref()?.sha256.clone(), named(&devnet.metadata, &devnet.metadata.name)),
        Object::Node(node) => (node.spec.binary_hash.clone(), named(&node.metadata, &node.spec.devnet_ref)),
        Object::Upgrade(upgrade) if upgrade.is_open() => {
            (upgrade.status.binary.as_ref()?.sha256.clone(), format!("upgrade {}", named(&upgrade.metadata, &upgrade.metadata.name)))
        }
        _ => return None,
    };
    (!digest.is_empty()).then_some((digest, user))
}

fn state(error: &BinaryError) -> BinaryState {
    match error {
        BinaryError::Altered { .. } | BinaryError::Stray { .. } => BinaryState::Altered,
        _ => BinaryState::Incomplete,
    }
}

/// How a damaged binary is made whole: from its file, which disturbs nobody; by those who use it; or by taking it out.
async fn mend(Listed { binary, used_by }: &Listed) -> String {
    let file = binary.source.strip_prefix("path ");
    if let Some(file) = file
        && binaries::still_has(Path::new(file), &binary.sha256).await
    {
        return format!("dvbctl binaries add --path {file} puts the same binary back");
    }
    match used_by.iter().find(|user| !user.starts_with("upgrade ")) {
        None if let Some(upgrade) = used_by.first().and_then(|user| user.strip_prefix("upgrade ")) => {
            format!("dvbctl upgrade cancel {upgrade}, evict it with dvbctl binaries evict {}, and create the upgrade again", short(&binary.sha256))
        }
        None => format!("dvbctl binaries evict {}; it is taken anew from its source when it is asked for", short(&binary.sha256)),
        Some(devnet) => match file {
            Some(file) => format!("put the binary that devnet {devnet} is to run at {file}, then: dvbctl restart {devnet} --refresh-binary"),
            None => format!("dvbctl restart {devnet} --refresh-binary takes it anew from its source"),
        },
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A binary on its way into the cache: lines of progress, then the result, which is always last.
struct Adding {
    work: BoxFuture<'static, Result<BinaryStep, Fault>>,
    hear: mpsc::Receiver<String>,
    done: Option<Result<BinaryStep, Fault>>,
}

impl Adding {
    async fn next(adding: Option<Self>) -> Option<(Result<BinaryStep, Fault>, Option<Self>)> {
        let mut adding = adding?;
        if adding.done.is_none() {
            tokio::select! {
                biased;
                Some(message) = adding.hear.recv() => return Some((Ok(BinaryStep { message, ..BinaryStep::default() }), Some(adding))),
                done = &mut adding.work => adding.done = Some(done),
            }
        }
        match adding.hear.try_recv() {
            Ok(message) => Some((Ok(BinaryStep { message, ..BinaryStep::default() }), Some(adding))),
            Err(_) => adding.done.take().map(|done| (done, None)),
        }
    }
}

pub(super) fn evicted(list: Vec<CachedBinary>) -> v1::ListBinariesResponse {
    v1::ListBinariesResponse { items: list.into_iter().map(|binary| info(binary, BTreeSet::new())).collect() }
}

pub(super) fn listed(list: Vec<Listed>) -> v1::ListBinariesResponse {
    v1::ListBinariesResponse { items: list.into_iter().map(|listed| info(listed.binary, listed.used_by)).collect() }
}

pub(super) fn verdict(Verdict { listed, fault }: Verdict) -> v1::BinaryVerdict {
    let state = match &fault {
        None => "whole",
        Some((BinaryState::Altered, _)) => "altered",
        Some((BinaryState::Incomplete, _)) => "incomplete",
    };
    let (message, remedy) = fault.map(|(_, fault)| (Some(fault.message), fault.remedy)).unwrap_or_default();
    v1::BinaryVerdict { binary: Some(info(listed.binary, listed.used_by)), state: state.into(), message, remedy }
}

pub(super) fn progress(step: BinaryStep) -> v1::BinaryProgress {
    let log_path = step.log_path.map(|path| path.to_string_lossy().into_owned());
    v1::BinaryProgress { message: step.message, done: step.done.map(|binary| info(binary, BTreeSet::new())), log_path }
}

fn info(cached: CachedBinary, used_by: BTreeSet<String>) -> v1::BinaryInfo {
    v1::BinaryInfo {
        digest: cached.sha256,
        source: cached.source,
        path: cached.path.to_string_lossy().into_owned(),
        size: cached.size,
        added_at: cached.added_at.to_string(),
        used_at: cached.used_at.to_string(),
        used_by: used_by.into_iter().collect(),
    }
}
