//! `completion`: a script for the shell.

use crate::{cli::Cli, context::Context, error::Error};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Print a completion script for a shell
///
/// dvbctl completion bash > ~/.local/share/bash-completion/completions/dvbctl
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "dvbctl", &mut script);
    Ok(ctx.print(String::from_utf8_lossy(&script).trim_end())?)
}
