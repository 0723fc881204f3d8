//! `devchain`: a node of the embedded chain, and helpers for its users.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvb_plugin_commonware::cli::main(&dvb_plugin_commonware::cli::FIRST)
}
