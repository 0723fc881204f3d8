//! DaemonService: who the daemon is, how it does, its binary cache, and how it ends.

use super::{
    Context,
    auth::check_home,
    binaries, convert,
    devnets::reply,
    orphans, status,
    watch::{shutting_down, until_shutdown},
};
use crate::{
    model::{BinarySource, Fault, Kind, NodePhase, Object, Span, Timestamp},
    store::Selector,
    sys::OpenFiles,
};
use async_trait::async_trait;
use dvb_proto::devnet::v1::{self, daemon_service_server::DaemonService};
use futures::{StreamExt, stream::BoxStream};
use std::path::PathBuf;
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
    pub cgroup_limits: bool,
    pub cgroup_remedy: String,
}

/// What Shutdown and Reload may ask of the rest of the daemon.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Sees to it that the shutdown that follows ends in the program being executed anew; names it. A program that cannot be run is a
    /// fault, and nothing has happened.
    async fn prepare_reload(&self) -> Result<String, Fault>;
    /// Called once. Ends the controllers, then all nodes, and tells how it goes. Desired states stay as they are: the next daemon starts the nodes
    /// again. One node that does not stop is told as a step; a fault means that it could not even begin, and is the last item.
    fn stop_nodes(&self) -> BoxStream<'static, Result<String, Fault>>;
}

pub(super) struct Daemon(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DaemonService for Daemon {
    async fn handshake(&self, request: Request<v1::HandshakeRequest>) -> Reply<v1::DaemonStatus> {
        let meant = request.into_inner().home;
        if !meant.is_empty() {
            check_home(&self.0.home.root().to_string_lossy(), &meant).map_err(|fault| status::status(&fault))?;
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

    type ReloadStream = BoxStream<'static, Result<v1::ShutdownProgress, Status>>;
    async fn reload(&self, _: Request<v1::Empty>) -> Reply<Self::ReloadStream> {
        if self.0.shutdown.is_cancelled() {
            return Err(status::status(&shutting_down()));
        }
        let program = self.0.control.prepare_reload().await.map_err(|fault| status::status(&fault))?;
        let steps = futures::stream::once(async { Ok(String::from("nodes keep running")) }).boxed();
        Ok(Response::new(self.end_after(steps, format!("devnetd executes {program}"))))
    }

    async fn list_binaries(&self, _: Request<v1::Empty>) -> Reply<v1::ListBinariesResponse> {
        reply(self.0.binaries.list().await.map(binaries::listed))
    }

    type AddBinaryStream = BoxStream<'static, Result<v1::BinaryProgress, Status>>;
    async fn add_binary(&self, request: Request<v1::AddBinaryRequest>) -> Reply<Self::AddBinaryStream> {
        let source: Result<BinarySource, Fault> = convert::from_message(&request.into_inner().source.unwrap_or_default());
        reply(source.map(|source| {
            let steps = self.0.binaries.add(source).map(|step| step.map(binaries::progress).map_err(|fault| status::status(&fault)));
            until_shutdown(steps, self.0.shutdown.clone())
        }))
    }

    async fn evict_binaries(&self, request: Request<v1::EvictBinariesRequest>) -> Reply<v1::ListBinariesResponse> {
        let request = request.into_inner();
        let age = request.older_than.map(|text| text.parse::<Span>()).transpose();
        match age {
            Err(error) => reply(Err(Fault::invalid(vec![crate::model::Violation::new("olderThan", error.to_string())]))),
            Ok(age) => reply(self.0.binaries.evict(request.digests, age.map(|span| span.0)).await.map(binaries::evicted)),
        }
    }

    type VerifyBinariesStream = BoxStream<'static, Result<v1::BinaryVerdict, Status>>;
    async fn verify_binaries(&self, request: Request<v1::VerifyBinariesRequest>) -> Reply<Self::VerifyBinariesStream> {
        let verdicts = self.0.binaries.verify(request.into_inner().digests).await;
        reply(verdicts.map(|verdicts| {
            let verdicts = verdicts.map(|verdict| Ok(binaries::verdict(verdict)));
            until_shutdown(verdicts, self.0.shutdown.clone())
        }))
    }

    async fn list_orphans(&self, _: Request<v1::Empty>) -> Reply<v1::ListOrphansResponse> {
        reply(self.0.orphans.list().await.map(orphans::listed))
    }

    async fn reap_orphans(&self, request: Request<v1::ReapOrphansRequest>) -> Reply<v1::ReapOrphansResponse> {
        reply(self.0.orphans.reap(request.into_inner().ids).await.map(orphans::reaped))
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
            cgroup_limits: about.cgroup_limits,
            cgroup_remedy: about.cgroup_remedy.clone(),
            open_files: Some(open_files()),
            log_path: self.0.home.daemon_log().to_string_lossy().into_owned(),
            cpu_seconds,
            memory,
            instance_id: about.instance_id.clone(),
        })
    }

    fn shut_down(&self, with_nodes: bool) -> BoxStream<'static, Result<v1::ShutdownProgress, Status>> {
        let nodes =
            if with_nodes { self.0.control.stop_nodes() } else { futures::stream::once(async { Ok(String::from("nodes keep running")) }).boxed() };
        self.end_after(nodes, "devnetd ends".into())
    }

    fn end_after(
        &self,
        steps: BoxStream<'static, Result<String, Fault>>,
        last_word: String,
    ) -> BoxStream<'static, Result<v1::ShutdownProgress, Status>> {
        let shutdown = self.0.shutdown.clone();
        futures::stream::unfold(Ending::Steps(steps, last_word), move |ending| {
            let shutdown = shutdown.clone();
            async move { ending.next(&shutdown).await.map(|(step, ending)| (step.map_err(|fault| status::status(&fault)), ending)) }
        })
        .boxed()
    }
}

/// ```text
/// Steps ─ done, or a fault: the controllers have ended by then, so the daemon ends all the same ─► Fire ─► end
/// ```
enum Ending {
    /// And what is said after them.
    Steps(BoxStream<'static, Result<String, Fault>>, String),
    /// The last word is out; asked once more, the client has taken it and the shutdown may begin.
    Fire,
}

impl Ending {
    async fn next(self, shutdown: &CancellationToken) -> Option<(Result<v1::ShutdownProgress, Fault>, Self)> {
        match self {
            Self::Steps(mut steps, last_word) => match steps.next().await {
                Some(Ok(message)) => Some((Ok(v1::ShutdownProgress { message, done: false }), Self::Steps(steps, last_word))),
                Some(Err(fault)) => Some((Err(fault), Self::Fire)),
                None => Some((Ok(v1::ShutdownProgress { message: last_word, done: true }), Self::Fire)),
            },
            Self::Fire => {
                shutdown.cancel();
                None
            }
        }
    }
}

fn open_files() -> v1::OpenFiles {
    let OpenFiles { soft, hard, children } = OpenFiles::now();
    let open = procfs::process::Process::myself().and_then(|process| process.fd_count()).unwrap_or_default();
    v1::OpenFiles { soft, hard, children, used: u64::try_from(open).unwrap_or(u64::MAX) }
}

/// CPU seconds (user and system) and resident bytes of this process.
fn own_usage() -> Option<(f64, u64)> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
    let ticks = stat.utime + stat.stime;
    Some((ticks as f64 / procfs::ticks_per_second() as f64, stat.rss * procfs::page_size()))
}
