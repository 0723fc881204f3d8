//! The field names of the API's messages, and the nearest one to a mistyped one.

use dvb_proto::devnet::v1::{DevnetSpec, ExportSpec, Metadata, TransactionSpec, UpgradeSpec};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, value::Error as Nothing},
};
use std::cell::Cell;

/// What to write instead of `field`, where `expected` names are allowed. At the top of a document, fields of spec and metadata
/// count too: forgetting the `spec:` line is the commonest slip.
pub(super) fn suggestion(field: &str, expected: &[&str]) -> Option<String> {
    if let Some(near) = nearest(field, expected) {
        return Some(near.to_owned());
    }
    let top = expected.contains(&"apiVersion");
    let below = [
        ("spec", fields_of::<DevnetSpec>()),
        ("metadata", fields_of::<Metadata>()),
        ("spec", fields_of::<UpgradeSpec>()),
        ("spec", fields_of::<TransactionSpec>()),
        ("spec", fields_of::<ExportSpec>()),
    ];
    below.into_iter().filter(|_| top).find_map(|(parent, names)| nearest(field, names).map(|near| format!("{parent}.{near}")))
}

fn nearest<'a>(field: &str, names: &[&'a str]) -> Option<&'a str> {
    let score = |name: &str| {
        let (a, b) = (squash(field), squash(name));
        if a == b { 1.0 } else { strsim::jaro_winkler(&a, &b).max(strsim::normalized_damerau_levenshtein(&a, &b)) }
    };
    let best = names.iter().map(|name| (score(name), *name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.8).then_some(best.1)
}

/// `full_nodes`, `full-nodes` and `FullNodes` are all fullNodes.
fn squash(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Serde tells a deserializer the names of a struct's fields: ask for them and stop there.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Ask<'a>(&'a Cell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Nothing;
        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
            Err(Nothing::custom("asked for the names only"))
        }
        fn deserialize_struct<V: serde::de::Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], _: V) -> Result<V::Value, Nothing> {
            self.0.set(fields);
            Err(Nothing::custom("asked for the names only"))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let names = Cell::new([].as_slice());
    let _ = T::deserialize(Ask(&names));
    names.get()
}
