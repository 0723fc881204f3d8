//! Checks and chores of this repository: `cargo xtask help`.

mod bench;
mod check;
mod install;
mod programs;
mod quickstart;
mod run;
mod suite;
mod vm;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and chores of this repository", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What CI requires of the source: format, lints, layers, module docs, file lengths, licences
    Check(check::Args),
    /// The whole test suite; ends with what was skipped and why, and one line of counts
    Test(suite::Args),
    /// Build, start the daemon if none runs, and bring up examples/quickstart.yaml
    Quickstart(quickstart::Args),
    /// Put devnetd, dvbctl, plugins, completions and units where a user expects them
    Install(install::Args),
    /// Measure devnetd beside other process supervisors and the floor; takes about ten minutes
    Bench(bench::Args),
    /// Try devnetd under the systemd of several distributions, in VMs
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = root().and_then(|root| match cli.task {
        Task::Check(args) => check::run(&root, &args),
        Task::Test(args) => suite::run(&root, &args),
        Task::Quickstart(args) => quickstart::run(&root, &args),
        Task::Install(args) => install::run(&root, &args),
        Task::Bench(args) => bench::run(&root, &args),
        Task::Vm(args) => vm::run(&root, &args),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            run::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace")?.to_owned())
}
