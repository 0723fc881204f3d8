//! Edits a JSON document of any size while it flows by: what lies between the edits is copied, but for its blanks, and never held.
//!
//! Memory is that of the edits, of one buffer, and of one value at a time that somebody wants to see, so that a genesis of half a gigabyte (an export of a live chain) can be changed
//! on a small machine. What is copied is not checked beyond its brackets and strings; the chain reads it anyway.

use serde_json::{Map, Value};
use std::io::{self, BufRead, Write};

/// Member names are short; more is no genesis.
const LONGEST_NAME: usize = 64 << 10;
/// Bytes of a value that is looked at whole.
const LARGEST_SEEN: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("cannot read or write the document: {0}")]
    Io(#[from] io::Error),
    #[error("the document is no JSON at byte {at}: {reason}")]
    Syntax { at: u64, reason: &'static str },
    #[error("{path} is no {wanted}, so nothing can be added to it")]
    Kind { path: String, wanted: &'static str },
    #[error("{path}: {reason}")]
    Seen { path: String, reason: String },
}

/// Gets the text of a value; answers what is to stand there instead, if anything, or why it cannot be so.
pub type Visitor<'a> = Box<dyn FnMut(&[u8]) -> Result<Option<Value>, String> + 'a>;

/// What is done to a value.
pub enum Edit<'a> {
    Set(Value),
    Remove,
    /// More items for a list; a missing one or null counts as empty.
    Append(Vec<Value>),
    /// Edits of an object's members; anything else becomes an object first.
    Members(Vec<(String, Edit<'a>)>),
    /// What the visitor makes of the value, which may have 8 MiB.
    Visit(Visitor<'a>),
    /// The same for each item of a list, then more items.
    Each(Visitor<'a>, Vec<Value>),
}

impl<'a> Edit<'a> {
    /// Edits of an object's members.
    pub fn members<const N: usize>(members: [(&str, Edit<'a>); N]) -> Self {
        Self::Members(members.map(|(name, edit)| (name.to_owned(), edit)).into())
    }

    /// What a JSON merge patch (RFC 7396) does.
    pub fn merge(patch: Value) -> Self {
        match patch {
            Value::Null => Self::Remove,
            Value::Object(members) => Self::Members(members.into_iter().map(|(name, patch)| (name, Self::merge(patch))).collect()),
            other => Self::Set(other),
        }
    }

    /// What it makes of a value that is not there; none when nothing is to be there.
    fn made_of_nothing(&self) -> Option<Value> {
        match self {
            Self::Remove => None,
            Self::Set(value) => Some(value.clone()),
            Self::Visit(_) => None,
            Self::Append(items) | Self::Each(_, items) => Some(Value::Array(items.clone())),
            Self::Members(members) => {
                let made = members.iter().filter_map(|(name, edit)| Some((name.clone(), edit.made_of_nothing()?)));
                Some(Value::Object(made.collect::<Map<_, _>>()))
            }
        }
    }
}

/// Copies one JSON document from `from` to `to`, edited.
pub fn edit(from: impl BufRead, to: impl Write, edit: &mut Edit<'_>) -> Result<(), StreamError> {
    let mut stream = Stream { from, to, at: 0 };
    match edit {
        Edit::Remove => return Err(StreamError::Syntax { at: 0, reason: "a whole document cannot be removed" }),
        edit => stream.value(edit, &mut String::new())?,
    }
    if stream.peek()?.is_some() {
        return Err(stream.syntax("something follows its end"));
    }
    Ok(stream.to.flush()?)
}

struct Stream<R, W> {
    from: R,
    to: W,
    /// Bytes read.
    at: u64,
}

impl<R: BufRead, W: Write> Stream<R, W> {
    /// The next value, edited; `path` is where it stands.
    fn value(&mut self, edit: &mut Edit<'_>, path: &mut String) -> Result<(), StreamError> {
        let next = self.peek()?;
        match edit {
            Edit::Remove => self.pass(false),
            Edit::Set(value) => {
                self.pass(false)?;
                self.write(value)
            }
            Edit::Visit(visitor) => self.visit(visitor, path),
            Edit::Append(items) if next == Some(b'[') => self.list(None, items, path),
            Edit::Each(visitor, items) if next == Some(b'[') => self.list(Some(visitor), items, path),
            Edit::Append(_) | Edit::Each(..) if next != Some(b'n') => Err(StreamError::Kind { path: path.clone(), wanted: "list" }),
            Edit::Members(members) if next == Some(b'{') => self.object(members, path),
            Edit::Append(_) | Edit::Each(..) | Edit::Members(_) => {
                self.pass(false)?;
                self.write(&edit.made_of_nothing().unwrap_or_default())
            }
        }
    }

    fn object(&mut self, members: &mut [(String, Edit<'_>)], path: &mut String) -> Result<(), StreamError> {
        self.take(b'{')?;
        self.to.write_all(b"{")?;
        let mut seen = vec![false; members.len()];
        let mut first = true;
        while self.peek()? != Some(b'}') {
            let name = self.name()?;
            let known = members.iter().position(|(wanted, _)| *wanted == name);
            let edit = known.map(|index| {
                seen[index] = true;
                &mut members[index].1
            });
            if matches!(edit, Some(Edit::Remove)) {
                self.pass(false)?;
            } else {
                self.begin_member(&mut first, &name)?;
                let length = path.len();
                match edit {
                    Some(edit) => {
                        path.push('.');
                        path.push_str(&name);
                        self.value(edit, path)?;
                        path.truncate(length);
                    }
                    None => self.pass(true)?,
                }
            }
            self.separator(b'}')?;
        }
        self.take(b'}')?;
        for ((name, edit), _) in members.iter().zip(seen).filter(|(_, seen)| !seen) {
            if let Some(value) = edit.made_of_nothing() {
                self.begin_member(&mut first, name)?;
                self.write(&value)?;
            }
        }
        Ok(self.to.write_all(b"}")?)
    }

    fn list(&mut self, mut visitor: Option<&mut Visitor<'_>>, items: &[Value], path: &str) -> Result<(), StreamError> {
        self.take(b'[')?;
        self.to.write_all(b"[")?;
        let mut first = true;
        while self.peek()? != Some(b']') {
            self.comma(&mut first)?;
            match &mut visitor {
                Some(visitor) => self.visit(visitor, path)?,
                None => self.pass(true)?,
            }
            self.separator(b']')?;
        }
        self.take(b']')?;
        for item in items {
            self.comma(&mut first)?;
            self.write(item)?;
        }
        Ok(self.to.write_all(b"]")?)
    }

    /// Holds the next value, and writes what the visitor makes of it.
    fn visit(&mut self, visitor: &mut Visitor<'_>, path: &str) -> Result<(), StreamError> {
        let mut held = Stream { from: &mut self.from, to: Held(Vec::new()), at: self.at };
        let whole = held.pass(true);
        let (text, at) = (held.to.0, held.at);
        self.at = at;
        whole?;
        match visitor(&text).map_err(|reason| StreamError::Seen { path: path.to_owned(), reason })? {
            Some(value) => self.write(&value),
            None => Ok(self.to.write_all(&text)?),
        }
    }

    fn begin_member(&mut self, first: &mut bool, name: &str) -> Result<(), StreamError> {
        self.comma(first)?;
        self.write(&Value::String(name.to_owned()))?;
        Ok(self.to.write_all(b":")?)
    }

    fn comma(&mut self, first: &mut bool) -> Result<(), StreamError> {
        if !std::mem::take(first) {
            self.to.write_all(b",")?;
        }
        Ok(())
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Result<String, StreamError> {
        if self.peek()? != Some(b'"') {
            return Err(self.syntax("a member's name is missing"));
        }
        let mut text = Vec::new();
        self.string(&mut text, LONGEST_NAME)?;
        let name = serde_json::from_slice(&text).map_err(|_| self.syntax("a member's name is unreadable"))?;
        self.peek()?;
        self.take(b':')?;
        Ok(name)
    }

    /// A comma, unless the end follows.
    fn separator(&mut self, end: u8) -> Result<(), StreamError> {
        match self.peek()? {
            Some(b',') => {
                self.take(b',')?;
                if self.peek()? == Some(end) { Err(self.syntax("a value is missing after a comma")) } else { Ok(()) }
            }
            Some(next) if next == end => Ok(()),
            _ => Err(self.syntax("a comma or an end is missing")),
        }
    }

    /// The next value whole: copied or left out.
    fn pass(&mut self, copy: bool) -> Result<(), StreamError> {
        let mut depth = 0_u64;
        loop {
            match self.peek()?.ok_or_else(|| self.syntax("it breaks off"))? {
                b'"' if copy => self.copy_string()?,
                b'"' => self.skip_string()?,
                open @ (b'{' | b'[') => {
                    self.step(open, copy)?;
                    depth += 1;
                }
                close @ (b'}' | b']') if depth > 0 => {
                    self.step(close, copy)?;
                    depth -= 1;
                }
                between @ (b',' | b':') if depth > 0 => self.step(between, copy)?,
                b',' | b':' | b'}' | b']' => return Err(self.syntax("a value is missing")),
                _ => self.run(copy, |byte| !matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b',' | b':') && !byte.is_ascii_whitespace())?,
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn step(&mut self, byte: u8, copy: bool) -> Result<(), StreamError> {
        self.take(byte)?;
        if copy {
            self.to.write_all(&[byte])?;
        }
        Ok(())
    }

    /// Bytes as long as they belong to a number or a word.
    fn run(&mut self, copy: bool, belongs: impl Fn(u8) -> bool) -> Result<(), StreamError> {
        loop {
            let buffer = self.from.fill_buf()?;
            let length = buffer.iter().position(|byte| !belongs(*byte)).unwrap_or(buffer.len());
            if copy {
                self.to.write_all(&buffer[..length])?;
            }
            let more = length == buffer.len() && length > 0;
            self.consume(length);
            if !more {
                return Ok(());
            }
        }
    }

    fn copy_string(&mut self) -> Result<(), StreamError> {
        let Self { from, to, at } = self;
        string(from, to, at, usize::MAX)
    }

    fn skip_string(&mut self) -> Result<(), StreamError> {
        self.string(&mut io::sink(), usize::MAX)
    }

    fn string(&mut self, into: &mut impl Write, longest: usize) -> Result<(), StreamError> {
        string(&mut self.from, into, &mut self.at, longest)
    }

    /// The next byte that is no blank, without taking it.
    fn peek(&mut self) -> Result<Option<u8>, StreamError> {
        loop {
            let buffer = self.from.fill_buf()?;
            let Some(length) = buffer.iter().position(|byte| !byte.is_ascii_whitespace()) else {
                let length = buffer.len();
                if length == 0 {
                    return Ok(None);
                }
                self.consume(length);
                continue;
            };
            let next = buffer[length];
            self.consume(length);
            return Ok(Some(next));
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), StreamError> {
        if self.from.fill_buf()?.first() != Some(&byte) {
            return Err(self.syntax("a bracket or colon is missing"));
        }
        self.consume(1);
        Ok(())
    }

    fn write(&mut self, value: &Value) -> Result<(), StreamError> {
        Ok(serde_json::to_writer(&mut self.to, value).map_err(io::Error::from)?)
    }

    fn consume(&mut self, length: usize) {
        self.from.consume(length);
        self.at += length as u64;
    }

    fn syntax(&self, reason: &'static str) -> StreamError {
        StreamError::Syntax { at: self.at, reason }
    }
}

/// A value on its way to a visitor.
struct Held(Vec<u8>);

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST_SEEN {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("one value has more than {} MiB", LARGEST_SEEN >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A string with its quotes, which may be longer than memory.
fn string(from: &mut impl BufRead, into: &mut impl Write, at: &mut u64, longest: usize) -> Result<(), StreamError> {
    let (mut opened, mut escaped, mut length) = (false, false, 0);
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Err(StreamError::Syntax { at: *at, reason: "a string breaks off" });
        }
        let end = buffer.iter().position(|byte| match byte {
            _ if std::mem::take(&mut escaped) => false,
            b'\\' => {
                escaped = true;
                false
            }
            b'"' => std::mem::replace(&mut opened, true),
            _ => false,
        });
        let taken = end.map_or(buffer.len(), |end| end + 1);
        into.write_all(&buffer[..taken])?;
        from.consume(taken);
        *at += taken as u64;
        length += taken;
        if length > longest {
            return Err(StreamError::Syntax { at: *at, reason: "a member's name is endless" });
        }
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::io::BufReader;

    /// With buffers of every small size, so that each token is torn somewhere.
    fn edited(text: &str, edits: &mut Edit<'_>) -> Result<String, StreamError> {
        let mut results = [1, 2, 3, 7, 4096].map(|capacity| {
            let mut out = Vec::new();
            edit(BufReader::with_capacity(capacity, text.as_bytes()), &mut out, &mut *edits).map(|()| String::from_utf8(out).unwrap())
        });
        let last = std::mem::replace(&mut results[4], Ok(String::new()));
        for result in &results[..4] {
            assert_eq!(result.as_ref().ok(), last.as_ref().ok());
        }
        last
    }

    #[test]
    fn lists_grow_members_change_and_the_rest_stays_as_it_was_written() {
        let text = r#" {"a": {"list": [1, {"x": "]\"}"}], "none": null}, "big": 1.0000000000000000001, "old": [[]], "b": "\u0041\\"} "#;
        let within = vec![
            ("list".to_owned(), Edit::Append(vec![json!(2), json!({"y": []})])),
            ("none".to_owned(), Edit::Append(vec![json!(3)])),
            ("new".to_owned(), Edit::Append(vec![])),
        ];
        let mut edits = Edit::Members(vec![
            ("a".into(), Edit::Members(within)),
            ("old".into(), Edit::Remove),
            ("chain_id".into(), Edit::Set(json!("x-1"))),
            ("gone".into(), Edit::Remove),
        ]);
        let expect = r#"{"a":{"list":[1,{"x":"]\"}"},2,{"y":[]}],"none":[3],"new":[]},"big":1.0000000000000000001,"b":"\u0041\\","chain_id":"x-1"}"#;
        assert_eq!(edited(text, &mut edits).unwrap(), expect);
    }

    #[test]
    fn what_is_no_json_and_what_cannot_grow_is_refused() {
        let mut grow = Edit::Members(vec![("a".into(), Edit::Members(vec![("b".into(), Edit::Append(vec![json!(1)]))]))]);
        let mut check = |text: &str, expect: &str| {
            let error = edited(text, &mut grow).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        };
        check(r#"{"a": {"b": "text"}}"#, ".a.b is no list");
        check(r#"{"a": {"b": [1, 2"#, "a comma or an end is missing");
        check(r#"{"a": {"b": [1,]}}"#, "a value is missing after a comma");
        check(r#"{"c": "endless"#, "a string breaks off");
        check(r#"{"c": {"d": 1"#, "it breaks off");
        check(r#"{"c" 1}"#, "a bracket or colon is missing");
        check(r#"{c: 1}"#, "a member's name is missing");
        check(r#"{"c": }"#, "a value is missing");
        check("{} {}", "something follows its end");
    }

    #[test]
    fn a_visitor_sees_values_as_they_were_written_and_changes_those_that_it_wants() {
        let text = r#"{"n": 1.0000000000000000001, "list": [{"a": 1}, "two", [3]], "none": null}"#;
        let seen = std::cell::RefCell::new(Vec::new());
        let see = |text: &[u8]| -> Result<Option<Value>, String> {
            seen.borrow_mut().push(String::from_utf8(text.to_vec()).unwrap());
            Ok((text == b"\"two\"").then(|| json!(2)))
        };
        let visit = || -> Visitor<'_> { Box::new(see) };
        let more = || vec![json!("more")];
        let mut edits = Edit::members([
            ("n", Edit::Visit(visit())),
            ("list", Edit::Each(visit(), more())),
            ("none", Edit::Each(visit(), more())),
            ("new", Edit::Each(visit(), more())),
            ("gone", Edit::Visit(visit())),
        ]);
        let expect = r#"{"n":1.0000000000000000001,"list":[{"a":1},2,[3],"more"],"none":["more"],"new":["more"]}"#;
        assert_eq!(edited(text, &mut edits).unwrap(), expect);
        drop(edits);
        assert_eq!(seen.borrow()[..4], ["1.0000000000000000001", r#"{"a":1}"#, "\"two\"", "[3]"]);
    }

    #[test]
    fn what_a_visitor_refuses_is_named_and_what_is_too_large_for_it_as_well() {
        let large = format!(r#"{{"a": {{"list": [1, "{}"]}}}}"#, "x".repeat(LARGEST_SEEN));
        let refused = |text: &str, answer: Result<Option<Value>, String>| {
            let each = Edit::Each(Box::new(move |_| answer.clone()), Vec::new());
            edit(text.as_bytes(), io::sink(), &mut Edit::members([("a", Edit::members([("list", each)]))])).unwrap_err().to_string()
        };
        assert_eq!(refused(r#"{"a": {"list": [1]}}"#, Err("is odd".into())), ".a.list: is odd");
        assert!(refused(&large, Ok(None)).ends_with("one value has more than 8 MiB"));
        assert!(refused(r#"{"a": {"list": {}}}"#, Ok(None)).contains(".a.list is no list"));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\ä ]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-d]", inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_merge_patch_does_to_a_stream_what_it_does_to_a_value(document in json_value(), patch in json_value(), pretty: bool) {
            prop_assume!(!patch.is_null());
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            let streamed: Value = serde_json::from_str(&edited(&text, &mut Edit::merge(patch.clone())).unwrap()).unwrap();
            let mut merged = document;
            dvb_plugin_sdk::merge(&mut merged, &patch);
            prop_assert_eq!(streamed, merged);
        }
    }
}
