//! What serde says of a value that does not fit, in the words of YAML and JSON.

/// `invalid type: integer `7`, expected a map at line 1 column 1` becomes `expected a map of fields, found `7``; what is said otherwise
/// stays as it is. The place inside of a text of one line is left out: whoever shows the message says where.
#[must_use]
pub fn plain(message: &str) -> String {
    match without_place(message) {
        (said, None) => reworded(said),
        (said, Some(place)) if place.starts_with("1 ") => reworded(said),
        (said, Some(place)) => format!("{} at line {place}", reworded(said)),
    }
}

fn reworded(message: &str) -> String {
    for begin in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, wanted)) = message.strip_prefix(begin).and_then(|rest| rest.rsplit_once(", expected ")) {
            return format!("expected {}, found {}", expected(wanted), self::found(found));
        }
    }
    if let Some((name, known)) = message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected ")) {
        return format!("expected {}, found {name}", one_of(known));
    }
    if let Some((name, known)) = message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected ")) {
        return format!("unknown field {name}; there are {}", one_of(known).trim_start_matches("one of "));
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("{name} is missing");
    }
    if let Some(name) = message.strip_prefix("duplicate field ") {
        return format!("{name} stands there twice");
    }
    message.to_owned()
}

/// What is said, and the line with its column.
fn without_place(message: &str) -> (&str, Option<&str>) {
    let Some((said, place)) = message.rsplit_once(" at line ") else { return (message, None) };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match place.split_once(" column ") {
        Some((line, column)) if is_number(line) && is_number(column) => (said, Some(place)),
        _ => (message, None),
    }
}

/// A type of Rust, or words of serde's own.
fn expected(wanted: &str) -> String {
    let whole = |max: u64| format!("a whole number from 0 to {max}");
    match wanted {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => whole(u64::MAX),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a string" | "string" | "a borrowed string" => "a text".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "a map of fields".into(),
        "unit" => "nothing".into(),
        _ if wanted.starts_with("struct ") => "a map of fields".into(),
        _ => wanted.to_owned(),
    }
}

fn found(found: &str) -> String {
    match found {
        "map" => return "a map of fields".into(),
        "sequence" => return "a list".into(),
        "null" | "unit value" | "Option value" => return "nothing".into(),
        _ => {}
    }
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text `{}`", text.trim_matches('"'));
    }
    ["integer ", "floating point ", "boolean "].iter().find_map(|kind| found.strip_prefix(kind)).unwrap_or(found).to_owned()
}

/// `one of `a`, `b``, or `` `a` or `b` ``
fn one_of(known: &str) -> String {
    let plain = known.replace('`', "");
    match plain.strip_prefix("one of ") {
        Some(names) => format!("one of {names}"),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn no_word_of_rust_is_left() {
        let check = |said: &str, expect: &str| assert_eq!(plain(said), expect, "{said}");
        check("invalid type: integer `7`, expected a map at line 1 column 1", "expected a map of fields, found `7`");
        check("invalid value: integer `99999`, expected u16", "expected a whole number from 0 to 65535, found `99999`");
        check("invalid type: string \"x\", expected a sequence at line 1 column 9", "expected a list, found the text `x`");
        check("invalid type: map, expected a string", "expected a text, found a map of fields");
        check("invalid type: null, expected struct Intent", "expected a map of fields, found nothing");
        check("unknown variant `up`, expected `running` or `stopped`", "expected running or stopped, found `up`");
        check("unknown variant `x`, expected one of `a`, `b`, `c`", "expected one of a, b, c, found `x`");
        check("unknown field `too`, expected one of `to`, `type` at line 1 column 9", "unknown field `too`; there are to, type");
        check("missing field `name`", "`name` is missing");
        check("`lots` is not a size", "`lots` is not a size");
        check(
            "invalid type: string \"a, expected b\", expected u16 at line 3 column 4",
            "expected a whole number from 0 to 65535, found the text `a, expected b` at line 3 column 4",
        );
        check("EOF while parsing an object at line 3 column 1", "EOF while parsing an object at line 3 column 1");
    }
}
