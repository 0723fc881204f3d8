//! Work that must not take a processor or a disk from anything else.

#![allow(unsafe_code, reason = "scheduling policy and i/o priority have no safe form")]

use nix::libc;

/// Gives the calling thread what others leave: SCHED_IDLE, nice 19, and the idle class of i/o. What the kernel refuses stays as it
/// was. A thread cannot take it back, so call this only on a thread of your own.
pub fn yield_to_all_others() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IDLE_CLASS: libc::c_int = 3 << 13;
    // SAFETY: system calls about the calling thread alone (0); the struct is plain and outlives the call.
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IDLE_CLASS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_steps_back() {
        // SAFETY: a question about the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let inside = std::thread::spawn(move || {
            yield_to_all_others();
            policy()
        });
        assert_eq!(inside.join().unwrap(), libc::SCHED_IDLE);
        assert_eq!(policy(), before);
    }
}
