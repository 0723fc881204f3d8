//! What changes between two specs, field by field: for `apply --dry-run`, for the event's text, and for the rule of what is immutable.

use serde_json::Value;

/// One field that differs. `field` is its path in the document; text stays bare, everything else is compact JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    pub field: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Differences below `path`, in the order of the document (fields that only `before` has come last).
pub fn diff(path: &str, before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk(path, Some(before), Some(after), &mut changes);
    changes
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    if before == after {
        return;
    }
    let empty = serde_json::Map::new();
    match (before, after) {
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                walk(&format!("{path}[{i}]"), old.get(i), new.get(i), changes);
            }
        }
        (Some(Value::Object(_)) | None, Some(Value::Object(_)) | None) => {
            let old = before.and_then(Value::as_object).unwrap_or(&empty);
            let new = after.and_then(Value::as_object).unwrap_or(&empty);
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(gone) {
                walk(&join(path, key), old.get(key), new.get(key), changes);
            }
        }
        _ => changes.push(FieldChange { field: path.to_owned(), before: before.map(text), after: after.map(text) }),
    }
}

/// `a.b`, or `a["b.c"]` for a key that would read as two.
fn join(path: &str, key: &str) -> String {
    if key.contains(['.', '[', '/']) { format!("{path}[{key:?}]") } else { format!("{path}.{key}") }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(before: Value, after: Value, expect: &[(&str, Option<&str>, Option<&str>)]) {
        let found = diff("spec", &before, &after);
        let found: Vec<_> = found.iter().map(|change| (change.field.as_str(), change.before.as_deref(), change.after.as_deref())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn each_field_that_differs_is_named_with_both_values() {
        check(json!({"a": 1}), json!({"a": 1}), &[]);
        check(json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "x"}), &[("spec.a", Some("1"), Some("2"))]);
        check(json!({}), json!({"b": {"c": "x"}}), &[("spec.b.c", None, Some("x"))]);
        check(json!({"b": {"c": true}}), json!({}), &[("spec.b.c", Some("true"), None)]);
        check(json!({"l": ["a"]}), json!({"l": ["a", "b"]}), &[("spec.l[1]", None, Some("b"))]);
        check(json!({"c": {"app.toml": 1}}), json!({"c": {"app.toml": 2}}), &[("spec.c[\"app.toml\"]", Some("1"), Some("2"))]);
        check(json!({"a": {"b": 1}}), json!({"a": [1]}), &[("spec.a", Some("{\"b\":1}"), Some("[1]"))]);
    }
}
