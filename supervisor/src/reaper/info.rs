//! PIDFD_GET_INFO: the exit status of a reaped process, whoever its parent was.

#![allow(unsafe_code, reason = "an ioctl that no crate wraps yet")]

use super::Status;
use crate::sys::Pidfd;
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};

/// None when the kernel does not know the ioctl or the flag (before 6.15), or when the process is not reaped yet.
pub(super) fn exit_of(pidfd: BorrowedFd<'_>) -> Option<Status> {
    // SAFETY: pidfd_info is plain integers; the ioctl's number carries the struct's size, so the kernel writes no further.
    let info = unsafe {
        let mut info: libc::pidfd_info = std::mem::zeroed();
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        (libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) == 0).then_some(info)?
    };
    // The feature test: a kernel that does not know the flag, or has no exit to tell, does not give it back.
    (info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then(|| from_wait_status(info.exit_code))
}

/// Asks about ourselves: a kernel with the ioctl knows our pid. It may still be one (6.13, 6.14) that does not tell exits.
pub(super) fn is_supported() -> bool {
    let Ok(me) = Pidfd::open(std::process::id()) else { return false };
    // SAFETY: as above.
    unsafe {
        let mut info: libc::pidfd_info = std::mem::zeroed();
        info.mask = u64::from(libc::PIDFD_INFO_PID);
        libc::ioctl(me.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) == 0
    }
}

fn from_wait_status(status: i32) -> Status {
    if libc::WIFEXITED(status) {
        Status { code: Some(libc::WEXITSTATUS(status)), ..Status::default() }
    } else {
        Status { signal: Some(libc::WTERMSIG(status)), core_dumped: libc::WCOREDUMP(status), ..Status::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_read_as_code_or_signal() {
        assert_eq!(from_wait_status(7 << 8), Status { code: Some(7), ..Status::default() });
        assert_eq!(from_wait_status(0), Status { code: Some(0), ..Status::default() });
        assert_eq!(from_wait_status(9), Status { signal: Some(9), ..Status::default() });
        assert_eq!(from_wait_status(6 | 0x80), Status { signal: Some(6), core_dumped: true, ..Status::default() });
    }
}
