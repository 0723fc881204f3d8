//! Builds events: each gets its id before the commit, so that objects and later events can name it as their cause.

use crate::{
    model::{Event, EventId, EventType, Key, LaunchId, Object},
    store::Write,
    sys::Clock,
};
use std::{fmt, sync::Arc};

/// Draws ids and times for the events of one actor. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    clock: Arc<dyn Clock>,
    actor: Arc<str>,
}

/// An event in the making. It is recorded when it is committed: `store.commit(vec![..., builder.write()])`.
#[derive(Clone, Debug)]
#[must_use = "an event is recorded only by a commit"]
pub struct EventBuilder(Event);

impl Recorder {
    /// Its events have the actor `devnetd` unless they say otherwise.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, actor: "devnetd".into() }
    }
    /// The same recorder for `controller/node`, `user:1000` ...
    pub fn acting_as(&self, actor: &str) -> Self {
        Self { clock: self.clock.clone(), actor: actor.into() }
    }
    /// `reason` is CamelCase and stable.
    pub fn event(&self, subject: &Key, reason: &str) -> EventBuilder {
        EventBuilder(Event {
            id: EventId::from_uuid(self.clock.fresh_id()),
            time: self.clock.now(),
            kind: subject.kind.name().to_owned(),
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
            reason: reason.to_owned(),
            actor: self.actor.to_string(),
            ..Event::default()
        })
    }
    /// As `event`, with the object's generation.
    pub fn about(&self, subject: &Object, reason: &str) -> EventBuilder {
        self.event(&subject.key(), reason).generation(subject.meta().generation)
    }
}

impl EventBuilder {
    pub fn message(mut self, text: impl fmt::Display) -> Self {
        self.0.message = text.to_string();
        self
    }
    pub fn warning(mut self) -> Self {
        self.0.event_type = EventType::Warning;
        self
    }
    pub fn observed(mut self, text: impl fmt::Display) -> Self {
        self.0.observed = Some(text.to_string());
        self
    }
    pub fn desired(mut self, text: impl fmt::Display) -> Self {
        self.0.desired = Some(text.to_string());
        self
    }
    pub fn action(mut self, text: impl fmt::Display) -> Self {
        self.0.action = Some(text.to_string());
        self
    }
    pub fn result(mut self, text: impl fmt::Display) -> Self {
        self.0.result = Some(text.to_string());
        self
    }
    /// The event that caused this one: a request's, or an object's `status.cause`.
    pub fn parent(mut self, cause: impl Into<Option<EventId>>) -> Self {
        self.0.parent = cause.into();
        self
    }
    pub fn actor(mut self, actor: &str) -> Self {
        self.0.actor = actor.to_owned();
        self
    }
    pub fn launch(mut self, launch: &LaunchId) -> Self {
        self.0.launch_id = Some(launch.clone());
        self
    }
    pub fn generation(mut self, generation: u64) -> Self {
        self.0.generation = Some(generation);
        self
    }
    /// For `status.cause`, and for the `parent` of what comes of it.
    pub fn id(&self) -> EventId {
        self.0.id.clone()
    }
    pub fn build(self) -> Event {
        self.0
    }
    pub fn write(self) -> Write {
        Write::Event(Box::new(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Timestamp, store::fixtures::validator, sys::ManualClock};

    #[test]
    fn an_event_carries_all_that_it_was_told_and_an_id_of_its_own() {
        let recorder = Recorder::new(Arc::new(ManualClock::at(Timestamp::from_millis(5)))).acting_as("controller/node");
        let node: Object = validator("default", "net", 0).into();
        let cause = recorder.event(&Key::devnet("default", "net"), "Applied").actor("user:1000");
        let event = recorder
            .about(&node, "Launching")
            .message("starts it")
            .observed("no process")
            .desired("Running")
            .action("start")
            .result("pid 7")
            .launch(&LaunchId("l1".into()))
            .parent(cause.id())
            .warning()
            .build();
        let expected = Event {
            id: event.id.clone(),
            seq: 0,
            time: Timestamp::from_millis(5),
            kind: "Node".into(),
            namespace: "default".into(),
            name: "net/validator-0".into(),
            event_type: EventType::Warning,
            reason: "Launching".into(),
            message: "starts it".into(),
            observed: Some("no process".into()),
            desired: Some("Running".into()),
            action: Some("start".into()),
            result: Some("pid 7".into()),
            parent: Some(cause.id()),
            generation: Some(1),
            launch_id: Some(LaunchId("l1".into())),
            actor: "controller/node".into(),
        };
        assert_eq!(event, expected);
        assert_ne!(event.id, cause.id());
        assert_eq!(cause.build().actor, "user:1000");
    }
}
