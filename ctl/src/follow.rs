//! Waiting for a goal: the watches of one devnet and its nodes, the clock, and Ctrl-C.

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit},
    goal::{Goal, Verdict, View, has_ended},
    render::{
        objects::{name, refusal},
        progress::WORD_EVERY,
    },
    watch::{Change, watch},
};
use dvb_proto::devnet::v1::{Devnet, Empty, ListRequest, LogRequest, Node};
use futures::{
    StreamExt,
    stream::{self, LocalBoxStream},
};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Lines of a failing node's log below an error.
const LOG_LINES: u32 = 10;
/// For what is told besides; the verdict itself must not hang on it.
const COURTESY_LIMIT: Duration = Duration::from_secs(3);

/// A devnet, and the node of it that is meant, if one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) devnet: String,
    /// Full name: `mynet/validator-0`.
    pub(crate) node: Option<String>,
}

impl Target {
    /// `a` is a devnet, `a/b` a node of it.
    pub(crate) fn parse(namespace: &str, name: &str) -> Self {
        let (devnet, node) = match name.split_once('/') {
            Some((devnet, _)) => (devnet, Some(name.to_owned())),
            None => (name, None),
        };
        Self { namespace: namespace.to_owned(), devnet: devnet.to_owned(), node }
    }

    pub(crate) fn name(&self) -> &str {
        self.node.as_deref().unwrap_or(&self.devnet)
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.node.is_some() { "node" } else { "devnet" }
    }
}

/// Waits until `goal` holds. `see` gets every new view with what is missing, and the old one when it stays for long; `way_on` is what to do after Ctrl-C.
pub(crate) async fn follow(
    ctx: &Context,
    client: &Client,
    target: &Target,
    goal: &Goal,
    way_on: &str,
    mut see: impl FnMut(&View, Option<&str>),
) -> Result<View, Error> {
    let mut feed = Feed::open(client, target);
    let deadline = ctx.settings.wait_limit().map(|limit| Instant::now() + limit);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let verdict = feed.judge(goal).await;
        see(&feed.view, if let Verdict::Waiting(missing) = &verdict { Some(missing) } else { None });
        let missing = match verdict {
            Verdict::Done => return Ok(feed.view),
            Verdict::Waiting(missing) => missing,
            Verdict::Failed { message, remedy } => return Err(failed(client, target, &feed.view, message, remedy).await),
            Verdict::NotFound => return Err(Error::not_found(format!("there is no {} {}", target.kind(), target.name()))),
        };
        tokio::select! {
            taken = feed.next() => taken?,
            () = sleep(WORD_EVERY) => {}
            () = until(deadline) => return Err(in_vain(client, timed_out(ctx, target, &missing)).await),
            _ = &mut interrupt => return Err(Error::interrupted(way_on).about(target.name())),
        }
    }
}

/// What the watches of a devnet and its nodes tell.
struct Feed {
    client: Client,
    of_devnet: ListRequest,
    told: LocalBoxStream<'static, Result<Told, Error>>,
    view: View,
}

enum Told {
    Devnet(Box<Change<Devnet>>),
    Node(Box<Change<Node>>),
}

impl Feed {
    fn open(client: &Client, target: &Target) -> Self {
        let selector = ListRequest { namespace: target.namespace.clone(), ..ListRequest::default() };
        let of_devnet = ListRequest { devnet: target.devnet.clone(), ..selector.clone() };
        let devnets = watch::<Devnet>(client, selector, &target.devnet).map(|change| Ok(Told::Devnet(Box::new(change?))));
        let nodes = watch::<Node>(client, of_devnet.clone(), "").map(|change| Ok(Told::Node(Box::new(change?))));
        Self { client: client.clone(), of_devnet, told: stream::select(devnets, nodes).boxed_local(), view: View::default() }
    }

    /// Takes the next change into the view.
    async fn next(&mut self) -> Result<(), Error> {
        match self.told.next().await.ok_or_else(|| Error::unreachable("devnetd ended the watch"))?? {
            Told::Devnet(change) => take_devnet(&mut self.view, *change),
            Told::Node(change) => take_node(&mut self.view, *change),
        }
        Ok(())
    }

    /// Two watches come in no common order: a devnet may be told to run before the last of its nodes is, and a node's failure after what
    /// was done about it. So what ends the wait is judged once more, with nodes and upgrades as they are.
    async fn judge(&mut self, goal: &Goal) -> Verdict {
        self.view.upgrades.clear();
        match goal.judge(&self.view) {
            Verdict::Done => {
                self.catch_up().await;
                Verdict::Done
            }
            Verdict::Failed { .. } => {
                self.catch_up().await;
                goal.judge(&self.view)
            }
            verdict => verdict,
        }
    }

    /// A courtesy: without an answer the verdict still stands.
    async fn catch_up(&mut self) {
        if let Ok(Ok(answer)) = timeout(COURTESY_LIMIT, self.client.nodes().list(self.of_devnet.clone())).await {
            self.view.nodes = answer.into_inner().items.into_iter().map(|node| (name(&node.metadata).to_owned(), node)).collect();
        }
        if let Ok(Ok(answer)) = timeout(COURTESY_LIMIT, self.client.upgrades().list(self.of_devnet.clone())).await {
            self.view.upgrades = answer.into_inner().items.into_iter().filter(|upgrade| !has_ended(upgrade)).collect();
        }
    }
}

fn take_devnet(view: &mut View, change: Change<Devnet>) {
    match change {
        Change::Added(devnet) | Change::Modified(devnet) => (view.devnet, view.gone) = (Some(devnet), false),
        Change::Deleted(_) => (view.devnet, view.gone) = (None, true),
        Change::Bookmark => view.devnet_told = true,
        Change::Resync => (view.devnet, view.devnet_told) = (None, false),
    }
}

fn take_node(view: &mut View, change: Change<Node>) {
    match change {
        Change::Added(node) | Change::Modified(node) => {
            view.nodes.insert(name(&node.metadata).to_owned(), node);
        }
        Change::Deleted(node) => {
            view.nodes.remove(name(&node.metadata));
        }
        Change::Bookmark => view.nodes_told = true,
        Change::Resync => {
            view.nodes.clear();
            view.nodes_told = false;
        }
    }
}

/// What is waited for mostly comes with the next block: only beyond that its devnet is watched, too.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// Resolves when the devnet's chain does not go on by itself any more, and `what` needs it. Never before.
pub(crate) async fn given_up(client: &Client, ctx: &Context, devnet: &str, what: &str) -> Error {
    sleep(GIVE_UP_AFTER).await;
    let mut feed = Feed::open(client, &Target { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned(), node: None });
    loop {
        if let Verdict::Failed { message, remedy } = feed.judge(&Goal::WithoutChain).await {
            let phase = feed.view.devnet.as_ref().and_then(|devnet| devnet.status.as_ref()).map_or("Failed", |status| status.phase.as_str());
            let error = Error::failed("Failed", format!("{what} waits, and its devnet {devnet} is {phase}: {message}")).about(devnet);
            return error.with_remedy(remedy.unwrap_or_else(|| format!("dvbctl why {devnet}")));
        }
        tokio::select! {
            taken = feed.next() => if taken.is_err() { return std::future::pending().await }, // its own watch tells
            () = sleep(WORD_EVERY) => {}
        }
    }
}

/// Never without a deadline.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The end of a wait whose time is over. A devnetd that does not answer any more is the cause of it, whatever was missing last.
pub(crate) async fn in_vain(client: &Client, late: Error) -> Error {
    match timeout(COURTESY_LIMIT, client.daemon().status(Empty {})).await {
        Ok(Ok(_)) => late,
        _ => Error::unreachable("devnetd does not answer any more").with_note(late.fault.message.clone()).with_remedy("dvbctl daemon start"),
    }
}

fn timed_out(ctx: &Context, target: &Target, missing: &str) -> Error {
    let limit = crate::render::time::short(ctx.settings.wait_limit().unwrap_or_default());
    Error::new(Exit::TimedOut, "TimedOut", format!("{} {}: not done within {limit}: {missing}", target.kind(), target.name()))
        .about(target.name())
        .with_remedy(format!("dvbctl why {}; or wait longer with --timeout", target.name()))
}

/// The failure, the nodes to blame, and what they said last.
async fn failed(client: &Client, target: &Target, view: &View, message: String, remedy: Option<String>) -> Error {
    let remedy = remedy.unwrap_or_else(|| format!("dvbctl why {}", target.name()));
    let mut error = Error::failed("Failed", format!("{} {}{}: {message}", target.kind(), target.name(), state(target, view)))
        .about(target.name())
        .with_remedy(remedy);
    let sick = |node: &&Node| node.status.as_ref().is_some_and(|status| matches!(status.phase.as_str(), "Failed" | "Crashed" | "Backoff"));
    let meant = |node: &&Node| target.node.as_deref().is_none_or(|meant| name(&node.metadata) == meant);
    for node in view.nodes.values().filter(sick).filter(meant).take(3) {
        let lines = last_lines(client, target, node).await;
        if !lines.is_empty() {
            error = error.with_note(format!("last lines of {}:", name(&node.metadata)));
            error = lines.iter().fold(error, |error, line| error.with_note(format!("  | {line}")));
        }
    }
    error
}

/// ` is Failed`; a devnet whose new spec was refused may well run as before.
fn state(target: &Target, view: &View) -> String {
    let node = target.node.as_deref().and_then(|node| view.nodes.get(node)).and_then(|node| node.status.as_ref());
    let devnet = view.devnet.as_ref().filter(|_| target.node.is_none());
    let leaves = devnet.and_then(|devnet| devnet.metadata.as_ref()).is_some_and(|metadata| metadata.deleted_at.is_some());
    match (node, devnet.and_then(|devnet| devnet.status.as_ref())) {
        (Some(node), _) => format!(" is {}", node.phase),
        (None, Some(status)) if status.phase != "Failed" && !leaves && refusal(&status.conditions).is_some() => ": its new spec was refused".into(),
        (None, Some(status)) => format!(" is {}", status.phase),
        (None, None) => String::new(),
    }
}

/// The death certificate's lines, else the end of the present log.
async fn last_lines(client: &Client, target: &Target, node: &Node) -> Vec<String> {
    let kept = node.status.as_ref().and_then(|status| status.last_exit.as_ref()).map(|exit| exit.log_tail.clone()).unwrap_or_default();
    if !kept.is_empty() {
        let skip = kept.len().saturating_sub(LOG_LINES as usize);
        return kept.into_iter().skip(skip).map(|line| printable(&line)).collect();
    }
    let short = name(&node.metadata).split_once('/').map_or("", |(_, short)| short).to_owned();
    let request = LogRequest {
        namespace: target.namespace.clone(),
        devnet: target.devnet.clone(),
        nodes: vec![short],
        tail: Some(LOG_LINES),
        ..LogRequest::default()
    };
    let read = async {
        let mut lines = Vec::new();
        let mut stream = client.devnets().stream_logs(request).await?.into_inner();
        while let Some(entry) = stream.message().await? {
            if entry.lost > 0 || !entry.note.is_empty() {
                continue;
            }
            lines.push(printable(&String::from_utf8_lossy(&entry.line)));
        }
        Ok::<_, tonic::Status>(lines)
    };
    // The lines are a courtesy: without them the error still stands.
    timeout(COURTESY_LIMIT, read).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn printable(line: &str) -> String {
    line.replace(|c: char| c.is_control() && c != '\t', "")
}
