//! The layer table of the supervisor: a module uses those below it and no sibling; protobuf types stay at the two edges.
//!
//! The table is the one in `supervisor/src/lib.rs`. Paths are found in the token stream, so comments and strings do not count and
//! code within macro calls does.

use super::Findings;
use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where generated types of `devnet.v1` and `plugin.v1` may be named.
const PROTOBUF_PLACES: [&str; 2] = ["api/", "plugin/client"];

/// Siblings that may be used all the same: by whom, whom, and why is said beside it.
const EXCEPTIONS: [(&str, &str); 1] = [
    // The clock gives `model::Timestamp`; model itself uses nothing.
    ("sys", "model"),
];

/// A path that begins at a crate: which, the next name, and the line.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    of: String,
    name: String,
    line: usize,
}

pub(super) fn check(root: &Path) -> Result<Findings> {
    let source = root.join("supervisor/src");
    let lib = read(&source.join("lib.rs"))?;
    let layers = layers(&lib);
    if layers.is_empty() {
        bail!("{} has no layer table", source.join("lib.rs").display());
    }
    let mut findings = Findings::default();
    for module in modules(&lib).into_iter().filter(|module| !layers.contains_key(module)) {
        findings.fault(format!("supervisor/src/lib.rs: module {module} is not in the layer table"));
    }
    for path in super::sources::rust_files(&source)? {
        let short = path.strip_prefix(&source)?.to_string_lossy().into_owned();
        let tokens = parse(&read(&path)?).with_context(|| format!("cannot read {}", path.display()))?;
        for fault in faults(&short, tokens, &layers) {
            findings.fault(format!("supervisor/src/{fault}"));
        }
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(text: &str) -> Result<TokenStream> {
    text.parse().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Module to layer, from the table in the crate's documentation.
fn layers(lib: &str) -> BTreeMap<String, u32> {
    let mut layers = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | L")) {
        let Some((number, names)) = row.split_once('|') else { continue };
        let Ok(number) = number.trim().parse() else { continue };
        layers.extend(names.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), number)));
    }
    layers
}

fn modules(lib: &str) -> Vec<String> {
    let words = |line: &str| line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned);
    lib.lines().filter_map(words).collect()
}

fn faults(short: &str, tokens: TokenStream, layers: &BTreeMap<String, u32>) -> Vec<String> {
    let parts = module_path(short);
    let mut uses = Vec::new();
    collect(tokens, parts.len(), &mut uses);
    let own = parts.first().and_then(|module| Some((module.as_str(), *layers.get(module)?)));
    let mut faults = Vec::new();
    for Use { of, name, line } in uses {
        if of == "dvb_proto" {
            let generated = name == "devnet" || name == "plugin";
            if generated && !PROTOBUF_PLACES.iter().any(|place| short.starts_with(place)) {
                faults.push(format!("{short}:{line}: generated type of dvb_proto::{name}; only {} may name those", PROTOBUF_PLACES.join(" and ")));
            }
            continue;
        }
        // lib.rs and main.rs stand outside the table, and so does what is no module.
        let (Some((module, layer)), Some(used)) = (own, layers.get(&name)) else { continue };
        if name != module && *used >= layer && !EXCEPTIONS.contains(&(module, name.as_str())) {
            let direction = if *used == layer { "a sibling" } else { "upward" };
            faults.push(format!("{short}:{line}: {module} (L{layer}) uses {name} (L{used}): {direction}"));
        }
    }
    faults
}

/// `store/sqlite/mod.rs` is `[store, sqlite]`.
fn module_path(short: &str) -> Vec<String> {
    let path = PathBuf::from(short).with_extension("");
    let mut parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || (parts.len() == 1 && (last == "lib" || last == "main"))) {
        parts.pop();
    }
    parts
}

/// Finds `crate::x`, `dvb_proto::x` and `super::…::x` that reach the crate's root from `depth` modules below it.
fn collect(tokens: TokenStream, depth: usize, uses: &mut Vec<Use>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "crate" || word == "dvb_proto" => names_after(&tokens, at + 1, &word.to_string(), uses),
            TokenTree::Ident(word) if word == "super" => {
                let mut supers = 1;
                while is_path(&tokens, at + 1) && matches!(tokens.get(at + 3), Some(TokenTree::Ident(word)) if word == "super") {
                    supers += 1;
                    at += 3;
                }
                if supers == depth {
                    names_after(&tokens, at + 1, "crate", uses);
                }
            }
            TokenTree::Ident(word) if word == "mod" => {
                if let (Some(TokenTree::Ident(_)), Some(TokenTree::Group(group))) = (tokens.get(at + 1), tokens.get(at + 2)) {
                    collect(group.stream(), depth + 1, uses);
                    at += 2;
                }
            }
            TokenTree::Group(group) => collect(group.stream(), depth, uses),
            _ => {}
        }
        at += 1;
    }
}

fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// The name, or the names in braces, behind the `::` at `at`.
fn names_after(tokens: &[TokenTree], at: usize, of: &str, uses: &mut Vec<Use>) {
    if !is_path(tokens, at) {
        return;
    }
    let mut push = |word: &proc_macro2::Ident| uses.push(Use { of: of.to_owned(), name: word.to_string(), line: word.span().start().line });
    match tokens.get(at + 2) {
        Some(TokenTree::Ident(word)) => push(word),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let mut first = true;
            for token in group.stream() {
                match &token {
                    TokenTree::Ident(word) if first => push(word),
                    _ => {}
                }
                first = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',');
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! | layer | modules |\n//! | --- | --- |\n//! | L0 | `model`, `sys` |\n//! | L1 | `store`, `queue` |\n//! | L2 | `plugin` |\n//! | L4 | `api` |\n\npub mod model;\nmod store;\n";

    /// What is wrong with one file of a crate that has the layers above.
    fn check(short: &str, text: &str, want: &[&str]) {
        let got = faults(short, parse(text).unwrap(), &layers(LIB));
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn the_table_is_read_from_the_documentation() {
        let layers = layers(LIB);
        assert_eq!(layers["sys"], 0);
        assert_eq!(layers["api"], 4);
        assert_eq!(layers.len(), 6);
        assert_eq!(modules(LIB), ["model", "store"]);
    }

    #[test]
    fn downward_and_own_paths_are_fine() {
        check("store/memory.rs", "use crate::{model::Key, store::Store, sys};\nuse super::feed::Feed;", &[]);
        check("api/mod.rs", "use crate::plugin::Plugins;\nfn f() { crate::store::g() }", &[]);
        check("lib.rs", "pub mod api;\npub use crate::api::Server;", &[]);
    }

    #[test]
    fn an_upward_or_sideways_path_is_named_with_its_line() {
        check("store/mod.rs", "\nuse crate::plugin::X;", &["store/mod.rs:2: store (L1) uses plugin (L2): upward"]);
        check("queue/mod.rs", "use crate::{model::Key, store::Store};", &["queue/mod.rs:1: queue (L1) uses store (L1): a sibling"]);
        check("store/mod.rs", "fn f() { let x: crate::api::Y = z(); }", &["store/mod.rs:1: store (L1) uses api (L4): upward"]);
        check("store/mod.rs", "fn f() { vec![crate::api::y()] }", &["store/mod.rs:1: store (L1) uses api (L4): upward"]);
    }

    #[test]
    fn super_that_climbs_out_of_the_module_counts() {
        check("store/mod.rs", "use super::plugin::X;", &["store/mod.rs:1: store (L1) uses plugin (L2): upward"]);
        check("store/sqlite/mod.rs", "use super::super::plugin::X;", &["store/sqlite/mod.rs:1: store (L1) uses plugin (L2): upward"]);
        check("store/sqlite/mod.rs", "use super::plugin::X;", &[]);
        check("store/mod.rs", "mod tests { use super::plugin::X; use super::super::api::Y; }", &["store/mod.rs:1: store (L1) uses api (L4): upward"]);
    }

    #[test]
    fn an_exception_holds_in_one_direction() {
        check("sys/clock.rs", "use crate::model::Timestamp;", &[]);
        check("model/mod.rs", "use crate::sys::Clock;", &["model/mod.rs:1: model (L0) uses sys (L0): a sibling"]);
    }

    #[test]
    fn comments_strings_and_visibilities_do_not_count() {
        check("store/mod.rs", "// crate::api\n/* crate::plugin */ pub(crate) fn f() -> &'static str { \"crate::api::x\" }", &[]);
    }

    #[test]
    fn generated_types_stay_at_the_edges() {
        let text = "use dvb_proto::{endpoint, plugin::v1};";
        check("plugin/client.rs", text, &[]);
        check("plugin/client/replies.rs", text, &[]);
        check("api/convert.rs", text, &[]);
        check("plugin/host.rs", "use dvb_proto::endpoint::home_hash;", &[]);
        check("plugin/host.rs", text, &["plugin/host.rs:1: generated type of dvb_proto::plugin; only api/ and plugin/client may name those"]);
    }

    #[test]
    fn a_small_tree_is_checked_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("supervisor/src");
        fs::create_dir_all(source.join("store")).unwrap();
        fs::write(source.join("lib.rs"), format!("{LIB}pub mod odd;\n")).unwrap();
        fs::write(source.join("store/mod.rs"), "use crate::api::X;\n").unwrap();
        let faults = super::check(dir.path()).unwrap().faults;
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("module odd is not in the layer table"));
        assert!(faults[1].starts_with("supervisor/src/store/mod.rs:1:"));
    }
}
