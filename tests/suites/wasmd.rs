//! A chain that we did not write: wasmd on the Cosmos SDK, four validators and a full node.

use e2e::{ByHand, TestHome, is_alive, wasmd};
use nix::sys::signal::{Signal, kill};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// A devnet of `program` in a file of `home`; `more` are further lines of its spec.
fn devnet(home: &TestHome, name: &str, program: &Path, more: &[&str]) -> String {
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
    home.ctl(&["up", &file, "--timeout", "60s"]).ok();
    home.eventually("all nodes at height 3", Duration::from_secs(30), |home| home.lowest("wasm") >= 3);
    let sdk = home.devnet("wasm")["status"]["sdkVersion"].clone();
    assert!(sdk.as_str().is_some_and(|sdk| !sdk.is_empty()), "{sdk}");

    let pids = home.pids("wasm");
    assert_eq!(pids.len(), 5);
    kill(pids["validator-1"], Signal::SIGKILL).unwrap();
    home.eventually("validator-1 is back", Duration::from_secs(20), |home| home.node("wasm/validator-1")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "wasm", "--for=Running", "--timeout", "30s"]).ok();
    let goal = home.highest("wasm") + 1;
    home.eventually("validator-1 has caught up", Duration::from_secs(30), |home| home.lowest("wasm") >= goal);

    let pids = home.pids("wasm");
    home.ctl(&["delete", "wasm", "--yes"]).ok();
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name}");
    }
    assert_eq!(home.rows("leases"), 0);
    assert!(!home.home().join("devnets/default/wasm").exists());
}

/// The figure that users feel, beside its floor: the same five processes from ready homes, started by hand all at once.
#[test]
fn from_apply_to_height_one_on_all_nodes_beside_the_same_processes_started_by_hand() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let started = Instant::now();
    home.ctl(&["apply", "-f", &devnet(&home, "ours", &program, &["localhost: false"])]).ok();
    home.eventually("five nodes are planned", Duration::from_secs(30), |home| home.nodes("ours").len() == 5);
    let provisioned = started.elapsed();
    all_at_height_one(&rpc_of(&home, "ours"));
    let ours = started.elapsed();
    home.ctl(&["delete", "ours", "--yes"]).ok();

    home.ctl(&["apply", "--wait", "-f", &devnet(&home, "floor", &program, &["localhost: false", "desired: stopped"])]).ok();
    let endpoints = rpc_of(&home, "floor");
    let by_hand: Vec<ByHand> = home.nodes("floor").into_values().map(|node| ByHand::start(&home, &node["spec"])).collect();
    let floor = all_at_height_one(&endpoints);
    drop(by_hand);
    println!(
        "MEASURED: wasmd, 4 validators and a full node, blocks of 500 ms: {ours:.2?} from `apply` to height 1 on all nodes ({provisioned:.2?} of it \
         until the nodes are planned); floor: {floor:.2?}, the same processes by hand from ready homes"
    );
    // Not the goal, which a busy machine would miss by chance: a bound that only a defect breaks.
    assert!(ours < floor * 4 + Duration::from_secs(5), "{ours:?} beside {floor:?}");
}

#[test]
fn leased_ports_on_one_address_carry_a_real_chain() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    home.ctl(&["up", &devnet(&home, "ported", &program, &["addresses: ports"]), "--timeout", "60s"]).ok();
    home.eventually("all nodes at height 2", Duration::from_secs(30), |home| home.lowest("ported") >= 2);
    let nodes = home.nodes("ported");
    let addresses: BTreeSet<_> = nodes.values().map(|node| node["spec"]["address"].to_string()).collect();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let ports: Vec<u64> = nodes
        .values()
        .flat_map(|node| node["spec"]["ports"].as_object().cloned().unwrap_or_default())
        .filter_map(|(_, port)| port.as_u64())
        .collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "{ports:?}");
    assert_eq!(home.rows("leases") as usize, ports.len());
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
    home.ctl(&["up", &file, "--timeout", "30s"]).exits(1).says("unlucky/").says("7");
    let node = home.node("unlucky/validator-0");
    assert_eq!(node["status"]["lastExit"]["code"], 7, "{node}");
    assert!(node["status"]["lastExit"]["logTail"].to_string().contains("no such luck"), "{node}");
    home.ctl(&["why", "unlucky/validator-0"]).ok().prints("exit code 7");
    home.ctl(&["up", &devnet(&home, "unlucky", &program, &["localhost: false", restart]), "--timeout", "60s"]).ok();
    home.eventually("all nodes at height 1", Duration::from_secs(30), |home| home.lowest("unlucky") >= 1);
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
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    body["result"]["sync_info"]["latest_block_height"].as_str()?.parse().ok()
}
