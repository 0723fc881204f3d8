//! Opening the file: it is created whole or not at all, and an unreadable one is never replaced.

use super::error::Blame;
use crate::store::{StoreError, migrations};
use rusqlite::{Connection, MAIN_DB, OpenFlags};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a writer waits for a stranger (a sqlite3 shell, a backup) that holds the write lock.
const BUSY: Duration = Duration::from_secs(5);

/// Pages that a connection keeps in its cache, in KiB. What is live is read from memory, and the file is in the kernel's cache.
const WRITER_CACHE: i64 = 1024;
const READER_CACHE: i64 = 256;

/// The connection that writes, on the newest schema.
pub(super) fn writer(path: &Path, blame: &Blame) -> Result<Connection, StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.len() == 0 => return Err(blame.damaged("the file is empty, and devnetd never leaves an empty one")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, blame)?,
        Err(error) => return Err(blame.io("open", &error)),
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, blame)?;
    let turn = |error| blame.of(&error);
    check_version(path, &connection, blame)?;
    if connection.is_readonly(MAIN_DB).map_err(turn)? {
        return Err(StoreError::ReadOnly { path: path.display().to_string() });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(turn)?;
    if verdict != "ok" {
        return Err(blame.damaged(verdict));
    }
    tune(&connection).map_err(turn)?;
    migrate(&mut connection, blame)?;
    // A writable file in a read-only folder opens well enough to be read: only a write lock tells.
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(turn)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path, blame: &Blame) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, blame)?;
    cache(&connection, READER_CACHE).map_err(|error| blame.of(&error))?;
    Ok(connection)
}

/// Builds the empty store beside its place and renames it in: a crash leaves no half of one.
fn create(path: &Path, blame: &Blame) -> Result<(), StoreError> {
    let wal = beside(path, "-wal");
    if wal.exists() {
        // SQLite would play it into a new file.
        return Err(blame.damaged(format!("the file is missing but its write-ahead log {} is there", wal.display())));
    }
    let draft = beside(path, ".new");
    for rest in [draft.clone(), beside(&draft, "-wal"), beside(&draft, "-shm"), beside(&draft, "-journal")] {
        match fs::remove_file(&rest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(blame.io("clear the way for", &error)),
            _ => {}
        }
    }
    let mut connection = connect(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE, blame)?;
    tune(&connection).map_err(|error| blame.of(&error))?;
    migrate(&mut connection, blame)?;
    connection.close().map_err(|(_, error)| blame.of(&error))?;
    let place = || -> io::Result<()> {
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    place().map_err(|error| blame.io("create", &error))
}

fn connect(path: &Path, flags: OpenFlags, blame: &Blame) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    };
    open().map_err(|error| blame.of(&error))
}

/// SQLite takes a negative number as KiB.
fn cache(connection: &Connection, kib: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -kib)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    cache(connection, WRITER_CACHE)?;
    // What undoes a refused commit of a group: a few pages, for which it would make and remove a file each time.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    // The writer checkpoints by itself, when nobody waits for it.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))
}

fn check_version(path: &Path, connection: &Connection, blame: &Blame) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| blame.of(&error))?;
    if found > migrations::KNOWN {
        return Err(StoreError::TooNew { path: path.display().to_string(), found, known: migrations::KNOWN });
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(|error| blame.of(&error))?;
    if found < 1 {
        return Err(
            blame.damaged(format!("it is an SQLite file with {tables} tables and indices, but not a store of devnetd's (user_version {found})"))
        );
    }
    Ok(())
}

fn migrate(connection: &mut Connection, blame: &Blame) -> Result<(), StoreError> {
    migrations::MIGRATIONS.to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => blame.of(&err),
        other => StoreError::Other(format!("cannot bring the store to schema {}: {other}", migrations::KNOWN)),
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
