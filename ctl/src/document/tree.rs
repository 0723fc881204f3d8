//! A YAML document as a tree in which every key and value knows its place in the text.

use super::report::{DocumentError, Source};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// Larger texts are refused before they are parsed: 16 MiB leaves room for a genesis patch.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
/// What aliases may add in all; a devnet needs a handful.
const MAX_REPLAYED_EVENTS: usize = 100_000;
const MAX_DEPTH: usize = 48;

/// A range of the text. Line and column count from 1; offset and length are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// Where it is used: the alias, when it came through one.
    pub(crate) mark: Mark,
    /// Where its text stands.
    pub(crate) defined: Mark,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) mark: Mark,
    pub(crate) name: String,
}

impl Tree {
    pub(crate) fn get(&self, name: &str) -> Option<&Tree> {
        self.entry(name).map(|(_, tree)| tree)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Tree> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|(key, _)| key.name == name).map(|(_, tree)| tree)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<(&Key, &Tree)> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(key, tree)| (key, tree))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The place of a field such as `spec.nodes[0].name`: of its value or, where the document does not have it, of the nearest
    /// thing around it that it has.
    pub(crate) fn locate(&self, path: &str) -> Mark {
        let (mut tree, mut mark) = (self, self.mark);
        for step in steps(path) {
            let found = match step {
                Step::Index(index) => match &tree.value {
                    Value::List(items) => items.get(index).map(|item| (item.mark, item)),
                    _ => None,
                },
                // A key is a better place than a whole block below it.
                Step::Name(name) => tree.entry(name).map(|(key, tree)| {
                    let block = matches!(tree.value, Value::Map(_) | Value::List(_) | Value::Null);
                    (if block { key.mark } else { tree.mark }, tree)
                }),
            };
            let Some((at, next)) = found else { return mark };
            (mark, tree) = (at, next);
        }
        mark
    }
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// The steps of `spec.nodes[0].config["app.toml"]`.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (index, more) = match inner.strip_prefix('"').and_then(|quoted| quoted.split_once("\"]")) {
                Some(found) => found,
                None => inner.split_once(']').unwrap_or((inner, "")),
            };
            steps.push(index.parse().map_or(Step::Name(index), Step::Index));
            rest = more;
        } else {
            let rest_of_path = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of_path.find(['.', '[']).unwrap_or(rest_of_path.len());
            if end > 0 {
                steps.push(Step::Name(&rest_of_path[..end]));
            } else if !rest_of_path.starts_with('[') {
                return steps; // `..` is no path of ours
            }
            rest = &rest_of_path[end..];
        }
    }
    steps
}

/// All documents of the text that hold anything.
pub(crate) fn parse(source: &Source) -> Result<Vec<Tree>, DocumentError> {
    if source.text.len() as u64 > MAX_BYTES {
        return Err(DocumentError::whole(source, format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_documents: 256, max_aliases: 1_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS, max_replay_stack_depth: 16 },
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    };
    let trees: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(&source.text, options).map_err(|error| syntax_error(source, &error))?;
    let trees = trees.into_iter().map(|node| Tree::from_spanned(node, &source.text));
    Ok(trees.filter(|tree| !matches!(tree.value, Value::Null)).collect())
}

fn syntax_error(source: &Source, error: &serde_saphyr::Error) -> DocumentError {
    let error = innermost(error);
    let mark = error.location().map_or_else(Mark::default, |location| Mark::new(location, &source.text));
    use serde_saphyr::Error as E;
    let (message, help) = match error {
        E::DuplicateMappingKey { key: Some(key), .. } => (format!("`{key}` stands twice in one map"), Some("remove one of the two".to_owned())),
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. }
        | E::AliasReplayCounterOverflow { .. } => {
            (format!("the document is too large, too deep or grows too much through aliases ({})", plain(error)), None)
        }
        _ => (plain(error), None),
    };
    DocumentError::new(source, mark, message, help)
}

/// Past the wrappers that say where an alias stands: our report shows one place.
fn innermost(error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    match error.without_snippet() {
        serde_saphyr::Error::AliasError { error, .. } => innermost(error),
        error => error,
    }
}

/// The library's message without its "at line …" tail: the report has the place already.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    match text.find(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}

impl Mark {
    fn new(location: Location, text: &str) -> Self {
        let line = usize::try_from(location.line()).unwrap_or(0);
        let column = usize::try_from(location.column()).unwrap_or(0);
        let span = location.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        let (offset, len) = match bytes {
            Some((offset, len)) => (usize::try_from(offset).unwrap_or(0), usize::try_from(len).unwrap_or(0)),
            None => (byte_offset(text, line, column), 0),
        };
        let offset = offset.min(text.len());
        Self { line, column, offset, len: len.min(text.len() - offset) }
    }
}

fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start..];
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

impl Tree {
    fn from_spanned(node: Spanned<Node>, text: &str) -> Self {
        let value = match node.value {
            Node::Scalar(value) => value,
            Node::List(items) => Value::List(items.into_iter().map(|item| Self::from_spanned(item, text)).collect()),
            Node::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Key { mark: Mark::new(key.referenced, text), name: key.value }, Self::from_spanned(value, text)))
                    .collect(),
            ),
        };
        Self { mark: Mark::new(node.referenced, text), defined: Mark::new(node.defined, text), value }
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Unsigned(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Signed(value)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Float(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Text(value.to_owned())))
    }
    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Text(value)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
