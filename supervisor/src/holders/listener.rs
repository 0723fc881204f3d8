//! Who listens at a TCP address.

use super::FDTarget;
use procfs::{
    net::TcpState,
    process::{FDInfo, Process},
};
use std::{collections::BTreeSet, fs, net::SocketAddr};

/// Inodes of the sockets that get connections to `at`: those bound to the address itself, else those bound to all. Of this network
/// namespace; empty when what answers is not here.
pub fn listeners_at(at: SocketAddr) -> BTreeSet<u64> {
    let entries = procfs::net::tcp().unwrap_or_default().into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let (mut own, mut all) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries.filter(|entry| entry.state == TcpState::Listen && entry.local_address.port() == at.port()) {
        let ip = entry.local_address.ip().to_canonical();
        if ip == at.ip().to_canonical() {
            own.insert(entry.inode);
        } else if ip.is_unspecified() {
            all.insert(entry.inode);
        }
    }
    if own.is_empty() { all } else { own }
}

/// False also when we may not look.
pub fn has_socket(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let is_one = |fd: FDInfo| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode));
    Process::new(pid.cast_signed()).and_then(|process| process.fd()).is_ok_and(|fds| fds.flatten().any(is_one))
}

/// Whether it has a TCP socket that listens, in its own network namespace. False also when we may not look.
pub fn listens(pid: u32) -> bool {
    let Ok(process) = Process::new(pid.cast_signed()) else { return false };
    let entries = process.tcp().unwrap_or_default().into_iter().chain(process.tcp6().unwrap_or_default());
    has_socket(pid, &entries.filter(|entry| entry.state == TcpState::Listen).map(|entry| entry.inode).collect())
}

/// What lives in a pid namespace of its own is some container's. False also when we may not look.
pub fn is_in_a_container(pid: u32) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    matches!((namespace(&pid.to_string()), namespace("self")), (Ok(its), Ok(ours)) if its != ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::command;
    use std::{
        net::{Ipv6Addr, TcpListener},
        os::fd::AsRawFd,
        process::Stdio,
    };

    fn inode(listener: &TcpListener) -> u64 {
        procfs::process::Process::myself()
            .unwrap()
            .fd_from_fd(listener.as_raw_fd())
            .map(|fd| match fd.target {
                FDTarget::Socket(inode) => inode,
                other => panic!("{other:?}"),
            })
            .unwrap()
    }

    #[test]
    fn a_container_is_told_by_its_pid_namespace() {
        assert!(!is_in_a_container(std::process::id()));
        // It ends with its stdin, which ends with us.
        let unshare = command("unshare").args(["--pid", "--fork", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let Ok(mut unshare) = unshare else { return println!("SKIP: there is no unshare") };
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        if fs::metadata(&children).is_err() {
            return println!("SKIP: this kernel does not list children");
        }
        let child = loop {
            match fs::read_to_string(&children).ok().and_then(|pids| pids.trim().parse().ok()) {
                Some(child) => break Some(child),
                None if unshare.try_wait().unwrap().is_some() => break None,
                None => std::thread::yield_now(),
            }
        };
        let told = child.map(is_in_a_container);
        drop(unshare.stdin.take());
        let _ = unshare.wait();
        match told {
            Some(told) => assert!(told),
            None => println!("SKIP: this user may make no pid namespace"),
        }
    }

    #[test]
    fn who_is_bound_to_the_address_comes_before_who_is_bound_to_all() {
        let everywhere = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let ours = inode(&everywhere);
        assert_eq!(listeners_at(at), BTreeSet::from([ours]));
        assert!(has_socket(std::process::id(), &listeners_at(at)) && listens(std::process::id()));
        assert!(!listens(u32::MAX >> 1), "nobody");
        drop(everywhere);
        assert!(!listeners_at(at).contains(&ours));
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = here.local_addr().unwrap();
        assert_eq!(listeners_at(at), BTreeSet::from([inode(&here)]));
        assert_eq!(listeners_at(SocketAddr::from(([127, 9, 9, 9], at.port()))), BTreeSet::new());
        assert!(!has_socket(1, &listeners_at(at)), "whoever that is");
    }
}
