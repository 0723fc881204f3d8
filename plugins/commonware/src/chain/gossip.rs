//! Spreads pending transfers among peers, on a p2p channel of their own.
//!
//! Each node sends on what is new to it, once. Messages are not acknowledged, so what waits for some blocks is sent again.

use std::sync::Arc;

use commonware_codec::{Decode as _, Encode as _, EncodeSize, FixedSize as _, RangeCfg};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Blocker, Receiver, Recipients, Sender};
use tokio::sync::{broadcast, mpsc};
use tracing::{debug, warn};

use super::ledger::TxFault;
use super::mempool::Refusal;
use super::shared::Chain;
use super::tx::Transfer;

/// Transfers in one message at most.
const BATCH: usize = 64;
/// A transfer that waits for so many blocks is sent again, with each block.
const OVERDUE_BLOCKS: u64 = 3;
/// Messages per second from and to one peer.
pub const QUOTA: u32 = 64;
/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 5 + BATCH * Transfer::SIZE;

/// Runs until the network stops. `submitted` brings transfers that users handed in here.
pub async fn run<S, R, B>(chain: Arc<Chain>, (mut sender, mut receiver): (S, R), mut blocker: B, mut submitted: mpsc::Receiver<Transfer>)
where
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    B: Blocker<PublicKey = PublicKey>,
{
    let (_, mut heads) = chain.subscribe();
    loop {
        tokio::select! {
            message = receiver.recv() => {
                let Ok((peer, bytes)) = message else { return };
                match Vec::<Transfer>::decode_cfg(bytes, &(RangeCfg::from(1..=BATCH), ())) {
                    Ok(txs) => match admit(&chain, txs) {
                        Ok(news) => spread(&mut sender, &news),
                        Err(fault) => {
                            warn!(%peer, %fault, "blocked a peer that gossips forged transfers");
                            blocker.block(peer);
                        }
                    },
                    Err(error) => {
                        warn!(%peer, %error, "blocked a peer whose gossip cannot be read");
                        blocker.block(peer);
                    }
                }
            }
            tx = submitted.recv() => {
                let Some(tx) = tx else { return };
                let mut batch = vec![tx];
                while batch.len() < BATCH && let Ok(more) = submitted.try_recv() {
                    batch.push(more);
                }
                spread(&mut sender, &batch);
            }
            head = heads.recv() => match head {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => spread(&mut sender, &chain.overdue(OVERDUE_BLOCKS, BATCH)),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// Keeps what is new; an honest peer never sends what nobody signed.
fn admit(chain: &Chain, txs: Vec<Transfer>) -> Result<Vec<Transfer>, TxFault> {
    let mut news = Vec::new();
    for tx in txs {
        match chain.admit(tx.clone()) {
            Ok(_) => news.push(tx),
            Err(Refusal::Tx(TxFault::BadSignature)) => return Err(TxFault::BadSignature),
            Err(refusal) => debug!(%refusal, "left a gossiped transfer"),
        }
    }
    Ok(news)
}

fn spread<S: Sender<PublicKey = PublicKey>>(sender: &mut S, txs: &[Transfer]) {
    if txs.is_empty() {
        return;
    }
    let message = txs.to_vec();
    debug_assert!(message.encode_size() <= MAX_MESSAGE);
    sender.send(Recipients::All, message.encode(), false);
}
