//! A child that borrows our memory until it executes, as in the C library's posix_spawn; straight into its cgroup where the kernel can.
//!
//! A process that moves itself into a cgroup makes the kernel wait until all processors have passed a quiet point, which takes ten
//! milliseconds and more. One that is born there costs nothing. That needs clone3 (Linux 5.7), for which the C library has no
//! function: hence the few instructions below.

#![allow(unsafe_code, reason = "clone has no safe form")]

use super::Spawned;
use nix::libc::{self, c_int, c_void};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// Runs in the child. It must execute or exit, and may call nothing that allocates or locks.
pub(super) type Child = extern "C" fn(*mut c_void) -> c_int;

/// Enough for the few frames between clone and exec, also unoptimised.
const STACK: usize = 64 << 10;

/// Returns when the child has executed or exited. The calling thread stands still in between, all others go on.
///
/// # Safety
/// `child` keeps its promises, and `argument` is what it takes it for.
pub(super) unsafe fn clone(child: Child, argument: *mut c_void) -> io::Result<Spawned> {
    let mut stack = Stack::new();
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack and `pidfd` outlive the child's use of them (CLONE_VFORK: we resume after its exec or exit); the stack is
    // 16-byte aligned and grows down from its end; the caller answers for the rest.
    let pid = without_signals(|| match unsafe { libc::clone(child, stack.end(), flags, argument, &raw mut pidfd) } {
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    })?;
    Ok(spawned(pid.unsigned_abs(), pidfd))
}

/// As `clone`; the child begins in the cgroup of this folder. Refused by older kernels, and where a container forbids clone3.
///
/// # Safety
/// As `clone`.
pub(super) unsafe fn clone_into(cgroup: BorrowedFd<'_>, child: Child, argument: *mut c_void) -> io::Result<Spawned> {
    let mut stack = Stack::new();
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
    let order = libc::clone_args {
        flags: u64::from(flags.unsigned_abs()) | INTO_CGROUP,
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: stack.start().addr() as u64,
        stack_size: STACK as u64,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        child_tid: 0,
        parent_tid: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
    };
    // SAFETY: as in `clone`; `order` is what the kernel expects and outlives the call.
    let pid = without_signals(|| match unsafe { clone3(&order, child, argument) } {
        error if error < 0 => Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::ENOSYS))),
        pid => Ok(pid),
    })?;
    Ok(spawned(u32::try_from(pid).unwrap_or_default(), pidfd))
}

/// CLONE_INTO_CGROUP, which is too wide for the type that the library gives it.
const INTO_CGROUP: u64 = 1 << 33;

/// The system call, and in the child the call of `child` on the stack that `order` names: what the C library's clone does.
/// Returns the child's pid, or an error's number below zero.
///
/// # Safety
/// As `clone`.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(order: &libc::clone_args, child: Child, argument: *mut c_void) -> i64 {
    let result: i64;
    // SAFETY: the parent only makes a system call; the child, which has 0 in rax, never comes to the end of this.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {child}",
            "ud2",
            "2:",
            argument = in(reg) argument,
            child = in(reg) child,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(order),
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As `clone`.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(order: &libc::clone_args, child: Child, argument: *mut c_void) -> i64 {
    let result: i64;
    // SAFETY: the parent only makes a system call; the child, which has 0 in x0, never comes to the end of this.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {child}",
            "brk #1",
            "2:",
            argument = in(reg) argument,
            child = in(reg) child,
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(order) => result,
            in("x1") size_of::<libc::clone_args>(),
            options(nostack),
        );
    }
    result
}

/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &libc::clone_args, _: Child, _: *mut c_void) -> i64 {
    -i64::from(libc::ENOSYS)
}

struct Stack(Vec<u128>);

impl Stack {
    fn new() -> Self {
        Self(vec![0; STACK / size_of::<u128>()])
    }

    fn start(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    fn end(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

/// The child shares our memory: no handler of ours may run in it.
fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: plain calls on sets of our own; the mask is put back as it was.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = run();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        result
    }
}

fn spawned(pid: u32, pidfd: c_int) -> Spawned {
    // SAFETY: the kernel has just put this descriptor into our table and nobody else knows of it.
    Spawned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }
}
