//! Derives every key of a devnet from its seed text: same seed and chain id, same keys.
//!
//! Accounts follow the standards that wallets know: a BIP-39 mnemonic of 24 words, then SLIP-0010 for ed25519 on
//! `m/44'/1'/<index>'/0'` (coin type 1: test networks). Node keys never leave their node's home, so they need no mnemonic:
//! they come straight from the seed.

use commonware_cryptography::ed25519::PrivateKey;
use dvb_plugin_sdk::{Derivation, derive};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha512;

/// Why words are not a mnemonic.
#[derive(Debug, thiserror::Error)]
#[error("not a BIP-39 mnemonic: {0}")]
pub struct BadMnemonic(#[from] bip39::Error);

/// The devnet's mnemonic, 24 English words.
pub fn mnemonic(seed: &str, chain_id: &str) -> String {
    let entropy = derive(seed, chain_id, Derivation { purpose: "mnemonic", role: "account", index: 0 });
    bip39::Mnemonic::from_entropy(&entropy).expect("32 bytes are a valid entropy length").to_string()
}

/// The key of `account:<index>` below a mnemonic (no passphrase).
pub fn account_key(mnemonic: &str, index: u32) -> Result<PrivateKey, BadMnemonic> {
    let words: bip39::Mnemonic = mnemonic.trim().parse()?;
    let (mut key, mut chain) = split(hmac_sha512(b"ed25519 seed", &[&words.to_seed("")]));
    for step in [44, 1, index, 0] {
        let hardened = (step | 0x8000_0000).to_be_bytes();
        (key, chain) = split(hmac_sha512(&chain, &[&[0], &key, &hardened]));
    }
    Ok(private_key(key))
}

/// The key with which a node signs blocks and proves itself to its peers.
pub fn node_key(seed: &str, chain_id: &str, role: &str, index: u32) -> PrivateKey {
    private_key(derive(seed, chain_id, Derivation { purpose: "consensus-key", role, index }))
}

/// Any 32 bytes are an ed25519 private key.
fn private_key(bytes: [u8; 32]) -> PrivateKey {
    crate::chain::decode::<PrivateKey>(&bytes).expect("32 bytes are an ed25519 private key")
}

fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn split(bytes: [u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (left, right) = bytes.split_at(32);
    (left.try_into().expect("half of 64"), right.try_into().expect("half of 64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::Encode as _;
    use commonware_cryptography::Signer as _;

    #[test]
    fn slip_10_test_vector_1_is_met() {
        // Seed 000102..0f, chain m/0': https://github.com/satoshilabs/slips/blob/master/slip-0010.md
        let seed: Vec<u8> = (0..16).collect();
        let (key, chain) = split(hmac_sha512(b"ed25519 seed", &[&seed]));
        assert_eq!(hex::encode(key), "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7");
        let (key, _) = split(hmac_sha512(&chain, &[&[0], &key, &0x8000_0000u32.to_be_bytes()]));
        assert_eq!(hex::encode(key), "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3");
    }

    #[test]
    fn the_same_seed_gives_the_same_keys_and_another_gives_others() {
        let words = mnemonic("a seed", "net-1");
        assert_eq!(words.split(' ').count(), 24);
        assert_eq!(words, mnemonic("a seed", "net-1"));
        assert_ne!(words, mnemonic("a seed", "net-2"));
        let public = |index| account_key(&words, index).unwrap().public_key().encode();
        assert_eq!(public(0), public(0));
        assert_ne!(public(0), public(1));
        assert_ne!(node_key("s", "c", "validator", 0).public_key(), node_key("s", "c", "validator", 1).public_key());
        assert_ne!(node_key("s", "c", "validator", 0).public_key(), node_key("s", "c", "fullnode", 0).public_key());
    }

    #[test]
    fn words_that_are_no_mnemonic_are_refused() {
        assert!(account_key("twelve monkeys", 0).is_err());
        let wrong = mnemonic("a seed", "net-1").replacen(' ', " abuot ", 1);
        let wrong: Vec<&str> = wrong.split(' ').take(24).collect();
        let error = account_key(&wrong.join(" "), 0).unwrap_err().to_string();
        assert!(error.contains("unknown word (word 1)"), "{error}");
    }
}
