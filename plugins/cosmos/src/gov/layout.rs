//! What a message type names, and the fields of its bytes as they lie on the wire, known or not.

use serde::{
    de::{self, DeserializeOwned, Deserializer, Visitor},
    forward_to_deserialize_any,
};
use std::fmt;

/// A field as it lies in a message.
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// With its tag.
    pub(super) whole: &'a [u8],
    /// Of one with a length: what follows that.
    pub(super) content: Option<&'a [u8]>,
}

/// In their order; up to the first that cannot be read.
pub(super) fn fields(bytes: &[u8]) -> Vec<Field<'_>> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let Some((field, after)) = next_field(rest) {
        found.push(field);
        rest = after;
    }
    found
}

/// The message in field `number`; the last one counts.
pub(super) fn nested(bytes: &[u8], number: u32) -> Option<&[u8]> {
    fields(bytes).into_iter().rev().find(|field| field.number == number)?.content
}

/// The names of a message type's fields as its .proto file has them.
pub(super) fn field_names<M: DeserializeOwned>() -> Vec<&'static str> {
    // The generated reader says which names it takes before it reads anything; each in two spellings.
    let names = M::deserialize(AskNames).err().map_or(&[][..], |Names(names)| names);
    names.iter().copied().filter(|name| !name.contains(|c: char| c.is_ascii_uppercase())).collect()
}

fn next_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (tag, after) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let (content, rest) = match tag & 7 {
        0 => (None, varint(after)?.1),
        1 => (None, after.get(8..)?),
        2 => {
            let (length, after) = varint(after)?;
            let (content, rest) = after.split_at_checked(usize::try_from(length).ok()?)?;
            (Some(content), rest)
        }
        5 => (None, after.get(4..)?),
        _ => return None,
    };
    Some((Field { number, whole: &bytes[..bytes.len() - rest.len()], content }, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let value = bytes[..=end].iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, &bytes[end + 1..]))
}

/// Reads nothing: whatever is asked of it, it fails with the names that were asked for.
struct AskNames;

#[derive(Debug)]
struct Names(&'static [&'static str]);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Names {}

impl de::Error for Names {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for AskNames {
    type Error = Names;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Names> {
        Err(Names(&[]))
    }
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, names: &'static [&'static str], _: V) -> Result<V::Value, Names> {
        Err(Names(names))
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosmos_sdk_proto::{
        Any,
        cosmos::{gov::v1::Params, staking},
        traits::Message,
    };

    #[test]
    fn names_are_those_of_the_proto_file() {
        let expected = ["unbonding_time", "max_validators", "max_entries", "historical_entries", "bond_denom", "min_commission_rate"];
        assert_eq!(field_names::<staking::v1beta1::Params>(), expected);
        assert!(field_names::<Params>().contains(&"burn_vote_quorum"));
    }

    #[test]
    fn fields_are_cut_where_they_end_and_rubbish_ends_the_list() {
        let bytes = Any { type_url: "ab".into(), value: vec![7; 300] }.encode_to_vec();
        let found = fields(&bytes);
        assert_eq!(found.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.iter().flat_map(|field| field.whole.to_vec()).collect::<Vec<u8>>(), bytes);
        assert_eq!(nested(&bytes, 2), Some(&[7; 300][..]));
        assert!(fields(&[0xff, 0xff]).is_empty() && fields(&[0x0a, 9, 1]).is_empty() && nested(&[], 1).is_none());
    }
}
