//! Serde adapter: JSON text in a protobuf string field is a nested value in the object's JSON form.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::Value;

/// The two ways in which protobuf holds such a text: required (empty means absent) and optional.
pub trait JsonText: Sized {
    fn text(&self) -> Option<&str>;
    fn from_text(text: Option<String>) -> Self;
}

impl JsonText for String {
    fn text(&self) -> Option<&str> {
        (!self.is_empty()).then_some(self.as_str())
    }
    fn from_text(text: Option<String>) -> Self {
        text.unwrap_or_default()
    }
}

impl JsonText for Option<String> {
    fn text(&self) -> Option<&str> {
        self.as_deref()
    }
    fn from_text(text: Option<String>) -> Self {
        text
    }
}

/// Writes the text's value. Errors when the field does not hold JSON.
pub fn serialize<T: JsonText, S: Serializer>(field: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let value: Option<Value> = field.text().map(serde_json::from_str).transpose().map_err(S::Error::custom)?;
    value.serialize(serializer)
}

/// Reads any value and keeps it as compact JSON text; null means absent.
pub fn deserialize<'de, T: JsonText, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = match value {
        Value::Null => None,
        value => Some(serde_json::to_string(&value).map_err(D::Error::custom)?),
    };
    Ok(T::from_text(text))
}
