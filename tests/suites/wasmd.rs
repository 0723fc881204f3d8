//! A chain that we did not write: wasmd on three versions of the Cosmos SDK.

use e2e::{ByHand, TestHome, Wasmd, is_alive, wasmd, wasmds};
use nix::sys::signal::{Signal, kill};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A devnet of `program` in a file of `home`; `more` are further lines of its spec.
pub(crate) fn devnet(home: &TestHome, name: &str, program: &Path, more: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  validators: 4\n  \
         fullNodes: 1\n  blockTime: 500ms\n",
        program.display()
    );
    for line in more {
        text += &format!("  {line}\n");
    }
    home.file(&format!("{name}.yaml"), &text)
}

#[test]
fn wasmd_makes_blocks_heals_a_killed_validator_and_goes_without_a_trace() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let file = devnet(&home, "wasm", &program, &["localhost: false", "restart: {backoff: 300ms}"]);
    home.ctl(&["up", &file, "--timeout", "120s"]).ok();
    home.eventually("all nodes at height 3", Duration::from_secs(90), |home| home.lowest("wasm") >= 3);
    let sdk = home.devnet("wasm")["status"]["sdkVersion"].clone();
    assert!(sdk.as_str().is_some_and(|sdk| !sdk.is_empty()), "{sdk}");

    let pids = home.pids("wasm");
    assert_eq!(pids.len(), 5);
    kill(pids["validator-1"], Signal::SIGKILL).unwrap();
    home.eventually("validator-1 is back", Duration::from_secs(60), |home| home.node("wasm/validator-1")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "wasm", "--for=Running", "--timeout", "120s"]).ok();
    let goal = home.highest("wasm") + 1;
    home.eventually("validator-1 has caught up", Duration::from_secs(90), |home| home.lowest("wasm") >= goal);

    let pids = home.pids("wasm");
    home.ctl(&["delete", "wasm", "--yes"]).ok();
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name}");
    }
    assert_eq!(home.rows("leases"), 0);
    assert!(!home.home().join("devnets/default/wasm").exists());
}

/// Everything that a spec and a status say of a chain, once per SDK; two validators show it as well as four.
#[test]
fn on_each_sdk_a_full_node_joins_and_leaves_a_running_devnet_by_apply() {
    for wasmd in wasmds() {
        println!("wasmd {} on SDK {}", wasmd.version, a_full_node_joins_and_leaves(&wasmd));
    }
}

/// The SDK that the devnet's status told.
fn a_full_node_joins_and_leaves(wasmd: &Wasmd) -> String {
    let home = TestHome::new();
    let file = |full_nodes: u32| {
        let lines = ["localhost: false"];
        let file = devnet(&home, "dynamic", &wasmd.path, &lines);
        let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 2").replace("500ms", "200ms");
        home.file("dynamic.yaml", &text.replace("fullNodes: 1", &format!("fullNodes: {full_nodes}")))
    };
    home.ctl(&["up", &file(0), "--timeout", "120s"]).ok();
    let status = home.devnet("dynamic")["status"].clone();
    let sdk = status["sdkVersion"].as_str().unwrap_or_default().to_owned();
    assert!(sdk.starts_with(wasmd.sdk), "{status}");
    home.eventually("the chain tells of its validators", Duration::from_secs(60), |home| {
        let details = home.node("dynamic/validator-1")["status"]["details"].clone();
        details["votingPower"] != "0" && details["missedBlocks"].is_string() && details["cometbft"].is_string()
    });

    // Of one that joins nobody answers: it is behind, and says so, until the others go on.
    ["dynamic/validator-0", "dynamic/validator-1"].iter().for_each(|node| drop(home.ctl(&["freeze", node]).ok()));
    let file_of_one = file(1);
    home.ctl(&["apply", "-f", &file_of_one]).ok();
    home.eventually("the full node says that it is catching up", Duration::from_secs(120), |home| {
        home.nodes("dynamic").get("fullnode-0").is_some_and(|node| node["status"]["catchingUp"] == true && node["status"]["phase"] == "Starting")
    });
    home.ctl(&["describe", "dynamic/fullnode-0"]).ok().prints("Catching up");
    ["dynamic/validator-0", "dynamic/validator-1"].iter().for_each(|node| drop(home.ctl(&["thaw", node]).ok()));
    home.ctl(&["apply", "--wait", "--timeout", "120s", "-f", &file_of_one]).ok();
    let goal = home.highest("dynamic") + 2;
    home.eventually("the full node follows", Duration::from_secs(90), |home| home.lowest("dynamic") >= goal);
    let joined = home.node("dynamic/fullnode-0")["status"].clone();
    assert_eq!((&joined["catchingUp"] == true, &joined["restartCount"]), (false, &serde_json::json!(0)), "{joined}");
    let pid = home.pid("dynamic/fullnode-0");

    home.ctl(&["apply", "--wait", "--timeout", "120s", "-f", &file(0)]).ok();
    home.eventually("the full node is gone", Duration::from_secs(60), |home| home.nodes("dynamic").len() == 2 && !is_alive(pid));
    home.all_rise("dynamic", 2);
    assert!(home.nodes("dynamic").values().all(|node| node["status"]["restartCount"] == 0), "nobody else was disturbed");
    sdk
}

/// The figure that users feel, beside its floor: the same five processes from ready homes, started by hand all at once.
#[test]
fn from_apply_to_height_one_on_all_nodes_beside_the_same_processes_started_by_hand() {
    for wasmd in wasmds() {
        println!("MEASURED: {}", from_apply_to_height_one(&wasmd));
    }
}

/// The figures in words.
fn from_apply_to_height_one(wasmd: &Wasmd) -> String {
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let ours = |name: &str| {
        let started = Instant::now();
        home.ctl(&["apply", "-f", &devnet(&home, name, &wasmd.path, &["localhost: false"])]).ok();
        home.eventually("five nodes are planned", Duration::from_secs(90), |home| home.nodes(name).len() == 5);
        let provisioned = started.elapsed();
        all_at_height_one(&rpc_of(&home, name));
        let took = started.elapsed();
        home.ctl(&["delete", name, "--yes"]).ok();
        (took, provisioned)
    };
    let by_hand = |name: &str| {
        home.ctl(&["apply", "--wait", "-f", &devnet(&home, name, &wasmd.path, &["localhost: false", "desired: stopped"])]).ok();
        let endpoints = rpc_of(&home, name);
        let started: Vec<ByHand> = home.nodes(name).into_values().map(|node| ByHand::cosmos(&home, &node["spec"])).collect();
        let took = all_at_height_one(&endpoints);
        drop(started);
        home.ctl(&["delete", name, "--yes"]).ok();
        took
    };
    let (first, first_planned) = ours("first");
    // In turns, so that what else the machine does meets both.
    let runs: Vec<_> = (0..3).map(|run| (ours(&format!("known-{run}")), by_hand(&format!("floor-{run}")))).collect();
    let (known, planned) = middle(runs.iter().map(|(ours, _)| *ours));
    let floor = middle(runs.iter().map(|(_, floor)| *floor));
    // Not the goal, which a busy machine would miss by chance: a bound that only a defect breaks.
    assert!(known < floor * 4 + Duration::from_secs(5), "{known:?} beside {floor:?}");
    format!(
        "wasmd {} (SDK {}), 4 validators and a full node, blocks of 500 ms, from `apply` to height 1 on all nodes: {first:.2?} for a binary \
         that is new to the home ({first_planned:.2?} of it until the nodes are planned), {known:.2?} for a known one ({planned:.2?}); floor: \
         {floor:.2?}, the same processes by hand from ready homes, the middle of three in turns; {:.2} times the floor",
        wasmd.version,
        wasmd.sdk,
        known.as_secs_f64() / floor.as_secs_f64()
    )
}

/// The middle one of an odd number.
pub(crate) fn middle<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort();
    sorted[sorted.len() / 2]
}

#[test]
fn two_sdks_in_one_devnet_are_refused_with_both_named() {
    let [first, .., last] = &wasmds()[..] else { return };
    let home = TestHome::new();
    let other = format!("nodes: [{{name: validator-1, binary: {{path: {}}}}}]", last.path.display());
    let file = devnet(&home, "mixed", &first.path, &["localhost: false", &other]);
    let said = home.ctl(&["up", &file, "--timeout", "120s"]).exits(1).stderr;
    for word in ["spec.nodes[validator-1].binary", first.sdk, last.sdk, "all nodes of a devnet must be on one SDK"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(home.nodes("mixed").is_empty(), "nothing was started");
}

#[test]
fn a_program_that_is_no_cosmos_chain_gets_one_clear_error() {
    let home = TestHome::new();
    let file = devnet(&home, "odd", &fs::canonicalize("/bin/ls").unwrap(), &["localhost: false"]);
    home.ctl(&["up", &file, "--timeout", "120s"]).exits(1).says("is not a Cosmos SDK chain: `version --long --output json` exited with code 2");
}

/// Whoever has a mnemonic for a seed has mistyped it, and wants no other accounts. A word too few is told as well.
#[test]
fn a_mnemonic_with_a_wrong_word_is_refused_by_the_word_and_its_place() {
    let home = TestHome::new();
    let file = |words: &str| devnet(&home, "odd", &fs::canonicalize("/bin/ls").unwrap(), &[&format!("seed: {words}")]);
    let eleven = ["abandon"; 11].join(" ");
    let wrong = home.ctl(&["apply", "-f", &file(&format!("{eleven} abuot"))]).exits(4);
    wrong.says("spec.seed").says("its word 12, `abuot`, is none of the English words of BIP-39; the nearest is `about`");
    home.ctl(&["apply", "-f", &file(&eleven)]).exits(4).says("spec.seed").says("word count");
    home.ctl(&["apply", "-f", &file(&format!("{eleven} ability"))]).exits(4).says("spec.seed").says("checksum");
    assert_eq!(home.rows("devnets"), 0);
}

#[test]
fn a_network_profile_of_the_home_shapes_genesis_and_configuration() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let file = |name: &str| devnet(&home, name, &program, &["localhost: false", "desired: stopped", "network: quick"]);
    home.ctl(&["apply", "--wait", "-f", &file("early")]).exits(4).says("there is no network profile `quick`");
    let profile = r#"{"genesis": {"app_state": {"staking": {"params": {"unbonding_time": "61s"}}}}, "config": {"app.toml": {"pruning": "nothing"}}}"#;
    fs::create_dir_all(home.home().join("networks")).unwrap();
    fs::write(home.home().join("networks/quick.json"), profile).unwrap();
    home.ctl(&["apply", "--wait", "--timeout", "120s", "-f", &file("shaped")]).ok();
    home.eventually("five nodes are planned", Duration::from_secs(90), |home| home.nodes("shaped").len() == 5);
    let node = home.node("shaped/validator-0")["spec"]["homeDir"].as_str().unwrap().to_owned();
    let read = |name: &str| fs::read_to_string(format!("{node}/config/{name}")).unwrap();
    assert!(read("genesis.json").contains(r#""unbonding_time": "61s""#));
    assert!(read("app.toml").contains("pruning = \"nothing\""));
}

/// The library that wasmd links lies in Go's module cache, which users clean. Here the search path in the program leads nowhere.
#[test]
fn a_binary_runs_with_the_library_beside_it_when_the_module_cache_is_gone() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let library = program.with_file_name("lib/libwasmvm.x86_64.so");
    if !library.is_file() {
        println!("SKIP: a binary without its module cache: {} is not there", library.display());
        return;
    }
    let moved = home.path().join("moved/wasmd");
    fs::create_dir_all(moved.with_file_name("lib")).unwrap();
    fs::copy(&library, moved.with_file_name("lib").join(library.file_name().unwrap())).unwrap();
    without_module_cache(&program, &moved);
    let file = devnet(&home, "alone", &moved, &["localhost: false"]);
    let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 1").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["up", &home.file("alone.yaml", &text), "--timeout", "120s"]).ok();
    home.eventually("a block", Duration::from_secs(90), |home| home.lowest("alone") >= 1);
}

/// A copy whose search path names folders that do not exist; of the same length, so that the ELF file stays whole. Another process
/// writes it: what this one holds open for writing, it could not run.
#[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
fn without_module_cache(from: &Path, to: &Path) {
    let script = r#"LC_ALL=C sed 's#/pkg/mod/github.com/!cosm!wasm/wasmvm#/pkg/off/github.com/!cosm!wasm/wasmvm#g' "$0" > "$1" && chmod 755 "$1""#;
    assert!(Command::new("sh").arg("-c").arg(script).arg(from).arg(to).status().unwrap().success());
    let bare = Command::new(to).arg("version").output().unwrap();
    assert!(!bare.status.success(), "without help it must not find its library, or this test shows nothing");
}

#[test]
fn leased_ports_on_one_address_carry_a_real_chain() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    home.ctl(&["up", &devnet(&home, "ported", &program, &["addresses: ports"]), "--timeout", "120s"]).ok();
    home.eventually("all nodes at height 2", Duration::from_secs(90), |home| home.lowest("ported") >= 2);
    let nodes = home.nodes("ported");
    let addresses: BTreeSet<_> = nodes.values().map(|node| node["spec"]["address"].to_string()).collect();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let ports: Vec<u64> = nodes
        .values()
        .flat_map(|node| node["spec"]["ports"].as_object().cloned().unwrap_or_default())
        .filter_map(|(_, port)| port.as_u64())
        .collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "{ports:?}");
    assert_eq!(home.rows("leases WHERE name LIKE 'port/%'") as usize, ports.len(), "beside the keys of the validators");
    home.ctl(&["delete", "ported", "--yes"]).ok();
    assert_eq!(home.rows("leases"), 0);
}

#[test]
fn a_chain_binary_that_exits_at_once_fails_with_its_last_words_and_is_healed_by_the_next_apply() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let broken =
        home.file("broken", &format!("#!/bin/sh\n[ \"$1\" != start ] && exec {} \"$@\"\necho no such luck >&2\nexit 7\n", program.display()));
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let restart = "restart: {backoff: 50ms, maxRestarts: 1}";
    let file = devnet(&home, "unlucky", Path::new(&broken), &["localhost: false", restart]);
    home.ctl(&["up", &file, "--timeout", "120s"]).exits(1).says("unlucky/").says("7");
    // It ends with the first node that has failed for good.
    home.eventually("the first has failed too", Duration::from_secs(90), |home| home.node("unlucky/validator-0")["status"]["phase"] == "Failed");
    let node = home.node("unlucky/validator-0");
    assert_eq!(node["status"]["lastExit"]["code"], 7, "{node}");
    assert!(node["status"]["lastExit"]["logTail"].to_string().contains("no such luck"), "{node}");
    home.ctl(&["why", "unlucky/validator-0"]).ok().prints("exit code 7");
    home.ctl(&["up", &devnet(&home, "unlucky", &program, &["localhost: false", restart]), "--timeout", "120s"]).ok();
    home.eventually("all nodes at height 1", Duration::from_secs(90), |home| home.lowest("unlucky") >= 1);
}

/// Power-cut style: nobody gets to close its database or its write-ahead log.
#[test]
fn on_each_sdk_all_validators_killed_at_once_come_back_at_their_height_and_none_signs_twice() {
    wasmds().iter().for_each(all_validators_are_killed_at_once);
}

fn all_validators_are_killed_at_once(wasmd: &Wasmd) {
    let home = TestHome::new();
    let file = devnet(&home, "cut", &wasmd.path, &["localhost: false", "restart: {backoff: 300ms}"]);
    home.ctl(&["up", &file, "--timeout", "120s"]).ok();
    home.eventually("all nodes at height 5", Duration::from_secs(90), |home| home.lowest("cut") >= 5);
    let endpoint = rpc_of(&home, "cut")["validator-0"].clone();
    let block = |height: u64| rpc(&endpoint, &format!("block?height={height}")).unwrap_or_default();
    let before = home.lowest("cut");
    let hash = block(before)["result"]["block_id"]["hash"].clone();
    assert!(hash.is_string(), "{hash}");

    for (_, pid) in home.pids("cut").into_iter().filter(|(name, _)| name.starts_with("validator")) {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    home.eventually("every validator was restarted once", Duration::from_secs(90), |home| {
        home.nodes("cut").into_iter().filter(|(name, _)| name.starts_with("validator")).all(|(_, node)| node["status"]["restartCount"] == 1)
    });
    home.eventually("the chain goes on", Duration::from_secs(60), |home| home.lowest("cut") >= before + 4);
    assert_eq!(block(before)["result"]["block_id"]["hash"], hash, "the same chain, from where it was");
    assert_none_signed_twice(&home, "cut");
}

/// No block of a chain has evidence of a double signature, and no validator has gone for one.
#[track_caller]
pub(crate) fn assert_none_signed_twice(home: &TestHome, devnet: &str) {
    let endpoint = rpc_of(home, devnet)["validator-0"].clone();
    for height in 1..home.lowest(devnet) {
        let block = rpc(&endpoint, &format!("block?height={height}")).unwrap_or_default();
        let evidence = &block["result"]["block"]["evidence"]["evidence"];
        assert_eq!(*evidence, serde_json::json!([]), "height {height}: {block}");
    }
    for (name, node) in home.nodes(devnet) {
        assert!(node["status"]["details"]["tombstoned"].is_null(), "{name}: {node}");
    }
}

/// Where each node's RPC listens, by short name.
fn rpc_of(home: &TestHome, devnet: &str) -> BTreeMap<String, String> {
    let of = |node: &serde_json::Value| format!("{}:{}", node["spec"]["address"].as_str().unwrap_or_default(), node["spec"]["ports"]["rpc"]);
    home.nodes(devnet).into_iter().map(|(name, node)| (name, of(&node))).collect()
}

/// How long it took until every node's RPC told of a block.
fn all_at_height_one(endpoints: &BTreeMap<String, String>) -> Duration {
    let start = Instant::now();
    for (name, endpoint) in endpoints {
        while height(endpoint) < Some(1) {
            assert!(start.elapsed() < Duration::from_secs(60), "{name} makes no blocks");
            std::thread::sleep(Duration::from_millis(10)); // no event: the server is not there yet
        }
    }
    start.elapsed()
}

/// What CometBFT's RPC says; none while it does not listen.
fn height(endpoint: &str) -> Option<u64> {
    rpc(endpoint, "status")?["result"]["sync_info"]["latest_block_height"].as_str()?.parse().ok()
}

fn rpc(endpoint: &str, method: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET /{method} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
