//! The verbs of the binary cache.

use crate::common::{Daemon, fake::World};

#[test]
fn binaries_are_added_from_flags_and_files_and_evicted_by_the_beginning_of_a_digest() {
    let daemon = Daemon::start(World::default());
    daemon.file("b.yaml", "binaries:\n- goModule: {module: github.com/CosmWasm/wasmd, version: v0.54.0}\n- path: ./wasmd\n");
    let answer = daemon.run(&["binaries", "add", "-f", "b.yaml"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let home = daemon.dir.path().display().to_string();
    assert_eq!(daemon.run(&["binaries", "add", "--path", "./x"]).code, 0);
    assert_eq!(daemon.run(&["binaries", "evict", "bb", "--yes"]).code, 0);
    let expect =
        ["add github.com/CosmWasm/wasmd@v0.54.0".to_owned(), format!("add {home}/wasmd"), format!("add {home}/x"), "evict [\"bb33\"]".to_owned()];
    assert_eq!(daemon.fake.requests(), expect);
    assert_eq!(daemon.run(&["binaries", "evict", "aa", "--yes"]).code, 2, "two binaries begin so");
    assert_eq!(daemon.run(&["binaries", "list", "zz"]).code, 3);
    assert_eq!(daemon.run(&["binaries", "evict", "--older-than", "soon", "--yes"]).code, 2);
    assert!(daemon.run(&["binaries", "evict", "bb", "--older-than", "24h"]).err.contains("try: dvbctl binaries evict bb --older-than 24h --yes"));
    assert_eq!(daemon.run(&["binaries"]).out, daemon.run(&["binaries", "list"]).out);
    assert_eq!(daemon.run(&["binaries", "add"]).code, 2);
    assert_eq!(daemon.run(&["binaries", "add", "--go-module", "x"]).code, 2);
    daemon.file("bad.yaml", "- goModul: {module: x}\n");
    let answer = daemon.run(&["binaries", "add", "-f", "bad.yaml"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("bad.yaml:1:3") && answer.err.contains("try: goModule"), "{}", answer.err);
}

#[test]
fn a_binary_that_is_not_whole_is_told_with_its_mend_and_an_exit_code() {
    let daemon = Daemon::start(World::default());
    let whole = daemon.run(&["binaries", "verify", "aa1"]);
    assert_eq!((whole.code, whole.err.as_str()), (0, ""));
    assert!(whole.out.contains("whole"), "{}", whole.out);
    let damaged = daemon.run(&["binaries", "verify"]);
    assert_eq!(damaged.code, 1);
    assert!(damaged.out.contains("altered"), "{}", damaged.out);
    let expect = "error: not whole: 1 of 3 in the cache\n  the cached file /cache/bb33/x was altered\n    try: dvbctl binaries add --path /x\n";
    assert_eq!(damaged.err, expect);
    assert_eq!(daemon.run(&["binaries", "verify", "zz"]).code, 3);
    let json = daemon.run(&["binaries", "verify", "-o", "json"]);
    let items: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, items["items"][2]["state"].as_str(), items["items"][2]["binary"]["digest"].as_str()), (1, Some("altered"), Some("bb33")));
}
