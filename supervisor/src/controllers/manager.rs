//! The manager: hears the store's change feed, keeps the queue, and runs reconcilers.
//!
//! ```text
//!  change feed ──┐
//!  wake-ups ─────┼──► one task: queue ──► up to MAX_RUNNING reconciles at once ──┐
//!  outcomes ◄────┘                                                               │
//!      ▲─────────────────────────────────────────────────────────────────────────┘
//! ```
//! One task owns the queue. A change that arrives while its key is being reconciled runs it again afterwards.

use super::{Action, Context, ReconcileError, Reconciler};
use crate::{
    model::{Key, Kind, NodeName, Object, Revision},
    queue::{Outcome, Queue, QueueConfig, QueueKey},
    store::{Change, Selector, StoreError},
};
use futures::{FutureExt, StreamExt};
use std::{
    collections::{BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Long steps (building a binary) hold a place, so there are many.
const MAX_RUNNING: usize = 64;
const CAPACITY: usize = 16_384;
/// A start of many nodes, or a death with its restart, changes a devnet's nodes several times: it is summed up once for all of them.
const GATHER: Duration = Duration::from_millis(5);
/// Kinds whose changes wake controllers.
const ROUTED: [Kind; 3] = [Kind::Devnet, Kind::Node, Kind::Export];

/// Which controller, for which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub controller: ControllerKind,
    pub key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControllerKind {
    Devnet,
    Node,
    Health,
    Transaction,
    Upgrade,
    Export,
}

impl QueueKey for Task {
    fn kind(&self) -> usize {
        self.controller as usize
    }
}

/// Puts a key on the queue from outside the change feed: a process ended, a probe found something.
#[derive(Clone, Debug)]
pub struct Wake(mpsc::UnboundedSender<Task>);

impl Wake {
    pub fn node(&self, key: &Key) {
        self.send(ControllerKind::Node, key);
    }
    pub fn health(&self, key: &Key) {
        self.send(ControllerKind::Health, key);
    }
    fn send(&self, controller: ControllerKind, key: &Key) {
        let _ = self.0.send(Task { controller, key: key.clone() }); // no manager: the daemon is going down
    }
}

/// The reconcilers and the queue before they run.
pub struct Manager {
    wakes: mpsc::UnboundedReceiver<Task>,
    reconcilers: HashMap<ControllerKind, Arc<dyn Reconciler>>,
}

impl Manager {
    /// The wake handle goes into the context that reconcilers get. Wake-ups are unbounded in number of messages, but there is at
    /// most one a process death or a changed condition, and the queue behind them dedupes.
    pub fn new() -> (Self, Wake) {
        let (sender, wakes) = mpsc::unbounded_channel();
        (Self { wakes, reconcilers: HashMap::new() }, Wake(sender))
    }

    pub fn register(&mut self, controller: ControllerKind, reconciler: Arc<dyn Reconciler>) {
        self.reconcilers.insert(controller, reconciler);
    }

    /// Runs until `shutdown`; then waits for the reconciles under way.
    pub async fn run(mut self, cx: Context, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut loop_ = Loop::new(cx, std::mem::take(&mut self.reconcilers));
        let from = loop_.relist().await?;
        let mut feed = loop_.feed(from);
        loop {
            loop_.dispatch();
            let deadline = loop_.queue.next_deadline();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(task) = self.wakes.recv() => loop_.add(task),
                Some(done) = loop_.finished.recv() => loop_.finish(done),
                change = feed.next() => match change {
                    Some(Ok(change)) => loop_.hear(&change),
                    Some(Err(StoreError::Compacted { .. })) | None => feed = { let from = loop_.relist().await?; loop_.feed(from) },
                    Some(Err(error)) => return Err(error),
                },
                () = sleep_until(deadline), if loop_.running < MAX_RUNNING => {}
            }
            if loop_.overflowed && loop_.queue.is_empty() {
                loop_.relist().await?;
            }
        }
        while loop_.running > 0
            && let Some(done) = loop_.finished.recv().await
        {
            loop_.finish(done);
        }
        Ok(())
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

type Done = (Task, Result<Action, ReconcileError>);

/// What the manager's task owns.
struct Loop {
    cx: Context,
    reconcilers: HashMap<ControllerKind, Arc<dyn Reconciler>>,
    queue: Queue<Task>,
    running: usize,
    finished: mpsc::Receiver<Done>,
    finish: mpsc::Sender<Done>,
    /// Node to the nodes that wait for it to be ready.
    dependents: HashMap<Key, BTreeSet<Key>>,
    /// The queue refused something: list everything again when it has drained.
    overflowed: bool,
}

impl Loop {
    fn new(cx: Context, reconcilers: HashMap<ControllerKind, Arc<dyn Reconciler>>) -> Self {
        let (finish, finished) = mpsc::channel(MAX_RUNNING);
        let queue = Queue::new(QueueConfig { capacity: CAPACITY, ..QueueConfig::default() });
        Self { cx, reconcilers, queue, running: 0, finished, finish, dependents: HashMap::new(), overflowed: false }
    }

    /// Queues everything there is.
    async fn relist(&mut self) -> Result<Revision, StoreError> {
        let (objects, revision) = self.cx.store.list(&Selector { kinds: ROUTED.to_vec(), ..Selector::default() }).await?;
        self.overflowed = false;
        for object in &objects {
            self.route(object);
        }
        Ok(revision)
    }

    fn feed(&self, from: Revision) -> futures::stream::BoxStream<'static, Result<Change, StoreError>> {
        self.cx.store.watch(Selector { kinds: ROUTED.to_vec(), ..Selector::default() }, from)
    }

    fn hear(&mut self, change: &Change) {
        self.route(&change.object);
        if change.deleted {
            self.dependents.remove(&change.key);
        }
    }

    /// Which tasks an object's change concerns.
    fn route(&mut self, object: &Object) {
        match object {
            Object::Devnet(devnet) => {
                let key = Key::devnet(&devnet.metadata.namespace, &devnet.metadata.name);
                self.add(Task { controller: ControllerKind::Transaction, key: key.clone() });
                self.add(Task { controller: ControllerKind::Upgrade, key: key.clone() });
                self.add(Task { controller: ControllerKind::Devnet, key });
            }
            Object::Node(node) => {
                let key = object.key();
                for short in &node.spec.after {
                    let on = Key::node(&key.namespace, &NodeName::new(&node.spec.devnet_ref, short).to_string());
                    self.dependents.entry(on).or_default().insert(key.clone());
                }
                let waiting: Vec<Key> = self.dependents.get(&key).into_iter().flatten().cloned().collect();
                for dependent in waiting {
                    self.add(Task { controller: ControllerKind::Node, key: dependent });
                }
                self.add_in(Task { controller: ControllerKind::Devnet, key: Key::devnet(&key.namespace, &node.spec.devnet_ref) }, GATHER);
                self.add(Task { controller: ControllerKind::Health, key: key.clone() });
                self.add(Task { controller: ControllerKind::Node, key });
            }
            Object::Export(_) => self.add(Task { controller: ControllerKind::Export, key: object.key() }),
            Object::Launch(_) | Object::Lease(_) | Object::Plan(_) | Object::Transaction(_) | Object::Upgrade(_) => {}
        }
    }

    fn add(&mut self, task: Task) {
        self.add_in(task, Duration::ZERO);
    }

    fn add_in(&mut self, task: Task, delay: Duration) {
        if self.queue.add_at(task, Instant::now() + delay).is_err() {
            self.overflowed = true;
        }
    }

    /// Starts what is due, as far as there is room.
    fn dispatch(&mut self) {
        while self.running < MAX_RUNNING {
            let Some(task) = self.queue.pop(Instant::now()) else { return };
            let Some(reconciler) = self.reconcilers.get(&task.controller).cloned() else {
                self.queue.done(&task, Outcome::AwaitChange, Instant::now());
                continue;
            };
            self.running += 1;
            let (cx, finish) = (self.cx.clone(), self.finish.clone());
            tokio::spawn(async move {
                // What it shares with others is locks that take a panic, and the store.
                let run = AssertUnwindSafe(reconciler.reconcile(&task.key, &cx)).catch_unwind().await;
                let result = run.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied()).unwrap_or_default();
                    Err(ReconcileError::Unfit(format!("the reconciler of {} panicked: {text}", task.key)))
                });
                let _ = finish.send((task, result)).await; // the manager is gone only at shutdown
            });
        }
    }

    fn finish(&mut self, (task, result): Done) {
        self.running -= 1;
        let outcome = match result {
            Ok(Action::AwaitChange) => Outcome::AwaitChange,
            Ok(Action::RequeueAfter(delay)) => Outcome::RequeueAfter(delay),
            // Somebody else wrote first; the change feed has queued the key again already.
            Err(ReconcileError::Store(StoreError::Conflict { .. })) => Outcome::RequeueAfter(Duration::ZERO),
            Err(error) => {
                tracing::warn!(controller = ?task.controller, key = %task.key, attempt = self.queue.attempt(&task), %error, "reconcile failed");
                Outcome::Failed
            }
        };
        self.queue.done(&task, outcome, Instant::now());
    }
}
