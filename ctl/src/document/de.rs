//! Serde over a [`Tree`]: lenient where a value can mean only one thing, and exact about the place where it cannot.

use super::{
    fields,
    report::{DocumentError, Source},
    tree::{Key, Mark, Tree, Value},
};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor, value::StrDeserializer};
use std::fmt::{self, Display};

pub(super) struct TreeDeserializer<'de> {
    tree: &'de Tree,
    text: &'de str,
}

/// What is wrong and, once known, where.
#[derive(Debug)]
pub(super) struct Fault {
    mark: Option<Mark>,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn at(mut self, mark: Mark) -> Self {
        self.mark.get_or_insert(mark);
        self
    }

    pub(super) fn into_error(self, source: &Source, tree: &Tree) -> DocumentError {
        DocumentError::new(source, self.mark.unwrap_or(tree.mark), self.message, self.help)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self { mark: None, message: message.to_string(), help: None }
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let help = match fields::suggestion(field, expected) {
            Some(near) => near,
            None => format!("one of {}", expected.join(", ")),
        };
        Self { mark: None, message: format!("unknown field `{field}`"), help: Some(help) }
    }
}

impl<'de> TreeDeserializer<'de> {
    pub(super) fn new(tree: &'de Tree, text: &'de str) -> Self {
        Self { tree, text }
    }

    /// The scalar as the user wrote it: `1.10` stays 1.10 where text is wanted.
    fn raw(&self) -> &'de str {
        let Mark { offset, len, .. } = self.tree.defined;
        self.text.get(offset..offset + len).unwrap_or_default().trim()
    }

    fn wrong(&self, wanted: &str, help: Option<String>) -> Fault {
        let found = match &self.tree.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Text(text) => format!("the text `{}`", shorten(text)),
            _ => format!("`{}`", shorten(self.raw())),
        };
        Fault { mark: Some(self.tree.mark), message: format!("expected {wanted}, found {found}"), help }
    }

    fn whole_number(&self, max: u64) -> Result<u64, Fault> {
        let number = match &self.tree.value {
            Value::Unsigned(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        let wanted = || self.wrong(&format!("a whole number from 0 to {max}"), None);
        number.filter(|number| *number <= max).ok_or_else(wanted)
    }

    fn integer<V: Visitor<'de>>(self, visitor: V, max: u64) -> Result<V::Value, Fault> {
        let mark = self.tree.mark;
        visitor.visit_u64::<Fault>(self.whole_number(max)?).map_err(|fault| fault.at(mark))
    }

    fn string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mark = self.tree.mark;
        let done = match &self.tree.value {
            Value::Text(text) => visitor.visit_str::<Fault>(text),
            Value::Bool(_) | Value::Unsigned(_) | Value::Signed(_) | Value::Float(_) => visitor.visit_str(self.raw()),
            Value::Null => return Err(self.wrong("a text", Some("write \"\" for an empty text".into()))),
            Value::List(_) | Value::Map(_) => return Err(self.wrong("a text", None)),
        };
        done.map_err(|fault| fault.at(mark))
    }

    fn entries<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mark = self.tree.mark;
        let done = match &self.tree.value {
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None, text: self.text }),
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), value: None, text: self.text }),
            _ => return Err(self.wrong("a map of fields", Some("fields stand below their parent: `name: value`, indented".into()))),
        };
        done.map_err(|fault| fault.at(mark))
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

macro_rules! whole_numbers {
    ($($method:ident $max:expr),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.integer(visitor, $max)
        }
    )*};
}

impl<'de> Deserializer<'de> for TreeDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mark = self.tree.mark;
        let done = match &self.tree.value {
            Value::Null => visitor.visit_unit::<Fault>(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
        };
        done.map_err(|fault| fault.at(mark))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.wrong("true or false", None)),
        }
    }

    whole_numbers!(deserialize_u8 u64::from(u8::MAX), deserialize_u16 u64::from(u16::MAX), deserialize_u32 u64::from(u32::MAX),
        deserialize_u64 u64::MAX, deserialize_i32 i32::MAX as u64, deserialize_i64 i64::MAX as u64);

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            _ => Err(self.wrong("a number", None)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.string(visitor)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tree.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mark = self.tree.mark;
        let done = match &self.tree.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), text: self.text }),
            Value::Null => visitor.visit_seq(Items { items: [].iter(), text: self.text }),
            Value::Map(_) => return Err(self.wrong("a list", Some("begin each item with `- `".into()))),
            _ => {
                let words: Vec<&str> = self.raw().split_whitespace().collect();
                let help = format!("[{}]", words.join(", "));
                return Err(self.wrong("a list", Some(help)));
            }
        };
        done.map_err(|fault: Fault| fault.at(mark))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.entries(visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.entries(visitor)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Tree>,
    text: &'de str,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;
    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.items.next().map(|tree| seed.deserialize(TreeDeserializer::new(tree, self.text))).transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Tree)>,
    value: Option<&'de (Key, Tree)>,
    text: &'de str,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Fault;
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|fault| fault.at(key.mark))
    }
    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, tree) = self.value.take().expect("serde asks for a value after its key only");
        let named = |fault: Fault| Fault { message: format!("{}: {}", key.name, fault.message), ..fault };
        let scalar = !matches!(tree.value, Value::List(_) | Value::Map(_));
        let mark = if matches!(tree.value, Value::Null) { key.mark } else { tree.mark };
        seed.deserialize(TreeDeserializer::new(tree, self.text)).map_err(|fault| {
            let place = if matches!(tree.value, Value::Null) { Fault { mark: Some(key.mark), ..fault } } else { fault.at(mark) };
            if scalar { named(place) } else { place }
        })
    }
}
