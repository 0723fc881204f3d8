//! The one door to `Command::new`.

use std::{ffi::OsStr, fs, io, process::Command};

/// A command with an empty environment and no stdin: what it inherits is said where it is built.
#[expect(clippy::disallowed_methods, reason = "this is the door that the ban points to")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(std::process::Stdio::null());
    command
}

/// The kernel's id of this boot; part of a process's identity.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
