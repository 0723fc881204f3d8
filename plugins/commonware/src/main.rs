//! devnetd plugin `commonware`: speaks the plugin protocol on stdin and stdout.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvb_plugin_sdk::run(dvb_plugin_commonware::plugin::Commonware::new())
}
