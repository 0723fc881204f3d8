//! Forks and executes one program: into its cgroup, in a session of its own, with a pidfd in hand before anything else can happen.
//!
//! `std::process::Command` is not enough here: it runs a file without a header through a shell, it copies the daemon's page
//! tables at each fork, and it hands out a pid where we need a pidfd. As in the C library's posix_spawn, the child borrows our
//! memory until it executes (CLONE_VM, CLONE_VFORK), so it needs no pipe to tell us why it could not.

#![allow(unsafe_code, reason = "clone and what the child does before exec have no safe form")]

use nix::libc::{self, c_char, c_int, c_void};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// What the child becomes. All descriptors in it must be 3 or higher.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// `argv[0]` is the path that is executed; no search, no shell.
    pub argv: &'a [CString],
    /// `NAME=value` each; the whole environment.
    pub env: &'a [CString],
    pub cwd: &'a CStr,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Inherited under their own numbers; every other descriptor is closed.
    pub inherit: &'a [RawFd],
    /// An open cgroup.procs: the child moves itself in before it executes.
    pub cgroup_procs: Option<BorrowedFd<'a>>,
}

#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Where the child got stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnStep {
    Fork,
    Cgroup,
    Cwd,
    Descriptors,
    Exec,
}

#[derive(Debug, thiserror::Error)]
#[error("{step:?}: {source}")]
pub struct SpawnFailure {
    pub step: SpawnStep,
    pub source: io::Error,
}

/// Enough for the few frames between clone and exec, also unoptimised.
const STACK: usize = 64 << 10;
const MAX_SIGNAL: c_int = 64;

/// What the child reads, and where it writes why it failed. Plain pointers: nothing may be allocated between clone and exec.
struct Orders<'a> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    cwd: &'a CStr,
    stdio: [RawFd; 3],
    inherit: &'a [RawFd],
    cgroup_procs: Option<RawFd>,
    failed: Option<(SpawnStep, c_int)>,
}

/// Returns when the program was executed or has failed to. The calling thread stands still in between, all others go on.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, SpawnFailure> {
    let fork = |source| SpawnFailure { step: SpawnStep::Fork, source };
    let null = File::open("/dev/null").map_err(fork)?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    let mut orders = Orders {
        argv: pointers(spawn.argv),
        env: pointers(spawn.env),
        cwd: spawn.cwd,
        stdio: [null.as_raw_fd(), spawn.stdout.as_raw_fd(), spawn.stderr.as_raw_fd()],
        inherit: spawn.inherit,
        cgroup_procs: spawn.cgroup_procs.map(|fd| fd.as_raw_fd()),
        failed: None,
    };
    let spawned = clone(&mut orders).map_err(fork)?;
    // SAFETY: a plain read through a pointer of our own; volatile, because the child wrote it behind the compiler's back.
    match unsafe { ptr::read_volatile(&raw const orders.failed) } {
        None => Ok(spawned),
        Some((step, code)) => {
            // It has exited already: this only takes the zombie away.
            let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(spawned.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
            Err(SpawnFailure { step, source: io::Error::from_raw_os_error(code) })
        }
    }
}

fn clone(orders: &mut Orders<'_>) -> io::Result<Spawned> {
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: all signals are blocked around the clone, so no handler of ours runs in the child, which shares our memory; the
    // stack is 16-byte aligned, outlives the child's use of it (CLONE_VFORK: we resume after its exec or exit), and grows down
    // from its end; `orders` and `pidfd` outlive it for the same reason; `child` calls only async-signal-safe functions.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
        let pid = libc::clone(child, top, flags, ptr::from_mut(orders).cast::<c_void>(), &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }?;
    // SAFETY: the kernel has just put this descriptor into our table and nobody else knows of it.
    Ok(Spawned { pid: pid.unsigned_abs(), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Runs in the child, on borrowed memory: system calls only.
extern "C" fn child(orders: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a pointer to Orders that lives until we execute or exit, and our parent does not touch it meanwhile.
    unsafe {
        let orders = orders.cast::<Orders<'_>>();
        let step = become_program(&*orders);
        let code = *libc::__errno_location();
        ptr::write_volatile(&raw mut (*orders).failed, Some((step, code)));
        libc::_exit(127)
    }
}

/// Returns only when a step failed; errno says why.
///
/// # Safety
/// Only between clone and exec. Calls nothing that allocates or locks.
unsafe fn become_program(orders: &Orders<'_>) -> SpawnStep {
    // SAFETY: plain system calls on values that the parent prepared.
    unsafe {
        libc::setsid();
        // By system call, since the C library refuses to touch the two signals that it keeps to itself, and one of them may be
        // ignored from a parent with another library. All zero is SIG_DFL without flags or mask in every layout of the struct.
        let default = [0_u64; 8];
        for signal in 1..=MAX_SIGNAL {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), size_of::<u64>());
        }
        if let Some(procs) = orders.cgroup_procs
            && libc::write(procs, c"0".as_ptr().cast(), 1) != 1
        {
            return SpawnStep::Cgroup;
        }
        if libc::chdir(orders.cwd.as_ptr()) != 0 {
            return SpawnStep::Cwd;
        }
        for (target, fd) in (0..).zip(orders.stdio) {
            if libc::dup2(fd, target) < 0 {
                return SpawnStep::Descriptors;
            }
        }
        close_the_rest_on_exec();
        for fd in orders.inherit {
            if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                return SpawnStep::Descriptors;
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve(orders.argv[0], orders.argv.as_ptr(), orders.env.as_ptr());
        SpawnStep::Exec
    }
}

/// # Safety
/// As `become_program`.
unsafe fn close_the_rest_on_exec() {
    // SAFETY: flags on descriptors of the child's own table.
    unsafe {
        let all = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if all == 0 {
            return;
        }
        // Linux before 5.11: one by one, as far as descriptors can go in practice.
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        for fd in 3..limit.rlim_cur.min(1 << 16) as c_int {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}
