//! Every Rust file: its first line says what it is, and it is not too long. Every committed file: no name of one machine.

use super::Findings;
use crate::run;
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Beyond the first a warning, beyond the second a fault.
const LONG: usize = 500;
const TOO_LONG: usize = 800;
/// What a machine on which this was written has, and others have not. In parts, so that this file passes its own check.
const MACHINE_NAMES: [&str; 2] = [concat!("/wo", "rk/"), concat!(".lib", "rary")];

pub(super) fn check(root: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    for path in rust_files(root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        check_file(&path.strip_prefix(root)?.to_string_lossy(), &text, &mut findings);
    }
    Ok(findings)
}

fn check_file(short: &str, text: &str, findings: &mut Findings) {
    if !text.starts_with("//! ") {
        findings.fault(format!("{short}:1: does not begin with a `//!` sentence that says what it is"));
    }
    match text.lines().count() {
        lines if lines > TOO_LONG => findings.fault(format!("{short}: {lines} lines; split it (at most {TOO_LONG})")),
        lines if lines > LONG => findings.warnings.push(format!("{short}: {lines} lines; about {LONG} is the aim")),
        _ => {}
    }
}

pub(super) fn check_names(root: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    let Some(files) = run::captured(run::program("git", root, &["ls-files", "-z"])).ok().filter(|output| output.status.success()) else {
        findings.skipped = Some("this is no git checkout".to_owned());
        return Ok(findings);
    };
    for short in String::from_utf8_lossy(&files.stdout).split('\0').filter(|short| !short.is_empty()) {
        // Binary files, and files that are committed but deleted here, have no lines to show.
        let Ok(text) = fs::read_to_string(root.join(short)) else { continue };
        find_names(short, &text, &mut findings);
    }
    Ok(findings)
}

fn find_names(short: &str, text: &str, findings: &mut Findings) {
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = MACHINE_NAMES.iter().find(|name| names(line, name)) {
            findings.fault(format!("{short}:{}: names `{name}`, which only one machine has", number + 1));
        }
    }
}

/// True when the line has the name as a word of its own: `staging` before a folder makes it another, relative path.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.}>)".contains(before)))
}

/// All `.rs` files below a folder, sorted; build output and hidden folders left out.
pub(super) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(entry.path());
                }
            } else if name.ends_with(".rs") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> (usize, usize) {
        let mut findings = Findings::default();
        check_file("x.rs", text, &mut findings);
        (findings.faults.len(), findings.warnings.len())
    }

    #[test]
    fn a_file_says_what_it_is_and_stays_short() {
        let lines = |count: usize| format!("//! Says it.\n{}", "x\n".repeat(count - 1));
        assert_eq!(findings(&lines(LONG)), (0, 0));
        assert_eq!(findings(&lines(LONG + 1)), (0, 1));
        assert_eq!(findings(&lines(TOO_LONG + 1)), (1, 0));
        assert_eq!(findings("use x;\n"), (1, 0));
    }

    #[test]
    fn a_path_of_one_machine_is_found_with_its_line() {
        let mut findings = Findings::default();
        find_names("a.md", &format!("staging{0}x, {{dir}}{0}\nsee `{0}x`\n", MACHINE_NAMES[0]), &mut findings);
        assert_eq!(findings.faults.len(), 1);
        assert!(findings.faults[0].starts_with("a.md:2:"));
    }

    #[test]
    fn build_output_is_no_source() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a/target", "a/.git", "b"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("x.rs"), "").unwrap();
        }
        assert_eq!(rust_files(dir.path()).unwrap(), [dir.path().join("b/x.rs")]);
    }
}
