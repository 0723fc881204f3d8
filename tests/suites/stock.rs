//! A client that nobody wrote for devnetd: cosmjs from npm, with nothing but what `dvbctl env` tells.

use crate::{
    tx::{Ledger, Wasmd, address},
    wasmd::devnet,
};
use e2e::{TestHome, Wasmd as Binary, program, wasmds};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stock/send.cjs");

#[test]
fn on_each_sdk_cosmjs_pays_by_the_printed_endpoint_and_mnemonic() {
    let Some((node, modules)) = cosmjs() else {
        println!("SKIP: no Node.js, or no cosmjs: `npm ci` in a copy of tests/stock, and name that folder in DVB_TEST_COSMJS");
        return;
    };
    for wasmd in wasmds() {
        println!("wasmd {} (SDK {}): cosmjs paid in block {}", wasmd.version, wasmd.sdk, cosmjs_pays(&wasmd, &node, &modules));
    }
}

/// Node.js, and the folder of its modules. `.ci/run` installs what `tests/stock/package-lock.json` lists.
fn cosmjs() -> Option<(PathBuf, PathBuf)> {
    let modules = std::env::var_os("DVB_TEST_COSMJS").map(|folder| PathBuf::from(folder).join("node_modules"));
    program("node").zip(modules.filter(|modules| modules.join("@cosmjs/stargate").is_dir()))
}

/// The height at which it did.
fn cosmjs_pays(wasmd: &Binary, node: &Path, modules: &Path) -> String {
    let home = TestHome::new();
    let file = devnet(&home, "stock", &wasmd.path, &["localhost: false"]);
    let text = fs::read_to_string(&file).unwrap().replace("validators: 4", "validators: 1").replace("fullNodes: 1", "fullNodes: 0");
    home.ctl(&["up", &home.file("stock.yaml", &text), "--timeout", "60s"]).ok();
    let ledger = Wasmd { node: "validator-0" };
    let (before, _) = ledger.account(&home, "stock", "account:1");
    let (payer, payee) = (address(&home, "stock", "account:0"), address(&home, "stock", "account:1"));

    let exports = home.ctl(&["env", "stock"]).ok().stdout;
    let sent = send(&exports, node, modules, &payee);
    // The mnemonic names the accounts that the status lists.
    assert_eq!((&sent["from"], &sent["code"]), (&payer.into(), &0.into()), "{sent}");
    assert_eq!(ledger.account(&home, "stock", "account:1").0, before + 7);

    // What the chain does not know is refused in its words, on each SDK.
    let unknown = ["tx", "submit", "stock", "--type", "bank/send", "--signer", "account:0", "--to", "account:1", "--amount", "1nothing", "--wait"];
    home.ctl(&unknown).exits(1).says("insufficient funds");
    sent["height"].to_string()
}

/// As a user would: a shell takes the exports, and the script reads its environment.
#[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
fn send(exports: &str, node: &Path, modules: &Path, payee: &str) -> serde_json::Value {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{exports}\nexec \"$0\" \"$@\"")]).arg(node).args([SCRIPT, payee, "7", "stake"]);
    let output = command.env("NODE_PATH", modules).stdin(Stdio::null()).output().expect("a shell starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}
