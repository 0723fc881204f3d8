//! Objects as rows: the SQL of each kind, and JSON both ways.

use crate::model::{Devnet, Export, Kind, Launch, Lease, Node, Object, Plan, Transaction, Upgrade};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::LazyLock;

/// The statements of one kind. `?1` is the namespace and `?2` the name throughout.
pub(super) struct Sql {
    pub(super) table: &'static str,
    /// namespace, revision of who has the name: for a lease in any namespace.
    pub(super) find: String,
    /// metadata, spec, status
    pub(super) get: String,
    /// ?3 revision, ?4 metadata, ?5 spec, then those of status, devnet, node that the table has.
    pub(super) put: String,
    pub(super) delete: String,
    /// What belongs to the parent of this name: metadata, spec, status.
    pub(super) of_parent: String,
    /// metadata, spec, status, without WHERE.
    pub(super) select: String,
    /// The column that holds the devnet's name.
    pub(super) devnet: &'static str,
}

pub(super) fn sql(kind: Kind) -> &'static Sql {
    static ALL: LazyLock<[Sql; Kind::ALL.len()]> = LazyLock::new(|| Kind::ALL.map(make));
    &ALL[kind as usize]
}

/// An object's parts as JSON. Metadata comes later: the writer stamps it.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) spec: String,
    pub(super) status: Option<String>,
}

impl Body {
    pub(super) fn of(object: &Object) -> serde_json::Result<Self> {
        fn both(spec: &impl Serialize, status: Option<&impl Serialize>) -> serde_json::Result<Body> {
            Ok(Body { spec: serde_json::to_string(spec)?, status: status.map(serde_json::to_string).transpose()? })
        }
        match object {
            Object::Devnet(object) => both(&object.spec, Some(&object.status)),
            Object::Node(object) => both(&object.spec, Some(&object.status)),
            Object::Launch(object) => both(&object.spec, Some(&object.status)),
            Object::Lease(object) => both(&object.spec, None::<&()>),
            Object::Plan(object) => both(&object.spec, None::<&()>),
            Object::Transaction(object) => both(&object.spec, Some(&object.status)),
            Object::Upgrade(object) => both(&object.spec, Some(&object.status)),
            Object::Export(object) => both(&object.spec, Some(&object.status)),
        }
    }
    /// The object as one JSON text, as the change feed keeps it.
    pub(super) fn whole(&self, metadata: &str) -> String {
        let Self { spec, status } = self;
        match status {
            Some(status) => format!(r#"{{"metadata":{metadata},"spec":{spec},"status":{status}}}"#),
            None => format!(r#"{{"metadata":{metadata},"spec":{spec}}}"#),
        }
    }
}

/// A row of `get`, `of_parent` or `select`.
pub(super) struct Row {
    pub(super) metadata: String,
    pub(super) body: Body,
}

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { metadata: row.get(0)?, body: Body { spec: row.get(1)?, status: row.get(2)? } })
    }
    pub(super) fn object(&self, kind: Kind) -> serde_json::Result<Object> {
        let status = self.body.status.as_deref().unwrap_or("{}");
        let spec = &self.body.spec;
        let metadata = serde_json::from_str(&self.metadata)?;
        Ok(match kind {
            Kind::Devnet => Devnet { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
            Kind::Node => Node { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
            Kind::Launch => Launch { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
            Kind::Lease => Lease { metadata, spec: serde_json::from_str(spec)? }.into(),
            Kind::Plan => Plan { metadata, spec: serde_json::from_str(spec)? }.into(),
            Kind::Transaction => Transaction { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
            Kind::Upgrade => Upgrade { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
            Kind::Export => Export { metadata, spec: serde_json::from_str(spec)?, status: serde_json::from_str(status)? }.into(),
        })
    }
}

/// The other way of `Body::whole`.
pub(super) fn object_from_whole(kind: Kind, text: &str) -> serde_json::Result<Object> {
    fn read<T: DeserializeOwned + Into<Object>>(text: &str) -> serde_json::Result<Object> {
        serde_json::from_str::<T>(text).map(Into::into)
    }
    match kind {
        Kind::Devnet => read::<Devnet>(text),
        Kind::Node => read::<Node>(text),
        Kind::Launch => read::<Launch>(text),
        Kind::Lease => read::<Lease>(text),
        Kind::Plan => read::<Plan>(text),
        Kind::Transaction => read::<Transaction>(text),
        Kind::Upgrade => read::<Upgrade>(text),
        Kind::Export => read::<Export>(text),
    }
}

pub(super) fn kind_from_name(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

fn make(kind: Kind) -> Sql {
    let (table, extra): (_, &[&str]) = match kind {
        Kind::Devnet => ("devnets", &["status"]),
        Kind::Node => ("nodes", &["status", "devnet"]),
        Kind::Launch => ("launches", &["status", "devnet", "node"]),
        Kind::Lease => ("leases", &["devnet", "node"]),
        Kind::Plan => ("plans", &["devnet"]),
        Kind::Transaction => ("transactions", &["status", "devnet"]),
        Kind::Upgrade => ("upgrades", &["status", "devnet"]),
        Kind::Export => ("exports", &["status", "devnet"]),
    };
    let columns: Vec<&str> = ["namespace", "name", "revision", "metadata", "spec"].iter().chain(extra).copied().collect();
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
    let sets: Vec<String> = columns[2..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let status = if extra.contains(&"status") { "status" } else { "NULL" };
    let select = format!("SELECT metadata, spec, {status} FROM {table}");
    let parent = if kind == Kind::Launch { "node" } else { "devnet" };
    let at = if kind == Kind::Lease { "name = ?2 AND ?1 IS NOT NULL" } else { "namespace = ?1 AND name = ?2" };
    Sql {
        table,
        find: format!("SELECT namespace, revision FROM {table} WHERE {at}"),
        get: format!("{select} WHERE namespace = ?1 AND name = ?2"),
        // Not INSERT OR REPLACE: that deletes the old row, and with it all that hangs on it.
        put: format!(
            "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT (namespace, name) DO UPDATE SET {}",
            columns.join(", "),
            places.join(", "),
            sets.join(", ")
        ),
        delete: format!("DELETE FROM {table} WHERE namespace = ?1 AND name = ?2"),
        of_parent: format!("{select} WHERE namespace = ?1 AND {parent} = ?2"),
        select,
        devnet: if kind == Kind::Devnet { "name" } else { "devnet" },
    }
}
