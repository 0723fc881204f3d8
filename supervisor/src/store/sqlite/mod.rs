//! The store on SQLite: WAL, one writer thread; what is live is read from memory, what is past on connections of its own.

mod error;
mod job;
mod light;
mod mirror;
#[cfg(test)]
mod old_databases;
mod open;
mod reader;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use super::{Change, EventFilter, Limits, Selector, Store, StoreError, Write, feed::Reader};
use crate::{
    model::{Event, EventId, Key, Kind, Object, Revision},
    sys::Clock,
};
use async_trait::async_trait;
use error::Blame;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use job::{Job, Prepared};
use mirror::{LoadError, Mirror};
use reader::Readers;
use rows::Body;
use std::{path::Path, sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};
use writer::Writer;

/// Commits that may wait for the writer; beyond that `commit` itself waits.
const QUEUE: usize = 256;

/// Dropping it writes what is queued and closes the file; a watch on it then ends.
pub struct SqliteStore {
    /// None only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
    readers: Arc<Readers>,
    mirror: Arc<Mirror>,
    changes: Reader<Change>,
    events: Reader<Event>,
}

impl SqliteStore {
    /// Opens or creates the store. Blocks for as long as its check and its migrations take (milliseconds).
    pub fn open(path: &Path, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, StoreError> {
        let blame = Blame::new(path);
        let connection = open::writer(path, &blame)?;
        let mirror = Arc::new(Mirror::load(&connection).map_err(|error| match error {
            LoadError::Sql(error) => blame.of(&error),
            LoadError::Damaged(detail) => blame.damaged(detail),
        })?);
        let writer = Writer::new(connection, blame.clone(), clock, limits, mirror.clone())?;
        let (changes, events) = (writer.changes().reader(), writer.events().reader());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(queue));
        let thread = thread.map_err(|error| blame.io("start a thread for", &error))?;
        Ok(Self { jobs: Some(jobs), writer: Some(thread), readers: Arc::new(Readers::new(path, blame)), mirror, changes, events })
    }

    async fn ask(&self, job: impl FnOnce(oneshot::Sender<Result<Revision, StoreError>>) -> Job) -> Result<Revision, StoreError> {
        let gone = || StoreError::Other("the store's writer has ended".into());
        let (answer, answered) = oneshot::channel();
        self.jobs.as_ref().ok_or_else(gone)?.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// On a thread where it may block: for what reads many rows.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Readers) -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        read_on(self.readers.clone(), read).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        match self.mirror.get(key) {
            // One row out of the page cache takes microseconds, less than handing it to another thread.
            None if key.kind == Kind::Launch => self.readers.get(key),
            found => Ok(found),
        }
    }
    async fn list(&self, selector: &Selector) -> Result<(Vec<Object>, Revision), StoreError> {
        if let Some(listed) = self.mirror.list(selector) {
            return Ok(listed);
        }
        let selector = selector.clone();
        self.read(move |readers| readers.list(&selector)).await
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let writes = writes.into_iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        self.ask(|answer| Job::Commit { writes, answer }).await
    }
    fn watch(&self, selector: Selector, from: Revision) -> BoxStream<'static, Result<Change, StoreError>> {
        let readers = self.readers.clone();
        let backlog = move |after| older(&readers, move |readers| readers.changes(after));
        self.changes.clone().follow(from, move |change| selector.takes(&change.object), backlog)
    }
    async fn event(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        self.readers.event(id)
    }
    async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let filter = filter.clone();
        self.read(move |readers| readers.events(&filter)).await
    }
    fn watch_events(&self, filter: EventFilter) -> BoxStream<'static, Result<Event, StoreError>> {
        let readers = self.readers.clone();
        let backlog = move |after| older(&readers, move |readers| readers.events_page(after));
        self.events.clone().follow(filter.after_seq, move |event| filter.takes(event), backlog)
    }
    async fn compact(&self) -> Result<(), StoreError> {
        self.ask(|answer| Job::Compact { answer }).await.map(drop)
    }
    async fn give_memory_back(&self) -> Result<(), StoreError> {
        self.readers.close();
        self.ask(|answer| Job::GiveMemoryBack { answer }).await.map(drop)
    }
    async fn meta_value(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.readers.meta_value(name)
    }
    async fn set_meta_value(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.ask(|answer| Job::SetMeta { name, value, answer }).await.map(drop)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // In this order: the last to close folds the log in, and only the writer may.
        self.readers.close();
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so on stderr; what it had committed is in the file.
            let _ = writer.join();
        }
    }
}

fn prepare(write: Write) -> Result<Prepared, StoreError> {
    Ok(match write {
        Write::Put { object, expect } => {
            let body = Body::of(&object).map_err(|error| StoreError::Other(format!("cannot write {} as JSON: {error}", object.key())))?;
            Prepared::Put { object, body, expect }
        }
        Write::Delete { key, expect } => Prepared::Delete { key, expect },
        Write::Event(event) => Prepared::Event(event),
    })
}

fn older<T: Send + 'static>(
    readers: &Arc<Readers>,
    read: impl FnOnce(&Readers) -> Result<T, StoreError> + Send + 'static,
) -> BoxFuture<'static, Result<T, StoreError>> {
    read_on(readers.clone(), read).boxed()
}

async fn read_on<T: Send + 'static>(
    readers: Arc<Readers>,
    read: impl FnOnce(&Readers) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(move || read(&readers)).await.map_err(|error| StoreError::Other(format!("a read was cut short: {error}")))?
}
