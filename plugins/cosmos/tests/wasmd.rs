//! The plugin on a real wasmd: networks that make blocks, exits that are understood, bytes that repeat.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy.toml allows both in tests, but sees only functions marked so")]

mod support;

use dvb_plugin_cosmos::plugin::Cosmos;
use dvb_plugin_sdk::{Plugin, PluginFault, conformance, pb};
use futures::StreamExt;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use support::{Net, Running, Wasmd, by_shell, wasmd, wasmds};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validators_and_a_full_node_make_blocks_of_200_ms_tell_them_and_leave_nothing() {
    for wasmd in wasmds("a real network") {
        a_real_network(&wasmd).await;
    }
}

/// Four validators on one version; two show nothing less on the others.
async fn a_real_network(wasmd: &Wasmd) {
    let validators = if wasmd.sdk == "0.50" { 4 } else { 2 };
    let mut net = Net::make(&wasmd.path, validators, 1).await;
    net.devnet.block_time_ms = 200;
    let mut running = start_all(&net).await;
    let full_node = validators as usize;
    let mut heights = subscribe(&net, full_node).await;
    let mut last = 0;
    let mut steady: Option<(u64, Timestamp)> = None;
    let pace = loop {
        let height = tokio::time::timeout(PATIENCE, heights.next()).await.expect("heights come").unwrap().unwrap();
        assert!(height.height > last, "heights rise: {last}, then {height:?}");
        last = height.height;
        // The chain's own clock: when it tells us says more of this machine than of the chain.
        let time: Timestamp = height.time.parse().unwrap();
        match steady {
            Some((from, since)) if last >= 13 => break Duration::try_from(time.duration_since(since)).unwrap() / u32::try_from(last - from).unwrap(),
            None if last >= 3 => steady = Some((last, time)),
            _ => {}
        }
    };
    println!("MEASURED: wasmd {} (SDK {}), {validators} validators, blockTime 200ms: a block each {pace:.0?}", wasmd.version, wasmd.sdk);
    // CometBFT waits so long after a commit; a busy machine adds to it. By default it would be five seconds.
    assert!(pace > Duration::from_millis(150) && pace < Duration::from_millis(2500), "{pace:?}");
    for index in 0..=full_node {
        let status = reach(&net, index, |status| status.height >= 3 && status.peers == validators).await;
        assert!(status.ready && !status.sick, "{status:?}");
        assert_eq!(status.details["votingPower"] != "0", index < full_node, "only validators vote: {status:?}");
    }

    for node in &running {
        node.signal(Signal::SIGTERM);
    }
    for node in &mut running {
        let end = node.ended(Duration::from_secs(15)).await;
        // 0.47 installs its signal handler five seconds after its start; before that, the signal itself ends it.
        let early = wasmd.sdk == "0.47" && std::os::unix::process::ExitStatusExt::signal(&end) == Some(Signal::SIGTERM as i32);
        assert!(end.code() == Some(0) || early, "SIGTERM ends a node cleanly, not with {end:?}");
    }
    let mut rest = heights.by_ref().skip_while(|height| std::future::ready(height.is_ok()));
    let end = rest.next().await;
    assert!(matches!(end, Some(Err(PluginFault::Unavailable(_)))), "{end:?}");
    assert!(heights.next().await.is_none());
    assert!(matches!(Cosmos.get_node_status(net.node_ref(0)).await, Err(PluginFault::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_halts_with_two_of_four_killed_and_goes_on_when_they_are_back() {
    let Some(binary) = wasmd("a halt and its mend") else { return };
    let net = Net::make(&binary, 4, 0).await;
    let mut running = start_all(&net).await;
    reach(&net, 0, |status| status.height >= 2 && status.peers == 3).await;
    for node in &mut running[2..] {
        node.signal(Signal::SIGKILL);
        node.ended(PATIENCE).await;
    }
    running.truncate(2);
    // A block that was being made may still come; after that there are none to wait for, so only time can show it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let halted = Cosmos.get_block_height(net.node_ref(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(Cosmos.get_block_height(net.node_ref(0)).await.unwrap(), halted);
    let status = Cosmos.get_node_status(net.node_ref(0)).await.unwrap();
    assert!(status.ready && !status.sick && status.peers == 1, "a halted node is well itself: {status:?}");

    let begun = Instant::now();
    for index in [2, 3] {
        let name = &net.nodes[index].name;
        running.push(net.start(name, &[], &net.dir.path().join(format!("{name}.log"))).await);
    }
    for index in 0..4 {
        reach(&net, index, |status| status.height > halted.height + 1).await;
    }
    println!("MEASURED: two blocks more on all four {:?} after their return", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_that_joins_later_gets_its_home_at_its_start_and_catches_up() {
    for wasmd in wasmds("a full node that joins later") {
        let mut net = Net::make(&wasmd.path, 1, 0).await;
        let _validator = net.start("validator-0", &[], &net.dir.path().join("validator.log")).await;
        reach(&net, 0, |status| status.height >= 3).await;
        let mut late = net.nodes[0].clone();
        late.address = format!("{}.2", late.address.rsplit_once('.').unwrap().0);
        (late.name, late.role, late.home_dir) = ("fullnode-0".into(), "fullnode".into(), late.home_dir.replace("validator-0", "fullnode-0"));
        net.nodes.push(late);
        let _full_node = net.start("fullnode-0", &[], &net.dir.path().join("late.log")).await;
        let status = reach(&net, 1, |status| status.height >= 4 && status.peers == 1).await;
        assert_eq!(status.details["votingPower"], "0");
        assert_eq!(net.launch_plan("fullnode-0").await.files, [], "only once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_of_a_real_node_are_classified_by_what_it_printed() {
    for wasmd in wasmds("classes of real exits") {
        println!("wasmd {}", wasmd.version);
        let net = Net::make(&wasmd.path, 1, 0).await;
        let log = net.dir.path().join("first.log");
        let first = net.start("validator-0", &[], &log).await;
        reach(&net, 0, |status| status.height >= 1).await;
        assert_eq!(exit_class(&net, "validator-0", &["--no-such-flag"]).await, "bad-flag");
        assert_eq!(exit_class(&net, "validator-0", &[]).await, "db-locked");
        drop(first);

        let taken = std::net::TcpListener::bind((net.nodes[0].address.clone(), 26657)).unwrap();
        assert_eq!(exit_class(&net, "validator-0", &[]).await, "port-busy");
        drop(taken);

        // Signed for another chain: refused when the genesis is first run.
        let net = Net::make(&wasmd.path, 1, 0).await;
        let genesis = Path::new(&net.nodes[0].home_dir).join("config/genesis.json");
        let other = fs::read_to_string(&genesis).unwrap().replace("it-1", "it-2");
        fs::write(&genesis, other).unwrap();
        assert_eq!(exit_class(&net, "validator-0", &[]).await, "genesis-mismatch");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genesis_with_another_denom_is_valid_and_makes_blocks() {
    let patch = r#"{"app_state": {"staking": {"params": {"bond_denom": "uxyz"}}, "gov": {"params": {"voting_period": "7s"}}}}"#;
    for wasmd in wasmds("a patched genesis") {
        let net = Net::make_patched(&wasmd.path, 1, 0, patch).await;
        assert_eq!(net.reply.accounts[2].balance, "1000000000000uxyz");
        let home = &net.nodes[0].home_dir;
        let genesis = format!("{home}/config/genesis.json");
        let verb = if wasmd.sdk == "0.47" { "validate-genesis" } else { "validate" };
        let validate = dvb_plugin_cosmos::binary::job("validate", &wasmd.path, &["genesis", verb, &genesis], home);
        let result = support::run(&validate, net.dir.path());
        assert_eq!(result.exit_code, Some(0), "{}: {:?}", wasmd.version, fs::read_to_string(result.stderr_path));
        let _node = net.start("validator-0", &[], &net.dir.path().join("node.log")).await;
        reach(&net, 0, |status| status.height >= 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exported_state_goes_on_under_more_and_under_fewer_validators_of_another_chain() {
    for wasmd in wasmds("forks") {
        let net = Net::make(&wasmd.path, 2, 0).await;
        let running = start_all(&net).await;
        reach(&net, 1, |status| status.height >= 3).await;
        drop(running); // as by SIGKILL
        let (state, height) = export(&net, 1, false).await;
        assert!(height >= 3, "{height}");
        let (zero, at) = export(&net, 1, true).await;
        assert_eq!(at, height, "the same data");
        for (validators, base, first) in [(3, &state, height + 1), (1, &zero, 1)] {
            let fork = Net::fork(&wasmd.path, validators, "it-2", base).await;
            let _running = start_all(&fork).await;
            let status = reach(&fork, 0, |status| status.height > first + 2 && status.peers == validators - 1).await;
            println!("wasmd {}: {validators} validators went on from height {height}, to {} by now", wasmd.version, status.height);
            let share: u64 = status.details["votingPower"].parse().unwrap();
            assert_eq!(share, 1000, "our stake, and nobody else's beside it: {status:?}");
        }
        let same = Net::make(&wasmd.path, 1, 0).await; // in the old chain, whose keys these are
        let mut request = pb::GenerateGenesisRequest { devnet: Some(same.devnet.clone()), nodes: same.nodes.clone(), ..Default::default() };
        (request.staging_dir, request.base_genesis) = (support::text(&same.dir.path().join("again")), support::text(&state));
        request.job_results =
            Cosmos.generate_genesis(request.clone()).await.unwrap().jobs.iter().map(|job| support::run(job, same.dir.path())).collect();
        let refused = Cosmos.generate_genesis(request).await.unwrap_err().to_string();
        assert!(refused.contains("the keys of validator-0 are in the state to begin with already"), "{refused}");
    }
}

/// Exports the state of a node that does not run, from a copy of its home. The file and its height.
async fn export(net: &Net, index: usize, for_zero_height: bool) -> (std::path::PathBuf, u64) {
    let (clone, output) = (net.dir.path().join(format!("clone-{for_zero_height}")), net.dir.path().join(format!("state-{for_zero_height}.json")));
    let node_ref = net.node_ref(index);
    let home = Path::new(&net.nodes[index].home_dir);
    let (home_dir, output_path) = (support::text(&clone), support::text(&output));
    let mut request =
        pb::ExportRequest { devnet: node_ref.devnet, node: node_ref.node, home_dir, output_path, for_zero_height, ..Default::default() };
    let plan = Cosmos.export(request.clone()).await.unwrap();
    for (path, bytes) in tree(home) {
        if plan.skip.iter().all(|skipped| !Path::new(&path).starts_with(skipped)) {
            fs::create_dir_all(clone.join(&path).parent().unwrap()).unwrap();
            fs::write(clone.join(&path), bytes).unwrap();
        }
    }
    request.job_results = plan.jobs.iter().map(|job| support::run(job, net.dir.path())).collect();
    (output, Cosmos.export(request).await.unwrap().height)
}

#[tokio::test]
async fn a_start_writes_only_the_files_that_the_spec_has_changed() {
    let Some(binary) = wasmd("files of a start") else { return };
    let mut net = Net::make(&binary, 2, 0).await;
    assert_eq!(net.launch_plan("validator-1").await.files, []);
    net.devnet.block_time_ms = 2000;
    let config = r#"{"app.toml": {"pruning": "nothing"}}"#.to_owned();
    net.devnet.overrides.insert("validator-1".into(), pb::NodeOverrides { config, args: vec!["--trace".into()], ..Default::default() });
    let plan = net.launch_plan("validator-1").await;
    let changed: Vec<_> = plan.files.iter().map(|file| file.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(changed, ["config.toml", "app.toml"]);
    assert!(String::from_utf8_lossy(&plan.files[0].content).contains("timeout_commit = \"2000ms\""));
    assert!(String::from_utf8_lossy(&plan.files[1].content).contains("pruning = \"nothing\""));
    assert_eq!(plan.argv.last().map(String::as_str), Some("--trace"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_gives_the_same_bytes_also_side_by_side() {
    for wasmd in wasmds("determinism") {
        let net = Net::make(&wasmd.path, 4, 1).await;
        let dirs = [net.dir.path().join("a"), net.dir.path().join("b")];
        let (a, b) = tokio::join!(support::generate(&net.devnet, &net.nodes, &dirs[0]), support::generate(&net.devnet, &net.nodes, &dirs[1]));
        assert_eq!(a.0, b.0);
        assert_eq!(a.0, net.reply);
        let trees = dirs.map(|dir| tree(&dir.join("nodes")));
        assert_eq!(trees[0].len(), 5 * 7);
        assert!(trees[0] == trees[1], "{}", wasmd.version);
    }
}

#[tokio::test]
async fn the_genesis_is_the_same_wherever_the_nodes_live() {
    for wasmd in wasmds("the genesis without addresses") {
        let net = Net::make(&wasmd.path, 2, 0).await;
        let mut elsewhere = net.nodes.clone();
        for (i, node) in elsewhere.iter_mut().enumerate() {
            node.address = format!("127.200.200.{}", i + 1);
        }
        let staging = net.dir.path().join("elsewhere");
        let (reply, _) = support::generate(&net.devnet, &elsewhere, &staging).await;
        assert_eq!(reply.genesis_sha256, net.reply.genesis_sha256, "SDK {}: the key lease is named by this hash", wasmd.sdk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_validators_are_made_in_seconds_and_their_genesis_is_valid() {
    for wasmd in wasmds("a hundred validators") {
        let by_shell = by_shell::four_validators(&wasmd);
        let four = Net::make(&wasmd.path, 4, 0).await;
        let net = Net::make(&wasmd.path, 100, 0).await;
        println!(
            "MEASURED: wasmd {} (SDK {}), provisioning beyond one `init`: 4 validators {:.2?}, 100 validators {:.2?}; 4 validators by the chain's \
             own commands (init, keys add, add-genesis-account, gentx, collect-gentxs): {by_shell:.1?}",
            wasmd.version, wasmd.sdk, four.generation, net.generation
        );
        assert!(four.generation < by_shell && net.generation < Duration::from_secs(10), "{:?}", net.generation);
        // One node alone runs InitChain with all the genesis transactions; without the others it makes no block.
        let log = net.dir.path().join("one.log");
        let _node = net.start("validator-0", &[], &log).await;
        let begun = Instant::now();
        while Cosmos.get_node_status(net.node_ref(0)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "{}", fs::read_to_string(&log).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[test]
fn wasmd_passes_the_conformance_suite() {
    let found = wasmds("the suite's checks that need a binary");
    let with_binary = found.iter().map(|wasmd| (wasmd.version, wasmd.path.clone()));
    // Without any, the rest of the suite runs.
    let runs: Vec<_> = if found.is_empty() { vec![("none", String::new())] } else { with_binary.collect() };
    for (version, binary_path) in runs {
        let libraries = Path::new(&binary_path).with_file_name("lib").display().to_string();
        let job_env = vec![("LD_LIBRARY_PATH".into(), libraries)];
        let mut profile = conformance::Profile { job_env, ..Default::default() };
        profile.devnet.binary_path = binary_path;
        let report = conformance::run(Path::new(env!("CARGO_BIN_EXE_dvb-plugin-cosmos")), profile);
        assert!(report.passed(), "wasmd {version}: {report}");
    }
}

async fn start_all(net: &Net) -> Vec<Running> {
    let mut running = Vec::new();
    for node in &net.nodes {
        running.push(net.start(&node.name, &[], &net.dir.path().join(format!("{}.log", node.name))).await);
    }
    running
}

/// The node's heights, as soon as it answers. A starting node announces nothing before, so this tries again.
async fn subscribe(net: &Net, index: usize) -> dvb_plugin_sdk::HeightStream {
    let begun = Instant::now();
    loop {
        match Cosmos.stream_block_heights(net.node_ref(index)).await {
            Ok(stream) => return stream,
            Err(PluginFault::Unavailable(_)) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(fault) => panic!("{fault}; {:?}", fs::read_to_string(net.dir.path().join("validator-0.log"))),
        }
    }
}

/// Asks until the node is ready and as wanted. CometBFT dials each peer after a random wait of up to 3 s.
async fn reach(net: &Net, index: usize, wanted: impl Fn(&pb::NodeStatus) -> bool) -> pb::NodeStatus {
    let begun = Instant::now();
    loop {
        match Cosmos.get_node_status(net.node_ref(index)).await {
            Ok(status) if status.ready && wanted(&status) => return status,
            other if begun.elapsed() > PATIENCE => panic!("node {index} is not as wanted: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Starts the node, which must fail, and classifies its end.
async fn exit_class(net: &Net, node: &str, arguments: &[&str]) -> String {
    let log = net.dir.path().join("second.log");
    let mut second = net.start(node, arguments, &log).await;
    let status = second.ended(PATIENCE).await;
    let log_tail: Vec<Vec<u8>> = fs::read(&log).unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let request = pb::ClassifyExitRequest { exit_code: status.code(), log_tail, ..Default::default() };
    let class = Cosmos.classify_exit(request).await.unwrap();
    println!("{arguments:?}: exit {:?}, {}: {}", status.code(), class.class, class.message);
    class.class
}

/// Bytes of each file below `root`.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(support::text(path.strip_prefix(root).unwrap()), fs::read(&path).unwrap());
            }
        }
    }
    found
}
