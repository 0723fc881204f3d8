//! `dvb-conformance PATH [--binary NODE]`: runs the conformance suite against a plugin and prints a line per check.

use dvb_plugin_sdk::conformance::{Profile, run};
use std::{env, io::Write as _, process::ExitCode};

const USAGE: &str = "usage: dvb-conformance PATH [--binary NODE]
  PATH    the plugin's executable
  NODE    a node binary, absolute, for plugins that ship none
Exit code 0: no check failed. 1: a check failed. 2: usage.";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let mut profile = Profile::default();
    let exe = match args.as_slice() {
        [exe] if !exe.starts_with('-') => exe,
        [exe, flag, binary] if flag == "--binary" => {
            profile.devnet.binary_path.clone_from(binary);
            exe
        }
        _ => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = run(exe.as_ref(), profile);
    match write!(std::io::stdout(), "{report}") {
        Ok(()) if report.passed() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
