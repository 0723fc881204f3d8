//! YAML (and JSON) documents: read with line and column, expanded, and turned into the API's messages.
//!
//! ```text
//! text ──serde-saphyr──► Tree (every value with its place) ──expand──► Tree ──serde──► message
//!                          └── kept, so that a fault of the server's (spec.nodes[0].name) finds its line
//! ```

mod de;
mod expand;
mod fields;
mod load;
mod report;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use expand::{Environment, absolute, expand_binary};
pub(crate) use load::{Document, Wanted, load, parse_documents, read_source};
pub(crate) use report::{DocumentError, Source};
pub(crate) use tree::{Tree, Value, parse};

use serde::de::DeserializeOwned;

/// Reads one tree into a message; faults carry the place of what is wrong.
pub(crate) fn decode<T: DeserializeOwned>(source: &Source, tree: &Tree) -> Result<T, DocumentError> {
    T::deserialize(de::TreeDeserializer::new(tree, &source.text)).map_err(|fault| fault.into_error(source, tree))
}
