//! Who on this machine has a socket or a folder in use: processes by pid and name, found in /proc. Everything here blocks.

mod folder;
mod inactive;
mod listener;

pub use folder::{FolderUser, folder_users, program_users, works_in};
pub use inactive::{InactiveSocket, inactive_sockets};
pub use listener::{has_socket, is_in_a_container, listeners_at, listens};

use procfs::process::{FDTarget, Process, all_processes};
use std::{collections::BTreeSet, fmt};

/// Who holds what somebody else wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Process {
        pid: u32,
        /// The program's short name.
        program: String,
    },
    /// Another user's process, or one with a socket that this kernel does not tell of.
    Hidden,
    /// Nobody any more: connections of a process that ended, which the kernel keeps for a minute.
    TimeWait,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "pid {pid} ({program})"),
            Self::Hidden => f.write_str("a process that cannot be seen from here (most likely another user's)"),
            Self::TimeWait => f.write_str("connections of a process that has ended (TIME_WAIT)"),
        }
    }
}

/// The process with a descriptor of one of these sockets; where a parent and its child share one, the parent.
pub fn holder_of(inodes: &BTreeSet<u64>) -> Holder {
    socket_owners(inodes).into_iter().map(|(_, owner)| owner).next().unwrap_or(Holder::Hidden)
}

/// Each process that has one of these sockets open, by rising pid. Processes of other users are passed over.
pub fn socket_owners(inodes: &BTreeSet<u64>) -> Vec<(u64, Holder)> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let mut owners = Vec::new();
    for process in processes.flatten() {
        let Ok(fds) = process.fd() else { continue };
        for fd in fds.flatten() {
            if let FDTarget::Socket(inode) = fd.target
                && inodes.contains(&inode)
            {
                owners.push((pid(&process), inode, program(&process)));
            }
        }
    }
    owners.sort();
    owners.into_iter().map(|(pid, inode, program)| (inode, Holder::Process { pid, program })).collect()
}

/// Inodes of the sockets that are bound to this abstract name, in this network namespace.
pub fn abstract_sockets(name: &str) -> BTreeSet<u64> {
    let Ok(sockets) = procfs::net::unix() else { return BTreeSet::new() };
    let bound = |path: &std::path::Path| path.to_str().and_then(|path| path.strip_prefix('@')) == Some(name);
    sockets.iter().filter(|socket| socket.path.as_deref().is_some_and(bound)).map(|socket| socket.inode).collect()
}

fn pid(process: &Process) -> u32 {
    process.pid().unsigned_abs()
}

fn program(process: &Process) -> String {
    process.stat().map(|stat| stat.comm).unwrap_or_else(|_| "?".to_owned())
}
