//! The log entries of one request; one that follows goes on where it stands when the daemon comes back.
//!
//! ```text
//! open ──► entries ──lost──► open again, each node from its last entry on (every 200 ms, 30 s at most)
//!             └──OUT_OF_RANGE──► the same at once: we read too slowly for the daemon's change feed
//! ```

use crate::{
    client::Client,
    error::Error,
    watch::{AWAY_LIMIT, LOOK_AGAIN, is_lost},
};
use dvb_proto::devnet::v1::{LogCursor, LogEntry, LogRequest};
use futures::{StreamExt, stream, stream::LocalBoxStream};
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

pub(crate) enum Told {
    Entry(LogEntry),
    /// The daemon has gone; what comes next comes of the one that is started meanwhile.
    Away,
}

/// Opens the stream, so that what is refused is refused at once. Ends after its first error.
pub(crate) async fn log_feed(client: &Client, request: LogRequest) -> Result<LocalBoxStream<'static, Result<Told, Error>>, Error> {
    let mut feed = Feed { client: client.clone(), request, stream: None, seen: BTreeMap::new(), lost: None, ended: false };
    feed.open().await?;
    let told = stream::unfold(feed, |mut feed| async move {
        let told = feed.next().await?;
        feed.ended = told.is_err();
        Some((told, feed))
    });
    Ok(told.boxed_local())
}

struct Feed {
    client: Client,
    request: LogRequest,
    stream: Option<Streaming<LogEntry>>,
    /// By node: the launch and the offset to read on from.
    seen: BTreeMap<String, (String, u64)>,
    lost: Option<Instant>,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<Told, Error>> {
        while !self.ended {
            let received = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(None) => return None,
                Ok(Some(entry)) => {
                    self.lost = None;
                    if entry.note.is_empty() {
                        self.seen.insert(entry.node.clone(), (entry.launch_id.clone(), entry.next));
                    }
                    return Some(Ok(Told::Entry(entry)));
                }
                Err(status) if self.request.follow && (is_lost(&status) || is_behind(&status)) => {
                    self.stream = None;
                    let first = self.lost.is_none();
                    if self.lost.get_or_insert_with(Instant::now).elapsed() > AWAY_LIMIT {
                        return Some(Err(status.into()));
                    }
                    if first && is_behind(&status) {
                        continue;
                    }
                    if first {
                        return Some(Ok(Told::Away));
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Err(status) => return Some(Err(status.into())),
            }
        }
        None
    }

    async fn open(&mut self) -> Result<(), Status> {
        let request = resumed(&self.request, &self.seen);
        self.stream = Some(self.client.devnets().stream_logs(request).await?.into_inner());
        Ok(())
    }
}

/// The request that goes on behind what was seen. Of a node of which nothing came, not even that its log is empty, it takes what it took.
fn resumed(request: &LogRequest, seen: &BTreeMap<String, (String, u64)>) -> LogRequest {
    let cursor = |(node, (launch, offset)): (&String, &(String, u64))| LogCursor { node: node.clone(), launch_id: launch.clone(), offset: *offset };
    LogRequest { after: seen.iter().map(cursor).collect(), ..request.clone() }
}

/// Whether launches changed more often than we read.
fn is_behind(status: &Status) -> bool {
    status.code() == Code::OutOfRange
}
