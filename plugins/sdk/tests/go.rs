//! A plugin in another language passes the same suite: the Go sample is built and checked.

use dvb_plugin_sdk::conformance::{Outcome, Profile, run};
use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "go needs the environment that cargo was started with")]
fn the_plugin_in_go_passes_the_conformance_suite() {
    if std::process::Command::new("go").arg("version").output().is_err() {
        println!("SKIP: `go` is not on PATH; install Go to check the plugin in tests/goplugin");
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goplugin");
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("dvb-plugin-gosample");
    let built = std::process::Command::new("go").arg("build").arg("-o").arg(&exe).arg(".").current_dir(source).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() && said.contains("dial tcp") {
        println!("SKIP: the modules of tests/goplugin are not in the cache and the Go proxy cannot be reached: {said}");
        return;
    }
    assert!(built.status.success(), "{said}");
    let report = run(&exe, Profile::default());
    assert!(report.checks.iter().all(|(_, outcome)| *outcome == Outcome::Passed), "{report}");
}
