//! Any object of the store, and its key.

use super::{Devnet, Export, Launch, Lease, Meta, Node, Plan, Revision, Transaction, Upgrade};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The kinds of object that the store holds. Events are no objects: they are appended and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Devnet,
    Node,
    Launch,
    Lease,
    Plan,
    Transaction,
    Upgrade,
    Export,
}

impl Kind {
    pub const ALL: [Self; 8] = [Self::Devnet, Self::Node, Self::Launch, Self::Lease, Self::Plan, Self::Transaction, Self::Upgrade, Self::Export];
    pub const fn name(self) -> &'static str {
        match self {
            Self::Devnet => "Devnet",
            Self::Node => "Node",
            Self::Launch => "Launch",
            Self::Lease => "Lease",
            Self::Plan => "Plan",
            Self::Transaction => "Transaction",
            Self::Upgrade => "Upgrade",
            Self::Export => "Export",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
    pub fn devnet(namespace: &str, name: &str) -> Self {
        Self::new(Kind::Devnet, namespace, name)
    }
    pub fn node(namespace: &str, name: &str) -> Self {
        Self::new(Kind::Node, namespace, name)
    }
    pub fn transaction(namespace: &str, name: &str) -> Self {
        Self::new(Kind::Transaction, namespace, name)
    }
    pub fn upgrade(namespace: &str, name: &str) -> Self {
        Self::new(Kind::Upgrade, namespace, name)
    }
    pub fn export(namespace: &str, name: &str) -> Self {
        Self::new(Kind::Export, namespace, name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Cheap to clone: readers share one copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Devnet(Arc<Devnet>),
    Node(Arc<Node>),
    Launch(Arc<Launch>),
    Lease(Arc<Lease>),
    Plan(Arc<Plan>),
    Transaction(Arc<Transaction>),
    Upgrade(Arc<Upgrade>),
    Export(Arc<Export>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Devnet(_) => Kind::Devnet,
            Self::Node(_) => Kind::Node,
            Self::Launch(_) => Kind::Launch,
            Self::Lease(_) => Kind::Lease,
            Self::Plan(_) => Kind::Plan,
            Self::Transaction(_) => Kind::Transaction,
            Self::Upgrade(_) => Kind::Upgrade,
            Self::Export(_) => Kind::Export,
        }
    }
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Devnet(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Launch(object) => &object.metadata,
            Self::Lease(object) => &object.metadata,
            Self::Plan(object) => &object.metadata,
            Self::Transaction(object) => &object.metadata,
            Self::Upgrade(object) => &object.metadata,
            Self::Export(object) => &object.metadata,
        }
    }
    /// Copies the object when it is shared.
    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Devnet(object) => &mut Arc::make_mut(object).metadata,
            Self::Node(object) => &mut Arc::make_mut(object).metadata,
            Self::Launch(object) => &mut Arc::make_mut(object).metadata,
            Self::Lease(object) => &mut Arc::make_mut(object).metadata,
            Self::Plan(object) => &mut Arc::make_mut(object).metadata,
            Self::Transaction(object) => &mut Arc::make_mut(object).metadata,
            Self::Upgrade(object) => &mut Arc::make_mut(object).metadata,
            Self::Export(object) => &mut Arc::make_mut(object).metadata,
        }
    }
    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key::new(self.kind(), &meta.namespace, &meta.name)
    }
    pub fn revision(&self) -> Revision {
        self.meta().resource_version
    }
    /// Name of the devnet that it belongs to (its own, for a devnet).
    pub fn devnet(&self) -> &str {
        match self {
            Self::Devnet(object) => &object.metadata.name,
            Self::Node(object) => &object.spec.devnet_ref,
            Self::Launch(object) => object.spec.node_ref.split('/').next().unwrap_or_default(),
            Self::Lease(object) => &object.spec.devnet_ref,
            Self::Plan(object) => &object.spec.devnet_ref,
            Self::Transaction(object) => &object.spec.devnet_ref,
            Self::Upgrade(object) => &object.spec.devnet_ref,
            Self::Export(object) => &object.spec.devnet_ref,
        }
    }
    /// Full name of the node that it belongs to, if any.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Devnet(_) | Self::Plan(_) | Self::Transaction(_) | Self::Upgrade(_) | Self::Export(_) => None,
            Self::Node(object) => Some(&object.metadata.name),
            Self::Launch(object) => Some(&object.spec.node_ref),
            Self::Lease(object) => object.spec.node_ref.as_deref(),
        }
    }
}

macro_rules! from_kind {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        }
        impl TryFrom<Object> for Arc<$kind> {
            type Error = Object;
            fn try_from(object: Object) -> Result<Self, Object> {
                match object {
                    Object::$kind(object) => Ok(object),
                    other => Err(other),
                }
            }
        }
    )*};
}
from_kind!(Devnet, Node, Launch, Lease, Plan, Transaction, Upgrade, Export);
