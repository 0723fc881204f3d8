//! The state of a chain as a file: what another chain can begin with.
//!
//! A node keeps the accounts as they are after its newest block and of no other, so that is the only state there is to write.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::GENESIS_FILE;
use super::fault::NodeFault;
use super::genesis::{Funded, Genesis};
use super::node;
use super::store::Store;
use super::upgrade::{Abilities, UPGRADES_FILE, Upgrades};

/// The file's shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    pub chain_id: String,
    pub genesis_hash: String,
    pub height: u64,
    pub block_hash: String,
    pub state_root: String,
    /// Upgrades that the chain went through. A chain that begins with this state begins without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<String>,
    /// By address.
    pub accounts: Vec<Funded>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("height {wanted} is gone: a devchain keeps the state of its newest block only, and that has height {newest}")]
    Gone { wanted: u64, newest: u64 },
    #[error("height {wanted} is not there yet: the newest block of this home has height {newest}")]
    NotYet { wanted: u64, newest: u64 },
    #[error(transparent)]
    Node(#[from] NodeFault),
}

/// Reads the home of a node that does not run.
pub fn read(home: &Path, height: Option<u64>, abilities: Abilities) -> Result<State, StateError> {
    let _lock = node::lock(home)?;
    let genesis_path = home.join(GENESIS_FILE);
    let genesis = |message: String| NodeFault::Genesis { path: genesis_path.clone(), message };
    let spec =
        Genesis::parse(&std::fs::read(&genesis_path).map_err(|error| genesis(error.to_string()))?).map_err(|error| genesis(error.to_string()))?;
    let upgrades = Upgrades::load(&home.join("data").join(UPGRADES_FILE), abilities)?;
    let (_, head, ledger) = Store::open(&home.join(node::LEDGER), &spec, &upgrades)?;
    match height {
        Some(wanted) if wanted < head.height => return Err(StateError::Gone { wanted, newest: head.height }),
        Some(wanted) if wanted > head.height => return Err(StateError::NotYet { wanted, newest: head.height }),
        _ => {}
    }
    let funded = |(address, account): (&super::tx::Address, &super::ledger::Account)| Funded {
        name: String::new(),
        address: *address,
        balance: account.balance,
        nonce: account.nonce,
    };
    Ok(State {
        chain_id: spec.chain_id,
        genesis_hash: spec.hash.to_string(),
        height: head.height,
        block_hash: head.hash.to_string(),
        state_root: head.state_root.to_string(),
        upgrades: upgrades.applied(head.height),
        accounts: ledger.accounts().map(funded).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::block::Block;
    use crate::chain::genesis::Validator;
    use crate::chain::ledger::tests::address;
    use crate::chain::tx::tests::transfer;
    use commonware_consensus::types::Height;

    /// A home whose account 1 began with 10 and gave 4 to account 2 in block 1.
    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let genesis = Genesis {
            chain_id: "net-1".into(),
            genesis_time: "2026-01-01T00:00:00Z".parse().unwrap(),
            validators: vec![Validator { name: "validator-0".into(), public_key: address(9) }],
            accounts: vec![Funded { name: "account:0".into(), address: address(1), balance: 10, nonce: 0 }],
        };
        let bytes = serde_json::to_vec(&genesis).unwrap();
        std::fs::write(dir.path().join(GENESIS_FILE), &bytes).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let spec = Genesis::parse(&bytes).unwrap();
        let upgrades = Upgrades::load(&dir.path().join("none"), Abilities::default()).unwrap();
        let (mut store, head, ledger) = Store::open(&dir.path().join(node::LEDGER), &spec, &upgrades).unwrap();
        let txs = vec![transfer(1, 2, 4, 0)];
        let ledger = ledger.apply_all(&txs, 1).unwrap();
        let block = Block { parent: head.hash, height: Height::new(1), timestamp: head.timestamp + 1, state_root: ledger.root(), txs };
        store.apply(&block.seal(), &ledger).unwrap();
        dir
    }

    #[test]
    fn the_state_has_what_the_newest_block_left() {
        let home = home();
        let state = read(home.path(), None, Abilities::default()).unwrap();
        assert_eq!((state.chain_id.as_str(), state.height), ("net-1", 1));
        let of = |seed| state.accounts.iter().find(|account| account.address == address(seed)).map(|account| (account.balance, account.nonce));
        assert_eq!((of(1), of(2)), (Some((6, 1)), Some((4, 0))));
        assert_eq!(read(home.path(), Some(1), Abilities::default()).unwrap().state_root, state.state_root);
    }

    #[test]
    fn other_heights_and_homes_in_use_are_refused() {
        let home = home();
        let check = |height: u64, expect: &str| {
            let message = read(home.path(), Some(height), Abilities::default()).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check(0, "height 0 is gone: a devchain keeps the state of its newest block only, and that has height 1");
        check(2, "height 2 is not there yet");
        let _running = node::lock(home.path()).unwrap();
        check(1, "home busy");
    }

    #[test]
    fn a_state_made_by_an_upgrade_wants_a_binary_that_knows_it() {
        let home = home();
        std::fs::write(home.path().join("data").join(UPGRADES_FILE), r#"[{"name": "v2", "height": 1}]"#).unwrap();
        assert!(matches!(read(home.path(), None, Abilities::default()), Err(StateError::Node(NodeFault::UpgradeNeeded { .. }))));
        let knows = Abilities { handlers: &["v2"], ..Abilities::default() };
        assert_eq!(read(home.path(), None, knows).unwrap().upgrades, ["v2"]);
        let skips = Abilities { skipped: [1].into(), ..Abilities::default() };
        assert_eq!(read(home.path(), None, skips).unwrap().upgrades.len(), 0);
    }
}
