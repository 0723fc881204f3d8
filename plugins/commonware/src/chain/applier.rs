//! Applies finalized blocks, one after the other: execute, store, acknowledge, announce.
//!
//! Marshal delivers at least once. What is applied already is acknowledged again; what the ledger lacks (it may lag behind after
//! a power cut) is read from marshal's archive first.

use std::sync::Arc;

use commonware_consensus::types::Height;
use commonware_cryptography::Digestible as _;
use commonware_utils::Acknowledgement as _;
use commonware_utils::acknowledgement::Exact;
use tokio::sync::mpsc;
use tracing::info;

use super::Sealed;
use super::app::{Marshal, execute};
use super::fault::NodeFault;
use super::shared::{Chain, StateAt};
use super::store::Store;

pub struct Applier {
    pub chain: Arc<Chain>,
    pub store: Store,
    pub marshal: Marshal,
}

impl Applier {
    /// Runs until the sender is gone (the node stops) or a block cannot be applied.
    pub async fn run(mut self, mut finalized: mpsc::UnboundedReceiver<(Sealed, Exact)>) -> Result<(), NodeFault> {
        while let Some((block, ack)) = finalized.recv().await {
            let height = block.inner().height.get();
            if self.chain.upgrades.blocks(height).is_some() {
                return std::future::pending().await; // halted: blocks of rules that it does not know are for another binary
            }
            for missing in self.chain.head().height + 1..height {
                let missing = Self::from_archive(&self.marshal, missing).await?;
                self.apply(&missing)?;
            }
            if height > self.chain.head().height {
                self.apply(&block)?;
            }
            ack.acknowledge();
        }
        Ok(())
    }

    async fn from_archive(marshal: &Marshal, height: u64) -> Result<Sealed, NodeFault> {
        let block = marshal.get_block(Height::new(height)).await;
        block.ok_or_else(|| NodeFault::Stopped(format!("the ledger lacks block {height} and the archive does too")))
    }

    fn apply(&mut self, block: &Sealed) -> Result<(), NodeFault> {
        let height = block.inner().height;
        let ledger = match self.chain.state_at(height, &block.digest()) {
            StateAt::Known(ledger) => ledger,
            _ => {
                let before = self.chain.ledger();
                Arc::new(execute(&self.chain, &before, block).ok_or_else(|| diverged(&self.chain, &before, block))?)
            }
        };
        self.store.apply(block, &ledger)?;
        let head = self.chain.advance(block, ledger);
        info!(height = head.height, hash = %head.hash, state_root = %head.state_root, txs = head.txs, "finalized block applied");
        Ok(())
    }
}

fn diverged(chain: &Chain, before: &super::ledger::Ledger, block: &Sealed) -> NodeFault {
    let ours = match chain.begin(before, block.inner().height.get()).apply_all(&block.inner().txs, block.inner().height.get()) {
        Ok(after) => after.root().to_string(),
        Err(fault) => format!("none ({fault})"),
    };
    NodeFault::Diverged { height: block.inner().height.get(), ours, theirs: block.inner().state_root.to_string() }
}
