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

use crate::{binary::Chain, keys::bech32_address, tx::wire::Queried};
use dvb_plugin_sdk::{PluginFault, Result};
use sha2::{Digest, Sha256};

const INVALID_HEIGHT: i64 = 26;

/// The address of the gov module: the signer that every message of a proposal names.
fn authority(chain: &Chain) -> Result<String> {
    let digest = Sha256::digest(b"gov");
    bech32_address(&chain.prefixes.account, &digest[..20]).map_err(|error| PluginFault::Internal(format!("the address of the gov module: {error}")))
}

/// A query that the chain refused. Before its first block a node has no state to ask for.
fn refused(what: &str, answer: &Queried) -> PluginFault {
    let words = format!("{what}: {} (code {})", answer.log, answer.code);
    if answer.codespace == "sdk" && answer.code == INVALID_HEIGHT { PluginFault::Unavailable(words) } else { PluginFault::FailedPrecondition(words) }
}

fn invalid(message: impl Into<String>) -> PluginFault {
    PluginFault::InvalidArgument(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tx::signers::tests::chain;

    #[test]
    fn a_node_without_a_block_is_unavailable_and_other_refusals_are_not() {
        let answer = |code| Queried {
            code,
            codespace: "sdk".into(),
            log: "WasmApp is not ready; please wait for first block".into(),
            value: Vec::new(),
            height: 0,
        };
        assert!(matches!(refused("gov Params", &answer(26)), PluginFault::Unavailable(words) if words.contains("first block")));
        assert!(matches!(refused("gov Params", &answer(6)), PluginFault::FailedPrecondition(_)));
    }

    #[test]
    fn the_authority_is_the_one_that_wasmd_names() {
        assert_eq!(authority(&chain()).unwrap(), "wasm10d07y265gmmuvt4z0w9aw880jnsr700js7zslc");
    }
}
