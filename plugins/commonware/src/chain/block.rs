//! A block: header, transfers, and the root of the ledger after them.

use bytes::BufMut;
use commonware_codec::varint::UInt;
use commonware_codec::{Buf, Encode as _, EncodeSize, Error, FixedSize as _, MaxEncodeSize as _, RangeCfg, Read, ReadExt as _, Write};
use commonware_consensus::types::Height;
use commonware_consensus::{Block as ConsensusBlock, BoundedBlock, Heightable};
use commonware_cryptography::sha256::Sha256;
use commonware_cryptography::{Digested, Digestible, Hasher as _};

use super::tx::Transfer;
use super::{Hash, Sealed};

/// Transfers in one block at most; a block is at most about 74 kB.
pub const MAX_TXS: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub parent: Hash,
    pub height: Height,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// Of the ledger after this block's transfers: who votes for a block agrees on the state too.
    pub state_root: Hash,
    pub txs: Vec<Transfer>,
}

impl Block {
    /// Hashes the block, once.
    pub fn seal(self) -> Sealed {
        let digest = self.digest();
        Digested::precomputed(self, digest)
    }
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.parent.write(buf);
        self.height.write(buf);
        UInt(self.timestamp).write(buf);
        self.state_root.write(buf);
        self.txs.write(buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        2 * Hash::SIZE + self.height.encode_size() + UInt(self.timestamp).encode_size() + self.txs.encode_size()
    }
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        Ok(Self {
            parent: Hash::read(buf)?,
            height: Height::read(buf)?,
            timestamp: UInt::read(buf)?.into(),
            state_root: Hash::read(buf)?,
            txs: Vec::read_cfg(buf, &(RangeCfg::from(..=MAX_TXS), ()))?,
        })
    }
}

impl Digestible for Block {
    type Digest = Hash;

    fn digest(&self) -> Hash {
        Sha256::hash(&[&self.encode()])
    }
}

impl Heightable for Block {
    fn height(&self) -> Height {
        self.height
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> Hash {
        self.parent
    }
}

impl BoundedBlock for Block {
    fn max_encode_size((): &()) -> usize {
        let length_prefix = 5;
        2 * Hash::SIZE + Height::MAX_ENCODE_SIZE + UInt::<u64>::MAX_ENCODE_SIZE + length_prefix + MAX_TXS * Transfer::SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tx::tests::transfer;
    use proptest::prelude::*;

    fn block(height: u64, timestamp: u64, txs: usize) -> Block {
        Block {
            parent: Sha256::hash(&[b"parent"]),
            height: Height::new(height),
            timestamp,
            state_root: Sha256::hash(&[b"root"]),
            txs: (0..txs).map(|nonce| transfer(1, 2, 1, nonce as u64)).collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn a_block_survives_the_codec_and_keeps_its_hash(height: u64, timestamp: u64, txs in 0..6usize) {
            let block = block(height, timestamp, txs);
            let bytes = block.encode();
            prop_assert_eq!(bytes.len(), block.encode_size());
            prop_assert!(bytes.len() <= Block::max_encode_size(&()));
            let back = crate::chain::decode::<Block>(bytes.as_ref()).unwrap();
            prop_assert_eq!(back.digest(), block.digest());
            prop_assert_eq!(back, block);
        }

        #[test]
        fn noise_never_panics_the_decoder(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(block) = crate::chain::decode::<Block>(&noise) {
                prop_assert_eq!(block.encode().to_vec(), noise, "a decoded block must encode to what was read");
            }
        }
    }

    #[test]
    fn the_hash_covers_every_field() {
        let base = block(1, 2, 1);
        let mut others = vec![block(2, 2, 1), block(1, 3, 1), block(1, 2, 0)];
        others.push(Block { parent: base.state_root, ..base.clone() });
        others.push(Block { state_root: base.parent, ..base.clone() });
        for other in others {
            assert_ne!(other.digest(), base.digest(), "{other:?}");
        }
    }

    #[test]
    fn a_block_with_too_many_transfers_is_not_decoded() {
        let tx = transfer(1, 2, 1, 0);
        let over = Block { txs: vec![tx; MAX_TXS + 1], ..block(1, 1, 0) };
        assert!(crate::chain::decode::<Block>(over.encode().as_ref()).is_err());
    }
}
