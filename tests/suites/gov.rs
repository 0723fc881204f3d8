//! Governance on a real chain: what is proposed, voted and changed is what the chain itself says.

use e2e::{TestHome, Wasmd, is_alive, wasmds};
use nix::sys::signal::{Signal, kill};
use std::{path::Path, process::Stdio, time::Duration};

/// A short period, and more than enough for all votes on a busy machine.
const SHORT: &str = "voting_period: 25s";
/// Nobody waits for its end.
const LONG: &str = "voting_period: 1h";
/// 0.47 has no such field.
const LONG_EXPEDITED: &str = "voting_period: 1h, expedited_voting_period: 30m";
/// Here its end is waited for.
const SHORT_EXPEDITED: &str = "voting_period: 1h, expedited_voting_period: 25s";

fn up(home: &TestHome, program: &Path, params: &str) {
    let patch = format!("{{app_state: {{gov: {{params: {{{params}}}}}}}}}");
    let text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  validators: 4\n  \
         blockTime: 400ms\n  localhost: false\n  genesis: {{patch: {patch}}}\n",
        program.display()
    );
    home.ctl(&["up", &home.file("net.yaml", &text), "--timeout", "90s"]).ok();
    // Before its first block a node has no state to ask for.
    home.all_rise("net", 1);
}

#[test]
fn a_parameter_is_changed_by_a_vote_of_all_validators_on_each_sdk() {
    for wasmd in wasmds() {
        let home = TestHome::new();
        up(&home, &wasmd.path, SHORT);
        let propose = ["gov", "propose", "net", "--title", "Fewer validators", "--param"];
        let with = |param: &'static str| home.ctl(&[propose.as_slice(), &[param, "--param", "gov.min_deposit=7stake"]].concat());
        with("staking.max_validator=50").exits(4).says("did you mean staking.max_validators?");
        with("staking.max_validators=50").ok().says("staking.max_validators: 100 → 50").says("→ 7stake").prints("proposal 1 is voted on until");
        home.ctl(&["gov", "show", "net", "1"]).ok().prints("staking.max_validators: 100 → 50").prints("MsgUpdateParams");
        home.ctl(&["gov", "vote", "net", "1", "yes", "--all-validators", "--wait", "--timeout", "120s"]).ok().prints("proposal 1 is passed");
        let proposal = home.json(&["gov", "show", "net", "1"]);
        let messages = proposal["messages"].as_array().expect("a message for each module");
        assert!(messages.iter().any(|message| message["params"]["max_validators"] == 50), "{proposal}");
        assert_ne!(proposal["tally"]["yes"], "0", "{proposal}");
        // The next draft starts from what is on the chain now.
        home.ctl(&["gov", "propose", "net", "--title", "Again", "--param", "staking.max_validators=50"]).exits(4).says("have these values already");
        home.ctl(&["gov", "propose", "net", "--title", "More", "--param", "staking.max_validators=60", "--deposit", "3stake"])
            .ok()
            .says("staking.max_validators: 50 → 60")
            .prints("waits for its deposit");
        home.ctl(&["gov", "deposit", "net", "2", "4stake"]).ok().prints("proposal 2 is voted on until");
        home.ctl(&["gov", "list", "net", "--status", "passed"]).ok().prints("Fewer validators");
        println!("MEASURED: governance on wasmd {} (SDK {}): proposed, voted, passed", wasmd.version, wasmd.sdk);
    }
}

#[test]
fn a_rejected_proposal_is_exit_1_and_a_late_vote_gets_the_chains_words() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    up(&home, &program, SHORT);
    home.ctl(&["gov", "propose", "net", "--title", "Words", "--text"]).ok().prints("proposal 1 is voted on");
    home.ctl(&["gov", "vote", "net", "1", "no", "--all-validators", "--wait", "--timeout", "120s"]).exits(1).says("proposal 1 of net is rejected");
    home.ctl(&["gov", "vote", "net", "1", "yes", "--from", "validator:0"]).exits(1).says("inactive proposal");
    home.ctl(&["gov", "vote", "net", "9", "yes", "--all-validators"]).exits(3).says("no proposal 9");
    home.ctl(&["gov", "show", "net", "9"]).exits(3);
    home.ctl(&["gov", "vote", "net", "1", "maybe", "--all-validators"]).exits(2);
    home.ctl(&["gov", "vote", "net", "1", "yes"]).exits(2);
    // It passes, and then the chain refuses what it says.
    let spend = r#"[{"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "authority": "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc",
        "plan": {"name": "late", "height": "2"}}]"#;
    home.ctl(&["gov", "propose", "net", "--title", "Late", "--file", &home.file("late.json", spend)]).ok();
    home.ctl(&["gov", "vote", "net", "2", "yes", "--all-validators", "--wait", "--timeout", "120s"]).exits(1).says("is failed").says("past");
}

#[test]
fn votes_in_parts_low_deposits_and_what_a_newer_sdk_has_on_each_sdk() {
    for wasmd in wasmds() {
        let home = TestHome::new();
        let params = match wasmd.sdk {
            "v0.47" => LONG,
            "v0.53" => SHORT_EXPEDITED,
            _ => LONG_EXPEDITED,
        };
        up(&home, &wasmd.path, params);
        proposed_once(&home);
        voted(&home);
        newer(&home, &wasmd);
    }
}

fn proposals(home: &TestHome) -> usize {
    home.json(&["gov", "list", "net"])["items"].as_array().map_or(0, Vec::len)
}

/// However often it is asked for under one request id.
fn proposed_once(home: &TestHome) {
    let messages = r#"[{"@type": "/cosmos.bank.v1beta1.MsgSetSendEnabled", "authority": "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc",
        "send_enabled": [{"denom": "other", "enabled": false}], "use_default_for": []}]"#;
    let file = home.file("messages.json", messages);
    let propose = ["gov", "propose", "net", "--title", "No other", "--file", &file, "--request-id", "once"];
    home.ctl(&propose).ok().prints("proposal 1 is voted on");
    home.ctl(&propose).ok().prints("proposal 1 is voted on");
    home.ctl(&["gov", "propose", "net", "--title", "Another", "--text", "--request-id", "once"]).exits(4).says("request id `once` was used before");
    assert_eq!(proposals(home), 1);
    home.ctl(&["gov", "show", "net", "1"]).ok().prints("MsgSetSendEnabled");
}

fn voted(home: &TestHome) {
    home.ctl(&["gov", "vote", "net", "1", "--option", "yes=0.7,no=0.3", "--from", "validator:0"]).ok().prints("1 signer voted yes=0.7,no=0.3");
    home.ctl(&["gov", "vote", "net", "1", "--option", "yes=0.5", "--from", "validator:1"]).exits(1).says("weight lower than 1.00");
    home.ctl(&["gov", "vote", "net", "1", "--option", "maybe=1", "--from", "validator:1"]).exits(2).says("noWithVeto");
    home.ctl(&["gov", "vote", "net", "1", "yes", "--from", "validator:1,validator:9,validator:2"])
        .exits(1)
        .says("1 vote of 3 on proposal 1 failed")
        .says("validator:9")
        .prints("2 signers voted yes");
    let proposal = home.json(&["gov", "show", "net", "1"]);
    let votes: Vec<&str> = proposal["votes"].as_array().unwrap().iter().filter_map(|vote| vote["option"].as_str()).collect();
    assert_eq!(votes.iter().filter(|vote| **vote == "yes").count(), 2, "{votes:?}");
    assert!(votes.iter().any(|vote| vote.contains("yes=0.7") && vote.contains("no=0.3")), "{votes:?}");
}

/// 0.47 says what it lacks; the others do it.
fn newer(home: &TestHome, wasmd: &Wasmd) {
    let low = home.ctl(&["gov", "propose", "net", "--title", "Low", "--text", "--deposit", "1stake"]);
    let fast = home.ctl(&["gov", "propose", "net", "--title", "Fast", "--text", "--expedited"]);
    let cancel = |from: &str| home.ctl(&["gov", "cancel", "net", "1", "--from", from]);
    if wasmd.sdk == "v0.47" {
        low.ok().prints("proposal 2 waits for its deposit");
        // Refused at once, or, where nobody had the time to look ahead, when it is built.
        for (refused, words) in [(fast, "expedited proposals came with SDK 0.50"), (cancel("account:0"), "since SDK 0.50")] {
            assert!([1, 4].contains(&refused.code), "{refused:?}");
            refused.says(words).says("v0.47");
        }
        return;
    }
    low.exits(1).says("minimum deposit is too small");
    home.ctl(&["gov", "deposit", "net", "1", "1stake"]).exits(1).says("minimum deposit is too small");
    fast.ok().prints("proposal 2 is voted on until");
    assert_eq!(home.json(&["gov", "show", "net", "2"])["expedited"], true);
    if wasmd.sdk == "v0.53" {
        home.ctl(&["gov", "vote", "net", "2", "yes", "--all-validators", "--wait", "--timeout", "120s"]).ok().prints("proposal 2 is passed");
        // In its own time, and as what it was: one that fails as expedited goes on as an ordinary one.
        let passed = home.json(&["gov", "show", "net", "2"]);
        assert_eq!((&passed["status"], &passed["expedited"]), (&"passed".into(), &true.into()), "{passed}");
    }
    cancel("account:3").exits(1).says("proposer");
    cancel("account:0").ok().prints("proposal 1 of net is cancelled");
    home.ctl(&["gov", "show", "net", "1"]).exits(3).says("no proposal 1");
    cancel("account:0").exits(3);
}

#[test]
fn a_daemon_that_is_killed_under_a_proposal_makes_it_no_second_one() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    up(&home, &program, LONG);
    let words = ["gov", "propose", "net", "--title", "Words", "--text", "--request-id", "once"];
    let first = home.command(&words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dvbctl starts");
    home.eventually("it is stored", Duration::from_secs(30), |home| home.rows("transactions") == 1);
    let daemon = home.daemon_pid().expect("the daemon runs");
    kill(daemon, Signal::SIGKILL).expect("it is ours");
    home.eventually("it is dead", Duration::from_secs(10), |_| !is_alive(daemon));
    home.ctl(&["daemon", "start"]).ok();
    let first = first.wait_with_output().expect("dvbctl ends");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    home.ctl(&words).ok().prints("proposal 1 is voted on");
    assert_eq!((proposals(&home), home.rows("transactions")), (1, 1));
}

/// The chain's own `init` tells which modules it has: this one hides x/gov.
#[test]
fn a_chain_without_governance_is_refused_a_vote_by_its_binary_or_in_its_own_words() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    let hide = "for to; do :; done; sed -i 's/\"gov\":/\"none\":/' \"$to/config/genesis.json\"";
    let script = format!("{0} \"$@\" || exit\n[ \"$1\" != init ] || {{ {hide}; }}", program.display());
    let without = home.program("without", &format!("[ \"$1\" != start ] || exec {} \"$@\"\n{script}", program.display()));
    let file = |name: &str, program: &Path, more: &str| {
        let text = format!(
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec: {{plugin: cosmos, validators: 1, localhost: false, blockTime: 400ms, \
             binary: {{path: {}}}{more}}}\n",
            program.display()
        );
        home.file(&format!("{name}.yaml"), &text)
    };
    home.ctl(&["up", &file("bare", Path::new(&without), ""), "--timeout", "90s"]).ok();
    let upgrade = |devnet: &str| home.ctl(&["upgrade", "create", devnet, "--name", "v0.60", "--binary", "/bin/cat"]);
    upgrade("bare").exits(4).says("has no governance to vote on it (its binary has no module gov)").says("--skip-vote");
    home.ctl(&["gov", "list", "bare"]).exits(4).says("its binary has no module gov");
    let types = home.ctl(&["tx", "types", "bare"]).ok().stdout;
    assert!(types.contains("bank/send") && !types.contains("gov/"), "{types}");

    // Of this one only the chain knows.
    home.ctl(&["up", &file("cut", &program, ", genesis: {patch: {app_state: {gov: null}}}"), "--timeout", "90s"]).ok();
    home.all_rise("cut", 1);
    let other = e2e::with_other_bytes(&home, &program, "other");
    home.ctl(&["upgrade", "create", "cut", "--name", "v0.60", "--binary", &other, "--assume-handler"]).ok();
    home.ctl(&["upgrade", "status", "cut/v0.60", "--wait", "--timeout", "90s"]).exits(1);
    let ended = home.json(&["get", "upgrade", "cut/v0.60"])["status"].clone();
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(ended["phase"] == "Failed" && why.contains("has no governance") && why.contains("collections: not found"), "{ended}");
    assert!(why.contains("--skip-vote"), "{why}");
    home.all_rise("cut", 1);
}

/// ibc is known here by no table: the chain describes its messages itself.
#[test]
fn on_each_sdk_messages_and_parameters_that_only_the_chain_describes_are_json_too() {
    for wasmd in wasmds() {
        let home = TestHome::new();
        up(&home, &wasmd.path, LONG);
        let transfer = |message: &str| {
            let payload = format!(r#"{{"messages": [{{"@type": "/ibc.applications.transfer.v1.MsgTransfer", {message}}}]}}"#);
            home.ctl(&["tx", "submit", "net", "--type", "any", "--signer", "account:0", "--payload", &payload, "--wait", "--timeout", "60s"])
        };
        let sender = crate::tx::address(&home, "net", "account:0");
        let coins = r#""token": {"denom": "stake", "amount": "5"}, "timeout_timestamp": "1900000000000000000""#;
        let from = format!(r#""source_port": "transfer", "source_channel": "channel-7", "sender": "{sender}", "receiver": "x", {coins}"#);
        transfer(&from).exits(1).says("channel-7").says("not found");
        transfer(&from.replace("source_port", "source_prt")).exits(1).says("MsgTransfer").says("source_prt");
        if wasmd.sdk == "v0.47" {
            continue; // its ibc keeps its parameters elsewhere
        }
        home.ctl(&["gov", "propose", "net", "--title", "No transfers", "--param", "transfer.send_enabled=false"])
            .ok()
            .says("transfer.send_enabled: true → false");
        home.ctl(&["gov", "show", "net", "1"])
            .ok()
            .prints("transfer.send_enabled: true → false")
            .prints("ibc.applications.transfer.v1.MsgUpdateParams");
        let proposal = home.json(&["gov", "show", "net", "1"]);
        assert!(proposal["messages"][0]["signer"].as_str().is_some_and(|signer| signer.starts_with("wasm1")), "{proposal}");
        home.ctl(&["gov", "propose", "net", "--title", "X", "--param", "transfr.send_enabled=false"]).exits(4).says("did you mean transfer?");
    }
}
