//! A fork of a chain whose state is larger than memory should be, in a process of its own, so that its memory can be read.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy.toml allows both in tests, but sees only functions marked so")]

#[path = "support/state.rs"]
mod state;

use dvb_plugin_cosmos::{
    fork::{Base, Joining, rewrite},
    keys::bech32_address,
    stream::Edit,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
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
    let accounts = state::write(&old, size);
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

/// The most that this process has had resident so far, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
