//! Checks about nodes: launch and stop plans, a node that is not there, and exits.

use super::{
    Checked, Finding, ensure, fail,
    session::{CALL_LIMIT, Session, answer, refusal},
};
use crate::pb;
use futures::StreamExt;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tonic::Code;

const CLASSIFY_LIMIT: Duration = Duration::from_millis(300);
const CLASSES: [&str; 13] = [
    "oom",
    "port-busy",
    "db-locked",
    "app-hash",
    "consensus-failure",
    "upgrade-needed",
    "bad-flag",
    "no-program",
    "genesis-mismatch",
    "key-refused",
    "panic",
    "killed-by-user",
    "unknown",
];

/// The same request gives the same plan, and one that can be carried out.
pub(super) async fn start(session: &mut Session) -> Checked {
    some_nodes(session)?;
    let shared = session.root.path().join("home/shared");
    for node in session.nodes.clone() {
        let request = pb::StartNodeRequest {
            devnet: Some(session.devnet.clone()),
            nodes: session.nodes.clone(),
            node: node.name.clone(),
            shared_dir: shared.to_string_lossy().into_owned(),
        };
        let first = answer("StartNode", CALL_LIMIT, session.client.start_node(request.clone())).await?;
        let second = answer("StartNode", CALL_LIMIT, session.client.start_node(request)).await?;
        ensure(first == second, || format!("{}: StartNode is not idempotent: {first:?} and {second:?}", node.name))?;
        launchable(&node, &first, &shared)?;
    }
    let request =
        pb::StartNodeRequest { devnet: Some(session.devnet.clone()), nodes: session.nodes.clone(), node: "nobody-7".into(), ..Default::default() };
    refusal(
        "StartNode of no node of the devnet",
        &[Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound],
        session.client.start_node(request),
    )
    .await
}

fn launchable(node: &pb::PlacedNode, plan: &pb::LaunchPlan, shared: &Path) -> Checked {
    let name = &node.name;
    let program = plan.argv.first().map_or("", String::as_str);
    ensure(Path::new(program).is_absolute(), || format!("{name}: argv[0] `{program}` is no absolute path"))?;
    ensure(Path::new(program).exists(), || format!("{name}: argv[0] {program} does not exist"))?;
    ensure(plan.cwd.is_empty() || Path::new(&plan.cwd).is_absolute(), || format!("{name}: cwd {} is not absolute", plan.cwd))?;
    for file in &plan.files {
        ensure(Path::new(&file.path).is_absolute(), || format!("{name}: the file {} has no absolute path", file.path))?;
        let is_there = file.shared.is_empty() || shared.join(&file.shared).is_file();
        ensure(is_there, || format!("{name}: the file {} is to be `{}`, which is not in shared/", file.path, file.shared))?;
    }
    for job in &plan.jobs {
        let program = job.argv.first().map_or("", String::as_str);
        ensure(Path::new(program).is_absolute(), || format!("{name}: job {}: argv[0] `{program}` is no absolute path", job.name))?;
    }
    let used: Vec<_> = plan.argv.iter().chain(plan.env.values()).collect();
    for secret in &plan.secrets {
        let marker = format!("{{secret:{}}}", secret.name);
        ensure(used.iter().any(|text| text.contains(&marker)), || format!("{name}: nothing uses {marker}"))?;
    }
    let port = match plan.readiness.as_ref().and_then(|readiness| readiness.kind.as_ref()) {
        Some(pb::readiness::Kind::TcpPort(port)) => Some(port),
        Some(pb::readiness::Kind::Http(http)) => Some(&http.port),
        _ => None,
    };
    ensure(port.is_none_or(|port| node.ports.contains_key(port)), || format!("{name}: readiness asks port {port:?}, which it does not have"))?;
    ensure(plan.stop_signal.is_empty() || plan.stop_signal.starts_with("SIG"), || format!("{name}: stop signal `{}`", plan.stop_signal))
}

pub(super) async fn stop(session: &mut Session) -> Checked {
    let node = some_nodes(session)?;
    let request = pb::StopNodeRequest { devnet: Some(session.devnet.clone()), node: Some(node) };
    let plan = answer("StopNode", CALL_LIMIT, session.client.stop_node(request)).await?;
    ensure(plan.signal.is_empty() || plan.signal.starts_with("SIG"), || format!("stop signal `{}`", plan.signal))
}

/// Nobody listens where the node should be: UNAVAILABLE, so that the host knows it for a passing state.
pub(super) async fn absent(session: &mut Session) -> Checked {
    let node = some_nodes(session)?;
    let unavailable = [Code::Unavailable];
    if session.info.capabilities.iter().any(|capability| capability == "gov") {
        let request = pb::ListProposalsRequest { devnet: Some(session.devnet.clone()), node: Some(node.clone()), ids: Vec::new() };
        refusal("ListProposals of a node that is down", &unavailable, session.client.list_proposals(request)).await?;
    }
    let request = pb::NodeRef { devnet: Some(session.devnet.clone()), node: Some(node) };
    refusal("GetNodeStatus of a node that is down", &unavailable, session.client.get_node_status(request.clone())).await?;
    refusal("GetBlockHeight of a node that is down", &unavailable, session.client.get_block_height(request.clone())).await?;
    let mut client = session.client.clone();
    let first = async move {
        let mut heights = client.stream_block_heights(request).await?.into_inner();
        heights.next().await.transpose()
    };
    refusal("StreamBlockHeights of a node that is down", &unavailable, first).await
}

/// Binary rubbish, long lines and no node at all are answered, and fast: the host waits 300 ms.
pub(super) async fn classify(session: &mut Session) -> Checked {
    let rubbish: Vec<Vec<u8>> = (0..200_u32).map(|i| (0..4_000_u32).map(|j| (i * 7 + j * j * 31) as u8).collect()).collect();
    let devnet = Some(session.devnet.clone());
    let requests = [
        pb::ClassifyExitRequest { devnet: devnet.clone(), exit_code: Some(1), log_tail: rubbish, ..Default::default() },
        pb::ClassifyExitRequest {
            devnet: devnet.clone(),
            signal: Some(9),
            oom_killed: true,
            node: session.nodes.first().cloned(),
            ..Default::default()
        },
        pb::ClassifyExitRequest { devnet, log_tail: vec![Vec::new(), b"\x1b[31m\xff\xfe\0".to_vec()], ..Default::default() },
    ];
    for request in requests {
        let begun = Instant::now();
        let class = answer("ClassifyExit", CALL_LIMIT, session.client.classify_exit(request)).await?;
        let took = begun.elapsed();
        ensure(took <= CLASSIFY_LIMIT, || format!("ClassifyExit took {took:?}; the host waits {CLASSIFY_LIMIT:?}"))?;
        ensure(CLASSES.contains(&class.class.as_str()), || format!("ClassifyExit says `{}`, which is no class", class.class))?;
    }
    Ok(())
}

/// The first node; the check is skipped where there are none.
fn some_nodes(session: &Session) -> Checked<pb::PlacedNode> {
    match (session.nodes.first(), session.planned.first()) {
        (Some(node), _) => Ok(node.clone()),
        (None, None) if session.devnet.validators + session.devnet.full_nodes == 0 => Err(Finding::Skip("it plans no nodes".into())),
        _ => fail("there is no plan to go by"),
    }
}
