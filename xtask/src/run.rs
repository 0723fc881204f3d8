//! Runs programs and prints lines: the two things that all chores do.

use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output, Stdio},
};

#[expect(clippy::disallowed_methods, reason = "xtask runs tools in the developer's own environment; sys::command is the supervisor's door")]
fn command(program: impl AsRef<OsStr>, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), root);
    cargo.args(args);
    cargo
}

pub(crate) fn program(path: impl AsRef<OsStr>, root: &Path, args: &[&str]) -> Command {
    let mut program = command(path, root);
    program.args(args);
    program
}

/// Runs it with our own output; true when it succeeded.
pub(crate) fn shown(mut command: Command) -> Result<bool> {
    note(&format!("$ {}", words(&command)));
    let status = command.status().with_context(|| format!("cannot run {}", words(&command)))?;
    Ok(status.success())
}

/// Runs it and keeps its output.
pub(crate) fn captured(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", words(&command)))
}

/// True when the tool is there to be run.
pub(crate) fn exists(command: Command) -> bool {
    captured(command).is_ok_and(|output| output.status.success())
}

pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(program).chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// A result: stdout.
#[expect(clippy::print_stdout, reason = "the chore's own result")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// What goes on meanwhile: stderr.
#[expect(clippy::print_stderr, reason = "the chore's progress")]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}
