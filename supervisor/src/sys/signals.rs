//! Signal names and numbers.

use nix::sys::signal::Signal;
use std::str::FromStr;

/// `SIGTERM` or `TERM`, any case; None when there is no such signal.
pub fn signal_from_name(name: &str) -> Option<Signal> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&full).ok()
}

/// `SIGKILL` for 9; the number itself for one without a name.
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(signal_from_name("term"), Some(Signal::SIGTERM));
        assert_eq!(signal_from_name("SIGINT"), Some(Signal::SIGINT));
        assert_eq!(signal_from_name("NOPE"), None);
        assert_eq!(signal_name(9), "SIGKILL");
    }
}
