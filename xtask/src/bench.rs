//! `cargo xtask bench`: a release build of devnetd beside other supervisors and the floor, on the same work in the same run.

use crate::{programs, run};
use anyhow::{Result, bail};
use std::path::Path;

/// What the exec devnets of the harness need.
const PACKAGES: [&str; 3] = ["devnetd", "dvbctl", "dvb-plugin-exec"];
/// The floor, ours, and what a distribution has as a package. The harness leaves out what it does not find, and says so.
const PEERS: &str = "floor,floor-pump,devnetd,s6,runit";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which supervisors, by the names in tests/bench/adapters.py
    #[arg(long, default_value = PEERS)]
    peers: String,
    /// Where the figures go: one JSON file for each peer, and RESULTS.md
    #[arg(long, default_value = "tests/bench/results")]
    out: String,
    /// More for tests/bench/bench.py: --tests, --bin DIR with a peer's programs, --idle SECONDS ...
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    let mut build = vec!["build", "--release"];
    build.extend(PACKAGES.into_iter().flat_map(|package| ["-p", package]));
    if !run::shown(run::cargo(root, &build))? {
        bail!("the build failed; see above");
    }
    if !run::exists(run::program("python3", root, &["--version"])) || !run::exists(run::program("cc", root, &["--version"])) {
        bail!("the harness needs python3 and a C compiler (cc)");
    }
    let release = programs::workspace(root)?.target.join("release");
    let mut bench = run::program("python3", root, &["tests/bench/bench.py", "--peers", &args.peers, "--out", &args.out, "--bin"]);
    bench.arg(release).args(&args.more);
    run::shown(bench)
}
