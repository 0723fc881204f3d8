//! What devnetd needs of the machine runs out: it says so, loses nothing, and goes on when there is enough again.

use e2e::{Follower, TestHome, allow_no_descriptor, binary, condition, is_alive, limit_descriptors, open_files, wasmd};
use nix::sys::signal::{Signal, kill};
use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

const SOON: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

fn document(command: &str) -> String {
    format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  restart: {{backoff: 100ms}}\n  \
         services: [{{name: a, command: {command}, restart: {{policy: always}}}}]\n"
    )
}

fn up_in(home: &TestHome) {
    home.ctl(&["up", &home.file("devnet.yaml", &document("[sleep, '1000']"))]).ok();
}

#[test]
fn a_full_disk_is_named_kills_nobody_and_is_forgotten_when_there_is_room() {
    let Some(home) = TestHome::on_small_disk("16m") else {
        println!("SKIP: this kernel gives users no namespaces");
        return;
    };
    up_in(&home);
    let (daemon, node) = (home.daemon_pid().unwrap(), home.pid("net/a"));
    home.fill_disk(0);
    let refused = home.eventually_refused();
    assert!(refused.stderr.contains("is full"), "{}", refused.stderr);
    assert!(refused.stderr.contains("devnetd.db"), "it names the file: {}", refused.stderr);
    assert!(is_alive(node) && home.daemon_pid() == Some(daemon));
    kill(node, Signal::SIGKILL).unwrap();
    home.clear_disk();
    home.eventually("it is restarted", SOON, |home| home.pids("net").get("a").is_some_and(|pid| *pid != node && is_alive(*pid)));
    assert_eq!(home.daemon_pid(), Some(daemon), "the same daemon");
    home.ctl(&["stop", "net", "--timeout", "20s"]).ok();
    home.assert_each_once("net");
}

#[test]
fn a_full_log_disk_is_a_condition_with_its_mend_and_uses_up_no_restart() {
    // So few inodes that no file can be made long before it is full: the programs that write to files that they have go on.
    let Some(home) = TestHome::beside_small_disk("16m,nr_inodes=60") else {
        println!("SKIP: this kernel gives users no namespaces");
        return;
    };
    let (disk, seen) = home.small_disk();
    let text = document("[sleep, '1000']").replace("backoff: 100ms", "backoff: 100ms, maxRestarts: 2");
    home.ctl(&["up", &home.file("devnet.yaml", &text)]).ok();
    home.ctl(&["stop", "net/a"]).ok();
    let logs = home.home().join("devnets/default/net/nodes/a/logs");
    fs::remove_dir_all(&logs).unwrap();
    symlink(&disk, &logs).unwrap();
    home.ctl(&["start", "net/a"]).ok();
    let node = home.pid("net/a");
    let fillers = (0..1000).map(|number| seen.join(format!("filler-{number}"))).take_while(|path| fs::write(path, "").is_ok());
    let fillers: Vec<_> = fillers.collect();
    assert!(fillers.len() < 100, "the disk has room for as many files as one likes");
    kill(node, Signal::SIGKILL).unwrap();
    let mut ready = serde_json::Value::Null;
    home.eventually("its condition says so", SOON, |home| {
        ready = condition(&home.node("net/a"), "Ready");
        ready["reason"] == "NoResources"
    });
    let said = ready["message"].as_str().unwrap();
    assert!(said.contains("No space left") && said.contains(".log"), "{ready}");
    assert!(ready["remedy"].as_str().unwrap().contains("free space"), "{ready}");
    let tries = || {
        let events = home.json(&["events", "net/a"])["items"].as_array().cloned().unwrap_or_default();
        events.iter().filter(|event| event["message"].as_str().is_some_and(|text| text.contains("No space left"))).count()
    };
    home.eventually("it is tried more often than it may be restarted", PATIENCE, |_| tries() > 3);
    assert_ne!(home.node("net/a")["status"]["phase"], "Failed");
    fillers.iter().for_each(|path| fs::remove_file(path).unwrap());
    home.eventually("it runs again", PATIENCE, |home| home.pids("net").get("a").is_some_and(|pid| *pid != node && is_alive(*pid)));
    assert_eq!(home.node("net/a")["status"]["restartCount"], 1, "what could not be started is no restart");
    home.assert_each_once("net");
}

/// What an export takes lies on the small disk; the devnet and the store do not.
#[test]
fn a_disk_that_fills_up_in_the_middle_of_an_export_is_named_with_the_mend_which_then_works() {
    let chains = [("commonware", Some(binary("devchain"))), ("cosmos", wasmd())];
    for (plugin, program) in chains.into_iter().filter_map(|(plugin, program)| Some((plugin, program?))) {
        let Some(home) = TestHome::beside_small_disk("160m") else {
            println!("SKIP: this kernel gives users no namespaces");
            return;
        };
        an_export_on_a_full_disk(&home, plugin, &program);
    }
}

fn an_export_on_a_full_disk(home: &TestHome, plugin: &str, program: &Path) {
    let (begun, go) = (home.path().join("begun"), home.path().join("go"));
    let hold = format!(
        "if [ \"$1\" = export ] && [ \"$2\" != --help ]; then : > {}; while [ ! -e {} ]; do sleep 0.05; done; fi",
        begun.display(),
        go.display()
    );
    let libraries = program.with_file_name("lib");
    let chain = home.program("chain", &format!("{hold}\nLD_LIBRARY_PATH={} exec {} \"$@\"", libraries.display(), program.display()));
    let spec = format!("{{plugin: {plugin}, binary: {{path: {chain}}}, validators: 2, blockTime: 300ms, localhost: false}}");
    let text = format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec: {spec}\n");
    home.ctl(&["up", &home.file("net.yaml", &text), "--timeout", "90s"]).ok();
    let pids = home.pids("net");
    let (disk, seen) = home.small_disk();
    symlink(&disk, home.home().join("devnets/default/net/exports")).unwrap();
    let left = |name: &str| fs::read_dir(seen.join(name)).map_or(0, Iterator::count);
    let again = "free space, then dvbctl export delete net/some, then dvbctl export create net some";

    home.fill_disk(32 << 20);
    let early = home.ctl(&["export", "create", "net", "some", "--wait", "--timeout", "60s"]).exits(1);
    early.says("a copy of").says("net/exports/some").says(again);
    assert_eq!((left("some"), begun.exists()), (0, false));
    home.clear_disk();

    home.ctl(&["export", "delete", "net/some", "--yes"]).ok();
    home.ctl(&["export", "create", "net", "some"]).ok();
    home.eventually("the chain's program reads the clone", PATIENCE, |_| begun.exists());
    assert_eq!(left("some"), 2, "the clone, and where the state is written");
    home.fill_disk(0);
    fs::write(&go, "").unwrap();
    let full = home.ctl(&["export", "status", "net/some", "--wait", "--timeout", "60s"]).exits(1);
    full.says("is full").says("net/exports/some").says(again);
    assert_eq!(left("some"), 0);
    home.all_rise("net", 2);
    assert_eq!(home.pids("net"), pids, "no node was hurt");

    home.clear_disk();
    home.ctl(&["export", "delete", "net/some", "--yes"]).ok();
    home.ctl(&["export", "create", "net", "some", "--wait", "--timeout", "60s"]).ok();
    assert_eq!(left("some"), 1, "the state alone");
}

#[test]
fn a_daemon_raises_its_limit_of_descriptors_and_what_it_starts_gets_the_one_it_found() {
    const FOUND: u64 = 900;
    let home = TestHome::new();
    let file = home.file("devnet.yaml", &document("[sleep, '1000']"));
    let up = home.command_with_open_files(FOUND, &["up", &file]).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let daemon = home.daemon_pid().unwrap();
    let (_, hard) = open_files(daemon).unwrap();
    let check = |when: &str| {
        assert_eq!(open_files(daemon).unwrap(), (Some(hard.map_or(65_536, |hard| hard.min(65_536))), hard), "devnetd {when}");
        assert_eq!(open_files(home.pid("net/a")).unwrap(), (Some(FOUND), hard), "its node {when}");
        home.ctl(&["apply", "-f", &file, "--dry-run"]).ok(); // the plugin is asked, so it runs
        let plugin = home.processes().into_iter().find(|(_, command)| command.contains("dvb-plugin-exec"));
        let plugin = plugin.unwrap_or_else(|| panic!("no plugin {when}: {:?}", home.processes()));
        assert_eq!(open_files(plugin.0).unwrap(), (Some(FOUND), hard), "its plugin {when}");
    };
    check("at first");
    home.ctl(&["daemon", "reload"]).ok();
    assert_eq!(home.daemon_pid(), Some(daemon));
    home.ctl(&["restart", "net/a", "--timeout", "60s"]).ok();
    check("after a reload");
}

trait Refused {
    fn eventually_refused(&self) -> e2e::Output;
}

impl Refused for TestHome {
    /// What is already taken of the store's log is written to first.
    fn eventually_refused(&self) -> e2e::Output {
        for _ in 0..100 {
            let answer = self.ctl(&["restart", "net/a", "--no-wait"]);
            if answer.code != 0 {
                return answer;
            }
        }
        panic!("nothing is refused on a full disk");
    }
}

#[test]
fn a_daemon_out_of_descriptors_ends_no_node_and_restarts_the_dead_once_it_has_some() {
    let home = TestHome::new();
    up_in(&home);
    let (daemon, node) = (home.daemon_pid().unwrap(), home.pid("net/a"));
    assert!(limit_descriptors(daemon, Some(0)));
    kill(node, Signal::SIGKILL).unwrap();
    let log = || fs::read_to_string(home.home().join("logs/devnetd.log")).unwrap_or_default();
    home.eventually("it says what it lacks", SOON, |_| log().contains("Too many open files"));
    assert!(is_alive(daemon));
    assert!(limit_descriptors(daemon, None));
    home.eventually("the node runs again", SOON, |home| home.pids("net").get("a").is_some_and(|pid| *pid != node && is_alive(*pid)));
    assert_eq!(home.daemon_pid(), Some(daemon), "the same daemon");
    home.assert_each_once("net");
}

/// What a watch has told so far, as it was told.
fn told(bytes: &[u8]) -> Vec<serde_json::Value> {
    serde_json::Deserializer::from_slice(bytes).into_iter().map_while(Result::ok).collect()
}

#[test]
fn a_start_that_lacks_descriptors_is_a_condition_with_its_mend_that_an_open_watch_sees_come_and_go() {
    let home = TestHome::new();
    up_in(&home);
    let (daemon, node) = (home.daemon_pid().unwrap(), home.pid("net/a"));
    let watch = Follower::of(&home, &["get", "nodes", "net", "-w", "-o", "json"]);
    let ready = |bytes: &[u8]| told(bytes).last().map(|node| condition(node, "Ready")).unwrap_or_default();
    watch.out.until("the present state", |bytes| ready(bytes)["status"] == "True");
    assert!(allow_no_descriptor(daemon));
    kill(node, Signal::SIGKILL).unwrap();
    let said = ready(&watch.out.until("what the start lacks", |bytes| ready(bytes)["reason"] == "NoResources"));
    assert!(said["status"] == "False" && said["message"].as_str().unwrap().contains("Too many open files"), "{said}");
    assert!(said["remedy"].as_str().unwrap().contains("ulimit -n"), "{said}");
    assert!(limit_descriptors(daemon, None));
    watch.out.until("it is ready again", |bytes| ready(bytes)["status"] == "True");
    assert_eq!(home.daemon_pid(), Some(daemon), "the same daemon");
    let now = home.node("net/a");
    assert_eq!(now["status"]["restartCount"], 1, "what could not be started is no restart: {now}");
    assert!(condition(&now, "Ready")["remedy"].is_null(), "{now}");
    home.assert_each_once("net");
}

#[test]
fn a_node_that_ignores_sigterm_and_forks_without_end_is_gone_after_stop() {
    let home = TestHome::new();
    // One child after the other, each in a session of its own, each gone in a moment; minutes long, should nobody stop it.
    let command = "[sh, -c, 'trap \"\" TERM; i=0; while [ $i -lt 15000 ]; do i=$((i+1)); setsid sleep 0.2 & sleep 0.02; done']";
    home.ctl(&["up", &home.file("devnet.yaml", &document(command))]).ok();
    let node = home.pid("net/a");
    assert!(is_alive(node), "it forks until it is stopped");
    home.ctl(&["stop", "net", "--timeout", "60s"]).ok();
    assert!(!is_alive(node));
    assert!(home.mains().is_empty() && home.leaves().is_empty());
    home.ctl(&["orphans"]).ok().says("no orphans");
}
