//! One devnet's lanes under one task, woken by the store's feed, by blocks, and by back-off after an error.

use super::super::{
    Context, ReconcileError,
    sessions::{in_a_row, pause},
};
use super::{
    apply::{self, Ending},
    lane::{Entry, Lane, Round},
    target::{self, Family, Standing, Target},
};
use crate::{
    model::{Devnet, Key, Kind, Object, Transaction},
    plugin::{
        BlockHeight, PluginError,
        tx::{TxQuery, TxRefusal},
    },
    store::{Change, Expect, Selector, StoreError, Write},
};
use futures::{
    FutureExt, StreamExt,
    future::join_all,
    stream::{BoxStream, Fuse},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

type Feed = Fuse<BoxStream<'static, Result<Change, StoreError>>>;
type Blocks = BoxStream<'static, Result<BlockHeight, PluginError>>;

/// Until the devnet is gone. A store that fails, or a write that somebody else outran, begins the session anew: it then takes all
/// signed bytes for perhaps sent, which is always safe.
pub(super) async fn run(key: Key, cx: Arc<Context>, keep: usize) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        match Session::new(key.clone(), cx.clone(), keep).follow().await {
            Ok(()) => return,
            Err(error) => tracing::warn!(devnet = %key, %error, "the transactions of this devnet begin anew"),
        }
        failures = in_a_row(failures, begun.elapsed());
        tokio::time::sleep(pause(failures)).await;
        failures += 1;
    }
}

struct Session {
    key: Key,
    cx: Arc<Context>,
    keep: usize,
    devnet: Option<Arc<Devnet>>,
    /// By the signer's address.
    lanes: BTreeMap<String, Lane>,
    addresses: HashMap<String, String>,
    /// Not in a lane yet: nobody could tell the signer's address.
    unplaced: Vec<Arc<Transaction>>,
    known: BTreeSet<String>,
    /// Oldest first.
    finished: VecDeque<String>,
    target: Option<Target>,
    /// Devnet or nodes changed since the target was found.
    stale: bool,
    blocks: Option<Blocks>,
    turn: usize,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Session {
    fn new(key: Key, cx: Arc<Context>, keep: usize) -> Self {
        Self {
            key,
            cx,
            keep,
            devnet: None,
            lanes: BTreeMap::new(),
            addresses: HashMap::new(),
            unplaced: Vec::new(),
            known: BTreeSet::new(),
            finished: VecDeque::new(),
            target: None,
            stale: true,
            blocks: None,
            turn: 0,
            failures: 0,
            retry_at: None,
        }
    }

    async fn follow(&mut self) -> Result<(), ReconcileError> {
        let selector = Selector::in_devnet(Kind::Transaction, &self.key.namespace, &self.key.name);
        let (objects, from) = self.cx.store.list(&selector).await?;
        let mut feed = self.cx.store.watch(Selector { kinds: vec![Kind::Devnet, Kind::Node, Kind::Transaction], ..selector }, from).fuse();
        self.devnet = target::devnet(&self.key, &self.cx).await?;
        self.begin(objects);
        while self.devnet.is_some() {
            let (rest, heard) = while_hearing(&mut feed, self.work()).await;
            let rest = if heard.is_empty() { rest? } else { rest.map(|_| Some(Duration::ZERO))? };
            for change in heard {
                self.hear(change?);
            }
            tokio::select! {
                biased; // changes may come without a pause
                block = next_block(&mut self.blocks) => self.see(block),
                change = feed.next() => {
                    let mut next = Some(change);
                    while let Some(change) = next {
                        match change {
                            Some(change) => self.hear(change?),
                            None => return Ok(()), // the store is closed
                        }
                        next = feed.next().now_or_never();
                    }
                }
                () = pause_until(rest) => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, objects: Vec<Object>) {
        let mut txs: Vec<Arc<Transaction>> = objects.into_iter().filter_map(|object| object.try_into().ok()).collect();
        // As they were wanted: those of one commit have one time, and what was not signed yet still has the revision of its creation.
        txs.sort_by_key(|tx| (tx.metadata.created_at, tx.metadata.resource_version));
        txs.into_iter().for_each(|tx| self.take(tx));
    }

    fn take(&mut self, tx: Arc<Transaction>) {
        let name = &tx.metadata.name;
        if !self.known.insert(name.clone()) {
            return; // our own write: nobody else changes a transaction
        }
        if tx.status.phase.is_final() { self.finished.push_back(name.clone()) } else { self.unplaced.push(tx) }
    }

    fn hear(&mut self, change: Change) {
        match change.object {
            Object::Transaction(tx) if change.deleted => self.forget(&tx.metadata.name),
            Object::Transaction(tx) => self.take(tx),
            Object::Devnet(devnet) => {
                self.devnet = Some(devnet).filter(|devnet| !change.deleted && devnet.metadata.deleted_at.is_none());
                self.stale = true;
            }
            _ => self.stale = true,
        }
    }

    fn forget(&mut self, name: &str) {
        self.known.remove(name);
        self.finished.retain(|other| other != name);
        self.unplaced.retain(|tx| tx.metadata.name != name);
        self.lanes.values_mut().for_each(|lane| lane.entries.retain(|entry| entry.tx.metadata.name != name));
    }

    fn see(&mut self, block: Option<Result<BlockHeight, PluginError>>) {
        match block {
            Some(Ok(_)) => self.lanes.values_mut().for_each(Lane::wake),
            Some(Err(_)) | None => self.fail(None),
        }
    }

    /// One step. Some: to be called again after this long, if nothing else happens before.
    async fn work(&mut self) -> Result<Option<Duration>, ReconcileError> {
        self.end_what_was_reset().await?;
        self.prune().await?;
        self.lanes.retain(|_, lane| !lane.entries.is_empty());
        if self.lanes.is_empty() && self.unplaced.is_empty() {
            (self.blocks, self.target, self.stale, self.retry_at) = (None, None, true, None);
            return Ok(None);
        }
        if let Some(left) = self.retry_at.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()) {
            return Ok(Some(left));
        }
        self.retry_at = None;
        match self.step().await {
            Err(error @ ReconcileError::Store(_)) => Err(error),
            Err(error) => {
                self.fail(Some(&error));
                Ok(self.retry_at.map(|at| at.saturating_duration_since(Instant::now())))
            }
            Ok(Round::Progress) => Ok(Some(Duration::ZERO)),
            Ok(Round::Rest) => Ok(None),
        }
    }

    async fn step(&mut self) -> Result<Round, ReconcileError> {
        if self.stale || self.target.is_none() {
            let Some(family) = self.aim().await? else { return Ok(Round::Rest) };
            self.place(&family).await?;
        } else if let Some(target) = self.target.clone() {
            self.place(&target.family).await?;
        }
        let Some(target) = self.target.clone() else { return Ok(Round::Rest) };
        if self.blocks.is_none() {
            self.blocks = Some(target.family.plugin.heights(&target.family.devnet, &target.node).await?);
        }
        let rounds = self.rounds(&target).await?;
        for lane in self.lanes.values_mut() {
            self.finished.extend(lane.ended.drain(..).map(|tx| tx.metadata.name.clone()));
        }
        let mut outcome = Round::Rest;
        for round in rounds {
            if round? == Round::Progress {
                outcome = Round::Progress;
            }
        }
        self.failures = 0;
        Ok(outcome)
    }

    /// One round of each lane that is due.
    async fn rounds(&mut self, target: &Target) -> Result<Vec<Result<Round, ReconcileError>>, ReconcileError> {
        let mut due: Vec<&mut Lane> = self.lanes.values_mut().filter(|lane| lane.due).collect();
        let asked = join_all(due.iter_mut().map(|lane| lane.ask(target))).await;
        let (mut lanes, mut rounds) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
        for (lane, asked) in due.into_iter().zip(asked) {
            match asked {
                Ok(()) => lanes.push(lane),
                Err(error) => rounds.push(Err(error)),
            }
        }
        // After the accounts, so that blocks are known up to the height that these tell of; once for all lanes, since to read a block
        // is most of what a node is asked for.
        let queries: Vec<TxQuery> = lanes.iter().flat_map(|lane| lane.queries()).collect();
        if !queries.is_empty() {
            let blocks = Arc::new(target.family.plugin.lookup(&target.family.devnet, &target.node, queries).await?);
            lanes.iter_mut().for_each(|lane| lane.see(&blocks));
        }
        let cx = &self.cx;
        let now = lanes.into_iter().map(|lane| async {
            let round = lane.round(target, cx).await;
            lane.due = matches!(round, Ok(Round::Progress) | Err(_));
            round
        });
        rounds.extend(join_all(now).await);
        Ok(rounds)
    }

    /// Finds the plugin and a ready node. None: there is nobody to ask yet.
    async fn aim(&mut self) -> Result<Option<Family>, ReconcileError> {
        let Some(devnet) = self.devnet.clone() else { return Ok(None) };
        self.stale = false;
        let (family, node) = match target::find(&devnet, self.turn, &self.cx).await? {
            Standing::Waiting => (None, None),
            Standing::Unable(words) => {
                self.refuse_all(&words).await?;
                (None, None)
            }
            Standing::Able(family, node) => (Some(*family), node),
        };
        let target = family.clone().zip(node).map(|(family, node)| Target { family, node });
        if target.as_ref().map(|target| &target.node) != self.target.as_ref().map(|target| &target.node) {
            self.blocks = None;
            self.lanes.values_mut().for_each(Lane::wake);
        }
        self.target = target;
        Ok(family)
    }

    /// Puts new transactions into the lanes of their signers.
    async fn place(&mut self, family: &Family) -> Result<(), ReconcileError> {
        let mut refused = BTreeMap::new();
        let mut waiting: VecDeque<_> = std::mem::take(&mut self.unplaced).into();
        while let Some(tx) = waiting.pop_front() {
            let signer = &tx.spec.signer;
            let address = match self.addresses.get(signer) {
                Some(address) => Ok(address.clone()),
                None => family.plugin.account(&family.devnet, None, signer).await.map(|account| account.address),
            };
            match address {
                Ok(address) => {
                    self.addresses.insert(signer.clone(), address.clone());
                    self.lanes.entry(address).or_insert_with(|| Lane::new(signer)).add(tx);
                }
                Err(PluginError::Rejected { code, message, .. }) if code != "Unavailable" => {
                    refused.entry(message).or_insert_with(Vec::new).push(tx);
                }
                Err(error) => {
                    self.unplaced.push(tx);
                    self.unplaced.extend(waiting);
                    return Err(error.into());
                }
            }
        }
        for (message, txs) in refused {
            self.end(txs, &Ending::Refused(TxRefusal { message, ..TxRefusal::default() })).await?;
        }
        Ok(())
    }

    async fn refuse_all(&mut self, words: &str) -> Result<(), ReconcileError> {
        let txs = std::mem::take(&mut self.unplaced);
        self.end(txs, &Ending::Refused(TxRefusal { message: words.to_owned(), ..TxRefusal::default() })).await
    }

    /// A reset makes another chain with the same keys: nothing that was meant for the old one may reach it.
    async fn end_what_was_reset(&mut self) -> Result<(), ReconcileError> {
        let Some(epoch) = self.devnet.as_ref().map(|devnet| devnet.spec.operations.reset) else { return Ok(()) };
        let is_old = |tx: &Arc<Transaction>| tx.status.chain_epoch < epoch;
        let mut old: Vec<Arc<Transaction>> = self.unplaced.extract_if(.., |tx| is_old(tx)).collect();
        for lane in self.lanes.values_mut() {
            old.extend(lane.entries.extract_if(.., |entry| is_old(&entry.tx)).map(|entry| entry.tx));
        }
        self.end(old, &Ending::Reset).await
    }

    async fn end(&mut self, txs: Vec<Arc<Transaction>>, ending: &Ending) -> Result<(), ReconcileError> {
        let mut entries: Vec<Entry> = txs.into_iter().map(Entry::new).collect();
        let endings = (0..entries.len()).map(|index| (index, ending.clone())).collect();
        apply::end(&mut entries, &endings, "", &self.cx).await?;
        self.finished.extend(entries.into_iter().map(|entry| entry.tx.metadata.name.clone()));
        Ok(())
    }

    /// Drops the oldest of the finished, a tenth more than must go, so that it is not done for each.
    async fn prune(&mut self) -> Result<(), ReconcileError> {
        if self.finished.len() <= self.keep + self.keep / 10 {
            return Ok(());
        }
        let surplus: Vec<String> = self.finished.drain(..self.finished.len() - self.keep).collect();
        let namespace = self.key.namespace.clone();
        let delete = |name: &String| Write::Delete { key: Key::transaction(&namespace, name), expect: Expect::Any };
        self.cx.store.commit(surplus.iter().map(delete).collect()).await?;
        for name in &surplus {
            self.known.remove(name);
        }
        Ok(())
    }

    /// The node or the plugin does not answer: another one after a pause.
    fn fail(&mut self, error: Option<&ReconcileError>) {
        let pause = pause(self.failures);
        if let Some(error) = error {
            tracing::warn!(devnet = %self.key, %error, again_in = ?pause, "transactions cannot go on");
        }
        self.failures += 1;
        self.turn += 1;
        self.retry_at = Some(Instant::now() + pause);
        (self.target, self.blocks, self.stale) = (None, None, true);
        self.lanes.values_mut().for_each(Lane::wake);
    }
}

/// Does `work`, and takes in meanwhile what the feed tells: who falls behind has it read from the file.
async fn while_hearing<T>(feed: &mut Feed, work: impl Future<Output = T>) -> (T, Vec<Result<Change, StoreError>>) {
    let mut heard = Vec::new();
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return (done, heard),
            Some(change) = feed.next() => heard.push(change),
        }
    }
}

async fn next_block(blocks: &mut Option<Blocks>) -> Option<Result<BlockHeight, PluginError>> {
    match blocks {
        Some(blocks) => blocks.next().await,
        None => std::future::pending().await,
    }
}

async fn pause_until(rest: Option<Duration>) {
    match rest {
        Some(rest) => tokio::time::sleep(rest).await,
        None => std::future::pending().await,
    }
}
