//! Waiting until transactions are Confirmed or Failed.

use super::{FINAL, PHASES, is_final};
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{given_up, in_vain, until},
    render::objects::name,
    watch::{Change, watch, watch_phases},
};
use dvb_proto::devnet::v1::{ListRequest, Transaction};
use futures::{StreamExt, stream::LocalBoxStream};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::time::Instant;

/// One that is stored.
pub(in crate::commands) async fn one(ctx: &Context, client: &Client, wanted: &str) -> Result<Transaction, Error> {
    let devnet = wanted.split('/').next().unwrap_or_default();
    let changes = watch::<Transaction>(client, selector(ctx, devnet), wanted);
    let found =
        Settling { devnet: devnet.to_owned(), changes, early: Early::default() }.all(ctx, client, BTreeSet::from([wanted.to_owned()])).await?;
    found.into_values().next().ok_or_else(|| Error::not_found(format!("there is no transaction {wanted}")))
}

type Told = Result<Change<Transaction>, Error>;

/// What ends on a devnet, from before the transactions are submitted that will be waited for.
pub(in crate::commands) struct Settling {
    devnet: String,
    changes: LocalBoxStream<'static, Told>,
    early: Early,
}

/// Told while there was something else to do.
#[derive(Default)]
struct Early {
    told: VecDeque<Told>,
    /// A listing began anew meanwhile: it ends without what was stored after it, so it says nothing of that.
    is_stale: bool,
}

impl Early {
    fn take(&mut self, change: Told) {
        self.is_stale |= matches!(change, Ok(Change::Resync));
        match self.is_stale {
            true => self.told.clear(),
            false => self.told.push_back(change),
        }
    }
}

impl Settling {
    /// Only ends are told: of thousands of transactions, each change on the way would cost as much as the last.
    pub(in crate::commands) async fn begin(ctx: &Context, client: &Client, devnet: &str) -> Result<Self, Error> {
        let unfinished = PHASES.iter().filter(|phase| !FINAL.contains(phase)).map(|phase| (*phase).to_owned()).collect();
        let request = ListRequest { phases: unfinished, ..selector(ctx, devnet) };
        let now = client.transactions().list(request).await?.into_inner().resource_version;
        let changes = watch_phases(client, selector(ctx, devnet), &FINAL, now).await?;
        Ok(Self { devnet: devnet.to_owned(), changes, early: Early::default() })
    }

    /// Does `work`, and takes in meanwhile what ends: a watch that nobody reads falls behind.
    pub(in crate::commands) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(change) = self.changes.next() => self.early.take(change),
            }
        }
    }

    /// As they ended, by name. `stored` are as the daemon answered. One that is not kept any more is left out.
    pub(in crate::commands) async fn stored(
        mut self,
        ctx: &Context,
        client: &Client,
        stored: Vec<Transaction>,
    ) -> Result<BTreeMap<String, Transaction>, Error> {
        // An earlier submit may have brought one to its end.
        let named = stored.into_iter().map(|tx| (name(&tx.metadata).to_owned(), tx));
        let (mut ended, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) = named.partition(|(_, tx)| is_final(tx));
        if self.early.is_stale {
            self.changes = watch(client, selector(ctx, &self.devnet), "");
        }
        ended.extend(self.all(ctx, client, waiting.into_keys().collect()).await?);
        Ok(ended)
    }

    async fn all(mut self, ctx: &Context, client: &Client, mut waiting: BTreeSet<String>) -> Result<BTreeMap<String, Transaction>, Error> {
        let (devnet, total) = (self.devnet.as_str(), waiting.len());
        let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
        let (interrupt, given_up) = (tokio::signal::ctrl_c(), given_up(client, ctx, devnet, "what was submitted"));
        tokio::pin!(interrupt, given_up);
        let (mut ended, mut seen) = (BTreeMap::new(), BTreeSet::new());
        while !waiting.is_empty() {
            let change = tokio::select! {
                change = next(&mut self.early.told, &mut self.changes) => change.ok_or_else(|| Error::unreachable("devnetd ended the watch"))??,
                error = &mut given_up => return Err(error),
                () = until(deadline) => return Err(in_vain(client, timed_out(devnet, waiting.len(), total)).await),
                _ = &mut interrupt => return Err(Error::interrupted(&format!("dvbctl tx list {devnet}; the transactions go on without dvbctl"))),
            };
            match change {
                Change::Added(tx) | Change::Modified(tx) => {
                    let own = name(&tx.metadata).to_owned();
                    seen.insert(own.clone());
                    if is_final(&tx) && waiting.remove(&own) {
                        ended.insert(own, tx);
                    }
                }
                Change::Deleted(tx) => drop(waiting.take(name(&tx.metadata))),
                // All that there is was told: what was not among it has been dropped as old.
                Change::Bookmark => waiting.retain(|name| seen.contains(name)),
                Change::Resync => seen.clear(),
            }
        }
        Ok(ended)
    }
}

async fn next(early: &mut VecDeque<Told>, changes: &mut LocalBoxStream<'static, Told>) -> Option<Told> {
    match early.pop_front() {
        Some(change) => Some(change),
        None => changes.next().await,
    }
}

fn selector(ctx: &Context, devnet: &str) -> ListRequest {
    ListRequest { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned(), ..ListRequest::default() }
}

fn timed_out(devnet: &str, left: usize, total: usize) -> Error {
    let message = format!("{left} of {total} transactions of {devnet} are neither confirmed nor failed in time");
    Error::new(Exit::TimedOut, "TimedOut", message).about(devnet).with_remedy(format!("dvbctl tx list {devnet}; or wait longer with --timeout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_began_anew_before_all_was_stored_is_not_believed() {
        let mut early = Early::default();
        early.take(Ok(Change::Added(Transaction::default())));
        assert_eq!((early.told.len(), early.is_stale), (1, false));
        for change in [Change::Resync, Change::Added(Transaction::default()), Change::Bookmark] {
            early.take(Ok(change));
        }
        assert!(early.told.is_empty() && early.is_stale, "the watch is opened once more");
    }
}
