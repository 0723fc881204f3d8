//! Follows a devnet's logs over restarts: the store's change feed tells of new launches, and of those that are over.
//!
//! ```text
//! per node:   waiting launches ─► current: its file is followed ── feed says it ended, or a newer one is there ─► read to the end ─► next
//! ```

use super::{Entries, entry, failed, plan::Piece};
use crate::{
    api::{Context, status},
    logs::{Item, LogError},
    model::{Key, Kind, Launch, LaunchId, LaunchPhase, Object, Revision},
    store::{Change, Selector, StoreError},
};
use dvb_proto::devnet::v1;
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    path::PathBuf,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(super) struct Follow {
    feed: BoxStream<'static, Result<Change, StoreError>>,
    /// Full names; None: every node, those that come later too.
    only: Option<BTreeSet<String>>,
    /// No further launches: the stream ends with those that it began with.
    fixed: bool,
    nodes: BTreeMap<String, NodeLogs>,
    known: HashSet<LaunchId>,
    live: SelectAll<BoxStream<'static, (String, LaunchId, Step)>>,
    closing: bool,
    ended: bool,
}

#[derive(Default)]
struct NodeLogs {
    current: Option<(LaunchId, CancellationToken)>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    launch: LaunchId,
    path: PathBuf,
    start: u64,
    phase: LaunchPhase,
}

enum Step {
    Item(Result<Item, LogError>),
    /// The file is read to its end.
    Over,
}

impl Follow {
    pub(super) fn new(cx: &Context, devnet: &Key, from: Revision, live: Vec<Piece>, only: Option<BTreeSet<String>>, fixed: bool) -> Self {
        let kinds = vec![Kind::Launch, Kind::Devnet];
        let selector = Selector { kinds, ..Selector::in_devnet(Kind::Launch, &devnet.namespace, &devnet.name) };
        let mut follow = Self {
            feed: cx.store.watch(selector, from),
            only,
            fixed,
            nodes: BTreeMap::new(),
            known: live.iter().map(|piece| piece.launch.clone()).collect(),
            live: SelectAll::new(),
            closing: false,
            ended: false,
        };
        for Piece { node, launch, path, start, phase, .. } in live {
            follow.nodes.entry(node.clone()).or_default().waiting.push_back(Waiting { launch, path, start, phase });
            follow.advance(&node);
        }
        follow
    }

    pub(super) fn into_stream(self) -> Entries {
        stream::unfold(self, |mut follow| async move {
            let next = follow.next().await?;
            follow.ended |= next.is_err();
            Some((next, follow))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<v1::LogEntry, Status>> {
        while !self.ended {
            let idle = self.live.is_empty();
            if idle && (self.closing || self.fixed && self.nodes.values().all(|node| node.waiting.is_empty())) {
                return None;
            }
            tokio::select! {
                // The feed first: a client that reads slowly must still hear that a launch is over.
                biased;
                change = self.feed.next(), if !self.closing => match change {
                    Some(Ok(change)) => self.hear(change),
                    Some(Err(error)) => return Some(Err(status::status(&error.fault()))),
                    None => return None,
                },
                step = self.live.next(), if !idle => match step {
                    None => {}
                    Some((node, launch, Step::Item(Ok(item)))) => {
                        if let Some(entry) = entry(&node, &launch, item) {
                            return Some(Ok(entry));
                        }
                    }
                    Some((_, _, Step::Item(Err(error)))) => return Some(Err(failed(&error))),
                    Some((node, _, Step::Over)) => {
                        self.nodes.entry(node.clone()).or_default().current = None;
                        self.advance(&node);
                    }
                },
            }
        }
        None
    }

    fn hear(&mut self, change: Change) {
        match change.object {
            Object::Devnet(_) if change.deleted => self.close(),
            Object::Launch(launch) => self.hear_launch(&launch, change.deleted),
            _ => {}
        }
    }

    /// The devnet is gone: what is open is read to its end, and that is all.
    fn close(&mut self) {
        self.closing = true;
        for node in self.nodes.values_mut() {
            node.waiting.clear();
            if let Some((_, ended)) = &node.current {
                ended.cancel();
            }
        }
    }

    fn hear_launch(&mut self, launch: &Launch, deleted: bool) {
        let (name, id) = (&launch.spec.node_ref, &launch.spec.launch_id);
        if self.only.as_ref().is_some_and(|only| !only.contains(name)) {
            return;
        }
        let over = deleted || launch.status.phase == LaunchPhase::Ended;
        let fresh = !self.fixed && !deleted && self.known.insert(id.clone());
        let node = self.nodes.entry(name.clone()).or_default();
        if fresh {
            let path = PathBuf::from(&launch.spec.log_path);
            node.waiting.push_back(Waiting { launch: id.clone(), path, start: 0, phase: launch.status.phase });
        }
        node.waiting.iter_mut().filter(|waiting| waiting.launch == *id).for_each(|waiting| {
            waiting.phase = if deleted { LaunchPhase::Ended } else { launch.status.phase };
        });
        if let Some((current, ended)) = &node.current
            && (fresh || over && current == id)
        {
            ended.cancel();
        }
        self.advance(&name.clone());
    }

    /// Opens the next waiting launch of a node when none is open. One that is only intended has no file yet; its next change comes.
    fn advance(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        while node.current.is_none() {
            let Some(next) = node.waiting.front() else { return };
            let there = next.path.exists();
            if !there && next.phase != LaunchPhase::Ended {
                return;
            }
            let Some(next) = node.waiting.pop_front() else { return };
            if !there {
                continue;
            }
            let ended = CancellationToken::new();
            if next.phase == LaunchPhase::Ended || !node.waiting.is_empty() {
                ended.cancel();
            }
            let (name, launch) = (name.to_owned(), next.launch.clone());
            let steps = crate::logs::follow(next.path, next.start, ended.clone()).map(Step::Item).chain(stream::iter([Step::Over]));
            let tagged = steps.map(move |step| (name.clone(), launch.clone(), step));
            self.live.push(tagged.boxed());
            node.current = Some((next.launch, ended));
        }
    }
}
