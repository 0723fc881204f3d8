//! `devchain-v2`: `devchain` with a handler for the upgrade `v2`, to upgrade a running devnet to.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvb_plugin_commonware::cli::main(&dvb_plugin_commonware::cli::SECOND)
}
