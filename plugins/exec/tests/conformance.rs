//! The plugin passes the suite that every plugin passes.

use dvb_plugin_sdk::conformance::{Outcome, Profile, run};
use std::path::Path;

#[test]
fn exec_passes_the_conformance_suite() {
    let report = run(Path::new(env!("CARGO_BIN_EXE_dvb-plugin-exec")), Profile::default());
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcome("ends-with-stdin"), Some(&Outcome::Passed));
}
