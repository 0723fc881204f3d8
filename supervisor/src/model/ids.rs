//! Identifiers as types of their own, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);
        impl $name {
            /// Made from a UUID that the caller drew (`sys::Clock::fresh_id`).
            pub fn from_uuid(uuid: uuid::Uuid) -> Self {
                Self(uuid.simple().to_string())
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One object over its life; never reused.
    Uid
);
text_id!(
    /// One run of a node; in its environment as DVB_LAUNCH_ID.
    LaunchId
);
text_id!(
    /// One step of the audit trail.
    EventId
);

/// `<devnet>/<short name>`: a node's name in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    pub devnet: String,
    pub short: String,
}

impl NodeName {
    pub fn new(devnet: &str, short: &str) -> Self {
        Self { devnet: devnet.to_owned(), short: short.to_owned() }
    }
    /// None when `text` is not `a/b` with both sides filled.
    pub fn parse(text: &str) -> Option<Self> {
        let (devnet, short) = text.split_once('/')?;
        (!devnet.is_empty() && !short.is_empty() && !short.contains('/')).then(|| Self::new(devnet, short))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.devnet, self.short)
    }
}
