//! Which node's data an export reads, decided from values alone.

/// A node as far as that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    /// Short name.
    pub(super) name: &'a str,
    pub(super) validator: bool,
    pub(super) state: State,
    /// Of the chain as this node has it; None: not known.
    pub(super) height: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// No process, and none is wanted: its data lies still already.
    Down,
    /// On its way up or down.
    Unsettled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read this node's data; `pause`: it runs, and must stand still meanwhile.
    Read {
        node: String,
        pause: bool,
    },
    /// Until a node changes.
    Wait(String),
    Refuse(String),
}

/// `named`: the node that the user wants read.
pub(super) fn plan(named: Option<&str>, height: Option<u64>, nodes: &[Seen<'_>]) -> Step {
    if nodes.is_empty() {
        return Step::Wait("the devnet has no chain node yet".into());
    }
    let candidates: Vec<&Seen<'_>> = nodes.iter().filter(|node| named.is_none_or(|named| named == node.name)).collect();
    if let (Some(named), true) = (named, candidates.is_empty()) {
        return Step::Refuse(format!("the devnet has no chain node {named}"));
    }
    let Some(best) = candidates.iter().filter(|node| node.state != State::Unsettled).min_by_key(|node| missed(node)) else {
        return Step::Wait(named.map_or("no node of the devnet is ready".into(), |named| format!("{named} is not ready")));
    };
    match (height, best.height) {
        (Some(wanted), Some(has)) if wanted > has => Step::Refuse(format!("height {wanted} is not there yet: {} is at {has}", best.name)),
        (Some(_), None) if best.state == State::Ready => Step::Wait(format!("the height of {} is not known yet", best.name)),
        _ => Step::Read { node: best.name.to_owned(), pause: best.state == State::Ready },
    }
}

/// How much the chain and its users miss a node while it stands still: a full node least, then the validator with the highest index,
/// since tools talk to the first. A node that is down may be behind, so it comes last.
fn missed(node: &Seen<'_>) -> (bool, bool, std::cmp::Reverse<u32>) {
    let index = node.name.rsplit('-').next().and_then(|index| index.parse().ok()).unwrap_or(0);
    (node.state == State::Down, node.validator, std::cmp::Reverse(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(name: &str, state: State, height: u64) -> Seen<'_> {
        Seen { name, validator: name.starts_with("validator"), state, height: Some(height) }
    }

    fn check(named: Option<&str>, height: Option<u64>, nodes: &[Seen<'_>], expect: &str) {
        let said = match plan(named, height, nodes) {
            Step::Read { node, pause } => format!("read {node}{}", if pause { ", paused" } else { "" }),
            Step::Wait(why) => format!("wait: {why}"),
            Step::Refuse(why) => format!("refuse: {why}"),
        };
        assert!(said.contains(expect), "{said}");
    }

    #[test]
    fn the_node_is_read_that_is_missed_least() {
        use State::{Down, Ready, Unsettled};
        let full = [seen("validator-0", Ready, 9), seen("validator-1", Ready, 9), seen("fullnode-0", Ready, 9)];
        check(None, None, &full, "read fullnode-0, paused");
        check(None, None, &full[..2], "read validator-1, paused");
        check(Some("validator-0"), None, &full, "read validator-0, paused");
        check(None, None, &[seen("validator-0", Ready, 9), seen("fullnode-0", Unsettled, 9)], "read validator-0, paused");
        check(None, None, &[seen("validator-0", Ready, 9), seen("fullnode-0", Down, 3)], "read validator-0, paused");
        check(None, None, &[seen("validator-0", Down, 9)], "read validator-0");
    }

    #[test]
    fn what_may_come_is_waited_for_and_what_cannot_be_is_refused() {
        use State::{Ready, Unsettled};
        check(None, None, &[], "wait: the devnet has no chain node");
        check(None, None, &[seen("validator-0", Unsettled, 9)], "wait: no node of the devnet is ready");
        check(Some("validator-0"), None, &[seen("validator-0", Unsettled, 9)], "wait: validator-0 is not ready");
        check(Some("validator-7"), None, &[seen("validator-0", Ready, 9)], "refuse: the devnet has no chain node validator-7");
        check(None, Some(10), &[seen("validator-0", Ready, 9)], "refuse: height 10 is not there yet: validator-0 is at 9");
        check(None, Some(9), &[seen("validator-0", Ready, 9)], "read validator-0");
        check(None, Some(9), &[Seen { height: None, ..seen("validator-0", Ready, 0) }], "wait: the height of validator-0");
    }

    proptest! {
        #[test]
        fn a_node_that_runs_is_never_read_without_a_pause(states in proptest::collection::vec((0..3u8, 0..20u64), 0..6), wanted in proptest::option::of(0..20u64)) {
            let names: Vec<String> = (0..states.len()).map(|index| format!("validator-{index}")).collect();
            let state = |kind| match kind { 0 => State::Ready, 1 => State::Down, _ => State::Unsettled };
            let nodes: Vec<Seen<'_>> = names.iter().zip(&states).map(|(name, (kind, height))| seen(name, state(*kind), *height)).collect();
            if let Step::Read { node, pause } = plan(None, wanted, &nodes) {
                let read = nodes.iter().find(|seen| seen.name == node).unwrap();
                prop_assert_ne!(read.state, State::Unsettled);
                prop_assert_eq!(pause, read.state == State::Ready);
                prop_assert!(wanted.is_none_or(|wanted| wanted <= read.height.unwrap()));
            }
        }
    }
}
