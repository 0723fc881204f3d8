//! Real devchain processes: they agree, they mend, they refuse what is wrong.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod net;

use std::time::{Duration, Instant};

use commonware_codec::Encode as _;
use dvb_plugin_commonware::chain::client::{Client, ClientError};
use dvb_plugin_commonware::chain::config::SIGN_STATE;
use dvb_plugin_commonware::chain::tx::{Address, Transfer, namespace};
use dvb_plugin_commonware::plugin::Commonware;
use dvb_plugin_sdk::{Plugin as _, PluginFault, pb};
use futures::StreamExt as _;
use net::{DEVCHAIN, Net, command};
use serde_json::json;

const FULL: usize = 4;

async fn transfer(net: &Net, node: usize, amount: u64) -> String {
    let (from, to) = (net.account(0), Address::of(&net.account(1)));
    let client = net.client(node);
    let nonce = client.account(&Address::of(&from).to_string()).await.unwrap().next_nonce;
    client.submit(&signed(&client, &from, to, amount, nonce).await).await.unwrap()
}

async fn signed(client: &Client, from: &commonware_cryptography::ed25519::PrivateKey, to: Address, amount: u64, nonce: u64) -> Vec<u8> {
    let genesis = hex::decode(client.status().await.unwrap().genesis_hash).unwrap();
    let genesis = dvb_plugin_commonware::chain::decode(&genesis).unwrap();
    Transfer::sign(from, to, amount, nonce, &namespace(&genesis)).encode().to_vec()
}

async fn balance(net: &Net, node: usize, account: u32) -> u64 {
    net.client(node).account(&Address::of(&net.account(account)).to_string()).await.unwrap().balance
}

/// Waits until a transfer is final on a node; gives its height.
async fn finalized(net: &Net, node: usize, hash: &str) -> u64 {
    let client = net.client(node);
    let mut heights = client.heights().await.unwrap();
    for _ in 0..40 {
        match client.call("tx", json!([hash])).await {
            Ok(tx) if tx["status"] == "finalized" => return tx["height"].as_u64().unwrap(),
            Ok(_) | Err(ClientError::Rpc { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        heights.next().await.unwrap().unwrap();
    }
    panic!("{hash} is in no block of {} after 40 blocks", net.nodes[node].name);
}

#[tokio::test]
async fn five_processes_agree_and_survive_every_kill() {
    let mut net = Net::new(4, 1, 200).await;
    let all = [0, 1, 2, 3, FULL];

    // Four validators; the full node comes later.
    let begun = Instant::now();
    (0..4).for_each(|node| net.start(node));
    for node in 0..4 {
        net.until(node, "height 1", |status| status.height >= 1).await;
    }
    println!("MEASURED: start to height 1 on four validators: {:?}", begun.elapsed());
    assert!(net.home(0).join(SIGN_STATE).exists(), "a validator's votes are not where the plugin says");

    // Value moves through a validator and is seen on each.
    let hash = transfer(&net, 2, 70).await;
    for node in 0..4 {
        finalized(&net, node, &hash).await;
        assert_eq!((balance(&net, node, 0).await, balance(&net, node, 1).await), (999_999_930, 1_000_000_070));
    }

    // A late full node fetches what it missed, votes for nothing, and takes transfers too.
    let tip = net.until(0, "height 8", |status| status.height >= 8).await.height;
    let begun = Instant::now();
    net.start(FULL);
    let status = net.until(FULL, "caught up", |status| !status.catching_up && status.height >= tip).await;
    println!("MEASURED: late full node in sync at height {}: {:?}", status.height, begun.elapsed());
    assert_eq!((status.role.as_str(), status.peers), ("fullnode", 4));
    net.agreed(&all, tip).await;
    let hash = transfer(&net, FULL, 30).await;
    finalized(&net, 1, &hash).await;

    // SIGKILL for all five at once: nothing is lost, and it goes on.
    net.all_reach(12).await;
    let height = net.client(0).status().await.unwrap().height;
    let before = net.agreed(&all, height).await;
    net.kill(&all);
    let begun = Instant::now();
    net.start_all();
    for node in all {
        net.until(node, "a block after the restart", |status| status.height > height && !status.catching_up).await;
    }
    println!("MEASURED: all five killed: going on after {:?}", begun.elapsed());
    assert_eq!(net.agreed(&all, height).await, before);
    assert_eq!(balance(&net, 3, 1).await, 1_000_000_100);
    assert_eq!(net.client(3).call("tx", json!([hash])).await.unwrap()["status"], "finalized");

    // One of four down: the rest go on. The one back: in sync.
    net.kill(&[3]);
    let height = net.client(0).status().await.unwrap().height;
    net.until(0, "five blocks with three validators", |status| status.height >= height + 5).await;
    let begun = Instant::now();
    net.start(3);
    net.until(3, "in sync again", |status| !status.catching_up).await;
    println!("MEASURED: one killed: in sync again after {:?}", begun.elapsed());

    // Two of four down: no quorum, no block. Both back: it resumes.
    net.kill(&[1, 3]);
    // What was voted for by all four may still become final.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let halted = net.client(0).status().await.unwrap().height;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(net.client(0).status().await.unwrap().height, halted, "two of four made a block");
    let begun = Instant::now();
    net.start(1);
    net.start(3);
    for node in all {
        net.until(node, "a block after the halt", |status| status.height > halted).await;
    }
    println!("MEASURED: two killed: resumed after {:?}", begun.elapsed());
    net.agreed(&all, halted + 1).await;

    for node in all {
        let (status, took) = net.stop(node);
        assert_eq!(status.code(), Some(0), "{}", net.nodes[node].name);
        assert!(took < Duration::from_secs(1), "{} took {took:?} to stop", net.nodes[node].name);
    }
}

#[tokio::test]
async fn the_rpc_answers_and_refuses_with_codes() {
    let mut net = Net::new(1, 0, 100).await;
    net.start(0);
    net.until(0, "height 1", |status| status.height >= 1).await;
    let client = net.client(0);
    let (from, to) = (net.account(0), Address::of(&net.account(1)));
    let code = |result: Result<serde_json::Value, ClientError>| match result {
        Err(ClientError::Rpc { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    for (method, params, expect) in [
        ("nonsense", json!([]), -32601),
        ("account", json!([]), -32602),
        ("account", json!(["xyz"]), -32602),
        ("block", json!([1_000_000]), -32001),
        ("tx", json!(["00".repeat(32)]), -32001),
        ("submit", json!(["00"]), -32602),
    ] {
        assert_eq!(code(client.call(method, params.clone()).await), expect, "{method} {params}");
    }
    for (amount, nonce, expect) in [(2_000_000_000, 0, -32013), (1, 64, -32012), (0, 0, -32014)] {
        let tx = signed(&client, &from, to, amount, nonce).await;
        assert_eq!(code(client.call("submit", json!([hex::encode(tx)])).await), expect, "amount {amount}, nonce {nonce}");
    }
    let good = signed(&client, &from, to, 5, 0).await;
    let forged: Vec<u8> = good.iter().enumerate().map(|(at, byte)| if at == 143 { byte ^ 1 } else { *byte }).collect();
    assert_eq!(code(client.call("submit", json!([hex::encode(forged)])).await), -32010);
    // The zero key is of small order: without a check, anybody could sign for it.
    assert_eq!(code(client.call("submit", json!(["00".repeat(152)])).await), -32010);
    let hash = client.submit(&good).await.unwrap();
    finalized(&net, 0, &hash).await;
    assert_eq!(code(client.call("submit", json!([hex::encode(good)])).await), -32011);

    // Each block of the stream follows the one before.
    let mut heights = client.heights().await.unwrap();
    let first = heights.next().await.unwrap().unwrap().height;
    for step in 1..4 {
        assert_eq!(heights.next().await.unwrap().unwrap().height, first + step);
    }
}

#[tokio::test]
async fn the_plugin_sees_a_running_node_and_its_end() {
    let mut net = Net::new(1, 0, 100).await;
    net.start(0);
    net.until(0, "height 1", |status| status.height >= 1).await;
    let plugin = Commonware::default();
    let node = || pb::NodeRef { node: Some(net.nodes[0].clone()), ..pb::NodeRef::default() };
    let status = plugin.get_node_status(node()).await.unwrap();
    assert!(status.ready && !status.catching_up && status.height >= 1, "{status:?}");
    let height = plugin.get_block_height(node()).await.unwrap();
    let mut heights = plugin.stream_block_heights(node()).await.unwrap();
    let first = heights.next().await.unwrap().unwrap();
    assert!(first.height >= height.height && first.hash.len() == 64 && first.app_hash.len() == 64 && first.time.ends_with('Z'), "{first:?}");
    assert_eq!(heights.next().await.unwrap().unwrap().height, first.height + 1);
    net.kill(&[0]);
    let end = loop {
        match heights.next().await.expect("the stream ends with an error") {
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert!(matches!(end, PluginFault::Unavailable(_)), "{end:?}");
}

#[tokio::test]
async fn many_transfers_of_one_account_go_through_a_loaded_network() {
    let mut net = Net::new(4, 0, 100).await;
    net.start_all();
    net.all_reach(1).await;
    let (from, to) = (net.account(0), Address::of(&net.account(1)));
    let begun = Instant::now();
    let mut last = String::new();
    // As many as an account may have pending, handed in at all four nodes in turn and thus out of order.
    for nonce in 0..64 {
        let client = net.client(nonce as usize % 4);
        last = client.submit(&signed(&client, &from, to, 1, nonce).await).await.unwrap();
    }
    let height = finalized(&net, 0, &last).await;
    println!("MEASURED: 64 transfers final at height {height} after {:?}", begun.elapsed());
    for node in 0..4 {
        finalized(&net, node, &last).await;
        assert_eq!(balance(&net, node, 1).await, 1_000_000_064);
    }
    net.agreed(&[0, 1, 2, 3], height).await;
}

#[tokio::test]
async fn the_helper_commands_list_accounts_and_send_transfers() {
    let mut net = Net::new(1, 0, 100).await;
    net.start(0);
    net.until(0, "height 1", |status| status.height >= 1).await;
    let mnemonic = net.mnemonic().to_string_lossy().into_owned();
    let keys = devchain(&["keys", "--mnemonic", &mnemonic, "--count", "2"]);
    assert_eq!(keys, format!("account:0 {}\naccount:1 {}\n", Address::of(&net.account(0)), Address::of(&net.account(1))));
    let rpc = format!("http://{}:26101", net.nodes[0].address);
    devchain(&["tx", "transfer", "--rpc", &rpc, "--mnemonic", &mnemonic, "--to", "account:1", "--amount", "9", "--wait"]);
    assert_eq!(balance(&net, 0, 1).await, 1_000_000_009);
}

#[expect(clippy::disallowed_methods, reason = "a short command of the test's own")]
fn devchain(args: &[&str]) -> String {
    let output = std::process::Command::new(DEVCHAIN).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn each_way_to_fail_has_its_exit_code() {
    let mut net = Net::new(1, 0, 100).await;
    net.start(0);
    net.until(0, "height 1", |status| status.height >= 1).await;
    let home = net.home(0);
    let exit = || command(&home).status().unwrap().code().unwrap();
    let edit = |file: &str, from: &str, to: &str| {
        let path = home.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    };

    assert_eq!(exit(), 15, "the home is in use");
    net.stop(0);

    let listener = std::net::TcpListener::bind((net.nodes[0].address.as_str(), 26101)).unwrap();
    assert_eq!(exit(), 13, "the port is taken");
    drop(listener);

    edit("config.toml", "block_time_ms = 100", "block_time_ms = 1");
    assert_eq!(exit(), 10, "a bad config");
    edit("config.toml", "block_time_ms = 1\n", "block_time_ms = 100\n");

    edit("genesis.json", "test-1", "test-2");
    assert_eq!(exit(), 11, "another genesis than that of the data");
    edit("genesis.json", "test-2", "test-1");

    let key = std::fs::read_to_string(home.join("node.key")).unwrap();
    std::fs::write(home.join("node.key"), "not a key").unwrap();
    assert_eq!(exit(), 12, "a bad key");
    std::fs::write(home.join("node.key"), key).unwrap();

    std::fs::write(home.join("data/ledger.sqlite"), vec![7; 8192]).unwrap();
    assert_eq!(exit(), 14, "a corrupt ledger");

    // Without its ledger a node makes it again from the archive of blocks.
    for file in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = std::fs::remove_file(home.join("data").join(file));
    }
    net.start(0);
    net.until(0, "height 2", |status| status.height >= 2 && !status.catching_up).await;
}

#[tokio::test]
async fn a_node_costs_little_while_it_makes_blocks() {
    let mut net = Net::new(4, 0, 1000).await;
    net.start_all();
    net.all_reach(2).await;
    let ticks = |pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before: Vec<_> = (0..4).map(|node| ticks(net.pid(node))).collect();
    let begun = Instant::now();
    net.all_reach(6).await;
    let seconds = begun.elapsed().as_secs_f64();
    for (node, before) in before.into_iter().enumerate() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", net.pid(node))).unwrap();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let cpu = (ticks(net.pid(node)) - before) as f64 / seconds;
        println!("MEASURED: {}: {cpu:.1} % of a core, {} MiB", net.nodes[node].name, rss / 1024);
        assert!(rss < 400 * 1024, "{rss} kB resident");
    }
}
