//! A spec that is refused after it was applied: what ran runs on, and whoever waits is told at once.

use e2e::{TestHome, is_alive};
use std::time::{Duration, Instant};

fn document(more: &str) -> String {
    format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  restart: {{backoff: 100ms}}\n{more}  services: [{{name: a, command: [sleep, '1000']}}]\n"
    )
}

#[test]
fn a_devnet_whose_new_spec_is_refused_runs_on_and_a_wait_for_it_fails_at_once() {
    let home = TestHome::new();
    let file = home.file("x.yaml", &document(""));
    home.ctl(&["up", &file]).ok();
    let pid = home.pid("net/a");
    let broken = home.file("y.yaml", &document("  binary: {path: /nowhere/chain}\n"));
    home.ctl(&["apply", "-f", &broken, "--dry-run"]).exits(4).says("/nowhere/chain does not exist");
    for verb in [["apply", "-f", &broken, "--wait"].as_slice(), &["up", &broken], &["wait", "net", "--for=Running"], &["wait", "net", "--for=ready"]]
    {
        let start = Instant::now();
        home.ctl(verb).exits(1).says("its new spec was refused").says("/nowhere/chain does not exist");
        assert!(start.elapsed() < Duration::from_secs(5), "{verb:?} took {:?}", start.elapsed());
    }
    let devnet = home.devnet("net");
    assert_eq!(devnet["status"]["phase"], "Running");
    assert!(is_alive(pid) && home.pid("net/a") == pid);
    home.ctl(&["stop", "net", "--timeout", "20s"]).ok();
    assert_eq!(home.devnet("net")["status"]["phase"], "Stopped");
    home.ctl(&["apply", "-f", &file]).ok();
    home.ctl(&["start", "net", "--timeout", "20s"]).ok();
    assert_eq!(home.devnet("net")["status"]["message"], "all 1 nodes that should run are ready");
}

#[test]
fn what_was_refused_for_a_missing_program_comes_up_by_the_same_file_when_that_is_there() {
    let home = TestHome::new();
    let program = home.file("program", "#!/bin/sh\n").replace("program", "chain");
    let file = home.file("x.yaml", &document(&format!("  binary: {{path: {program}}}\n")));
    home.ctl(&["up", &file]).exits(1).says(&format!("{program} does not exist"));
    home.ctl(&["up", &file]).exits(1).says("trying again").says(&format!("{program} does not exist"));
    std::fs::copy("/bin/true", &program).unwrap();
    home.ctl(&["up", &file]).ok().says("could not be provisioned before: trying again");
    assert!(is_alive(home.pid("net/a")));
}

#[test]
fn what_needs_the_chain_of_a_failed_devnet_is_not_waited_for() {
    let home = TestHome::new();
    let chain = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: fx}\nspec: {plugin: cosmos, binary: {path: /nowhere/chain}}\n";
    home.ctl(&["apply", "-f", &home.file("fx.yaml", chain)]).ok();
    home.ctl(&["wait", "fx", "--for=Failed", "--timeout", "60s"]).ok();
    let send = ["tx", "submit", "fx", "--type", "bank/send", "--signer", "account:0", "--to", "account:1", "--amount", "1stake"];
    for (verb, what) in [(send.as_slice(), "what was submitted waits"), (&["export", "create", "fx", "now"], "export fx/now waits")] {
        let start = Instant::now();
        let verb: Vec<&str> = verb.iter().copied().chain(["--wait", "--timeout", "120s"]).collect();
        home.ctl(&verb).exits(1).says(what).says("its devnet fx is Failed").says("/nowhere/chain does not exist");
        assert!(start.elapsed() < Duration::from_secs(60), "{verb:?} took {:?}", start.elapsed());
    }
}

#[test]
fn a_wait_on_a_node_that_has_failed_for_good_ends_at_once_with_its_cause_and_the_mend() {
    let home = TestHome::new();
    let text = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: exec\n  restart: {backoff: 50ms, maxRestarts: 1}\n  services:\n    - {name: lives, command: [sleep, '1000']}\n    - {name: dies, command: [sh, -c, 'while [ ! -e FLAG ]; do sleep 0.1; done; echo that is it; exit 3']}\n";
    let flag = home.path().join("flag");
    let file = home.file("net.yaml", &text.replace("FLAG", &flag.display().to_string()));
    home.ctl(&["up", &file]).ok();
    std::fs::write(&flag, "").unwrap();
    home.ctl(&["wait", "net/dies", "--for=Failed", "--timeout", "60s"]).ok();
    home.eventually("it is Degraded, as it ran before", Duration::from_secs(60), |home| home.devnet("net")["status"]["phase"] == "Degraded");
    let on_devnet = [["start", "net"].as_slice(), &["up", &file], &["wait", "net", "--for=ready"], &["wait", "net", "--for=Running"]];
    for verb in on_devnet.into_iter().chain([["start", "net/dies"].as_slice(), &["wait", "net/dies", "--for=ready"]]) {
        let start = Instant::now();
        let ended = home.ctl(&[verb, &["--timeout", "120s"]].concat()).exits(1).says("that is it").says("dvbctl restart net/dies");
        assert!(start.elapsed() < Duration::from_secs(60), "{verb:?} took {:?}", start.elapsed());
        assert!(!ended.stderr.contains("net is Failed"), "{}", ended.stderr);
    }
    std::fs::remove_file(&flag).unwrap();
    home.ctl(&["restart", "net/dies", "--no-wait"]).ok();
    home.ctl(&["wait", "net", "--for=ready", "--timeout", "60s"]).ok();
}

#[test]
fn an_upgrade_of_a_chain_whose_nodes_have_failed_is_not_waited_for() {
    let home = TestHome::new();
    let text = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: commonware\n  validators: 1\n  nodes: [{name: validator-0, args: [--nope]}]\n";
    home.ctl(&["apply", "-f", &home.file("net.yaml", text)]).ok();
    home.ctl(&["wait", "net", "--for=Failed", "--timeout", "120s"]).ok();
    let next = e2e::binary("devchain-v2").display().to_string();
    let upgrade = ["upgrade", "create", "net", "--name", "v2", "--height", "100", "--binary", &next, "--skip-vote", "--wait"];
    let start = Instant::now();
    for verb in [upgrade.as_slice(), &["upgrade", "status", "net/v2", "--wait"]] {
        home.ctl(&[verb, &["--timeout", "200s"]].concat())
            .exits(1)
            .says("upgrade net/v2 waits")
            .says("--nope")
            .says("dvbctl restart net/validator-0");
    }
    for height in [["wait", "net", "--for=height=9"].as_slice(), &["wait", "net/validator-0", "--for=height=9"]] {
        home.ctl(&[height, &["--timeout", "200s"]].concat()).exits(1).says("--nope");
    }
    assert!(start.elapsed() < Duration::from_secs(150), "took {:?}", start.elapsed());
}
