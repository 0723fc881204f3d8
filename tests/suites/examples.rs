//! What `examples/` shows, as it stands there.

use e2e::{TestHome, wasmd};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

fn example(name: &str) -> String {
    Path::new(EXAMPLES).join(name).display().to_string()
}

#[test]
fn each_example_is_accepted_as_it_stands_there() {
    let home = TestHome::new();
    home.ctl(&["daemon", "start"]).ok();
    let names: Vec<String> = fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name == "quickstart.yaml") && names.iter().any(|name| name == "wasmd.yaml"), "{names:?}");
    for name in names {
        let name = example(&name);
        home.ctl(&["apply", "--dry-run", "-f", &name]).ok().prints("would be created");
    }
    assert_eq!(home.rows("devnets"), 0);
}

/// No Go can be found, so what it names must come from the cache. The quickstart is every other test's devnet.
#[test]
fn the_example_of_a_real_chain_comes_up_without_a_build_where_the_cache_has_its_module() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new().with_env("PATH", &path_without("go"));
    if !takes_over_cache(&home, &program) {
        println!("SKIP: an example from the cache: {} lies in none", program.display());
        return;
    }
    home.ctl(&["up", &example("wasmd.yaml"), "--timeout", "180s"]).ok();
    home.eventually("all nodes at height 1", Duration::from_secs(90), |home| home.lowest("wasmd") >= 1);
    assert_eq!(home.nodes("wasmd").len(), 5);
    assert_eq!(home.devnet("wasmd")["status"]["binary"]["source"], "goModule github.com/CosmWasm/wasmd@v0.54.0");
}

fn path_without(program: &str) -> String {
    let dirs = env::var_os("PATH").unwrap_or_default();
    let without = env::split_paths(&dirs).filter(|dir| !dir.join(program).exists());
    env::join_paths(without).unwrap().into_string().unwrap()
}

/// The cache of the home that built `program` becomes this home's, as far as `program` goes.
fn takes_over_cache(home: &TestHome, program: &Path) -> bool {
    let Some((folder, cache)) = program.parent().and_then(|folder| Some((folder, folder.parent()?))) else { return false };
    if !cache.join("index.json").is_file() {
        return false;
    }
    let ours = home.home().join("cache/binaries");
    copy(folder, &ours.join(folder.file_name().unwrap()));
    fs::copy(cache.join("index.json"), ours.join("index.json")).unwrap();
    true
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (source, target): (PathBuf, PathBuf) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}
