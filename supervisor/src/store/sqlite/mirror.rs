//! What is live, in memory: every object but launches that ended and were let go, as of the last commit. A read of it costs neither SQL nor JSON.
//!
//! The writer applies each group after its COMMIT and before anybody hears of it, so that who is told of a change reads at least that.
//! Such launches are history: many, seldom asked for, and read from the file.

use super::{
    reader::{self, Log},
    rows::{self, Row},
};
use crate::{
    model::{Key, Kind, LaunchPhase, Object, Revision},
    store::{Change, Selector, order},
};
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

pub(super) struct Mirror {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    revision: Revision,
    objects: BTreeMap<Key, Object>,
}

/// Why the file could not be read into memory.
pub(super) enum LoadError {
    Sql(rusqlite::Error),
    /// A row that is not what its table should hold.
    Damaged(String),
}

impl Mirror {
    pub(super) fn load(connection: &Connection) -> Result<Self, LoadError> {
        let mut state = State { revision: reader::last(connection, Log::Changes)?, objects: BTreeMap::new() };
        for kind in Kind::ALL {
            let sql = rows::sql(kind);
            let live = if kind == Kind::Launch { " WHERE phase IS NOT 'Ended' OR json_extract(status, '$.handle') IS NOT NULL" } else { "" };
            let mut statement = connection.prepare(&format!("{}{live}", sql.select))?;
            for row in statement.query_map([], Row::read)? {
                let object = row?.object(kind).map_err(|error| LoadError::Damaged(format!("a row of {}: {error}", sql.table)))?;
                state.objects.insert(object.key(), object);
            }
        }
        Ok(Self { state: RwLock::new(state) })
    }

    /// None: it does not exist, or it is a launch that is history.
    pub(super) fn get(&self, key: &Key) -> Option<Object> {
        self.state().objects.get(key).cloned()
    }

    /// None when the selector takes what is not here.
    pub(super) fn list(&self, selector: &Selector) -> Option<(Vec<Object>, Revision)> {
        if selector.kinds.is_empty() || selector.kinds.contains(&Kind::Launch) {
            return None;
        }
        let state = self.state();
        let mut found = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| selector.kinds.contains(kind)) {
            // Keys sort by kind, namespace, name, and a node's name begins with that of its devnet.
            let namespace = selector.namespace.as_deref();
            let stem = match (kind, namespace, &selector.devnet) {
                (Kind::Node, Some(_), Some(devnet)) => format!("{devnet}/"),
                _ => String::new(),
            };
            let first = Key::new(kind, namespace.unwrap_or_default(), &stem);
            let is_near = |key: &Key| key.kind == kind && namespace.is_none_or(|namespace| namespace == key.namespace) && key.name.starts_with(&stem);
            let near = state.objects.range(first..).take_while(|(key, _)| is_near(key));
            found.extend(near.map(|(_, object)| object).filter(|object| selector.takes(object)));
        }
        Some((order::sorted(found), state.revision))
    }

    pub(super) fn apply(&self, changes: &[Change], revision: Revision) {
        // A panic elsewhere leaves it whole: changes are inserted and removed one by one.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            if change.deleted || !is_live(&change.object) {
                state.objects.remove(&change.key);
            } else {
                state.objects.insert(change.key.clone(), change.object.clone());
            }
        }
        state.revision = revision;
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(object: &Object) -> bool {
    !matches!(object, Object::Launch(launch) if launch.status.phase == LaunchPhase::Ended && launch.status.handle.is_none())
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}
