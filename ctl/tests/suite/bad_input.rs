//! Bad input that is the client's business: one clear error that names the thing and the mend, and a fitting exit code.

use crate::common::{Daemon, alone, fake::World};
use std::fmt::Write as _;

const HEAD: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: mynet}\n";

/// Applies `text`; it must be refused with exit code 2, before any daemon is asked, and say all of `parts`.
fn check(text: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.yaml"), text).unwrap();
    let answer = alone(dir.path(), &["apply", "-f", "x.yaml"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{text}\n{}", answer.err);
    for part in parts {
        assert!(answer.err.contains(part), "{part:?} is missing in\n{}", answer.err);
    }
}

#[test]
fn unknown_and_mistyped_fields_name_line_column_and_the_nearest_field() {
    check(&format!("{HEAD}spec:\n  plugin: cosmos\n  validator: 4\n"), &["x.yaml:6:3", "unknown field `validator`", "^^^^^^^^^", "try: validators"]);
    check(&format!("{HEAD}spec: {{plugin: cosmos, full_nodes: 4}}\n"), &["x.yaml:4:24", "try: fullNodes"]);
    check(&format!("{HEAD}plugin: cosmos\n"), &["x.yaml:4:1", "try: spec.plugin"]);
    check(&format!("{HEAD}spec: {{zzzzzz: 1}}\n"), &["unknown field `zzzzzz`", "one of plugin, network"]);
    check(&format!("{HEAD}spec:\n  services:\n  - {{name: x, comand: [a]}}\n"), &["x.yaml:6:15", "try: command"]);
}

#[test]
fn an_export_to_where_nobody_can_write_is_refused_before_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for to in ["/no/such/folder/state.json", "/proc"] {
        let answer = alone(dir.path(), &["export", "create", "mynet", "--to", to]);
        assert!(answer.code != 0 && answer.err.contains(&format!("{to}: ")) && answer.err.contains("try: --to FILE"), "{}", answer.err);
    }
}

#[test]
fn values_of_the_wrong_type_are_explained() {
    let spec = |spec: &str| format!("{HEAD}spec: {{plugin: cosmos, {spec}}}\n");
    check(&spec("validators: four"), &["x.yaml:4:36", "expected a whole number", "the text `four`"]);
    check(&spec("validators: -1"), &["expected a whole number from 0 to 4294967295", "`-1`"]);
    check(&spec("validators: 1.5"), &["expected a whole number", "`1.5`"]);
    check(&spec("localhost: yes"), &["expected true or false", "`yes`"]);
    check(&spec("chainId: [a]"), &["expected a text", "a list"]);
    check(&spec("nodes: {name: a}"), &["expected a list", "a map"]);
    check(&spec("services: [{name: x, command: hermes start}]"), &["expected a list", "try: [hermes, start]"]);
    check(&spec("services: [{name: x, env: {A: }}]"), &["expected a text, found nothing", "try: write \"\" for an empty text"]);
    check(&spec("restart: always"), &["expected a map of fields"]);
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    check(&format!("{HEAD}spec: {{plugin: cosmos\n"), &["x.yaml:"]);
    check(&format!("{HEAD}spec:\n\tplugin: cosmos\n"), &["x.yaml:5:"]);
    check(&format!("{HEAD}spec: {{plugin: a, plugin: b}}\n"), &["x.yaml:4:", "`plugin` stands twice"]);
    check(&format!("{HEAD}spec: *nowhere\n"), &["x.yaml:4:"]);
}

#[test]
fn documents_of_another_kind_or_version_are_refused_at_their_head() {
    check("apiVersion: v1\nkind: ConfigMap\n", &["x.yaml:2:7", "kind `ConfigMap` cannot be applied", "try: Devnet"]);
    check("apiVersion: devnet.builder/v9\nkind: Devnet\n", &["x.yaml:1:13", "try: devnet.builder/v1"]);
    check("kind: Devnet\nmetadata: {name: a}\n", &["apiVersion is missing"]);
    check("apiVersion: devnet.builder/v1\nkind: Devnet\n", &["metadata.name is missing"]);
    check("apiversion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: a}\n", &["x.yaml:1:1", "try: apiVersion"]);
    check("just text\n", &["a document is a map of fields"]);
    check("foo: bar\n", &["is not a Devnet"]);
    check("", &["no document in x.yaml"]);
}

#[test]
fn two_documents_with_one_name_name_both_places() {
    let one = format!("{HEAD}spec: {{plugin: cosmos}}\n");
    check(&format!("{one}---\n{one}"), &["x.yaml:8:18", "the devnet mynet is defined twice; first at x.yaml:3:18"]);
}

#[test]
fn twins_in_two_files_are_found_and_other_namespaces_are_no_twins() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yaml", HEAD);
    write("b.yaml", HEAD);
    let answer = alone(dir.path(), &["apply", "-f", "a.yaml", "-f", "b.yaml"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("b.yaml:3:18") && answer.err.contains("first at a.yaml:3:18"), "{}", answer.err);
    let daemon = Daemon::start(World::default());
    daemon.file("a.yaml", HEAD);
    daemon.file("b.yaml", &HEAD.replace("name: mynet", "name: mynet, namespace: other"));
    let answer = daemon.run(&["apply", "-f", "."]);
    assert_eq!(answer.code, 0, "{}", answer.err);
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut text = format!("{HEAD}a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (this, last) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let _ = writeln!(text, "{this}: &{this} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]");
    }
    let start = std::time::Instant::now();
    check(&text, &["too large, too deep or grows too much through aliases"]);
    assert!(start.elapsed().as_secs() < 5);
    check(&format!("{HEAD}spec: {}{}\n", "[".repeat(10_000), "]".repeat(10_000)), &["x.yaml:"]);
}

#[test]
fn names_and_counts_out_of_range_go_to_the_server_as_they_are() {
    let daemon = Daemon::start(World::default());
    let long = "x".repeat(300);
    for (name, validators) in [("../x", 4), (long.as_str(), 4), ("mynet", 0), ("mynet", 10_000)] {
        daemon.file("x.yaml", &format!("{}spec: {{plugin: cosmos, validators: {validators}}}\n", HEAD.replace("mynet", name)));
        assert_eq!(daemon.run(&["apply", "-f", "x.yaml"]).code, 0);
    }
    assert_eq!(daemon.fake.requests().len(), 4);
}

#[test]
fn a_variable_that_is_not_set_is_told_with_its_place() {
    let spec = "spec:\n  plugin: cosmos\n  binary: {path: \"${NOPE}/wasmd\"}\n";
    check(&format!("{HEAD}{spec}"), &["x.yaml:6:18", "the variable NOPE is not set"]);
    let cwd = "spec: {services: [{name: x, command: [a], cwd: '${'}]}\n";
    check(&format!("{HEAD}{cwd}"), &["x.yaml:4:", "has no closing `}`"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |args: &[&str], part: &str| {
        let answer = alone(dir.path(), args);
        assert_eq!(answer.code, 2, "{}", answer.err);
        assert!(answer.err.contains(part), "{}", answer.err);
    };
    check(&["up", "nowhere.yaml"], "nowhere.yaml: there is no such file");
    check(&["apply", "-f", "."], "the folder . has no .yaml");
    std::fs::write(dir.path().join("latin.yaml"), b"a: b\nname: caf\xe9\n").unwrap();
    check(&["apply", "-f", "latin.yaml"], "latin.yaml: line 2 is not UTF-8 text");
}

#[test]
fn wrong_flags_are_usage() {
    let dir = tempfile::tempdir().unwrap();
    for args in
        [&["get", "--nope"][..], &["nope"], &["apply"], &["wait", "x"], &["get", "--timeout", "5 apples"], &["get", "-o", "xml"], &["get", "-l", "x"]]
    {
        assert_eq!(alone(dir.path(), args).code, 2, "{args:?}");
    }
}

#[test]
fn a_socket_path_too_long_and_an_address_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("/tmp/{}", "s".repeat(200));
    let answer = alone(dir.path(), &["--socket", &long, "get"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("205 bytes long, more than the 107"), "{}", answer.err);
    assert_eq!(alone(dir.path(), &["--address", "host:1", "get"]).code, 2);
}
