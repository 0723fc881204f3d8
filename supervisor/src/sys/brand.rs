//! A number that a process and all that it ever starts carry: the soft limit of file locks, RLIMIT_LOCKS, which kernels since 2.4.25 heed no
//! more (getrlimit(2)). It outlives fork, exec, setsid, a cleared environment and closed descriptors; nobody takes it off by chance.

#![allow(unsafe_code, reason = "what a child does before exec has no safe form")]

use nix::libc;
use std::fs;

/// What a process carries; None when that is nobody's brand, or it has gone.
pub fn process_brand(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?.split_whitespace().next()?.parse().ok()
}

/// For a child between fork and exec: two system calls, nothing is allocated. Where the hard limit is lower it stays as it is.
pub(super) fn carry(brand: u64) {
    // SAFETY: plain system calls on a value of our own.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_LOCKS, &raw mut limit) == 0 {
            limit.rlim_cur = brand;
            libc::setrlimit(libc::RLIMIT_LOCKS, &raw const limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brand_is_the_soft_limit_of_file_locks() {
        let line = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax file size  unlimited  unlimited  bytes\nMax file locks  {soft}  unlimited  locks\n")
        };
        assert_eq!([parse(&line("unlimited")), parse(&line("4611686018427387904")), parse("")], [None, Some(1 << 62), None]);
        assert_eq!(process_brand(u32::MAX), None);
    }
}
