//! Command line client of devnetd: flags in, one verb, exit code out.

mod cli;
mod client;
mod commands;
mod confirm;
mod context;
mod document;
mod error;
mod follow;
mod goal;
mod kind;
mod launch;
mod log_feed;
mod render;
mod service;
mod settings;
mod watch;
mod wire;

use clap::Parser;
use cli::{Cli, Format, Global};
use context::Context;
use error::{BROKEN_PIPE, Error, Exit};
use settings::Settings;
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let vars = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let global = cli.global.clone();
    let settings = match Settings::resolve(&global, vars) {
        Ok(settings) => settings,
        Err(error) => return report(&global, None, &error),
    };
    let ctx = Context { settings, makes_home: cli.verb.makes_home(), now: jiff::Timestamp::now };
    // One thread is enough for one client, and starts faster.
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::run(&ctx, cli.verb)),
        Err(error) => Err(Error::failed("Internal", format!("cannot start the runtime: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // `dvbctl logs | head`: the reader has what it wanted.
        Err(error) if error.fault.code == BROKEN_PIPE => ExitCode::SUCCESS,
        Err(error) => report(&global, Some(&ctx), &error),
    }
}

/// The error on stderr, in the form that the results have; nobody is left to tell when that fails.
fn report(global: &Global, ctx: Option<&Context>, error: &Error) -> ExitCode {
    let terminal = ctx.map(|ctx| ctx.settings.stderr).unwrap_or_default();
    let text = if global.output == Format::Json {
        format!("{}\n", error.render_json())
    } else {
        let text = error.render_text(terminal.color, std::io::stderr().is_terminal(), terminal.width.map_or(100, usize::from));
        match text.strip_prefix("error:") {
            Some(rest) => format!("{}{rest}", render::table::paint("error:", render::table::Tone::Bad, terminal.color)),
            None => text,
        }
    };
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    let exit: Exit = error.exit;
    ExitCode::from(exit as u8)
}
