//! The plugin passes the suite that every plugin passes.

use std::path::Path;

use dvb_plugin_sdk::conformance::{Outcome, Profile, run};

#[test]
fn commonware_passes_the_conformance_suite_and_nothing_is_skipped() {
    let report = run(Path::new(env!("CARGO_BIN_EXE_dvb-plugin-commonware")), Profile::default());
    assert!(report.checks.iter().all(|(_, outcome)| *outcome == Outcome::Passed), "{report}");
}
