//! The plugin host against the real `dvb-plugin-mock`: every way in which a plugin fails, and what the host makes of it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers below are tests too; clippy sees only what is marked #[test]")]

use devnetd::{
    model::{DevnetSpec, Exit, PlacedNode, Timestamp},
    plugin::{ChainPlugin, DevnetContext, GenesisRequest, HostSettings, JobOutcome, NodeRequest, PluginError, PluginHost, Plugins, Reply},
    sys::{ManualClock, command},
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A host with one plugin `mock`, a copy in a folder of its own: whatever runs from there is this test's.
struct Bench {
    dir: TempDir,
    clock: Arc<ManualClock>,
    host: PluginHost,
}

/// A binary that cargo built beside this test; None (after a SKIP) when it has not.
fn built(name: &str) -> Option<PathBuf> {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().and_then(Path::parent).unwrap().join(name);
    if !path.exists() {
        println!("SKIP: {} is missing; build it with `cargo build -p dvb-plugin-mock`", path.display());
        return None;
    }
    Some(path)
}

impl Bench {
    fn new(script: Value) -> Option<Self> {
        Self::with(script, |_| {})
    }
    fn with(script: Value, change: impl FnOnce(&mut HostSettings)) -> Option<Self> {
        let (mock, node) = (built("dvb-plugin-mock")?, built("mock-node")?);
        let dir = TempDir::new().unwrap();
        fs::copy(mock, dir.path().join("dvb-plugin-mock")).unwrap();
        std::os::unix::fs::symlink(node, dir.path().join("mock-node")).unwrap();
        let env = [("DVB_MOCK_SCRIPT", dir.path().join("script.json").display().to_string()), ("DVB_LOG", "info".into())];
        let mut settings = HostSettings {
            dirs: vec![dir.path().to_owned()],
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..HostSettings::default()
        };
        change(&mut settings);
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_767_225_600_000)));
        let bench = Self { host: PluginHost::new(settings, clock.clone()), dir, clock };
        bench.script(script);
        Some(bench)
    }
    fn script(&self, script: Value) {
        fs::write(self.dir.path().join("script.json"), script.to_string()).unwrap();
    }
    async fn mock(&self) -> Arc<dyn ChainPlugin> {
        self.host.get("mock").await.unwrap()
    }
    async fn state(&self) -> String {
        self.host.list().await.into_iter().find(|plugin| plugin.name == "mock").map(|plugin| plugin.state).unwrap_or_default()
    }
    /// Processes that run from this bench's folder.
    fn processes(&self) -> usize {
        let exe_of = |entry: fs::DirEntry| fs::read_link(entry.path().join("exe")).ok();
        fs::read_dir("/proc").unwrap().flatten().filter_map(exe_of).filter(|exe| exe.starts_with(self.dir.path())).count()
    }
    async fn end(self) {
        self.host.shutdown().await;
        assert_eq!(self.processes(), 0, "a plugin is left over");
    }
}

fn devnet() -> DevnetContext {
    let spec: DevnetSpec = serde_json::from_value(json!({"plugin": "mock", "validators": 2, "accounts": 1, "blockTime": "50ms"})).unwrap();
    DevnetContext { name: "net".into(), chain_id: "net-1".into(), seed: "seed".into(), spec: Arc::new(spec), ..DevnetContext::default() }
}

fn node() -> PlacedNode {
    let ports = BTreeMap::from([("rpc".to_owned(), 1), ("p2p".to_owned(), 2)]);
    PlacedNode {
        name: "validator-0".into(),
        role: "validator".into(),
        address: "127.0.0.1".into(),
        ports,
        home_dir: "/tmp/none".into(),
        ..PlacedNode::default()
    }
}

/// Waits for what has no event to wait for: another process's state.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_missing_plugin_suggests_the_nearest() {
    let Some(bench) = Bench::new(json!({})) else { return };
    match bench.host.get("mok").await.map(drop) {
        Err(PluginError::Missing { nearest, looked_in, .. }) => {
            assert_eq!(nearest.as_deref(), Some("mock"));
            assert_eq!(looked_in, [bench.dir.path().display().to_string()]);
        }
        other => panic!("{other:?}"),
    }
    bench.end().await;
}

#[tokio::test]
async fn another_protocol_version_is_named_and_not_tried_again() {
    let Some(bench) = Bench::new(json!({"apiVersion": 7})) else { return };
    let mock = bench.mock().await;
    let expect = "plugin mock speaks protocol 7; this devnetd speaks 1";
    assert_eq!(mock.plan_nodes(&devnet()).await.unwrap_err().to_string(), expect);
    // The same executable would say the same: it is not even started.
    bench.script(json!({}));
    assert_eq!(mock.plan_nodes(&devnet()).await.unwrap_err().to_string(), expect);
    assert_eq!(bench.state().await, "Broken");
    bench.end().await;
}

#[tokio::test]
async fn what_the_kernel_does_not_run_is_a_spawn_error() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let path = bench.dir.path().join("dvb-plugin-odd");
    fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let error = bench.host.get("odd").await.unwrap().info().await.unwrap_err();
    assert!(matches!(&error, PluginError::Spawn { name, .. } if name == "odd"), "{error}");
    bench.end().await;
}

#[tokio::test]
async fn a_crash_tells_status_and_last_words_and_the_next_call_starts_it_again() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let mock = bench.mock().await;
    for (crash, expect) in [(json!({"exit": 3}), "exit code 3"), (json!({"abort": true}), "SIGABRT")] {
        bench.script(json!({"calls": {"PlanNodes": {"stderr": "my last words", "crash": crash}}}));
        match mock.plan_nodes(&devnet()).await {
            Err(PluginError::Exited { name, call, status, stderr_tail }) => {
                assert_eq!((name.as_str(), call.as_str(), status.as_str()), ("mock", "PlanNodes", expect));
                assert!(stderr_tail.contains("my last words"), "{stderr_tail}");
            }
            other => panic!("{other:?}"),
        }
        bench.script(json!({}));
        // The second failure in a row waits; time passes.
        bench.clock.advance(Duration::from_secs(1));
        assert_eq!(mock.plan_nodes(&devnet()).await.unwrap().len(), 2);
    }
    bench.end().await;
}

#[tokio::test]
async fn a_hung_plugin_is_killed_and_named_and_the_others_go_on() {
    let limit = Duration::from_millis(400);
    let change = |settings: &mut HostSettings| {
        settings.call_limit = limit;
        settings.extra.insert("other".into(), settings.dirs[0].join("dvb-plugin-mock"));
    };
    let Some(bench) = Bench::with(json!({}), change) else { return };
    let (mock, other) = (bench.mock().await, bench.host.get("other").await.unwrap());
    let mut heights = start_and_listen(&*other).await;
    mock.info().await.unwrap();
    bench.script(json!({"calls": {"PlanNodes": {"hang": true}, "ValidateSpec": {"slowMs": 5_000}}}));
    let context = devnet();
    let (hung, beside) = tokio::join!(mock.plan_nodes(&context), async {
        tokio::time::sleep(limit / 2).await;
        mock.validate(&context).await
    });
    let hung = hung.unwrap_err();
    assert!(matches!(&hung, PluginError::TimedOut { name, call, after } if name == "mock" && call == "PlanNodes" && *after == limit), "{hung}");
    let beside = beside.unwrap_err();
    assert!(matches!(&beside, PluginError::Exited { status, .. } if status.contains("did not answer PlanNodes")), "{beside}");
    assert!(heights.stream.next().await.unwrap().is_ok(), "the other plugin's stream went on");
    bench.script(json!({}));
    mock.plan_nodes(&devnet()).await.unwrap();
    drop(heights);
    bench.end().await;
}

#[tokio::test]
async fn text_on_stdout_is_quoted() {
    let Some(bench) = Bench::new(json!({"onStart": {"stdout": "Hello, I am a library\n"}})) else { return };
    let mock = bench.mock().await;
    let polluted = |error: PluginError, expect: &str| match error {
        PluginError::Polluted { name, text } => assert!(name == "mock" && text.contains(expect), "{text}"),
        other => panic!("{other:?}"),
    };
    polluted(mock.info().await.unwrap_err(), "Hello, I am a library");
    bench.script(json!({}));
    mock.info().await.unwrap();
    bench.script(json!({"calls": {"PlanNodes": {"stdout": "a stray line\n"}}}));
    polluted(mock.plan_nodes(&devnet()).await.unwrap_err(), "a stray line");
    bench.end().await;
}

#[tokio::test]
async fn failures_in_a_row_wait_longer_each_time() {
    let Some(bench) = Bench::new(json!({"calls": {"PlanNodes": {"crash": {"exit": 1}}}})) else { return };
    let mock = bench.mock().await;
    let crash = async || matches!(mock.plan_nodes(&devnet()).await, Err(PluginError::Exited { .. }));
    assert!(crash().await && crash().await, "the first failure is free");
    for (count, wait) in [(2, 500), (3, 1_000), (4, 2_000)] {
        match mock.plan_nodes(&devnet()).await {
            Err(PluginError::Backoff { failures, retry_in, last, .. }) => {
                assert_eq!((failures, retry_in), (count, Duration::from_millis(wait)));
                assert!(last.contains("exit code 1"), "{last}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.state().await, "Backoff");
        bench.clock.advance(Duration::from_millis(wait));
        assert!(crash().await);
    }
    bench.end().await;
}

#[tokio::test]
async fn a_refusal_is_the_plugin_s_own_word_and_costs_nothing() {
    let Some(bench) = Bench::new(json!({"calls": {"PlanNodes": {"fail": {"code": "INVALID_ARGUMENT", "message": "write 1 to 7"}}}})) else { return };
    let mock = bench.mock().await;
    for _ in 0..5 {
        match mock.plan_nodes(&devnet()).await {
            Err(PluginError::Rejected { code, message, .. }) => assert_eq!((code.as_str(), message.as_str()), ("InvalidArgument", "write 1 to 7")),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.state().await, "Running");
    }
    let error = mock.probe(&devnet(), &node()).await.unwrap_err();
    assert!(matches!(&error, PluginError::Rejected { code, .. } if code == "Unavailable"), "{error}");
    bench.end().await;
}

#[tokio::test]
async fn replies_that_nobody_can_act_on_are_refused() {
    let calls = ["Initialize", "ValidateSpec", "PlanNodes", "GenerateGenesis", "StartNode", "ClassifyExit"];
    let garbage: BTreeMap<_, _> = calls.iter().map(|call| (*call, json!({"garbage": true}))).collect();
    let Some(bench) = Bench::new(json!({"calls": garbage})) else { return };
    let mock = bench.mock().await;
    let devnet = devnet();
    let dirs = TempDir::new().unwrap();
    let genesis = GenesisRequest { devnet: devnet.clone(), nodes: vec![node()], staging_dir: dirs.path().into(), ..GenesisRequest::default() };
    let launch = NodeRequest { devnet: devnet.clone(), nodes: vec![node()], node: "validator-0".into(), ..NodeRequest::default() };
    let errors = [
        mock.initialize(&devnet, dirs.path().into(), &[]).await.map(drop),
        mock.validate(&devnet).await.map(drop),
        mock.plan_nodes(&devnet).await.map(drop),
        mock.genesis(&genesis).await.map(drop),
        mock.launch(&launch).await.map(drop),
        mock.classify(&devnet, &node(), Some(&Exit::default()), &[]).await.map(drop),
    ];
    for (error, expect) in errors.into_iter().zip(calls) {
        assert!(matches!(&error, Err(PluginError::BadReply { call, .. }) if call == expect), "{expect}: {error:?}");
    }
    bench.end().await;
}

#[tokio::test]
async fn a_reply_without_a_name_ends_the_handshake() {
    let Some(bench) = Bench::new(json!({"calls": {"GetInfo": {"garbage": true}}})) else { return };
    let error = bench.mock().await.info().await.unwrap_err();
    assert!(matches!(&error, PluginError::BadReply { call, .. } if call == "GetInfo"), "{error}");
    bench.end().await;
}

#[tokio::test]
async fn an_unused_plugin_is_stopped_and_comes_back_when_called() {
    let Some(bench) = Bench::with(json!({}), |settings| settings.idle_after = Duration::from_millis(500)) else { return };
    let mock = bench.mock().await;
    // The first look reads the executable, which takes longer than the idle time.
    assert_eq!(bench.state().await, "Idle");
    assert_eq!(bench.processes(), 0, "get() starts nothing");
    for _ in 0..2 {
        mock.plan_nodes(&devnet()).await.unwrap();
        assert_eq!((bench.state().await.as_str(), bench.processes()), ("Running", 1));
        eventually("it is stopped", async || bench.processes() == 0).await;
        assert_eq!(bench.state().await, "Idle");
    }
    // A stream of heights counts as use.
    let mut heights = start_and_listen(&*mock).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(bench.state().await, "Running");
    assert!(heights.stream.next().await.unwrap().is_ok());
    drop(heights);
    bench.end().await;
}

#[tokio::test]
async fn a_new_build_is_taken_at_the_next_call() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let mock = bench.mock().await;
    mock.info().await.unwrap();
    let digest = bench.host.digest("mock").await.unwrap();
    let fresh = bench.dir.path().join("fresh");
    fs::write(&fresh, "#!/bin/sh\necho new build >&2\nexit 9\n").unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, bench.dir.path().join("dvb-plugin-mock")).unwrap();
    assert_ne!(bench.host.digest("mock").await.unwrap(), digest);
    let error = mock.plan_nodes(&devnet()).await.unwrap_err();
    assert!(matches!(&error, PluginError::Exited { status, stderr_tail, .. } if status == "exit code 9" && stderr_tail == "new build"), "{error}");
    eventually("the old process is gone", async || bench.processes() == 0).await;
    bench.end().await;
}

#[tokio::test]
async fn a_slow_classification_is_given_up_and_the_plugin_lives() {
    let Some(bench) = Bench::new(json!({"calls": {"ClassifyExit": {"slowMs": 3_000}}})) else { return };
    let mock = bench.mock().await;
    mock.info().await.unwrap();
    let begun = Instant::now();
    let error = mock.classify(&devnet(), &node(), Some(&Exit::default()), &[b"x".to_vec()]).await.unwrap_err();
    assert!(matches!(error, PluginError::TimedOut { .. }) && begun.elapsed() < Duration::from_secs(2), "{error}");
    assert_eq!(bench.state().await, "Running");
    bench.end().await;
}

#[tokio::test]
async fn a_plugin_that_stays_after_its_stdin_ended_is_killed() {
    let Some(bench) = Bench::new(json!({"linger": true})) else { return };
    bench.mock().await.info().await.unwrap();
    let begun = Instant::now();
    bench.host.shutdown().await;
    assert!(begun.elapsed() >= Duration::from_secs(2) && bench.processes() == 0);
    bench.end().await;
}

#[tokio::test]
async fn a_hundred_calls_at_once_share_one_process() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let mock = bench.mock().await;
    let context = devnet();
    let calls = futures::future::join_all((0..100).map(|_| mock.plan_nodes(&context))).await;
    assert!(calls.iter().all(|nodes| nodes.as_ref().is_ok_and(|nodes| nodes.len() == 2)));
    assert_eq!(bench.processes(), 1);
    bench.end().await;
}

/// A node that runs, and its heights. Both end with it.
struct Listening {
    node: Child,
    stream: futures::stream::BoxStream<'static, Result<devnetd::plugin::BlockHeight, PluginError>>,
    _files: TempDir,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

/// From nothing to a running node's heights, through every call that a controller makes.
async fn start_and_listen(mock: &dyn ChainPlugin) -> Listening {
    let files = TempDir::new().unwrap();
    let mut devnet = devnet();
    devnet.binary_path = mock.info().await.unwrap().default_binary.unwrap().display().to_string();
    let Reply::Jobs(jobs) = mock.initialize(&devnet, files.path().into(), &[]).await.unwrap() else { panic!("no job") };
    let stdout = files.path().join("version");
    let status = command(&jobs[0].argv[0]).args(&jobs[0].argv[1..]).stdout(fs::File::create(&stdout).unwrap()).status().unwrap();
    let exit = Exit { code: status.code(), ..Exit::default() };
    let outcome = JobOutcome { name: jobs[0].name.clone(), exit, stdout, stderr: PathBuf::new() };
    let Reply::Done(initialized) = mock.initialize(&devnet, files.path().into(), &[outcome]).await.unwrap() else { panic!("more jobs") };
    assert_eq!(initialized.binary_version, env!("CARGO_PKG_VERSION"));
    let nodes: Vec<_> = mock.plan_nodes(&devnet).await.unwrap().iter().map(|planned| place(planned, files.path())).collect();
    let request = GenesisRequest {
        devnet: devnet.clone(),
        nodes: nodes.clone(),
        staging_dir: files.path().into(),
        shared_dir: files.path().join("shared"),
        ..GenesisRequest::default()
    };
    let Reply::Done(genesis) = mock.genesis(&request).await.unwrap() else { panic!("jobs") };
    assert!(files.path().join(&genesis.genesis_path).exists());
    let first = nodes[0].clone();
    let request = NodeRequest { devnet: devnet.clone(), nodes, node: first.name.clone(), shared_dir: files.path().join("shared") };
    let plan = mock.launch(&request).await.unwrap();
    let node = command(&plan.argv[0]).args(&plan.argv[1..]).current_dir(&plan.cwd).stdout(Stdio::null()).spawn().unwrap();
    eventually("the node is ready", async || mock.probe(&devnet, &first).await.is_ok_and(|health| health.ready)).await;
    let stream = mock.heights(&devnet, &first).await.unwrap();
    Listening { node, stream, _files: files }
}

/// Ports of the kernel's choice: held until all are known, so that no two are equal.
fn place(planned: &devnetd::model::PlannedNode, root: &Path) -> PlacedNode {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held: Vec<_> = planned.ports.iter().map(|port| (port.name.clone(), free())).collect();
    PlacedNode {
        name: planned.name.clone(),
        role: planned.role.clone(),
        index: planned.index,
        address: "127.0.0.1".into(),
        ports: held.iter().map(|(name, listener)| (name.clone(), listener.local_addr().unwrap().port())).collect(),
        home_dir: root.join("nodes").join(&planned.name).display().to_string(),
    }
}

#[tokio::test]
async fn heights_arrive_as_the_node_makes_them_and_end_with_it() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let mock = bench.mock().await;
    let mut heights = start_and_listen(&*mock).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(heights.stream.next().await.unwrap().unwrap().height);
    }
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
    heights.node.kill().unwrap();
    let mut last = heights.stream.next().await;
    while let Some(Ok(_)) = last {
        last = heights.stream.next().await;
    }
    assert!(matches!(&last, Some(Err(PluginError::Rejected { code, .. })) if code == "Unavailable"), "{last:?}");
    assert!(heights.stream.next().await.is_none());
    drop(heights);
    bench.end().await;
}

#[tokio::test]
async fn a_plugin_killed_from_outside_is_noticed_without_a_call() {
    let Some(bench) = Bench::new(json!({})) else { return };
    let mock = bench.mock().await;
    let mut heights = start_and_listen(&*mock).await;
    assert_eq!(bench.state().await, "Running");
    let ours = |entry: &fs::DirEntry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == bench.dir.path().join("dvb-plugin-mock"));
    let entry = fs::read_dir("/proc").unwrap().flatten().find(ours).expect("the plugin runs");
    let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let mut last = heights.stream.next().await;
    while let Some(Ok(_)) = last {
        last = heights.stream.next().await;
    }
    assert!(matches!(&last, Some(Err(PluginError::Exited { status, .. })) if status == "SIGKILL"), "{last:?}");
    eventually("the host knows", async || bench.state().await == "Idle").await;
    // The node is another process and lives on: a new plugin finds it.
    assert!(mock.plan_nodes(&devnet()).await.is_ok());
    assert!(heights.node.try_wait().unwrap().is_none());
    drop(heights);
    bench.end().await;
}

#[tokio::test]
async fn an_idle_plugin_says_who_it_is_and_is_stopped_again() {
    let Some(bench) = Bench::new(json!({})) else { return };
    assert!(bench.host.list().await[0].info.is_none(), "the list alone starts nothing");
    let told = bench.host.introduce().await.remove(0);
    let info = told.info.unwrap();
    assert_eq!((told.state.as_str(), told.message.as_str(), info.name.as_str(), info.api_version), ("Idle", "", "mock", 1));
    assert_eq!((info.version.as_str(), info.networks.len()), (env!("CARGO_PKG_VERSION"), 1), "{info:?}");
    assert_eq!(bench.processes(), 0);
    // Known from now on, and not started again for it: a plugin that would fail now is not asked.
    bench.script(json!({"calls": {"GetInfo": {"crash": {"exit": 1}}}}));
    let again = bench.host.introduce().await.remove(0);
    assert_eq!((again.state.as_str(), again.message.as_str(), again.info), ("Idle", "", Some(info)));
    bench.end().await;
}

#[tokio::test]
async fn an_introduction_leaves_a_running_plugin_alone_and_names_one_that_fails() {
    let Some(bench) = Bench::new(json!({})) else { return };
    bench.mock().await.info().await.unwrap();
    assert_eq!(bench.host.introduce().await[0].state, "Running");
    assert_eq!(bench.processes(), 1);
    bench.end().await;
    let Some(bench) = Bench::new(json!({"calls": {"GetInfo": {"crash": {"exit": 1}}}})) else { return };
    let failed = bench.host.introduce().await.remove(0);
    assert!(failed.info.is_none() && failed.message.contains("GetInfo"), "{failed:?}");
    bench.end().await;
}
