//! Who signs: `account:N`, `validator:N` (its operator), or the address of one of these.

use super::invalid;
use crate::{
    binary::Chain,
    keys::{AccountKey, Wallet, bech32_address},
};
use dvb_plugin_sdk::{PluginFault, Result, pb};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Keys that stay in memory: to derive one from the seed costs thousands of hashes.
const KEPT: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Account(u32),
    Validator(u32),
}

pub(super) struct Signers<'a> {
    devnet: &'a pb::DevnetContext,
    chain: &'a Chain,
}

impl<'a> Signers<'a> {
    pub(super) fn new(devnet: &'a pb::DevnetContext, chain: &'a Chain) -> Self {
        Self { devnet, chain }
    }

    pub(super) fn chain(&self) -> &Chain {
        self.chain
    }

    pub(super) fn key(&self, name: &str) -> Result<Arc<AccountKey>> {
        match self.named(name)? {
            Some(who) => self.derive(who),
            None => self.with_address(name),
        }
    }

    /// The account address of a signer, or any address as it is.
    pub(super) fn address(&self, name: &str) -> Result<String> {
        let prefix = &self.chain.prefixes.account;
        match self.named(name)? {
            Some(who) => self.encode(prefix, who),
            None if is_address(name, prefix) => Ok(name.to_owned()),
            None => {
                Err(invalid(format!("`{name}` is no address of this chain, whose accounts begin with {prefix}1; write account:0 or validator:0")))
            }
        }
    }

    /// The operator address of a validator, or any such address as it is.
    pub(super) fn validator(&self, name: &str) -> Result<String> {
        let prefix = &self.chain.prefixes.validator;
        match self.named(name)? {
            Some(who @ Who::Validator(_)) => self.encode(prefix, who),
            None if is_address(name, prefix) => Ok(name.to_owned()),
            _ => Err(invalid(format!("`{name}` is no validator; write validator:0 or an address that begins with {prefix}1"))),
        }
    }

    fn encode(&self, prefix: &str, who: Who) -> Result<String> {
        bech32_address(prefix, &self.derive(who)?.address()).map_err(internal)
    }

    fn named(&self, name: &str) -> Result<Option<Who>> {
        let index = |text: &str, count: u32, what: &str| {
            let index: u32 = text.parse().map_err(|_| invalid(format!("`{name}`: {what}: takes a number")))?;
            if index < count { Ok(index) } else { Err(invalid(format!("`{name}`: this devnet has {count} of these, counted from 0"))) }
        };
        match name.split_once(':') {
            Some(("account", text)) => Ok(Some(Who::Account(index(text, self.devnet.accounts, "account")?))),
            Some(("validator", text)) => Ok(Some(Who::Validator(index(text, self.devnet.validators, "validator")?))),
            Some(_) => Err(invalid(format!("`{name}` is neither account:N nor validator:N"))),
            None => Ok(None),
        }
    }

    fn with_address(&self, address: &str) -> Result<Arc<AccountKey>> {
        let prefix = &self.chain.prefixes.account;
        let all = (0..self.devnet.accounts).map(Who::Account).chain((0..self.devnet.validators).map(Who::Validator));
        if is_address(address, prefix) {
            for who in all {
                let key = self.derive(who)?;
                if bech32_address(prefix, &key.address()).map_err(internal)? == address {
                    return Ok(key);
                }
            }
        }
        Err(invalid(format!("`{address}` is no signer of this devnet: write account:0, validator:0, or the address of one of these")))
    }

    fn derive(&self, who: Who) -> Result<Arc<AccountKey>> {
        let name = (self.devnet.seed.clone(), self.devnet.chain_id.clone());
        let mut cache = cache();
        let (wallet, keys) = match cache.entry(name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let wallet = Wallet::from_seed(&self.devnet.seed, &self.devnet.chain_id).map_err(internal)?;
                entry.insert((wallet, HashMap::new()))
            }
        };
        if let Some(key) = keys.get(&who) {
            return Ok(key.clone());
        }
        let key = match who {
            Who::Account(index) => wallet.account(index),
            Who::Validator(index) => wallet.operator(index),
        };
        let key = Arc::new(key.map_err(internal)?);
        if keys.len() >= KEPT {
            keys.clear();
        }
        keys.insert(who, key.clone());
        Ok(key)
    }
}

type Cache = HashMap<(String, String), (Wallet, HashMap<Who, Arc<AccountKey>>)>;

/// A memory of pure results; nothing depends on what is in it.
fn cache() -> MutexGuard<'static, Cache> {
    static CACHE: OnceLock<Mutex<Cache>> = OnceLock::new();
    CACHE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_address(text: &str, prefix: &str) -> bool {
    bech32::decode(text).is_ok_and(|(hrp, bytes)| hrp.as_str() == prefix && matches!(bytes.len(), 20 | 32))
}

fn internal(error: impl std::fmt::Display) -> PluginFault {
    PluginFault::Internal(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::binary::Prefixes;

    pub(crate) fn chain() -> Chain {
        let prefixes = Prefixes { account: "wasm".into(), validator: "wasmvaloper".into(), consensus: "wasmvalcons".into() };
        Chain { sdk_version: "v0.50.11".into(), prefixes, ..Chain::default() }
    }

    pub(crate) fn devnet() -> pb::DevnetContext {
        pb::DevnetContext { seed: "s".into(), chain_id: "net-1".into(), accounts: 2, validators: 1, ..pb::DevnetContext::default() }
    }

    #[test]
    fn signers_are_accounts_and_operators_by_number_or_address() {
        let (devnet, chain) = (devnet(), chain());
        let signers = Signers::new(&devnet, &chain);
        for name in ["account:1", "validator:0"] {
            let address = signers.address(name).unwrap();
            assert_eq!(signers.key(&address).unwrap().address(), signers.key(name).unwrap().address());
        }
        assert!(signers.validator("validator:0").unwrap().starts_with("wasmvaloper1"));
        for (name, why) in [("account:2", "has 2"), ("validator:x", "a number"), ("bob:1", "neither"), ("bob", "no signer")] {
            let message = signers.key(name).err().unwrap().to_string();
            assert!(message.contains(why), "{message}");
        }
        assert!(signers.validator("account:0").unwrap_err().to_string().contains("no validator"));
        assert!(signers.address("cosmos19rl4cm2hmr8afy4kldpxz3fka4jguq0auqdal4").unwrap_err().to_string().contains("wasm1"));
    }
}
