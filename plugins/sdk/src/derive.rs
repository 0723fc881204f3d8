//! Key material from the devnet's seed: the same spec and seed give the same bytes.

use hkdf::Hkdf;
use sha2::Sha256;

/// What the bytes are for. Two derivations that differ in any part have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Derivation<'a> {
    /// `consensus-key`, `node-key`, `mnemonic` ...
    pub purpose: &'a str,
    /// `validator`, `fullnode`, `account` ...
    pub role: &'a str,
    pub index: u32,
}

/// 32 bytes by HKDF-SHA256: the seed is the key, the chain id the salt, purpose, role and index the info (each part with its
/// length before it, so that no two lists of parts read alike).
pub fn derive(seed: &str, chain_id: &str, what: Derivation<'_>) -> [u8; 32] {
    let mut info = Vec::with_capacity(64);
    for part in ["devnetd/v1", what.purpose, what.role] {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part.as_bytes());
    }
    info.extend_from_slice(&what.index.to_be_bytes());
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(chain_id.as_bytes()), seed.as_bytes()).expand(&info, &mut out).expect("32 bytes are less than 255 blocks");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256_hex;
    use std::collections::BTreeSet;

    const KEY: Derivation<'_> = Derivation { purpose: "consensus-key", role: "validator", index: 0 };

    #[test]
    fn the_bytes_never_change_between_releases() {
        // Pinned: a devnet that was made with an older plugin must get its old keys.
        assert_eq!(sha256_hex(&derive("seed", "chain-1", KEY)), "a0437b6e6660937d856a728e53b9f10a47eea935cb63c85026732e89d58dad26");
    }

    #[test]
    fn each_part_matters() {
        let all = [
            derive("seed", "chain-1", KEY),
            derive("seed2", "chain-1", KEY),
            derive("seed", "chain-2", KEY),
            derive("seed", "chain-1", Derivation { index: 1, ..KEY }),
            derive("seed", "chain-1", Derivation { role: "fullnode", ..KEY }),
            derive("seed", "chain-1", Derivation { purpose: "node-key", ..KEY }),
            derive("seed", "chain-1", Derivation { purpose: "consensus-keyvalidator", role: "", ..KEY }),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
