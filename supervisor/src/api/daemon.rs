//! DaemonService: who the daemon is, how it does, its binary cache, and how it ends.

use super::{
    Context, convert,
    devnets::reply,
    status,
    watch::{shutting_down, until_shutdown},
};
use crate::{
    model::{BinarySource, Fault, FaultCode, Kind, NodePhase, Object, Span, Timestamp},
    store::Selector,
};
use async_trait::async_trait;
use dvb_proto::devnet::v1::{self, daemon_service_server::DaemonService};
use futures::{StreamExt, stream::BoxStream};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What the daemon knows of itself from its start on.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub version: String,
    pub socket: PathBuf,
    pub started_at: Timestamp,
    pub boot_id: String,
    /// Drawn when the store was made; tells one store from another at the same path.
    pub instance_id: String,
    /// systemd | cgroupfs | none, and why.
    pub cgroup_driver: String,
    pub cgroup_message: String,
}

/// One executable in the cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CachedBinary {
    /// SHA-256, hex.
    pub digest: String,
    /// In words: `goModule github.com/CosmWasm/wasmd@v0.54.0`.
    pub source: String,
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub added_at: Timestamp,
    pub used_at: Timestamp,
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
    async fn list(&self) -> Result<Vec<CachedBinary>, Fault>;
    /// Ends after the step with `done`, or with a fault. Dropping the stream does not end a build that others wait for.
    fn add(&self, source: BinarySource) -> BoxStream<'static, Result<BinaryStep, Fault>>;
    /// Removes those that no devnet uses: the named ones, or all not used for `older_than`. Returns what was removed.
    async fn evict(&self, digests: Vec<String>, older_than: Option<Duration>) -> Result<Vec<CachedBinary>, Fault>;
}

/// What Shutdown may ask of the rest of the daemon. Called once, by the RPC.
pub trait Control: Send + Sync + 'static {
    /// Ends all nodes (their desired state stays as it is: the next daemon starts them again) and tells how it goes.
    fn stop_nodes(&self) -> BoxStream<'static, Result<String, Fault>>;
}

pub(super) struct Daemon(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DaemonService for Daemon {
    async fn handshake(&self, request: Request<v1::HandshakeRequest>) -> Reply<v1::DaemonStatus> {
        let meant = request.into_inner().home;
        let served = self.0.home.root().to_string_lossy();
        if !meant.is_empty() && meant != served {
            let message = format!("this devnetd serves the home {served}, not {meant}");
            let remedy = format!("dvbctl --home {served} speaks to this one; dvbctl --home {meant} daemon start starts the other");
            return Err(status::status(&Fault::new(FaultCode::HomeMismatch, message).remedy(remedy)));
        }
        reply(self.status_now().await)
    }

    async fn status(&self, _: Request<v1::Empty>) -> Reply<v1::DaemonStatus> {
        reply(self.status_now().await)
    }

    type ShutdownStream = BoxStream<'static, Result<v1::ShutdownProgress, Status>>;
    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Reply<Self::ShutdownStream> {
        if self.0.shutdown.is_cancelled() {
            return Err(status::status(&shutting_down()));
        }
        Ok(Response::new(self.shut_down(request.into_inner().with_nodes)))
    }

    async fn list_binaries(&self, _: Request<v1::Empty>) -> Reply<v1::ListBinariesResponse> {
        reply(self.0.binaries.list().await.map(binaries))
    }

    type AddBinaryStream = BoxStream<'static, Result<v1::BinaryProgress, Status>>;
    async fn add_binary(&self, request: Request<v1::AddBinaryRequest>) -> Reply<Self::AddBinaryStream> {
        let source: Result<BinarySource, Fault> = convert::from_message(&request.into_inner().source.unwrap_or_default());
        reply(source.map(|source| {
            let steps = self.0.binaries.add(source).map(|step| step.map(progress).map_err(|fault| status::status(&fault)));
            until_shutdown(steps, self.0.shutdown.clone())
        }))
    }

    async fn evict_binaries(&self, request: Request<v1::EvictBinariesRequest>) -> Reply<v1::ListBinariesResponse> {
        let request = request.into_inner();
        let age = request.older_than.map(|text| text.parse::<Span>()).transpose();
        match age {
            Err(error) => reply(Err(Fault::invalid(vec![crate::model::Violation::new("olderThan", error.to_string())]))),
            Ok(age) => reply(self.0.binaries.evict(request.digests, age.map(|span| span.0)).await.map(binaries)),
        }
    }
}

impl Daemon {
    async fn status_now(&self) -> Result<v1::DaemonStatus, Fault> {
        let list = |kind| async move { self.0.store.list(&Selector::kind(kind)).await.map_err(|error| error.fault()) };
        let (devnets, _) = list(Kind::Devnet).await?;
        let (nodes, resource_version) = list(Kind::Node).await?;
        let running = nodes.iter().filter(|object| matches!(object, Object::Node(node) if node.status.phase == NodePhase::Running)).count();
        let about = &self.0.about;
        let (cpu_seconds, memory) = own_usage().unwrap_or_default();
        Ok(v1::DaemonStatus {
            version: about.version.clone(),
            home: self.0.home.root().to_string_lossy().into_owned(),
            socket: about.socket.to_string_lossy().into_owned(),
            pid: std::process::id(),
            started_at: about.started_at.to_string(),
            boot_id: about.boot_id.clone(),
            devnets: u32::try_from(devnets.len()).unwrap_or(u32::MAX),
            nodes_running: u32::try_from(running).unwrap_or(u32::MAX),
            resource_version,
            cgroup_driver: about.cgroup_driver.clone(),
            cgroup_message: about.cgroup_message.clone(),
            log_path: self.0.home.daemon_log().to_string_lossy().into_owned(),
            cpu_seconds,
            memory,
            instance_id: about.instance_id.clone(),
        })
    }

    fn shut_down(&self, with_nodes: bool) -> BoxStream<'static, Result<v1::ShutdownProgress, Status>> {
        let nodes =
            if with_nodes { self.0.control.stop_nodes() } else { futures::stream::once(async { Ok(String::from("nodes keep running")) }).boxed() };
        let shutdown = self.0.shutdown.clone();
        futures::stream::unfold(Ending::Nodes(nodes), move |ending| {
            let shutdown = shutdown.clone();
            async move { ending.next(&shutdown).await.map(|(step, ending)| (step.map_err(|fault| status::status(&fault)), ending)) }
        })
        .boxed()
    }
}

/// ```text
/// Nodes ─ done ─► Fire ─► end      Nodes ─ a fault ─► Over: the daemon stays, and so does the supervision of what did not stop
/// ```
enum Ending {
    Nodes(BoxStream<'static, Result<String, Fault>>),
    /// `done` is out; asked once more, the client has taken it and the shutdown may begin.
    Fire,
    Over,
}

impl Ending {
    async fn next(self, shutdown: &CancellationToken) -> Option<(Result<v1::ShutdownProgress, Fault>, Self)> {
        match self {
            Self::Nodes(mut nodes) => match nodes.next().await {
                Some(Ok(message)) => Some((Ok(v1::ShutdownProgress { message, done: false }), Self::Nodes(nodes))),
                Some(Err(fault)) => Some((Err(fault), Self::Over)),
                None => Some((Ok(v1::ShutdownProgress { message: "devnetd ends".into(), done: true }), Self::Fire)),
            },
            Self::Fire => {
                shutdown.cancel();
                None
            }
            Self::Over => None,
        }
    }
}

fn binaries(list: Vec<CachedBinary>) -> v1::ListBinariesResponse {
    v1::ListBinariesResponse { items: list.into_iter().map(binary).collect() }
}

fn binary(cached: CachedBinary) -> v1::BinaryInfo {
    v1::BinaryInfo {
        digest: cached.digest,
        source: cached.source,
        path: cached.path.to_string_lossy().into_owned(),
        size: cached.size,
        added_at: cached.added_at.to_string(),
        used_at: cached.used_at.to_string(),
    }
}

fn progress(step: BinaryStep) -> v1::BinaryProgress {
    let log_path = step.log_path.map(|path| path.to_string_lossy().into_owned());
    v1::BinaryProgress { message: step.message, done: step.done.map(binary), log_path }
}

/// CPU seconds (user and system) and resident bytes of this process.
fn own_usage() -> Option<(f64, u64)> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
    let ticks = stat.utime + stat.stime;
    Some((ticks as f64 / procfs::ticks_per_second() as f64, stat.rss * procfs::page_size()))
}
