//! The transactions of one signer that have not come to their end, and one round of work on them.

use super::super::{Context, ReconcileError};
use super::{
    apply::{self, Ending},
    plan::{self, Bytes, Chain, Item, Sent},
    target::Target,
};
use crate::{
    model::{SignedAttempt, Transaction, TransactionPhase},
    plugin::tx::{BuildRequest, IncludedTx, RefusalClass, SignItem, TxAccount, TxIntent, TxLookup, TxQuery, TxRefusal, UnsignedTx},
    sys::failpoint,
};
use std::{collections::BTreeMap, sync::Arc};

/// A lane's transaction, with what only this process knows of it.
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    sent: Sent,
    /// In no block up to this height.
    looked_to: u64,
    /// The last no to bytes that somebody may have.
    refusal: Option<TxRefusal>,
    /// Refused for now: not signed again before the next block.
    held: bool,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Something was settled, signed or taken: another round may find more to do.
    Progress,
    /// The next block, or a new transaction, is to be waited for.
    Rest,
}

pub(super) struct Lane {
    /// As the first transaction named it; the plugin takes it as well as the address.
    signer: String,
    pub(super) entries: Vec<Entry>,
    /// What a node said it expects, and the height at which it said so.
    expects: Option<(u64, u64)>,
    pub(super) due: bool,
    /// What the chain told since the last block.
    told: Option<Told>,
    pub(super) ended: Vec<Arc<Transaction>>,
}

struct Told {
    account: TxAccount,
    /// Of all lanes that asked together. None: this round is still to ask.
    blocks: Option<Arc<TxLookup>>,
}

impl Lane {
    pub(super) fn new(signer: &str) -> Self {
        Self { signer: signer.to_owned(), entries: Vec::new(), expects: None, due: true, told: None, ended: Vec::new() }
    }

    /// A new transaction, or one that an earlier daemon left: what that one signed, it may have sent.
    pub(super) fn add(&mut self, tx: Arc<Transaction>) {
        self.entries.push(Entry::new(tx));
        self.due = true;
    }

    /// A block came: what was put off may be tried again.
    pub(super) fn wake(&mut self) {
        self.due = !self.entries.is_empty();
        self.told = None;
        self.entries.iter_mut().for_each(|entry| entry.held = false);
    }

    /// Asks how far the account is, unless nothing has changed since.
    pub(super) async fn ask(&mut self, target: &Target) -> Result<(), ReconcileError> {
        if self.told.is_none() {
            let account = target.family.plugin.account(&target.family.devnet, Some(&target.node), &self.signer).await?;
            self.told = Some(Told { account, blocks: None });
        }
        Ok(())
    }

    /// The bytes that may be in a block that it has not been told of.
    pub(super) fn queries(&self) -> Vec<TxQuery> {
        let query = |entry: &Entry| {
            let signed = entry.tx.status.signed.as_ref().filter(|_| entry.sent != Sent::Never)?;
            Some(TxQuery { hash: signed.hash.clone(), after_height: entry.looked_to, expires_at: signed.expires_at })
        };
        if self.told.as_ref().is_some_and(|told| told.blocks.is_some()) { Vec::new() } else { self.entries.iter().filter_map(query).collect() }
    }

    /// What became of the bytes that may be in a block.
    pub(super) fn see(&mut self, blocks: &Arc<TxLookup>) {
        let Some(told) = self.told.as_mut().filter(|told| told.blocks.is_none()) else { return };
        told.blocks = Some(blocks.clone());
        let in_vain = self.entries.iter().filter(|entry| entry.hash().is_some_and(|hash| blocks.dropped.contains(hash)));
        let gap = in_vain.map(Entry::sequence).min();
        for entry in &mut self.entries {
            entry.looked_to = entry.looked_to.max(blocks.height);
            // A node that misses one looks at the later ones again, and drops them without a word. All are sent again at once.
            if gap.is_some_and(|gap| entry.hash().is_some() && entry.sequence() >= gap) && entry.sent != Sent::Never {
                entry.sent = Sent::Perhaps;
            }
        }
    }

    /// One round with what was told.
    pub(super) async fn round(&mut self, target: &Target, cx: &Context) -> Result<Round, ReconcileError> {
        let Some(told) = self.told.take() else { return Ok(Round::Rest) };
        let account = &told.account;
        let nothing_sent = || Arc::new(TxLookup { height: account.height, ..TxLookup::default() });
        let blocks = told.blocks.clone().unwrap_or_else(nothing_sent);
        let expects = self.expects.filter(|(_, height)| *height >= account.height).map(|(next, _)| next);
        let chain = Chain { sequence: account.sequence, sequence_height: account.height, height: blocks.height, expects };
        let items: Vec<Item> = self.entries.iter().map(|entry| entry.item(&blocks.included)).collect();
        let plan = plan::plan(&items, &chain, target.family.support.max_in_flight);

        let mut endings = BTreeMap::new();
        for index in &plan.settled {
            if let Some(found) = self.entries[*index].hash().and_then(|hash| blocks.included.get(hash)) {
                endings.insert(*index, Ending::Included(found.clone()));
            }
        }
        for index in &plan.dead {
            let entry = &mut self.entries[*index];
            if let Some(refusal) = entry.refusal.take().filter(|refusal| !refusal.class.may_pass()) {
                endings.insert(*index, Ending::Refused(refusal));
            }
        }
        if !account.exists {
            let message = format!("{} ({}) has no account on the chain: send it something first", self.signer, account.address);
            let refusal = TxRefusal { class: RefusalClass::UnknownAccount, message, ..TxRefusal::default() };
            endings.extend(plan.sign.iter().map(|(index, _)| (*index, Ending::Refused(refusal.clone()))));
        }
        let wanted: Vec<(usize, u64)> = plan.sign.into_iter().filter(|(index, _)| !endings.contains_key(index)).collect();
        let mut send: Vec<usize> = plan.send;
        let progress = !endings.is_empty();
        if !plan.settled.is_empty() {
            failpoint("tx/seen");
        }
        let settled = apply::end(&mut self.entries, &endings, &account.address, cx).await?;
        let signed = self.sign(wanted, account, &chain, target, cx).await?;
        send.extend(&signed.made);
        let taken = self.send(send, account, target, cx).await?;
        if settled.is_empty() {
            self.told = Some(Told { blocks: Some(blocks), ..told }); // else the sequence may be another one
        }
        self.drop_ended(settled.into_iter().chain(signed.ended).chain(taken.ended).collect());
        Ok(if progress || !signed.made.is_empty() || taken.any { Round::Progress } else { Round::Rest })
    }

    /// Builds, signs and stores; nothing is sent here. Whatever is refused for good ends.
    async fn sign(
        &mut self,
        wanted: Vec<(usize, u64)>,
        account: &TxAccount,
        chain: &Chain,
        target: &Target,
        cx: &Context,
    ) -> Result<Signed, ReconcileError> {
        let Some((_, first)) = wanted.first().copied() else { return Ok(Signed::default()) };
        let (indices, sequences): (Vec<usize>, Vec<u64>) = wanted.into_iter().unzip();
        let (mut built, mut endings, mut waiting) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (index, outcome) in self.build(&indices, first, account, target).await? {
            match outcome {
                Ok(unsigned) => built.push((index, unsigned)),
                Err(refusal) if refusal.class.may_pass() => {
                    self.entries[index].held = true;
                    waiting.insert(index, refusal.message);
                }
                Err(refusal) => drop(endings.insert(index, Ending::Refused(refusal))),
            }
        }
        // The sequences in order: what was refused leaves no gap.
        let life = target.family.support.expiry_blocks;
        let expires_at = if life == 0 { 0 } else { chain.height.max(account.height) + life };
        let items =
            built.iter().zip(&sequences).map(|((_, unsigned), sequence)| SignItem { body: unsigned.body.clone(), sequence: *sequence, expires_at });
        let items: Vec<SignItem> = items.collect();
        let plugin = &target.family.plugin;
        let signed = if items.is_empty() { Vec::new() } else { plugin.sign(&target.family.devnet, &self.signer, account, items).await? };
        let mut changes = BTreeMap::new();
        for (((index, unsigned), sequence), bytes) in built.into_iter().zip(sequences).zip(signed) {
            let attempt = SignedAttempt { raw: apply::hex(&bytes.raw), hash: bytes.hash, sequence, height: account.height, expires_at };
            changes.insert(index, (unsigned, attempt));
        }
        let made: Vec<usize> = changes.keys().copied().collect();
        let ended = apply::end(&mut self.entries, &endings, &account.address, cx).await?;
        for (index, words) in waiting {
            apply::note(&mut self.entries, &[index], TransactionPhase::Building, Some(&words), cx).await?;
        }
        apply::store_signed(&mut self.entries, changes, &account.address, cx).await?;
        if !made.is_empty() {
            failpoint("tx/signed");
        }
        for index in &made {
            let entry = &mut self.entries[*index];
            (entry.sent, entry.looked_to, entry.refusal) = (Sent::Never, account.height, None);
        }
        Ok(Signed { made, ended })
    }

    async fn build(
        &self,
        indices: &[usize],
        next_sequence: u64,
        account: &TxAccount,
        target: &Target,
    ) -> Result<Vec<(usize, Result<UnsignedTx, TxRefusal>)>, ReconcileError> {
        let mut outcomes = Vec::with_capacity(indices.len());
        // One call for each gas factor: almost always one.
        let mut rest = indices;
        while let Some(&first) = rest.first() {
            let gas_factor = self.entries[first].gas_factor();
            let count = rest.iter().take_while(|index| self.entries[**index].gas_factor().to_bits() == gas_factor.to_bits()).count();
            let (now, later) = rest.split_at(count);
            let request = BuildRequest {
                signer: self.signer.clone(),
                account: account.clone(),
                intents: now.iter().map(|index| self.entries[*index].intent()).collect(),
                next_sequence,
                gas_factor,
            };
            let built = target.family.plugin.build(&target.family.devnet, Some(&target.node), request).await?;
            outcomes.extend(now.iter().copied().zip(built));
            rest = later;
        }
        Ok(outcomes)
    }

    /// Sends stored bytes in the order of their sequences, and notes what came of it.
    async fn send(&mut self, mut indices: Vec<usize>, account: &TxAccount, target: &Target, cx: &Context) -> Result<Taken, ReconcileError> {
        indices.retain(|index| self.entries[*index].tx.status.signed.is_some() && !self.entries[*index].tx.status.phase.is_final());
        if indices.is_empty() {
            return Ok(Taken::default());
        }
        indices.sort_by_key(|index| self.entries[*index].sequence());
        let raw: Vec<Vec<u8>> = indices.iter().map(|index| self.entries[*index].raw()).collect();
        let before: Vec<Sent> = indices.iter().map(|index| std::mem::replace(&mut self.entries[*index].sent, Sent::Perhaps)).collect();
        let outcomes = match target.family.plugin.broadcast(&target.family.devnet, &target.node, raw).await {
            Ok(outcomes) => {
                failpoint("tx/sent");
                outcomes
            }
            Err(error) => {
                apply::note(&mut self.entries, &indices, TransactionPhase::Retrying, Some(&error.to_string()), cx).await?;
                return Err(error.into());
            }
        };
        let (mut taken, mut endings, mut again, mut learned) = (Vec::new(), BTreeMap::new(), None, false);
        for (at, &index) in indices.iter().enumerate() {
            let entry = &mut self.entries[index];
            match outcomes.get(at) {
                None => entry.sent = before[at], // not sent this time
                Some(Ok(())) => {
                    entry.sent = Sent::Taken { height: account.height };
                    taken.push(index);
                }
                Some(Err(refusal)) if before[at] == Sent::Never => {
                    entry.sent = Sent::Never; // the only node that saw these bytes did not keep them
                    learned |= self.learn(refusal, account.height);
                    if !refusal.class.may_pass() {
                        endings.insert(index, Ending::Refused(refusal.clone()));
                    } else if refusal.next_sequence.is_none() {
                        again = Some((index, refusal.message.clone()));
                    }
                }
                Some(Err(refusal)) => {
                    entry.refusal = Some(refusal.clone());
                    again = Some((index, refusal.message.clone()));
                }
            }
        }
        apply::submitted(&mut self.entries, &taken, cx).await?;
        if let Some((index, words)) = again {
            apply::note(&mut self.entries, &[index], TransactionPhase::Retrying, Some(&words), cx).await?;
        }
        let ended = apply::end(&mut self.entries, &endings, &account.address, cx).await?;
        let fresh = taken.iter().any(|index| indices.iter().zip(&before).any(|(other, sent)| other == index && *sent == Sent::Never));
        Ok(Taken { any: fresh || learned || !ended.is_empty(), ended })
    }

    /// True when the node told a later sequence than was known at this height: worth another round at once.
    fn learn(&mut self, refusal: &TxRefusal, height: u64) -> bool {
        let Some(next) = refusal.next_sequence else { return false };
        let known = self.expects.filter(|(_, at)| *at == height).map_or(0, |(next, _)| next);
        self.expects = Some((next.max(known), height));
        next > known
    }

    fn drop_ended(&mut self, ended: Vec<usize>) {
        for index in ended {
            self.ended.push(self.entries[index].tx.clone());
        }
        self.entries.retain(|entry| !entry.tx.status.phase.is_final());
    }
}

#[derive(Default)]
struct Signed {
    made: Vec<usize>,
    ended: Vec<usize>,
}

#[derive(Default)]
struct Taken {
    any: bool,
    ended: Vec<usize>,
}

impl Entry {
    pub(super) fn new(tx: Arc<Transaction>) -> Self {
        let looked_to = tx.status.signed.as_ref().map_or(0, |signed| signed.height);
        Self { tx, sent: Sent::Perhaps, looked_to, refusal: None, held: false }
    }
    fn item(&self, included: &BTreeMap<String, IncludedTx>) -> Item {
        let bytes = self.tx.status.signed.as_ref().map(|signed| Bytes {
            sequence: signed.sequence,
            expires_at: signed.expires_at,
            sent: self.sent,
            included: included.contains_key(&signed.hash),
        });
        let hopeless = self.refusal.as_ref().is_some_and(|refusal| !refusal.class.may_pass());
        Item { bytes, held: self.held || hopeless || self.tx.status.phase.is_final() }
    }
    fn hash(&self) -> Option<&str> {
        self.tx.status.signed.as_ref().map(|signed| signed.hash.as_str())
    }
    fn sequence(&self) -> u64 {
        self.tx.status.signed.as_ref().map_or(0, |signed| signed.sequence)
    }
    fn raw(&self) -> Vec<u8> {
        self.tx.status.signed.as_ref().map(|signed| super::super::placing::unhex(&signed.raw)).unwrap_or_default()
    }
    fn gas_factor(&self) -> f64 {
        let factor = self.tx.spec.gas_factor;
        if factor > 0.0 { factor } else { crate::model::GAS_FACTOR }
    }
    fn intent(&self) -> TxIntent {
        let spec = &self.tx.spec;
        TxIntent { tx_type: spec.tx_type.clone(), payload: spec.payload.to_string(), gas_limit: spec.gas_limit, memo: spec.memo.clone() }
    }
    /// True when the phase is another now.
    pub(super) fn is_in(&self, phase: TransactionPhase) -> bool {
        self.tx.status.phase == phase
    }
}
