//! The contract: one suite of behaviours that every store passes.

mod events;
mod feed;
mod objects;
mod random;

use super::{Change, Limits, MemoryStore, SqliteStore, Store, StoreError};
use crate::{
    model::{Event, Timestamp},
    sys::ManualClock,
};
use futures::{StreamExt, stream::BoxStream};
use std::{sync::Arc, time::Duration};

/// A fresh store, the clock that it was given, and what keeps its files alive.
struct Subject {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    _files: Option<tempfile::TempDir>,
}

impl Subject {
    fn memory(limits: Limits) -> Self {
        let clock = clock();
        Self { store: Arc::new(MemoryStore::with_limits(clock.clone(), limits)), clock, _files: None }
    }
    fn sqlite(limits: Limits) -> Self {
        let (clock, files) = (clock(), tempfile::tempdir().expect("a temp folder"));
        let store = SqliteStore::open(&files.path().join("store.db"), clock.clone(), limits).expect("a fresh store");
        Self { store: Arc::new(store), clock, _files: Some(files) }
    }
}

const BEGIN: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(BEGIN))
}

/// Each behaviour is an `async fn(fn(Limits) -> Subject)`; each becomes a test per store.
macro_rules! contract {
    ($($file:ident: $($behaviour:ident),+;)+) => {
        contract!(@store memory, $($file: $($behaviour),+;)+);
        contract!(@store sqlite, $($file: $($behaviour),+;)+);
    };
    (@store $store:ident, $($file:ident: $($behaviour:ident),+;)+) => {
        mod $store {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::$file::$behaviour(super::Subject::$store).await;
                }
            )+)+
        }
    };
}

contract! {
    objects: what_is_put_is_got_back_stamped,
        a_revision_is_never_given_twice_and_rises_with_each_write,
        creating_what_exists_is_refused,
        updating_what_is_missing_is_refused,
        an_update_of_an_old_revision_is_a_conflict,
        of_two_writers_with_one_revision_one_wins,
        a_put_with_no_expectation_creates_and_replaces,
        one_refused_write_undoes_the_whole_commit,
        later_writes_of_a_commit_see_the_earlier_ones,
        a_child_without_its_parent_is_refused,
        deleting_a_devnet_takes_all_that_it_owns_and_nothing_else,
        deleting_a_node_takes_its_launches,
        a_deletion_minds_its_expectation,
        a_lease_is_unique_over_all_namespaces,
        lists_are_selected_and_sorted_for_people,
        a_list_of_several_kinds_has_them_one_after_the_other,
        created_at_is_set_once_and_kept,
        meta_values_are_kept_and_replaced;
    feed: a_watch_sees_each_write_once_in_order,
        a_watch_from_a_list_misses_nothing,
        a_watch_resumes_after_any_revision_with_no_gap_and_no_double,
        a_cascade_shows_in_the_feed_children_first,
        a_deletion_carries_the_object_as_it_last_was,
        a_refused_commit_shows_nothing_in_the_feed,
        a_watch_takes_only_what_its_selector_takes,
        a_watch_misses_nothing_when_memory_is_given_back,
        a_watch_from_before_the_compaction_is_told_so,
        a_watch_from_the_future_is_told_to_list_again,
        a_slow_reader_falls_behind_and_holds_no_writer_up,
        a_store_bounds_its_feed_without_being_asked,
        a_watch_across_concurrent_writers_has_every_revision,
        a_watch_ends_with_its_store;
    events: events_are_numbered_in_order_of_commit,
        events_are_filtered_by_each_field,
        a_limit_takes_the_newest,
        events_outlive_their_devnet,
        an_event_is_found_by_id,
        one_event_id_is_taken_once,
        a_refused_commit_records_no_event,
        a_watch_of_events_gives_old_and_new_in_order,
        a_watch_of_compacted_events_is_told_so,
        events_are_bounded_and_numbers_go_on;
}

fn limits(changes: usize, events: usize) -> Limits {
    Limits { changes, events }
}

/// The next entry of a stream; fails when none comes in 5 s.
async fn next<T>(stream: &mut BoxStream<'static, Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_secs(5), stream.next()).await.expect("a change within 5 s").expect("the stream goes on")
}

async fn take<T>(stream: &mut BoxStream<'static, Result<T, StoreError>>, count: usize) -> Vec<T> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        taken.push(next(stream).await.expect("no error"));
    }
    taken
}

/// True when nothing comes for a moment.
async fn is_quiet<T>(stream: &mut BoxStream<'static, Result<T, StoreError>>) -> bool {
    tokio::time::timeout(Duration::from_millis(30), stream.next()).await.is_err()
}

/// `5 put Node default/net/validator-0`
fn words(change: &Change) -> String {
    format!("{} {} {}", change.revision, if change.deleted { "delete" } else { "put" }, change.key)
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}
