//! The one place that turns pidfds into exits, for children and for processes that somebody else's daemon forked.
//!
//! ```text
//!              child:   POLLIN ── waitid, status kept ──► Ended ── reap ──► gone
//! watched ──►
//!              adopted: POLLIN ──► Ended, status unknown ── POLLHUP: its parent reaped it ──► PIDFD_GET_INFO tells the status
//! ```

#![allow(unsafe_code, reason = "registering a descriptor with tokio has no safe form")]

mod identity;
mod info;

pub use identity::{Found, HOME_ID_VAR, Identity, LAUNCH_ID_VAR, carries, find, is_of_another_home};

use crate::sys::{Kernel, Pidfd};
use nix::sys::signal::Signal;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// How a process ended. Neither: the status could not be had (yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel dumped a core.
    pub core_dumped: bool,
}

/// One process that we watch and may signal. Needs a tokio runtime.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: AsyncFd<Pidfd>,
    kernel: Kernel,
}

impl Process {
    /// `pidfd` as `sys::spawn` gave it, or as `find` opened and checked it.
    pub fn new(pid: u32, pidfd: impl Into<Pidfd>, kernel: Kernel) -> io::Result<Self> {
        // SAFETY: a Pidfd owns its descriptor and never swaps it; AsyncFd owns the Pidfd.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd.into(), Interest::READABLE) }?;
        Ok(Self { pid, pidfd, kernel })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reaches this process or nobody.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.pidfd.get_ref().signal(signal)
    }

    /// See `Pidfd::signal_group`.
    pub fn signal_group(&self, signal: Signal) -> io::Result<bool> {
        self.pidfd.get_ref().signal_group(signal)
    }

    pub fn has_ended(&self) -> bool {
        self.pidfd.get_ref().poll().is_ok_and(|(ended, _)| ended)
    }

    /// Resolves when every thread of it has ended. It may still be a zombie: its pid is not free until `reap`.
    pub async fn ended(&self) -> io::Result<()> {
        self.until(|(ended, _)| ended).await
    }

    /// Resolves when its parent has reaped it. Never, on kernels that do not tell (before 6.9): bound it.
    pub async fn reaped(&self) -> io::Result<()> {
        self.until(|(_, reaped)| reaped).await
    }

    /// After `ended`. A child's status at once, and it stays a zombie; another's only when it was reaped.
    pub fn status(&self) -> Status {
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT) {
            Ok(Some(status)) => Status { code: status.exit_status(), signal: status.terminating_signal(), core_dumped: status.dumped() },
            _ if self.kernel.pidfd_info => info::exit_of(self.pidfd.as_fd()).unwrap_or_default(),
            _ => Status::default(),
        }
    }

    /// Whether `status` may know more when the process's parent has reaped it.
    pub fn tells_late(&self) -> bool {
        self.kernel.pidfd_info && info::is_supported()
    }

    /// Takes the zombie away when it is our child; else does nothing.
    pub fn reap(&self) {
        // ECHILD: not ours, or reaped already.
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }

    async fn until(&self, reached: impl Fn((bool, bool)) -> bool) -> io::Result<()> {
        loop {
            if reached(self.pidfd.get_ref().poll()?) {
                return Ok(());
            }
            let mut guard = self.pidfd.readable().await?;
            if reached(guard.get_inner().poll()?) {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.get_ref().as_fd()
    }
}
