//! What documents may look like: values read leniently where they can mean one thing only, and expanded where that is allowed.

use super::*;
use dvb_proto::devnet::v1::Devnet;
use std::{collections::HashMap, path::Path, sync::Arc};

const HEAD: &str = "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {name: mynet}\n";

fn read(spec: &str) -> Devnet {
    let source = Arc::new(Source { name: "x.yaml".into(), text: format!("{HEAD}spec:\n{spec}") });
    let env = Environment { vars: HashMap::from([("BIN".to_owned(), "/opt/bin".to_owned())]), home: Some("/home/u".into()) };
    match parse_documents(&source, "default", &env, Path::new("/p")) {
        Ok(mut documents) => devnet(documents.remove(0)),
        Err(error) => panic!("{}", error.render(false, false, 100)),
    }
}

fn devnet(document: Document) -> Devnet {
    match document.wanted {
        Wanted::Devnet(devnet) => *devnet,
        other => panic!("a {}", other.word()),
    }
}

#[test]
fn text_is_kept_as_it_was_written_even_where_yaml_sees_a_number() {
    let check = |written: &str, expect: &str| {
        let spec = read(&format!("  chainId: {written}\n")).spec.unwrap();
        assert_eq!(spec.chain_id.as_deref(), Some(expect), "{written}");
    };
    check("1", "1");
    check("1.10", "1.10");
    check("0x10", "0x10");
    check("1e3", "1e3");
    check("true", "true");
    check("yes", "yes");
    check("\"1.10\"", "1.10");
    check("2026-01-01", "2026-01-01");
}

#[test]
fn numbers_cpu_shares_and_null_are_read_as_meant() {
    let spec = read("  validators: \"4\"\n  resources: {cpu: 1.50, memory: 512Mi}\n  network: null\n  accounts: ~\n").spec.unwrap();
    assert_eq!(spec.validators, Some(4));
    assert_eq!(spec.resources.unwrap().cpu.as_deref(), Some("1.50"));
    assert_eq!((spec.network, spec.accounts), (None, None));
}

#[test]
fn paths_are_relative_to_the_file_and_expanded_in_path_cwd_and_env_only() {
    let spec = read(concat!(
        "  binary: {path: ./wasmd}\n",
        "  seed: ~/${BIN}\n",
        "  nodes:\n  - {name: validator-0, binary: {path: \"${BIN}/other\"}, env: {P: \"${BIN}:~\"}, args: [\"${BIN}\"]}\n",
        "  services:\n  - {name: a, command: [./run.sh, ./data], cwd: ~, env: {H: ~/x}}\n",
        "  - {name: b, command: [hermes, start], cwd: ../q}\n",
    ))
    .spec
    .unwrap();
    assert_eq!(spec.binary.unwrap().path.as_deref(), Some("/p/wasmd"));
    assert_eq!(spec.seed.as_deref(), Some("~/${BIN}"));
    let node = &spec.nodes[0];
    assert_eq!(node.binary.as_ref().unwrap().path.as_deref(), Some("/opt/bin/other"));
    assert_eq!((node.env["P"].as_str(), node.args[0].as_str()), ("/opt/bin:~", "${BIN}"));
    let [a, b] = spec.services.as_slice() else { panic!("two services") };
    assert_eq!((a.command.join(" ").as_str(), a.env["H"].as_str()), ("/p/run.sh ./data", "/home/u/x"));
    // A bare ~ is YAML's null.
    assert_eq!(a.cwd, None);
    assert_eq!((b.command[0].as_str(), b.cwd.as_deref()), ("hermes", Some("/q")));
}

#[test]
fn nested_json_keeps_its_types_and_nulls() {
    let spec = read("  genesis: {patch: {a: {b: 1, c: null, d: [true, x]}}}\n  nodes: [{name: v, config: {app.toml: {p: 1.5}}}]\n").spec.unwrap();
    assert_eq!(spec.genesis.unwrap().patch.as_deref(), Some(r#"{"a":{"b":1,"c":null,"d":[true,"x"]}}"#));
    assert_eq!(spec.nodes[0].config.as_deref(), Some(r#"{"app.toml":{"p":1.5}}"#));
}

#[test]
fn anchors_merges_and_json_are_yaml() {
    let spec =
        read("  restart: &r {policy: always, backoff: 1s}\n  nodes:\n  - {name: a, restart: *r}\n  - name: b\n    restart: {<<: *r, backoff: 2s}\n")
            .spec
            .unwrap();
    let backoffs: Vec<_> = spec.nodes.iter().map(|node| node.restart.clone().unwrap().backoff.unwrap()).collect();
    assert_eq!(backoffs, ["1s", "2s"]);
    let text = r#"{"apiVersion": "devnet.builder/v1", "kind": "Devnet", "metadata": {"name": "j"}, "spec": {"plugin": "exec"}}"#;
    let source = Arc::new(Source { name: "x.json".into(), text: text.into() });
    let documents = parse_documents(&source, "ns", &Environment::default(), Path::new("/p")).unwrap();
    assert_eq!(documents[0].wanted.namespace(), "ns");
}

#[test]
fn what_the_daemon_writes_into_a_document_is_not_sent_back() {
    let text = format!("{HEAD}spec: {{plugin: a, operations: {{restart: 7}}}}\nstatus: {{phase: Running}}\n");
    let source = Arc::new(Source { name: "x.yaml".into(), text });
    let devnet = devnet(parse_documents(&source, "default", &Environment::default(), Path::new("/p")).unwrap().remove(0));
    assert_eq!((devnet.status, devnet.spec.unwrap().operations), (None, None));
}

#[test]
fn each_kind_is_read_as_what_it_is_and_named_within_its_devnet() {
    let text = concat!(
        "apiVersion: devnet.builder/v1\nkind: Upgrade\nmetadata: {name: v2}\nspec: {devnetRef: mynet, height: 40, binary: {path: ./next}}\n---\n",
        "apiVersion: devnet.builder/v1\nkind: Transaction\nmetadata: {name: mynet/rent}\nspec: {txType: transfer, payload: {to: account:1, amount: 7}}\n",
        "status: {phase: Confirmed}\n---\n",
        "apiVersion: devnet.builder/v1\nkind: Export\nmetadata: {name: snap}\nspec: {devnetRef: mynet}\n",
    );
    let source = Arc::new(Source { name: "x.yaml".into(), text: text.into() });
    let documents = parse_documents(&source, "default", &Environment::default(), Path::new("/p")).unwrap();
    let names: Vec<_> = documents.iter().map(|document| format!("{} {}", document.wanted.word(), document.wanted.name())).collect();
    assert_eq!(names, ["upgrade mynet/v2", "transaction mynet/rent", "export mynet/snap"]);
    let [Wanted::Upgrade(upgrade), Wanted::Transaction(tx), _] = [&documents[0].wanted, &documents[1].wanted, &documents[2].wanted] else {
        panic!("{documents:?}")
    };
    assert_eq!(upgrade.spec.as_ref().unwrap().binary.as_ref().unwrap().path.as_deref(), Some("/p/next"));
    assert_eq!(tx.spec.as_ref().unwrap().payload, r#"{"to":"account:1","amount":7}"#);
    assert!(tx.status.is_none());
}

#[test]
fn a_field_is_found_by_its_path_or_by_the_nearest_thing_around_it() {
    let text = format!("{HEAD}spec:\n  plugin: cosmos\n  nodes:\n  - name: a\n    config: {{\"app.toml\": {{x: 1}}}}\n");
    let tree = parse(&Source { name: "x.yaml".into(), text }).unwrap().remove(0);
    let check = |path: &str, line: usize, column: usize| {
        let mark = tree.locate(path);
        assert_eq!((mark.line, mark.column), (line, column), "{path}");
    };
    check("spec.plugin", 5, 11);
    check("spec.nodes[0].name", 7, 11);
    check("spec.nodes[0].config[\"app.toml\"].x", 8, 30);
    check("spec.nodes[0].binary.path", 7, 5);
    check("spec.nodes[3]", 6, 3);
    check("spec.validators", 4, 1);
    check("metadata.name", 3, 18);
    check("..[[", 1, 1);
}

#[test]
fn colours_and_line_art_are_used_only_where_asked_for() {
    let source = Arc::new(Source { name: "x.yaml".into(), text: format!("{HEAD}spec: {{validator: 4}}\n") });
    let error = parse_documents(&source, "default", &Environment::default(), Path::new("/p")).unwrap_err();
    insta::assert_snapshot!("error_plain", error.render(false, false, 100));
    insta::assert_snapshot!("error_terminal_without_colour", error.render(false, true, 100));
    assert!(error.render(true, true, 100).contains('\x1b'));
}
