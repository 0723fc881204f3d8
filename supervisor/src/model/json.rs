//! JSON that is kept as it is.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::sync::Arc;

/// JSON that others made and only they understand, as its text: a tenth of what a tree of values takes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }
    pub fn null() -> Self {
        Self("null".into())
    }
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Only from JSON: text, or a tree of values.
impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::<RawValue>::deserialize(deserializer)?.get().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn it_stands_in_other_json_as_what_it_is() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Outer {
            inner: Option<RawJson>,
        }
        let inner = json!({"pid": 7, "paths": ["a", "\"b"]});
        let outer = Outer { inner: Some(RawJson::of(&inner).unwrap()) };
        let text = serde_json::to_string(&outer).unwrap();
        assert_eq!(text, r#"{"inner":{"pid":7,"paths":["a","\"b"]}}"#);
        assert_eq!(serde_json::to_value(&outer).unwrap(), json!({ "inner": inner }));
        assert_eq!(serde_json::from_str::<Outer>(&text).unwrap(), outer);
        assert_eq!(serde_json::from_value::<Outer>(json!({ "inner": inner })).unwrap(), outer);
        assert_eq!(outer.inner.unwrap().read::<Value>().unwrap(), inner);
        assert_eq!(serde_json::from_str::<Outer>("{}").unwrap(), Outer { inner: None });
    }
}
