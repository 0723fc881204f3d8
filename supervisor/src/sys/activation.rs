//! The socket that a service manager listens on for us, and passes to us when somebody connects.

#![allow(unsafe_code, reason = "taking over a descriptor by its number has no safe form")]

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

/// The first descriptor that is passed, by the protocol.
const FIRST: i32 = 3;

/// True when this process was started with sockets: then the service manager owns their files. Stays true when we execute ourselves anew.
pub fn is_activated() -> bool {
    let var = |name: &str| std::env::var_os(name);
    is_for_us(var("LISTEN_PID").as_deref(), var("LISTEN_FDS").as_deref(), std::process::id())
}

/// The first socket of those that were passed. Call it once, before anything else opens descriptors; None when there is none for us.
pub fn activated_listener() -> io::Result<Option<UnixListener>> {
    if !is_activated() {
        return Ok(None);
    }
    // Sets close-on-exec on all of them: nodes get what is meant for them only.
    sd_notify::listen_fds()?.len();
    // SAFETY: by the protocol the descriptor is there and is this process's own; nothing in this program took it before.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    let is_listening = rustix::net::sockopt::socket_acceptconn(fd.as_fd())?;
    if !is_listening || rustix::net::sockopt::socket_domain(fd.as_fd())? != rustix::net::AddressFamily::UNIX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the first descriptor that was passed is no listening unix socket"));
    }
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// The variables may be left over from a parent: they count only with our own pid.
fn is_for_us(pid: Option<&OsStr>, count: Option<&OsStr>, own: u32) -> bool {
    let number = |text: Option<&OsStr>| text?.to_str()?.parse::<u32>().ok();
    number(pid) == Some(own) && number(count).is_some_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_were_passed_to_somebody_else_are_not_taken() {
        let check = |pid: Option<&str>, count: Option<&str>, expect: bool| {
            assert_eq!(is_for_us(pid.map(OsStr::new), count.map(OsStr::new), 7), expect, "{pid:?} {count:?}");
        };
        check(Some("7"), Some("1"), true);
        check(Some("8"), Some("1"), false);
        check(Some("7"), Some("0"), false);
        check(Some("7"), None, false);
        check(None, Some("1"), false);
        check(Some("x"), Some("1"), false);
    }
}
