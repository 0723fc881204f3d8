//! Snapshots of tables.
