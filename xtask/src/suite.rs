//! `cargo xtask test`: the whole suite, and at its end what was skipped and why.
//!
//! A test that lacks something prints a line `SKIP: why` and returns. libtest hides what passing tests print, so the suite runs with
//! `--show-output` and this sorts it: progress and failures go on to the reader, SKIP lines and figures (`MEASURED: what`) into the
//! summary, the rest into a file.

use crate::{programs, run};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
};

/// What leads dvbctl to the developer's own daemon, which is none of the suite's business.
const OWN_DAEMON: [&str; 4] = ["DVB_HOME", "DVB_SOCKET", "DVB_ADDRESS", "DVB_TOKEN"];
/// Tests that take long, on chains that take long, look for it.
const FULL: &str = "DVB_TEST_FULL";
/// How long the random run of faults lasts.
const MINUTES: &str = "DVB_TEST_MINUTES";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what takes long: slow chains, big counts (sets DVB_TEST_FULL=1)
    #[arg(long)]
    full: bool,
    /// The random run of faults lasts so long (sets DVB_TEST_MINUTES; half a minute without, five with --full)
    #[arg(long, value_name = "N")]
    minutes: Option<u32>,
    /// Only tests whose name has this in it
    filter: Option<String>,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    // The end-to-end tests run the programs, which `cargo test` alone would not build.
    if !run::shown(run::cargo(root, &["build", "--workspace", "--bins"]))? {
        run::say("0 passed, 1 failed, 0 skipped");
        return Ok(false);
    }
    let mut cargo = run::cargo(root, &["test", "--workspace", "--no-fail-fast"]);
    cargo.args(&args.filter).args(["--", "--show-output"]).stdout(Stdio::piped());
    for name in OWN_DAEMON {
        cargo.env_remove(name);
    }
    if args.full {
        cargo.env(FULL, "1");
    }
    if let Some(minutes) = args.minutes {
        cargo.env(MINUTES, minutes.to_string());
    }
    run::note(&format!("$ {}", run::words(&cargo)));
    let target = programs::workspace(root)?.target;
    fs::create_dir_all(&target)?;
    let log = target.join("test-output.log");
    let mut file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = cargo.spawn().context("cannot run cargo test")?;
    let mut report = Report::default();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(file, "{line}")?;
        if report.take(&line) {
            run::say(&line);
        }
    }
    let ok = child.wait()?.success();
    report.finish(ok);
    run::note(&format!("everything that the tests printed: {}", log.display()));
    report.summary().iter().for_each(|line| run::say(line));
    Ok(ok)
}

/// What libtest's output says, line by line.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: usize,
    /// Test and reason.
    skipped: Vec<(String, String)>,
    /// Test and figure.
    measured: Vec<(String, String)>,
    /// Of those skipped, tests that passed because all of them was skipped.
    whole: usize,
    /// The test whose output this is.
    test: Option<String>,
    counted: bool,
    hidden: bool,
}

impl Report {
    /// True when the line is for the reader.
    fn take(&mut self, line: &str) -> bool {
        let text = line.trim();
        if let Some(counts) = text.strip_prefix("test result:") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            (self.test, self.hidden) = (None, false);
            return true;
        }
        match text {
            "successes:" => self.hidden = true,
            "failures:" => self.hidden = false,
            _ => {}
        }
        if let Some(test) = text.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            self.test = Some(test.trim_end_matches(" stdout").to_owned());
            self.counted = false;
        } else if let Some(reason) = text.strip_prefix("SKIP").filter(|rest| rest.starts_with([':', ' '])) {
            self.skip(reason);
        } else if let Some(figure) = text.strip_prefix("MEASURED:") {
            self.measured.push((self.test.clone().unwrap_or_else(|| "?".to_owned()), figure.trim().to_owned()));
        }
        !self.hidden
    }

    fn skip(&mut self, reason: &str) {
        let is_whole = reason.starts_with(':');
        let test = self.test.clone().unwrap_or_else(|| "?".to_owned());
        // Within a passing test's output only: one that failed after a SKIP is counted as failed.
        if is_whole && !self.counted && self.hidden {
            self.counted = true;
            self.whole += 1;
        }
        let short = test.rsplit("::").next().unwrap_or_default();
        let reason = reason.trim_start_matches([':', ' ']).trim_start_matches(short).trim_start_matches([':', ' ']);
        self.skipped.push((test, reason.to_owned()));
    }

    /// A test program that was killed prints no result.
    fn finish(&mut self, ok: bool) {
        if !ok && self.failed == 0 {
            self.failed = 1;
        }
    }

    fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (title, entries) in [("measured:", &self.measured), ("skipped:", &self.skipped)] {
            if !entries.is_empty() {
                lines.push(title.to_owned());
                lines.extend(entries.iter().map(|(test, text)| format!("  {test}: {text}")));
            }
        }
        lines.push(format!("{} passed, {} failed, {} skipped", self.passed.saturating_sub(self.whole), self.failed, self.skipped.len()));
        lines
    }
}

/// ` ok. 3 passed; 0 failed; …`
fn count(counts: &str, what: &str) -> usize {
    counts.split([';', '.']).filter_map(|part| part.trim().strip_suffix(what)).find_map(|number| number.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a::plain ... ok
test a::lacking ... ok
test b ... FAILED

successes:

---- a::lacking stdout ----
SKIP: lacking: no go here

---- a::suite stdout ----
SKIP  heights: the chain has none
MEASURED: 3 ms beside a floor of 2
some noise

successes:
    a::plain
    a::lacking
    a::suite

failures:

---- b stdout ----
it broke

failures:
    b

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn report() -> (Report, Vec<&'static str>) {
        let mut report = Report::default();
        let shown = OUTPUT.lines().filter(|line| report.take(line)).collect();
        (report, shown)
    }

    #[test]
    fn what_was_skipped_is_named_with_the_reason_and_not_counted_as_passed() {
        let (report, _) = report();
        assert_eq!(
            report.summary(),
            [
                "measured:",
                "  a::suite: 3 ms beside a floor of 2",
                "skipped:",
                "  a::lacking: no go here",
                "  a::suite: heights: the chain has none",
                "2 passed, 1 failed, 2 skipped"
            ]
        );
    }

    #[test]
    fn noise_of_passing_tests_is_hidden_and_failures_are_not() {
        let (_, shown) = report();
        assert!(!shown.contains(&"some noise"));
        assert!(shown.contains(&"it broke") && shown.contains(&"test a::plain ... ok"));
    }

    #[test]
    fn a_test_program_that_dies_without_a_word_is_a_failure() {
        let mut report = Report::default();
        report.finish(false);
        assert_eq!(report.summary(), ["0 passed, 1 failed, 0 skipped"]);
    }
}
