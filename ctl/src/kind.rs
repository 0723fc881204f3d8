//! The words for kinds: singular, plural and short.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Devnet,
    Node,
    Upgrade,
    Transaction,
    Export,
    Event,
    Launch,
    Plugin,
    Port,
    Binary,
}

const WORDS: [(Kind, &[&str]); 10] = [
    (Kind::Devnet, &["devnets", "devnet", "dn"]),
    (Kind::Node, &["nodes", "node", "no"]),
    (Kind::Upgrade, &["upgrades", "upgrade", "up"]),
    (Kind::Transaction, &["transactions", "transaction", "txs", "tx"]),
    (Kind::Export, &["exports", "export", "ex"]),
    (Kind::Event, &["events", "event", "ev"]),
    (Kind::Launch, &["launches", "launch"]),
    (Kind::Plugin, &["plugins", "plugin"]),
    (Kind::Port, &["ports", "port"]),
    (Kind::Binary, &["binaries", "binary"]),
];

/// A word that is less alike than this (0 to 1) is no suggestion.
const ALIKE: f64 = 0.75;

impl Kind {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        WORDS.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(kind, _)| *kind)
    }

    /// What a name names that comes without a kind: `a` a devnet, `a/tx-...` a transaction, `a/b` a node.
    pub(crate) fn of(name: &str) -> Self {
        match name.split_once('/') {
            None => Self::Devnet,
            Some((_, short)) if short.strip_prefix("tx-").is_some_and(|id| id.len() == 16 && id.bytes().all(|c| c.is_ascii_hexdigit())) => {
                Self::Transaction
            }
            Some(_) => Self::Node,
        }
    }

    /// The plural.
    pub(crate) fn word(self) -> &'static str {
        WORDS.iter().find(|(kind, _)| *kind == self).map_or("objects", |(_, words)| words[0])
    }

    /// The plurals.
    pub(crate) fn all() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(_, words)| words[0])
    }

    /// The plural of the kind that a mistyped word is most like.
    pub(crate) fn nearest(word: &str) -> Option<&'static str> {
        let word = word.to_ascii_lowercase();
        let alike = |known: &str| strsim::jaro_winkler(&word, known);
        let (likeness, kind) = Self::all().map(|known| (alike(known), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
        (likeness > ALIKE).then_some(kind)
    }
}

/// Splits `[KIND] [NAME...]`; a first word that is no kind is a name.
pub(crate) fn split(words: &[String]) -> (Option<Kind>, &[String]) {
    let kind = words.first().and_then(|word| Kind::parse(word));
    (kind, if kind.is_some() { &words[1..] } else { words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_plural_singular_and_short_forms() {
        for (word, expect) in
            [("dn", Kind::Devnet), ("no", Kind::Node), ("up", Kind::Upgrade), ("tx", Kind::Transaction), ("ex", Kind::Export), ("ev", Kind::Event)]
        {
            assert_eq!(Kind::parse(word), Some(expect));
        }
        assert_eq!(Kind::parse("Launches"), Some(Kind::Launch));
        assert_eq!(Kind::parse("mynet"), None);
    }

    #[test]
    fn a_first_word_that_is_no_kind_is_a_name() {
        let words = ["mynet".to_owned(), "other".to_owned()];
        assert_eq!(split(&words), (None, words.as_slice()));
        let words = ["nodes".to_owned(), "mynet".to_owned()];
        assert_eq!(split(&words), (Some(Kind::Node), &words[1..]));
    }

    #[test]
    fn a_name_tells_what_it_names() {
        for (name, expect) in
            [("a", Kind::Devnet), ("a/validator-0", Kind::Node), ("a/tx-0123456789abcdef", Kind::Transaction), ("a/tx-1", Kind::Node)]
        {
            assert_eq!(Kind::of(name), expect, "{name}");
        }
    }

    #[test]
    fn a_mistyped_kind_has_a_nearest_one() {
        assert_eq!(Kind::nearest("nods"), Some("nodes"));
        assert_eq!(Kind::nearest("evets"), Some("events"));
        assert_eq!(Kind::nearest("pods"), Some("ports"));
        assert_eq!(Kind::nearest("chain"), None);
    }
}
