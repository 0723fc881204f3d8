//! Single decisions, and a whole lane on a chain that loses, delays and expires what it is sent.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn unsigned() -> Item {
    Item { bytes: None, held: false }
}

fn signed(sequence: u64, sent: Sent) -> Item {
    Item { bytes: Some(Bytes { sequence, expires_at: 100, sent, included: false }), held: false }
}

fn at(sequence: u64, height: u64) -> Chain {
    Chain { sequence, sequence_height: height, height, expects: None }
}

#[test]
fn new_transactions_get_the_next_sequences_up_to_the_window() {
    let items = [signed(3, Sent::Taken { height: 9 }), unsigned(), unsigned(), unsigned()];
    assert_eq!(plan(&items, &at(3, 10), 3), Plan { sign: vec![(1, 4), (2, 5)], ..Plan::default() });
}

#[test]
fn bytes_that_were_perhaps_sent_live_until_they_expire() {
    let item = [signed(3, Sent::Perhaps)];
    assert_eq!(plan(&item, &at(3, 99), 4), Plan { send: vec![0], ..Plan::default() });
    assert_eq!(plan(&item, &at(3, 100), 4), Plan { dead: vec![0], sign: vec![(0, 3)], ..Plan::default() });
}

#[test]
fn a_sequence_that_another_transaction_used_kills_the_bytes_only_once_all_blocks_were_looked_at() {
    let item = [signed(3, Sent::Taken { height: 9 })];
    let lagging = Chain { sequence_height: 11, ..at(4, 10) };
    assert_eq!(plan(&item, &lagging, 4), Plan::default());
    assert_eq!(plan(&item, &at(4, 11), 4), Plan { dead: vec![0], sign: vec![(0, 4)], ..Plan::default() });
}

#[test]
fn bytes_that_nobody_has_are_signed_anew_behind_a_gap() {
    let items = [signed(4, Sent::Never), signed(5, Sent::Never)];
    assert_eq!(plan(&items, &at(3, 10), 4), Plan { dead: vec![0, 1], sign: vec![(0, 3), (1, 4)], ..Plan::default() });
}

#[test]
fn a_gap_below_sent_bytes_is_filled_by_what_comes_next() {
    let items = [signed(4, Sent::Perhaps), unsigned(), unsigned()];
    assert_eq!(plan(&items, &at(3, 10), 4), Plan { send: vec![0], sign: vec![(1, 3), (2, 5)], ..Plan::default() });
}

#[test]
fn a_node_that_expects_more_than_the_chain_knows_of_others_that_are_pending() {
    let chain = Chain { expects: Some(5), ..at(3, 10) };
    assert_eq!(plan(&[signed(3, Sent::Never)], &chain, 4), Plan { dead: vec![0], sign: vec![(0, 5)], ..Plan::default() });
}

#[test]
fn what_a_node_took_and_did_not_put_into_a_block_is_sent_again() {
    let item = [signed(3, Sent::Taken { height: 10 })];
    assert_eq!(plan(&item, &at(3, 10 + RESEND_AFTER - 1), 4).send, [0; 0]);
    assert_eq!(plan(&item, &at(3, 10 + RESEND_AFTER), 4).send, [0]);
}

#[test]
fn what_is_in_a_block_is_settled_whatever_else_holds() {
    let item = [Item { bytes: Some(Bytes { sequence: 3, expires_at: 5, sent: Sent::Perhaps, included: true }), held: false }];
    assert_eq!(plan(&item, &at(9, 10), 4), Plan { settled: vec![0], ..Plan::default() });
}

/// What the chain does with each thing that is sent.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Taken,
    /// Taken, and the answer is lost.
    TakenUnheard,
    /// Never came to the node, which the lane cannot know.
    Lost,
    /// Refused, and the lane is told.
    Refused,
}

#[derive(Clone, Debug)]
struct Weather {
    luck: Vec<Luck>,
    /// Blocks that the chain makes after this round, and whether its mempool is emptied before.
    blocks: u64,
    forgets: bool,
    /// Another wallet uses the account's next sequence.
    stranger: bool,
    /// The daemon is killed: what it only remembered is gone.
    killed: bool,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![4 => Just(Luck::Taken), 1 => Just(Luck::TakenUnheard), 1 => Just(Luck::Lost), 1 => Just(Luck::Refused)]
}

fn weather() -> impl Strategy<Value = Weather> {
    (proptest::collection::vec(luck(), 0..6), 0..4u64, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1), proptest::bool::weighted(0.1))
        .prop_map(|(luck, blocks, forgets, stranger, killed)| Weather { luck, blocks, forgets, stranger, killed })
}

const LIFE: u64 = 8;

/// An account on a chain: what is in its blocks and in its mempool, by sequence. Bytes are (transaction, attempt).
#[derive(Default)]
struct Model {
    height: u64,
    sequence: u64,
    pool: BTreeMap<u64, ((usize, u32), u64)>,
    blocks: Vec<(usize, u32)>,
}

impl Model {
    fn block(&mut self) {
        self.height += 1;
        let height = self.height;
        self.pool.retain(|_, (_, expires_at)| *expires_at >= height);
        while let Some((id, _)) = self.pool.remove(&self.sequence) {
            self.blocks.push(id);
            self.sequence += 1;
        }
        let next = self.sequence;
        self.pool.retain(|sequence, _| *sequence >= next);
    }
    fn take(&mut self, id: (usize, u32), bytes: &Bytes) {
        if bytes.sequence >= self.sequence && bytes.expires_at > self.height {
            self.pool.entry(bytes.sequence).or_insert((id, bytes.expires_at));
        }
    }
}

/// One round of the lane, as `apply` does it.
fn round(items: &mut [(Item, u32)], model: &mut Model, weather: &Weather) -> Result<(), TestCaseError> {
    for (index, (item, attempt)) in items.iter_mut().enumerate() {
        if let Some(bytes) = &mut item.bytes {
            bytes.included = model.blocks.contains(&(index, *attempt));
        }
    }
    let view: Vec<Item> = items.iter().map(|(item, _)| *item).collect();
    let plan = plan(&view, &at(model.sequence, model.height), 4);
    for index in &plan.settled {
        (items[*index].0.bytes, items[*index].0.held) = (None, true);
    }
    for index in &plan.dead {
        items[*index].0.bytes = None;
    }
    let mut send = plan.send;
    for (index, sequence) in plan.sign {
        prop_assert!(items[index].0.bytes.is_none(), "living bytes are never replaced");
        items[index].1 += 1;
        items[index].0.bytes = Some(Bytes { sequence, expires_at: model.height + LIFE, sent: Sent::Never, included: false });
        send.push(index);
    }
    let mut living: Vec<u64> = items.iter().filter_map(|(item, _)| item.bytes).map(|bytes| bytes.sequence).collect();
    let count = living.len();
    living.sort_unstable();
    living.dedup();
    prop_assert_eq!(living.len(), count, "two living bytes have one sequence");
    send.sort_by_key(|index| items[*index].0.bytes.map(|bytes| bytes.sequence));
    for (at, index) in send.into_iter().enumerate() {
        let (item, attempt) = &mut items[index];
        let Some(bytes) = &mut item.bytes else { continue };
        match weather.luck.get(at).copied().unwrap_or(Luck::Taken) {
            Luck::Taken => {
                model.take((index, *attempt), bytes);
                bytes.sent = Sent::Taken { height: model.height };
            }
            Luck::TakenUnheard => {
                model.take((index, *attempt), bytes);
                bytes.sent = Sent::Perhaps;
            }
            Luck::Lost => bytes.sent = Sent::Perhaps,
            Luck::Refused => break, // what follows is not sent
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn on_any_history_each_transaction_is_in_one_block_once(count in 1..8usize, history in proptest::collection::vec(weather(), 0..30)) {
        let mut items = vec![(unsigned(), 0u32); count];
        let mut model = Model::default();
        for weather in &history {
            round(&mut items, &mut model, weather)?;
            if weather.forgets {
                model.pool.clear();
            }
            if weather.stranger {
                // Its own transaction takes the place; ours with that sequence is overtaken.
                model.pool.remove(&model.sequence);
                model.sequence += 1;
            }
            if weather.killed {
                items.iter_mut().filter_map(|(item, _)| item.bytes.as_mut()).for_each(|bytes| bytes.sent = Sent::Perhaps);
            }
            (0..weather.blocks).for_each(|_| model.block());
        }
        // From here on all goes well: everything must come to its end.
        let fine = Weather { luck: vec![], blocks: 1, forgets: false, stranger: false, killed: false };
        for _ in 0..(LIFE + 4) * 8 {
            round(&mut items, &mut model, &fine)?;
            model.block();
        }
        let mut included: Vec<usize> = model.blocks.iter().map(|(index, _)| *index).collect();
        included.sort_unstable();
        prop_assert_eq!(included, (0..count).collect::<Vec<_>>());
    }
}
