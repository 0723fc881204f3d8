//! What every controller works with, and the small steps that all of them take.

use crate::{
    binaries::{Binaries, ResolvedBinary},
    config::Home,
    events::Recorder,
    keylease::Keys,
    model::{BinarySource, Devnet, DevnetSpec, Event, EventId, EventType, Key, Kind, LaunchId, Node, Plan},
    observe::Observations,
    plugin::Plugins,
    ports::Ports,
    runtime::Runtime,
    store::{Selector, Store, StoreError, Write},
    sys::Clock,
};
use dvb_proto::endpoint::home_hash;
use std::sync::Arc;

use super::{ReconcileError, manager::Wake};

/// Everything that controllers touch.
#[derive(Clone)]
pub struct Context {
    pub store: Arc<dyn Store>,
    pub runtime: Arc<dyn Runtime>,
    pub plugins: Arc<dyn Plugins>,
    pub ports: Arc<Ports>,
    pub binaries: Arc<Binaries>,
    pub observations: Arc<Observations>,
    pub clock: Arc<dyn Clock>,
    pub home: Home,
    pub wake: Wake,
}

impl Context {
    /// The binary in the cache. The last line of its download or build is told meanwhile; one that was not told yet is overtaken by the next.
    pub async fn resolve<F>(&self, source: &BinarySource, mut tell: impl FnMut(String) -> F) -> Result<ResolvedBinary, ReconcileError>
    where
        F: Future<Output = Result<(), ReconcileError>>,
    {
        let (progress, mut lines) = tokio::sync::watch::channel(String::new());
        let send = move |line: String| drop(progress.send_replace(line));
        let fetching = self.binaries.resolve(source, &send);
        tokio::pin!(fetching);
        loop {
            tokio::select! {
                done = &mut fetching => return Ok(done?),
                Ok(()) = lines.changed() => {
                    let line = lines.borrow_and_update().clone();
                    tell(line).await?;
                }
            }
        }
    }

    pub async fn devnet(&self, namespace: &str, name: &str) -> Result<Option<Arc<Devnet>>, StoreError> {
        Ok(self.store.get(&Key::devnet(namespace, name)).await?.and_then(|object| object.try_into().ok()))
    }

    /// The devnet with the spec that its nodes were last made to match: a newer one may have been refused, or is not taken up yet.
    pub async fn accepted_devnet(&self, namespace: &str, name: &str) -> Result<Option<Arc<Devnet>>, StoreError> {
        let Some(devnet) = self.devnet(namespace, name).await? else { return Ok(None) };
        let accepted = self.plan(namespace, name).await?.and_then(|plan| plan.spec.devnet_spec.clone());
        Ok(Some(match accepted.filter(|spec| **spec != devnet.spec) {
            None => devnet,
            Some(spec) => {
                let (metadata, status) = (devnet.metadata.clone(), devnet.status.clone());
                Arc::new(Devnet { metadata, spec: DevnetSpec::clone(&spec), status })
            }
        }))
    }

    pub async fn node(&self, key: &Key) -> Result<Option<Arc<Node>>, StoreError> {
        Ok(self.store.get(key).await?.and_then(|object| object.try_into().ok()))
    }

    pub async fn plan(&self, namespace: &str, devnet: &str) -> Result<Option<Arc<Plan>>, StoreError> {
        Ok(self.store.get(&Key::new(Kind::Plan, namespace, devnet)).await?.and_then(|object| object.try_into().ok()))
    }

    pub fn keys(&self) -> Keys<'_> {
        Keys { store: self.store.as_ref(), clock: self.clock.as_ref(), home_id: home_hash(self.home.root()) }
    }

    /// In the store's order: validators by index, full nodes, the rest.
    pub async fn nodes(&self, namespace: &str, devnet: &str) -> Result<Vec<Arc<Node>>, StoreError> {
        let (objects, _) = self.store.list(&Selector::in_devnet(Kind::Node, namespace, devnet)).await?;
        Ok(objects.into_iter().filter_map(|object| object.try_into().ok()).collect())
    }

    /// Applies `edit` to the stored node and commits it together with `also`; again when somebody else was faster.
    pub async fn edit_node(&self, key: &Key, also: Vec<Write>, edit: impl Fn(&mut Node) -> Edit + Send + Sync) -> Result<(), StoreError> {
        while let Some(current) = self.node(key).await? {
            let mut node = Node::clone(&current);
            let mut writes = also.clone();
            match edit(&mut node) {
                Edit::Skip => return Ok(()),
                Edit::Quiet => {}
                Edit::Tell(story) => node.status.cause = Some(self.tell_into(&mut writes, key, node.status.cause.clone(), story)),
            }
            writes.push(Write::update(node));
            if self.commit_unless_outrun(key, writes).await? {
                break;
            }
        }
        Ok(())
    }

    /// As `edit_node`, for a devnet.
    pub async fn edit_devnet(&self, key: &Key, also: Vec<Write>, edit: impl Fn(&mut Devnet) -> Edit + Send + Sync) -> Result<(), StoreError> {
        while let Some(current) = self.devnet(&key.namespace, &key.name).await? {
            let mut devnet = Devnet::clone(&current);
            let mut writes = also.clone();
            match edit(&mut devnet) {
                Edit::Skip => return Ok(()),
                Edit::Quiet => {}
                Edit::Tell(story) => devnet.status.cause = Some(self.tell_into(&mut writes, key, devnet.status.cause.clone(), story)),
            }
            writes.push(Write::update(devnet));
            if self.commit_unless_outrun(key, writes).await? {
                break;
            }
        }
        Ok(())
    }

    /// False when the object of `key` has moved on; a conflict about anything else is the caller's.
    async fn commit_unless_outrun(&self, key: &Key, writes: Vec<Write>) -> Result<bool, StoreError> {
        match self.store.commit(writes).await {
            Err(StoreError::Conflict { key: other, .. }) if other == *key => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Adds the story's event to `writes` and returns its id.
    pub fn tell_into(&self, writes: &mut Vec<Write>, subject: &Key, parent: Option<EventId>, story: Story) -> EventId {
        let event = self.tell(subject, parent, story);
        let id = event.id.clone();
        writes.push(Write::Event(Box::new(event)));
        id
    }

    /// The event of a story: dated, with an id of its own.
    pub fn tell(&self, subject: &Key, parent: Option<EventId>, story: Story) -> Event {
        let Event { id, time, kind, namespace, name, parent, .. } =
            Recorder::new(self.clock.clone()).event(subject, &story.0.reason).parent(parent).build();
        Event { id, time, kind, namespace, name, parent, ..*story.0 }
    }
}

/// What an edit comes to.
#[derive(Clone, Debug)]
pub enum Edit {
    /// There is nothing to change.
    Skip,
    /// Write, without an event.
    Quiet,
    /// Write, and make this the object's cause.
    Tell(Story),
}

/// One step of the audit trail before it is dated: what was seen, wanted, done, and what came of it. An edit that is made again after
/// a conflict tells its story again; the recorder draws id and time only for the commit.
#[derive(Clone, Debug)]
pub struct Story(Box<Event>);

impl Story {
    pub fn new(actor: &str, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Event { actor: format!("controller/{actor}"), reason: reason.into(), message: message.into(), ..Event::default() }))
    }
    pub fn warn(mut self) -> Self {
        self.0.event_type = EventType::Warning;
        self
    }
    pub fn observed(mut self, text: impl Into<String>) -> Self {
        self.0.observed = Some(text.into());
        self
    }
    pub fn desired(mut self, text: impl Into<String>) -> Self {
        self.0.desired = Some(text.into());
        self
    }
    pub fn action(mut self, text: impl Into<String>) -> Self {
        self.0.action = Some(text.into());
        self
    }
    pub fn result(mut self, text: impl Into<String>) -> Self {
        self.0.result = Some(text.into());
        self
    }
    pub fn launch(mut self, launch: LaunchId) -> Self {
        self.0.launch_id = Some(launch);
        self
    }
    pub fn generation(mut self, generation: u64) -> Self {
        self.0.generation = Some(generation);
        self
    }
}
