//! How many descriptors may be open: more for the daemon, which holds several per node; for what it starts, as many as it found.
//!
//! A program that still uses select() breaks on numbers above 1023, so a raised soft limit is no present to pass on.

#![allow(unsafe_code, reason = "what a child does before exec has no safe form")]

use nix::libc;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, sync::OnceLock};

/// Enough for thousands of nodes; a table for more costs memory where the hard limit is in the millions.
const ENOUGH: u64 = 65_536;

/// The soft limit that this process was started with, once it was raised.
static FOUND: OnceLock<u64> = OnceLock::new();

/// None: without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
    /// The soft limit of the processes that we start.
    pub children: Option<u64>,
}

impl OpenFiles {
    pub fn now() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        Self { soft: current, hard: maximum, children: found().or(current) }
    }
}

/// Raises the soft limit to the hard one, or to what is enough.
pub fn raise_open_files() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |hard| hard.min(ENOUGH));
    let Some(soft) = current.filter(|soft| *soft < wanted) else { return Ok(()) };
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    let _ = FOUND.set(soft); // set already after a reload that failed, and to the same
    Ok(())
}

/// As it was found: for the program that is executed next in this process, which raises it anew.
pub fn restore_open_files() -> io::Result<()> {
    let Some(soft) = found() else { return Ok(()) };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?)
}

/// None: it was not raised, and there is nothing to give back.
pub(super) fn found() -> Option<u64> {
    FOUND.get().copied()
}

/// For a child between fork and exec: two system calls, nothing is allocated.
pub(super) fn give_back(soft: u64) -> bool {
    // SAFETY: plain system calls on a value of our own.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return false;
        }
        limit.rlim_cur = soft.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
    }
}

/// Whether EMFILE or ENFILE is what an error comes from: there were no descriptors left, which says nothing of what was to be done.
pub fn is_out_of_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    comes_from(error, &[nix::libc::EMFILE, nix::libc::ENFILE])
}

/// Whether ENOSPC or EDQUOT is what an error comes from: a disk had no room left, in blocks or in inodes.
pub fn is_out_of_space(error: &(dyn std::error::Error + 'static)) -> bool {
    comes_from(error, &[nix::libc::ENOSPC, nix::libc::EDQUOT])
}

fn comes_from(error: &(dyn std::error::Error + 'static), codes: &[i32]) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let shared = cause.downcast_ref::<std::sync::Arc<std::io::Error>>().map(|shared| &**shared);
        let code = cause.downcast_ref::<std::io::Error>().or(shared).and_then(std::io::Error::raw_os_error);
        let code = code.or_else(|| cause.downcast_ref::<nix::errno::Errno>().map(|errno| *errno as i32));
        code.is_some_and(|code| codes.contains(&code))
    })
}
