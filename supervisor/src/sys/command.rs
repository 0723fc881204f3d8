//! The one door to `Command::new`.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    process::Command,
};

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

/// Where this program lies: after an upgrade in place the new one. Without any file at that place what we are made of still runs.
pub fn own_program() -> PathBuf {
    const SELF: &str = "/proc/self/exe";
    let Ok(path) = fs::read_link(SELF) else { return SELF.into() };
    if path.exists() {
        return path;
    }
    let kept = path.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|bytes| PathBuf::from(OsString::from_vec(bytes.to_vec())));
    kept.filter(|path| path.exists()).unwrap_or_else(|| SELF.into())
}
