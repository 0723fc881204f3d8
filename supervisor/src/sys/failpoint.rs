//! Failpoints: places where a daemon that was told so kills itself, for the crash matrix. A release build has none.

/// `area/step`, or `area/step@N` for the N-th time that it comes by there.
#[cfg(debug_assertions)]
const FAILPOINTS_VAR: &str = "FAILPOINTS";

/// Ends this process by SIGKILL when the environment variable FAILPOINTS names this point: nothing is unwound, closed or flushed.
#[cfg(debug_assertions)]
pub fn failpoint(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };
    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::parse(&std::env::var(FAILPOINTS_VAR).ok()?));
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == armed.pass {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn failpoint(_name: &str) {}

#[cfg(debug_assertions)]
#[derive(Debug, PartialEq, Eq)]
struct Armed {
    name: String,
    pass: u32,
}

#[cfg(debug_assertions)]
impl Armed {
    fn parse(text: &str) -> Option<Self> {
        let (name, pass) = text.split_once('@').unwrap_or((text, "1"));
        let pass = pass.parse().ok().filter(|pass| *pass > 0)?;
        (!name.is_empty()).then(|| Self { name: name.to_owned(), pass })
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_the_pass_that_counts_and_nonsense_arms_nothing() {
        let armed = |name: &str, pass| Some(Armed { name: name.into(), pass });
        assert_eq!(Armed::parse("launch/forked"), armed("launch/forked", 1));
        assert_eq!(Armed::parse("store/commit@7"), armed("store/commit", 7));
        for nonsense in ["", "@2", "store/commit@0", "store/commit@x"] {
            assert_eq!(Armed::parse(nonsense), None, "{nonsense:?}");
        }
    }
}
