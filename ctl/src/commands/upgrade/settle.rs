//! Waiting until an upgrade has ended, with each of its phases told as it comes.

use super::phase;
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{given_up, in_vain, until},
    goal::has_ended,
    watch::{Change, watch},
};
use dvb_proto::devnet::v1::{ListRequest, Upgrade};
use futures::StreamExt;
use tokio::time::Instant;

pub(in crate::commands) async fn ended(ctx: &Context, client: &Client, wanted: &str) -> Result<Upgrade, Error> {
    let devnet = wanted.split('/').next().unwrap_or_default().to_owned();
    let selector = ListRequest { namespace: ctx.settings.namespace.clone(), devnet: devnet.clone(), ..ListRequest::default() };
    let mut changes = watch::<Upgrade>(client, selector, wanted);
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let what = format!("upgrade {wanted}");
    let (interrupt, given_up) = (tokio::signal::ctrl_c(), given_up(client, ctx, &devnet, &what));
    tokio::pin!(interrupt, given_up);
    let mut said = String::new();
    loop {
        let change = tokio::select! {
            change = changes.next() => change.ok_or_else(|| Error::unreachable("devnetd ended the watch"))??,
            error = &mut given_up => return Err(error),
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

fn timed_out(wanted: &str, said: &str) -> Error {
    let message = format!("upgrade {wanted} has not ended in time; {said}");
    Error::new(Exit::TimedOut, "TimedOut", message)
        .about(wanted)
        .with_remedy(format!("dvbctl upgrade status {wanted}; or wait longer with --timeout"))
}
