//! Watch streams that survive a restart of the daemon: they go on from the last version seen.
//!
//! ```text
//! open ──► messages ──lost──► open again, from the last version (every 200 ms, 30 s at most)
//!             └──OUT_OF_RANGE──► Resync, then open with the present state
//! ```

use crate::{client::Client, error::Error};
use dvb_proto::devnet::v1::{
    Devnet, DevnetEvent, Export, ExportEvent, Fault, ListRequest, Node, NodeEvent, Transaction, TransactionEvent, Upgrade, UpgradeEvent, WatchRequest,
};
use futures::{StreamExt, stream, stream::LocalBoxStream};
use prost::Message;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

/// How long a daemon may be away, and how often we look: nothing tells a client that a socket is served again.
pub(crate) const AWAY_LIMIT: Duration = Duration::from_secs(30);
/// The same before anything was seen: then the daemon that took the connection was ending, and nobody may start another.
const NO_WORD_LIMIT: Duration = Duration::from_secs(5);
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    /// All that there is now has been sent.
    Bookmark,
    /// Forget everything: the present state follows anew.
    Resync,
}

/// A kind that the daemon can watch.
pub(crate) trait Watched: Sized + 'static {
    type Event: 'static;
    /// Whether such objects belong to a devnet, so that a devnet's name stands for all of its.
    const IN_DEVNET: bool;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<Self::Event>, Status>;
    /// The event's word, object and version.
    fn split(event: Self::Event) -> (String, Option<Self>, u64);
}

impl Watched for Devnet {
    type Event = DevnetEvent;
    const IN_DEVNET: bool = false;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<DevnetEvent>, Status> {
        Ok(client.devnets().watch(request).await?.into_inner())
    }
    fn split(event: DevnetEvent) -> (String, Option<Self>, u64) {
        (event.r#type, event.object, event.resource_version)
    }
}

impl Watched for Node {
    type Event = NodeEvent;
    const IN_DEVNET: bool = true;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<NodeEvent>, Status> {
        Ok(client.nodes().watch(request).await?.into_inner())
    }
    fn split(event: NodeEvent) -> (String, Option<Self>, u64) {
        (event.r#type, event.object, event.resource_version)
    }
}

impl Watched for Transaction {
    type Event = TransactionEvent;
    const IN_DEVNET: bool = true;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<TransactionEvent>, Status> {
        Ok(client.transactions().watch(request).await?.into_inner())
    }
    fn split(event: TransactionEvent) -> (String, Option<Self>, u64) {
        (event.r#type, event.object, event.resource_version)
    }
}

impl Watched for Upgrade {
    type Event = UpgradeEvent;
    const IN_DEVNET: bool = true;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<UpgradeEvent>, Status> {
        Ok(client.upgrades().watch(request).await?.into_inner())
    }
    fn split(event: UpgradeEvent) -> (String, Option<Self>, u64) {
        (event.r#type, event.object, event.resource_version)
    }
}

impl Watched for Export {
    type Event = ExportEvent;
    const IN_DEVNET: bool = true;
    async fn open(client: &Client, request: WatchRequest) -> Result<Streaming<ExportEvent>, Status> {
        Ok(client.exports().watch(request).await?.into_inner())
    }
    fn split(event: ExportEvent) -> (String, Option<Self>, u64) {
        (event.r#type, event.object, event.resource_version)
    }
}

/// The present state, a bookmark, then every change. An empty `name` takes all of the selector. Ends after its first error.
pub(crate) fn watch<T: Watched>(client: &Client, selector: ListRequest, name: &str) -> LocalBoxStream<'static, Result<Change<T>, Error>> {
    Feed::new(client, selector, name).into_stream()
}

/// What comes to be in one of `phases`, from version `from` on: for who knows what there was. What is told anew after a Resync is in any phase.
/// The daemon has taken the watch when this returns.
pub(crate) async fn watch_phases<T: Watched>(
    client: &Client,
    selector: ListRequest,
    phases: &[&str],
    from: u64,
) -> Result<LocalBoxStream<'static, Result<Change<T>, Error>>, Error> {
    let mut feed = Feed::new(client, selector, "");
    feed.phases = phases.iter().map(|phase| (*phase).to_owned()).collect();
    feed.place = Place { version: Some(from), heard: true, part: false };
    feed.open().await?;
    Ok(feed.into_stream())
}

struct Feed<T: Watched> {
    client: Client,
    selector: ListRequest,
    name: String,
    /// None: all.
    phases: Vec<String>,
    stream: Option<Streaming<T::Event>>,
    place: Place,
    lost: Option<Instant>,
    ended: bool,
}

impl<T: Watched> Feed<T> {
    fn new(client: &Client, selector: ListRequest, name: &str) -> Self {
        let (client, name, phases) = (client.clone(), name.to_owned(), Vec::new());
        Self { client, selector, name, phases, stream: None, place: Place::default(), lost: None, ended: false }
    }

    fn into_stream(self) -> LocalBoxStream<'static, Result<Change<T>, Error>> {
        stream::unfold(self, |mut feed| async move {
            let change = feed.next().await?;
            feed.ended = change.is_err();
            Some((change, feed))
        })
        .boxed_local()
    }

    async fn next(&mut self) -> Option<Result<Change<T>, Error>> {
        while !self.ended {
            let received = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(Some(event)) => {
                    self.lost = None;
                    if let Some(change) = self.take(event) {
                        return Some(Ok(change));
                    }
                }
                Err(status) if status.code() == Code::OutOfRange && self.place.version.is_some() => {
                    self.stream = None;
                    self.place.forget();
                    return Some(Ok(Change::Resync));
                }
                Err(status) if !is_lost(&status) => return Some(Err(status.into())),
                // Ended without an error, or broken: the daemon has gone and may come back.
                lost => {
                    self.stream = None;
                    if self.place.forget_a_part() {
                        sleep(LOOK_AGAIN).await; // a listing that breaks off each time is no reason to spin
                        return Some(Ok(Change::Resync));
                    }
                    let limit = if self.place.heard { AWAY_LIMIT } else { NO_WORD_LIMIT };
                    if self.lost.get_or_insert_with(Instant::now).elapsed() > limit {
                        let status = lost.err().unwrap_or_else(|| Status::unavailable("the watch ended"));
                        return Some(Err(status.into()));
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
        None
    }

    async fn open(&mut self) -> Result<(), Status> {
        // All of the present state is told, so that who waits for one sees that it is gone.
        let phases = if self.place.version.is_some() { self.phases.clone() } else { Vec::new() };
        let selector = ListRequest { phases, ..self.selector.clone() };
        let request = WatchRequest { selector: Some(selector), name: self.name.clone(), resource_version: self.place.version };
        self.stream = Some(T::open(&self.client, request).await?);
        Ok(())
    }

    fn take(&mut self, event: T::Event) -> Option<Change<T>> {
        let (word, object, version) = T::split(event);
        self.place.see(&word, version);
        match (word.as_str(), object) {
            ("BOOKMARK", _) => Some(Change::Bookmark),
            ("ADDED", Some(object)) => Some(Change::Added(object)),
            ("MODIFIED", Some(object)) => Some(Change::Modified(object)),
            ("DELETED", Some(object)) => Some(Change::Deleted(object)),
            _ => None,
        }
    }
}

/// How far a feed has come.
#[derive(Debug, Default, PartialEq)]
struct Place {
    /// Where it goes on: the highest version seen. None before the present state is complete: what is in it comes in no order, so
    /// that its highest version says nothing of the rest.
    version: Option<u64>,
    /// Some of the present state was told, and not all.
    part: bool,
    heard: bool,
}

impl Place {
    fn see(&mut self, word: &str, version: u64) {
        self.heard = true;
        self.part = self.version.is_none() && word != "BOOKMARK";
        if !self.part {
            self.version = self.version.max(Some(version));
        }
    }
    /// The present state is to be told anew.
    fn forget(&mut self) {
        (self.version, self.part) = (None, false);
    }
    /// The stream broke. True when it was in the middle of the present state.
    fn forget_a_part(&mut self) -> bool {
        std::mem::take(&mut self.part)
    }
}

/// Whether the daemon went away under the stream, and may come back.
pub(crate) fn is_lost(status: &Status) -> bool {
    let going = || Fault::decode(status.details()).is_ok_and(|fault| fault.code == "ShuttingDown");
    // A connection that breaks in the middle of a stream shows as Unknown or Cancelled, without details.
    matches!(status.code(), Code::Unavailable) || (matches!(status.code(), Code::Unknown | Code::Cancelled) && status.details().is_empty()) || going()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_breaks_in_the_middle_of_the_present_state_is_told_all_of_it_anew() {
        let mut place = Place::default();
        // By name, not by version: what is missing has lower versions than what was seen.
        place.see("ADDED", 70);
        place.see("ADDED", 50);
        assert!(place.forget_a_part());
        assert_eq!((place.version, place.heard), (None, true));
        assert!(!place.forget_a_part(), "once");
        for version in [70, 50, 60] {
            place.see("ADDED", version);
        }
        place.see("BOOKMARK", 75);
        assert!(!place.forget_a_part());
        assert_eq!(place.version, Some(75));
        place.see("MODIFIED", 80);
        place.see("MODIFIED", 50); // an observation of an object that did not change
        assert!(!place.forget_a_part());
        assert_eq!(place.version, Some(80));
        place.forget();
        assert_eq!(place, Place { heard: true, ..Place::default() });
    }
}
