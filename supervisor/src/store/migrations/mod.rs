//! The schema's history: one file per version, forward only. To add one, append a file here and run the test that builds its old
//! database (see `sqlite::old_databases`). A file that was released is never edited.

use rusqlite_migration::{M, Migrations};

const STEPS: &[M<'static>] = &[
    M::up(include_str!("0001_begin.sql")),
    M::up(include_str!("0002_transactions.sql")),
    M::up(include_str!("0003_upgrades.sql")),
    M::up(include_str!("0004_exports.sql")),
];

pub(super) const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// The schema version that this devnetd writes: `PRAGMA user_version`.
pub(super) const KNOWN: i64 = STEPS.len() as i64;
