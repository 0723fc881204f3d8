//! The question before something is lost.

use crate::{context::Context, error::Error};
use std::io::{BufRead, IsTerminal, Write};

/// Asks on a terminal; elsewhere only `--yes` will do.
pub(crate) fn confirm(ctx: &Context, yes: bool, question: &str, command: &str) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !ctx.settings.stderr.is_terminal {
        return Err(Error::usage(format!("{question} There is no terminal to ask on")).with_remedy(format!("{command} --yes")));
    }
    let mut answer = String::new();
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    stdin.lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::failed("Declined", "nothing was done")),
    }
}
