//! A transfer: the only transaction of the devchain, its bytes and its signature.
//!
//! ```text
//! from (32) · to (32) · amount (8) · nonce (8) · expiry (8) · ed25519 signature (64)   = 152 bytes, numbers big endian
//! ```
//! The signature covers the first 88 bytes in a namespace that holds the genesis hash, so a transfer of one devnet is worth
//! nothing on another.

use std::fmt;
use std::str::FromStr;

use bytes::BufMut;
use commonware_codec::{Buf, Encode as _, Error, FixedSize, Read, ReadExt as _, Write};
use commonware_cryptography::ed25519::{PrivateKey, PublicKey, Signature};
use commonware_cryptography::sha256::Sha256;
use commonware_cryptography::{Hasher as _, Signer as _, Verifier as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Hash;

/// An account's address: its ed25519 public key. Text form: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 32]);

/// Why text is not an address.
#[derive(Debug, thiserror::Error)]
#[error("address {0:?}: want the 64 hexadecimal digits of an ed25519 public key")]
pub struct BadAddress(String);

/// A signed transfer of `amount` units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub from: Address,
    pub to: Address,
    pub amount: u64,
    /// How many transfers the sender made before this one.
    pub nonce: u64,
    /// Last height of a block that may hold it; 0: any.
    pub expiry: u64,
    pub signature: Signature,
}

/// The namespace of signatures for the chain with this genesis hash.
pub fn namespace(genesis: &Hash) -> Vec<u8> {
    [b"devchain/transfer/v1/", genesis.as_ref()].concat()
}

impl Transfer {
    /// One that never expires.
    pub fn sign(key: &PrivateKey, to: Address, amount: u64, nonce: u64, namespace: &[u8]) -> Self {
        Self::sign_until(key, to, amount, nonce, 0, namespace)
    }

    pub fn sign_until(key: &PrivateKey, to: Address, amount: u64, nonce: u64, expiry: u64, namespace: &[u8]) -> Self {
        let from = Address::of(key);
        let signature = key.sign(namespace, &body(&from, &to, amount, nonce, expiry));
        Self { from, to, amount, nonce, expiry, signature }
    }

    /// Whether a block of this height may no longer hold it.
    pub fn is_expired(&self, height: u64) -> bool {
        self.expiry != 0 && height > self.expiry
    }

    fn body(&self) -> [u8; BODY] {
        body(&self.from, &self.to, self.amount, self.nonce, self.expiry)
    }

    /// Whether the owner of `from` signed this.
    pub fn verify(&self, namespace: &[u8]) -> bool {
        let Ok(key) = super::decode::<PublicKey>(&self.from.0) else { return false };
        key.verify(namespace, &self.body(), &self.signature) && !belongs_to_all(&key)
    }

    /// The transaction's hash, over all its bytes.
    pub fn hash(&self) -> Hash {
        Sha256::hash(&[&self.encode()])
    }
}

/// Whether a key is of small order: then anybody can sign for it, for Commonware verifies with the cofactor (as ZIP 215 does).
/// Such a key, and only such a key, takes the identity with a zero scalar for a signature of anything.
fn belongs_to_all(key: &PublicKey) -> bool {
    let mut trivial = [0; 64];
    trivial[0] = 1;
    super::decode::<Signature>(&trivial).is_ok_and(|signature| key.verify(b"", b"", &signature))
}

/// Bytes that are signed.
const BODY: usize = 88;

fn body(from: &Address, to: &Address, amount: u64, nonce: u64, expiry: u64) -> [u8; BODY] {
    let mut bytes = [0; BODY];
    bytes[..32].copy_from_slice(&from.0);
    bytes[32..64].copy_from_slice(&to.0);
    bytes[64..72].copy_from_slice(&amount.to_be_bytes());
    bytes[72..80].copy_from_slice(&nonce.to_be_bytes());
    bytes[80..].copy_from_slice(&expiry.to_be_bytes());
    bytes
}

impl Write for Transfer {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.body());
        self.signature.write(buf);
    }
}

impl Read for Transfer {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        Ok(Self {
            from: Address(<[u8; 32]>::read(buf)?),
            to: Address(<[u8; 32]>::read(buf)?),
            amount: u64::read(buf)?,
            nonce: u64::read(buf)?,
            expiry: u64::read(buf)?,
            signature: Signature::read(buf)?,
        })
    }
}

impl FixedSize for Transfer {
    const SIZE: usize = BODY + Signature::SIZE;
}

impl Address {
    pub fn of(key: &PrivateKey) -> Self {
        Self::from_key(&key.public_key())
    }

    pub fn from_key(key: &PublicKey) -> Self {
        Self(key.as_ref().try_into().expect("an ed25519 public key has 32 bytes"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim_start_matches("0x"), &mut bytes).map_err(|_| BadAddress(text.into()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const NAMESPACE: &[u8] = b"test";

    pub(crate) fn key(seed: u64) -> PrivateKey {
        PrivateKey::from_seed(seed)
    }

    pub(crate) fn transfer(from: u64, to: u64, amount: u64, nonce: u64) -> Transfer {
        Transfer::sign(&key(from), Address::of(&key(to)), amount, nonce, NAMESPACE)
    }

    pub(crate) fn until(from: u64, to: u64, amount: u64, nonce: u64, expiry: u64) -> Transfer {
        Transfer::sign_until(&key(from), Address::of(&key(to)), amount, nonce, expiry, NAMESPACE)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_transfer_survives_the_codec(from: u64, to: u64, amount: u64, nonce: u64) {
            let tx = transfer(from, to, amount, nonce);
            let bytes = tx.encode();
            prop_assert_eq!(bytes.len(), Transfer::SIZE);
            prop_assert_eq!(crate::chain::decode::<Transfer>(bytes.as_ref()).unwrap(), tx);
        }

        #[test]
        fn any_changed_byte_breaks_the_signature(at in 0..Transfer::SIZE, bit in 0..8u8) {
            let mut bytes = transfer(1, 2, 3, 4).encode().to_vec();
            bytes[at] ^= 1 << bit;
            let changed = crate::chain::decode::<Transfer>(&bytes);
            prop_assert!(changed.is_err() || !changed.unwrap().verify(NAMESPACE));
        }
    }

    #[test]
    fn a_transfer_of_one_chain_is_refused_by_another() {
        let tx = transfer(1, 2, 3, 0);
        assert!(tx.verify(NAMESPACE));
        assert!(!tx.verify(b"other"));
    }

    #[test]
    fn nobody_signs_for_a_key_of_small_order() {
        let zero: Transfer = crate::chain::decode(&[0; Transfer::SIZE]).unwrap();
        assert!(!zero.verify(NAMESPACE));
        let key = crate::chain::decode(&zero.from.0).unwrap();
        assert!(belongs_to_all(&key) && key.verify(NAMESPACE, &zero.body(), &zero.signature));
    }

    #[test]
    fn an_address_is_64_hex_digits() {
        let address = Address::of(&key(1));
        assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        for bad in ["", "00", "zz", &"0".repeat(63), &"0".repeat(66)] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
