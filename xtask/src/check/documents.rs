//! ARCHITECTURE.md names only what exists: a map with vanished places misleads, and so does an invariant whose test is gone.

use super::Findings;
use anyhow::{Context, Result};
use std::{collections::BTreeSet, fs, path::Path};

const DOCUMENT: &str = "ARCHITECTURE.md";
const ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".proto", ".yaml", ".sql"];

pub(super) fn check(root: &Path) -> Result<Findings> {
    let text = fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let mut paths = BTreeSet::new();
    walk(root, root, &mut paths)?;
    let mut findings = missing(&text, &paths);
    let mut functions = BTreeSet::new();
    for path in super::sources::rust_files(root)? {
        let source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        functions.extend(source.split("fn ").skip(1).map(|rest| name(rest).to_owned()));
    }
    findings.faults.extend(vanished_tests(&text, &functions));
    Ok(findings)
}

/// Names of tests are sentences: that is how they are told from other words in backticks.
fn vanished_tests(text: &str, functions: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() >= 4 && name(word) == *word);
        for word in words.filter(|word| !functions.contains(*word)) {
            faults.push(format!("{DOCUMENT}:{}: no function is named `{word}`", number + 1));
        }
    }
    faults
}

/// The identifier at the beginning.
fn name(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// All files and folders, relative to the root.
fn walk(root: &Path, folder: &Path, paths: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        paths.insert(entry.path().strip_prefix(root)?.to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), paths)?;
        }
    }
    Ok(())
}

fn missing(text: &str, paths: &BTreeSet<String>) -> Findings {
    let mut findings = Findings::default();
    for (number, line) in text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2).filter(|word| is_path(word, paths)) {
            let word = word.trim_end_matches('/');
            let ending = format!("/{word}");
            if !paths.iter().any(|path| path == word || path.ends_with(&ending)) {
                findings.fault(format!("{DOCUMENT}:{}: `{word}` does not exist", number + 1));
            }
        }
    }
    findings
}

/// A file's name by its ending, or a path whose first part is one of ours; not `/proc/self`, `$HOME/x` or `mynet/validator-0`.
fn is_path(word: &str, paths: &BTreeSet<String>) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) && !word.starts_with(['/', '.', '-']);
    let named = ENDINGS.iter().any(|ending| word.ends_with(ending));
    let ours = word.split_once('/').is_some_and(|(first, _)| paths.contains(first));
    plain && (named || ours || word.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_exists_may_be_named() {
        let paths = ["proto", "proto/devnet/v1", "supervisor", "supervisor/src/api", "supervisor/src/api/convert.rs", "supervisor/src/a/plan.rs"]
            .map(str::to_owned);
        let paths = BTreeSet::from(paths);
        let check = |text: &str, want: usize| assert_eq!(missing(text, &paths).faults.len(), want, "{text}");
        check("`plan.rs` and `api/convert.rs` and `proto/` and `supervisor/src/api`", 0);
        check("`mynet/validator-0`, `/proc/self/fd.rs`, `spec.operations.*`, `$HOME/x/`", 0);
        check("`gone.rs`", 1);
        check("`supervisor/src/gone`\n`gone/`", 2);
        check("gone.rs", 0);
    }

    #[test]
    fn an_invariant_names_a_test_that_is_there() {
        let functions = BTreeSet::from(["it_is_there_and_it_runs".to_owned()]);
        assert_eq!(vanished_tests("`it_is_there_and_it_runs`, `store`, `DVB_A_B_C_D=1`", &functions), Vec::<String>::new());
        assert_eq!(vanished_tests("\n`it_is_gone_for_a_week`", &functions).len(), 1);
    }
}
