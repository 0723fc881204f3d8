//! Compression of rotated segments, and of what ended launches have left, on a thread that takes only what others leave.

use super::{
    Disk, LogError,
    parts::{Part, PartKind},
    rotate::{LEVEL, Rotation, unfinished},
};
use crate::sys::yield_to_all_others;
use std::{fs::File, io, path::Path, sync::Arc};
use tokio::sync::oneshot;

/// What is to be compressed of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    Segment(Part),
    /// All that its launch, which has ended, left in the live file.
    Rest,
}

/// That much compressed, or not and why. The thread lives as long as this takes.
pub(super) fn pack_aside(log: Arc<Path>, load: Load, disk: Arc<dyn Disk>) -> io::Result<oneshot::Receiver<Result<(), LogError>>> {
    let (done, packed) = oneshot::channel();
    std::thread::Builder::new().name("log-packer".into()).spawn(move || {
        yield_to_all_others();
        let packed = match load {
            Load::Segment(part) => pack(&log, part, disk.as_ref()),
            Load::Rest => Rotation::of(&log, disk.as_ref()).pack_rest(),
        };
        let _ = done.send(packed); // nobody waits: the daemon goes down
    })?;
    Ok(packed)
}

/// The compressed segment stands before the plain one goes. A segment that is gone was dropped meanwhile. Blocking.
pub(super) fn pack(log: &Path, part: Part, disk: &dyn Disk) -> Result<(), LogError> {
    let plain = part.path(log);
    let packed = Part { kind: PartKind::Packed, ..part }.path(log);
    let unfinished = unfinished(&packed);
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| LogError::Rotate { action, path, source }
    };
    let source = match File::open(&plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        source => source.map_err(failed("read", &plain))?,
    };
    let written = disk.write(&unfinished, &mut |target| {
        zstd::stream::copy_encode(&source, &mut *target, LEVEL)?;
        // The age of a segment is that of its lines.
        target.set_modified(source.metadata()?.modified()?)
    });
    if let Err(error) = written {
        // It stays as it is; a full disk takes it later.
        disk.remove(&unfinished).map_err(failed("remove", &unfinished))?;
        return Err(failed("write", &unfinished)(error));
    }
    disk.rename(&unfinished, &packed).map_err(failed("rename", &unfinished))?;
    disk.remove(&plain).map_err(failed("remove", &plain))
}
