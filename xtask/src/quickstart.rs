//! `cargo xtask quickstart`: from a fresh clone to a running devnet.

use crate::run;
use anyhow::{Result, bail};
use std::{path::Path, time::Instant};

const EXAMPLE: &str = "examples/quickstart.yaml";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build with optimizations: slower to build, faster to run
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    let begin = Instant::now();
    // All programs, as `cargo xtask test` builds them: a selection of packages would resolve other features and compile twice.
    let mut build = vec!["build", "--workspace", "--bins"];
    if args.release {
        build.push("--release");
    }
    if !run::shown(run::cargo(root, &build))? {
        bail!("the build failed; see above");
    }
    let built = begin.elapsed();
    let target = crate::programs::workspace(root)?.target.join(if args.release { "release" } else { "debug" });
    let up = Instant::now();
    // dvbctl starts the devnetd that lies beside it when none runs, and that finds its plugins there.
    let running = run::shown(run::program(target.join("dvbctl"), root, &["up", EXAMPLE]))?;
    run::note(&format!("built in {:.1} s, up in {:.1} s", built.as_secs_f64(), up.elapsed().as_secs_f64()));
    if running {
        run::note(&format!("(dvbctl is {}; when you are done: dvbctl delete quickstart --yes)", target.join("dvbctl").display()));
    }
    Ok(running)
}
