//! A chain that has nothing of wasmd: ibc-go's `simd`, another application with other prefixes, modules and home, and here another token.

use crate::{
    fork::submit,
    tx::{address, number, wasmd_account, wasmd_query},
};
use e2e::{TestHome, is_alive, simd};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const DENOM: &str = "atoken";

#[test]
fn another_sdk_chain_than_wasmd_pays_votes_heals_exports_and_is_forked() {
    let Some(program) = simd() else { return };
    let home = TestHome::new();
    let file = |name: &str, spec: &str| {
        let binary = program.display();
        let spec = format!("{{plugin: cosmos, binary: {{path: {binary}}}, accounts: 4, blockTime: 400ms, localhost: false, {spec}}}");
        home.file(&format!("{name}.yaml"), &format!("apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
    };
    let patch = format!("{{app_state: {{staking: {{params: {{bond_denom: {DENOM}}}}}, gov: {{params: {{voting_period: 25s}}}}}}}}");
    let old = file("old", &format!("validators: 4, restart: {{backoff: 300ms}}, genesis: {{patch: {patch}}}"));
    home.ctl(&["up", &old, "--timeout", "120s"]).ok();
    home.all_rise("old", 1);
    let status = home.devnet("old")["status"].clone();
    assert!(status["sdkVersion"].as_str().is_some_and(|sdk| sdk.starts_with("v0.50")), "{status}");
    let [payer, payee] = ["account:0", "account:1"].map(|name| address(&home, "old", name));
    assert!(payer.starts_with("cosmos1"), "{payer}");

    let accounts = |devnet: &str| [&payer, &payee].map(|address| wasmd_account(&home, &format!("{devnet}/validator-0"), address));
    let before = accounts("old");
    submit(&home, "old", &format!("--type bank/send --signer account:0 --to account:1 --amount 7{DENOM}"));
    submit(&home, "old", &format!("--type staking/delegate --signer account:2 --set validator=validator:1 --amount 5000{DENOM}"));
    assert_eq!(accounts("old").map(|(balance, _)| balance), [before[0].0 - 7, before[1].0 + 7]);
    let unknown = ["tx", "submit", "old", "--type", "bank/send", "--signer", "account:0", "--to", "account:1", "--amount", "1stake", "--wait"];
    home.ctl(&unknown).exits(1).says("insufficient funds");

    home.ctl(&["gov", "propose", "old", "--title", "Fewer validators", "--param", "staking.max_validators=50"]).ok().prints("proposal 1 is voted on");
    home.ctl(&["gov", "vote", "old", "1", "yes", "--all-validators", "--wait", "--timeout", "180s"]).ok().prints("proposal 1 is passed");
    assert_eq!(wasmd_query(&home, "old/validator-0", &["staking", "params"])["params"]["max_validators"], 50);

    let victim = home.pid("old/validator-1");
    kill(victim, Signal::SIGKILL).unwrap();
    home.eventually("validator-1 is back", SOON, |home| !is_alive(victim) && home.node("old/validator-1")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "old", "--for=Running", "--timeout", "120s"]).ok();

    let settled = accounts("old");
    home.ctl(&["export", "create", "old", "then", "--wait", "--timeout", "120s"]).ok();
    let done = home.json(&["get", "export", "old/then"])["status"].clone();
    home.ctl(&["up", &file("new", "validators: 2, genesis: {fromExport: old/then}"), "--timeout", "120s"]).ok();
    home.all_rise("new", 2);
    assert!(home.lowest("new") > done["height"].as_u64().unwrap(), "it goes on where the other was: {done}");
    assert_eq!(accounts("new"), settled);
    let delegator = address(&home, "old", "account:2");
    let delegated = wasmd_query(&home, "new/validator-0", &["staking", "delegations", &delegator]);
    assert_eq!(number(&delegated, "amount"), 5000, "{delegated}");
    submit(&home, "new", &format!("--type bank/send --signer account:0 --to account:1 --amount 3{DENOM}"));
}
