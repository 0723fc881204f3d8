//! `cargo xtask check`: what CI requires of the source.

mod documents;
mod layers;
mod sources;

use crate::run;
use anyhow::Result;
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out clippy and cargo-deny: a second instead of minutes
    #[arg(long)]
    quick: bool,
}

/// What one check found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Findings {
    /// These fail the check; each begins with `file:line:` where it has one.
    pub(crate) faults: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) skipped: Option<String>,
}

impl Findings {
    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }
}

/// True when all is well.
pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    let mut failed = Vec::new();
    let mut report = |name: &'static str, findings: Findings| {
        for warning in &findings.warnings {
            run::say(&format!("warning: {warning}"));
        }
        for fault in &findings.faults {
            run::say(&format!("error: {fault}"));
        }
        match findings {
            Findings { skipped: Some(why), .. } => run::say(&format!("SKIP {name}: {why}")),
            Findings { faults, .. } if faults.is_empty() => run::say(&format!("ok   {name}")),
            _ => {
                run::say(&format!("FAIL {name}"));
                failed.push(name);
            }
        }
    };
    report("layers", layers::check(root)?);
    report("module docs and file lengths", sources::check(root)?);
    report("names of this machine", sources::check_names(root)?);
    report("paths and tests in ARCHITECTURE.md", documents::check(root)?);
    report("format", tool(root, &["fmt", "--all", "--check"], "run cargo fmt")?);
    if !args.quick {
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        report("clippy", tool(root, &clippy, "see above")?);
        report("licences, bans and sources", deny(root, &["bans", "licenses", "sources"])?);
        report("advisories", deny(root, &["advisories"])?);
    }
    if failed.is_empty() {
        run::say("check passed");
    } else {
        run::say(&format!("check failed: {}", failed.join(", ")));
    }
    Ok(failed.is_empty())
}

fn tool(root: &Path, args: &[&str], mend: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    if !run::shown(run::cargo(root, args))? {
        findings.fault(format!("cargo {} failed; {mend}", args[0]));
    }
    Ok(findings)
}

fn deny(root: &Path, what: &[&str]) -> Result<Findings> {
    let mut findings = Findings::default();
    if !run::exists(run::cargo(root, &["deny", "--version"])) {
        findings.skipped = Some("cargo-deny is not installed (cargo install cargo-deny --locked)".to_owned());
        return Ok(findings);
    }
    let output = run::captured(run::cargo(root, &[&["deny", "--workspace", "check"], what].concat()))?;
    if output.status.success() {
        return Ok(findings);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("failed to fetch advisory database") {
        findings.skipped = Some("the advisory database cannot be fetched from here".to_owned());
    } else {
        findings.fault(text.trim_end());
    }
    Ok(findings)
}
