//! A fork of a chain whose state is larger than memory should be, in a process of its own, so that its memory can be read.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy.toml allows both in tests, but sees only functions marked so")]

use dvb_plugin_cosmos::{
    fork::{Base, Joining, rewrite},
    keys::{bech32_address, module_address},
    stream::Edit,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Instant,
};

const MEGABYTE: u64 = 1 << 20;
/// The goal, whatever the size of the state. One that is not much larger has a part of its size.
const MOST_RESIDENT: u64 = 64 * MEGABYTE;

#[test]
fn a_state_is_forked_and_patched_in_a_fraction_of_its_size() {
    // Half a gigabyte with the whole suite only.
    let size = if std::env::var_os("DVB_TEST_FULL").is_some() { 500 } else { 40 } * MEGABYTE;
    let dir = tempfile::tempdir().unwrap();
    let [old, new, patched] = ["old.json", "new.json", "patched.json"].map(|name| dir.path().join(name));
    let accounts = write_state(&old, size);
    let ours = bech32_address("wasm", &[0xff; 20]).unwrap();
    let begun = Instant::now();
    let base = Base::read(&old, "wasm", &BTreeSet::from([ours.clone()])).unwrap();
    let read = begun.elapsed();
    assert_eq!(base.account_number(0), accounts);
    let joining = Joining { chain_id: "new-1", genesis_time: "now", funded: &[ours], gentxs: vec![json!({"gentx": 0})] };
    base.write(&new, "stake", joining).unwrap();
    let written = begun.elapsed();
    rewrite(&new, &patched, &mut Edit::merge(json!({"app_state": {"mint": {"odd": true}}}))).unwrap();
    let (took, resident) = (begun.elapsed(), peak());
    let megabytes = fs::metadata(&patched).unwrap().len() / 1_000_000;
    println!(
        "MEASURED: an exported state of {megabytes} MB with {accounts} accounts checked in {read:.1?}, forked after {written:.1?} and patched after \
         {took:.1?}, with {} MiB resident at most",
        resident / MEGABYTE
    );
    let mut end = String::new();
    let mut file = File::open(&patched).unwrap();
    file.seek(SeekFrom::End(-200)).unwrap();
    file.read_to_string(&mut end).unwrap();
    assert!(end.contains(r#""last_validator_powers":[]"#) && end.contains(r#""genutil":{"gen_txs":[{"gentx":0}]}"#), "{end}");
    assert!(end.ends_with(r#""mint":{"odd":true}},"genesis_time":"now"}"#), "{end}");
    let most = MOST_RESIDENT.min(size / 4);
    assert!(resident < most, "{resident} of {most}");
}

/// Accounts, their balances and one contract's code, about `size` bytes in all; answers how many accounts.
fn write_state(path: &Path, size: u64) -> u64 {
    let (per_account, per_code) = (300, 65_536);
    let (accounts, codes) = (size * 3 / 4 / per_account, size / 4 / per_code);
    let mut out = BufWriter::with_capacity(1 << 16, File::create(path).unwrap());
    let address = |index: u64| {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        bech32_address("wasm", &bytes).unwrap()
    };
    let comma = |index: u64| if index == 0 { "" } else { "," };
    write!(out, r#"{{"chain_id":"old-1","initial_height":9,"app_state":{{"auth":{{"accounts":["#).unwrap();
    for index in 0..accounts {
        let address = address(index);
        let kind = "/cosmos.auth.v1beta1.BaseAccount";
        write!(out, r#"{}{{"@type":"{kind}","address":"{address}","pub_key":null,"account_number":"{index}","sequence":"0"}}"#, comma(index))
            .unwrap();
    }
    write!(out, r#"]}},"bank":{{"balances":["#).unwrap();
    for index in 0..accounts {
        write!(out, r#"{}{{"address":"{}","coins":[{{"denom":"stake","amount":"7"}}]}}"#, comma(index), address(index)).unwrap();
    }
    let pool = module_address("bonded_tokens_pool", "wasm").unwrap();
    write!(out, r#",{{"address":"{pool}","coins":[{{"denom":"stake","amount":"5"}}]}}"#).unwrap();
    write!(out, r#"],"supply":[{{"denom":"stake","amount":"{}"}}]}},"wasm":{{"codes":[{{"code_bytes":""#, accounts * 7 + 5).unwrap();
    for _ in 0..codes {
        out.write_all("QUJDREVG".repeat(per_code as usize / 8).as_bytes()).unwrap();
    }
    let validator = json!({"operator_address": "x", "status": "BOND_STATUS_BONDED", "tokens": "5"});
    let staking = json!({"params": {"bond_denom": "stake"}, "validators": [validator], "exported": true});
    write!(out, r#""}}]}},"staking":{staking}}}}}"#).unwrap();
    out.flush().unwrap();
    accounts
}

/// The most that this process has had resident so far, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
