//! Where the programs under test lie.

use crate::TestHome;
use std::path::{Path, PathBuf};

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

/// One real chain binary.
#[derive(Clone, Debug)]
pub struct Wasmd {
    pub version: &'static str,
    /// Its Cosmos SDK, `v0.50`.
    pub sdk: &'static str,
    pub path: PathBuf,
}

/// What `tests/binaries.yaml` lists.
const WASMDS: [(&str, &str); 3] = [("v0.45.0", "v0.47"), ("v0.54.0", "v0.50"), ("v0.60.1", "v0.53")];

/// The wasmd v0.54.0 that `.ci/run` had the product's own cache build. Prints the SKIP line itself when there is none.
pub fn wasmd() -> Option<PathBuf> {
    find(WASMDS[1].0, WASMDS[1].1).map(|wasmd| wasmd.path)
}

/// wasmd on each Cosmos SDK; a SKIP line for each that is not there.
pub fn wasmds() -> Vec<Wasmd> {
    WASMDS.iter().filter_map(|(version, sdk)| find(version, sdk)).collect()
}

/// A chain that is not wasmd, which `DVB_TEST_SIMD` names; prints the SKIP line itself when there is none.
pub fn simd() -> Option<PathBuf> {
    let found = std::env::var_os("DVB_TEST_SIMD").map(PathBuf::from).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIP: no simd of ibc-go; name it in DVB_TEST_SIMD (see tests/binaries.yaml for how dvbctl builds it)");
    }
    found
}

/// `DVB_TEST_WASMDS` lists `version=path` with commas between; `DVB_TEST_WASMD` is v0.54.0.
fn find(version: &'static str, sdk: &'static str) -> Option<Wasmd> {
    let listed = std::env::var("DVB_TEST_WASMDS").unwrap_or_default();
    let listed = listed.split(',').filter_map(|entry| entry.split_once('=')).find(|(name, _)| *name == version).map(|(_, path)| path.to_owned());
    let path = listed.or_else(|| std::env::var("DVB_TEST_WASMD").ok().filter(|_| version == WASMDS[1].0)).map(PathBuf::from);
    let found = path.filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIP: no wasmd {version} (SDK {sdk}); name it in DVB_TEST_WASMDS (see tests/binaries.yaml for how dvbctl builds it)");
    }
    found.map(|path| Wasmd { version, sdk, path })
}

/// The same release with other bytes: what stands behind the end of an ELF file changes nothing of what it does.
pub fn with_other_bytes(home: &TestHome, program: &Path, name: &str) -> String {
    let copy = home.path().join(name);
    std::fs::copy(program, &copy).expect("a copy of the program");
    let mut file = std::fs::OpenOptions::new().append(true).open(&copy).expect("the copy opens");
    std::io::Write::write_all(&mut file, name.as_bytes()).expect("the copy takes more bytes");
    copy.display().to_string()
}

/// Puts a release into the cache of a home without a daemon, as that of the product which built it has it: its Go module needs no build
/// then. A SKIP line, and false, when it lies in no such cache.
pub fn seed_cache(home: &TestHome, wasmd: &Wasmd) -> bool {
    let folder = wasmd.path.parent().expect("a program lies in a folder");
    let name = folder.file_name().expect("the folder has a name").to_string_lossy().into_owned();
    let index = std::fs::read(folder.with_file_name("index.json")).unwrap_or_default();
    let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
    if index["entries"][&name].is_null() {
        eprintln!("SKIP: wasmd {} as a Go module: it lies in no cache of devnetd's", wasmd.version);
        return false;
    }
    for (part, of_it) in [("entries", true), ("sources", false)] {
        let all = index[part].as_object_mut().expect("an object");
        all.retain(|key, value| if of_it { *key == name } else { *value == name.as_str() });
    }
    let cache = home.home().join("cache/binaries");
    copy_tree(folder, &cache.join(&name));
    std::fs::write(cache.join("index.json"), index.to_string()).expect("an index");
    true
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let copy = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_tree(&entry, &copy);
        } else {
            std::fs::copy(&entry, &copy).expect("a copy");
        }
    }
}
