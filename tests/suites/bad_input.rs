//! Bad input, end to end: one clear error that names the thing and the mend, a fitting exit code, and nothing is lost.

use e2e::{Output, TestHome, binary, is_alive};
use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

fn document(name: &str, spec: &str) -> String {
    format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata:\n  name: {name}\nspec:\n  plugin: commonware\n{spec}")
}

/// Brings `text` up; it must end with `code` and say all of `parts`, and no devnet may be left of it unless it was accepted.
#[track_caller]
fn refused(home: &TestHome, text: &str, code: i32, parts: &[&str]) -> Output {
    let file = home.file("x.yaml", text);
    let answer = home.ctl(&["up", &file, "--timeout", "10s"]).exits(code);
    for part in parts {
        assert!(answer.stderr.contains(part), "{part:?} is missing in\n{}", answer.stderr);
    }
    answer
}

#[test]
fn an_unknown_field_is_shown_with_its_place_and_the_nearest_field() {
    let home = TestHome::new();
    refused(&home, &document("net", "  validator: 4\n"), 2, &["x.yaml:7:3", "unknown field `validator`", "try: validators"]);
    assert!(home.daemon_pid().is_none(), "what cannot be parsed starts no daemon");
}

#[test]
fn a_yaml_bomb_and_two_documents_with_one_name_are_refused_before_any_daemon_is_asked() {
    let home = TestHome::new();
    let mut bomb = document("net", "  validators: 4\n") + "a: &a [x, x, x, x, x, x, x, x, x]\n";
    for (this, last) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let _ = writeln!(bomb, "{this}: &{this} [{}]", vec![format!("*{last}"); 9].join(", "));
    }
    let start = Instant::now();
    refused(&home, &bomb, 2, &["grows too much through aliases"]);
    assert!(start.elapsed() < Duration::from_secs(5));
    let one = document("net", "  validators: 4\n");
    refused(&home, &format!("{one}---\n{one}"), 2, &["the devnet net is defined twice", "x.yaml:4:9"]);
    assert!(home.daemon_pid().is_none());
}

#[test]
fn counts_and_names_out_of_range_are_refused_and_leave_nothing() {
    let home = TestHome::new();
    refused(&home, &document("net", "  validators: 0\n"), 4, &["spec.validators", "at least 1"]);
    refused(&home, &document("net", "  validators: 10000\n"), 4, &["spec.validators", "at most 250"]);
    refused(&home, &document(&"x".repeat(300), ""), 4, &["metadata.name"]);
    refused(&home, &document("../x", ""), 4, &["metadata.name", "../x"]);
    assert_eq!(home.json(&["get", "devnets", "-A"])["items"].as_array().map(Vec::len), Some(0));
    for table in ["devnets", "leases", "nodes"] {
        assert_eq!(home.rows(table), 0, "{table}");
    }
    assert!(!home.home().join("devnets").exists() || fs::read_dir(home.home().join("devnets")).unwrap().flatten().all(|dir| is_empty(&dir.path())));
    assert!(!home.path().join("x").exists() && !home.home().join("x").exists());
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn an_absent_plugin_is_named_with_the_nearest_one() {
    let home = TestHome::new();
    let text = document("net", "").replace("commonware", "commonwear");
    refused(&home, &text, 4, &["commonwear", "commonware"]);
    home.ctl(&["get", "devnet", "net"]).exits(3);
}

#[test]
fn a_binary_that_cannot_be_run_is_named_with_what_is_wrong_with_it() {
    let home = TestHome::new();
    let with = |path: &Path| document("net", &format!("  localhost: false\n  binary: {{path: {}}}\n", path.display()));
    let missing = home.path().join("nowhere");
    refused(&home, &with(&missing), 1, &["nowhere", "does not exist"]);

    let plain = home.path().join("plain");
    fs::copy("/bin/true", &plain).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&home, &with(&plain), 1, &["plain", "is not executable", "chmod +x"]);

    // An ELF program whose header says RISC-V or, on RISC-V, x86-64.
    let foreign = home.path().join("foreign");
    let mut bytes = fs::read("/bin/true").unwrap();
    bytes[18] = if cfg!(target_arch = "riscv64") { 0x3e } else { 0xf3 };
    bytes[19] = 0;
    fs::write(&foreign, bytes).unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o755)).unwrap();
    refused(&home, &with(&foreign), 1, &["foreign", "is built for", "this machine is"]);

    // Each refusal left the devnet as it was asked for, so the mended file goes on from there.
    let conditions = home.devnet("net")["status"]["conditions"].clone();
    assert!(conditions.to_string().contains("foreign"), "{conditions}");
    assert_eq!(home.devnet("net")["status"]["phase"], "Failed");
    let file = home.file("x.yaml", &with(&binary("devchain")));
    home.ctl(&["up", &file]).ok();
    assert_eq!(home.devnet("net")["status"]["phase"], "Running");
}

#[test]
fn a_command_that_exits_at_once_fails_with_its_exit_code_and_last_words() {
    let home = TestHome::new();
    let script = home.file("dies.sh", "#!/bin/sh\necho these are my last words >&2\nexit 3\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  services:\n  \
         - {{name: dies, command: ['{script}'], readiness: {{log: never said}}, restart: {{policy: always, backoff: 50ms, maxRestarts: 2}}}}\n"
    );
    refused(&home, &text, 1, &["net/dies", "3"]);
    let node = home.node("net/dies");
    assert_eq!(node["status"]["phase"], "Failed");
    assert_eq!(node["status"]["restartCount"], 2);
    assert_eq!(node["status"]["lastExit"]["code"], 3);
    assert!(node["status"]["lastExit"]["logTail"].to_string().contains("these are my last words"), "{node}");
    home.ctl(&["logs", "net/dies"]).ok().prints("these are my last words");
}

#[test]
fn a_second_daemon_on_the_same_home_is_refused_and_the_first_goes_on() {
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let first = home.daemon_pid().unwrap();
    home.devnetd().exits(75).says(&format!("pid {first}")).says(&home.home().display().to_string());
    assert!(is_alive(first));
    assert_eq!(home.daemon_pid(), Some(first));
}

#[test]
fn a_home_too_deep_for_a_socket_path_works_all_the_same() {
    let home = TestHome::deep();
    let file = home.file(
        "x.yaml",
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec: {plugin: exec, services: [{name: a, command: [sleep, '1000']}]}\n",
    );
    home.ctl(&["up", &file]).ok();
    assert!(is_alive(home.pid("net/a")));
    home.ctl(&["delete", "net", "--yes"]).ok();
}

#[test]
fn a_socket_path_too_long_is_told_with_the_limit() {
    let home = TestHome::new();
    let long = format!("{}/{}", home.path().display(), "s".repeat(150));
    home.ctl(&["--socket", &long, "get", "devnets"]).exits(2).says("107");
    assert!(home.processes().is_empty());
}

#[test]
fn a_home_that_cannot_be_written_to_is_named_with_the_mend() {
    let home = TestHome::new();
    let locked = home.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    // Root writes everywhere but where the kernel itself says no.
    let target = if nix::unistd::geteuid().is_root() { Path::new("/sys/kernel/dvb").to_owned() } else { locked.join("home") };
    let target = target.display().to_string();
    home.ctl(&["--home", &target, "daemon", "start"]).exits(5).says(&target).says("--home DIR");
}

/// A home with a stopped devnet in its store and no daemon; its store's path.
fn home_with_a_devnet() -> (TestHome, std::path::PathBuf) {
    let home = TestHome::new();
    let file = home.file(
        "x.yaml",
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: kept}\nspec: {plugin: exec, desired: stopped, services: [{name: a, command: [sleep, '9']}]}\n",
    );
    home.ctl(&["apply", "-f", &file, "--wait"]).ok();
    home.ctl(&["daemon", "stop", "--with-nodes"]).ok();
    home.eventually("the daemon has gone", Duration::from_secs(5), |home| home.processes().is_empty());
    let store = home.home().join("devnetd.db");
    (home, store)
}

#[test]
fn a_store_from_a_newer_version_is_left_alone_and_works_again_with_its_own() {
    let (home, store) = home_with_a_devnet();
    let version = |number: Option<u32>| {
        let store = rusqlite::Connection::open(&store).unwrap();
        let now = store.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).unwrap();
        number.inspect(|number| store.pragma_update(None, "user_version", number).unwrap());
        now
    };
    let known = version(Some(99));
    let path = store.display().to_string();
    home.ctl(&["get", "devnets"]).exits(5).says(&path).says("schema 99").says("another home");
    assert_eq!(version(Some(known)), 99, "nothing was written into it");
    assert_eq!(home.devnet("kept")["status"]["phase"], "Stopped");
}

#[test]
fn a_damaged_store_is_kept_as_it_is_and_told_with_the_mend() {
    let (home, store) = home_with_a_devnet();
    let whole = fs::read(&store).unwrap();
    let mut damaged = whole.clone();
    damaged[100..4096].fill(0x5a);
    fs::write(&store, &damaged).unwrap();
    let path = store.display().to_string();
    home.ctl(&["get", "devnets"]).exits(5).says(&path).says("damaged").says("restore").says("move");
    assert!(fs::read(&store).unwrap() == damaged, "not a byte was changed");
    fs::write(&store, whole).unwrap();
    assert_eq!(home.devnet("kept")["status"]["phase"], "Stopped");
}
