//! Verbs whose controllers come with a later release: not in the help, but answered plainly.

use crate::error::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

pub(crate) fn run(verb: &str) -> Result<(), Error> {
    Err(Error::failed("Unimplemented", format!("`dvbctl {verb}` is not built yet: its controller comes with a later release"))
        .with_remedy("the chain's own command line, with the endpoints of `dvbctl env NAME`"))
}
