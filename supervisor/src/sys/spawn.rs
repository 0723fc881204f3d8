//! Forks and executes one program: into its cgroup, in a session of its own, with a pidfd in hand before anything else can happen.
//!
//! `std::process::Command` is not enough here: it runs a file without a header through a shell, it copies the daemon's page
//! tables at each fork, and it hands out a pid where we need a pidfd. The child borrows our memory until it executes, so it needs no
//! pipe to tell us why it could not.

#![allow(unsafe_code, reason = "what a child does between clone and exec has no safe form")]

use super::{
    Kernel, brand,
    clone::{clone, clone_into},
    open_files,
};
use nix::libc::{self, c_char, c_int, c_void};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
    sync::{PoisonError, RwLock},
};

/// Held by those who fork until their child has executed its program: until then it has a copy of each of our descriptors.
static FORKING: RwLock<()> = RwLock::new(());

/// For forks by other means than `spawn`: `work` returns when its child has executed its program.
pub fn with_a_child_in_between<T>(work: impl FnOnce() -> T) -> T {
    let _forking = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Descriptors that `work` closes are closed for good: no child of ours is there that still has a copy.
pub fn with_no_child_in_between<T>(work: impl FnOnce() -> T) -> T {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

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
    /// The folder of a cgroup: the child is born in it, or moves itself in before it executes.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// See `process_brand`.
    pub brand: Option<u64>,
    pub kernel: Kernel,
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

const MAX_SIGNAL: c_int = 64;

/// What the child reads, and where it writes why it failed. Plain pointers: nothing may be allocated between clone and exec.
struct Orders<'a> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    cwd: &'a CStr,
    stdio: [RawFd; 3],
    inherit: &'a [RawFd],
    /// What it has to move itself into.
    cgroup: Option<RawFd>,
    /// Its soft limit, where ours is another.
    open_files: Option<u64>,
    brand: Option<u64>,
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
        cgroup: None,
        open_files: open_files::found(),
        brand: spawn.brand,
        failed: None,
    };
    let forking = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    let spawned = start(&mut orders, spawn.cgroup, spawn.kernel).map_err(fork)?;
    drop(forking);
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

fn start(orders: &mut Orders<'_>, cgroup: Option<BorrowedFd<'_>>, kernel: Kernel) -> io::Result<Spawned> {
    if let Some(cgroup) = cgroup.filter(|_| kernel.clone_into_cgroup) {
        let argument = ptr::from_mut(orders).cast::<c_void>();
        // SAFETY: `child` makes system calls only and takes the orders that it is given, which outlive it.
        if let Ok(spawned) = unsafe { clone_into(cgroup, child, argument) } {
            return Ok(spawned);
        }
        // If it is the cgroup's fault, the step that fails below says so.
    }
    orders.cgroup = cgroup.map(|fd| fd.as_raw_fd());
    // SAFETY: as above.
    unsafe { clone(child, ptr::from_mut(orders).cast::<c_void>()) }
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
        if let Some(cgroup) = orders.cgroup {
            let procs = libc::openat(cgroup, c"cgroup.procs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if procs < 0 || libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
                return SpawnStep::Cgroup;
            }
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
        if let Some(soft) = orders.open_files
            && !open_files::give_back(soft)
        {
            return SpawnStep::Descriptors;
        }
        if let Some(brand) = orders.brand {
            brand::carry(brand);
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
