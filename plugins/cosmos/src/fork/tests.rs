//! Forks of small states.

use super::*;

const OLD: &str = "wasm1old";
const OURS: &str = "wasm1ours";

/// The shape of 0.50: one validator in the set, one on its way out.
fn exported() -> Value {
    let [bonded, not_bonded] = ["bonded_tokens_pool", "not_bonded_tokens_pool"].map(|pool| module_address(pool, "wasm").unwrap());
    let purse = |address: &str, amount: &str| json!({"address": address, "coins": [{"denom": "stake", "amount": amount}]});
    let validator = |status: &str, tokens: &str| json!({"operator_address": "x", "jailed": false, "status": status, "tokens": tokens});
    json!({
        "chain_id": "old-1", "genesis_time": "t", "initial_height": 41,
        "consensus": {"validators": [{"power": "1"}], "params": {"block": {"max_gas": "-1"}}},
        "app_state": {
            "auth": {"accounts": [
                {"address": OLD, "account_number": "7", "sequence": "3"},
                {"base_vesting_account": {"base_account": {"address": "wasm1late", "account_number": "9"}}},
            ]},
            "bank": {
                "balances": [purse(OLD, "30000000000000000000000000000000000000000"), purse(&bonded, "50"), purse(&not_bonded, "5")],
                "supply": [{"denom": "stake", "amount": "30000000000000000000000000000000000000055"}],
            },
            "genutil": {"gen_txs": []},
            "gov": {"params": {"voting_period": "172800s"}},
            "staking": {
                "params": {"bond_denom": "stake", "max_validators": 1}, "exported": true, "last_total_power": "50",
                "last_validator_powers": [{"address": "x", "power": "50"}],
                "validators": [validator(BONDED, "50"), validator("BOND_STATUS_UNBONDING", "5")],
                "delegations": [{"delegator_address": OLD, "shares": "50.0"}],
            },
        },
    })
}

fn read(state: &Value) -> (tempfile::TempDir, Result<Base, ForkError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.json");
    std::fs::write(&path, serde_json::to_vec_pretty(state).unwrap()).unwrap();
    (dir, Base::read(&path, "wasm", &BTreeSet::from([OLD, OURS].map(str::to_owned))))
}

fn forked(state: &Value) -> Result<Value, ForkError> {
    let (dir, base) = read(state);
    let to = dir.path().join("shared/genesis.json");
    let funded = [OURS, OLD].map(str::to_owned);
    let gentxs = vec![json!(1), json!(2)];
    base?.write(&to, "stake", Joining { chain_id: "new-1", genesis_time: "now", funded: &funded, gentxs })?;
    Ok(serde_json::from_slice(&std::fs::read(&to).unwrap()).unwrap())
}

#[test]
fn the_old_validators_step_aside_and_everything_else_stays() {
    let genesis = forked(&exported()).unwrap();
    assert_eq!((&genesis["chain_id"], &genesis["genesis_time"], &genesis["initial_height"]), (&json!("new-1"), &json!("now"), &json!(41)));
    assert!(genesis["consensus"].get("validators").is_none() && genesis["consensus"]["params"].is_object());
    let state = &genesis["app_state"];
    let staking = &state["staking"];
    let seen: Vec<_> = ["jailed", "status"].iter().flat_map(|field| [0, 1].map(|i| staking["validators"][i][field].clone())).collect();
    assert_eq!(seen, [json!(true), json!(true), json!(UNBONDED), json!("BOND_STATUS_UNBONDING")]);
    assert_eq!((&staking["last_total_power"], &staking["last_validator_powers"]), (&json!("0"), &json!([])));
    assert_eq!((&staking["params"]["max_validators"], &staking["exported"]), (&json!(2), &json!(true)));
    assert_eq!(staking["delegations"], exported()["app_state"]["staking"]["delegations"]);
    assert_eq!(state["genutil"]["gen_txs"], json!([1, 2]));
    assert_eq!(state["gov"]["params"]["voting_period"], "10s");
    assert!(state.get("slashing").is_none(), "the chain has no such module");
}

#[test]
fn tokens_move_between_the_pools_and_only_new_accounts_are_added() {
    let state = forked(&exported()).unwrap()["app_state"].clone();
    let amounts: Vec<_> = state["bank"]["balances"].as_array().unwrap().iter().map(|b| b["coins"][0]["amount"].as_str()).collect();
    assert_eq!(amounts, [Some("30000000000000000000000000000000000000000"), None, Some("55"), Some("1000000000000")]);
    assert_eq!(state["bank"]["supply"], json!([]), "the chain sums it up");
    let accounts = state["auth"]["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 3);
    assert_eq!((&accounts[2]["address"], &accounts[2]["account_number"]), (&json!(OURS), &json!("10")));
}

#[test]
fn a_pool_that_had_nothing_gets_its_first_balance() {
    let mut state = exported();
    state["app_state"]["bank"]["balances"].as_array_mut().unwrap().remove(2);
    state["app_state"]["bank"]["supply"] = json!([]);
    let balances = forked(&state).unwrap()["app_state"]["bank"]["balances"].clone();
    let pool = module_address("not_bonded_tokens_pool", "wasm").unwrap();
    assert!(balances.as_array().unwrap().contains(&json!({"address": pool, "coins": [{"denom": "stake", "amount": "50"}]})), "{balances}");
}

#[test]
fn numbers_and_gas_of_genesis_transactions_follow_the_height_at_which_they_run() {
    let base = |height: Value, gas: &str| {
        let mut state = exported();
        state["initial_height"] = height;
        state["consensus"]["params"]["block"]["max_gas"] = json!(gas);
        let base = read(&state).1.unwrap();
        (base.account_number(1), base.gas())
    };
    assert_eq!(base(json!(41), "-1"), (11, MOST_GAS));
    assert_eq!(base(json!("41"), "500000"), (11, 500_000));
    assert_eq!(base(json!(0), "-1").0, 0);
}

#[test]
fn what_no_chain_can_begin_with_is_refused_with_the_numbers() {
    let check = |edit: &dyn Fn(&mut Value), expect: &str| {
        let mut state = exported();
        edit(&mut state);
        let error = forked(&state).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let supply = "bank.supply says 7stake, the balances are 30000000000000000000000000000000000000055stake together";
    check(&|state| state["app_state"]["bank"]["supply"][0]["amount"] = json!("7"), supply);
    check(&|state| state["app_state"]["staking"]["validators"][0]["tokens"] = json!("49"), "have 49stake, the pool of bonded tokens has 50stake");
    check(&|state| state["app_state"]["bank"]["balances"][0]["address"] = json!("osmo1x"), "osmo1x, and addresses of this binary begin with wasm1");
    check(&|state| drop(state["app_state"].as_object_mut().unwrap().remove("staking")), "has no app_state.staking.params");
    check(&|state| state["app_state"]["bank"]["balances"][0]["coins"][0]["amount"] = json!("-1"), r#"wasm1old has "-1" stake"#);
    check(&|state| *state = json!([]), "has no app_state.staking.params");
    for odd in [json!("x"), json!(1), json!([])] {
        check(&|state| state["app_state"]["staking"]["validators"][1] = odd.clone(), "app_state.staking.validators: item 1: invalid type");
    }
    let highest = u64::MAX.to_string();
    check(&|state| state["app_state"]["auth"]["accounts"][0]["account_number"] = json!(highest), &format!("an account of number {highest}"));
    check(&|state| state["app_state"]["bank"]["supply"][0]["amount"] = json!("many"), r#"app_state.bank.supply: "many" stake is no amount"#);
}

#[test]
fn our_own_keys_in_the_state_and_another_denom_in_a_patch_are_refused() {
    let base = read(&exported()).1.unwrap();
    let operators = [("validator-0", OURS), ("validator-1", OLD)].map(|(name, address)| (name.to_owned(), address.to_owned()));
    assert!(base.refuse_keys_of(&operators[..1]).is_ok());
    assert!(base.refuse_keys_of(&operators).unwrap_err().to_string().contains("keys of validator-1 are in the state"));
    let patch = |denom: &str| json!({"app_state": {"staking": {"params": {"bond_denom": denom}}}});
    assert_eq!(base.bond_denom(&[patch("stake")]).unwrap(), "stake");
    assert!(base.bond_denom(&[patch("uatom")]).unwrap_err().to_string().contains("sets the bond denom uatom"));
    assert_eq!(base.balance(OLD, "stake"), "30000000000000000000000000000000000000000stake");
    assert_eq!(base.balance(OURS, "stake"), "1000000000000stake");
}

#[test]
fn a_supply_of_more_denoms_than_are_held_at_once_is_checked() {
    // 9 MiB in all, where one value may have 8.
    let denoms = 60_000;
    let mut state = exported();
    let long = "x".repeat(100);
    let coins = |amount: &str| (0..denoms).map(|index| json!({"denom": format!("factory/{long}/{index:06}"), "amount": amount})).collect::<Vec<_>>();
    let purses = coins("3").chunks(1000).map(|coins| json!({"address": OLD, "coins": coins})).collect::<Vec<_>>();
    state["app_state"]["bank"]["balances"].as_array_mut().unwrap().extend(purses);
    state["app_state"]["bank"]["supply"].as_array_mut().unwrap().extend(coins("3"));
    assert!(state["app_state"]["bank"]["supply"].to_string().len() > 8 << 20);
    read(&state).1.unwrap();
    state["app_state"]["bank"]["supply"][denoms]["amount"] = json!("4");
    assert!(read(&state).1.err().unwrap().to_string().contains("059999, the balances are 3factory"));
}
