//! Reading committed state: a few connections of their own, so that no read waits for the writer.

use super::{
    error::Blame,
    open,
    rows::{self, Row},
};
use crate::{
    model::{Event, EventId, Key, Kind, Object, Revision},
    store::{Change, EventFilter, Selector, StoreError, feed, order},
};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Connections kept when they are idle.
const IDLE: usize = 2;

pub(super) struct Readers {
    path: PathBuf,
    blame: Blame,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path, blame: Blame) -> Self {
        Self { path: path.to_owned(), blame, idle: Mutex::default() }
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.with(|connection| {
            let row = connection.prepare_cached(&rows::sql(key.kind).get)?.query_row(params![key.namespace, key.name], Row::read).optional()?;
            row.map(|row| self.decode(key.kind, &row)).transpose()
        })
    }

    pub(super) fn list(&self, selector: &Selector) -> Result<(Vec<Object>, Revision), StoreError> {
        self.with(|connection| {
            // One transaction: objects and revision are of one moment.
            let moment = connection.unchecked_transaction()?;
            let mut found = Vec::new();
            for kind in Kind::ALL {
                if selector.kinds.is_empty() || selector.kinds.contains(&kind) {
                    self.list_kind(&moment, kind, selector, &mut found)?;
                }
            }
            let revision = last(&moment, Log::Changes)?;
            drop(moment);
            found.retain(|object| selector.takes(object));
            found.sort_by(order::compare);
            Ok((found, revision))
        })
    }

    pub(super) fn event(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        self.with(|connection| {
            let text: Option<String> =
                connection.prepare_cached("SELECT event FROM events WHERE id = ?1")?.query_row([id.as_str()], |row| row.get(0)).optional()?;
            text.map(|text| self.decode_event(&text)).transpose()
        })
    }

    pub(super) fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let mut text = String::from("SELECT event FROM events WHERE seq > ?1");
        let after = filter.after_seq.min(i64::MAX as u64);
        let mut values: Vec<&dyn ToSql> = vec![&after];
        let launch = filter.launch.as_ref().map(|launch| launch.0.clone());
        let wanted =
            [("namespace", &filter.namespace), ("kind", &filter.kind), ("name", &filter.name), ("devnet", &filter.devnet), ("launch", &launch)];
        for (column, value) in wanted {
            if let Some(value) = value {
                values.push(value);
                text.push_str(&format!(" AND {column} = ?{}", values.len()));
            }
        }
        text.push_str(" ORDER BY seq DESC");
        if filter.limit > 0 {
            text.push_str(&format!(" LIMIT {}", filter.limit));
        }
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&text)?;
            let mut rows = statement.query(params_from_iter(values.iter()))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(self.decode_event(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
            }
            found.reverse();
            Ok(found)
        })
    }

    /// A page of the feed after `from`, or that it is compacted away, or that `from` never was.
    pub(super) fn changes(&self, from: Revision) -> Result<Vec<Change>, StoreError> {
        self.with(|connection| {
            let moment = connection.unchecked_transaction()?;
            check_bounds(&moment, Log::Changes, from)?;
            let mut statement = moment.prepare_cached(
                "SELECT revision, kind, namespace, name, deleted, object FROM changes WHERE revision > ?1 ORDER BY revision LIMIT ?2",
            )?;
            let mut rows = statement.query(params![from, feed::PAGE])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                let (revision, kind): (_, String) = (row.get(0)?, row.get(1)?);
                let kind =
                    rows::kind_from_name(&kind).ok_or_else(|| Fail::Store(self.blame.damaged(format!("change {revision} is of kind {kind}"))))?;
                let text: String = row.get(5)?;
                let object = rows::object_from_whole(kind, &text).map_err(|error| self.blame.damaged(format!("change {revision}: {error}")))?;
                let key = Key { kind, namespace: row.get(2)?, name: row.get(3)? };
                page.push(Change { revision, key, object, deleted: row.get(4)? });
            }
            Ok(page)
        })
    }

    /// As `changes`; from 0, whatever is kept.
    pub(super) fn events_page(&self, from: u64) -> Result<Vec<Event>, StoreError> {
        self.with(|connection| {
            let moment = connection.unchecked_transaction()?;
            if from > 0 {
                check_bounds(&moment, Log::Events, from)?;
            }
            let mut statement = moment.prepare_cached("SELECT event FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = statement.query(params![from, feed::PAGE])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push(self.decode_event(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
            }
            Ok(page)
        })
    }

    pub(super) fn meta_value(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.with(|connection| {
            Ok(connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// Closes what is idle: at the end so that the writer is the last to close and folds the log into the file.
    pub(super) fn close(&self) {
        self.idle().clear();
    }

    fn list_kind(&self, connection: &Connection, kind: Kind, selector: &Selector, found: &mut Vec<Object>) -> Result<(), Fail> {
        let sql = rows::sql(kind);
        let node = if kind == Kind::Launch { &selector.node } else { &None };
        let wanted = [("namespace", &selector.namespace), ("name", &selector.name), (sql.devnet, &selector.devnet), ("node", node)];
        let mut text = sql.select.clone();
        let mut values: Vec<&String> = Vec::new();
        for (column, value) in wanted {
            if let Some(value) = value {
                text.push_str(if values.is_empty() { " WHERE " } else { " AND " });
                values.push(value);
                text.push_str(&format!("{column} = ?{}", values.len()));
            }
        }
        let mut statement = connection.prepare_cached(&text)?;
        for row in statement.query_map(params_from_iter(values), Row::read)? {
            found.push(self.decode(kind, &row?)?);
        }
        Ok(())
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fail>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| open::reader(&self.path, &self.blame), Ok)?;
        let result = read(&connection);
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        drop(idle);
        result.map_err(|fail| match fail {
            Fail::Store(error) => error,
            Fail::Sql(error) => self.blame.of(&error),
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self, kind: Kind, row: &Row) -> Result<Object, Fail> {
        Ok(row.object(kind).map_err(|error| self.blame.damaged(format!("a row of {}: {error}", rows::sql(kind).table)))?)
    }

    fn decode_event(&self, text: &str) -> Result<Event, Fail> {
        Ok(serde_json::from_str(text).map_err(|error| self.blame.damaged(format!("a row of events: {error}")))?)
    }
}

/// The two tables that number their rows for ever and lose the oldest.
#[derive(Clone, Copy)]
pub(super) enum Log {
    Changes,
    Events,
}

/// The last number that was given; it outlives the row.
pub(super) fn last(connection: &Connection, log: Log) -> rusqlite::Result<u64> {
    let table = match log {
        Log::Changes => "changes",
        Log::Events => "events",
    };
    let mut statement = connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?;
    Ok(statement.query_row([table], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Everything after this number is there.
pub(super) fn floor(connection: &Connection, log: Log) -> rusqlite::Result<u64> {
    let text = match log {
        Log::Changes => "SELECT min(revision) FROM changes",
        Log::Events => "SELECT min(seq) FROM events",
    };
    let oldest: Option<u64> = connection.prepare_cached(text)?.query_row([], |row| row.get(0))?;
    oldest.map_or_else(|| last(connection, log), |oldest| Ok(oldest.saturating_sub(1)))
}

fn check_bounds(connection: &Connection, log: Log, asked: u64) -> Result<(), Fail> {
    let floor = floor(connection, log)?;
    if asked < floor || asked > last(connection, log)? {
        return Err(Fail::Store(StoreError::Compacted { asked, oldest: floor + 1 }));
    }
    Ok(())
}

enum Fail {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
