//! Exports on fakes: a node's data is cloned, a job answers, a file stays.

use super::super::testing::{NET, NS, Rig, node_key};
use crate::{
    model::{ConditionStatus, DevnetPhase, Exit, Export, ExportPhase, Key, NodePhase, Object, Timestamp},
    runtime::{Capabilities, JobResult, JobSpec, Runtime, RuntimeError},
    store::{Write, ailing::Ailing, fixtures},
};
use nix::sys::signal::Signal;
use std::{fs, sync::Arc};

fn key() -> Key {
    Key::export(NS, &format!("{NET}/before"))
}

async fn request(rig: &Rig, edit: impl FnOnce(&mut Export)) {
    let mut export = fixtures::export(NS, NET, "before");
    edit(&mut export);
    rig.store.commit(vec![Write::create(export)]).await.unwrap();
}

async fn ended(rig: &Rig) -> Arc<Export> {
    rig.until::<Export>(&key(), "the export ends", |export| export.status.phase.is_final()).await
}

/// A running devnet whose nodes have data.
async fn rig() -> Rig {
    let rig = Rig::running(|_| {}).await;
    for short in ["validator-0", "validator-1"] {
        let data = rig.home.node_home(NS, NET, short).join("data");
        fs::create_dir_all(data.join("blocks")).unwrap();
        fs::write(data.join("state"), short).unwrap();
        fs::write(data.join("blocks/1"), "large").unwrap();
    }
    rig
}

/// The chain's program: copies what it finds in the clone.
fn export_state(job: &JobSpec) -> Result<JobResult, RuntimeError> {
    let output = std::path::Path::new(&job.argv[1]);
    let home = output.parent().unwrap().parent().unwrap().join("clone");
    assert!(!home.join("data/blocks").exists(), "what the plugin skips is not cloned");
    fs::copy(home.join("data/state"), output).unwrap();
    Ok(result(job, Exit { code: Some(0), ..Exit::default() }, ""))
}

fn result(job: &JobSpec, exit: Exit, stderr: &str) -> JobResult {
    let path = job.out_dir.join("export.err");
    fs::write(&path, stderr).unwrap();
    JobResult { name: job.name.clone(), exit, stdout: job.out_dir.join("export.out"), stderr: path }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_validator_stands_still_for_its_clone_and_the_file_alone_stays() {
    let rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    request(&rig, |export| export.spec.memory = Some("1Gi".parse().unwrap())).await;
    let done = ended(&rig).await;
    assert_eq!(done.status.phase, ExportPhase::Completed, "{:?}", done.status.message);
    let node = rig.node("validator-1").await.unwrap();
    let launch = node.status.launch_id.clone().unwrap();
    assert_eq!(rig.runtime.signals(), [(launch.clone(), Signal::SIGSTOP), (launch, Signal::SIGCONT)]);
    let path = done.status.path.clone().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "validator-1");
    assert_eq!((done.status.bytes, done.status.height, done.status.node.as_deref()), (11, Some(1), Some("validator-1")));
    assert_eq!(fs::read_dir(rig.home.export(NS, NET, "before")).unwrap().count(), 1, "clone and work are gone");
    assert_eq!(rig.runtime.jobs().last().unwrap().limits.memory_bytes, Some(1 << 30));
    assert_eq!(rig.devnet().await.unwrap().status.phase, DevnetPhase::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_memory_cannot_be_limited_says_so_once_and_one_whose_can_says_nothing() {
    let rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    request(&rig, |_| {}).await;
    let done = ended(&rig).await;
    assert_eq!(done.status.phase, ExportPhase::Completed, "{:?}", done.status.message);
    let limits = done.status.conditions.get("LimitsEnforced").expect("a fake runtime has no controllers");
    assert_eq!((limits.status, limits.message.as_str()), (ConditionStatus::False, "no process is behind this"));
    let told = |events: Vec<crate::model::Event>| events.into_iter().filter(|event| event.reason == "LimitsNotEnforced").count();
    assert_eq!(told(rig.events().await), 1);
    rig.runtime.set_capabilities(Capabilities { limits: true, ..rig.runtime.capabilities() });
    let held = Key::export(NS, &format!("{NET}/held"));
    request(&rig, |export| export.metadata.name.clone_from(&held.name)).await;
    let done = rig.until::<Export>(&held, "the export ends", |export| export.status.phase.is_final()).await;
    assert!(done.status.conditions.get("LimitsEnforced").is_none());
    assert_eq!(told(rig.events().await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_died_while_a_node_stood_still_is_made_up_for() {
    let mut rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    rig.stop_daemon().await;
    request(&rig, |export| {
        export.status.phase = ExportPhase::Cloning;
        export.status.node = Some("validator-0".into());
    })
    .await;
    let rest = rig.home.export(NS, NET, "before").join("clone.partial");
    fs::create_dir_all(&rest).unwrap();
    rig.start_daemon();
    let done = ended(&rig).await;
    assert_eq!(done.status.phase, ExportPhase::Completed, "{:?}", done.status.message);
    let first = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    assert_eq!(rig.runtime.signals()[0], (first, Signal::SIGCONT));
    assert!(!rest.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_is_not_undone_by_an_export_that_had_its_node_already() {
    let rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    rig.plugin.hold("export");
    request(&rig, |export| export.spec.node = Some("validator-1".into())).await;
    rig.plugin.until_called("export validator-1").await;
    rig.change_node("validator-1", |node| node.spec.frozen = true).await;
    rig.node_until("validator-1", "is frozen", |node| node.is_frozen()).await;
    rig.plugin.release("export");
    assert_eq!(ended(&rig).await.status.phase, ExportPhase::Completed);
    let launch = rig.node("validator-1").await.unwrap().status.launch_id.clone().unwrap();
    assert_eq!(rig.runtime.signals(), [(launch.clone(), Signal::SIGSTOP), (launch.clone(), Signal::SIGCONT)]);
    assert!(rig.runtime.is_frozen(&rig.runtime.handle(&launch).unwrap()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_lets_no_frozen_node_go_on() {
    let mut rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    rig.change_node("validator-0", |node| node.spec.frozen = true).await;
    rig.node_until("validator-0", "is frozen", |node| node.is_frozen()).await;
    rig.stop_daemon().await;
    request(&rig, |export| {
        export.status.phase = ExportPhase::Cloning;
        export.status.node = Some("validator-0".into());
    })
    .await;
    rig.start_daemon();
    assert_eq!(ended(&rig).await.status.node.as_deref(), Some("validator-1"));
    let frozen = rig.node("validator-0").await.unwrap().status.launch_id.clone().unwrap();
    assert!(rig.runtime.signals().iter().all(|(launch, _)| *launch != frozen), "{:?}", rig.runtime.signals());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_says_what_it_was_and_leaves_the_devnet_alone() {
    let full = |job: &JobSpec| Ok(result(job, Exit { code: Some(1), ..Exit::default() }, "write: no space left on device\n"));
    let memory = |job: &JobSpec| Ok(result(job, Exit { signal: Some(9), oom_killed: true, ..Exit::default() }, ""));
    let killed = |job: &JobSpec| Ok(result(job, Exit { signal: Some(11), ..Exit::default() }, "out of luck\n"));
    type Answer = fn(&JobSpec) -> Result<JobResult, RuntimeError>;
    for (answer, reason, words) in [
        (full as Answer, "DiskFull", "is full"),
        (memory, "JobFailed", "needed more memory than 4Gi"),
        (killed, "JobFailed", "was killed: out of luck"),
    ] {
        let rig = rig().await;
        rig.runtime.answer_jobs(answer);
        request(&rig, |_| {}).await;
        let done = ended(&rig).await;
        assert_eq!(done.status.phase, ExportPhase::Failed);
        let condition = done.status.conditions.get("Completed").unwrap();
        assert_eq!(condition.reason, reason);
        assert!(condition.message.contains(words), "{}", condition.message);
        assert!(condition.remedy.is_some());
        assert_eq!(fs::read_dir(rig.home.export(NS, NET, "before")).unwrap().count(), 0);
        assert_eq!(rig.devnet().await.unwrap().status.phase, DevnetPhase::Running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_height_that_is_not_there_yet_is_refused() {
    let rig = rig().await;
    rig.node_until("validator-1", "follows the chain", |node| node.status.phase == NodePhase::Running).await;
    rig.plugin.until_called("heights validator-1").await;
    request(&rig, |export| export.spec.height = Some(1_000)).await;
    for short in ["validator-0", "validator-1"] {
        rig.plugin.announce(short, 9);
    }
    let done = ended(&rig).await;
    assert_eq!(done.status.phase, ExportPhase::Failed);
    let message = done.status.message.clone().unwrap();
    assert!(message.contains("height 1000 is not there yet"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_devnet_is_read_as_it_lies_and_nobody_is_signalled() {
    let rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    rig.change(|devnet| devnet.spec.desired = Some(crate::model::Desired::Stopped)).await;
    rig.phase(DevnetPhase::Stopped).await;
    request(&rig, |_| {}).await;
    assert_eq!(ended(&rig).await.status.phase, ExportPhase::Completed);
    assert_eq!(rig.runtime.signals(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_export_and_one_of_a_deleted_devnet_leave_no_file() {
    let rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    request(&rig, |_| {}).await;
    let mut gone = Export::clone(&*ended(&rig).await);
    gone.metadata.deleted_at = Some(Timestamp::from_millis(1));
    rig.store.commit(vec![Write::update(gone)]).await.unwrap();
    rig.gone(&key()).await;
    assert!(!rig.home.export(NS, NET, "before").exists());
    request(&rig, |_| {}).await;
    ended(&rig).await;
    rig.delete().await;
    rig.gone(&Key::devnet(NS, NET)).await;
    rig.assert_nothing_left().await;
    assert!(rig.store.get(&node_key("validator-0")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_when_the_store_can_be_written_again() {
    let mut rig = rig().await;
    rig.runtime.answer_jobs(export_state);
    rig.stop_daemon().await;
    let changes_an_export = |writes: &[Write]| {
        writes.iter().any(|write| matches!(write, Write::Put { object: Object::Export(export), .. } if export.metadata.resource_version > 0))
    };
    rig.store = Arc::new(Ailing::commits(rig.store.clone(), 2, changes_an_export));
    rig.start_daemon();
    request(&rig, |_| {}).await;
    assert_eq!(ended(&rig).await.status.phase, ExportPhase::Completed);
}
