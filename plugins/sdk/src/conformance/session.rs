//! The order of the suite, and what its checks share.

use super::{Checked, Finding, Profile, Report, ensure, fail, genesis, jobs, launch, process::Process, statics, transactions};
use crate::{
    pb::{self, plugin_client::PluginClient},
    serve::MAX_MESSAGE,
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};

/// How long a plugin may take to go after its stdin has ended.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// Any call but GenerateGenesis.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);
pub(super) const GENESIS_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Session {
    pub(super) client: PluginClient<Channel>,
    pub(super) channel: Channel,
    pub(super) exe: PathBuf,
    pub(super) info: pb::PluginInfo,
    pub(super) devnet: pb::DevnetContext,
    pub(super) planned: Vec<pb::PlannedNode>,
    /// Where the nodes lie, once a plan is there.
    pub(super) nodes: Vec<pb::PlacedNode>,
    pub(super) job_env: Vec<(String, String)>,
    /// Holds `cwd` (the plugin's, stays empty), `a` and `b` (staging), `home` (of the devnet), `jobs`.
    pub(super) root: TempDir,
    /// Why everything about a binary is skipped.
    pub(super) no_binary: Option<String>,
}

/// An answer, or the finding that there was none in time or an error.
pub(super) async fn answer<T>(call: &str, limit: Duration, work: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Checked<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => fail(format!("{call}: {:?}: {}", status.code(), status.message())),
        Err(_) => fail(format!("{call}: no answer within {limit:?}")),
    }
}

/// A refusal with one of these codes.
pub(super) async fn refusal<T: Debug>(call: &str, codes: &[Code], work: impl Future<Output = Result<T, Status>>) -> Checked {
    match tokio::time::timeout(CALL_LIMIT, work).await {
        Ok(Err(status)) if codes.contains(&status.code()) => {
            ensure(!status.message().is_empty(), || format!("{call}: {:?} without a message", status.code()))
        }
        Ok(Err(status)) => fail(format!("{call}: wanted {codes:?}, got {:?}: {}", status.code(), status.message())),
        Ok(Ok(answer)) => fail(format!("{call}: wanted {codes:?}, got an answer: {answer:?}")),
        Err(_) => fail(format!("{call}: no answer within {CALL_LIMIT:?}")),
    }
}

pub(super) async fn run(exe: &Path, profile: Profile) -> Report {
    let mut report = Report::default();
    let (process, mut session) = match start(exe, profile).await {
        Ok(started) => started,
        Err(finding) => {
            report.add("start", Err(finding));
            return report;
        }
    };
    report.add("handshake", statics::handshake(&mut session).await);
    report.add("info", statics::info(&mut session).await);
    if session.info.name.is_empty() {
        report.add("clean-stdout", process.pollution().map_or(Ok(()), fail));
        report.stderr = process.stderr();
        process.end(EXIT_LIMIT).await;
        return report;
    }
    report.add("unimplemented", statics::unimplemented(&mut session).await);
    report.add("initialize", initialize(&mut session).await);
    report.add("validate", statics::validate(&mut session).await);
    report.add("plan", statics::plan(&mut session).await);
    report.add("transactions", transactions::transactions(&mut session).await);
    let placed = place(&mut session);
    report.add("genesis", with(&placed, genesis::check(&mut session)).await);
    report.add("launch", with(&placed, launch::start(&mut session)).await);
    report.add("stop", with(&placed, launch::stop(&mut session)).await);
    report.add("absent-node", with(&placed, launch::absent(&mut session)).await);
    report.add("classify", launch::classify(&mut session).await);
    report.add("no-children", no_children(&process));
    report.add("no-stray-files", no_stray_files(&session));
    report.add("close", answer("Close", CALL_LIMIT, session.client.close(pb::CloseRequest {})).await.map(drop));
    report.add("clean-stdout", process.pollution().map_or(Ok(()), fail));
    report.stderr = process.stderr();
    report.add("ends-with-stdin", ends(process).await);
    report
}

async fn start(exe: &Path, profile: Profile) -> Checked<(Process, Session)> {
    let root = TempDir::with_prefix("dvb-conformance-").map_err(|error| Finding::Fail(error.to_string()))?;
    let exe = std::fs::canonicalize(exe).map_err(|error| Finding::Fail(format!("{}: {error}", exe.display())))?;
    let cwd = root.path().join("cwd");
    std::fs::create_dir(&cwd).map_err(|error| Finding::Fail(error.to_string()))?;
    let (process, channel) = Process::start(&exe, &cwd, &profile.plugin_env).await?;
    let session = Session {
        client: PluginClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE),
        channel,
        exe,
        info: pb::PluginInfo::default(),
        devnet: profile.devnet,
        planned: Vec::new(),
        nodes: Vec::new(),
        job_env: profile.job_env,
        root,
        no_binary: None,
    };
    Ok((process, session))
}

/// Two equal runs give equal answers; the state is kept for the calls that follow.
async fn initialize(session: &mut Session) -> Checked {
    if let Some(why) = &session.no_binary {
        return Err(Finding::Skip(why.clone()));
    }
    let mut answers = Vec::new();
    for run in ["i1", "i2"] {
        let work_dir = session.root.path().join(run);
        std::fs::create_dir_all(&work_dir).map_err(|error| Finding::Fail(error.to_string()))?;
        let mut request = pb::InitializeRequest {
            devnet: Some(session.devnet.clone()),
            work_dir: work_dir.to_string_lossy().into_owned(),
            ..pb::InitializeRequest::default()
        };
        let done = loop {
            let reply = answer("Initialize", CALL_LIMIT, session.client.initialize(request.clone())).await?;
            if reply.jobs.is_empty() {
                break reply;
            }
            ensure(request.job_results.is_empty(), || "Initialize asks for jobs a second time".into())?;
            request.job_results = jobs::run_all(&reply.jobs, &session.job_env, &session.root.path().join("jobs")).await?;
        };
        answers.push(done);
    }
    ensure(answers[0] == answers[1], || format!("Initialize is not deterministic: {answers:?}"))?;
    session.devnet.initialized = answers.swap_remove(0).state;
    Ok(())
}

/// Gives each planned node free ports on 127.0.0.1, which nobody serves, and a home. Why not, where there is nothing to place.
fn place(session: &mut Session) -> Checked {
    if let Some(why) = &session.no_binary {
        return Err(Finding::Skip(why.clone()));
    }
    // All are held until all are found, so that no two are equal.
    let mut held = Vec::new();
    for node in &session.planned {
        let mut ports = BTreeMap::new();
        for port in &node.ports {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
            let (number, listener) = free.map_err(|error| Finding::Fail(error.to_string()))?;
            held.push(listener);
            ports.insert(port.name.clone(), number.into());
        }
        let home = session.root.path().join("home/nodes").join(&node.name);
        session.nodes.push(pb::PlacedNode {
            name: node.name.clone(),
            role: node.role.clone(),
            index: node.index,
            address: "127.0.0.1".into(),
            ports,
            home_dir: home.to_string_lossy().into_owned(),
        });
    }
    Ok(())
}

/// A check that needs what `before` could not make.
async fn with(before: &Checked, check: impl Future<Output = Checked>) -> Checked {
    match before {
        Ok(()) => check.await,
        Err(Finding::Skip(why)) => Err(Finding::Skip(why.clone())),
        Err(Finding::Fail(why)) => fail(why.clone()),
    }
}

fn no_children(process: &Process) -> Checked {
    let children = process.children();
    ensure(children.is_empty(), || format!("a plugin owns no process; this one has {children}"))
}

fn no_stray_files(session: &Session) -> Checked {
    let stray: Vec<_> = genesis::tree(&session.root.path().join("cwd"))?.into_keys().collect();
    ensure(stray.is_empty(), || format!("files in its working directory, HOME or TMPDIR: {stray:?}"))
}

async fn ends(process: Process) -> Checked {
    match process.end(EXIT_LIMIT).await {
        Some(status) if status.success() => Ok(()),
        Some(status) => fail(format!("after the end of its stdin it ended with {status}; wanted exit code 0")),
        None => fail(format!("still there {EXIT_LIMIT:?} after the end of its stdin")),
    }
}
