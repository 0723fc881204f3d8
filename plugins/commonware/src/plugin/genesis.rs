//! Writes genesis, keys and homes into the staging folder.

use std::collections::BTreeMap;
use std::path::Path;

use dvb_plugin_sdk::{PluginFault, Result, merge, pb, sha256_hex, write_staged};

use super::{export, launch, nodes};
use crate::chain::config::{CONFIG_FILE, GENESIS_FILE, KEY_FILE, render_key};
use crate::chain::genesis::{Funded, Genesis, Validator};
use crate::chain::tx::Address;
use crate::keys;

/// Units that each funded account begins with.
const BALANCE: u64 = 1_000_000_000;
const SHARED_GENESIS: &str = "shared/genesis.json";
const MNEMONIC: &str = "shared/mnemonic.txt";

pub(super) fn generate(request: &pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let staging = Path::new(&request.staging_dir);
    let mnemonic = keys::mnemonic(&devnet.seed, &devnet.chain_id);
    let accounts = accounts(&devnet, &mnemonic)?;
    let accounts = if request.base_genesis.is_empty() { accounts } else { onto(&request.base_genesis, accounts)? };
    let genesis = render(&devnet, &accounts)?;

    let mut files =
        vec![write_staged(staging, SHARED_GENESIS, &genesis, 0o644)?, write_staged(staging, MNEMONIC, format!("{mnemonic}\n").as_bytes(), 0o600)?];
    for node in &request.nodes {
        let key = render_key(&nodes::key(&devnet, &node.role, node.index));
        let config = launch::config(&devnet, &request.nodes, node)?;
        for (file, bytes, mode) in
            [(GENESIS_FILE, genesis.as_slice(), 0o644), (KEY_FILE, key.as_bytes(), 0o600), (CONFIG_FILE, config.as_bytes(), 0o644)]
        {
            files.push(write_staged(staging, &format!("nodes/{}/{file}", node.name), bytes, mode)?);
        }
    }
    let funded = |account: Funded| pb::Account { name: account.name, address: account.address.to_string(), balance: account.balance.to_string() };
    Ok(pb::GenerateGenesisResponse {
        genesis_path: SHARED_GENESIS.into(),
        genesis_sha256: sha256_hex(&genesis),
        files,
        accounts: accounts.into_iter().filter(|account| !account.name.is_empty()).map(funded).collect(),
        mnemonic_path: MNEMONIC.into(),
        ..pb::GenerateGenesisResponse::default()
    })
}

fn accounts(devnet: &pb::DevnetContext, mnemonic: &str) -> Result<Vec<Funded>> {
    let account = |index| {
        let key = keys::account_key(mnemonic, index).map_err(|error| PluginFault::Internal(error.to_string()))?;
        Ok(Funded { name: format!("account:{index}"), address: Address::of(&key), balance: BALANCE, nonce: 0 })
    };
    (0..devnet.accounts).map(account).collect()
}

/// The accounts of an exported state as they were, after those of this devnet. One that is both is the exported one, with its name here.
fn onto(base: &str, accounts: Vec<Funded>) -> Result<Vec<Funded>> {
    let state = export::read(Path::new(base)).map_err(|message| PluginFault::InvalidArgument(format!("spec.genesis: {message}")))?;
    let mut old: BTreeMap<Address, Funded> = state.accounts.into_iter().map(|account| (account.address, account)).collect();
    let named = |account: Funded| match old.remove(&account.address) {
        Some(kept) => Funded { name: account.name, ..kept },
        None => account,
    };
    let mut accounts: Vec<Funded> = accounts.into_iter().map(named).collect();
    accounts.extend(old.into_values());
    Ok(accounts)
}

/// The genesis file with the user's patch in it, checked as a node would.
fn render(devnet: &pb::DevnetContext, accounts: &[Funded]) -> Result<Vec<u8>> {
    let invalid = |message: String| PluginFault::InvalidArgument(message);
    let genesis_time = devnet.genesis_time.parse().map_err(|error| invalid(format!("spec.genesis.time {:?}: {error}", devnet.genesis_time)))?;
    let validator = |index| Validator { name: format!("validator-{index}"), public_key: nodes::address(devnet, "validator", index) };
    let genesis = Genesis {
        chain_id: devnet.chain_id.clone(),
        genesis_time,
        validators: (0..devnet.validators).map(validator).collect(),
        accounts: accounts.to_vec(),
    };
    let mut document = serde_json::to_value(genesis).map_err(|error| PluginFault::Internal(error.to_string()))?;
    if !devnet.genesis_patch.is_empty() {
        let patch = serde_json::from_str(&devnet.genesis_patch).map_err(|error| invalid(format!("spec.genesis.patch: {error}")))?;
        merge(&mut document, &patch);
    }
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| PluginFault::Internal(error.to_string()))?;
    bytes.push(b'\n');
    Genesis::parse(&bytes).map_err(|error| invalid(format!("with spec.genesis.patch applied, {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devnet(patch: &str) -> pb::DevnetContext {
        pb::DevnetContext {
            validators: 2,
            accounts: 2,
            seed: "s".into(),
            chain_id: "net-1".into(),
            genesis_time: "2026-01-01T00:00:00Z".into(),
            genesis_patch: patch.into(),
            ..pb::DevnetContext::default()
        }
    }

    fn genesis(patch: &str) -> Result<Vec<u8>> {
        let devnet = devnet(patch);
        render(&devnet, &accounts(&devnet, &keys::mnemonic("s", "net-1"))?)
    }

    #[test]
    fn the_same_context_gives_the_same_bytes() {
        assert_eq!(genesis("").unwrap(), genesis("").unwrap());
    }

    #[test]
    fn an_exported_state_keeps_its_accounts_beside_those_of_the_new_devnet() {
        let devnet = devnet("");
        let own = accounts(&devnet, &keys::mnemonic("s", "net-1")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("state.json");
        let stranger = "07".repeat(32);
        let state = serde_json::json!({
            "chainId": "old", "genesisHash": "aa", "height": 9, "blockHash": "bb", "stateRoot": "cc",
            "accounts": [{"address": own[1].address, "balance": 5, "nonce": 3}, {"address": stranger, "balance": 7}],
        });
        std::fs::write(&base, state.to_string()).unwrap();
        let merged = onto(&base.to_string_lossy(), own).unwrap();
        let seen: Vec<_> = merged.iter().map(|account| (account.name.as_str(), account.balance, account.nonce)).collect();
        assert_eq!(seen, [("account:0", BALANCE, 0), ("account:1", 5, 3), ("", 7, 0)]);
        let spec = Genesis::parse(&render(&devnet, &merged).unwrap()).unwrap();
        assert_eq!(spec.validators.len(), 2);
        assert_eq!(spec.ledger.account(&merged[1].address).nonce, 3);
        std::fs::write(&base, r#"{"app_state": {}}"#).unwrap();
        assert!(onto(&base.to_string_lossy(), Vec::new()).unwrap_err().to_string().contains("is no state of a devchain"));
    }

    #[test]
    fn a_patch_is_merged_and_what_it_breaks_is_refused() {
        let patched = genesis(r#"{"accounts": []}"#).unwrap();
        assert_eq!(Genesis::parse(&patched).unwrap().ledger.accounts().count(), 0);
        for (patch, expect) in [("{", "spec.genesis.patch"), (r#"{"validators": []}"#, "want 1 to 100"), (r#"{"acounts": []}"#, "acounts")] {
            let message = genesis(patch).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }
}
