//! What this process holds of the machine's memory without need.

#![allow(unsafe_code, reason = "neither the C library's allocator nor madvise has a safe form")]

use procfs::process::{MMPermissions, MMapPath, Process};

/// GNU's C library gives each thread a heap of its own, and each keeps the holes that a burst leaves in it. With one for all, the
/// store's writer and the controllers wait for each other: a third of the time between a death and the next fork. To be called before
/// there are threads.
pub fn share_few_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that later allocations read.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 4);
    }
}

/// Gives memory that nothing uses back to the system: of the heap with GNU's C library, and of the program's text what is mapped. That
/// stays in the page cache, and what is executed again is mapped again, for half a microsecond a page; what only the start
/// needed, the kernel may then drop as soon as somebody else wants the memory. Blocks for milliseconds.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number of bytes to keep at the top, any is right, and locks what it touches.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    if let Err(error) = unmap_text() {
        tracing::debug!(%error, "the program's text stays mapped");
    }
}

fn unmap_text() -> Result<(), procfs::ProcError> {
    let process = Process::myself()?;
    let program = process.exe()?;
    let is_text = |perms: MMPermissions| perms.contains(MMPermissions::EXECUTE | MMPermissions::PRIVATE) && !perms.contains(MMPermissions::WRITE);
    for map in process.maps()? {
        let (start, end) = map.address;
        if is_text(map.perms) && map.pathname == MMapPath::Path(program.clone()) {
            // SAFETY: pages of a file that were never written, as text is not; whoever touches one gets the same bytes again.
            unsafe { nix::libc::madvise(start as *mut nix::libc::c_void, (end - start) as usize, nix::libc::MADV_DONTNEED) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of the text of this very program that are mapped.
    fn mapped() -> u64 {
        let process = Process::myself().unwrap();
        let program = MMapPath::Path(process.exe().unwrap());
        let maps = process.smaps().unwrap();
        let of_text = maps.iter().filter(|map| map.pathname == program && map.perms.contains(MMPermissions::EXECUTE));
        of_text.map(|map| map.extension.map["Rss"]).sum::<u64>() >> 10
    }

    #[test]
    fn text_that_is_not_executed_is_unmapped_and_the_rest_comes_again() {
        let shrinks = || {
            let before = mapped();
            give_memory_back();
            mapped() < before
        };
        assert!((0..100).any(|_| shrinks()), "{} KiB", mapped()); // other tests go on meanwhile, and map theirs
    }
}
