//! Governance: proposals as the chain has them, and changes of its parameters.
//!
//! ```text
//! proposals   gov v1 of the chain ──► what is proposed, its tally and votes
//! layout      what a message type and its bytes hold, field by field
//! params      a module's parameters of now ──► MsgUpdateParams with some of them changed, and the difference field by field
//! ```
//! Proposing, depositing and voting are transactions: `tx/messages.rs`.

mod layout;
mod params;
mod proposals;

pub use params::draft;
pub use proposals::list;

use crate::{binary::Chain, keys::bech32_address};
use dvb_plugin_sdk::{PluginFault, Result};
use sha2::{Digest, Sha256};

/// The address of the gov module: the signer that every message of a proposal names.
fn authority(chain: &Chain) -> Result<String> {
    let digest = Sha256::digest(b"gov");
    bech32_address(&chain.prefixes.account, &digest[..20]).map_err(|error| PluginFault::Internal(format!("the address of the gov module: {error}")))
}

fn invalid(message: impl Into<String>) -> PluginFault {
    PluginFault::InvalidArgument(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tx::signers::tests::chain;

    #[test]
    fn the_authority_is_the_one_that_wasmd_names() {
        assert_eq!(authority(&chain()).unwrap(), "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc");
    }
}
