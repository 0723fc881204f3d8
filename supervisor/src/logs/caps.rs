//! What has to go when logs become too large or too old: values in, values out.

use crate::model::Timestamp;
use std::{collections::BTreeMap, time::Duration};

/// How much of the past of a node is kept on the disk, and of all nodes of its devnet together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caps {
    pub node_bytes: u64,
    pub devnet_bytes: u64,
    pub age: Duration,
}

/// Bytes before `to` of a log that are on the disk and have not been counted with a lower `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held<Log> {
    pub(super) log: Log,
    /// Its index among the nodes' caps.
    pub(super) node: usize,
    pub(super) to: u64,
    pub(super) bytes: u64,
    /// When the last of it was written.
    pub(super) at: Timestamp,
    /// A running node writes there: it counts, and stays.
    pub(super) in_use: bool,
}

/// For each log of one devnet that must lose something: up to where. The oldest goes first; what is kept fits the caps, unless what is
/// in use alone is too much.
pub(super) fn excess<Log: Ord + Clone>(held: &[Held<Log>], caps: &[Caps], now: Timestamp) -> BTreeMap<Log, u64> {
    let mut nodes = vec![0_u64; caps.len()];
    held.iter().for_each(|part| nodes[part.node] += part.bytes);
    let mut devnet: u64 = nodes.iter().sum();
    let devnet_cap = devnet_cap(caps);
    let mut oldest: Vec<&Held<Log>> = held.iter().filter(|part| !part.in_use).collect();
    oldest.sort_by(|a, b| (a.at, &a.log, a.to).cmp(&(b.at, &b.log, b.to)));
    let mut drops: BTreeMap<Log, u64> = BTreeMap::new();
    for part in oldest {
        let (node, cap) = (&mut nodes[part.node], &caps[part.node]);
        // A clock that was set back may put a later part first: with it goes what stands before it in its log.
        let gone = drops.get(&part.log).is_some_and(|to| part.to <= *to);
        if gone || *node > cap.node_bytes || devnet > devnet_cap || now.since(part.at) > cap.age {
            *node = node.saturating_sub(part.bytes);
            devnet = devnet.saturating_sub(part.bytes);
            let to = drops.entry(part.log.clone()).or_default();
            *to = part.to.max(*to);
        }
    }
    drops
}

/// All nodes of a devnet say the same, but for the moment in which it is changed.
pub(super) fn devnet_cap(caps: &[Caps]) -> u64 {
    caps.iter().map(|caps| caps.devnet_bytes).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn held(log: &'static str, node: usize, to: u64, at: i64) -> Held<&'static str> {
        Held { log, node, to, bytes: 10, at: Timestamp::from_millis(at), in_use: false }
    }

    fn check(caps: (u64, u64), expect: &[(&'static str, u64)]) {
        let all = [held("a1", 0, 10, 1), held("a1", 0, 20, 3), held("a2", 0, 10, 5), held("b1", 1, 10, 2), held("b1", 1, 20, 4)];
        let caps = [Caps { node_bytes: caps.0, devnet_bytes: caps.1, age: DAY }; 2];
        assert_eq!(excess(&all, &caps, Timestamp::from_millis(9)), expect.iter().copied().collect(), "{caps:?}");
    }

    #[test]
    fn the_oldest_goes_first_in_a_node_and_in_a_devnet() {
        check((30, 50), &[]);
        check((20, 50), &[("a1", 10)]);
        check((30, 40), &[("a1", 10)]);
        check((30, 25), &[("a1", 20), ("b1", 10)]);
        check((0, 50), &[("a1", 20), ("a2", 10), ("b1", 20)]);
    }

    #[test]
    fn age_takes_what_is_small_enough_and_a_running_log_stays() {
        let mut all = [held("a1", 0, 10, 0), held("a2", 0, 10, 5)];
        let caps = [Caps { node_bytes: 99, devnet_bytes: 99, age: DAY }];
        let now = Timestamp::from_millis(3).plus(DAY);
        assert_eq!(excess(&all, &caps, now), [("a1", 10)].into());
        all[0].in_use = true;
        assert_eq!(excess(&all, &caps, now), [].into());
    }

    #[test]
    fn each_node_has_caps_of_its_own() {
        let all = [held("a1", 0, 10, 1), held("a1", 0, 20, 2), held("b1", 1, 10, 1), held("b1", 1, 20, 2), held("c1", 2, 10, 1)];
        let wide = Caps { node_bytes: 99, devnet_bytes: 99, age: DAY };
        let caps = [Caps { node_bytes: 10, ..wide }, wide, Caps { age: Duration::from_millis(5), ..wide }];
        assert_eq!(excess(&all, &caps, Timestamp::from_millis(9)), [("a1", 10), ("c1", 10)].into());
    }

    fn sum<Log>(held: &[&Held<Log>], node: Option<usize>) -> u64 {
        held.iter().filter(|part| node.is_none_or(|node| part.node == node)).map(|part| part.bytes).sum()
    }

    proptest! {
        #[test]
        fn what_stays_fits_and_nothing_goes_needlessly(
            parts in prop::collection::vec((0..3_usize, 0..2_usize, 1..100_u64, 0..50_i64, prop::bool::weighted(0.2)), 0..30),
            node_bytes in 0..600_u64, devnet_bytes in 0..1_500_u64,
        ) {
            let mut ends: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            let held: Vec<Held<(usize, usize)>> = parts.into_iter().map(|(node, log, bytes, at, in_use)| {
                let to = ends.entry((node, log)).or_default();
                *to += bytes;
                Held { log: (node, log), node, to: *to, bytes, at: Timestamp::from_millis(at), in_use }
            }).collect();
            let caps = [Caps { node_bytes, devnet_bytes, age: DAY }; 3];
            let drops = excess(&held, &caps, Timestamp::from_millis(50));
            let stays = |part: &&Held<(usize, usize)>| part.in_use || drops.get(&part.log).is_none_or(|to| part.to > *to);
            let left: Vec<&Held<_>> = held.iter().filter(stays).collect();
            let in_use: Vec<&Held<_>> = held.iter().filter(|part| part.in_use).collect();
            let all: Vec<&Held<_>> = held.iter().collect();
            prop_assert!(sum(&left, None) <= devnet_bytes.max(sum(&in_use, None)));
            for node in 0..3 {
                prop_assert!(sum(&left, Some(node)) <= node_bytes.max(sum(&in_use, Some(node))));
            }
            if sum(&all, None) <= devnet_bytes && (0..3).all(|node| sum(&all, Some(node)) <= node_bytes) {
                prop_assert!(drops.is_empty());
            }
        }
    }
}
