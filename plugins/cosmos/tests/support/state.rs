//! A large exported state that adds up, for tests of what takes it in; no chain ever ran it.

use dvb_plugin_cosmos::keys::{bech32_address, module_address};
use serde_json::json;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

/// Accounts, their balances and one contract's code, about `size` bytes in all; answers how many accounts.
pub(crate) fn write(path: &Path, size: u64) -> u64 {
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
