//! Rotation, dropping and compression on real files, with the world ending between any two steps.

use super::*;
use crate::logs::{
    Item, LogReader,
    pack::pack,
    tail, tail_offset,
    testing::{TestDisk, lost_of},
};
use proptest::prelude::*;
use std::{io::Write, ops::Range, sync::atomic::Ordering};

struct Bench {
    _dir: tempfile::TempDir,
    log: PathBuf,
    node: File,
    written: Vec<u8>,
    /// Up to where bytes may be lost, since somebody asked for it.
    given_up: u64,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l1.log");
        let node = File::options().append(true).create(true).open(&log).unwrap();
        Self { _dir: dir, log, node, written: Vec::new(), given_up: 0 }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.node.write_all(bytes).unwrap();
        self.written.extend(bytes);
    }

    fn on<'a>(&'a self, disk: &'a TestDisk) -> Rotation<'a> {
        Rotation::of(&self.log, disk)
    }

    fn rotate(&self, keep: u64) -> Rotated {
        self.on(&TestDisk::endless()).rotate(keep, |_| 0).unwrap()
    }

    fn layout(&self) -> Layout {
        Layout::read(&self.log).unwrap()
    }

    /// Reads all; whatever is lost was given up.
    fn check(&self) -> Vec<Range<u64>> {
        let lost = lost_of(&self.log, &self.written);
        assert!(lost.iter().all(|range| range.end <= self.given_up), "{lost:?} is lost, {} was given up", self.given_up);
        lost
    }

    fn blocks(&self) -> u64 {
        fs::metadata(&self.log).unwrap().blocks() * 512
    }
}

fn numbered(range: Range<usize>) -> Vec<u8> {
    range.flat_map(|i| format!("line {i:08}\n").into_bytes()).collect()
}

#[test]
fn old_lines_move_into_segments_and_the_live_file_gives_their_blocks_back() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..100_000));
    let before = bench.blocks();
    let rotated = bench.rotate(200_000);
    assert!(rotated.segments.len() > 10 && rotated.losses.is_empty(), "{rotated:?}");
    assert!(bench.blocks() < 250_000 && before > 1_300_000, "{} of {before}", bench.blocks());
    bench.say(b"and the node goes on\n");
    assert_eq!(bench.check(), []);
    for segment in bench.layout().segments() {
        assert!(fs::read(segment.path(&bench.log)).unwrap().ends_with(b"\n"), "cut between lines");
    }
    assert_eq!(bench.rotate(200_000), Rotated::default(), "there is nothing more to do");
}

#[test]
fn each_cursor_and_the_tail_read_over_segments_of_any_kind() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..10_000));
    for part in bench.rotate(20_000).segments.iter().step_by(2) {
        pack(&bench.log, *part, &TestDisk::endless()).unwrap();
    }
    for line in (0..10_000).step_by(997) {
        let mut reader = crate::logs::LogReader::open(&bench.log, line * 14).unwrap();
        let Some(crate::logs::Item::Line { bytes, .. }) = reader.next_whole().unwrap() else { panic!("line {line}") };
        assert_eq!(bytes, format!("line {line:08}").into_bytes());
        let lines = usize::try_from(10_000 - line).unwrap();
        assert_eq!(tail_offset(&bench.log, lines).unwrap(), line * 14);
    }
    assert_eq!(tail(&bench.log, 5_000).unwrap().len(), 5_000);
}

#[test]
fn compressed_segments_are_small_and_keep_their_age() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..50_000));
    let segment = bench.rotate(100_000).segments[0];
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    File::options().write(true).open(segment.path(&bench.log)).unwrap().set_modified(old).unwrap();
    pack(&bench.log, segment, &TestDisk::endless()).unwrap();
    let about = fs::metadata(Part { kind: PartKind::Packed, ..segment }.path(&bench.log)).unwrap();
    assert!(about.len() * 4 < segment.to - segment.from, "{}", about.len());
    assert_eq!(about.modified().unwrap(), old);
    assert!(!segment.path(&bench.log).exists());
    assert_eq!(bench.check(), []);
}

#[test]
fn a_line_longer_than_anybody_reads_is_cut_and_read_whole() {
    let mut bench = Bench::new();
    bench.say(&vec![b'x'; 5 * MAX_LINE]);
    bench.say(b"\nshort\n");
    bench.rotate(MAX_LINE as u64);
    assert!(!bench.layout().parts.is_empty());
    assert_eq!(bench.check(), []);
}

#[test]
fn on_a_full_disk_lines_go_without_a_copy_and_the_gap_is_told() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..10_000));
    bench.rotate(100_000);
    let floor = bench.layout().floor();
    bench.say(&numbered(10_000..20_000));
    let disk = TestDisk::endless();
    disk.full.store(true, Ordering::SeqCst);
    let rotated = bench.on(&disk).rotate(100_000, |_| 1).unwrap();
    assert!(rotated.segments.is_empty() && rotated.losses.iter().all(|loss| loss.cause == LossCause::Disk));
    bench.given_up = bench.layout().floor();
    assert_eq!(bench.check(), std::slice::from_ref(&(floor..bench.given_up)), "one gap, and what was copied before is there");
    assert!(bench.blocks() < 150_000);
    // Asked for more lines than stand behind the gap, the tail begins with the gap.
    assert_eq!(tail_offset(&bench.log, 19_000).unwrap(), floor);
    bench.say(&numbered(20_000..30_000));
    bench.rotate(100_000);
    assert_eq!(bench.check().len(), 1);
}

#[test]
fn where_holes_cannot_be_punched_a_running_log_is_left_alone_until_the_disk_is_full() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..10_000));
    let disk = TestDisk::endless();
    disk.no_holes.store(true, Ordering::SeqCst);
    let rotated = bench.on(&disk).rotate(10_000, |_| 0).unwrap();
    assert!(rotated.unsupported && bench.layout().parts.is_empty());
    disk.full.store(true, Ordering::SeqCst);
    let rotated = bench.on(&disk).rotate(10_000, |_| 1).unwrap();
    assert_eq!(rotated.losses, [Loss { from: 0, to: 140_000, cause: LossCause::Disk }]);
    bench.say(b"it goes on at the end\n");
    bench.given_up = 140_000;
    assert_eq!(bench.check(), std::slice::from_ref(&(0..140_000)));
    assert!(bench.blocks() < 10_000);
}

#[test]
fn an_ended_log_can_be_dropped_whole_with_and_without_holes() {
    for no_holes in [false, true] {
        let mut bench = Bench::new();
        bench.say(&numbered(0..10_000));
        bench.given_up = 140_000;
        let disk = TestDisk::endless();
        disk.no_holes.store(no_holes, Ordering::SeqCst);
        bench.on(&disk).discard(140_000, LossCause::Cap, true).unwrap();
        assert_eq!(bench.check(), std::slice::from_ref(&(0..140_000)));
        assert_eq!(bench.blocks(), 0, "no holes: {no_holes}");
    }
}

#[test]
fn what_an_ended_launch_left_becomes_compressed_with_its_time_and_stays_where_no_holes_can_be() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..1_000_000)[..10 << 20]);
    bench.rotate(8 << 20);
    let floor = bench.layout().floor();
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    bench.node.set_modified(yesterday).unwrap();
    let disk = TestDisk::endless();
    disk.no_holes.store(true, Ordering::SeqCst);
    bench.on(&disk).pack_rest().unwrap();
    assert_eq!(bench.layout().floor(), floor);
    disk.no_holes.store(false, Ordering::SeqCst);
    bench.on(&disk).pack_rest().unwrap();
    assert_eq!(bench.check(), []);
    let layout = bench.layout();
    let fresh: Vec<&Part> = layout.segments().filter(|part| part.from >= floor).collect();
    assert!(fresh.len() >= 2 && fresh.iter().all(|part| part.kind == PartKind::Packed && part.to - part.from <= SEGMENT), "{fresh:?}");
    for path in fresh.iter().map(|part| part.path(&bench.log)).chain([bench.log.clone()]) {
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), yesterday, "{}", path.display());
    }
    assert_eq!((layout.floor(), bench.blocks()), (10 << 20, 0));
    bench.on(&disk).pack_rest().unwrap();
    assert_eq!(bench.layout(), layout, "there is nothing left to do");
}

#[test]
fn a_follower_does_not_see_the_zeros_of_a_truncated_log_that_is_mended() {
    for steps in 0..6 {
        // It looks after each step of the mend.
        let mut bench = Bench::new();
        bench.say(&numbered(0..10_000));
        bench.rotate(50_000);
        let floor = bench.layout().floor();
        let mut reader = LogReader::open(&bench.log, floor).unwrap();
        bench.node.set_len(0).unwrap();
        assert!(matches!(reader.next_whole().unwrap(), None | Some(Item::Truncated { .. } | Item::Lost { .. })));
        let _ = bench.on(&TestDisk::ending_after(steps)).mend(140_000);
        while let Some(item) = reader.next_or_rest().unwrap() {
            assert!(!matches!(&item, Item::Line { bytes, .. } if bytes.contains(&0)), "after {steps} steps: {item:?}");
        }
    }
}

#[test]
fn a_rotated_log_that_somebody_truncates_goes_on_behind_all_known_offsets() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..10_000));
    bench.rotate(50_000);
    let floor = bench.layout().floor();
    bench.node.set_len(0).unwrap();
    // Written between the truncation and our look.
    bench.node.write_all(b"in between\n").unwrap();
    let loss = bench.on(&TestDisk::endless()).mend(140_000).unwrap();
    assert_eq!(loss, Some(Loss { from: floor, to: 140_000, cause: LossCause::Truncated }));
    bench.written.extend(b"in between\n");
    bench.say(b"afterwards\n");
    bench.given_up = 140_000;
    assert_eq!(bench.check(), std::slice::from_ref(&(floor..140_000)));
}

#[test]
fn a_truncation_while_no_daemon_ran_is_mended_at_the_next_start() {
    let mut bench = Bench::new();
    bench.say(&numbered(0..10_000));
    bench.rotate(50_000);
    let floor = bench.layout().floor();
    bench.node.set_len(0).unwrap();
    bench.node.write_all(b"alone\n").unwrap();
    bench.on(&TestDisk::endless()).recover().unwrap();
    bench.written.truncate(usize::try_from(floor).unwrap());
    bench.written.extend(b"alone\n");
    assert_eq!(bench.check(), []);
}

#[derive(Clone, Debug)]
enum Step {
    Say(Vec<u8>),
    Rotate { keep: u64, end: usize },
    Pack { which: usize, end: usize },
    Drop { which: usize, end: usize },
    DropLive { end: usize },
    PackRest { end: usize },
    Full { keep: u64, end: usize },
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly killed within.
    let end = || prop_oneof![0..12_usize, Just(usize::MAX)];
    let line = prop::collection::vec(prop_oneof![9 => b'a'..=b'z', 1 => any::<u8>()], 0..300);
    let text = (prop::collection::vec(line, 1..40), any::<bool>()).prop_map(|(lines, ended)| {
        let mut text = lines.join(&b'\n');
        text.extend(ended.then_some(b'\n'));
        text
    });
    prop_oneof![
        4 => text.prop_map(Step::Say),
        3 => (100..4_000_u64, end()).prop_map(|(keep, end)| Step::Rotate { keep, end }),
        3 => (any::<usize>(), end()).prop_map(|(which, end)| Step::Pack { which, end }),
        1 => (any::<usize>(), end()).prop_map(|(which, end)| Step::Drop { which, end }),
        1 => end().prop_map(|end| Step::DropLive { end }),
        2 => end().prop_map(|end| Step::PackRest { end }),
        1 => (100..4_000_u64, end()).prop_map(|(keep, end)| Step::Full { keep, end }),
    ]
}

fn take(bench: &mut Bench, step: Step) -> TestDisk {
    let end = match &step {
        Step::Say(_) => usize::MAX,
        Step::Rotate { end, .. }
        | Step::Pack { end, .. }
        | Step::Drop { end, .. }
        | Step::DropLive { end }
        | Step::PackRest { end }
        | Step::Full { end, .. } => *end,
    };
    let disk = TestDisk::ending_after(end);
    let layout = bench.layout();
    let pick = |which: usize| layout.segments().nth(which % layout.segments().count().max(1)).copied();
    let result = match step {
        Step::Say(text) => {
            bench.say(&text);
            Ok(())
        }
        Step::Rotate { keep, .. } => bench.on(&disk).rotate(keep, |_| 0).map(drop),
        Step::Pack { which, .. } => pick(which).filter(|part| part.kind == PartKind::Plain).map_or(Ok(()), |part| pack(&bench.log, part, &disk)),
        Step::Drop { which, .. } => pick(which).map_or(Ok(()), |part| {
            bench.given_up = bench.given_up.max(part.to);
            bench.on(&disk).discard(part.to, LossCause::Cap, false)
        }),
        Step::DropLive { .. } => {
            let size = bench.written.len() as u64;
            bench.given_up = size;
            if size == 0 { Ok(()) } else { bench.on(&disk).discard(size, LossCause::Cap, true) }
        }
        Step::PackRest { .. } => bench.on(&disk).pack_rest(),
        Step::Full { keep, .. } => {
            disk.full.store(true, Ordering::SeqCst);
            bench.given_up = bench.written.len() as u64;
            bench.on(&disk).rotate(keep, |_| 1).map(drop)
        }
    };
    assert!(result.is_ok() || disk.has_ended(), "{result:?}");
    disk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_is_interrupted_a_reader_gets_what_was_written_or_hears_that_it_is_lost(steps in prop::collection::vec(step(), 1..25)) {
        let mut bench = Bench::new();
        for step in steps {
            let disk = take(&mut bench, step);
            // Also before anybody has repaired anything.
            bench.check();
            if disk.has_ended() {
                // The next daemon may be killed while it repairs, too.
                let _ = bench.on(&TestDisk::ending_after(1)).recover();
                bench.check();
                bench.on(&TestDisk::endless()).recover().unwrap();
                bench.check();
            }
        }
        bench.on(&TestDisk::endless()).recover().unwrap();
        bench.rotate(1_000);
        bench.check();
        prop_assert!(names(&bench.log).unwrap().iter().all(|name| !name.ends_with(UNFINISHED)));
        prop_assert!(bench.layout().floor() + 1_000 >= bench.written.len() as u64);
        prop_assert!(bench.blocks() < 16 << 10, "the hole is there after all: {}", bench.blocks());
    }
}
