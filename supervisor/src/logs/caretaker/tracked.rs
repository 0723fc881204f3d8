//! One log as the caretaker knows it, and what a look at it does. Blocking.

use super::{Finding, KeptLog, Report, reserve};
use crate::{
    logs::{
        Disk, LogError, LossCause,
        caps::Held,
        index::Index,
        parts::{Layout, Part, PartKind},
        rotate::{Loss, Rotated, Rotation},
    },
    model::Timestamp,
    sys::Clock,
};
use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// While a disk stays full, a node's losses are told together and so often.
const LOSSES_APART: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) kept: Arc<KeptLog>,
    pub(super) size: u64,
    /// Bytes that the live file holds above the floor.
    pub(super) live: u64,
    /// All that it takes on the disk.
    pub(super) bytes: u64,
    pub(super) oldest: Option<Timestamp>,
    /// Its launch is over, and the packer was told to take what is left.
    pub(super) packs_rest: bool,
    index: Index,
    /// Of the file, since it was there for the first time.
    inode: Option<u64>,
    deleted: bool,
    unsupported: bool,
    /// What went wrong at the last look; told once.
    failed: Option<String>,
    lost: Losses,
}

/// Losses to a full disk that were not told yet.
#[derive(Debug, Default)]
struct Losses {
    pending: Option<Loss>,
    told: Option<Timestamp>,
}

/// What came of a look.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) grown: u64,
    pub(super) to_pack: Vec<Part>,
    pub(super) reports: Vec<Report>,
}

impl Tracked {
    pub(super) fn new(kept: Arc<KeptLog>) -> Self {
        Self {
            kept,
            size: 0,
            live: 0,
            bytes: 0,
            oldest: None,
            packs_rest: false,
            index: Index::default(),
            inode: None,
            deleted: false,
            unsupported: false,
            failed: None,
            lost: Losses::default(),
        }
    }

    /// Whether any look has found the file.
    pub(super) fn was_there(&self) -> bool {
        self.inode.is_some()
    }

    /// The first look: finishes what a crash left, and finds what waits for compression.
    pub(super) fn take_up(&mut self, disk_floor: Option<u64>, disk: &dyn Disk, clock: &dyn Clock) -> Look {
        let mut look = Look::default();
        let log = &self.kept.path.clone();
        match Rotation::of(log, disk).recover() {
            Ok(loss) => look.reports.extend(loss.map(|loss| self.lost(loss))),
            Err(error) => look.reports.extend(self.fail(error)),
        }
        self.index = Index::open(log).unwrap_or_default();
        let layout = Layout::read(log).unwrap_or_default();
        look.to_pack.extend(layout.segments().filter(|part| part.kind == PartKind::Plain).copied());
        // What was written while no daemon ran is no growth that anybody saw.
        self.size = fs::metadata(log).map(|about| about.len()).unwrap_or(0);
        let further = self.look(disk_floor, disk, clock);
        look.to_pack.extend(further.to_pack);
        look.reports.extend(further.reports);
        look
    }

    pub(super) fn look(&mut self, disk_floor: Option<u64>, disk: &dyn Disk, clock: &dyn Clock) -> Look {
        let mut look = Look::default();
        if let Err(error) = self.try_to_look(disk_floor, disk, clock, &mut look) {
            look.reports.extend(self.fail(error));
        }
        look.reports.extend(self.due_loss(clock.now()));
        look
    }

    /// Notes that all that was known until now was written before `now`: growth was heard of this moment.
    pub(super) fn grows(&mut self, now: Timestamp) {
        // Without an index `--since` only gives more than it must.
        let _ = self.index.note(&self.kept.path, now, self.size);
    }

    fn try_to_look(&mut self, disk_floor: Option<u64>, disk: &dyn Disk, clock: &dyn Clock, look: &mut Look) -> Result<(), LogError> {
        let path = self.kept.path.clone();
        let fail = |source| LogError::Io { path: path.to_path_buf(), source };
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                look.reports.extend((self.inode.is_some() || self.kept.forked).then(|| self.deleted()).flatten());
                return Ok(());
            }
            Err(error) => return Err(fail(error)),
        };
        // The node holds its file open, so no other one can have its number.
        let inode = *self.inode.get_or_insert(about.ino());
        if self.kept.running && inode != about.ino() {
            look.reports.extend(self.deleted());
            return Ok(());
        }
        let rotation = Rotation::of(&path, disk);
        let mut size = about.len();
        if size < self.size {
            let loss = self.shrunk(rotation);
            // Whatever becomes of it, this was the time to try.
            self.size = size;
            look.reports.extend(loss?.map(|loss| self.lost(loss)));
            size = fs::metadata(&path).map_err(fail)?.len();
        }
        look.grown = size.saturating_sub(self.size);
        self.size = size;
        let _ = self.index.note(&path, clock.now(), size); // the moment after the size, or `--since` would miss what came between; see `grows`
        if self.kept.running {
            let Rotated { segments, losses, unsupported } = rotation.rotate(self.kept.limits.rotate, |total| reserve(disk_floor, total))?;
            look.to_pack.extend(segments);
            losses.into_iter().for_each(|loss| self.lost.add(loss));
            if unsupported && !std::mem::replace(&mut self.unsupported, true) {
                look.reports.push(self.report(Finding::CannotRotate));
            }
        }
        self.failed = None;
        self.count(&about)
    }

    /// Told once, and only of a log that is still written.
    fn deleted(&mut self) -> Option<Report> {
        let first = self.kept.running && !std::mem::replace(&mut self.deleted, true);
        first.then(|| self.report(Finding::Deleted))
    }

    /// Somebody truncated it.
    fn shrunk(&self, rotation: Rotation<'_>) -> Result<Option<Loss>, LogError> {
        let layout = Layout::read(&self.kept.path).map_err(|source| LogError::Io { path: self.kept.path.to_path_buf(), source })?;
        if layout.floor() > 0 {
            return rotation.mend(self.size);
        }
        // A log that was never rotated begins anew, as whoever truncated it will have meant; readers see that by themselves.
        Ok(Some(Loss { from: 0, to: self.size, cause: LossCause::Truncated }))
    }

    /// What it takes on the disk, by part.
    pub(super) fn held(&self, node: usize) -> Vec<Held<&Arc<KeptLog>>> {
        let path = &self.kept.path;
        let layout = Layout::read(path).unwrap_or_default();
        let held = |to, about: &Metadata, in_use| Held { log: &self.kept, node, to, bytes: about.blocks() * 512, at: modified(about), in_use };
        let segments = layout.segments().filter_map(|part| Some(held(part.to, &fs::metadata(part.path(path)).ok()?, false)));
        let live = fs::metadata(path).ok().filter(|about| about.len() > layout.floor()).map(|about| held(about.len(), &about, self.kept.running));
        segments.chain(live).collect()
    }

    pub(super) fn recount(&mut self) {
        if let Ok(about) = fs::metadata(&self.kept.path) {
            let _ = self.count(&about); // the next look says what is wrong
        }
    }

    fn count(&mut self, about: &Metadata) -> Result<(), LogError> {
        let layout = Layout::read(&self.kept.path).map_err(|source| LogError::Io { path: self.kept.path.to_path_buf(), source })?;
        self.live = about.len().saturating_sub(layout.floor());
        let held = self.held(0);
        let (bytes, oldest) = (held.iter().map(|part| part.bytes).sum(), held.iter().filter(|part| !part.in_use).map(|part| part.at).min());
        (self.bytes, self.oldest) = (bytes, oldest);
        Ok(())
    }

    fn lost(&self, loss: Loss) -> Report {
        self.report(Finding::Lost { from: loss.from, to: loss.to, cause: loss.cause })
    }

    fn due_loss(&mut self, now: Timestamp) -> Option<Report> {
        let quiet = self.lost.told.is_some_and(|told| now.since(told) < LOSSES_APART && told <= now);
        if quiet && self.kept.running {
            return None;
        }
        let loss = self.lost.pending.take()?;
        self.lost.told = Some(now);
        Some(self.lost(loss))
    }

    fn fail(&mut self, error: LogError) -> Option<Report> {
        let text = error.to_string();
        let news = self.failed.as_ref() != Some(&text);
        self.failed = Some(text);
        news.then(|| self.report(Finding::Failed(error)))
    }

    fn report(&self, finding: Finding) -> Report {
        Report { log: self.kept.clone(), finding }
    }
}

impl Losses {
    fn add(&mut self, loss: Loss) {
        let from = self.pending.map_or(loss.from, |pending| pending.from);
        self.pending = Some(Loss { from, ..loss });
    }
}

fn modified(about: &Metadata) -> Timestamp {
    let since = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
