//! What both stores decide alike: expectations, parents, stamps.

use super::{Expect, StoreError};
use crate::model::{EventId, Key, Kind, Meta, Object, Revision, Timestamp};

/// `found` is the revision of what is there now.
pub(super) fn check(key: &Key, found: Option<Revision>, expect: Expect) -> Result<(), StoreError> {
    match (expect, found) {
        (Expect::Absent, Some(_)) => Err(StoreError::Exists(key.clone())),
        (Expect::At(_), None) => Err(StoreError::Missing(key.clone())),
        (Expect::At(expected), Some(actual)) if expected != actual => Err(StoreError::Conflict { key: key.clone(), expected, actual }),
        _ => Ok(()),
    }
}

/// The object without which this one cannot be: a launch's node, else the devnet.
pub(super) fn parent(object: &Object) -> Option<Key> {
    let namespace = &object.meta().namespace;
    match object {
        Object::Devnet(_) => None,
        Object::Launch(launch) => Some(Key::node(namespace, &launch.spec.node_ref)),
        Object::Node(_) | Object::Lease(_) | Object::Plan(_) | Object::Transaction(_) | Object::Upgrade(_) | Object::Export(_) => {
            Some(Key::devnet(namespace, object.devnet()))
        }
    }
}

/// What needs an object of `kind` directly, in the order in which it is deleted with it.
pub(super) fn children(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Devnet => &[Kind::Node, Kind::Lease, Kind::Plan, Kind::Transaction, Kind::Upgrade, Kind::Export],
        Kind::Node => &[Kind::Launch],
        Kind::Launch | Kind::Lease | Kind::Plan | Kind::Transaction | Kind::Upgrade | Kind::Export => &[],
    }
}

/// `created` is that of the object's last version, or now; the object's own wins.
pub(super) fn stamp(meta: &mut Meta, revision: Revision, created: Timestamp, now: Timestamp) {
    meta.resource_version = revision;
    meta.updated_at = now;
    if meta.created_at == Timestamp::default() {
        meta.created_at = created;
    }
}

pub(super) fn event_exists(id: &EventId) -> StoreError {
    StoreError::Other(format!("event {id} exists already"))
}
