//! Each verb: what it asks of the daemon, what it prints, and its exit code.

use crate::common::{Daemon, devnet, fake::World, node, two_devnets};
use dvb_proto::devnet::v1::{Condition, LogEntry};
use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::{Duration, Instant},
};

/// Ages depend on the day of the test.
fn without_ages(text: &str) -> String {
    let is_age = |word: &str| word.len() > 1 && word.ends_with('d') && word[..word.len() - 1].chars().all(|c| c.is_ascii_digit());
    let words = |line: &str| line.split_whitespace().map(|word| if is_age(word) { "AGE" } else { word }).collect::<Vec<_>>().join("  ");
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}

#[test]
fn get_lists_devnets_and_nodes_in_columns() {
    let daemon = Daemon::start(two_devnets());
    insta::assert_snapshot!(without_ages(&daemon.run(&["get"]).out), @r"
    NAME  PHASE  READY  HEIGHT  PLUGIN  CHAIN-ID  AGE
    mynet  Running  2/2  42  cosmos  mynet-1  AGE
    other  Stopped  0/2  -  cosmos  other-1  AGE
    ");
    insta::assert_snapshot!(without_ages(&daemon.run(&["get", "no", "mynet"]).out), @r"
    NAME  PHASE  PID  HEIGHT  PEERS  RESTARTS  AGE  ENDPOINT
    mynet/validator-0  Running  1000  42  1  0  -  http://127.64.0.1:26657
    mynet/validator-1  Running  1001  42  1  0  -  http://127.64.0.2:26657
    ");
    assert_eq!(daemon.run(&["get", "nodes", "-o", "name"]).out, "node/mynet/validator-0\nnode/mynet/validator-1\n");
    assert!(daemon.run(&["get", "-A"]).out.starts_with("NAMESPACE"));
    assert!(daemon.run(&["get", "nodes", "-o", "wide"]).out.contains("ADDRESS"));
}

#[test]
fn json_is_the_object_for_one_name_and_a_list_otherwise() {
    let daemon = Daemon::start(two_devnets());
    let json = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&daemon.run(args).out).unwrap();
    let one = json(&["get", "devnet", "mynet", "-o", "json"]);
    assert_eq!((&one["metadata"]["name"], &one["status"]["phase"]), (&"mynet".into(), &"Running".into()));
    assert_eq!(one["status"]["currentHeight"], 42);
    assert_eq!(one["metadata"].get("deletedAt"), None, "absent fields are not printed as null");
    assert_eq!(json(&["get", "devnets", "-o", "json"])["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(json(&["get", "mynet", "other", "-o", "json"])["items"][1]["metadata"]["name"], "other");
    let node = json(&["get", "mynet/validator-1", "-o", "json"]);
    assert_eq!((&node["kind"], &node["status"]["peerCount"], &node["status"]["catchingUp"]), (&"Node".into(), &1.into(), &false.into()));
    let yaml = daemon.run(&["get", "mynet", "-o", "yaml"]).out;
    assert!(yaml.contains("kind: Devnet\nmetadata:\n  name: mynet\n"), "{yaml}");
}

#[test]
fn what_was_printed_as_yaml_can_be_applied_again() {
    let daemon = Daemon::start(two_devnets());
    let yaml = daemon.run(&["get", "mynet", "-o", "yaml"]).out;
    daemon.file("again.yaml", &yaml);
    let answer = daemon.run(&["apply", "-f", "again.yaml"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "devnet mynet configured\n"), "{}", answer.err);
}

#[test]
fn a_name_that_does_not_exist_is_exit_code_3_in_text_and_json() {
    let daemon = Daemon::start(two_devnets());
    let answer = daemon.run(&["get", "devnet", "nope"]);
    assert_eq!((answer.code, answer.out.as_str()), (3, ""));
    assert_eq!(answer.err, "error: `nope` does not exist\n  try: dvbctl get devnets\n");
    let answer = daemon.run(&["get", "devnet", "nope", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["subject"]), (&"NotFound".into(), &"nope".into()));
    for kind in ["nodes", "events", "launches", "ports"] {
        assert_eq!(daemon.run(&["get", kind, "nope"]).code, 3, "{kind}");
        assert_eq!(daemon.run(&["get", kind, "mynet/nope"]).code, 3, "{kind}");
    }
    for verb in [["describe", "nope"], ["start", "nope"], ["why", "mynet/x"], ["env", "nope"], ["events", "nope"], ["ports", "nope"]] {
        let code = daemon.run(&verb).code;
        assert_eq!(code, if verb[0] == "why" { 0 } else { 3 }, "{verb:?}");
    }
}

#[test]
fn a_word_that_is_neither_a_kind_nor_a_devnet_is_exit_code_2_with_the_kinds() {
    let daemon = Daemon::start(two_devnets());
    let answer = daemon.run(&["get", "pods"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    insta::assert_snapshot!(answer.err, @r"
    error: `pods` is neither a kind nor a devnet; kinds are devnets, nodes, upgrades, transactions, exports, events, launches, plugins, ports, binaries
      try: did you mean `dvbctl get ports`?
    ");
    assert!(daemon.run(&["get", "nods"]).err.contains("did you mean `dvbctl get nodes`?"));
    assert_eq!(daemon.run(&["get", "nods", "-o", "json"]).code, 2);
    assert_eq!(daemon.run(&["get", "mynet"]).code, 0, "the name of a devnet will do");
    assert_eq!(daemon.run(&["get", "mynet", "nope"]).code, 3, "after a devnet a name is meant");
    assert_eq!(daemon.run(&["get", "mynet/nope"]).code, 3);
}

#[test]
fn what_is_wrong_is_said_below_the_table_with_what_tells_more() {
    let mut world = two_devnets();
    let condition = |kind: &str, message: &str| Condition {
        r#type: kind.into(),
        status: "False".into(),
        reason: "PluginMissing".into(),
        message: message.into(),
        ..Condition::default()
    };
    let mut refused = devnet("refused", "Failed");
    refused.status.as_mut().unwrap().conditions =
        vec![condition("Ready", "0 of 0 nodes"), condition("Provisioned", "there is no plugin `x`\nlooked in /y")];
    world.put_devnet(refused);
    let mut failed = node("mynet", 0, "Failed");
    failed.status.as_mut().unwrap().conditions = vec![condition("Ready", &format!("exit code 1: {}", "x".repeat(200)))];
    world.put_node(failed);
    let daemon = Daemon::start(world);
    assert_eq!(daemon.run(&["get"]).err, "refused: Provisioned=False: there is no plugin `x`; dvbctl why refused\n");
    let long = format!("mynet/validator-0: Ready=False: exit code 1: {}…; dvbctl why mynet/validator-0\n", "x".repeat(107));
    assert_eq!(daemon.run(&["get", "nodes"]).err, long);
    for format in ["json", "yaml", "name", "wide"] {
        assert_eq!(daemon.run(&["get", "-o", format]).err, "", "{format}");
    }
    let wide = daemon.run(&["get", "refused", "-o", "wide"]).out;
    assert!(wide.contains("PluginMissing") && wide.contains("there is no plugin `x` looked in /y"), "{wide}");
}

#[test]
fn what_nobody_knows_is_a_dash_and_absent_in_json() {
    let mut world = two_devnets();
    world.put_node(node("mynet", 1, "Backoff"));
    let daemon = Daemon::start(world);
    let table = daemon.run(&["get", "nodes"]).out;
    assert_eq!(table.lines().nth(2).map(|row| row.split_whitespace().skip(1).take(4).collect::<Vec<_>>()), Some(vec!["Backoff", "-", "-", "-"]));
    let json: serde_json::Value = serde_json::from_str(&daemon.run(&["get", "mynet/validator-1", "-o", "json"]).out).unwrap();
    assert_eq!((json["status"].get("blockHeight"), json["status"].get("peerCount")), (None, None));
    let answer = daemon.run(&["wait", "mynet/validator-1", "--for=height=1", "--timeout", "200ms"]);
    assert!(answer.code == 6 && answer.err.contains("no height is known; phase Backoff"), "{}", answer.err);
}

#[test]
fn plain_commands_have_no_word_of_a_chain() {
    let mut world = World::default();
    let mut site = devnet("site", "Running");
    site.spec.as_mut().unwrap().plugin = "exec".into();
    (site.status.as_mut().unwrap().current_height, site.status.as_mut().unwrap().accounts) = (None, vec![]);
    world.put_devnet(site);
    for index in 0..2 {
        let mut web = node("site", index, "Running");
        web.spec.as_mut().unwrap().role = "service".into();
        (web.status.as_mut().unwrap().block_height, web.status.as_mut().unwrap().peer_count) = (None, None);
        world.put_node(web);
    }
    let daemon = Daemon::start(world);
    for args in [&["get"][..], &["get", "nodes"], &["get", "nodes", "-o", "wide"], &["top"], &["describe", "site"], &["describe", "site/validator-0"]]
    {
        let text = daemon.run(args).out.to_lowercase();
        for word in ["height", "peers", "chain", "catching up"] {
            assert!(!text.contains(word), "`{word}` in {args:?}:\n{text}");
        }
    }
    assert!(daemon.run(&["top"]).out.contains("total"));
}

#[test]
fn events_launches_ports_and_plugins_are_listed() {
    let daemon = Daemon::start(two_devnets());
    insta::assert_snapshot!(without_ages(&daemon.run(&["events"]).out), @r"
    AGE  TYPE  REASON  OBJECT  MESSAGE
    AGE  Normal  Created  mynet  mynet  Created
    AGE  Normal  NodeStarted  mynet/validator-0  mynet/validator-0  NodeStarted
    ");
    assert!(daemon.run(&["get", "ev", "mynet/validator-0"]).out.contains("NodeStarted"));
    assert!(daemon.run(&["get", "launches"]).out.contains("l1"));
    insta::assert_snapshot!(daemon.run(&["ports", "mynet"]).out, @r"
    NODE               NAME  ADDRESS     PORT   STATE  HOLDER
    mynet/validator-0  rpc   127.64.0.1  26657  held   pid 1000 (wasmd)
    mynet/validator-1  rpc   127.64.0.1  26657  taken  pid 7 (geth)
    ");
    assert_eq!(daemon.run(&["ports", "mynet/validator-1"]).out.lines().count(), 2);
    insta::assert_snapshot!(daemon.run(&["plugins"]).out, @r"
    NAME    VERSION  API  STATE  NETWORKS  DESCRIPTION
    cosmos  0.1.0    1    Idle   wasmd     Cosmos SDK chains
    ");
    assert!(daemon.run(&["why", "mynet"]).out.starts_with("mynet is Running\n"));
    assert!(daemon.run(&["top"]).out.contains("total"));
}

#[test]
fn describe_tells_everything_of_a_devnet_and_a_node() {
    let mut world = two_devnets();
    world.put_node(node("mynet", 1, "Failed"));
    let daemon = Daemon::start(world);
    let text = daemon.run(&["describe", "mynet"]).out;
    for part in ["Phase:        Running", "Height:       42", "plugin: cosmos", "account:4", "mynet/validator-0", "NodeStarted"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let text = daemon.run(&["describe", "node", "mynet/validator-1"]).out;
    for part in [
        "Phase:        Failed",
        "Message:       unknown flag",
        "Class:         bad-flag",
        "How:           exit code 1",
        "panic: no",
        "rpc: http://127.64.0.2:26657",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn start_stop_restart_and_reset_wait_until_it_is_so() {
    let daemon = Daemon::start(two_devnets());
    let check = |args: &[&str], out: &str| {
        let answer = daemon.run(args);
        assert_eq!((answer.code, answer.out.as_str()), (0, out), "{args:?}: {}", answer.err);
    };
    check(&["stop", "mynet"], "devnet mynet: Stopped\n");
    check(&["start", "mynet"], "devnet mynet: Running\n");
    check(&["restart", "mynet", "--refresh-binary"], "devnet mynet: Running\n");
    check(&["reset", "mynet", "--yes"], "devnet mynet: Running\n");
    check(&["stop", "mynet/validator-0"], "node mynet/validator-0: Stopped\n");
    check(&["start", "mynet/validator-0", "--no-wait"], "node mynet/validator-0: start requested\n");
    check(&["restart", "mynet/validator-1"], "node mynet/validator-1: Running\n");
    check(&["freeze", "mynet/validator-0"], "node mynet/validator-0: frozen\n");
    check(&["thaw", "mynet/validator-0"], "node mynet/validator-0: thawed\n");
    check(&["freeze", "mynet", "--no-wait"], "devnet mynet: freeze requested\n");
    assert_eq!(daemon.run(&["restart", "mynet/validator-1", "--refresh-binary"]).code, 2);
    assert_eq!(daemon.run(&["reset", "mynet"]).code, 2, "nothing is lost without --yes where nobody can be asked");
    let asked = daemon.fake.requests();
    let expect = [
        "stop mynet",
        "start mynet",
        "restart+refresh mynet",
        "reset mynet",
        "stop mynet/validator-0",
        "start mynet/validator-0",
        "restart mynet/validator-1",
        "freeze mynet/validator-0",
        "thaw mynet/validator-0",
        "freeze mynet",
    ];
    assert_eq!(asked, expect);
}

#[test]
fn delete_needs_yes_without_a_terminal_and_waits_until_it_is_gone() {
    let daemon = Daemon::start(two_devnets());
    let answer = daemon.run(&["delete", "mynet"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("try: dvbctl delete mynet --yes"), "{}", answer.err);
    assert_eq!(daemon.run(&["delete", "mynet", "nope", "--yes"]).code, 3);
    assert!(daemon.fake.requests().is_empty(), "nothing is deleted before all names are known");
    let answer = daemon.run(&["delete", "devnet", "mynet", "--yes", "--keep-data"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "devnet mynet deleted\n"), "{}", answer.err);
    assert_eq!(daemon.run(&["get", "devnet", "mynet"]).code, 3);
    assert_eq!(daemon.run(&["delete", "devnets", "--all", "--yes"]).out, "devnet other deleted\n");
    assert_eq!(daemon.run(&["delete", "devnets", "--all", "--yes"]).code, 0);
    assert_eq!(daemon.fake.requests(), ["delete mynet keep", "delete other"]);
    for wrong in
        [&["delete"][..], &["delete", "--all"], &["delete", "a/b", "--yes"], &["delete", "nodes", "a/b"], &["delete", "devnets", "a", "--all"]]
    {
        assert_eq!(daemon.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn wait_ends_when_it_holds_and_with_6_when_it_does_not() {
    let daemon = Daemon::start(two_devnets());
    assert_eq!(daemon.run(&["wait", "mynet", "--for=Running"]).code, 0);
    assert_eq!(daemon.run(&["wait", "mynet/validator-0", "--for=height=42"]).code, 0);
    assert_eq!(daemon.run(&["wait", "mynet", "--for=ready"]).code, 0);
    assert_eq!(daemon.run(&["wait", "gone", "--for=delete"]).code, 0);
    assert_eq!(daemon.run(&["wait", "gone", "--for=Running"]).code, 3);
    let answer = daemon.run(&["wait", "mynet", "--for=height=43", "--timeout", "200ms"]);
    assert_eq!(answer.code, 6);
    assert!(answer.err.contains("height is 42, below 43"), "{}", answer.err);
    let answer = daemon.run(&["wait", "mynet", "--for=Runing"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("--for=Running"), "{}", answer.err);
}

#[test]
fn a_wait_goes_on_when_the_daemons_stream_breaks() {
    let daemon = Daemon::start(two_devnets());
    let child = daemon.command(&["wait", "mynet", "--for=height=50", "--timeout", "20s"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    daemon.fake.break_watches();
    // The change comes while nobody watches or after; the fake tells it again until the client is back.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut child = child;
    let status = loop {
        let _ = daemon.fake.change("mynet", |devnet| devnet.status.as_mut().unwrap().current_height = Some(50));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "dvbctl did not come back to its watch");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn watching_prints_the_table_and_then_a_row_for_each_change() {
    let daemon = Daemon::start(two_devnets());
    for (format, expect) in [("table", "mynet"), ("json", "{\"apiVersion\"")] {
        let mut child = daemon.command(&["get", "devnets", "-w", "-o", format]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let head = usize::from(format == "table");
        assert_eq!(lines.by_ref().take(2 + head).count(), 2 + head);
        daemon.fake.change("mynet", |devnet| devnet.status.as_mut().unwrap().current_height = Some(77)).unwrap();
        let row = lines.next().unwrap();
        assert!(row.starts_with(expect) && row.contains("77"), "{row}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn logs_of_one_node_are_its_bytes_and_of_several_have_names() {
    let entry = |node: &str, line: &[u8]| LogEntry { node: node.into(), line: line.to_vec(), ..LogEntry::default() };
    let logs = vec![entry("mynet/validator-0", b"one \xff\x00"), entry("mynet/validator-1", b"two")];
    let daemon = Daemon::start(World { logs, ..two_devnets() });
    let output = daemon.command(&["logs", "mynet/validator-0", "--tail", "5"]).output().unwrap();
    assert_eq!(output.stdout, b"one \xff\x00\n");
    let output = daemon.command(&["logs", "mynet", "--since", "2026-01-01T00:00:00Z"]).output().unwrap();
    assert_eq!(output.stdout, b"mynet/validator-0 | one \xff\x00\nmynet/validator-1 | two\n");
    let expect = ["logs mynet [\"validator-0\"] tail Some(5) since None", "logs mynet [] tail None since Some(\"2026-01-01T00:00:00Z\")"];
    assert_eq!(daemon.fake.requests(), expect);
    assert_eq!(daemon.run(&["logs", "mynet", "--since", "yesterday"]).code, 2);
}

#[test]
fn a_follower_that_falls_behind_goes_on_where_it_stands_and_asks_no_more_of_nodes_it_has_nothing_of() {
    let entry = |index: u32, offset: u64, line: &str| LogEntry {
        node: format!("mynet/validator-{index}"),
        launch_id: "l1".into(),
        line: line.into(),
        offset,
        next: offset + 4,
        ..LogEntry::default()
    };
    let logs = vec![entry(0, 0, "one"), entry(0, 4, "two"), entry(0, 8, "six"), entry(1, 0, "ten")];
    let daemon = Daemon::start(World { logs, falls_behind: Some(2), ..two_devnets() });
    let result = daemon.run(&["logs", "-f", "mynet", "--tail", "5"]);
    let expect = "mynet/validator-0 | one\nmynet/validator-0 | two\nmynet/validator-0 | six\nmynet/validator-1 | ten\n";
    assert_eq!((result.code, result.out.as_str(), result.err.as_str()), (0, expect, ""));
    let first = "logs mynet [] tail Some(5) since None";
    assert_eq!(daemon.fake.requests(), [first.to_owned(), format!("{first} after mynet/validator-0@l1 8")]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let logs =
        (0..20_000).map(|i| LogEntry { node: "mynet/validator-0".into(), line: format!("line {i}").into_bytes(), ..LogEntry::default() }).collect();
    let daemon = Daemon::start(World { logs, ..two_devnets() });
    let mut child = daemon.command(&["logs", "mynet/validator-0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut out = BufReader::with_capacity(16, child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn env_prints_exports_that_a_shell_takes() {
    let daemon = Daemon::start(two_devnets());
    let exports = daemon.run(&["env", "mynet"]).out;
    #[expect(clippy::disallowed_methods, reason = "a shell must take the exports")]
    let program = std::process::Command::new("sh")
        .arg("-c")
        .arg("eval \"$EXPORTS\"; echo $DVB_CHAIN_ID $DVB_RPC $DVB_VALIDATOR_1_GRPC $DVB_ACCOUNT_4")
        .env("EXPORTS", &exports)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&program.stdout), "mynet-1 http://127.64.0.1:26657 http://127.64.0.2:9090 wasm1account4\n");
    assert!(exports.contains("export DVB_MNEMONIC_FILE='"), "{exports}");
}

#[test]
fn apply_tells_what_it_did_and_a_dry_run_what_it_would() {
    let daemon = Daemon::start(two_devnets());
    let text = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: NAME}\nspec: {plugin: cosmos}\n";
    daemon.file("d/a.yaml", &text.replace("NAME", "a"));
    daemon.file("d/b.yml", &format!("{}---\n{}", text.replace("NAME", "b"), text.replace("NAME", "mynet")));
    daemon.file("d/readme.txt", "not a document");
    let answer = daemon.run(&["apply", "-f", "d"]);
    assert_eq!(answer.out, "devnet a created\ndevnet b created\ndevnet mynet configured\n", "{}", answer.err);
    insta::assert_snapshot!(daemon.run(&["apply", "-f", "d/a.yaml", "--dry-run"]).out, @r"
    devnet a would be configured
      ~ spec.validators: 4 -> 5
      + spec.network: wasmd
      - spec.seed: x
    ");
    let mut child = daemon.command(&["apply", "-f", "-", "-o", "name", "--wait"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.replace("NAME", "c").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), "devnet/c\n"));
}

#[test]
fn completion_needs_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let answer = crate::common::alone(dir.path(), &["completion", "bash"]);
    assert_eq!(answer.code, 0);
    assert!(answer.out.contains("_dvbctl()"));
}

#[test]
fn a_round_trip_is_fast() {
    let daemon = Daemon::start(two_devnets());
    let mut times: Vec<Duration> = (0..30)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(daemon.run(&["get", "nodes"]).code, 0);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("dvbctl get nodes against the fake daemon: median {:?}, best {:?} (unoptimized build, busy machine)", times[15], times[0]);
    // The bound of 5 ms is for a release build on a quiet machine; here only a gross slip can be told.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn a_daemon_that_does_not_answer_is_told_apart_from_one_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stuck.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answer = crate::common::alone(dir.path(), &["--socket", "stuck.sock", "get", "--timeout", "300ms"]);
    assert_eq!(answer.code, 5);
    assert!(answer.err.contains("takes connections but does not answer"), "{}", answer.err);
}

#[test]
fn a_double_signature_is_allowed_to_one_validator_and_never_to_a_devnet() {
    let daemon = Daemon::start(two_devnets());
    for verb in ["start", "restart"] {
        let answer = daemon.run(&[verb, "mynet", "--allow-double-sign"]);
        assert_eq!(answer.code, 2, "{}", answer.err);
        assert!(answer.err.contains(&format!("dvbctl {verb} mynet/validator-0 --allow-double-sign")), "{}", answer.err);
        let answer = daemon.run(&[verb, "mynet/validator-0", "--allow-double-sign", "--no-wait"]);
        assert_eq!(answer.code, 0, "{}", answer.err);
        daemon.run(&[verb, "mynet/validator-1", "--no-wait"]);
    }
    let asked = ["start anyhow mynet/validator-0", "start mynet/validator-1", "restart anyhow mynet/validator-0", "restart mynet/validator-1"];
    assert_eq!(daemon.fake.requests(), asked);
}

#[test]
fn a_daemon_of_another_home_is_asked_for_nothing() {
    let daemon = Daemon::start(two_devnets());
    let home = daemon.dir.path().canonicalize().unwrap();
    let socket = home.join("devnetd.sock").display().to_string();
    let other = tempfile::tempdir().unwrap();
    let meant = other.path().display().to_string();
    for verb in [&["stop", "mynet"][..], &["get", "nodes"], &["delete", "mynet", "--yes"], &["daemon", "start"]] {
        let args = [&["--socket", &socket, "--home", &meant], verb].concat();
        let answer = crate::common::alone(other.path(), &args);
        assert_eq!(answer.code, 5, "{verb:?}: {}", answer.err);
        assert!(answer.err.contains(&format!("serves the home {}, not ", home.display())), "{}", answer.err);
    }
    assert_eq!(daemon.fake.requests(), Vec::<String>::new());
    let answer = crate::common::alone(other.path(), &["--socket", &socket, "get", "devnets", "-o", "name"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "devnet/mynet\ndevnet/other\n"), "a socket alone means any home: {}", answer.err);
}

#[test]
fn a_daemon_that_dies_under_a_call_is_told_as_lost() {
    use std::io::Read as _;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("devnetd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // Takes the call and is gone before it answers, each time.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|mut line| drop(line.read(&mut [0; 64]))));
    let answer = crate::common::alone(home.path(), &["--socket", &path.display().to_string(), "get", "devnets"]);
    assert_eq!(answer.code, 5, "{}", answer.err);
    assert!(answer.err.contains("the connection to devnetd was lost") && answer.err.contains("dvbctl daemon status"), "{}", answer.err);
}
