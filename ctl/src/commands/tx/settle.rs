//! Waiting until transactions are Confirmed or Failed.

use super::is_final;
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{given_up, in_vain, until},
    render::objects::name,
    watch::{Change, watch},
};
use dvb_proto::devnet::v1::{ListRequest, Transaction};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

pub(in crate::commands) async fn one(ctx: &Context, client: &Client, wanted: &str) -> Result<Transaction, Error> {
    let names = BTreeSet::from([wanted.to_owned()]);
    let found = all(ctx, client, wanted.split('/').next().unwrap_or_default(), names, |_| {}).await?;
    found.into_values().next().ok_or_else(|| Error::not_found(format!("there is no transaction {wanted}")))
}

/// As they ended, by name. `see` gets each as it ends. One that is not kept any more is left out.
pub(in crate::commands) async fn all(
    ctx: &Context,
    client: &Client,
    devnet: &str,
    mut waiting: BTreeSet<String>,
    mut see: impl FnMut(&Transaction),
) -> Result<BTreeMap<String, Transaction>, Error> {
    let total = waiting.len();
    let selector = ListRequest { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned(), ..ListRequest::default() };
    let only = if total == 1 { waiting.first().cloned().unwrap_or_default() } else { String::new() };
    let mut changes = watch::<Transaction>(client, selector, &only);
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let (interrupt, given_up) = (tokio::signal::ctrl_c(), given_up(client, ctx, devnet, "what was submitted"));
    tokio::pin!(interrupt, given_up);
    let (mut ended, mut seen) = (BTreeMap::new(), BTreeSet::new());
    while !waiting.is_empty() {
        let change = tokio::select! {
            change = changes.next() => change.ok_or_else(|| Error::unreachable("devnetd ended the watch"))??,
            error = &mut given_up => return Err(error),
            () = until(deadline) => return Err(in_vain(client, timed_out(devnet, waiting.len(), total)).await),
            _ = &mut interrupt => return Err(Error::interrupted(&format!("dvbctl tx list {devnet}; the transactions go on without dvbctl"))),
        };
        match change {
            Change::Added(tx) | Change::Modified(tx) => {
                let own = name(&tx.metadata).to_owned();
                seen.insert(own.clone());
                if is_final(&tx) && waiting.remove(&own) {
                    see(&tx);
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

fn timed_out(devnet: &str, left: usize, total: usize) -> Error {
    let message = format!("{left} of {total} transactions of {devnet} are neither confirmed nor failed in time");
    Error::new(Exit::TimedOut, "TimedOut", message).about(devnet).with_remedy(format!("dvbctl tx list {devnet}; or wait longer with --timeout"))
}
