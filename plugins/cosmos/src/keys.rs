//! Keys made from the devnet's seed: ed25519 for consensus and p2p, secp256k1 accounts from one mnemonic.
//!
//! The same seed gives the same keys on every machine. Accounts lie where wallets look for them, so a user can import the
//! mnemonic; validator operators use the next BIP44 account, so they never collide with `account:N`. A seed that is a mnemonic itself
//! is that of the accounts; all other keys come from it as from any text, so a fork under the same mnemonic has validators of its own.

use base64::{Engine, engine::general_purpose::STANDARD};
use bip32::{ChildNumber, XPrv};
use bip39::Language;
use dvb_plugin_sdk::{Derivation, derive};
use k256::ecdsa::{Signature, SigningKey, signature::Signer};
use ripemd::Ripemd160;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// SLIP-44 coin type of the Cosmos Hub, which most SDK chains share.
pub const COIN_TYPE: u32 = 118;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the mnemonic: {0}")]
    Mnemonic(#[from] bip39::Error),
    #[error("cannot read the mnemonic: its word {place}, `{word}`, is none of the English words of BIP-39; the nearest is `{nearest}`")]
    Word { place: usize, word: String, nearest: &'static str },
    #[error("cannot derive key {path} from the mnemonic: {source}")]
    Derive { path: String, source: bip32::Error },
    #[error("`{prefix}` is not a bech32 prefix: {reason}")]
    Prefix { prefix: String, reason: String },
}

/// What an ed25519 key is for; the two of a node differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Signs blocks.
    Consensus,
    /// Names the node to its peers.
    Node,
}

/// A CometBFT ed25519 key.
#[derive(Clone)]
pub struct CometKey(ed25519_dalek::SigningKey);

impl CometKey {
    /// The key of the node `<role>-<index>`.
    pub fn derive(seed: &str, chain_id: &str, purpose: Purpose, role: &str, index: u32) -> Self {
        let purpose = match purpose {
            Purpose::Consensus => "consensus-key",
            Purpose::Node => "node-key",
        };
        Self::from_secret(&derive(seed, chain_id, Derivation { purpose, role, index }))
    }

    /// From the 32 secret bytes of RFC 8032.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// First 20 bytes of the public key's SHA-256, lower-case hex: what peers call the node.
    pub fn node_id(&self) -> String {
        hex::encode(self.address())
    }

    /// Content of `priv_validator_key.json`.
    pub fn priv_validator_json(&self) -> Value {
        json!({
            "address": hex::encode_upper(self.address()),
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": STANDARD.encode(self.public())},
            "priv_key": self.private_json(),
        })
    }

    /// Content of `node_key.json`.
    pub fn node_key_json(&self) -> Value {
        json!({"priv_key": self.private_json()})
    }

    fn private_json(&self) -> Value {
        json!({"type": "tendermint/PrivKeyEd25519", "value": STANDARD.encode(self.0.to_keypair_bytes())})
    }

    /// What consensus calls it.
    pub fn address(&self) -> [u8; 20] {
        let mut address = [0; 20];
        address.copy_from_slice(&Sha256::digest(self.public())[..20]);
        address
    }
}

/// All account keys of a devnet.
pub struct Wallet {
    mnemonic: bip39::Mnemonic,
    /// m/44'/118' of the accounts' mnemonic.
    accounts: XPrv,
    /// The same of the operators'.
    operators: XPrv,
}

impl Wallet {
    /// The words of a seed that is a mnemonic, for accounts; else 24 words that come from it, for accounts and operators.
    pub fn from_seed(seed: &str, chain_id: &str) -> Result<Self, KeyError> {
        let entropy = derive(seed, chain_id, Derivation { purpose: "mnemonic", role: "account", index: 0 });
        let drawn = bip39::Mnemonic::from_entropy(&entropy)?;
        let operators = branch(&drawn)?;
        if is_meant_as_mnemonic(seed) {
            return Ok(Self { operators, ..Self::from_mnemonic(seed)? });
        }
        Ok(Self { mnemonic: drawn, accounts: operators.clone(), operators })
    }

    pub fn from_mnemonic(words: &str) -> Result<Self, KeyError> {
        let mnemonic: bip39::Mnemonic = words.parse().map_err(|error| refusal(words, error))?;
        let accounts = branch(&mnemonic)?;
        Ok(Self { mnemonic, operators: accounts.clone(), accounts })
    }

    pub fn mnemonic(&self) -> String {
        self.mnemonic.to_string()
    }

    /// `account:N`, at m/44'/118'/0'/0/N.
    pub fn account(&self, index: u32) -> Result<AccountKey, KeyError> {
        key(&self.accounts, 0, index)
    }

    /// The account that operates `validator-N`, at m/44'/118'/1'/0/N.
    pub fn operator(&self, index: u32) -> Result<AccountKey, KeyError> {
        key(&self.operators, 1, index)
    }
}

/// Whether somebody means this text as a mnemonic: about as many words as one has, most of them of its list. Then a wrong word, or
/// one that is missing, is a mistake and no other text.
pub fn is_meant_as_mnemonic(text: &str) -> bool {
    let words = || text.split_whitespace();
    let known = words().filter(|word| Language::English.find_word(word).is_some()).count();
    (11..=25).contains(&words().count()) && known * 4 >= words().count() * 3
}

/// `m/44'/118'`.
fn branch(mnemonic: &bip39::Mnemonic) -> Result<XPrv, KeyError> {
    let root = XPrv::new(&mnemonic.to_seed_normalized("")).map_err(|source| KeyError::Derive { path: "m".into(), source })?;
    descend(root, &[(44, true), (COIN_TYPE, true)])
}

fn key(branch: &XPrv, account: u32, index: u32) -> Result<AccountKey, KeyError> {
    let key = descend(branch.clone(), &[(account, true), (0, false), (index, false)])?;
    Ok(AccountKey(key.private_key().clone()))
}

/// Names the wrong word, where it is one.
fn refusal(words: &str, error: bip39::Error) -> KeyError {
    let is_wrong = |(_, word): &(usize, &str)| Language::English.find_word(word).is_none();
    let Some((index, word)) = words.split_whitespace().enumerate().find(is_wrong) else { return error.into() };
    let distance = |known: &&&'static str| strsim::damerau_levenshtein(known, word);
    let nearest = Language::English.word_list().iter().min_by_key(distance).copied().unwrap_or_default();
    KeyError::Word { place: index + 1, word: word.to_owned(), nearest }
}

/// A secp256k1 account key.
pub struct AccountKey(SigningKey);

impl AccountKey {
    /// Compressed, 33 bytes.
    pub fn public(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(true).as_bytes().to_vec()
    }

    pub fn address(&self) -> [u8; 20] {
        Ripemd160::digest(Sha256::digest(self.public())).into()
    }

    /// 64 bytes r||s over the SHA-256 of `document`, deterministic (RFC 6979), low s.
    pub fn sign(&self, document: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(document);
        signature.normalize_s().to_bytes().to_vec()
    }
}

/// The address of a module's own account, such as gov's.
pub fn module_address(module: &str, prefix: &str) -> Result<String, KeyError> {
    bech32_address(prefix, &Sha256::digest(module)[..20])
}

/// `bytes` as a bech32 address with this prefix.
pub fn bech32_address(prefix: &str, bytes: &[u8]) -> Result<String, KeyError> {
    let refuse = |reason: String| KeyError::Prefix { prefix: prefix.into(), reason };
    let hrp = bech32::Hrp::parse(prefix).map_err(|e| refuse(e.to_string()))?;
    bech32::encode::<bech32::Bech32>(hrp, bytes).map_err(|e| refuse(e.to_string()))
}

fn descend(mut key: XPrv, path: &[(u32, bool)]) -> Result<XPrv, KeyError> {
    for (index, hardened) in path {
        key = ChildNumber::new(*index, *hardened)
            .and_then(|child| key.derive_child(child))
            .map_err(|source| KeyError::Derive { path: format!("{path:?}"), source })?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABANDON: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    #[test]
    fn a_well_known_mnemonic_gives_its_well_known_cosmos_address() {
        let wallet = Wallet::from_mnemonic(ABANDON).unwrap();
        let check = |prefix: &str, expect: &str| assert_eq!(bech32_address(prefix, &wallet.account(0).unwrap().address()).unwrap(), expect);
        check("cosmos", "cosmos19rl4cm2hmr8afy4kldpxz3fka4jguq0auqdal4");
    }

    #[test]
    fn a_wrong_word_of_a_mnemonic_is_told_by_its_place_and_a_swapped_one_by_the_checksum() {
        let check = |from: &str, to: &str, expect: &str| {
            let error = Wallet::from_mnemonic(&ABANDON.replace(from, to)).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("cannot read the mnemonic: ") && error.contains(expect), "{error}");
        };
        check("about", "abuot", "its word 12, `abuot`, is none of the English words of BIP-39; the nearest is `about`");
        check("about", "ability", "checksum");
        check(" about", "", "word count");
    }

    #[test]
    fn a_seed_that_is_a_mnemonic_is_that_of_the_accounts_and_of_no_other_key() {
        let [wallet, other] = ["mynet-1", "mynet-2"].map(|chain| Wallet::from_seed(ABANDON, chain).unwrap());
        assert_eq!(wallet.mnemonic(), ABANDON);
        let account = bech32_address("cosmos", &wallet.account(0).unwrap().address()).unwrap();
        assert_eq!(account, "cosmos19rl4cm2hmr8afy4kldpxz3fka4jguq0auqdal4");
        assert_ne!(wallet.operator(0).unwrap().address(), other.operator(0).unwrap().address(), "a fork's validators are its own");
        for meant in [ABANDON.replace("about", "abuot"), ABANDON.replace(" about", ""), format!("  {ABANDON}\n")] {
            assert!(is_meant_as_mnemonic(&meant), "{meant}");
        }
        for text in ["any text", "abandon about", "the quick brown fox jumps over the lazy dog and all that it sees"] {
            assert!(!is_meant_as_mnemonic(text), "{text}");
        }
    }

    #[test]
    fn ed25519_keys_match_rfc_8032() {
        let secret = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = CometKey::from_secret(&secret.try_into().unwrap());
        assert_eq!(hex::encode(key.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let stored = key.priv_validator_json()["priv_key"]["value"].as_str().unwrap().to_owned();
        assert_eq!(STANDARD.decode(stored).unwrap()[32..], key.public());
    }

    #[test]
    fn a_module_account_address_matches_the_one_wasmd_uses_for_governance() {
        let address = &Sha256::digest("gov")[..20];
        assert_eq!(bech32_address("wasm", address).unwrap(), "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc");
    }

    #[test]
    fn keys_of_one_seed_differ_by_node_and_purpose_and_repeat() {
        let key = |seed, purpose, role, index| CometKey::derive(seed, "mynet-1", purpose, role, index).public();
        let keys: Vec<_> = [("validator", 0), ("validator", 1), ("fullnode", 0)]
            .iter()
            .flat_map(|(role, index)| [Purpose::Consensus, Purpose::Node].map(|purpose| key("s", purpose, role, *index)))
            .collect();
        let unique: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len());
        assert_eq!(keys[0], key("s", Purpose::Consensus, "validator", 0));
        assert_ne!(keys[0], key("t", Purpose::Consensus, "validator", 0));
    }

    #[test]
    fn operators_and_accounts_never_share_a_key() {
        let wallet = Wallet::from_seed("any text", "mynet-1").unwrap();
        assert_ne!(wallet.account(0).unwrap().address(), wallet.operator(0).unwrap().address());
        assert_eq!(wallet.mnemonic().split(' ').count(), 24);
        assert_eq!(Wallet::from_mnemonic(&wallet.mnemonic()).unwrap().account(3).unwrap().address(), wallet.account(3).unwrap().address());
    }

    #[test]
    fn a_prefix_that_is_no_bech32_prefix_is_refused() {
        assert!(matches!(bech32_address("", &[0; 20]), Err(KeyError::Prefix { .. })));
    }
}
