//! The one writer: a thread that owns the connection and groups the commits that queue up.
//!
//! ```text
//!  recv one ─► and all that wait ─► BEGIN ─► each in a savepoint ─► COMMIT (at most one fsync) ─► mirror ─► feed ─► answers ─► checkpoint
//!                                              └ refused: rolled back alone
//! ```
//! Guarantees: a commit survives SIGKILL when it is answered, and a power cut too unless the whole group is about processes only
//! (launches, the status of nodes, what a devnet sums up of it, events): a new boot voids those anyway, so they are not worth an fsync.
//! The feed has a change before its answer is out, and has changes in the order of their revisions; when the group cannot be committed, every commit of it fails and none of it is seen.

use super::{
    error::Blame,
    job::{Answer, Job, Prepared},
    light,
    mirror::Mirror,
    reader::{self, Log},
    rows::{self, Body, Row},
};
use crate::{
    model::{Event, Key, Kind, Object, Revision, Timestamp},
    store::{Change, Expect, Limits, StoreError, event_devnet, feed::Feed, order, rules},
    sys::{Clock, failpoint},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, ffi, params};
use std::{mem, sync::Arc};
use tokio::sync::mpsc;

/// Commits in one transaction at most.
const GROUP: usize = 64;
/// Changes and events that stay in memory for the watchers; older ones are read from the file. Two groups, and some more.
const CHANGE_RING: usize = 512;
const EVENT_RING: usize = 256;
/// Rows of the past that one transaction drops at most on the way, so that no commit waits long for it.
const SWEEP: u64 = 256;
/// Rows written until the log is folded into the file: about 4 MB.
const CHECKPOINT_ROWS: usize = 1000;

pub(super) struct Writer {
    connection: Connection,
    blame: Blame,
    clock: Arc<dyn Clock>,
    limits: Limits,
    mirror: Arc<Mirror>,
    changes: Feed<Change>,
    events: Feed<Event>,
    mark: Mark,
    /// Everything after these is kept.
    change_floor: u64,
    event_floor: u64,
    rows_since_checkpoint: usize,
    /// As `PRAGMA synchronous` is set now.
    durability: Durability,
    /// What the group has written so far.
    new_changes: Vec<Change>,
    new_events: Vec<Event>,
}

/// The last numbers given.
#[derive(Clone, Copy)]
struct Mark {
    revision: Revision,
    seq: u64,
}

/// What a commit survives once it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// The end of this process. SQLite: synchronous=NORMAL.
    Kill,
    /// Also the end of the machine. SQLite: synchronous=FULL.
    PowerCut,
}

/// Why one commit of a group fails.
enum Refusal {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl Writer {
    pub(super) fn new(connection: Connection, blame: Blame, clock: Arc<dyn Clock>, limits: Limits, mirror: Arc<Mirror>) -> Result<Self, StoreError> {
        let turn = |error| blame.of(&error);
        let mark =
            Mark { revision: reader::last(&connection, Log::Changes).map_err(turn)?, seq: reader::last(&connection, Log::Events).map_err(turn)? };
        let change_floor = reader::floor(&connection, Log::Changes).map_err(turn)?;
        let event_floor = reader::floor(&connection, Log::Events).map_err(turn)?;
        let (changes, events) = (Feed::new(mark.revision), Feed::new(mark.seq));
        Ok(Self {
            connection,
            blame,
            clock,
            limits,
            mirror,
            changes,
            events,
            mark,
            change_floor,
            event_floor,
            rows_since_checkpoint: 0,
            durability: Durability::PowerCut,
            new_changes: Vec::new(),
            new_events: Vec::new(),
        })
    }

    pub(super) fn changes(&self) -> &Feed<Change> {
        &self.changes
    }

    pub(super) fn events(&self) -> &Feed<Event> {
        &self.events
    }

    /// Until the last sender is gone; what is queued then is still written.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        self.checkpoint(); // daemons that are killed, one after the other, would let the log grow for ever
        while let Some(job) = jobs.blocking_recv() {
            let mut group = vec![job];
            while group.len() < GROUP
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.run_group(group);
            if self.rows_since_checkpoint >= CHECKPOINT_ROWS {
                self.checkpoint();
            }
        }
    }

    fn run_group(&mut self, group: Vec<Job>) {
        let before = self.mark;
        let mut answers = Vec::with_capacity(group.len());
        let result = self.write_group(group, &mut answers);
        let (changes, events) = (mem::take(&mut self.new_changes), mem::take(&mut self.new_events));
        match result {
            Ok((change_floor, event_floor)) => {
                (self.change_floor, self.event_floor) = (change_floor, event_floor);
                self.rows_since_checkpoint += changes.len() * 2 + events.len();
                self.mirror.apply(&changes, self.mark.revision);
                // What is compacted away leaves the ring too: a reader hears the same from both.
                self.changes.append(changes, ring_size(self.mark.revision, change_floor, CHANGE_RING));
                self.events.append(events, ring_size(self.mark.seq, event_floor, EVENT_RING));
                failpoint("store/published");
                for (answer, result) in answers {
                    // The caller may have gone; the commit stands.
                    let _ = answer.send(result);
                }
                // Who waits for the commit goes first.
                self.changes.announce();
                self.events.announce();
            }
            Err(error) => {
                self.mark = before;
                let error = self.blame.of(&error);
                for (answer, result) in answers {
                    let _ = answer.send(result.and_then(|_| Err(error.clone())));
                }
            }
        }
    }

    /// One transaction. Its error means that nothing of the group was written; the answers then still hold who was refused anyway.
    /// Ok: the new floors.
    fn write_group(&mut self, group: Vec<Job>, answers: &mut Vec<(Answer, Result<Revision, StoreError>)>) -> rusqlite::Result<(u64, u64)> {
        let mut failure = self.begin(&group).err();
        let (mut sweep, is_alone) = (SWEEP, group.len() == 1);
        for job in group {
            if matches!(job, Job::Compact { .. }) {
                sweep = u64::MAX;
            }
            if failure.is_some() {
                // The answer is overwritten by the failure of the group.
                answers.push((job.into_answer(), Ok(0)));
                continue;
            }
            let (answer, result) = self.write_one(job, is_alone);
            match result {
                // A full disk or an I/O error may end the whole transaction inside SQLite.
                Err(Refusal::Sql(error)) if self.connection.is_autocommit() => {
                    failure = Some(error);
                    answers.push((answer, Ok(0)));
                }
                result => answers.push((answer, result.map_err(|refusal| self.judge(refusal)))),
            }
        }
        let outcome = match failure {
            Some(error) => Err(error),
            None if self.connection.is_autocommit() => Ok((self.change_floor, self.event_floor)), // it was refused, and was alone
            None => self.sweep(sweep).and_then(|floors| {
                failpoint("store/commit");
                self.execute("COMMIT")?;
                failpoint("store/committed");
                Ok(floors)
            }),
        };
        if outcome.is_err() && !self.connection.is_autocommit() {
            // Nothing to do when this fails too: the next BEGIN says so.
            let _ = self.execute("ROLLBACK");
        }
        outcome
    }

    fn begin(&mut self, group: &[Job]) -> rusqlite::Result<()> {
        let needed = self.needed(group);
        if needed != self.durability {
            let level = if needed == Durability::Kill { "normal" } else { "full" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = needed;
        }
        self.execute("BEGIN IMMEDIATE")
    }

    /// One commit that must survive a power cut makes the group survive it, and all that was committed before.
    pub(super) fn needed(&self, group: &[Job]) -> Durability {
        for job in group {
            let Job::Commit { writes, .. } = job else { return Durability::PowerCut };
            if !writes.iter().all(|write| light::is_light(write, &self.mirror)) {
                return Durability::PowerCut;
            }
        }
        Durability::Kill
    }

    fn write_one(&mut self, job: Job, is_alone: bool) -> (Answer, Result<Revision, Refusal>) {
        let (mark, changes, events) = (self.mark, self.new_changes.len(), self.new_events.len());
        let (answer, result) = match job {
            Job::Commit { writes, answer } => (answer, self.undone_if_refused(is_alone, |writer| writer.apply(writes))),
            Job::SetMeta { name, value, answer } => (answer, self.undone_if_refused(is_alone, |writer| writer.set_meta(&name, &value))),
            Job::Compact { answer } => (answer, Ok(())),
            Job::GiveMemoryBack { answer } => (answer, self.give_memory_back()),
            #[cfg(test)]
            Job::LimitPages { pages, answer } => {
                let set = self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
                (answer, set.map_err(Refusal::Sql))
            }
        };
        if result.is_err() {
            self.mark = mark;
            self.new_changes.truncate(changes);
            self.new_events.truncate(events);
        }
        (answer, result.map(|()| self.mark.revision))
    }

    /// A burst fills the rings with old versions of all that it changed.
    fn give_memory_back(&self) -> Result<(), Refusal> {
        self.changes.trim(0);
        self.events.trim(0);
        Ok(self.connection.release_memory()?)
    }

    /// A refused commit is undone alone; one that has the transaction to itself takes that along: a savepoint copies each page first.
    fn undone_if_refused(&mut self, is_alone: bool, write: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> Result<(), Refusal> {
        if is_alone {
            let result = write(self);
            if result.is_err() && !self.connection.is_autocommit() {
                self.execute("ROLLBACK")?;
            }
            return result;
        }
        self.execute("SAVEPOINT one")?;
        let result = write(self);
        if !self.connection.is_autocommit() {
            if result.is_err() {
                self.execute("ROLLBACK TO one")?;
            }
            self.execute("RELEASE one")?;
        }
        result
    }

    fn apply(&mut self, writes: Vec<Prepared>) -> Result<(), Refusal> {
        let now = self.clock.now();
        for write in writes {
            match write {
                Prepared::Put { object, body, expect } => self.put(object, &body, expect, now)?,
                Prepared::Delete { key, expect } => self.delete(&key, expect)?,
                Prepared::Event(event) => self.event(*event)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, mut object: Object, body: &Body, expect: Expect, now: Timestamp) -> Result<(), Refusal> {
        let key = object.key();
        let holder = self.find(&key)?;
        if let Some((namespace, _)) = holder.as_ref().filter(|(namespace, _)| *namespace != key.namespace) {
            // Only a lease is found in another namespace. What was expected of the own one is judged first.
            rules::check(&key, None, expect)?;
            return Err(StoreError::Exists(Key::new(key.kind, namespace, &key.name)).into());
        }
        let found = holder.map(|(_, revision)| revision);
        rules::check(&key, found, expect)?;
        let created = match found {
            Some(_) if object.meta().created_at == Timestamp::default() => self.created_at(&key)?,
            _ => now,
        };
        let revision = self.mark.revision + 1;
        rules::stamp(object.meta_mut(), revision, created, now);
        let metadata = to_json(object.meta())?;

        let (devnet, node) = (object.devnet(), object.node());
        let mut values: Vec<&dyn ToSql> = vec![&key.namespace, &key.name, &revision, &metadata, &body.spec];
        match key.kind {
            Kind::Devnet => values.push(&body.status),
            Kind::Node | Kind::Transaction | Kind::Upgrade | Kind::Export => values.extend([&body.status as &dyn ToSql, &devnet]),
            Kind::Launch => values.extend([&body.status as &dyn ToSql, &devnet, &node]),
            Kind::Lease => values.extend([&devnet as &dyn ToSql, &node]),
            Kind::Plan => values.push(&devnet),
        }
        self.connection.prepare_cached(&rows::sql(key.kind).put)?.execute(values.as_slice()).map_err(|error| orphan(error, &object))?;
        self.record(key, object, &body.whole(&metadata), false)
    }

    fn delete(&mut self, key: &Key, expect: Expect) -> Result<(), Refusal> {
        let sql = rows::sql(key.kind);
        let row = self.connection.prepare_cached(&sql.get)?.query_row(params![key.namespace, key.name], Row::read).optional()?;
        let old = row.map(|row| self.decode(key.kind, &row).map(|object| (row, object))).transpose()?;
        rules::check(key, old.as_ref().map(|(_, object)| object.revision()), expect)?;
        let Some((row, object)) = old else { return Ok(()) };
        self.delete_tree(&row, object)
    }

    /// Children first. The foreign keys would delete them too, but unseen by the feed.
    fn delete_tree(&mut self, row: &Row, object: Object) -> Result<(), Refusal> {
        let key = object.key();
        for &kind in rules::children(key.kind) {
            let mut children = Vec::new();
            {
                let mut statement = self.connection.prepare_cached(&rows::sql(kind).of_parent)?;
                for row in statement.query_map(params![key.namespace, key.name], Row::read)? {
                    let row = row?;
                    children.push((self.decode(kind, &row)?, row));
                }
            }
            children.sort_by(|(a, _), (b, _)| order::compare(a, b));
            for (child, row) in children {
                self.delete_tree(&row, child)?;
            }
        }
        self.connection.prepare_cached(&rows::sql(key.kind).delete)?.execute(params![key.namespace, key.name])?;
        self.record(key, object, &row.body.whole(&row.metadata), true)
    }

    fn record(&mut self, key: Key, object: Object, whole: &str, deleted: bool) -> Result<(), Refusal> {
        let revision = self.mark.revision + 1;
        self.connection
            .prepare_cached("INSERT INTO changes (revision, kind, namespace, name, deleted, object) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![revision, key.kind.name(), key.namespace, key.name, deleted, whole])?;
        self.mark.revision = revision;
        self.new_changes.push(Change { revision, key, object, deleted });
        Ok(())
    }

    fn event(&mut self, mut event: Event) -> Result<(), Refusal> {
        event.seq = self.mark.seq + 1;
        let text = to_json(&event)?;
        let launch = event.launch_id.as_ref().map(|launch| launch.as_str());
        let inserted = self
            .connection
            .prepare_cached("INSERT INTO events (seq, id, namespace, kind, name, devnet, launch, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![event.seq, event.id.as_str(), event.namespace, event.kind, event.name, event_devnet(&event), launch, text]);
        match inserted {
            Err(error) if is_constraint(&error, ffi::SQLITE_CONSTRAINT_UNIQUE) => return Err(rules::event_exists(&event.id).into()),
            other => other?,
        };
        self.mark.seq = event.seq;
        self.new_events.push(event);
        Ok(())
    }

    fn set_meta(&self, name: &str, value: &str) -> Result<(), Refusal> {
        self.connection
            .prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")?
            .execute([name, value])?;
        Ok(())
    }

    /// Drops what is beyond the limits: all of it when asked, else at most `most` rows of each log, and only beyond the ceiling.
    fn sweep(&self, most: u64) -> rusqlite::Result<(u64, u64)> {
        let target = |last: u64, floor: u64, keep: usize| {
            let keep = if most == u64::MAX { keep } else { Limits::ceiling(keep) };
            let wanted = last.saturating_sub(u64::try_from(keep).unwrap_or(u64::MAX));
            wanted.min(floor.saturating_add(most)).max(floor)
        };
        let change_floor = target(self.mark.revision, self.change_floor, self.limits.changes);
        if change_floor > self.change_floor {
            self.connection.prepare_cached("DELETE FROM changes WHERE revision <= ?1")?.execute([change_floor])?;
        }
        let event_floor = target(self.mark.seq, self.event_floor, self.limits.events);
        if event_floor > self.event_floor {
            self.connection.prepare_cached("DELETE FROM events WHERE seq <= ?1")?.execute([event_floor])?;
        }
        Ok((change_floor, event_floor))
    }

    fn checkpoint(&mut self) {
        let done: rusqlite::Result<()> =
            self.connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)").and_then(|mut statement| statement.query_row([], |_| Ok(())));
        match done {
            Ok(()) => self.rows_since_checkpoint = 0,
            // The commits are safe in the log; it is folded in at the next try.
            Err(error) => tracing::warn!(error = %self.blame.of(&error), "cannot fold the store's log into its file; will try again"),
        }
    }

    fn find(&self, key: &Key) -> Result<Option<(String, Revision)>, rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(&rows::sql(key.kind).find)?;
        statement.query_row(params![key.namespace, key.name], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    fn created_at(&self, key: &Key) -> Result<Timestamp, Refusal> {
        let row = self.connection.prepare_cached(&rows::sql(key.kind).get)?.query_row(params![key.namespace, key.name], Row::read)?;
        Ok(self.decode(key.kind, &row)?.meta().created_at)
    }

    fn decode(&self, kind: Kind, row: &Row) -> Result<Object, StoreError> {
        row.object(kind).map_err(|error| self.blame.damaged(format!("a row of {}: {error}", rows::sql(kind).table)))
    }

    fn judge(&self, refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::Store(error) => error,
            Refusal::Sql(error) => self.blame.of(&error),
        }
    }

    fn execute(&self, text: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(text)?.execute([]).map(drop)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn ring_size(last: u64, floor: u64, most: usize) -> usize {
    usize::try_from(last.saturating_sub(floor)).unwrap_or(usize::MAX).min(most)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Other(format!("cannot write as JSON: {error}")))
}

/// The foreign key found no parent.
fn orphan(error: rusqlite::Error, object: &Object) -> Refusal {
    match rules::parent(object) {
        Some(parent) if is_constraint(&error, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => {
            StoreError::Orphan { child: object.key(), parent: parent.to_string() }.into()
        }
        _ => error.into(),
    }
}

fn is_constraint(error: &rusqlite::Error, extended: i32) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::ConstraintViolation && failure.extended_code == extended)
}
