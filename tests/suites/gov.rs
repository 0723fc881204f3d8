//! Governance on a real chain: what is proposed, voted and changed is what the chain itself says.

use e2e::{TestHome, wasmds};
use std::path::Path;

/// Short periods, and more than enough for them on a busy machine.
const VOTING: &str = "voting_period: 8s";

fn up(home: &TestHome, program: &Path) {
    let patch = format!("{{app_state: {{gov: {{params: {{{VOTING}}}}}}}}}");
    let text = format!(
        "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  validators: 4\n  \
         blockTime: 400ms\n  localhost: false\n  genesis: {{patch: {patch}}}\n",
        program.display()
    );
    home.ctl(&["up", &home.file("net.yaml", &text), "--timeout", "90s"]).ok();
    // Before its first block a node has no state to ask for.
    home.all_rise("net", 1);
}

#[test]
fn a_parameter_is_changed_by_a_vote_of_all_validators_on_each_sdk() {
    for wasmd in wasmds() {
        let home = TestHome::new();
        up(&home, &wasmd.path);
        let propose = ["gov", "propose", "net", "--title", "Fewer validators", "--param"];
        let with = |param: &'static str| home.ctl(&[propose.as_slice(), &[param, "--param", "gov.min_deposit=7stake"]].concat());
        with("staking.max_validator=50").exits(4).says("did you mean staking.max_validators?");
        with("staking.max_validators=50").ok().says("staking.max_validators: 100 → 50").says("→ 7stake").prints("proposal 1 is voted on until");
        home.ctl(&["gov", "show", "net", "1"]).ok().prints("staking.max_validators: 100 → 50").prints("MsgUpdateParams");
        home.ctl(&["gov", "vote", "net", "1", "yes", "--all-validators", "--wait", "--timeout", "60s"]).ok().prints("proposal 1 is passed");
        let proposal = home.json(&["gov", "show", "net", "1"]);
        let messages = proposal["messages"].as_array().expect("a message for each module");
        assert!(messages.iter().any(|message| message["params"]["max_validators"] == 50), "{proposal}");
        assert_ne!(proposal["tally"]["yes"], "0", "{proposal}");
        // The next draft starts from what is on the chain now.
        home.ctl(&["gov", "propose", "net", "--title", "Again", "--param", "staking.max_validators=50"]).exits(4).says("have these values already");
        home.ctl(&["gov", "propose", "net", "--title", "More", "--param", "staking.max_validators=60", "--deposit", "3stake"])
            .ok()
            .says("staking.max_validators: 50 → 60")
            .prints("waits for its deposit");
        home.ctl(&["gov", "deposit", "net", "2", "4stake"]).ok().prints("proposal 2 is voted on until");
        home.ctl(&["gov", "list", "net", "--status", "passed"]).ok().prints("Fewer validators");
        println!("MEASURED: governance on wasmd {} (SDK {}): proposed, voted, passed", wasmd.version, wasmd.sdk);
    }
}

#[test]
fn a_rejected_proposal_is_exit_1_and_a_late_vote_gets_the_chains_words() {
    let Some(program) = e2e::wasmd() else { return };
    let home = TestHome::new();
    up(&home, &program);
    home.ctl(&["gov", "propose", "net", "--title", "Words", "--text"]).ok().prints("proposal 1 is voted on");
    home.ctl(&["gov", "vote", "net", "1", "no", "--all-validators", "--wait", "--timeout", "60s"]).exits(1).says("proposal 1 of net is rejected");
    home.ctl(&["gov", "vote", "net", "1", "yes", "--from", "validator:0"]).exits(1).says("inactive proposal");
    home.ctl(&["gov", "vote", "net", "9", "yes", "--all-validators"]).exits(3).says("no proposal 9");
    home.ctl(&["gov", "show", "net", "9"]).exits(3);
    home.ctl(&["gov", "vote", "net", "1", "maybe", "--all-validators"]).exits(2);
    home.ctl(&["gov", "vote", "net", "1", "yes"]).exits(2);
    // It passes, and then the chain refuses what it says.
    let spend = r#"[{"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "authority": "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc",
        "plan": {"name": "late", "height": "2"}}]"#;
    home.ctl(&["gov", "propose", "net", "--title", "Late", "--file", &home.file("late.json", spend)]).ok();
    home.ctl(&["gov", "vote", "net", "2", "yes", "--all-validators", "--wait", "--timeout", "60s"]).exits(1).says("is failed").says("past");
}
