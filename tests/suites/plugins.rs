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
