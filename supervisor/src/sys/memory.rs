//! What the allocator holds back for later.

#![allow(unsafe_code, reason = "the C library's allocator has no safe form")]

/// Gives memory that nothing uses back to the system. Blocks for milliseconds; with another C library than GNU's it does nothing.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number of bytes to keep at the top, any is right, and locks what it touches.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
