//! The one door to `Command::new`.

#![allow(unsafe_code, reason = "what a child does before exec has no safe form")]

use super::open_files;
use nix::libc;
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::Command,
};

/// A command with an empty environment, no stdin and the limit of descriptors that we were started with: what else it inherits is said
/// where it is built.
#[expect(clippy::disallowed_methods, reason = "this is the door that the ban points to")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(std::process::Stdio::null());
    if let Some(soft) = open_files::found() {
        // SAFETY: between fork and exec it makes two system calls and allocates nothing.
        unsafe { command.pre_exec(move || if open_files::give_back(soft) { Ok(()) } else { Err(io::Error::last_os_error()) }) };
    }
    command
}

/// The kernel kills the child as soon as the thread that started it ends: start it from one that lives as long as the process,
/// such as an async worker, never from one of the threads for blocking work.
pub fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died before the kernel was told.
            if libc::getppid().unsigned_abs() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        })
    };
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
