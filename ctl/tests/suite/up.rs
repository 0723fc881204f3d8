//! `up`: apply, progress, the end that is good, bad or late.

use crate::common::{
    Daemon, devnet,
    fake::{Script, World},
    node, two_devnets,
};
use dvb_proto::devnet::v1::{Condition, Fault};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};
use tonic::Code;

const FILE: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: mynet}\nspec:\n  plugin: cosmos\n  nodes:\n  - name: validator-9\n";

#[test]
fn up_waits_until_it_runs_and_says_what_there_is() {
    let daemon = Daemon::start(World::default());
    daemon.file("devnet.yaml", FILE);
    let answer = daemon.run(&["up"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    for part in [
        "mynet/validator-0",
        "mynet is Running at height 42, chain mynet-1",
        "5 funded accounts:",
        "account:2",
        "and 2 more",
        "mnemonic: /",
        "Try next:",
    ] {
        assert!(answer.out.contains(part), "{part} is missing in\n{}", answer.out);
    }
    assert!(!answer.out.contains("account:3"));
    assert!(answer.err.contains("devnet mynet created\n") && answer.err.contains("mynet Running, 2/2 nodes ready\n"), "{}", answer.err);
    assert!(!answer.err.contains('\x1b') && !answer.out.contains('\x1b'), "no colours without a terminal");
}

#[test]
fn up_says_of_each_node_that_it_runs_though_their_watch_comes_late() {
    let daemon = Daemon::start(World { script: Script::NodesUntold, ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let answer = daemon.run(&["up"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.err.contains("  mynet/validator-0 Running\n  mynet/validator-1 Running\nmynet Running, 2/2 nodes ready\n"), "{}", answer.err);
}

#[test]
fn up_without_a_file_brings_up_the_embedded_chain() {
    let daemon = Daemon::start(World::default());
    let answer = daemon.run(&["up", "-o", "json"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.err.contains("no devnet.yaml here"), "{}", answer.err);
    let object: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&object["metadata"]["name"], &object["spec"]["plugin"]), (&"local".into(), &"commonware".into()));
}

#[test]
fn up_starts_a_stopped_devnet() {
    let mut world = two_devnets();
    let mut stopped = devnet("mynet", "Stopped");
    stopped.spec.as_mut().unwrap().desired = Some("stopped".into());
    world.put_devnet(stopped);
    let daemon = Daemon::start(world);
    daemon.file("devnet.yaml", FILE);
    assert_eq!(daemon.run(&["up"]).code, 0);
    assert_eq!(daemon.fake.requests(), ["apply mynet", "start mynet"]);
}

#[test]
fn up_ends_early_when_the_devnet_fails_and_shows_the_last_lines() {
    let daemon = Daemon::start(World { script: Script::Fails, ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let answer = daemon.run(&["up"]);
    assert_eq!(answer.code, 1);
    for part in ["mynet is Failed: mynet/validator-0 does not start", "try: mend the flag", "last lines of mynet/validator-0:", "  | panic: no"] {
        assert!(answer.err.contains(part), "{part} is missing in\n{}", answer.err);
    }
}

#[test]
fn up_that_takes_too_long_says_what_is_missing() {
    let daemon = Daemon::start(World { script: Script::Hangs, ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let answer = daemon.run(&["up", "--timeout", "300ms"]);
    assert_eq!(answer.code, 6);
    assert!(answer.err.contains("not done within 300ms: Provisioning"), "{}", answer.err);
    assert_eq!(daemon.run(&["up", "--no-wait"]).code, 0);
}

#[test]
fn a_long_wait_says_what_it_waits_for() {
    let mut world = World { script: Script::Hangs, ..World::default() };
    let mut node = node("mynet", 0, "Starting");
    let message = "tcp 127.64.0.1:8080: Connection refused".to_owned();
    node.status.as_mut().unwrap().conditions = vec![Condition { r#type: "Ready".into(), status: "False".into(), message, ..Condition::default() }];
    world.put_node(node);
    let daemon = Daemon::start(world);
    daemon.file("devnet.yaml", FILE);
    let mut child = daemon.command(&["up"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("  waiting for 1") {
        assert_ne!(err.read_line(&mut told).unwrap(), 0, "{told}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let line = told.lines().last().unwrap();
    assert!(
        line.contains("s: Provisioning, ") && line.ends_with("mynet/validator-0 is Starting (tcp 127.64.0.1:8080: Connection refused)"),
        "{told}"
    );
}

#[test]
fn a_wait_whose_daemon_has_gone_says_so_when_its_time_is_over() {
    let daemon = Daemon::start(World { script: Script::Hangs, ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let mut child = daemon.command(&["up", "--timeout", "3s"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("Provisioning") {
        assert_ne!(err.read_line(&mut told).unwrap(), 0, "{told}");
    }
    daemon.fake.shutdown.notify_one();
    daemon.fake.break_watches();
    err.read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5), "{told}");
    assert!(told.contains("devnetd does not answer any more") && told.contains("not done within 3s"), "{told}");
}

#[test]
fn ctrl_c_leaves_the_devnet_and_says_how_to_go_on() {
    let daemon = Daemon::start(World { script: Script::Hangs, ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let mut child = daemon.command(&["up"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("Provisioning") {
        assert_ne!(err.read_line(&mut told).unwrap(), 0, "{told}");
    }
    #[expect(clippy::disallowed_methods, reason = "the test's own child gets a Ctrl-C")]
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    std::io::Read::read_to_string(&mut err, &mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
    assert!(told.contains("dvbctl wait --for=Running mynet to go on, dvbctl delete mynet to undo"), "{told}");
    assert_eq!(daemon.run(&["get", "mynet"]).code, 0);
}

#[test]
fn a_refused_spec_points_at_the_line_and_is_exit_code_4() {
    let violation = |field: &str, message: &str, suggestion: Option<&str>| dvb_proto::devnet::v1::Violation {
        field: field.into(),
        message: message.into(),
        suggestion: suggestion.map(Into::into),
    };
    let fault = Fault {
        code: "InvalidSpec".into(),
        message: "the spec has 2 faults".into(),
        violations: vec![
            violation("spec.nodes[0].name", "no node is called `validator-9`", Some("validator-1")),
            violation("spec.validators", "must be at least 1", None),
        ],
        ..Fault::default()
    };
    let daemon = Daemon::start(World { refuse: Some((Code::InvalidArgument, fault)), ..World::default() });
    daemon.file("devnet.yaml", FILE);
    let answer = daemon.run(&["up"]);
    assert_eq!(answer.code, 4);
    insta::assert_snapshot!(answer.err, @r"
    error: devnet.yaml:7:11: spec.nodes[0].name: no node is called `validator-9`
       ,-[devnet.yaml:7:11]
     6 |   nodes:
     7 |   - name: validator-9
       :           ^^^^^^^^^^^
       `----
      try: validator-1
    error: devnet.yaml:4:1: spec.validators: must be at least 1
       ,-[devnet.yaml:4:1]
     3 | metadata: {name: mynet}
     4 | spec:
       : ^^^^
     5 |   plugin: cosmos
       `----
    ");
    let answer = daemon.run(&["apply", "-f", "devnet.yaml", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    assert_eq!((&error["error"]["positions"][0]["line"], &error["error"]["violations"][1]["field"]), (&7.into(), &"spec.validators".into()));
}
