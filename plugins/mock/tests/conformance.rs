//! The plugin passes the suite that every plugin passes, with and without jobs in its genesis.

use dvb_plugin_sdk::conformance::{Outcome, Profile, Report, run};
use std::path::Path;

fn report(network: &str) -> Report {
    let mut profile = Profile::default();
    profile.devnet.network = network.into();
    run(Path::new(env!("CARGO_BIN_EXE_dvb-plugin-mock")), profile)
}

#[test]
fn mock_passes_the_conformance_suite_and_nothing_is_skipped() {
    for network in ["", "jobs"] {
        let report = report(network);
        assert!(report.checks.iter().all(|(_, outcome)| *outcome == Outcome::Passed), "{report}");
    }
}
