//! Transactions, upgrades and exports as documents: applied in their order, begun once, read back, deleted.

use crate::tx::{Devchain, Ledger};
use e2e::{TestHome, binary, quickstart};
use std::time::Duration;

const QUICK: &str = "{backoff: 300ms}";

/// What belongs to the devnet `quick`: a transfer, a swap of its binary, an export.
fn belongings(amount: u32) -> String {
    let head =
        |kind: &str, name: &str| format!("apiVersion: devnet.builder/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  devnetRef: quick\n");
    let next = binary("devchain-v2").display().to_string();
    let documents = [
        format!("{}  txType: transfer\n  signer: account:0\n  payload: {{to: account:1, amount: {amount}}}\n", head("Transaction", "rent")),
        format!("{}  binary: {{path: {next}}}\n  skipVote: true\n", head("Upgrade", "v2")),
        head("Export", "snap"),
    ];
    documents.join("---\n")
}

#[test]
fn a_devnet_and_what_belongs_to_it_are_applied_in_order_once_each_and_deleted() {
    let home = TestHome::new();
    let all = home.file("all.yaml", &format!("{}---\n{}", quickstart("quick", QUICK), belongings(7)));
    home.ctl(&["daemon", "start"]).ok();
    home.ctl(&["apply", "-f", &all, "--dry-run"])
        .ok()
        .prints("devnet quick would be created")
        .prints("upgrade quick/v2 would be created after its devnet");
    home.ctl(&["get", "devnet", "quick"]).exits(3);
    home.ctl(&["apply", "-f", &all, "--wait", "--timeout", "200s"])
        .ok()
        .prints("devnet quick created")
        .prints("(rent): Confirmed")
        .prints("upgrade quick/v2: Completed")
        .prints("export quick/snap: Completed");
    assert_eq!(home.devnet("quick")["status"]["sdkVersion"], "protocol-2");
    let (balance, _) = Devchain.account(&home, "quick", "account:1");

    // One file in git says it all, and goes on doing so after the upgrade that stands in it.
    home.ctl(&["apply", "-f", &all, "--dry-run"]).ok().prints("devnet quick would stay unchanged");
    home.ctl(&["apply", "-f", &all, "--wait", "--timeout", "60s"])
        .ok()
        .prints("devnet quick unchanged")
        .says("by upgrade quick/v2, which the file declares")
        .prints("upgrade quick/v2 unchanged: Completed");
    let alone = home.file("alone.yaml", &quickstart("quick", QUICK));
    home.ctl(&["apply", "-f", &alone]).exits(4).says("from before upgrade quick/v2");

    let rest = home.file("rest.yaml", &belongings(7));
    home.ctl(&["apply", "-f", &rest, "--wait", "--timeout", "60s"])
        .ok()
        .prints("(rent) unchanged: Confirmed")
        .prints("upgrade quick/v2 unchanged: Completed")
        .prints("export quick/snap unchanged: Completed");
    for (kind, name) in [("tx", "quick/rent"), ("upgrade", "quick/v2"), ("export", "quick/snap")] {
        let exported = home.ctl(&["get", kind, name, "-o", "yaml"]).ok();
        home.ctl_with_input(&["apply", "-f", "-"], &exported.stdout).ok().prints("unchanged");
        home.ctl_with_input(&["apply", "-f", "-", "--dry-run"], &exported.stdout).ok().prints("would stay unchanged");
        home.ctl(&["describe", name]).ok();
    }
    home.ctl(&["describe", "quick/nothing"]).exits(3).says("node `quick/nothing` does not exist");
    assert_eq!(Devchain.account(&home, "quick", "account:1").0, balance, "it was paid once");
    let changed = home.file("changed.yaml", &belongings(8));
    home.ctl(&["apply", "-f", &changed]).exits(4).says("changed.yaml:8:36").says("is 7 and cannot become 8").says("another metadata.name");

    home.ctl(&["delete", "-f", &rest]).exits(2);
    home.eventually("the saved homes are gone", Duration::from_secs(30), |home| {
        home.json(&["get", "upgrade", "quick/v2"])["status"]["saved"].is_null()
    });
    home.ctl(&["delete", "-f", &rest, "--yes"])
        .ok()
        .prints("export quick/snap deleted")
        .prints("upgrade quick/v2 deleted")
        .prints("transaction quick/rent deleted");
    home.ctl(&["delete", "-f", &rest, "--yes"]).exits(3).says("upgrade quick/v2 is not there");
    assert_eq!((home.rows("transactions"), home.rows("upgrades"), home.rows("exports")), (0, 0, 0));
    home.ctl(&["apply", "-f", &home.file("tx.yaml", belongings(9).split("---").next().unwrap())]).ok().prints("(rent) created");
    home.ctl(&["delete", "-f", &all, "--yes"]).ok().says("upgrade quick/v2 is not there").prints("devnet quick deleted");
    assert_eq!(home.rows("transactions"), 0);
}

#[test]
fn what_is_wrong_in_such_a_document_is_told_with_line_and_column() {
    let home = TestHome::new();
    let check = |text: &str, code: i32, says: &[&str]| {
        let output = home.ctl(&["apply", "-f", &home.file("x.yaml", text)]).exits(code);
        says.iter().fold(output, |output, says| output.says(says));
    };
    let head = |kind: &str| format!("apiVersion: devnet.builder/v1\nkind: {kind}\nmetadata: {{name: v2}}\n");
    check(&format!("{}spec: {{devnetRef: quick, heigth: 7}}\n", head("Upgrade")), 2, &["x.yaml:4:26", "unknown field `heigth`", "try: height"]);
    check(&format!("{}spec: {{height: 7}}\n", head("Upgrade")), 2, &["x.yaml:4:1", "spec.devnetRef is missing"]);
    check(&format!("{}height: 7\n", head("Upgrade")), 2, &["x.yaml:4:1", "try: spec.height"]);
    let (devnet, tx) = (quickstart("quick", QUICK), format!("{}spec: {{devnetRef: quick}}\n", head("Transaction")));
    check(&format!("{tx}---\n{devnet}"), 2, &["x.yaml:3:18", "stands before its devnet", "x.yaml:10:9"]);
    check(&format!("{tx}---\n{tx}"), 2, &["x.yaml:8:18", "the transaction quick/v2 is defined twice; first at"]);
    check(&tx, 4, &["x.yaml:4:1", "spec.txType: is missing", "spec.signer: is missing"]);
    check(&format!("{}spec: {{devnetRef: nope, binary: {{path: /bin/true}}}}\n", head("Upgrade")), 3, &["devnet `nope` does not exist"]);
    home.ctl(&["up", &home.file("x.yaml", &tx)]).exits(2).says("of kind transaction").says("dvbctl apply -f FILE --wait");
}

#[test]
fn a_fault_in_any_document_of_a_file_is_found_before_the_first_is_applied() {
    let home = TestHome::new();
    let file = |rest: &str| home.file("all.yaml", &format!("{}---\n{rest}", quickstart("quick", QUICK)));
    let check = |rest: &str, code: i32, says: &[&str]| {
        for verb in [["apply", "-f"].as_slice(), &["apply", "--dry-run", "-f"]] {
            let output = home.ctl(&[verb, &[file(rest).as_str()]].concat()).exits(code);
            says.iter().fold(output, |output, says| output.says(says));
        }
        home.ctl(&["get", "devnet", "quick"]).exits(3);
    };
    let good = belongings(7);
    let line = |needle: &str, text: &str| {
        let whole = std::fs::read_to_string(file(text)).unwrap();
        let at = whole.lines().position(|line| line.contains(needle)).unwrap();
        format!("all.yaml:{}:", at + 1)
    };
    let typo = good.replace("txType: transfer", "txType: trasnfer");
    check(&typo, 4, &[&line("trasnfer", &typo), "there is no transaction type", "trasnfer", "try: transfer"]);
    let last = good.rfind("devnetRef: quick").unwrap();
    let astray = format!("{}devnetRef: quikc{}", &good[..last], &good[last + "devnetRef: quick".len()..]);
    check(&astray, 3, &[&line("quikc", &astray), "devnet `quikc` does not exist", "try: quick"]);
    let missing = good.replace(&binary("devchain-v2").display().to_string(), "/no/such/binary");
    check(&missing, 4, &[&line("/no/such", &missing), "/no/such/binary does not exist"]);
    let twin = format!("{good}---\n{good}");
    check(&twin, 2, &["is defined twice"]);
}
