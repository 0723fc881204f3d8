//! The chain as consensus sees it: proposes blocks, verifies blocks, takes finalized ones.
//!
//! Ledgers after blocks that are not final yet are kept (`Chain::remember`), so a proposal never holds a transfer that one of its
//! ancestors holds already, and a verifier executes each block once.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use commonware_actor::Feedback;
use commonware_consensus::marshal::Update;
use commonware_consensus::marshal::ancestry::Ancestry;
use commonware_consensus::marshal::core::Mailbox;
use commonware_consensus::marshal::standard::Standard;
use commonware_consensus::simplex::types::Context;
use commonware_consensus::{Application, Reporter};
use commonware_cryptography::{Digestible as _, ed25519};
use commonware_runtime::{Clock, Spawner};
use commonware_utils::SystemTimeExt as _;
use commonware_utils::acknowledgement::Exact;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tracing::warn;

use super::block::Block;
use super::ledger::Ledger;
use super::shared::{Chain, StateAt};
use super::{Hash, Sealed};

pub type Scheme = commonware_consensus::simplex::scheme::ed25519::Scheme;
pub type Marshal = Mailbox<Scheme, Standard<Block>>;

/// A verifier waits until a block's time is at most this far in its own future.
const CLOCK_DRIFT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct App {
    chain: Arc<Chain>,
    /// Filled before consensus starts; marshal needs the application first.
    marshal: Arc<OnceLock<Marshal>>,
    finalized: mpsc::UnboundedSender<(Sealed, Exact)>,
    block_time: Duration,
}

impl App {
    /// `finalized` hands blocks to the applier; marshal's `max_pending_acks` bounds it.
    pub fn new(chain: Arc<Chain>, marshal: Arc<OnceLock<Marshal>>, finalized: mpsc::UnboundedSender<(Sealed, Exact)>, block_time: Duration) -> Self {
        Self { chain, marshal, finalized, block_time }
    }

    /// The ledger after `tip`; its ancestors come from `ancestry`. None: it lies in the past, or no ancestor is known here.
    async fn ledger_after(&self, tip: Sealed, ancestry: &mut impl Ancestry<Block>) -> Option<Arc<Ledger>> {
        let mut unexecuted = Vec::new();
        let mut cursor = tip;
        let mut ledger = loop {
            match self.chain.state_at(cursor.inner().height, &cursor.digest()) {
                StateAt::Known(ledger) => break ledger,
                StateAt::Past => return None,
                StateAt::Unknown => {
                    let parent = ancestry.next().await?;
                    unexecuted.push(std::mem::replace(&mut cursor, parent));
                }
            }
        };
        for block in unexecuted.iter().rev() {
            ledger = Arc::new(execute(&self.chain, &ledger, block)?);
            self.chain.remember(block, ledger.clone());
        }
        Some(ledger)
    }

    /// A binary without the handler of a due upgrade neither makes nor takes the block that begins with it.
    fn is_halted(&self, height: u64) -> bool {
        let plan = self.chain.upgrades.blocks(height);
        if let Some(plan) = &plan {
            warn!(name = plan.name, height = plan.height, "UPGRADE NEEDED: this binary has no handler for it");
        }
        plan.is_some()
    }

    /// Whether `block` is the finalized one of its height.
    async fn is_final(&self, block: &Sealed) -> bool {
        let Some(marshal) = self.marshal.get() else { return false };
        marshal.get_info(block.inner().height).await.is_some_and(|(_, hash)| hash == block.digest())
    }
}

impl<E: Clock + Spawner + Send + 'static> Application<E> for App {
    type SigningScheme = Scheme;
    type Context = Context<Hash, ed25519::PublicKey>;
    type Block = Block;
    type Input = ();

    async fn propose(&mut self, (clock, _): (E, Self::Context), mut ancestry: impl Ancestry<Block>, (): ()) -> Option<Sealed> {
        let parent = ancestry.next().await?;
        let (parent_hash, height) = (parent.digest(), parent.inner().height.next());
        if self.is_halted(height.get()) {
            return None;
        }
        let earliest = parent.inner().timestamp.saturating_add(self.block_time.as_millis() as u64);
        clock.sleep_until(at(earliest)).await;
        let before = self.ledger_after(parent, &mut ancestry).await?;
        let (txs, after) = self.chain.pick(&before, height.get());
        let timestamp = clock.current().epoch_millis().max(earliest);
        let block = Block { parent: parent_hash, height, timestamp, state_root: after.root(), txs }.seal();
        self.chain.remember(&block, Arc::new(after));
        Some(block)
    }

    async fn verify(&mut self, (clock, _): (E, Self::Context), mut ancestry: impl Ancestry<Block>) -> bool {
        let Some(block) = ancestry.next().await else { return false };
        let Some(parent) = ancestry.next().await else { return false };
        if self.is_halted(block.inner().height.get()) {
            return false;
        }
        if block.inner().timestamp <= parent.inner().timestamp {
            warn!(height = block.inner().height.get(), "refused a block that is not younger than its parent");
            return false;
        }
        // A clock that differs is no reason to say no for ever: wait until the block's time has come.
        clock.sleep_until(at(block.inner().timestamp) - CLOCK_DRIFT).await;
        let Some(before) = self.ledger_after(parent, &mut ancestry).await else { return self.is_final(&block).await };
        if !self.chain.signatures_hold(&block) {
            warn!(height = block.inner().height.get(), "refused a block with a bad signature");
            return false;
        }
        let Some(after) = execute(&self.chain, &before, &block) else {
            warn!(height = block.inner().height.get(), "refused a block that does not execute to its state root");
            return false;
        };
        self.chain.remember(&block, Arc::new(after));
        true
    }
}

impl Reporter for App {
    type Activity = Update<Block>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match activity {
            Update::Tip(_, height, _) => {
                self.chain.heard_tip(height.get());
                Feedback::Ok
            }
            Update::Block(block, ack) => match self.finalized.send((block, ack)) {
                Ok(()) => Feedback::Ok,
                Err(_) => Feedback::Closed,
            },
        }
    }
}

/// Runs a block's transfers; None when one does not apply or the state root is another.
pub fn execute(chain: &Chain, before: &Ledger, block: &Sealed) -> Option<Ledger> {
    let after = chain.begin(before, block.inner().height.get()).apply_all(&block.inner().txs, block.inner().height.get()).ok()?;
    (after.root() == block.inner().state_root).then_some(after)
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
