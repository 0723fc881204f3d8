//! Plugins as processes of the daemon, end to end.

use e2e::{TestHome, binary, is_alive};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// The mock plugin, put into the home so that it plays `script`.
fn with_mock(script: &str) -> TestHome {
    let home = TestHome::new();
    let script = home.file("h/script.json", script);
    let program = format!("#!/bin/sh\nDVB_MOCK_SCRIPT={script} exec {}\n", binary("dvb-plugin-mock").display());
    let wrapper = home.file("h/plugins/dvb-plugin-mock", &program);
    fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    home
}

fn plugin(home: &TestHome) -> Option<Pid> {
    home.processes().into_iter().find(|(_, command)| command.contains("dvb-plugin-mock")).map(|(pid, _)| pid)
}

fn mock(spec: &str) -> String {
    format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: mock\n  localhost: false\n{spec}")
}

#[test]
fn a_plugin_that_hangs_does_not_outlive_a_daemon_that_is_killed() {
    let home = with_mock(r#"{"linger": true}"#);
    let file = home.file("x.yaml", &mock(""));
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["apply", "-f", &file, "--dry-run"]).ok();
    let plugin = plugin(&home).expect("it was started to be asked");
    assert!(is_alive(plugin));
    kill(home.daemon_pid().unwrap(), Signal::SIGKILL).unwrap();
    home.eventually("the plugin is gone", Duration::from_secs(5), |home| !home.processes().iter().any(|(pid, _)| *pid == plugin));
}

#[test]
fn what_a_plugin_refuses_is_refused_at_the_apply_with_its_place() {
    let home = TestHome::new();
    let spec = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: exec\n  network: wasmd\n  services: [{name: a, command: [sleep, '1000']}]\n";
    let file = home.file("x.yaml", spec);
    home.ctl(&["daemon", "start"]).ok();
    for verb in [["apply", "-f", &file, "--dry-run"].as_slice(), &["apply", "-f", &file], &["up", &file]] {
        home.ctl(verb).exits(4).says("plugin exec has no named networks").says("x.yaml:6:");
    }
    home.ctl(&["get", "devnet", "net"]).exits(3);
}

#[test]
fn a_plugin_that_hangs_keeps_nobody_from_applying() {
    let home = with_mock(r#"{"calls": {"ValidateSpec": {"hang": true}}}"#);
    let file = home.file("x.yaml", &mock(""));
    home.ctl(&["apply", "-f", &file]).ok().prints("created");
    home.ctl(&["delete", "net", "--yes"]).ok();
}

#[test]
fn a_dry_run_makes_no_home_and_starts_no_daemon() {
    let home = TestHome::new();
    let file = home.file("x.yaml", &mock(""));
    home.ctl(&["apply", "-f", &file, "--dry-run"]).exits(5).says("the documents can be read").says("dvbctl daemon start");
    assert!(!home.home().exists(), "a home was made");
    home.ctl(&["apply", "-f", &home.file("y.yaml", "kind: Devnet\nspek: {}\n"), "--dry-run"]).exits(2).says("y.yaml:1:");
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["daemon", "stop"]).ok();
    home.ctl(&["apply", "-f", &file, "--dry-run"]).exits(5);
    assert!(home.daemon_pid().is_none(), "a daemon was started");
}

#[test]
fn a_devnet_without_its_binary_is_refused_by_apply_as_by_its_dry_run() {
    let home = TestHome::new();
    let file = home.file("x.yaml", "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec:\n  plugin: cosmos\n");
    home.ctl(&["daemon", "start"]).ok();
    let dry =
        home.ctl(&["apply", "-f", &file, "--dry-run"]).exits(4).says("spec.binary").says("plugin cosmos ships no node binary").says("x.yaml:4:");
    for verb in [["apply", "-f", &file].as_slice(), &["up", &file]] {
        assert_eq!(home.ctl(verb).exits(4).stderr, dry.stderr, "{verb:?}");
    }
    home.ctl(&["get", "devnet", "net"]).exits(3);
}

#[test]
fn a_plugin_that_misses_its_node_binary_says_which_and_where_and_takes_it_when_it_is_there() {
    let home = TestHome::new();
    let plugin = home.file("h/plugins/dvb-plugin-commonware", "");
    fs::copy(binary("dvb-plugin-commonware"), &plugin).unwrap();
    let file = home.file("x.yaml", "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: net}\nspec: {plugin: commonware, validators: 1}\n");
    let devchain = home.home().join("plugins/devchain");
    home.ctl(&["daemon", "start"]).ok();
    for verb in [["apply", "-f", &file, "--dry-run"].as_slice(), &["apply", "-f", &file], &["up", &file]] {
        home.ctl(verb).exits(4).says(&format!("there is no {}", devchain.display())).says("cargo xtask install");
    }
    fs::copy(binary("devchain"), &devchain).unwrap();
    home.ctl(&["apply", "-f", &file, "--dry-run"]).ok().prints("would be created");
    home.ctl(&["up", &file]).ok();
}
