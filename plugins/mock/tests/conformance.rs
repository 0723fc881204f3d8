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

/// The checks that fail when the mock plays `script`.
fn failing(script: &str) -> Vec<&'static str> {
    let dir = tempfile::tempdir().expect("a folder for the script");
    let path = dir.path().join("script.json");
    std::fs::write(&path, script).expect("the script is written");
    let env = vec![("DVB_MOCK_SCRIPT".to_owned(), path.display().to_string())];
    let report = run(Path::new(env!("CARGO_BIN_EXE_dvb-plugin-mock")), Profile { plugin_env: env, ..Profile::default() });
    assert!(!report.passed(), "nothing was noticed: {report}");
    report.checks.into_iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).map(|(name, _)| name).collect()
}

#[test]
fn the_suite_notices_each_fault() {
    let check = |script: &str, expect: &str| {
        let failed = failing(script);
        assert!(failed.contains(&expect), "{script}: wanted {expect} to fail, failed: {failed:?}");
    };
    check(r#"{"apiVersion": 99}"#, "handshake");
    check(r#"{"calls": {"GetInfo": {"garbage": true}}}"#, "info");
    check(r#"{"calls": {"Initialize": {"garbage": true}}}"#, "initialize");
    check(r#"{"calls": {"ValidateSpec": {"garbage": true}}}"#, "validate");
    check(r#"{"calls": {"PlanNodes": {"garbage": true, "times": 1}}}"#, "plan");
    check(r#"{"calls": {"GenerateGenesis": {"garbage": true}}}"#, "genesis");
    check(r#"{"calls": {"StartNode": {"garbage": true}}}"#, "launch");
    check(r#"{"calls": {"GetNodeStatus": {"fail": {"code": "INTERNAL", "message": "?"}}}}"#, "absent-node");
    check(r#"{"calls": {"ClassifyExit": {"slowMs": 400}}}"#, "classify");
    check(r#"{"calls": {"StopNode": {"crash": {"exit": 1}}}}"#, "stop");
    check(r#"{"calls": {"StopNode": {"stdout": "a stray line\n"}}}"#, "clean-stdout");
    check(r#"{"onStart": {"stdout": "hello\n"}}"#, "clean-stdout");
    check(r#"{"linger": true}"#, "ends-with-stdin");
}
