//! Ports: parked while their nodes do not run, and strangers on them named.

use e2e::{TestHome, binary, condition, is_alive};
use nix::sys::signal::{Signal, kill};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);

/// A service that listens on two ports, of which the first is parked. Each test has numbers of its own.
fn web(web: u16, open: u16) -> String {
    let command = format!(
        r#"[sh, -c, 'mkdir -p data; exec {} --home . --rpc "$DVB_ADDRESS:$DVB_PORT_WEB" --p2p "$DVB_ADDRESS:$DVB_PORT_OPEN"']"#,
        binary("mock-node").display()
    );
    format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  restart: {{backoff: 100ms}}\n  services:\n    \
         - {{name: web, command: {command}, ports: {{web: {web}, open: {open}}}, park: [web], readiness: {{tcp: web}}}}\n"
    )
}

fn address(home: &TestHome, node: &str) -> Ipv4Addr {
    home.node(node)["spec"]["address"].as_str().unwrap().parse().unwrap()
}

/// As any other program would: the standard library says SO_REUSEADDR.
fn can_be_bound(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

/// Reason and message of the node's condition Ready.
fn ready(home: &TestHome, node: &str) -> Option<(String, String)> {
    let ready = condition(&home.node(node), "Ready");
    Some((ready["reason"].as_str()?.to_owned(), ready["message"].as_str()?.to_owned()))
}

/// State of the node's port of this name.
fn state(home: &TestHome, node: &str, port: &str) -> String {
    let leases = home.json(&["ports"]);
    let lease = leases["items"].as_array().unwrap().iter().find(|lease| lease["node"] == node && lease["name"] == port);
    lease.unwrap_or_else(|| panic!("{leases}"))["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_parked_port_is_nobody_elses_between_stop_and_start_whatever_becomes_of_the_daemon() {
    const WEB: u16 = 18_438;
    const OPEN: u16 = 18_439;
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", &web(WEB, OPEN))]).ok();
    let at = address(&home, "net/web");
    assert_eq!(state(&home, "net/web", "web"), "held");
    home.ctl(&["stop", "net"]).ok();
    let check = |when: &str| {
        assert!(!can_be_bound(at, WEB), "{when}");
        assert!(!can_be_bound(Ipv4Addr::UNSPECIFIED, WEB), "{when}");
        assert!(TcpStream::connect((at, WEB)).is_err(), "nobody listens {when}");
    };
    home.eventually("the stopped node's port is parked", SOON, |home| state(home, "net/web", "web") == "parked");
    check("while it is stopped");
    assert_eq!(state(&home, "net/web", "open"), "free");
    assert!(can_be_bound(at, OPEN), "it was not asked for");
    home.kill_daemon();
    check("while no daemon lives");
    home.ctl(&["daemon", "start"]).ok();
    check("with the next daemon");
    assert_eq!(state(&home, "net/web", "web"), "parked");
    home.ctl(&["daemon", "reload"]).ok();
    check("after a reload");
    home.ctl(&["daemon", "stop"]).ok();
    check("after the daemon has ended");

    home.ctl(&["start", "net", "--timeout", "60s"]).ok();
    assert_eq!(state(&home, "net/web", "web"), "held");
    assert!(TcpStream::connect((at, WEB)).is_ok());
    assert_eq!(home.node("net/web")["status"]["restartCount"], 0, "it had its port at once");

    home.ctl(&["stop", "net"]).ok();
    home.eventually("it is parked again", SOON, |_| !can_be_bound(at, WEB));
    home.ctl(&["delete", "net", "--yes", "--timeout", "60s"]).ok();
    assert!(can_be_bound(at, WEB), "delete gives it back");
}

#[test]
fn a_daemon_that_ends_with_its_nodes_lets_go_of_their_ports_and_the_next_one_parks_those_of_a_stopped_devnet() {
    const WEB: u16 = 18_440;
    const OPEN: u16 = 18_441;
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", &web(WEB, OPEN))]).ok();
    let at = address(&home, "net/web");
    home.ctl(&["stop", "net"]).ok();
    home.eventually("its port is parked", SOON, |_| !can_be_bound(at, WEB));
    let keeper = home.keeper().expect("the keeper holds it");
    home.ctl(&["daemon", "stop", "--with-nodes"]).ok();
    assert!(can_be_bound(at, WEB));
    home.eventually("the keeper has nothing to hold", SOON, |_| !is_alive(keeper));
    home.ctl(&["daemon", "start"]).ok();
    home.eventually("it is parked again", SOON, |_| !can_be_bound(at, WEB));
}

#[test]
fn ports_that_a_plugin_parks_are_held_while_their_node_waits_for_its_restart() {
    let home = TestHome::new();
    let node = binary("mock-node").display().to_string();
    let spec = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec: {{plugin: mock, validators: 1, localhost: false, \
         binary: {{path: {node}}}, restart: {{backoff: 10m, maxBackoff: 10m}}}}\n"
    );
    home.ctl(&["up", &home.file("devnet.yaml", &spec)]).ok();
    let (at, port) = (address(&home, "net/validator-0"), 36_657);
    kill(home.pid("net/validator-0"), Signal::SIGKILL).unwrap();
    home.eventually("both ports are parked", SOON, |home| ["rpc", "p2p"].iter().all(|name| state(home, "net/validator-0", name) == "parked"));
    assert!(!can_be_bound(at, port));
    home.ctl(&["restart", "net/validator-0", "--timeout", "60s"]).ok();
    assert_eq!(state(&home, "net/validator-0", "rpc"), "held");
}

#[test]
fn doctor_names_a_stranger_on_a_leased_port_and_how_to_be_rid_of_it() {
    const WEB: u16 = 18_442;
    const OPEN: u16 = 18_443;
    let home = TestHome::new();
    home.ctl(&["up", &home.file("devnet.yaml", &web(WEB, OPEN))]).ok();
    home.ctl(&["stop", "net"]).ok();
    let at = address(&home, "net/web");
    let stranger = TcpListener::bind(("::", OPEN)).unwrap();
    let me = std::process::id();
    let report = home.json(&["daemon", "doctor"]);
    let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "taken ports").unwrap_or_else(|| panic!("{report}"));
    let message = found["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("pid {me} (")) && message.ends_with(&format!("has {OPEN} (open) of net/web on {at}")), "{message}");
    assert_eq!(found["remedy"], format!("kill {me}, or give that program other ports"));
    let files = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "open files").unwrap();
    assert!(files["message"].as_str().unwrap().starts_with("devnetd has "), "{files}");
    // The start is refused with the same name.
    home.ctl(&["start", "net", "--no-wait"]).ok();
    home.eventually("the node's condition names it", SOON, |home| {
        home.node("net/web")["status"]["lastExit"]["message"].as_str().is_some_and(|text| text.contains(&format!("is taken by pid {me} (")))
    });
    drop(stranger);
    home.ctl(&["wait", "net", "--for=Running", "--timeout", "60s"]).ok();
}

#[test]
fn the_ports_of_a_chain_are_parked_for_who_asks_for_it() {
    let home = TestHome::new();
    let devnet = |park: &str| {
        let text = format!(
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec: {{plugin: commonware, validators: 1, localhost: false, blockTime: 100ms{park}}}\n"
        );
        home.file("devnet.yaml", &text)
    };
    let states = |wanted: &str| {
        home.eventually(wanted, SOON, |home| {
            let leases = home.json(&["ports"]);
            let ports = leases["items"].as_array().unwrap();
            !ports.is_empty() && ports.iter().all(|port| port["state"] == wanted)
        });
    };
    home.ctl(&["up", &devnet("")]).ok();
    let pid = home.pid("net/validator-0");
    home.ctl(&["stop", "net"]).ok();
    states("free");
    home.ctl(&["start", "net"]).ok();
    let second = home.pid("net/validator-0");
    home.ctl(&["up", &devnet(", park: true")]).ok();
    assert_eq!((home.pid("net/validator-0"), second == pid), (second, false), "no reason to restart it");
    home.ctl(&["stop", "net"]).ok();
    states("parked");
    let ports = home.node("net/validator-0")["spec"]["ports"].as_object().unwrap().clone();
    for port in ports.values().map(|port| u16::try_from(port.as_u64().unwrap()).unwrap()) {
        assert!(!can_be_bound(address(&home, "net/validator-0"), port) && !can_be_bound(Ipv4Addr::UNSPECIFIED, port), "{port}");
    }
    home.ctl(&["start", "net"]).ok();
    states("held");
}

#[test]
fn a_node_is_not_ready_by_the_answer_of_a_stranger_who_is_named() {
    const WEB: u16 = 18_446;
    let home = TestHome::new();
    let command = format!(
        r#"[sh, -c, 'mkdir -p data; until [ -e go ]; do sleep 0.1; done; {} --home . --rpc "$DVB_ADDRESS:{WEB}" --p2p "$DVB_ADDRESS:0"; exit']"#,
        binary("mock-node").display()
    );
    for (name, readiness) in [("tcp", "{tcp: web}"), ("http", "{http: 'web/status'}")] {
        let devnet = format!(
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec:\n  plugin: exec\n  services:\n    \
             - {{name: web, command: {command}, ports: {{web: {WEB}}}, readiness: {readiness}}}\n"
        );
        home.ctl(&["up", "--no-wait", &home.file("devnet.yaml", &devnet)]).ok();
        let node = format!("{name}/web");
        home.eventually("it is launched", SOON, |home| home.nodes(name).get("web").is_some_and(|node| node["status"]["pid"].is_u64()));
        home.eventually("what it is waited for is told", SOON, |home| ready(home, &node).is_some_and(|(_, why)| why.contains("refused")));
        let waited = home.ctl(&["wait", &node, "--for=ready", "--timeout", "1s"]).exits(6);
        waited.says(&format!("{node}: not done within 1s: not ready, phase Starting: {name}"));
        let stranger = TcpListener::bind((address(&home, &node), WEB)).unwrap();
        let me = std::process::id();
        let answering = std::thread::spawn(move || {
            // Whatever it is asked: yes.
            while let Ok((mut line, _)) = stranger.accept() {
                let mut asked = [0; 1024];
                if line.read(&mut asked).is_ok_and(|length| asked[..length].starts_with(b"end")) {
                    return;
                }
                let _ = line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        home.eventually("the stranger is named", SOON, |home| {
            assert_eq!(home.node(&node)["status"]["phase"], "Starting");
            ready(home, &node).is_some_and(|(reason, why)| reason == "PortBusy" && why.contains(&format!("is answered by pid {me} (")))
        });
        TcpStream::connect((address(&home, &node), WEB)).unwrap().write_all(b"end").unwrap();
        answering.join().unwrap();
        let spec = home.node(&node)["spec"].clone();
        fs::write(Path::new(spec["homeDir"].as_str().unwrap()).join("go"), "").unwrap();
        home.ctl(&["wait", "--for=Running", &node, "--timeout", "60s"]).ok(); // a child of its main process answers now
        home.ctl(&["delete", name, "--yes"]).ok();
    }
}

#[test]
fn a_number_that_the_kernel_lends_to_others_is_told_on_its_node_with_range_and_mend() {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let range: Vec<u16> = read("ip_local_port_range").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (low, high) = (range[0], range[1]);
    if !read("ip_local_reserved_ports").trim().is_empty() {
        return println!("SKIP: some ports of this machine are reserved, perhaps ours");
    }
    let home = TestHome::new();
    // The kernel may have lent them to somebody at this moment: other two, then.
    let taken = |lent: u16| !can_be_bound(Ipv4Addr::UNSPECIFIED, lent) || !can_be_bound(Ipv4Addr::UNSPECIFIED, lent - 1);
    let lent = (1..=5).map(|tried| high - 77 * tried).find(|lent| !taken(*lent)).expect("two ports of the kernel's that nobody has");
    home.ctl(&["up", &home.file("devnet.yaml", &web(lent - 1, lent))]).ok();
    let told = condition(&home.node("net/web"), "PortsReserved");
    assert_eq!((&told["status"], &told["reason"]), (&"Unknown".into(), &"EphemeralPort".into()));
    let message = told["message"].as_str().unwrap();
    assert!(message.contains(&format!("{low}-{high}")) && message.contains(&format!("{lent} (open)")), "{message}");
    assert!(!message.contains("(web)"), "what is parked is given to nobody: {message}");
    assert!(told["remedy"].as_str().unwrap().ends_with(&format!("ip_local_reserved_ports={lent}")), "{told}");
    home.ctl(&["describe", "net/web"]).ok().prints("PortsReserved").prints("sudo sysctl");
    home.ctl(&["up", &home.file("devnet.yaml", &web(lent - 1, 18_448))]).ok();
    home.eventually("with another number nothing is told", SOON, |home| {
        home.pids("net").len() == 1 && condition(&home.node("net/web"), "PortsReserved").is_null()
    });
}
