//! The genesis file: chain id, time, validators and accounts, and the block 0 that follows from its bytes.

use std::collections::BTreeSet;

use commonware_consensus::types::Height;
use commonware_cryptography::Hasher as _;
use commonware_cryptography::ed25519::PublicKey;
use commonware_cryptography::sha256::Sha256;
use commonware_utils::ordered::Set;
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::ledger::{Account, Ledger};
use super::tx::Address;
use super::{Hash, Sealed};

/// Validators at most: their votes must fit one certificate message.
pub const MAX_VALIDATORS: usize = 100;

/// The file's shape; see [`Genesis::parse`] for its checks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Genesis {
    pub chain_id: String,
    /// RFC 3339; block 1 is not older than this.
    pub genesis_time: jiff::Timestamp,
    pub validators: Vec<Validator>,
    pub accounts: Vec<Funded>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validator {
    pub name: String,
    /// The ed25519 public key, in hexadecimal: it names a validator as it names an account.
    pub public_key: Address,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Funded {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub address: Address,
    pub balance: u64,
    /// Of the next transfer; other than 0 where the account comes from another chain.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nonce: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error("genesis: not the JSON it should be: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("genesis: {0}")]
    Content(String),
}

/// What the running chain needs of a genesis file.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    pub chain_id: String,
    /// SHA-256 of the file. It is block 0's parent, and in every namespace that is signed in.
    pub hash: Hash,
    pub validators: Set<PublicKey>,
    pub ledger: Ledger,
    pub block: Sealed,
}

impl Genesis {
    /// Reads and checks a genesis file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<ChainSpec, GenesisError> {
        let genesis: Self = serde_json::from_slice(bytes)?;
        let content = |message: String| GenesisError::Content(message);
        if genesis.chain_id.is_empty() {
            return Err(content("chainId is empty".into()));
        }
        let validators = genesis.validator_keys()?;
        let ledger = genesis.ledger()?;
        let timestamp = u64::try_from(genesis.genesis_time.as_millisecond()).map_err(|_| content("genesisTime is before 1970".into()))?;
        let hash = Sha256::hash(&[bytes]);
        let block = Block { parent: hash, height: Height::zero(), timestamp, state_root: ledger.root(), txs: Vec::new() }.seal();
        Ok(ChainSpec { chain_id: genesis.chain_id, hash, validators, ledger, block })
    }

    fn validator_keys(&self) -> Result<Set<PublicKey>, GenesisError> {
        let count = self.validators.len();
        if count == 0 || count > MAX_VALIDATORS {
            return Err(GenesisError::Content(format!("validators: want 1 to {MAX_VALIDATORS}, found {count}")));
        }
        let mut keys = Vec::with_capacity(count);
        for validator in &self.validators {
            let bytes = validator.public_key.0;
            let key = super::decode::<PublicKey>(&bytes)
                .map_err(|_| GenesisError::Content(format!("validator {}: {} is no ed25519 public key", validator.name, validator.public_key)))?;
            keys.push(key);
        }
        if keys.iter().collect::<BTreeSet<_>>().len() < count {
            return Err(GenesisError::Content("two validators have the same publicKey".into()));
        }
        Ok(Set::from_iter_dedup(keys))
    }

    fn ledger(&self) -> Result<Ledger, GenesisError> {
        let distinct: BTreeSet<_> = self.accounts.iter().map(|account| account.address).collect();
        if distinct.len() < self.accounts.len() {
            return Err(GenesisError::Content("two accounts have the same address".into()));
        }
        if self.accounts.iter().try_fold(0u64, |sum, account| sum.checked_add(account.balance)).is_none() {
            return Err(GenesisError::Content("the balances of all accounts together exceed 64 bits".into()));
        }
        Ok(Ledger::new(self.accounts.iter().map(|funded| (funded.address, Account { balance: funded.balance, nonce: funded.nonce }))))
    }
}

fn is_zero(nonce: &u64) -> bool {
    *nonce == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ledger::tests::address;

    fn genesis() -> Genesis {
        Genesis {
            chain_id: "net-1".into(),
            genesis_time: "2026-01-01T00:00:00Z".parse().unwrap(),
            validators: vec![Validator { name: "validator-0".into(), public_key: address(1) }],
            accounts: vec![Funded { name: "account:0".into(), address: address(9), balance: 5, nonce: 0 }],
        }
    }

    fn parse(genesis: &Genesis) -> Result<ChainSpec, GenesisError> {
        Genesis::parse(&serde_json::to_vec(genesis).unwrap())
    }

    #[test]
    fn the_block_commits_to_the_file() {
        let spec = parse(&genesis()).unwrap();
        assert_eq!(spec.block.inner().parent, spec.hash);
        assert_eq!(spec.block.inner().timestamp, 1_767_225_600_000);
        let other = Genesis { chain_id: "net-2".into(), ..genesis() };
        assert_ne!(parse(&other).unwrap().block.inner().parent, spec.hash);
    }

    #[test]
    fn bad_files_are_named() {
        let check = |edit: fn(&mut Genesis), expect: &str| {
            let mut genesis = genesis();
            edit(&mut genesis);
            let message = parse(&genesis).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check(|genesis| genesis.validators.clear(), "want 1 to 100, found 0");
        check(|genesis| genesis.validators.push(genesis.validators[0].clone()), "same publicKey");
        check(|genesis| genesis.accounts.push(genesis.accounts[0].clone()), "same address");
        check(|genesis| genesis.accounts.push(Funded { name: String::new(), address: address(3), balance: u64::MAX, nonce: 0 }), "exceed 64 bits");
        check(|genesis| genesis.chain_id.clear(), "chainId is empty");
        assert!(Genesis::parse(b"{\"chainId\": 7}").is_err());
        assert!(Genesis::parse(b"{\"chainIdd\": \"x\"}").unwrap_err().to_string().contains("chainIdd"));
    }
}
