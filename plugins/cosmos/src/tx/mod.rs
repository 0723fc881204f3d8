//! Transactions: what they say, their signature, and what the chain makes of them.
//!
//! ```text
//! signers   account:N, validator:N, addresses ──► keys        sign     SIGN_MODE_DIRECT
//! messages, any   type and payload ──► protobuf messages      refusal  what a code of the chain means
//! json      the JSON form of messages as chains write it     described  messages that the chain itself describes
//! wire      JSON-RPC over one connection ──► chain            chain    accounts, gas, sending, finding
//! ```

pub(crate) mod any;
mod chain;
pub(crate) mod described;
pub(crate) mod json;
pub(crate) mod messages;
mod refusal;
mod sign;
pub(crate) mod signers;
pub(crate) mod wire;

pub use chain::{account, broadcast, build, find};

use crate::binary::Chain;
use dvb_plugin_sdk::{PluginFault, Result, pb};

/// Of a signer, in the mempool. CometBFT holds 5,000 in all by default.
const MAX_IN_FLIGHT: u32 = 500;
/// Blocks that signed bytes live: their `timeout_height`.
const LIFE: u32 = 60;

/// Of a chain that is not known yet: all that there are.
pub fn supported(request: &pb::GetSupportedTxTypesRequest) -> pb::SupportedTxTypes {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized).ok();
    let types = messages::types().into_iter().filter(|kind| chain.as_ref().is_none_or(|chain| messages::takes(chain, &kind.name)));
    pb::SupportedTxTypes { types: types.collect(), max_in_flight: MAX_IN_FLIGHT, expiry_blocks: LIFE }
}

/// Signs what [`build`] made. Asks no node.
pub fn sign(request: &pb::SignTxRequest) -> Result<pb::SignTxResponse> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let chain = Chain::from_state(&devnet.initialized)?;
    let key = signers::Signers::new(&devnet, &chain).key(&request.signer)?;
    let number = sign::account_number(&request.account.clone().unwrap_or_default())?;
    let signed = request.items.iter().map(|item| {
        let unsigned = sign::read_body(&item.body)?;
        let raw = sign::signed(&unsigned, &key, item.sequence, item.expiry_height, &devnet.chain_id, number);
        Ok(pb::SignedTx { hash: sign::hash(&raw), raw })
    });
    Ok(pb::SignTxResponse { signed: signed.collect::<Result<_>>()? })
}

fn invalid(message: impl Into<String>) -> PluginFault {
    PluginFault::InvalidArgument(message.into())
}
