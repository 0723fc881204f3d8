//! Waiting until a proposal is decided.

use super::{reference, render};
use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    follow::until,
    watch::{AWAY_LIMIT, LOOK_AGAIN},
};
use dvb_proto::devnet::v1::Proposal;
use tokio::time::{Instant, sleep};

/// The proposal as it was decided. Its status on the way goes to stderr.
pub(super) async fn decided(ctx: &Context, client: &Client, devnet: &str, id: u64) -> Result<Proposal, Error> {
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut told = String::new();
    tokio::select! {
        found = follow(ctx, client, devnet, id, &mut told) => found,
        () = until(deadline) => {
            let message = format!("proposal {id} of {devnet} is not decided in time");
            let error = Error::new(Exit::TimedOut, "TimedOut", message).about(devnet);
            Err(error.with_remedy(format!("dvbctl gov show {devnet} {id} --wait --timeout 10m")))
        }
        _ = &mut interrupt => Err(Error::interrupted(&format!("dvbctl gov show {devnet} {id}; the vote goes on without dvbctl"))),
    }
}

/// A proposal that did not get through, as an error.
pub(super) fn check(devnet: &str, proposal: &Proposal) -> Result<(), Error> {
    if proposal.status == "passed" {
        return Ok(());
    }
    let mut message = format!("proposal {} of {devnet} is {}", proposal.id, proposal.status);
    if !proposal.failed_reason.is_empty() {
        message.push_str(&format!(": {}", proposal.failed_reason));
    }
    let error = Error::failed("ProposalNotPassed", message).about(devnet);
    Err(error.with_remedy(format!("dvbctl gov show {devnet} {}", proposal.id)))
}

async fn follow(ctx: &Context, client: &Client, devnet: &str, id: u64, told: &mut String) -> Result<Proposal, Error> {
    let mut lost: Option<Instant> = None;
    loop {
        let error = match watch(ctx, client, devnet, id, told).await {
            Ok(proposal) => return Ok(proposal),
            Err(error) => error,
        };
        let since = *lost.get_or_insert_with(Instant::now);
        if error.exit != Exit::Unreachable || since.elapsed() > AWAY_LIMIT {
            return Err(error);
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn watch(ctx: &Context, client: &Client, devnet: &str, id: u64, told: &mut String) -> Result<Proposal, Error> {
    let mut proposals = client.gov().watch(reference(ctx, devnet, id)).await?.into_inner();
    let mut last = None;
    while let Some(proposal) = proposals.message().await? {
        if *told != proposal.status {
            told.clone_from(&proposal.status);
            ctx.note(render::progress(&proposal));
        }
        last = Some(proposal);
    }
    last.filter(render::is_decided).ok_or_else(Error::lost)
}
