//! Waiting until an export has ended, with each of its steps told as it comes.

use super::{has_ended, phase, succeeded, tell};
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::{given_up, in_vain, until},
    render,
    watch::{Change, watch},
};
use dvb_proto::devnet::v1::{Export, ListRequest};
use futures::StreamExt;
use tokio::time::Instant;

pub(in crate::commands) async fn ended(ctx: &Context, client: &Client, wanted: &str) -> Result<Export, Error> {
    let (devnet, what) = (wanted.split('/').next().unwrap_or_default(), format!("export {wanted}"));
    let mut written = 0;
    let is_over = |change: Change<Export>, said: &mut String| match change {
        Change::Added(export) | Change::Modified(export) => {
            let line = told(&export);
            let bytes = export.status.as_ref().map_or(0, |status| status.bytes);
            // Large files are told of at each doubling: a line for each piece would bury the rest.
            if line != *said || (phase(&export) == "Exporting" && bytes > 0 && bytes >= written * 2) {
                written = bytes;
                ctx.note(if phase(&export) == "Exporting" && bytes > 0 {
                    format!("{line}, {} so far", render::time::bytes(bytes))
                } else {
                    line.clone()
                });
                *said = line;
            }
            has_ended(&export).then_some(Ok(export))
        }
        Change::Deleted(_) => Some(Err(Error::failed("Gone", format!("{wanted} was deleted")))),
        Change::Bookmark | Change::Resync => None,
    };
    tokio::select! {
        ended = wait(ctx, client, wanted, is_over) => ended?,
        error = given_up(client, ctx, devnet, &what) => Err(error),
    }
}

/// Until there is no such export.
pub(in crate::commands) async fn gone(ctx: &Context, client: &Client, wanted: &str) -> Result<(), Error> {
    let mut is_there = false;
    let is_gone = |change: Change<Export>, _: &mut String| match change {
        Change::Added(_) | Change::Modified(_) => {
            is_there = true;
            None
        }
        Change::Deleted(_) => Some(()),
        Change::Bookmark => (!is_there).then_some(()),
        Change::Resync => {
            is_there = false;
            None
        }
    };
    wait(ctx, client, wanted, is_gone).await
}

/// How it ended; the exit code says so too.
pub(super) fn report(ctx: &Context, export: &Export) -> Result<(), Error> {
    let status = export.status.clone().unwrap_or_default();
    let word = match (phase(export), &status.path, &status.sha256) {
        ("Completed", Some(path), Some(sha256)) => {
            format!("Completed: the state at height {} is in {path}, sha256 {sha256}", status.height.unwrap_or_default())
        }
        (phase, ..) => phase.to_owned(),
    };
    tell(ctx, export, &word)?;
    succeeded(export)
}

async fn wait<T>(ctx: &Context, client: &Client, wanted: &str, mut look: impl FnMut(Change<Export>, &mut String) -> Option<T>) -> Result<T, Error> {
    let devnet = wanted.split('/').next().unwrap_or_default().to_owned();
    let selector = ListRequest { namespace: ctx.settings.namespace.clone(), devnet, ..ListRequest::default() };
    let mut changes = watch::<Export>(client, selector, wanted);
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut said = String::new();
    loop {
        let change = tokio::select! {
            change = changes.next() => change.ok_or_else(|| Error::unreachable("devnetd ended the watch"))??,
            () = until(deadline) => return Err(in_vain(client, timed_out(wanted, &said)).await),
            _ = &mut interrupt => return Err(Error::interrupted(&format!("dvbctl export status {wanted}; the export goes on without dvbctl"))),
        };
        if let Some(found) = look(change, &mut said) {
            return Ok(found);
        }
    }
}

fn told(export: &Export) -> String {
    match export.status.as_ref().and_then(|status| status.message.as_deref()) {
        Some(message) if !message.is_empty() => format!("{}: {message}", phase(export)),
        _ => phase(export).to_owned(),
    }
}

fn timed_out(wanted: &str, said: &str) -> Error {
    let message = format!("export {wanted} has not ended in time; {said}");
    Error::new(Exit::TimedOut, "TimedOut", message).about(wanted).with_remedy(format!("dvbctl export status {wanted}; or wait longer with --timeout"))
}
