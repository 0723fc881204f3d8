//! Full nodes that come and go by `apply` while transactions flow: they catch up, and leave nothing behind.

use crate::{
    tx::{Devchain, Ledger, Wasmd, assert_once_each, standing, transfers},
    wasmd::devnet,
};
use e2e::{TestHome, Wasmd as Binary, is_alive, quickstart, wasmds};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const DEVNET: &str = "web";
const BATCH: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// A chain, and the document of its devnet with one full node.
struct Case {
    document: String,
    ledger: Box<dyn Ledger + Sync>,
    kind: &'static str,
    unit: &'static str,
}

/// The peers of a devchain are written into its nodes at their start, and nobody else is let in: nodes can leave, and none can join.
#[test]
fn full_nodes_leave_a_devchain_by_apply_while_transactions_flow_and_a_latecomer_is_refused() {
    let home = TestHome::new();
    let case = Case { document: quickstart(DEVNET, "{backoff: 300ms}"), ledger: Box::new(Devchain), kind: "transfer", unit: "" };
    let file = |count: u32| case.file(&home, count);
    home.ctl(&["up", &file(3)]).ok();
    let before = standing(&home, DEVNET, &Devchain);
    let (sent, total) = while_flowing(&home, &case, || leave(&home, &file));
    assert_once_each(&home, DEVNET, &Devchain, sent, total, &before);

    let words = "fullnode-1 cannot join: plugin commonware adds no node to a chain that has its genesis";
    home.ctl(&["apply", "-f", &file(3), "--dry-run"]).exits(4).says(words);
    home.ctl(&["apply", "-f", &file(3), "--wait"]).exits(1).says(words);
    home.all_rise(DEVNET, 1);
    assert_eq!(home.nodes(DEVNET).len(), 5);
    home.ctl(&["apply", "-f", &file(1), "--wait"]).ok();
}

#[test]
fn on_each_sdk_two_full_nodes_join_and_leave_by_apply_while_transactions_flow() {
    for wasmd in wasmds() {
        let home = TestHome::new();
        let case = of_wasmd(&home, &wasmd);
        println!("wasmd {} (SDK {}): {}", wasmd.version, wasmd.sdk, full_nodes_come_and_go(&home, &case));
    }
}

#[test]
fn validators_do_not_come_or_go_by_apply_and_the_refusal_says_what_to_do() {
    let home = TestHome::new();
    home.up_quickstart(DEVNET, "{backoff: 300ms}");
    for count in [3, 5] {
        let text = quickstart(DEVNET, "{backoff: 300ms}").replace("validators: 4", &format!("validators: {count}"));
        let file = home.file("more.yaml", &text);
        let said = home.ctl(&["apply", "-f", &file, "--dry-run"]).exits(4).stderr;
        assert_eq!(home.ctl(&["apply", "-f", &file]).exits(4).stderr, said, "a dry run says the same");
        for words in ["validators", &format!("is 4 and cannot become {count}"), "dvbctl delete web --yes, then apply again"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    home.all_rise(DEVNET, 1);
    assert_eq!(home.nodes(DEVNET).len(), 5);
}

fn of_wasmd(home: &TestHome, wasmd: &Binary) -> Case {
    let text = fs::read_to_string(devnet(home, DEVNET, &wasmd.path, &["localhost: false"])).unwrap();
    let document = text.replace("500ms", "300ms");
    Case { document, ledger: Box::new(Wasmd { node: "validator-1" }), kind: "bank/send", unit: "stake" }
}

impl Case {
    fn file(&self, home: &TestHome, full_nodes: u32) -> String {
        let text = self.document.replace("fullNodes: 1", &format!("fullNodes: {full_nodes}"));
        assert_eq!(text == self.document, full_nodes == 1, "{text}");
        home.file(&format!("{full_nodes}.yaml"), &text)
    }
}

/// Returns what flowed meanwhile.
fn full_nodes_come_and_go(home: &TestHome, case: &Case) -> String {
    let file = |count: u32| case.file(home, count);
    home.ctl(&["up", &file(1), "--timeout", "90s"]).ok();
    let before = standing(home, DEVNET, case.ledger.as_ref());
    let leases = home.rows("leases");
    let (sent, total) = while_flowing(home, case, || {
        join(home, &file);
        leave(home, &file);
    });
    assert_eq!(home.rows("leases"), leases);
    assert_once_each(home, DEVNET, case.ledger.as_ref(), sent, total, &before);
    format!("{sent} transfers while two full nodes came and went")
}

/// From one full node to three.
fn join(home: &TestHome, file: &dyn Fn(u32) -> String) {
    home.ctl(&["apply", "-f", &file(3), "--dry-run"]).ok().prints("~ spec.fullNodes: 1 -> 3");
    assert_eq!(home.nodes(DEVNET).len(), 5, "a dry run changes nothing");
    home.ctl(&["apply", "-f", &file(3), "--wait", "--timeout", "90s"]).ok().prints("configured").says("web/fullnode-2 Running");
    let goal = home.highest(DEVNET) + 2;
    home.eventually("the new nodes have caught up", PATIENCE, |home| {
        home.lowest(DEVNET) >= goal && home.nodes(DEVNET).values().all(|node| node["status"]["catchingUp"] != true)
    });
    assert_eq!(home.nodes(DEVNET).len(), 7);
}

/// From three full nodes to one.
fn leave(home: &TestHome, file: &dyn Fn(u32) -> String) {
    let leases = home.rows("leases");
    let is_leaving = |name: &str| ["fullnode-1", "fullnode-2"].contains(&name);
    let (leaving, staying): (BTreeMap<_, _>, BTreeMap<_, _>) = home.nodes(DEVNET).into_iter().partition(|(name, _)| is_leaving(name));
    let pids: Vec<_> = home.pids(DEVNET).into_iter().filter(|(name, _)| is_leaving(name)).map(|(_, pid)| pid).collect();
    assert_eq!((leaving.len(), pids.len()), (2, 2));
    home.ctl(&["apply", "-f", &file(1), "--wait", "--timeout", "90s"]).ok().prints("configured");
    home.eventually("the two are gone", PATIENCE, |home| home.nodes(DEVNET).len() == 5 && pids.iter().all(|pid| !is_alive(*pid)));
    assert!(home.rows("leases") < leases, "their leases are given back");
    for node in leaving.values() {
        let folder = node["spec"]["homeDir"].as_str().unwrap_or_default();
        assert!(!folder.is_empty() && !fs::exists(folder).unwrap(), "{folder}");
        assert!(staying.values().all(|other| knows_nothing_of(other, node)), "nobody is told to call one that is gone: {node}");
    }
    home.all_rise(DEVNET, 2);
    for (name, node) in home.nodes(DEVNET) {
        assert_eq!((&node["status"]["restartCount"], &node["status"]["pid"]), (&json!(0), &staying[&name]["status"]["pid"]), "{name} was disturbed");
    }
}

/// Whether a Cosmos node's configuration knows nothing of the address of `gone`; a devchain's is made anew for its next start.
fn knows_nothing_of(node: &Value, gone: &Value) -> bool {
    let config = fs::read_to_string(format!("{}/config/config.toml", node["spec"]["homeDir"].as_str().unwrap_or_default())).unwrap_or_default();
    !config.contains(gone["spec"]["address"].as_str().unwrap())
}

/// How many transfers flowed, and what they moved in all.
fn while_flowing(home: &TestHome, case: &Case, change: impl FnOnce()) -> (u64, u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flow = scope.spawn(|| flow(home, case, &stop));
        let raised = Raised(&stop);
        change();
        drop(raised);
        flow.join().expect("all transactions are confirmed")
    })
}

/// Batch after batch until `stop`; how many transfers that were, and what they moved in all.
fn flow(home: &TestHome, case: &Case, stop: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut moved) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let (file, total) = transfers(home, BATCH, case.kind, case.unit);
        let summary = home.json(&["tx", "batch", DEVNET, "-f", &file, "--wait", "--timeout", "90s"]);
        assert_eq!((&summary["confirmed"], &summary["failed"]), (&json!(BATCH), &json!(0)), "{summary}");
        (sent, moved) = (sent + BATCH, moved + total);
    }
    (sent, moved)
}

/// Lets the flow end also when the test fails.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
