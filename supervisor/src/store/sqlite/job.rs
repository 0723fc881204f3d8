//! What the writer is asked for.

use super::rows::Body;
use crate::{
    model::{Event, Key, Object, Revision},
    store::{Expect, StoreError},
};
use tokio::sync::oneshot;

pub(super) type Answer = oneshot::Sender<Result<Revision, StoreError>>;

pub(super) enum Job {
    Commit {
        writes: Vec<Prepared>,
        answer: Answer,
    },
    SetMeta {
        name: String,
        value: String,
        answer: Answer,
    },
    Compact {
        answer: Answer,
    },
    GiveMemoryBack {
        answer: Answer,
    },
    #[cfg(test)]
    LimitPages {
        pages: i64,
        answer: Answer,
    },
}

/// A write whose JSON the caller has made already: the thread is the narrow place.
pub(super) enum Prepared {
    Put { object: Object, body: Body, expect: Expect },
    Delete { key: Key, expect: Expect },
    Event(Box<Event>),
}

impl Job {
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Commit { answer, .. } | Self::SetMeta { answer, .. } | Self::Compact { answer } | Self::GiveMemoryBack { answer } => answer,
            #[cfg(test)]
            Self::LimitPages { answer, .. } => answer,
        }
    }
}
