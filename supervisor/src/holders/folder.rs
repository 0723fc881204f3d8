//! Processes that work in a folder: by working directory, open files or command line.

use super::{Holder, pid, program};
use procfs::process::{FDInfo, FDPermissions, FDTarget, Process, all_processes};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A process with something of the folder in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderUser {
    pub pid: u32,
    pub program: String,
    /// The file that it executes.
    pub executable: PathBuf,
    /// Files below the folder that it has open for writing.
    pub writes: Vec<PathBuf>,
}

impl FolderUser {
    pub fn holder(&self) -> Holder {
        Holder::Process { pid: self.pid, program: self.program.clone() }
    }
}

/// All but ourselves, by rising pid. Processes of other users are passed over.
pub fn folder_users(folder: &Path) -> Vec<FolderUser> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let me = std::process::id();
    let mut users: Vec<FolderUser> = processes.flatten().filter(|process| pid(process) != me).filter_map(|process| user(&process, folder)).collect();
    users.sort_by_key(|user| user.pid);
    users
}

/// Processes that execute a program of this file name and are `meant`, by rising pid, each with all that it has open for writing. It reads
/// the open files of these alone. Processes of other users are passed over.
pub fn program_users(name: &OsStr, meant: impl Fn(u32) -> bool) -> Vec<FolderUser> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let runs_it = |process: &Process| process.exe().map(undeleted).is_ok_and(|program| program.file_name() == Some(name));
    let of_name = |process: &Process| runs_it(process) && meant(pid(process));
    let mut users: Vec<FolderUser> = processes.flatten().filter(of_name).filter_map(|process| user(&process, Path::new("/"))).collect();
    users.sort_by_key(|user| user.pid);
    users
}

/// By its working directory or its command line. False also when we may not look.
pub fn works_in(pid: u32, folder: &Path) -> bool {
    Process::new(pid.cast_signed()).is_ok_and(|process| is_at_work(&process, folder))
}

fn is_at_work(process: &Process, folder: &Path) -> bool {
    process.cwd().is_ok_and(|cwd| cwd.starts_with(folder)) || process.cmdline().is_ok_and(|words| words.iter().any(|word| names(word, folder)))
}

fn user(process: &Process, folder: &Path) -> Option<FolderUser> {
    let open: Vec<(PathBuf, bool)> = process.fd().ok()?.flatten().filter_map(|fd| open_below(fd, folder)).collect();
    if open.is_empty() && !is_at_work(process, folder) {
        return None;
    }
    Some(FolderUser {
        pid: pid(process),
        program: program(process),
        executable: process.exe().map(undeleted).unwrap_or_default(),
        writes: open.into_iter().filter_map(|(path, writes)| writes.then_some(path)).collect(),
    })
}

fn open_below(fd: FDInfo, folder: &Path) -> Option<(PathBuf, bool)> {
    let writes = fd.mode().contains(FDPermissions::WRITE);
    match fd.target {
        FDTarget::Path(path) if path.starts_with(folder) => Some((path, writes)),
        _ => None,
    }
}

/// `--home /x/home`, `--home=/x/home` and `/x/home/config` name `/x/home`; `/x/home2` does not.
fn names(word: &str, folder: &Path) -> bool {
    let text = word.split_once('=').map_or(word, |(_, value)| value);
    Path::new(text).starts_with(folder) || Path::new(word).starts_with(folder)
}

/// A program that was replaced on disk while it runs reads as `/x/wasmd (deleted)`.
fn undeleted(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(bare) => OsString::from_vec(bare.to_vec()).into(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::command;
    use std::process::{Child, Stdio};

    /// Killed when the test ends, however it ends.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn run(script: &str, folder: &Path) -> Running {
        let mut shell = command("/bin/sh");
        shell.args(["-c", script, "sh"]).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        // Until it is sleep, its command line is the shell's, which names the folder.
        while std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        Running(child)
    }

    #[test]
    fn who_writes_into_a_folder_is_told_from_who_only_looks() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap().join("home");
        std::fs::create_dir(&folder).unwrap();
        let writer = run(r#"exec 5>"$1/state"; cd /; echo; exec sleep 1000"#, &folder);
        let looker = run(r#"cd "$1"; echo; exec sleep 1000"#, &folder);
        let elsewhere = run(r#"cd /; echo; exec sleep 1000"#, &folder);
        let users = folder_users(&folder);
        let of = |running: &Running| users.iter().find(|user| user.pid == running.0.id());
        assert_eq!(of(&writer).unwrap().writes, [folder.join("state")]);
        assert_eq!((of(&looker).unwrap().writes.len(), of(&looker).unwrap().program.as_str()), (0, "sleep"));
        assert_eq!(of(&elsewhere), None);
    }

    #[test]
    fn a_command_line_names_a_folder_by_whole_parts() {
        let check = |word: &str, expect: bool| assert_eq!(names(word, Path::new("/x/home")), expect, "{word}");
        check("/x/home", true);
        check("--home=/x/home/", true);
        check("/x/home/config/genesis.json", true);
        check("/x/home2", false);
        check("--home", false);
    }
}
