//! What a random run does, as a list that follows from the seed alone: each step takes the same count of numbers, whatever comes of it.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) deed: Deed,
    /// Who it is done to: so many of those that are there, in order, from the first on again.
    pub(super) whom: usize,
    /// During a fault that lasts.
    pub(super) meanwhile: Meanwhile,
    pub(super) lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    KillNode,
    KillDaemon,
    KillKeeper,
    FullDisk,
    NoDescriptors,
    StandStill,
    Pause,
    Ask(Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Stop,
    Start,
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    KillNode,
    Ask(Verb),
}

/// How long one fault lasts at most.
const FAULT_MS: u64 = 1500;
const VERBS: [Verb; 3] = [Verb::Stop, Verb::Start, Verb::Restart];

/// Without end.
pub(super) fn plan(seed: u64) -> impl Iterator<Item = Step> {
    let mut random = Random(seed | 1);
    std::iter::repeat_with(move || {
        // All five of each step, needed or not.
        let [deed, verb, whom, meanwhile, lasts] = std::array::from_fn(|_| random.next());
        let verb = VERBS[verb as usize % VERBS.len()];
        Step {
            deed: match deed % 16 {
                0..=2 => Deed::KillNode,
                3 | 4 => Deed::KillDaemon,
                5 => Deed::KillKeeper,
                6 => Deed::FullDisk,
                7 => Deed::NoDescriptors,
                8 => Deed::StandStill,
                9 => Deed::Pause,
                _ => Deed::Ask(verb),
            },
            whom: (whom % 1000) as usize,
            meanwhile: if meanwhile % 2 == 0 { Meanwhile::KillNode } else { Meanwhile::Ask(verb) },
            lasts: Duration::from_millis(lasts % FAULT_MS),
        }
    })
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

#[test]
fn one_seed_gives_the_same_steps_another_seed_others_and_all_kinds_come() {
    let steps = |seed| plan(seed).take(500).collect::<Vec<_>>();
    assert_eq!(steps(1_795_974_842_057), steps(1_795_974_842_057));
    assert_ne!(steps(1_795_974_842_057), steps(1_795_974_842_059));
    let kinds: std::collections::BTreeSet<_> = steps(7).into_iter().map(|step| step.deed).collect();
    assert_eq!(kinds.len(), 7 + VERBS.len(), "{kinds:?}");
    // A seed that was noted today must mean the same tomorrow.
    let words: Vec<_> = plan(42).take(4).map(|step| format!("{:?} {} {:?}", step.deed, step.whom % 100, step.lasts)).collect();
    assert_eq!(words, ["Ask(Start) 93 1.176s", "KillNode 79 1.095s", "Ask(Stop) 26 159ms", "KillDaemon 11 319ms"]);
}
