//! Where the programs under test lie.

use std::path::PathBuf;

/// A program of the workspace, beside this test's own executable (`target/<profile>/deps/e2e-…`).
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has an executable");
    let dir = own.parent().and_then(|deps| deps.parent()).expect("cargo puts tests two folders deep");
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built; run `cargo xtask test`, which builds all programs first", path.display());
    path
}

/// A program of the machine, by PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The wasmd v0.54.0 that `.ci/run` had the product's own cache build. Prints the SKIP line itself when there is none.
pub fn wasmd() -> Option<PathBuf> {
    let found = std::env::var_os("DVB_TEST_WASMD").map(PathBuf::from).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIP: no wasmd; set DVB_TEST_WASMD to a wasmd v0.54.0 (see tests/binaries.yaml for how dvbctl builds it)");
    }
    found
}
