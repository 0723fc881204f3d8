//! Follows a devnet's logs over restarts: the store's change feed tells of new launches, and of those that are over.
//!
//! ```text
//! per node:   waiting launches ─► current: its file is followed ── feed says it ended, or a newer one is there ─► read to the end ─► next
//! ```

use super::{Entries, entry, failed, missing, plan::Piece};
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
    /// To be sent before anything else.
    told: VecDeque<v1::LogEntry>,
    closing: bool,
    ended: bool,
}

#[derive(Default)]
struct NodeLogs {
    current: Option<(LaunchId, CancellationToken)>,
    waiting: VecDeque<Waiting>,
    /// Where the unfinished line ends that was sent last.
    unfinished: Option<u64>,
}

struct Waiting {
    launch: LaunchId,
    path: PathBuf,
    start: u64,
    phase: LaunchPhase,
    /// Its process runs, and its file is not there: that was told.
    missed: bool,
}

enum Step {
    Item(Result<Item, LogError>),
    /// The file is read to its end.
    Over,
}

impl Follow {
    /// `known`: all launches that there are at `from`, whether they are read or not. A change of one of them makes it no new one.
    pub(super) fn new(
        cx: &Context,
        devnet: &Key,
        from: Revision,
        live: Vec<Piece>,
        known: HashSet<LaunchId>,
        only: Option<BTreeSet<String>>,
        fixed: bool,
    ) -> Self {
        let kinds = vec![Kind::Launch, Kind::Devnet];
        let selector = Selector { kinds, ..Selector::in_devnet(Kind::Launch, &devnet.namespace, &devnet.name) };
        let mut follow = Self {
            feed: cx.store.watch(selector, from),
            only,
            fixed,
            nodes: BTreeMap::new(),
            known,
            live: SelectAll::new(),
            told: VecDeque::new(),
            closing: false,
            ended: false,
        };
        for Piece { node, launch, path, start, end, phase, .. } in live {
            let begins =
                v1::LogEntry { node: node.clone(), launch_id: launch.to_string(), offset: start, next: start, partial: true, ..Default::default() };
            follow.nodes.entry(node.clone()).or_default().waiting.push_back(Waiting { launch, path, start, phase, missed: false });
            follow.advance(&node);
            // So that a reader knows where it stands when the first line comes only after a break of the connection.
            follow.told.extend((start == end).then_some(begins));
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
            if let Some(entry) = self.told.pop_front() {
                return Some(Ok(entry));
            }
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
                    Some((name, launch, Step::Item(Ok(item)))) => {
                        let entry = entry(&name, &launch, item);
                        if entry.note.is_empty() {
                            self.nodes.entry(name).or_default().unfinished = entry.partial.then_some(entry.next);
                        }
                        return Some(Ok(entry));
                    }
                    Some((_, _, Step::Item(Err(error)))) => return Some(Err(failed(&error))),
                    Some((name, launch, Step::Over)) => {
                        let node = self.nodes.entry(name.clone()).or_default();
                        node.current = None;
                        // Its last line has no newline and gets none any more.
                        if let Some(offset) = node.unfinished.take() {
                            let launch_id = launch.to_string();
                            self.told.push_back(v1::LogEntry { node: name.clone(), launch_id, offset, next: offset, ..Default::default() });
                        }
                        self.advance(&name);
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
            node.waiting.push_back(Waiting { launch: id.clone(), path, start: 0, phase: launch.status.phase, missed: false });
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
            let Some(next) = node.waiting.front_mut() else { return };
            let there = next.path.exists();
            if !there && next.phase == LaunchPhase::Running && !std::mem::replace(&mut next.missed, true) {
                self.told.push_back(missing(name, &next.launch));
            }
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
