//! Transactions on real chains: confirmed once each, whatever happens to the daemon. The chain's own balances tell.

use e2e::{Follower, TestHome, wasmd};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const QUICK: &str = "{backoff: 300ms}";
const SENDERS: u64 = 4;
const RECEIVER: &str = "account:9";

/// An HTTP exchange with a node; the body of the answer.
pub(crate) fn http(endpoint: &str, request: &str) -> Value {
    let mut stream = TcpStream::connect(endpoint).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

pub(crate) fn endpoint(home: &TestHome, node: &str, port: &str) -> String {
    let node = home.node(node);
    format!("{}:{}", node["spec"]["address"].as_str().unwrap_or_default(), node["spec"]["ports"][port])
}

pub(crate) fn address(home: &TestHome, devnet: &str, account: &str) -> String {
    let devnet = home.devnet(devnet);
    let accounts = devnet["status"]["accounts"].as_array().cloned().unwrap_or_default();
    let found = accounts.iter().find(|found| found["name"] == account).unwrap_or_else(|| panic!("no {account}"));
    found["address"].as_str().unwrap_or_default().to_owned()
}

/// Balance and sequence of an account by what is in blocks.
pub(crate) trait Ledger {
    fn account(&self, home: &TestHome, devnet: &str, name: &str) -> (u64, u64);
}

pub(crate) struct Devchain;
pub(crate) struct Wasmd {
    /// Whom to ask.
    pub(crate) node: &'static str,
}
const WASMD: Wasmd = Wasmd { node: "validator-0" };

impl Ledger for Devchain {
    fn account(&self, home: &TestHome, devnet: &str, name: &str) -> (u64, u64) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "account", "params": [address(home, devnet, name)]}).to_string();
        let request = format!("POST / HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = http(&endpoint(home, &format!("{devnet}/validator-0"), "rpc"), &request);
        (answer["result"]["balance"].as_u64().unwrap(), answer["result"]["nonce"].as_u64().unwrap())
    }
}

impl Ledger for Wasmd {
    fn account(&self, home: &TestHome, devnet: &str, name: &str) -> (u64, u64) {
        wasmd_account(home, &format!("{devnet}/{}", self.node), &address(home, devnet, name))
    }
}

/// Balance and sequence of an address, as a node of wasmd tells them.
pub(crate) fn wasmd_account(home: &TestHome, node: &str, address: &str) -> (u64, u64) {
    let balances = wasmd_query(home, node, &["bank", "balances", address]);
    (number(&balances, "amount"), number(&wasmd_query(home, node, &["auth", "account", address]), "sequence"))
}

/// The chain's own command line is asked: each version has it.
#[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
pub(crate) fn wasmd_query(home: &TestHome, node: &str, words: &[&str]) -> Value {
    let rpc = endpoint(home, node, "rpc");
    let program = home.node(node)["spec"]["binaryPath"].as_str().unwrap_or_default().to_owned();
    let mut command = Command::new(&program);
    command.env("LD_LIBRARY_PATH", Path::new(&program).with_file_name("lib")); // as devnetd does it: Go's module cache may be gone
    command.arg("query").args(words).args(["--node", &format!("tcp://{rpc}"), "-o", "json", "--home"]).arg(home.path().join("cli"));
    let output = command.output().expect("the chain's command line runs");
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The first field of this name, wherever it stands; absent where it is 0.
pub(crate) fn number(value: &Value, field: &str) -> u64 {
    match value {
        Value::Object(fields) => match fields.get(field).and_then(Value::as_str) {
            Some(text) => text.parse().unwrap_or(0),
            None => fields.values().map(|value| number(value, field)).max().unwrap_or(0),
        },
        Value::Array(items) => items.iter().map(|value| number(value, field)).max().unwrap_or(0),
        _ => 0,
    }
}

/// `count` transfers in turn from four accounts, and what they move in all.
pub(crate) fn transfers(home: &TestHome, count: u64, kind: &str, unit: &str) -> (String, u64) {
    let (mut lines, mut total) = (String::new(), 0);
    for number in 0..count {
        let amount = 1 + number % 7;
        total += amount;
        let line = json!({"type": kind, "signer": format!("account:{}", number % SENDERS), "to": RECEIVER, "amount": format!("{amount}{unit}")});
        lines.push_str(&format!("{line}\n"));
    }
    (home.file("batch.jsonl", &lines), total)
}

/// Each sender's sequence rose by its share, the receiver got everything: nothing twice, nothing lost.
#[track_caller]
pub(crate) fn assert_once_each(home: &TestHome, devnet: &str, ledger: &dyn Ledger, count: u64, total: u64, before: &[(u64, u64)]) {
    for sender in 0..SENDERS {
        let (_, sequence) = ledger.account(home, devnet, &format!("account:{sender}"));
        assert_eq!(sequence - before[sender as usize].1, count / SENDERS, "account:{sender}");
    }
    let (balance, _) = ledger.account(home, devnet, RECEIVER);
    assert_eq!(balance - before[SENDERS as usize].0, total);
}

pub(crate) fn standing(home: &TestHome, devnet: &str, ledger: &dyn Ledger) -> Vec<(u64, u64)> {
    let names = (0..SENDERS).map(|sender| format!("account:{sender}")).chain([RECEIVER.to_owned()]);
    names.map(|name| ledger.account(home, devnet, &name)).collect()
}

#[test]
fn a_transfer_on_the_devchain_is_confirmed_and_the_same_request_id_pays_once() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["tx", "types", "quick"]).ok().prints("transfer");
    home.ctl(&["tx", "templates", "quick", "transfer"]).ok().prints("\"amount\"");
    home.ctl(&["tx", "templates", "quick", "nope"]).exits(3).says("transfer");
    let (before, _) = Devchain.account(&home, "quick", "account:1");
    let submit = ["tx", "submit", "quick", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "7"];
    let with = |more: &[&'static str]| [submit.as_slice(), more].concat();
    let tx = home.json(&with(&["--request-id", "rent", "--wait"]));
    assert_eq!((&tx["status"]["phase"], &tx["kind"]), (&json!("Confirmed"), &json!("Transaction")));
    let again = home.json(&with(&["--request-id", "rent", "--wait"]));
    assert_eq!(again["metadata"]["uid"], tx["metadata"]["uid"]);
    assert_eq!(Devchain.account(&home, "quick", "account:1").0, before + 7);
    let other =
        ["tx", "submit", "quick", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "8", "--request-id", "rent"];
    home.ctl(&other).exits(4).says("request id `rent`");

    let name = tx["metadata"]["name"].as_str().unwrap();
    home.ctl(&["tx", "watch", name]).ok().prints("Confirmed");
    home.ctl(&["tx", "watch", "quick/rent", name]).ok().prints("Confirmed");
    home.ctl(&["tx", "status", name]).ok().prints("Confirmed").prints("7 from account:0 to account:1");
    home.ctl(&["get", "tx", "quick"]).ok().prints(name);
    home.ctl(&["get", name]).ok().prints("Confirmed");
    home.ctl(&["describe", name]).ok().prints("amount=7");
    home.ctl(&["why", name]).ok().prints("TransactionSubmitted").prints("[user:");
    home.ctl(&["tx", "list", "quick", "--phase", "failed"]).ok().says("no transactions");
    home.ctl(&["tx", "status", "quick/tx-0000000000000000"]).exits(3);

    let refused =
        home.ctl(&["tx", "submit", "quick", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "5000000000", "--wait"]);
    refused.exits(1).says("insufficient balance");
    followed_to_its_end(&home);
    home.ctl(&["tx", "submit", "quick", "--type", "transfer", "--signer", "account:99", "--to", "account:1", "--amount", "1"])
        .exits(4)
        .says("spec.signer")
        .says("10 accounts");
    home.ctl(&["tx", "submit", "quick", "--type", "transfr", "--signer", "account:0", "--to", "account:1", "--amount", "1"])
        .exits(4)
        .says("spec.txType: there is no transaction type");
    home.ctl(&["tx", "submit", "quick", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "seven"])
        .exits(4)
        .says("no whole number");
    let line = |amount: &str| format!(r#"{{"type": "transfer", "signer": "account:2", "to": "account:3", "amount": {amount}}}"#);
    let batch = home.file("wrong.jsonl", &[line("1"), String::new(), line("2"), line("-3"), line("4")].join("\n"));
    home.ctl(&["tx", "batch", "quick", "-f", &batch, "--request-id", "b"])
        .exits(4)
        .says("wrong.jsonl:4: spec.payload")
        .says("2 transactions before it")
        .says(&format!("dvbctl tx batch quick -f {batch} --request-id b"));
    // Mended, it goes on where it stood.
    home.file("wrong.jsonl", &[line("1"), String::new(), line("2"), line("3"), line("4")].join("\n"));
    home.ctl(&["tx", "batch", "quick", "-f", &batch, "--request-id", "b", "--wait"]).ok().prints("4 transactions: 4 confirmed");
    assert_eq!(Devchain.account(&home, "quick", "account:2").1, 4);
    // A line that cannot be read: of a file nothing is sent, of a pipe what stands before it, and that is said.
    let before = home.rows("transactions");
    let torn = [line("1"), line("2"), "{".into(), line("3")].join("\n");
    let file = home.file("torn.jsonl", &torn);
    home.ctl(&["tx", "batch", "quick", "-f", &file]).exits(2).says("torn.jsonl:3:").says("nothing is submitted");
    assert_eq!(home.rows("transactions"), before);
    home.ctl_with_input(&["tx", "batch", "quick", "-f", "-"], &torn).exits(2).says("<stdin>:3:").says("2 transactions before it are stored");
    assert_eq!(home.rows("transactions"), before + 2);
    home.ctl(&["why", "quick/rent"]).ok().prints("TransactionSubmitted");
    home.ctl(&["why", "tx", "quick/rent"]).ok().prints("TransactionSubmitted");
    home.ctl(&["events", "quick/rent"]).ok().prints("TransactionSubmitted");
    home.ctl(&["why", "quick/rant"]).exits(3).says("there is no node, upgrade, export or transaction `quick/rant`").says("dvbctl why quick/rent");
    home.ctl_with_input(&["tx", "batch", "quick", "-f", "-"], &line("x")).exits(2).says("<stdin>:1:");
    home.ctl_with_input(&["tx", "batch", "quick", "-f", "-"], r#"{"type": 7}"#).exits(2).says("expected a text, found `7`");
    home.ctl_with_input(&["tx", "batch", "quick", "-f", "-"], &line("\"x\"")).exits(4).says("<stdin>:1: spec.payload");
    home.ctl(&["tx", "submit", "nope", "--type", "transfer", "--signer", "account:0"]).exits(3);
    home.ctl(&["delete", "quick", "--yes"]).ok();
    assert_eq!(home.rows("transactions"), 0);
}

/// One that waits for its devnet: each phase once, then the end, well or not.
fn followed_to_its_end(home: &TestHome) {
    home.ctl(&["stop", "quick"]).ok();
    let follow = |amount: &str, request: &str| {
        let words = ["tx", "submit", "quick", "--type", "transfer", "--signer", "account:4", "--to", "account:5", "--request-id", request];
        home.ctl(&[words.as_slice(), &["--amount", amount]].concat()).ok();
        let watch = Follower::of(home, &["tx", "watch", &format!("quick/{request}"), "-o", "json"]);
        watch.until_phase("Pending");
        watch
    };
    let (mut paid, mut refused) = (follow("7", "watched"), follow("5000000000", "too-much"));
    home.ctl(&["start", "quick"]).ok();
    assert_eq!((paid.exit_code(), refused.exit_code()), (Some(0), Some(1)), "{:?} {:?}", paid.phases(), refused.phases());
    refused.err.says("insufficient balance");
    for (watch, end) in [(&paid, "Confirmed"), (&refused, "Failed")] {
        let phases = watch.phases();
        assert_eq!((phases.first().map(String::as_str), phases.last().map(String::as_str)), (Some("Pending"), Some(end)), "{phases:?}");
        let once: std::collections::BTreeSet<_> = phases.iter().collect();
        assert!(once.len() == phases.len() || once.contains(&"Retrying".to_owned()), "who tries again goes through them again: {phases:?}");
    }
    home.ctl(&["tx", "watch", "quick/too-much"]).exits(1).says("insufficient balance");
    home.ctl(&["tx", "watch", "quick/watched", "quick/too-much"]).exits(1).says("quick/tx-");
    home.ctl(&["tx", "watch", "quick/nothing"]).exits(3);
    home.ctl(&["tx", "watch", "nowhere"]).exits(3);
}

#[test]
fn five_hundred_transfers_on_the_devchain_are_confirmed_once_each() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    println!("{}", confirm_all(&home, "quick", &Devchain, 500, "transfer", ""));
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    confirm_all_over_a_kill(&home, "quick", &Devchain, 500, "transfer", "");
}

#[test]
fn a_reset_fails_the_unconfirmed_and_the_new_chain_starts_from_nothing() {
    let home = TestHome::new();
    home.up_quickstart("quick", QUICK);
    home.ctl(&["stop", "quick"]).ok();
    let tx = home.json(&["tx", "submit", "quick", "--type", "transfer", "--signer", "account:0", "--to", "account:1", "--amount", "7"]);
    assert_eq!(tx["status"]["phase"], "Pending");
    home.ctl(&["reset", "quick", "--yes"]).ok();
    let name = tx["metadata"]["name"].as_str().unwrap();
    home.ctl(&["tx", "status", name, "--wait", "--timeout", "20s"]).exits(1).says("was reset");
    home.ctl(&["start", "quick"]).ok();
    let pay = [
        "tx",
        "submit",
        "quick",
        "--type",
        "transfer",
        "--signer",
        "account:0",
        "--to",
        "account:1",
        "--amount",
        "7",
        "--request-id",
        "rent",
        "--wait",
    ];
    home.ctl(&pay).ok().prints("Confirmed in block");
    assert_eq!(Devchain.account(&home, "quick", "account:0").1, 1);
    home.ctl(&["reset", "quick", "--yes"]).ok();
    assert_eq!(home.json(&["tx", "status", "quick/rent"])["status"]["formerChain"], true);
    home.ctl(&["tx", "list", "quick"]).ok().prints("of the former chain");
    home.ctl(&["tx", "status", "quick/rent"]).ok().prints("the devnet was reset since");
    home.ctl(&pay).ok().prints("of the former chain");
}

#[test]
fn wasmd_confirms_transfers_once_each_and_says_no_in_its_own_words() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    up_wasmd(&home, &program);
    let tx = |words: &str| home.ctl(&words.split(' ').collect::<Vec<_>>());
    let submit = |amount: &str| tx(&format!("tx submit wasm --type bank/send --signer account:5 --to account:6 --amount {amount} --wait -o json"));
    let (before, _) = WASMD.account(&home, "wasm", "account:6");
    let sent = submit("7stake").ok().json();
    assert_eq!(sent["status"]["phase"], "Confirmed", "{sent}");
    let gas = |of: &str| sent["status"][of].as_u64();
    assert!(gas("gasUsed") > Some(10_000) && gas("gasLimit") > gas("gasUsed"), "{sent}");
    assert_eq!(WASMD.account(&home, "wasm", "account:6").0, before + 7);
    submit("9000000000000000stake").exits(1).says("insufficient funds");
    submit("1nothing").exits(1).says("insufficient funds");
    tx("tx submit wasm --type staking/delegate --signer account:5 --set validator=validator:1 --amount 1000stake --wait").ok();
    tx("tx submit wasm --type staking/unbond --signer account:5 --set validator=validator:1 --amount 400stake --wait").ok();
    let propose = r#"{"title": "Words", "summary": "nothing but words", "deposit": "50000000stake"}"#;
    home.ctl(&["tx", "submit", "wasm", "--type", "gov/submit-proposal", "--signer", "account:5", "--payload", propose, "--wait"]).ok();
    tx("tx submit wasm --type gov/vote --signer validator:0 --set proposal=1 --set option=yes --wait").ok();
    println!("{}", confirm_all(&home, "wasm", &WASMD, 500, "bank/send", "stake"));
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_batch_on_wasmd_loses_and_doubles_nothing() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    up_wasmd(&home, &program);
    confirm_all_over_a_kill(&home, "wasm", &WASMD, 500, "bank/send", "stake");
}

fn up_wasmd(home: &TestHome, program: &Path) {
    let text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: wasm}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  validators: 4\n  \
         blockTime: 500ms\n  localhost: false\n",
        program.display()
    );
    home.ctl(&["up", &home.file("wasm.yaml", &text), "--timeout", "90s"]).ok();
}

/// Returns what was measured.
fn confirm_all(home: &TestHome, devnet: &str, ledger: &dyn Ledger, count: u64, kind: &str, unit: &str) -> String {
    let before = standing(home, devnet, ledger);
    let (file, total) = transfers(home, count, kind, unit);
    let started = Instant::now();
    let summary = home.json(&["tx", "batch", devnet, "-f", &file, "--wait", "--timeout", "120s"]);
    let took = started.elapsed();
    assert_eq!((summary["confirmed"].as_u64(), summary["failed"].as_u64()), (Some(count), Some(0)), "{summary}");
    assert_once_each(home, devnet, ledger, count, total, &before);
    let events = home.rows("events");
    assert!(events < count, "events are told of many transactions at a time: {events}");
    let rate = count as f64 / took.as_secs_f64();
    format!("MEASURED: {count} transfers of 4 signers on {devnet}: {took:.2?}, {rate:.0} confirmed a second; {events} rows of events in all")
}

fn confirm_all_over_a_kill(home: &TestHome, devnet: &str, ledger: &dyn Ledger, count: u64, kind: &str, unit: &str) {
    let before = standing(home, devnet, ledger);
    let (file, total) = transfers(home, count, kind, unit);
    let mut batch = home.command(&["tx", "batch", devnet, "-f", &file, "--wait", "--timeout", "150s", "-o", "json"]);
    let batch = batch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dvbctl starts");
    let first = format!("account:{}", SENDERS - 1);
    home.eventually("the first are in a block", Duration::from_secs(30), |home| {
        ledger.account(home, devnet, &first).1 > before[SENDERS as usize - 1].1
    });
    let daemon = home.daemon_pid().expect("the daemon runs");
    kill(daemon, Signal::SIGKILL).expect("it is ours");
    home.eventually("it is dead", Duration::from_secs(10), |_| !e2e::is_alive(daemon));
    home.ctl(&["daemon", "start"]).ok();
    let output = batch.wait_with_output().expect("dvbctl ends");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!((summary["confirmed"].as_u64(), summary["failed"].as_u64()), (Some(count), Some(0)), "{summary}");
    assert_once_each(home, devnet, ledger, count, total, &before);
}
