//! Waiting until an upgrade has ended, with each of its phases told as it comes.

use super::phase;
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{in_vain, until},
    watch::{Change, watch},
};
use dvb_proto::devnet::v1::{ListRequest, Upgrade};
use futures::StreamExt;
use tokio::time::Instant;

pub(in crate::commands) async fn ended(ctx: &Context, client: &Client, wanted: &str) -> Result<Upgrade, Error> {
    let devnet = wanted.split('/').next().unwrap_or_default().to_owned();
    let selector = ListRequest { namespace: ctx.settings.namespace.clone(), devnet, ..ListRequest::default() };
    let mut changes = watch::<Upgrade>(client, selector, wanted);
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut said = String::new();
    loop {
        let change = tokio::select! {
            change = changes.next() => change.ok_or_else(|| Error::unreachable("devnetd ended the watch"))??,
            () = until(deadline) => return Err(in_vain(client, timed_out(wanted, &said)).await),
            _ = &mut interrupt => return Err(Error::interrupted(&format!("dvbctl upgrade status {wanted}; the upgrade goes on without dvbctl"))),
        };
        match change {
            Change::Added(upgrade) | Change::Modified(upgrade) => {
                let line = told(&upgrade);
                if line != said {
                    ctx.note(&line);
                    said = line;
                }
                if has_ended(&upgrade) {
                    return Ok(upgrade);
                }
            }
            Change::Deleted(_) => return Err(Error::failed("Gone", format!("{wanted} was deleted"))),
            Change::Bookmark | Change::Resync => {}
        }
    }
}

fn told(upgrade: &Upgrade) -> String {
    let message = upgrade.status.as_ref().map_or("", |status| status.message.as_str());
    if message.is_empty() { phase(upgrade).to_owned() } else { format!("{}: {message}", phase(upgrade)) }
}

/// A request to try again counts only when it was taken up.
fn has_ended(upgrade: &Upgrade) -> bool {
    let asked = upgrade.spec.as_ref().map_or(0, |spec| spec.retry);
    let taken_up = upgrade.status.as_ref().map_or(0, |status| status.attempt);
    matches!(phase(upgrade), "Completed" | "RolledBack" | "Failed") && taken_up >= asked
}

fn timed_out(wanted: &str, said: &str) -> Error {
    let message = format!("upgrade {wanted} has not ended in time; {said}");
    Error::new(Exit::TimedOut, "TimedOut", message)
        .about(wanted)
        .with_remedy(format!("dvbctl upgrade status {wanted}; or wait longer with --timeout"))
}
