//! Tables as they look: wide, narrow, coloured, and with text that would break them.

use super::{
    Row, Style, clean, table,
    table::{Cell, Table, column, flexible},
};
use dvb_proto::devnet::v1::{Devnet, DevnetSpec, DevnetStatus, Metadata, Node, NodeSpec, NodeStatus};
use serde_json::json;

fn devnet(name: &str, phase: &str, chain_id: &str) -> Devnet {
    Devnet {
        metadata: Some(Metadata { name: name.into(), created_at: "2026-01-01T23:55:00.000Z".into(), ..Metadata::default() }),
        spec: Some(DevnetSpec { plugin: "cosmos".into(), ..DevnetSpec::default() }),
        status: Some(DevnetStatus {
            phase: phase.into(),
            nodes: 5,
            ready_nodes: 4,
            current_height: Some(1234),
            chain_id: Some(chain_id.into()),
            ..DevnetStatus::default()
        }),
        ..Devnet::default()
    }
}

fn style(width: Option<u16>, color: bool) -> Style {
    Style { wide: false, chain: true, namespaces: false, color, width, now: "2026-01-02T00:00:00Z".parse().unwrap() }
}

fn three() -> Vec<Devnet> {
    vec![
        devnet("mynet", "Running", "mynet-1"),
        devnet("a-devnet-with-a-rather-long-name", "Degraded", "a-chain-id-that-is-longer-than-most-of-them"),
        devnet("x", "", ""),
    ]
}

#[test]
fn without_a_terminal_nothing_is_cut() {
    insta::assert_snapshot!(table(&three(), &style(None, false)));
}

#[test]
fn a_narrow_terminal_cuts_flexible_columns_first() {
    insta::assert_snapshot!(table(&three(), &style(Some(90), false)));
}

#[test]
fn no_line_is_ever_wider_than_the_terminal_or_wrapped() {
    for width in [20, 40, 60, 80, 90, 100, 120, 200] {
        let text = table(&three(), &style(Some(width), false));
        assert_eq!(text.lines().count(), 4, "at {width}:\n{text}");
        if width >= 40 {
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "at {width}:\n{text}");
        }
    }
}

#[test]
fn phases_are_coloured_only_where_colours_are_wanted() {
    let plain = table(&three(), &style(Some(120), false));
    assert!(!plain.contains('\x1b'));
    let coloured = table(&three(), &style(Some(120), true));
    assert!(coloured.contains("\x1b[") && coloured.contains("Running"), "{coloured:?}");
}

#[test]
fn text_with_control_characters_stays_on_its_line_and_steers_nothing() {
    let mut table = Table::new(vec![column("A"), flexible("B")]);
    table.push(vec![Cell::from("one\ntwo"), Cell::from("\x1b[2Jthree")]);
    assert_eq!(table.render(None, false), "A        B\none two   [2Jthree");
}

#[test]
fn rows_that_follow_a_table_keep_its_columns() {
    let style = style(None, false);
    let mut first = Table::new(Devnet::columns(&style));
    three().iter().for_each(|devnet| first.push(devnet.cells(&style)));
    let mut later = Table::new(Devnet::columns(&style));
    later.push(devnet("y", "Running", "y-1").cells(&style));
    let (head, row) = (first.render(None, false), later.render_rows(&first.layout(&[], None), None, false));
    assert_eq!(head.lines().next().and_then(|line| line.find("PHASE")), row.find("Running"), "{head}\n{row}");
}

#[test]
fn nulls_go_except_in_what_the_user_wrote() {
    let object = json!({"a": null, "b": {"c": null, "d": 0}, "genesis": {"patch": {"gone": null}}, "list": [{"x": null}]});
    assert_eq!(clean(object), json!({"b": {"d": 0}, "genesis": {"patch": {"gone": null}}, "list": [{}]}));
}

fn validator(index: u32) -> Node {
    Node {
        metadata: Some(Metadata { name: format!("quickstart/validator-{index}"), ..Metadata::default() }),
        spec: Some(NodeSpec { role: "validator".into(), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            phase: "Running".into(),
            pid: Some(163_020),
            block_height: (index > 0).then_some(12_345),
            peer_count: (index > 0).then_some(4),
            endpoints: [("rpc".to_owned(), format!("http://127.115.188.{index}:26101"))].into(),
            started_at: Some("2026-01-01T23:59:00Z".into()),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

#[test]
fn a_narrow_table_of_nodes_leaves_out_what_matters_least_and_cuts_nothing() {
    let nodes = [validator(0), validator(1)];
    insta::assert_snapshot!(table(&nodes, &style(Some(80), false)), @r"
    NAME                    PHASE    PID     HEIGHT  ENDPOINT
    quickstart/validator-0  Running  163020  -       http://127.115.188.0:26101
    quickstart/validator-1  Running  163020  12345   http://127.115.188.1:26101
    ");
    insta::assert_snapshot!(table(&nodes, &style(Some(120), false)), @r"
    NAME                    PHASE    PID     HEIGHT  PEERS  RESTARTS  AGE  ENDPOINT
    quickstart/validator-0  Running  163020  -       -      0         60s  http://127.115.188.0:26101
    quickstart/validator-1  Running  163020  12345   4      0         60s  http://127.115.188.1:26101
    ");
}

#[test]
fn rows_that_follow_a_narrow_table_have_its_columns() {
    let style = style(Some(80), false);
    let first = super::rows(&[validator(1)], &style);
    let layout = first.layout(&[], style.width);
    let mut later = validator(1);
    later.status.as_mut().unwrap().endpoints.clear();
    let row = super::rows(&[later], &style).render_rows(&layout, style.width, false);
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["quickstart/validator-1", "Running", "163020", "12345", "-"]);
}
